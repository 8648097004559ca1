//! docker-registry processes that share one directory, as replicas of a registry.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::ports::free_port;
use super::process::{self, Process, command, tool, until};

/// One registry.
pub struct Replica {
    name: &'static str,
    pub address: SocketAddr,
    process: Option<Process>,
}

impl Replica {
    pub fn start(name: &'static str, directory: &Path) -> Self {
        let mut replica = Self {
            name,
            address: (Ipv4Addr::LOCALHOST, free_port()).into(),
            process: None,
        };
        replica.run(directory);
        replica
    }

    /// One in a network namespace of its own, which an interface of this process's, [`INTERFACE`],
    /// leads to. This process must be in one of its own, too.
    pub fn start_elsewhere(name: &'static str, directory: &Path) -> Self {
        let mut replica = Self {
            name,
            address: "10.94.0.2:5000".parse().unwrap(),
            process: None,
        };
        let script = "ip link set lo up && until ip link show there; do sleep 0.05; done && \
                      ip address add 10.94.0.2/30 dev there && ip link set there up && exec \"$@\"";
        let mut command = command(&tool("unshare", "util-linux"), directory);
        command.args(["--net", "sh", "-c", script, "sh"]);
        let (program, settings) = replica.program(directory);
        command.arg(program).arg("serve").arg(settings);
        let process = Process::start(name, command, directory);
        let namespace = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap();
        let id = process.id().to_string();
        until("it has a network", || namespace(&id) != namespace("self"));
        for arguments in [
            &[
                "link", "add", INTERFACE, "type", "veth", "peer", "name", "there", "netns", &id,
            ][..],
            &["address", "add", "10.94.0.1/30", "dev", INTERFACE],
            &["link", "set", INTERFACE, "up"],
        ] {
            let mut ip = Command::new(tool("ip", "iproute2"));
            process::run(ip.args(arguments), "").succeeded();
        }
        replica.is_listening(process);
        replica
    }

    /// The program, and a file with its settings.
    fn program(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (name, address) = (self.name, self.address);
        let yaml = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: \"{address}\", secret: not-a-secret}}\n",
            directory.display()
        );
        let file = directory.join(format!("{name}.yml"));
        std::fs::write(&file, yaml).unwrap();
        (tool("docker-registry", "docker-registry"), file)
    }

    fn is_listening(&mut self, mut process: Process) {
        let address = self.address;
        process.becomes("listening", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        self.process = Some(process);
    }

    /// Starts it, at the same address each time.
    pub fn run(&mut self, directory: &Path) {
        let (program, settings) = self.program(directory);
        let mut command = command(&program, directory);
        command.arg("serve").arg(settings);
        self.is_listening(Process::start(self.name, command, directory));
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Waits for the end of one that was killed.
    pub fn ended(&mut self) {
        self.process.take().unwrap().ended();
    }
}

/// The interface that leads to the replica in another namespace.
pub const INTERFACE: &str = "here";
