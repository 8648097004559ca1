//! Networks as the settings write them, and which addresses are in them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A network, or one address as the network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network, as a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("is not a network")]
    Malformed,
    /// The address has bits that the prefix leaves out: one of the two is a mistake.
    #[error("is an address within a network: is it the network `{network}` or the address alone?")]
    HostBits {
        /// The network that has this address.
        network: Network,
    },
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address alone.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError::Malformed)?;
        if network.trunc() != network {
            return Err(NetworkError::HostBits { network: Self(network.trunc()) });
        }
        Ok(Self(network))
    }

    /// Whether an address is in it. An IPv4 address that came over an IPv6 socket is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether all addresses of its kind are in it.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_read() {
        let is_in = |address: &str, network: &str| {
            Network::parse(network).expect(network).contains(address.parse().expect(address))
        };
        assert!(is_in("10.1.2.3", "10.0.0.0/8") && !is_in("11.0.0.1", "10.0.0.0/8"));
        assert!(is_in("::ffff:10.1.2.3", "10.0.0.0/8"), "over an IPv6 socket");
        assert!(is_in("192.0.2.7", "192.0.2.7") && !is_in("192.0.2.8", "192.0.2.7"));
        assert!(is_in("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(is_in("fd12::1", "fd00::/8") && !is_in("fe80::1", "fd00::/8"));
        assert!(!is_in("10.0.0.1", "::/0") && !is_in("::1", "0.0.0.0/0"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.0/8 ", "10.0.0.0/-1", "::/129"] {
            assert_eq!(Network::parse(text), Err(NetworkError::Malformed), "{text:?}");
        }
        let error = Network::parse("10.1.0.0/8").expect_err("host bits").to_string();
        assert_eq!(
            error,
            "is an address within a network: is it the network `10.0.0.0/8` or the address alone?"
        );
    }
}
