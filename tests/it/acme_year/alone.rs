//! Namespaces for one test, with their own network, host names and a small disk. The CA can have
//! the name and the port of a real one, so that moorgate applies its limits, and the disk can be
//! full.

use std::path::Path;
use std::process::Command;

use super::acme_sim::NAMES;

/// Runs `inside` in new namespaces, by running the test again there. Needs no privileges.
pub fn run(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(place) = std::env::var_os(PLACE) {
        return inside(Path::new(&place));
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
    let script = "cd \"$0\" && ip link set lo up && mount --bind hosts /etc/hosts && \
                  mount --bind resolv.conf /etc/resolv.conf && mount -t tmpfs -o size=8m none state && exec \"$@\"";
    // The child ends with this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["sh", "-c", script])
        .arg(path)
        .arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(PLACE, path);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
}

/// The CA whose limits are enforced.
pub const CA: &str = "acme-v02.api.letsencrypt.org";
const PLACE: &str = "MOORGATE_TEST_PLACE";
