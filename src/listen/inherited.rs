//! Listening sockets that are open already: those of the service manager (`sd_listen_fds(3)`) and
//! those of a process that this one replaces. They need no privilege here, and no client is refused
//! while one process follows another.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::config::vhost::ListenAddress;

/// The sockets that this process was given.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    of_service_manager: Vec<TcpListener>,
    of_predecessor: Vec<PassedListener>,
}

/// A listening socket as one process passes it to the next.
#[derive(Debug)]
pub(crate) struct PassedListener {
    pub(crate) socket: TcpListener,
    /// `None`: it belongs to the service manager.
    pub(crate) owner: Option<ListenerOwner>,
}

/// The listener that had the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerOwner {
    /// The name of its kind.
    pub(crate) kind: String,
    /// The address in the configuration: the port may be 0.
    pub(crate) configured: ListenAddress,
}

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
            Some(socket.and_then(|socket| {
                socket.local_addr()?;
                // A successor is given them by another way.
                fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
                Ok(socket)
            }))
        });
        Ok(Self {
            of_service_manager: sockets.collect::<io::Result<_>>().map_err(NotAListener)?,
            of_predecessor: Vec::new(),
        })
    }

    /// The sockets of a predecessor.
    pub(crate) fn from_predecessor(passed: Vec<PassedListener>) -> Self {
        let (own, of_service_manager): (Vec<_>, Vec<_>) = passed
            .into_iter()
            .partition(|passed| passed.owner.is_some());
        Self {
            of_service_manager: of_service_manager
                .into_iter()
                .map(|passed| passed.socket)
                .collect(),
            of_predecessor: own,
        }
    }

    /// A socket for a listener; `None` if there is none. One of the service manager stays here, too:
    /// a configuration that leaves the address out and a later one that has it again find it.
    pub(crate) fn find(&mut self, listener: &ListenerOwner) -> Option<io::Result<TcpListener>> {
        let address = listener.configured;
        let mut of_manager = self.of_service_manager.iter();
        let socket = match of_manager.find(|socket| listens_on(socket, address)) {
            Some(socket) => socket.try_clone(),
            None => Ok(self.take(listener)?),
        };
        Some(socket.and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        }))
    }

    /// The socket that the same listener had, or any on the same address.
    fn take(&mut self, listener: &ListenerOwner) -> Option<TcpListener> {
        let own = &self.of_predecessor;
        let same = own
            .iter()
            .position(|passed| passed.owner.as_ref() == Some(listener));
        let at = same.or_else(|| {
            own.iter()
                .position(|passed| listens_on(&passed.socket, listener.configured))
        })?;
        Some(self.of_predecessor.swap_remove(at).socket)
    }

    /// Closes the sockets of the predecessor that no listener has taken: nobody would answer there.
    pub(crate) fn close_untaken(&mut self) {
        self.of_predecessor.clear();
    }

    /// Whether the service manager has opened the socket.
    pub(crate) fn is_of_service_manager(&self, address: SocketAddr) -> bool {
        let mut all = self.of_service_manager.iter();
        all.any(|socket| socket.local_addr().is_ok_and(|local| local == address))
    }

    /// The sockets of the service manager, for a successor of the process.
    pub(crate) fn of_service_manager(&self) -> io::Result<Vec<PassedListener>> {
        let passed = |socket: &TcpListener| {
            Ok(PassedListener {
                socket: socket.try_clone()?,
                owner: None,
            })
        };
        self.of_service_manager.iter().map(passed).collect()
    }

    /// The addresses of the service manager's sockets that none of `configured` is, or port 0
    /// stands for.
    pub(crate) fn unused(&self, configured: &[ListenAddress]) -> Vec<SocketAddr> {
        let unused = self.of_service_manager.iter().filter(|socket| {
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

    fn owner(kind: &str, configured: &str) -> ListenerOwner {
        ListenerOwner {
            kind: kind.to_owned(),
            configured: ListenAddress(configured.parse().expect("an address")),
        }
    }

    #[test]
    fn a_socket_is_found_by_its_address_again_and_again() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
        let own = socket.local_addr().expect("bound");
        let mut inherited = InheritedSockets {
            of_service_manager: vec![socket],
            of_predecessor: Vec::new(),
        };
        for _ in 0..2 {
            let found = inherited.find(&owner("https", &own.to_string()));
            let found = found.expect("it is there").expect("cloned");
            assert_eq!(found.local_addr().expect("bound"), own);
        }
        let other = owner("https", "127.0.0.1:1");
        assert!(inherited.find(&other).is_none());
        assert_eq!(inherited.unused(&[other.configured]), [own]);
        let configured = [other.configured, ListenAddress(own)];
        assert!(inherited.unused(&configured).is_empty());
    }

    #[test]
    fn a_socket_of_a_predecessor_goes_to_the_same_listener_once() {
        let any = "127.0.0.1:0";
        let listeners = [owner("https", any), owner("http", any)];
        let sockets = [(); 2].map(|()| TcpListener::bind(any).expect("bound"));
        let addresses = sockets
            .each_ref()
            .map(|socket| socket.local_addr().expect("bound"));
        let passed = sockets.into_iter().zip(&listeners);
        let passed = passed.map(|(socket, owner)| PassedListener {
            socket,
            owner: Some(owner.clone()),
        });
        let mut inherited = InheritedSockets::from_predecessor(passed.collect());
        assert!(inherited.find(&owner("admin", any)).is_none());
        let found = inherited.find(&listeners[1]).expect("there");
        assert_eq!(
            found.expect("open").local_addr().expect("bound"),
            addresses[1]
        );
        assert!(inherited.find(&listeners[1]).is_none());
        // The same address, by its number.
        let fixed = owner("admin", &addresses[0].to_string());
        assert!(inherited.find(&fixed).is_some());
        inherited.close_untaken();
        assert!(inherited.find(&listeners[0]).is_none());
    }

    #[test]
    fn all_addresses_of_both_families_are_one() {
        let any = |text: &str| any_as_ipv6(text.parse().expect("an address"));
        assert_eq!(any("0.0.0.0:443"), any("[::]:443"));
        assert_ne!(any("0.0.0.0:443"), any("[::]:444"));
        assert_ne!(any("127.0.0.1:443"), any("[::1]:443"));
    }
}
