//! Binds a listener.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::vhost::ListenAddress;

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds and listens. `:443` accepts IPv6 and IPv4, or only IPv4 where the system has no IPv6.
pub(crate) fn bind(address: ListenAddress) -> io::Result<TcpListener> {
    with_fallback(address, |address| {
        let socket = bound(address)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    })
}

/// Whether [`bind`] would succeed now. Nobody can connect meanwhile, and another process may bind
/// the address at the same time.
pub(crate) fn probe(address: ListenAddress) -> io::Result<()> {
    with_fallback(address, |address| bound(address).map(drop))
}

/// Uses the IPv4 form of `:443` where the system has no IPv6.
fn with_fallback<T>(
    address: ListenAddress,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match open(address.0) {
        Err(error)
            if address.0.ip().is_unspecified()
                && address.0.is_ipv6()
                && is_without_ipv6(&error) =>
        {
            open(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                address.0.port(),
            ))
        }
        opened => opened,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
