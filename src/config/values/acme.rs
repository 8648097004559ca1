//! Parsers for values of ACME: contact addresses, certificate names, directories of CAs.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::{InvalidValue, host_name, text};
use crate::config::acme::{AcmeDirectory, CertifiedName, KnownCa};

/// The contact address for the CA, or `true` for the address of moorgate.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum RawAcme {
    Contact(String),
    Flag(bool),
}

/// `"ops@example.com"`, `true` or `false`.
pub(in crate::config) fn acme(value: &DeValue<'_>) -> Result<RawAcme, InvalidValue> {
    match value.as_bool() {
        Some(flag) => Ok(RawAcme::Flag(flag)),
        None => email(value).map(RawAcme::Contact),
    }
}

/// One mail address that needs no escapes in a `mailto:` URL (RFC 8555 §7.3).
pub(in crate::config) fn email(value: &DeValue<'_>) -> Result<String, InvalidValue> {
    let help = "write one mail address, such as \"ops@example.com\"";
    let text = text(value, help)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.!#$&'*+-/=^_`{|}~".contains(&byte);
    let parts: Vec<_> = text.split('@').collect();
    match parts[..] {
        [user, domain] if !user.is_empty() && domain.contains('.') && text.bytes().all(plain) => {
            Ok(text.to_owned())
        }
        _ => Err(InvalidValue::new("is not a mail address", help)),
    }
}

/// A host name, or `*.` and a host name.
pub(in crate::config) fn certified_name(
    value: &DeValue<'_>,
) -> Result<CertifiedName, InvalidValue> {
    let written = text(
        value,
        "write a DNS name such as \"*.example.com\" or \"ci.example.com\"",
    )?;
    let Some(parent) = written.strip_prefix("*.") else {
        return host_name(value).map(CertifiedName::Host);
    };
    let parent = host_name(&DeValue::String(parent.into()))?;
    match parent.ip() {
        None => Ok(CertifiedName::Wildcard(parent)),
        Some(_) => Err(InvalidValue::new(
            "is a star before an address",
            "a star stands before names only",
        )),
    }
}

/// The name of a known CA, or the https URL of a directory.
pub(in crate::config) fn directory(value: &DeValue<'_>) -> Result<AcmeDirectory, InvalidValue> {
    let known: Vec<_> = KnownCa::ALL
        .iter()
        .map(|ca| format!("\"{}\"", ca.name()))
        .collect();
    let help = format!(
        "write one of {}, or the https:// URL of a directory",
        known.join(", ")
    );
    let text = text(value, &help)?;
    if let Some(ca) = KnownCa::ALL.into_iter().find(|ca| ca.name() == text) {
        return Ok(AcmeDirectory::Known(ca));
    }
    let url = text
        .strip_prefix("https://")
        .and_then(|_| text.parse::<http::Uri>().ok());
    let valid = url.filter(|url| {
        url.authority()
            .is_some_and(|host| !host.as_str().contains('@'))
    });
    match valid {
        Some(_) => Ok(AcmeDirectory::at(text)),
        None => Err(InvalidValue::new(
            "is neither a known CA nor an https URL",
            help,
        )),
    }
}

/// A name that the CA defines: of a profile, of a chain's issuer, of a key.
pub(in crate::config) fn ca_defined_name(value: &DeValue<'_>) -> Result<String, InvalidValue> {
    let help = "write the name that the CA documents, in quotes";
    let text = text(value, help)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(InvalidValue::new("is not a name", help));
    }
    Ok(text.to_owned())
}

/// A DNS server: `"192.0.2.53"`, `"127.0.0.1:5353"`, `"[2001:db8::53]:53"`.
pub(in crate::config) fn resolver(value: &DeValue<'_>) -> Result<SocketAddr, InvalidValue> {
    let help = "write the address of a DNS server, such as \"192.0.2.53\" or \"127.0.0.1:5353\"";
    let text = text(value, help)?;
    let with_port = || text.parse().ok();
    let server = text
        .parse()
        .ok()
        .map(|address: IpAddr| SocketAddr::new(address, DNS_PORT))
        .or_else(with_port);
    server
        .filter(|server| server.port() != 0)
        .ok_or_else(|| InvalidValue::new("is not an address", help))
}

/// A program, or one of its arguments.
pub(in crate::config) fn argument(value: &DeValue<'_>) -> Result<String, InvalidValue> {
    let help = "write the program and its arguments, each in quotes";
    let text = text(value, help)?;
    if text.contains('\0') {
        return Err(InvalidValue::new("is not an argument", help));
    }
    Ok(text.to_owned())
}

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn read<T>(
        toml: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, InvalidValue>,
    ) -> Result<T, String> {
        let text = format!("key = {toml}");
        let document = DeTable::parse(&text).expect("TOML");
        read(document.get_ref().get("key").expect("the key").get_ref())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_contact_is_one_address() {
        assert_eq!(
            read("'ops@example.com'", acme),
            Ok(RawAcme::Contact("ops@example.com".to_owned()))
        );
        assert_eq!(read("true", acme), Ok(RawAcme::Flag(true)));
        for bad in [
            "''",
            "'ops'",
            "'@example.com'",
            "'ops@'",
            "'a@b.c,d@e.f'",
            "'a@b.c?x=y'",
            "'a b@c.d'",
        ] {
            assert_eq!(
                read(bad, email),
                Err("is not a mail address".to_owned()),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_star_stands_before_a_name() {
        let name = read("'*.Example.com'", certified_name).expect("a wildcard");
        assert_eq!(
            (name.to_string().as_str(), name.is_wildcard()),
            ("*.example.com", true)
        );
        for bad in [
            "'*'",
            "'*.'",
            "'*.*.example.com'",
            "'a.*.example.com'",
            "'*.192.0.2.1'",
        ] {
            read(bad, certified_name).expect_err(bad);
        }
    }

    #[test]
    fn a_resolver_is_an_address_with_or_without_a_port() {
        let table = [
            ("'192.0.2.53'", "192.0.2.53:53"),
            ("'127.0.0.1:5353'", "127.0.0.1:5353"),
            ("'2001:db8::53'", "[2001:db8::53]:53"),
            ("'[2001:db8::53]:5353'", "[2001:db8::53]:5353"),
        ];
        for (written, server) in table {
            assert_eq!(
                read(written, resolver).expect("an address").to_string(),
                server
            );
        }
        for bad in [
            "''",
            "'dns.example.com'",
            "'192.0.2.53:0'",
            "'192.0.2.53:x'",
            "53",
        ] {
            read(bad, resolver).expect_err(bad);
        }
    }

    #[test]
    fn a_directory_is_known_or_an_https_url() {
        assert_eq!(
            read("'letsencrypt'", directory),
            Ok(AcmeDirectory::Known(KnownCa::LetsEncrypt))
        );
        let url = "https://ca.example.com:9000/acme/directory";
        assert_eq!(
            read(&format!("'{url}'"), directory),
            Ok(AcmeDirectory::Url(url.to_owned()))
        );
        for ca in KnownCa::ALL {
            assert_eq!(
                read(&format!("'{}'", ca.url()), directory),
                Ok(AcmeDirectory::Known(ca))
            );
        }
        for bad in [
            "'lets-encrypt'",
            "'http://ca/dir'",
            "'https://'",
            "'https://me:pw@ca/dir'",
            "1",
        ] {
            read(bad, directory).expect_err(bad);
        }
    }
}
