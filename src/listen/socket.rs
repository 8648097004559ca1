//! Binds a listener.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::vhost::ListenAddress;

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds and listens. `:443` accepts IPv6 and IPv4, or only IPv4 where the system has no IPv6.
pub(crate) fn bind(address: ListenAddress) -> io::Result<TcpListener> {
    match listen_on(address.0) {
        Err(error)
            if address.0.ip().is_unspecified()
                && address.0.is_ipv6()
                && is_without_ipv6(&error) =>
        {
            listen_on(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                address.0.port(),
            ))
        }
        bound => bound,
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

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
