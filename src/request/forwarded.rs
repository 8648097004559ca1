//! The client of a request that came through a trusted proxy, from `X-Forwarded-For`. `Forwarded`
//! (RFC 7239) is not read: two headers can contradict each other.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::config::network::TrustedProxies;

/// The client that a trusted proxy names; none where the connection's own is the client.
///
/// Each proxy appends its own client, so the list is read from its end: the first address that is
/// no trusted proxy is the client, which may have invented everything before it. At an element that
/// is no address, the proxy that appended it counts as the client.
pub(super) fn client(
    peer: IpAddr,
    trusted: &TrustedProxies,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    if !trusted.contain(peer) {
        return None;
    }
    let lines: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    // Several lines are one list (RFC 9110 §5.3).
    let elements = lines
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    let mut client = None;
    for element in elements {
        let Some(address) = address(element) else {
            break;
        };
        client = Some(address);
        if !trusted.contain(address) {
            break;
        }
    }
    client
}

/// An address, also with the port that some proxies write.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches([' ', '\t']);
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(bare) => IpAddr::V6(bare.parse().ok()?),
            None => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::network::Network;

    fn trusted() -> TrustedProxies {
        ["10.0.0.0/8", "fd00::/8"]
            .map(|network| Network::parse(network).expect(network))
            .into_iter()
            .collect()
    }

    fn client_of(peer: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_str(line).expect("a value"),
            );
        }
        client(peer.parse().expect(peer), &trusted(), &headers).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&["192.0.2.7"], Some("192.0.2.7")),
            (&["198.51.100.1, 192.0.2.7"], Some("192.0.2.7")),
            (
                &["198.51.100.1,192.0.2.7 , 10.0.0.2,fd00::1"],
                Some("192.0.2.7"),
            ),
            (
                &["198.51.100.1", "192.0.2.7", "10.0.0.2"],
                Some("192.0.2.7"),
            ),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.7"], Some("192.0.2.7")),
            (&["192.0.2.7:1234"], Some("192.0.2.7")),
            (&["[2001:db8::1]:1234"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            // All of them are trusted: it began with the first.
            (&["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
            // No address: the proxy that appended it counts as the client.
            (&["192.0.2.7, unknown"], None),
            (&["192.0.2.7, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["192.0.2.7, "], None),
            (&["192.0.2.7", ""], None),
            (&["192.0.2"], None),
            (&[""], None),
            (&[], None),
        ];
        for (lines, client) in cases {
            assert_eq!(
                client_of("10.0.0.1", lines).as_deref(),
                *client,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn other_peers_are_not_trusted() {
        for peer in ["192.0.2.1", "11.0.0.1", "2001:db8::1"] {
            assert_eq!(client_of(peer, &["198.51.100.1"]), None);
        }
        assert_eq!(
            client_of("::ffff:10.0.0.1", &["198.51.100.1"]).as_deref(),
            Some("198.51.100.1")
        );
    }

    proptest! {
        /// What a client sends itself comes before what the proxy appends, and has no effect.
        #[test]
        fn what_a_client_prepends_has_no_effect(invented in "[ -~]{0,100}") {
            let both = format!("{invented},192.0.2.7");
            for lines in [&[both.as_str()][..], &[&invented, "192.0.2.7"]] {
                let client = client_of("10.0.0.1", lines);
                prop_assert_eq!(client.as_deref(), Some("192.0.2.7"));
            }
        }
    }
}
