//! A Docker engine with everything of its own: data, sockets, and the clients' machine around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::tar;
use super::machine::Machine;
use super::process::{Output, Process, run, tool};

/// A running engine and its client.
pub struct Engine<'a> {
    machine: &'a Machine,
    directory: PathBuf,
    _process: Process,
}

impl<'a> Engine<'a> {
    /// Starts it in a directory that is made for it.
    pub fn start(machine: &'a Machine, directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        let mut command = machine.command(&tool("dockerd", "docker.io"));
        command.arg("--data-root").arg(directory.join("data"));
        command.arg("--exec-root").arg(directory.join("exec"));
        command.arg("--pidfile").arg(directory.join("pid"));
        command
            .arg("--host")
            .arg(format!("unix://{}", directory.join("socket").display()));
        // No containers run in these tests: no network, no firewall, no file system driver needed.
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--storage-driver=vfs",
        ]);
        let mut process = Process::start("dockerd", command, directory);
        process.becomes("ready", || {
            run(client(machine, directory).arg("version"), "")
                .status
                .success()
        });
        Self {
            machine,
            directory: directory.to_owned(),
            _process: process,
        }
    }

    fn client(&self) -> Command {
        client(self.machine, &self.directory)
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        run(self.client().args(arguments), "")
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

fn client(machine: &Machine, directory: &Path) -> Command {
    let mut command = machine.command(&tool("docker", "docker.io"));
    command
        .arg("--host")
        .arg(format!("unix://{}", directory.join("socket").display()));
    command
}
