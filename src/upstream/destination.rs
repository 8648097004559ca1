//! To which addresses a redirect is followed. A registry may name any address, and what it names
//! must not lead into networks that only moorgate reaches, or to moorgate itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// Which addresses a redirect may lead to. Checked where the connection is made, on the addresses
/// to which the host resolves there.
#[derive(Clone, Debug)]
pub(crate) struct RedirectPolicy {
    /// The sockets on which moorgate listens.
    pub(crate) listeners: Arc<Vec<SocketAddr>>,
    /// Whether the configuration names the host of the redirect.
    pub(crate) is_named: bool,
    /// Whether the registry that redirects is not at a public address itself.
    pub(crate) from_private: bool,
}

/// The address to which a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedDestination {
    #[error("{0} is a listener of moorgate, to which no redirect is followed")]
    OwnListener(SocketAddr),
    #[error(
        "{0} is an address of this host or its link, which `follow_hosts` in [upstream] does not name"
    )]
    Local(SocketAddr),
    #[error(
        "{0} is a private address, which `follow_hosts` in [upstream] does not name, \
         and the registry is at a public one"
    )]
    Private(SocketAddr),
}

impl RedirectPolicy {
    pub(crate) fn check(&self, address: SocketAddr) -> Result<(), RefusedDestination> {
        let ip = address.ip().to_canonical();
        let own = is_own(ip);
        let is_reached = |listener: &SocketAddr| {
            let at = listener.ip().to_canonical();
            let same = at == ip || own && (at.is_unspecified() || ip.is_unspecified());
            listener.port() == address.port() && same
        };
        if self.listeners.iter().any(is_reached) {
            return Err(RefusedDestination::OwnListener(address));
        }
        if self.is_named {
            return Ok(());
        }
        match AddressScope::of(ip) {
            _ if own => Err(RefusedDestination::Local(address)),
            AddressScope::Local => Err(RefusedDestination::Local(address)),
            AddressScope::Private if !self.from_private => {
                Err(RefusedDestination::Private(address))
            }
            AddressScope::Private | AddressScope::Public => Ok(()),
        }
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressScope {
    /// The own host, its links, and what is no address of one host.
    Local,
    /// Networks without public addresses.
    Private,
    Public,
}

impl AddressScope {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    /// The special-purpose registry of RFC 6890.
    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0 | 127 | 224.., ..] | [169, 254, ..] => Self::Local,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let segments = ip.segments();
        let embedded = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match segments {
            // Unspecified, loopback, and IPv4-compatible addresses.
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Local,
            [0, 0, 0, 0, 0, 0, high, low] => embedded(high, low),
            // Multicast, and link-local addresses.
            [0xff00..=0xffff, ..] | [0xfe80..=0xfebf, ..] => Self::Local,
            // Unique local addresses, site-local ones of old, local-use NAT64, Teredo.
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Self::Private,
            // NAT64 (RFC 6052) and 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            _ => Self::Public,
        }
    }
}

/// Whether an address is one of this host: the system then chooses it as the source of packets to
/// it. Sends nothing.
fn is_own(ip: IpAddr) -> bool {
    if AddressScope::of(ip) == AddressScope::Local && (ip.is_loopback() || ip.is_unspecified()) {
        return true;
    }
    let any: SocketAddr = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
        .and_then(|socket| {
            socket.connect((ip, DISCARD_PORT))?;
            socket.local_addr()
        })
        .is_ok_and(|source| source.ip() == ip)
}

/// Any port but 0, which some systems refuse.
const DISCARD_PORT: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str, policy: &RedirectPolicy) -> &'static str {
        match policy.check(address.parse().expect(address)) {
            Ok(()) => "",
            Err(RefusedDestination::OwnListener(_)) => "own",
            Err(RefusedDestination::Local(_)) => "local",
            Err(RefusedDestination::Private(_)) => "private",
        }
    }

    fn policy(is_named: bool, from_private: bool) -> RedirectPolicy {
        let listeners = ["[::]:443", "127.0.0.3:9180", "192.0.2.1:5000"];
        RedirectPolicy {
            listeners: Arc::new(listeners.map(|at| at.parse().expect(at)).to_vec()),
            is_named,
            from_private,
        }
    }

    #[test]
    fn each_address_has_its_scope() {
        let local = [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "[::]:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:169.254.169.254]:1",
            "[::7f00:1]:1",
            "[fe80::1]:1",
            "[ff02::1]:1",
            "[64:ff9b::7f00:1]:1",
            "[2002:7f00:1::]:1",
        ];
        let private = [
            "10.0.0.1:1",
            "172.16.0.1:1",
            "172.31.255.255:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "198.18.0.1:1",
            "[fc00::1]:1",
            "[fdff::1]:1",
            "[fec0::1]:1",
            "[::ffff:10.0.0.1]:1",
            "[64:ff9b::a00:1]:1",
            "[2002:a00:1::1]:1",
        ];
        let public = [
            "198.51.100.7:443",
            "172.32.0.1:1",
            "100.128.0.1:1",
            "[2001:db8::1]:1",
            "[64:ff9b::c633:6407]:1",
            "[::ffff:198.51.100.7]:1",
        ];
        for (addresses, refused, from_private) in [
            (&local[..], "local", "local"),
            (&private, "private", ""),
            (&public, "", ""),
        ] {
            for address in addresses {
                assert_eq!(
                    refusal(address, &policy(false, false)),
                    refused,
                    "{address}"
                );
                assert_eq!(
                    refusal(address, &policy(false, true)),
                    from_private,
                    "{address}"
                );
                assert_eq!(refusal(address, &policy(true, false)), "", "{address}");
            }
        }
    }

    #[test]
    fn own_listeners_are_refused_whatever_names_them() {
        for address in [
            "127.0.0.1:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "0.0.0.0:443",
            "127.0.0.3:9180",
            "[::ffff:127.0.0.3]:9180",
            "0.0.0.0:9180",
            "[::]:9180",
            "192.0.2.1:5000",
        ] {
            assert_eq!(refusal(address, &policy(true, true)), "own", "{address}");
        }
        assert_eq!(refusal("127.0.0.1:9180", &policy(true, true)), "");
        assert_eq!(refusal("198.51.100.7:443", &policy(false, false)), "");
    }
}
