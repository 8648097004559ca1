//! The problem of an address that cannot be listened on: where it is written, why, and what to do.

use std::io;

use super::port_holder::holder;
use crate::config::problem::Problem;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::ListenAddress;

/// The problem of an address that cannot be listened on, at the place where a file names it.
pub(super) fn listen_problem(
    snapshot: &Snapshot,
    address: ListenAddress,
    error: &io::Error,
) -> Problem {
    let (cause, help) = listen_cause(address, error);
    at_listener(
        snapshot,
        address,
        format!("cannot listen on {address}: {cause}"),
        help,
    )
}

/// A warning of an address that systemd listens on: this process cannot know for whom.
pub(super) fn socket_unit_problem(snapshot: &Snapshot, address: ListenAddress) -> Problem {
    let message = format!("systemd listens on {address}");
    let help = "right if moorgate.socket names it; else stop the socket unit that does (`systemctl list-sockets`)";
    at_listener(snapshot, address, message, help).warning()
}

/// A problem at the place where a file names an address.
fn at_listener(
    snapshot: &Snapshot,
    address: ListenAddress,
    message: String,
    help: &'static str,
) -> Problem {
    let written = snapshot
        .written_listeners
        .iter()
        .find(|written| written.address == address);
    match written {
        Some(written) => Problem::at_place(&written.file, &written.span, message, help),
        None => {
            let message = format!("{message} (the default, which no file changes)");
            Problem::in_file(&snapshot.main_file(), message, help)
        }
    }
}

/// Why, and what to do.
fn listen_cause(address: ListenAddress, error: &io::Error) -> (String, &'static str) {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder(address.0).map(|holder| format!(" by {holder}"));
            let cause = format!("already in use{}", holder.unwrap_or_default());
            (cause, "stop what uses it, or write another address")
        }
        io::ErrorKind::PermissionDenied => (
            format!("port {} needs a privilege", address.0.port()),
            "start moorgate by a service with AmbientCapabilities=CAP_NET_BIND_SERVICE or as root, or write a port \
             above 1023",
        ),
        io::ErrorKind::AddrNotAvailable => (
            "this machine does not have the address".to_owned(),
            "write an address of this machine, as `ip address` lists them, or \":PORT\" for all of them",
        ),
        _ => (
            error.to_string(),
            "correct the address, or what the system lacks",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_cure() {
        let address = ListenAddress("127.0.0.1:443".parse().expect("an address"));
        let kinds = [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::OutOfMemory,
        ];
        let lines = kinds.map(|kind| {
            let (cause, help) = listen_cause(address, &kind.into());
            format!("{cause}; {help}")
        });
        insta::assert_snapshot!(lines.join("\n"), @r#"
        port 443 needs a privilege; start moorgate by a service with AmbientCapabilities=CAP_NET_BIND_SERVICE or as root, or write a port above 1023
        this machine does not have the address; write an address of this machine, as `ip address` lists them, or ":PORT" for all of them
        out of memory; correct the address, or what the system lacks
        "#);
    }
}
