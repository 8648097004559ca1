//! A Docker engine with everything of its own: data, sockets, and the clients' machine around it;
//! where containers run, its own network too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::image::tar;
use super::machine::Machine;
use super::process::{Output, Process, first_child, run, tool};

/// A running engine and its client.
pub struct Engine<'a> {
    machine: &'a Machine,
    directory: PathBuf,
    process: Process,
    runs_containers: bool,
}

impl<'a> Engine<'a> {
    /// Starts one that runs no containers, in a directory that is made for it.
    pub fn start(machine: &'a Machine, directory: &Path) -> Self {
        let mut command = machine.command(&tool("dockerd", "docker.io"));
        // No network and no firewall needed.
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        Self::of(command, machine, directory, false)
    }

    /// Starts one that runs containers, which end with it. It and they have a network of their own,
    /// in which all ports are free.
    pub fn with_containers(machine: &'a Machine, directory: &Path) -> Self {
        let mut command = machine.command(&tool("unshare", "util-linux"));
        command
            .args(["--net", "--pid", "--mount-proc", "--fork"])
            .args(["--kill-child=KILL", "sh", "-c"])
            .arg("ip link set lo up && exec \"$0\" \"$@\"")
            .arg(tool("dockerd", "docker.io"));
        Self::of(command, machine, directory, true)
    }

    fn of(
        mut command: Command,
        machine: &'a Machine,
        directory: &Path,
        runs_containers: bool,
    ) -> Self {
        fs::create_dir(directory).unwrap();
        command.arg("--data-root").arg(directory.join("data"));
        command.arg("--exec-root").arg(directory.join("exec"));
        command.arg("--pidfile").arg(directory.join("pid"));
        command.arg("--host").arg(host(directory));
        // The driver that every file system can do.
        command.arg("--storage-driver=vfs");
        let mut process = Process::start("dockerd", command, directory);
        process.becomes("ready", || {
            run(client(machine, directory).arg("version"), "")
                .status
                .success()
        });
        Self {
            machine,
            directory: directory.to_owned(),
            process,
            runs_containers,
        }
    }

    /// Where it listens, as `DOCKER_HOST` says it.
    pub fn host(&self) -> String {
        host(&self.directory)
    }

    /// A program in the network of an engine with containers.
    pub fn beside(&self, program: &Path) -> Command {
        let first = first_child(self.process.id()).expect("the engine");
        let mut command = self.machine.command(&tool("nsenter", "util-linux"));
        command
            .args(["--target", &first.to_string(), "--net"])
            .arg(program);
        command
    }

    fn client(&self) -> Command {
        client(self.machine, &self.directory)
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with_input(arguments, "")
    }

    pub fn docker_with_input(&self, arguments: &[&str], input: &str) -> Output {
        // The builder of the Dockerfiles that are shipped.
        run(
            self.client().env("DOCKER_BUILDKIT", "1").args(arguments),
            input,
        )
    }

    pub fn login(&self, authority: &str, user: &str, password: &str) -> Output {
        let mut command = self.client();
        run(
            command.args(["login", "--username", user, "--password-stdin", authority]),
            password,
        )
    }

    /// Makes an image with one layer.
    pub fn import(&self, name: &str) {
        let archive = self.directory.join("import.tar");
        fs::write(
            &archive,
            tar("hello", format!("made for {name}\n").as_bytes()),
        )
        .unwrap();
        self.docker(&["import", archive.to_str().unwrap(), name])
            .succeeded();
    }

    /// Makes an image with that many layers, each of a file.
    pub fn build(&self, name: &str, layers: usize) {
        let context = self.directory.join("context");
        fs::create_dir(&context).unwrap();
        let mut dockerfile = "FROM scratch\n".to_owned();
        for layer in 0..layers {
            fs::write(
                context.join(layer.to_string()),
                format!("layer {layer}\n").repeat(50_000),
            )
            .unwrap();
            dockerfile.push_str(&format!("COPY {layer} /{layer}\n"));
        }
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let mut command = self.client();
        // The builder inside the engine, which needs no network.
        command
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "--tag", name])
            .arg(context);
        run(&mut command, "").succeeded();
    }

    pub fn image_id(&self, name: &str) -> String {
        self.docker(&["image", "inspect", "--format", "{{.Id}}", name])
            .succeeded()
    }

    /// Pushes an image that is here under this name, forgets it, pulls it, and compares.
    pub fn push_and_pull(&self, name: &str) {
        let id = self.image_id(name);
        self.docker(&["push", name]).succeeded();
        self.docker(&["image", "rm", "--force", name]).succeeded();
        assert!(!self.docker(&["image", "inspect", name]).status.success());
        self.docker(&["pull", name]).succeeded();
        assert_eq!(self.image_id(name), id);
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if self.runs_containers {
            let all = self.docker(&["ps", "--all", "--quiet"]).stdout;
            let mut remove = vec!["rm", "--force", "--volumes"];
            remove.extend(all.split_whitespace());
            self.docker(&remove);
            // The holder of a namespace takes no other signal; everything in it ends with it.
            self.process.signal(Signal::KILL);
        }
    }
}

fn host(directory: &Path) -> String {
    format!("unix://{}", directory.join("socket").display())
}

fn client(machine: &Machine, directory: &Path) -> Command {
    let mut command = machine.command(&tool("docker", "docker.io"));
    command.arg("--host").arg(host(directory));
    command
}
