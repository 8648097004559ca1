//! Namespaces for one test, with their own network, host names and a small disk. The CA can have
//! the name and the port of a real one, so that moorgate applies its limits, and the disk can be
//! full.

use std::path::Path;

use super::acme_sim::NAMES;
use crate::harness::namespaces;

/// Runs `inside` in new namespaces, by running the test again there.
pub fn run(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(place) = namespaces::place() {
        return inside(&place);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir(path.join("state")).unwrap();
    let names: Vec<&str> = NAMES
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let hosts = format!("127.0.0.1 localhost {CA} {}\n", names.join(" "));
    std::fs::write(path.join("hosts"), hosts).unwrap();
    std::fs::write(path.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let script = "mount --bind hosts /etc/hosts && mount --bind resolv.conf /etc/resolv.conf && \
                  mount -t tmpfs -o size=8m none state";
    namespaces::run_again(test, path, script);
}

/// The CA whose limits are enforced.
pub const CA: &str = "acme-v02.api.letsencrypt.org";
