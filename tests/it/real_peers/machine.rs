//! The machine as the clients see it: an `/etc` of their own, in which the domains' names lead here
//! and moorgate's CA is among the system's. The real `/etc` stays as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{command, tool};

/// A private `/etc` and home directory for clients.
pub struct Machine {
    directory: PathBuf,
}

impl Machine {
    /// Made below a directory, with names that lead to 127.0.0.1.
    pub fn new(directory: &Path, names: &[&str]) -> Self {
        assert!(
            rustix::process::getuid().is_root(),
            "needs root, for mount namespaces and a Docker engine"
        );
        let machine = Self {
            directory: directory.join("machine"),
        };
        machine.write(
            "etc/hosts",
            &format!("127.0.0.1 localhost {}\n", names.join(" ")),
        );
        machine.write(
            "etc/nsswitch.conf",
            "hosts: files\npasswd: files\ngroup: files\n",
        );
        machine.write("etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
        machine.write("etc/group", "root:x:0:\n");
        machine.write(
            "etc/containers/policy.json",
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        machine.has_alternatives();
        fs::create_dir(machine.home()).unwrap();
        machine
    }

    /// Programs like awk and iptables are links to links in `/etc`.
    fn has_alternatives(&self) {
        let own = self.directory.join("etc/alternatives");
        fs::create_dir(&own).unwrap();
        for link in fs::read_dir("/etc/alternatives").unwrap() {
            let link = link.unwrap();
            if let Ok(target) = fs::read_link(link.path()) {
                symlink(target, own.join(link.file_name())).unwrap();
            }
        }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Where the clients keep their things.
    pub fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// Puts a CA among those that every program trusts.
    pub fn trusts(&self, ca: &str) {
        self.write("etc/ssl/certs/ca-certificates.crt", ca);
    }

    /// A program that sees this `/etc`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = command(&tool("unshare", "util-linux"), &self.home());
        let script = r#"mount --bind "$0" /etc && exec "$@""#;
        command
            .args(["--mount", "sh", "-c", script])
            .arg(self.directory.join("etc"))
            .arg(program);
        command
    }
}
