//! IP networks: in settings, and those of clients.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A network; a single address is a network with a full prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network, worded as a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("is not a network")]
    Malformed,
    /// The address has bits beyond the prefix: one of the two is a mistake.
    #[error("is an address within a network: is it the network `{network}` or the address alone?")]
    HostBits {
        /// The network that contains the address.
        network: Network,
    },
    /// Contains IPv4-mapped and other IPv6 addresses. Mapped addresses of clients are converted to
    /// IPv4, so the network would never match them.
    #[error("has the addresses of IPv4 in it, written as IPv6, and others")]
    Mixed,
}

impl Network {
    /// Parses `10.0.0.0/8`, `fd00::/8`, or a single address. `::ffff:10.0.0.0/104` equals
    /// `10.0.0.0/8`; `::/0` is all of IPv6.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError::Malformed)?;
        let canonical = Self(canonical(network.trunc())?);
        if network.trunc() != network {
            return Err(NetworkError::HostBits { network: canonical });
        }
        Ok(canonical)
    }

    /// Whether the network contains an address. An IPv4-mapped address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it contains all addresses of its family.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl From<Network> for IpNet {
    fn from(network: Network) -> Self {
        network.0
    }
}

/// Converts an IPv4-mapped network to IPv4, as client addresses are.
fn canonical(network: IpNet) -> Result<IpNet, NetworkError> {
    let IpNet::V6(wide) = network else {
        return Ok(network);
    };
    let length = wide.prefix_len().checked_sub(MAPPED_BITS);
    if let (Some(address), Some(length)) = (wide.addr().to_ipv4_mapped(), length) {
        let narrow = Ipv4Net::new(address, length).map_err(|_| NetworkError::Malformed)?;
        return Ok(narrow.into());
    }
    let is_mixed = wide.prefix_len() > 0 && wide.contains(&MAPPED);
    if is_mixed {
        Err(NetworkError::Mixed)
    } else {
        Ok(network)
    }
}

/// The first of the IPv6 addresses that stand for those of IPv4 (RFC 4291 §2.5.5.2), and how many
/// bits they share.
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
const MAPPED_BITS: u8 = 96;

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The networks of proxies whose PROXY headers are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Whether one of the networks contains the address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// A network of more than one address that overlaps another network.
    pub fn overlapping(&self, other: IpNet) -> Option<Network> {
        let meets = |own: &IpNet| own.contains(&other) || other.contains(own);
        let wide = |own: &IpNet| own.prefix_len() < own.max_prefix_len();
        self.0
            .iter()
            .copied()
            .find(|Network(own)| wide(own) && meets(own))
    }
}

impl FromIterator<Network> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Network>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

/// The address, or the /64 of an IPv6 address, which providers assign to one customer.
pub(crate) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_an_ipv6_network() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (address_of_client, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(client_network(address(address_of_client)), address(network));
        }
    }

    #[test]
    fn networks_and_addresses_are_read() {
        let is_in = |address: &str, network: &str| {
            Network::parse(network)
                .expect(network)
                .contains(address.parse().expect(address))
        };
        assert!(is_in("10.1.2.3", "10.0.0.0/8") && !is_in("11.0.0.1", "10.0.0.0/8"));
        assert!(
            is_in("::ffff:10.1.2.3", "10.0.0.0/8"),
            "over an IPv6 socket"
        );
        assert!(is_in("192.0.2.7", "192.0.2.7") && !is_in("192.0.2.8", "192.0.2.7"));
        assert!(is_in("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(is_in("fd12::1", "fd00::/8") && !is_in("fe80::1", "fd00::/8"));
        assert!(!is_in("10.0.0.1", "::/0") && !is_in("::1", "0.0.0.0/0"));
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "localhost",
            "10.0.0.0/8 ",
            "10.0.0.0/-1",
            "::/129",
        ] {
            assert_eq!(
                Network::parse(text),
                Err(NetworkError::Malformed),
                "{text:?}"
            );
        }
        assert!(
            is_in("10.1.2.3", "::ffff:10.0.0.0/104") && !is_in("11.0.0.1", "::ffff:10.0.0.0/104")
        );
        assert!(is_in("10.1.2.3", "::ffff:0:0/96") && !is_in("::1", "::ffff:0:0/96"));
        for text in ["::fffe:0:0/95", "::/64", "::/1"] {
            let error = Network::parse(text).expect_err(text);
            assert_eq!(error, NetworkError::Mixed, "{text}");
        }
        let error = Network::parse("10.1.0.0/8")
            .expect_err("host bits")
            .to_string();
        assert_eq!(
            error,
            "is an address within a network: is it the network `10.0.0.0/8` or the address alone?"
        );
        assert_eq!(
            Network::parse("::ffff:10.1.0.0/104")
                .expect_err("host bits")
                .to_string(),
            error
        );
    }

    #[test]
    fn networks_meet_where_one_is_in_the_other() {
        let networks: TrustedProxies = ["10.0.0.0/8", "192.0.2.7"]
            .map(|text| Network::parse(text).expect(text))
            .into_iter()
            .collect();
        for (other, meets) in [
            ("10.1.0.0/16", true),
            ("0.0.0.0/0", true),
            ("192.0.2.0/24", false),
            ("11.0.0.0/8", false),
            ("::/0", false),
        ] {
            assert_eq!(
                networks.overlapping(other.parse().expect(other)).is_some(),
                meets,
                "{other}"
            );
        }
    }
}
