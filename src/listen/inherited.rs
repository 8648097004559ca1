//! Listening sockets that the service manager has opened and passed on (`sd_listen_fds(3)`): they
//! need no privilege here, and clients can connect while the service restarts.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use crate::config::vhost::ListenAddress;

/// The sockets that this process was given.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<TcpListener>);

/// A descriptor that was passed on and is no listening TCP socket.
#[derive(Debug, thiserror::Error)]
#[error("a descriptor passed by the service manager is not a listening TCP socket")]
pub(crate) struct NotAListener(#[source] io::Error);

impl InheritedSockets {
    /// Takes the sockets named by `LISTEN_FDS` and `LISTEN_PID`. Removes both from the environment,
    /// which is safe only before the process has other threads.
    pub(crate) fn from_environment() -> Result<Self, NotAListener> {
        let mut passed = listenfd::ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|index| {
            let socket = passed.take_tcp_listener(index).transpose()?;
            Some(socket.and_then(|socket| socket.local_addr().map(|_| socket)))
        });
        Ok(Self(
            sockets.collect::<io::Result<_>>().map_err(NotAListener)?,
        ))
    }

    /// Another descriptor of the socket that listens on `address`; `None` if there is none. The
    /// socket itself stays here: a configuration that leaves the address out and a later one that
    /// has it again find it.
    pub(crate) fn find(&self, address: ListenAddress) -> Option<io::Result<TcpListener>> {
        let mut sockets = self.0.iter();
        let socket = sockets.find(|socket| listens_on(socket, address))?;
        Some(socket.try_clone().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        }))
    }

    /// The addresses that none of `configured` is, or port 0 stands for.
    pub(crate) fn unused(&self, configured: &[ListenAddress]) -> Vec<SocketAddr> {
        let unused = self.0.iter().filter(|socket| {
            let mut configured = configured.iter();
            !configured.any(|&address| listens_on(socket, address))
        });
        unused
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }
}

fn listens_on(socket: &TcpListener, address: ListenAddress) -> bool {
    let local = socket.local_addr();
    local.is_ok_and(|local| any_as_ipv6(local) == any_as_ipv6(address.0))
}

/// `0.0.0.0:443` and `[::]:443` are both what `":443"` means: a system without IPv6 has the first.
fn any_as_ipv6(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
    }
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_address_again_and_again() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
        let own = ListenAddress(socket.local_addr().expect("bound"));
        let inherited = InheritedSockets(vec![socket]);
        for _ in 0..2 {
            let found = inherited.find(own).expect("it is there").expect("cloned");
            assert_eq!(found.local_addr().expect("bound"), own.0);
        }
        let other = ListenAddress(SocketAddr::new(own.0.ip(), 1));
        assert!(inherited.find(other).is_none());
        assert_eq!(inherited.unused(&[other]), [own.0]);
        assert!(inherited.unused(&[other, own]).is_empty());
    }

    #[test]
    fn all_addresses_of_both_families_are_one() {
        let any = |text: &str| any_as_ipv6(text.parse().expect("an address"));
        assert_eq!(any("0.0.0.0:443"), any("[::]:443"));
        assert_ne!(any("0.0.0.0:443"), any("[::]:444"));
        assert_ne!(any("127.0.0.1:443"), any("[::1]:443"));
    }
}
