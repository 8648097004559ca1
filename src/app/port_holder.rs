//! Finds the process that listens on an address, from /proc.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::process::Pid;

/// A process that listens on an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortHolder {
    pub(super) pid: i32,
    name: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl PortHolder {
    /// systemd holds the ports of its socket units, and may pass them on.
    pub(super) fn is_service_manager(&self) -> bool {
        self.pid == 1 && self.name == "systemd"
    }
}

/// The process that listens on `address` or on what overlaps it. `None` if there is none, or if it
/// belongs to another user, whose files this one may not see.
pub(super) fn holder(address: SocketAddr) -> Option<PortHolder> {
    let sockets = listening_sockets(address).into_iter();
    let inodes: Vec<String> = sockets.map(|socket| socket.inode).collect();
    let mut processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = || std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        has_one_of(&entry.path(), &inodes).then(|| PortHolder {
            pid,
            name: name().trim().to_owned(),
        })
    })
}

/// The users whose processes listen on `address` or on what overlaps it. Everybody may see them.
pub(crate) fn listener_owners(address: SocketAddr) -> Vec<u32> {
    let sockets = listening_sockets(address).into_iter();
    sockets.map(|socket| socket.uid).collect()
}

/// A socket that listens.
struct ListeningSocket {
    uid: u32,
    inode: String,
}

fn listening_sockets(address: SocketAddr) -> Vec<ListeningSocket> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| sockets_in(&table, address))
        .collect()
}

/// Whether this user may see which files a process has open.
pub(super) fn is_visible(pid: Pid) -> bool {
    std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).is_ok()
}

/// The sockets in a table of proc_pid_net(5) that listen on `address` or overlap it.
fn sockets_in(table: &str, address: SocketAddr) -> Vec<ListeningSocket> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        let (uid, inode) = (fields.get(7)?.parse().ok()?, fields.get(9)?);
        let local = socket_address(local)?;
        let overlaps = local.port() == address.port()
            && (local.ip() == address.ip()
                || local.ip().is_unspecified()
                || address.ip().is_unspecified());
        (*state == LISTEN && overlaps).then(|| ListeningSocket {
            uid,
            inode: (*inode).to_owned(),
        })
    });
    lines.collect()
}

/// `0100007F:1F90`: 32-bit words as they are in memory, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    if !matches!(words.len(), 8 | 32) {
        return None;
    }
    let words = words.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::from(Ipv4Addr::from(bytes)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// Whether a process has one of these sockets open.
fn has_one_of(process: &Path, inodes: &[String]) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else {
        return false;
    };
    files.flatten().any(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|listening| listening == inode))
    })
}

/// The state of a socket that listens.
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_table_are_read() {
        let read = |text: &str| socket_address(text).map(|address| address.to_string());
        assert_eq!(read("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(
            read("00000000000000000000000001000000:01BB").as_deref(),
            Some("[::1]:443")
        );
        assert_eq!(
            read("0000000000000000FFFF00000100007F:0050").as_deref(),
            Some("127.0.0.1:80")
        );
        for broken in ["", "0100007F", "01:50", "x100007F:50", "0100007F:x"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_the_first_process_is_the_service_manager() {
        let holder = |pid, name: &str| PortHolder {
            pid,
            name: name.to_owned(),
        };
        assert!(holder(1, "systemd").is_service_manager());
        assert!(!holder(1, "moorgate").is_service_manager());
        assert!(!holder(2, "systemd").is_service_manager());
    }

    #[test]
    fn a_listener_is_found_by_its_own_address_and_by_all() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let own = socket.local_addr().expect("bound");
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(holder(own).map(|holder| holder.pid), Some(pid));
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), own.port());
        assert_eq!(holder(any).map(|holder| holder.pid), Some(pid));
        drop(socket);
        assert_eq!(holder(own), None);
    }
}
