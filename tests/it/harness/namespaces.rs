//! Namespaces for one test, with mounts and a network of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the namespaces, for a test that has been run again there.
pub fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Runs a test again in new namespaces, after a shell script in its directory, which has its path as
/// `$0`. The network has loopback alone. Needs no privileges.
pub fn run_again(test: &str, directory: &Path, script: &str) {
    let script = format!("cd \"$0\" && ip link set lo up && {script} && exec \"$@\"");
    // The child ends with this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["sh", "-c", &script])
        .arg(directory)
        .arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(PLACE, directory);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
}

const PLACE: &str = "MOORGATE_TEST_PLACE";
