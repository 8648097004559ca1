//! References in the responses of replicas: an address of any replica becomes that of the first one,
//! by which everything above knows them all.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::replica::Replica;
use crate::config::upstream::UpstreamUrl;
use crate::registry::host::Authority;

/// Rewrites the references of a response of one of the replicas.
pub(super) fn generalize(replicas: &[Arc<Replica>], headers: &mut HeaderMap) {
    let Some((first, others)) = replicas.split_first() else {
        return;
    };
    for name in [header::LOCATION, header::LINK] {
        if headers.contains_key(&name) {
            let others = others.iter().map(|replica| replica.target());
            rewrite(headers, &name, first.target(), others);
        }
    }
}

fn rewrite<'a>(
    headers: &mut HeaderMap,
    name: &HeaderName,
    first: &UpstreamUrl,
    others: impl Iterator<Item = &'a UpstreamUrl> + Clone,
) {
    let values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for value in values {
        let general = value
            .to_str()
            .ok()
            .and_then(|text| general(text, first, others.clone()));
        headers.append(name, general.unwrap_or(value));
    }
}

/// The value with the authority of the first replica; `None` if it names none of the others.
fn general<'a>(
    text: &str,
    first: &UpstreamUrl,
    mut others: impl Iterator<Item = &'a UpstreamUrl>,
) -> Option<HeaderValue> {
    let start = text.find("//")? + 2;
    let (before, rest) = text.split_at_checked(start)?;
    // A path may contain what looks like an authority.
    if !is_start(before) {
        return None;
    }
    let end = rest.find(['/', '?', '#', '>']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end)?;
    let authority = Authority::parse(authority).ok()?;
    let scheme = first.scheme.default_port();
    let port = authority.port.unwrap_or(scheme);
    if !others.any(|other| other.host == authority.host && other.port == port) {
        return None;
    }
    let own = first.host.authority(first.port, scheme);
    HeaderValue::try_from(format!("{before}{own}{after}")).ok()
}

/// Whether a reference with an authority begins so: `//`, `http://`, or the same after `<`.
fn is_start(text: &str) -> bool {
    let text = text.strip_prefix('<').unwrap_or(text);
    matches!(text, "//" | "http://" | "https://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::Scheme;
    use crate::registry::host::HostName;

    fn replica(host: &str, port: u16) -> UpstreamUrl {
        UpstreamUrl {
            scheme: Scheme::Http,
            host: HostName::parse(host).unwrap(),
            port,
            base_path: String::new(),
        }
    }

    #[test]
    fn an_address_of_any_replica_becomes_that_of_the_first() {
        let first = replica("a.test", 5000);
        let others = [replica("b.test", 5000), replica("c.test", 80)];
        let rewritten = |text: &str| {
            general(text, &first, others.iter()).map(|value| value.to_str().unwrap().to_owned())
        };
        for (text, wanted) in [
            (
                "http://b.test:5000/v2/x?y=//z",
                "http://a.test:5000/v2/x?y=//z",
            ),
            ("//B.test:5000/v2/", "//a.test:5000/v2/"),
            ("http://c.test", "http://a.test:5000"),
            ("http://c.test:80/", "http://a.test:5000/"),
            (
                "<http://b.test:5000/v2/_catalog?n=1>; rel=\"next\"",
                "<http://a.test:5000/v2/_catalog?n=1>; rel=\"next\"",
            ),
        ] {
            assert_eq!(rewritten(text).as_deref(), Some(wanted), "{text}");
        }
        for text in [
            "/v2/x",
            "/v2//b.test:5000/",
            "/v2/x?to=http://b.test:5000/",
            "http://a.test:5000/v2/",
            "http://b.test/v2/",
            "http://b.test:5001/",
            "https//b.test:5000/",
            "http://user@b.test:5000/",
            "",
        ] {
            assert_eq!(rewritten(text), None, "{text}");
        }
    }
}
