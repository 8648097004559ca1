//! Parsers for the names of domains. What is no name is told by what it is instead: an address, a
//! URL, a name with a port, a wildcard, or a name that is not in ASCII.

use std::net::IpAddr;

use toml::de::DeValue;

use super::{InvalidValue, Value, text};
use crate::registry::host::{Authority, HostError, HostName};

/// The public name of a domain.
pub(in crate::config) fn domain_name(value: &DeValue<'_>) -> Value<HostName> {
    if let Ok(written) = text(value, NAME_HELP)
        && let Ok(Authority {
            host,
            port: Some(port),
        }) = Authority::parse(written)
    {
        return Err(InvalidValue::new(
            "has a port",
            format!(
                "write domain = \"{host}\", and the port as an address to listen on: listen = [\":{port}\"]"
            ),
        ));
    }
    let name = host_name(value)?;
    match name.ip() {
        Some(_) => Err(InvalidValue::new(
            "is an address, not a name",
            "write the public DNS name; addresses may stand in `aliases`",
        )),
        None => Ok(name),
    }
}

/// A DNS name or an IP address.
pub(in crate::config) fn host_name(value: &DeValue<'_>) -> Value<HostName> {
    let text = text(value, NAME_HELP)?;
    HostName::parse(text).map_err(|error| no_name(text, error, NAME_HELP))
}

/// An alias of a domain: a name or an address; with a port, it applies to listeners of that port.
pub(in crate::config) fn alias(value: &DeValue<'_>) -> Value<Authority> {
    authority(value, ALIAS_HELP)
}

/// A host to which redirects are followed; with a port, to that port alone.
pub(in crate::config) fn follow_host(value: &DeValue<'_>) -> Value<Authority> {
    authority(
        value,
        "write a host such as \"minio.internal\" or \"10.0.0.5:9000\"",
    )
}

fn authority(value: &DeValue<'_>, help: &'static str) -> Value<Authority> {
    let text = text(value, help)?;
    // An IPv6 address without brackets has colons and no port.
    let alias = match text.parse::<IpAddr>() {
        Ok(address) => Ok(Authority {
            host: HostName::from(address),
            port: None,
        }),
        Err(_) => Authority::parse(text),
    };
    alias.map_err(|error| no_name(text, error, help))
}

/// What a text is that is no name.
fn no_name(text: &str, error: HostError, help: &str) -> InvalidValue {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority != text
        && let Ok(Authority { host, port: _ }) = Authority::parse(authority)
    {
        let help = format!("write the name alone: \"{host}\"");
        return InvalidValue::new("is a URL, not a name", help);
    }
    if text.starts_with("*.") {
        return InvalidValue::new(
            "is a wildcard, which is no name of a domain",
            "write each name: one in `domain`, the others in `aliases`; a certificate for all of them is asked for by \
             `names` in [tls]",
        );
    }
    if !text.is_ascii()
        && let Ok(ascii) = idna::domain_to_ascii(text)
        && HostName::parse(&ascii).is_ok()
    {
        let help = format!("write it as DNS and certificates have it: \"{ascii}\"");
        return InvalidValue::new("is not in ASCII", help);
    }
    InvalidValue::new(format!("is wrong: {error}"), help)
}

const NAME_HELP: &str =
    "write a DNS name such as \"docker-ci.example.com\", without scheme, port and path";
const ALIAS_HELP: &str =
    "write a DNS name such as \"registry.example.com\", or \"localhost:5001\" for one port only";
