//! Clients that keep everything in a directory of their own: podman and buildah, and containerd
//! with ctr.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixture::RegistriesFixture;
use super::machine::Machine;
use super::process::{Output, Process, run, tool};

/// podman or buildah, which take the same options.
pub struct Tool<'a> {
    fixture: &'a RegistriesFixture,
    program: PathBuf,
    directory: PathBuf,
}

impl<'a> Tool<'a> {
    pub fn podman(fixture: &'a RegistriesFixture) -> Self {
        Self::new(fixture, "podman")
    }

    pub fn buildah(fixture: &'a RegistriesFixture) -> Self {
        Self::new(fixture, "buildah")
    }

    fn new(fixture: &'a RegistriesFixture, name: &'static str) -> Self {
        let directory = fixture.path().join(name);
        fs::create_dir(&directory).unwrap();
        // It does not look anything up in a file that is not there.
        fs::write(directory.join("auth.json"), "{}").unwrap();
        Self {
            fixture,
            program: tool(name, name),
            directory,
        }
    }

    fn command(&self) -> Command {
        storing_client(&self.fixture.machine, &self.program, &self.directory)
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        run(self.command().args(arguments), "")
    }

    /// Logs in at the first domain.
    pub fn login(&self, user: &str) -> Output {
        let authority = self.fixture.ci.by_name();
        let login = ["login", "--username", user, "--password-stdin", &authority];
        run(self.command().args(login), self.fixture.password(user))
    }

    /// Pushes an image that is here to the first domain.
    pub fn push(&self, image: &str, to: &str) -> Output {
        self.run(&[
            "push",
            image,
            &format!("docker://{}/{to}", self.fixture.ci.by_name()),
        ])
    }
}

/// podman or buildah, with all that they keep in a directory.
pub fn storing_client(machine: &Machine, program: &Path, directory: &Path) -> Command {
    let mut command = machine.command(program);
    command.env("REGISTRY_AUTH_FILE", directory.join("auth.json"));
    command.arg("--root").arg(directory.join("root"));
    command
        .arg("--runroot")
        .arg(directory.join("run"))
        .args(["--storage-driver", "vfs"]);
    command
}

/// A running containerd.
pub struct Containerd<'a> {
    machine: &'a Machine,
    socket: PathBuf,
    _process: Process,
}

impl<'a> Containerd<'a> {
    /// Starts it in a directory that is made for it.
    pub fn start(machine: &'a Machine, directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        let shown = directory.display();
        let socket = directory.join("socket");
        // No containers run in these tests.
        let config = format!(
            "version = 2\nroot = \"{shown}/root\"\nstate = \"{shown}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{shown}/socket\"\n[ttrpc]\naddress = \"{shown}/ttrpc\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{shown}/opt\"\n"
        );
        fs::write(directory.join("config.toml"), config).unwrap();
        let mut command = machine.command(&tool("containerd", "containerd"));
        command.arg("--config").arg(directory.join("config.toml"));
        let mut process = Process::start("containerd", command, directory);
        process.becomes("ready", || {
            run(ctr(machine, &socket).arg("version"), "")
                .status
                .success()
        });
        Self {
            machine,
            socket,
            _process: process,
        }
    }

    /// Pulls as `user:password`, or as nobody in particular.
    pub fn pull(&self, user: Option<&str>, image: &str) -> Output {
        self.images("pull", user, &["--snapshotter", "native", image])
    }

    /// Pushes an image that is here.
    pub fn push(&self, user: Option<&str>, image: &str) -> Output {
        self.images("push", user, &[image])
    }

    /// Gives an image that is here another name, in place of what had it.
    pub fn tag(&self, image: &str, name: &str) -> Output {
        self.images("tag", None, &["--force", image, name])
    }

    fn images(&self, what: &str, user: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = ctr(self.machine, &self.socket);
        command.args(["images", what]);
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        run(command.args(arguments), "")
    }
}

/// Whether containerd has kept the answer to a manifest to itself: it writes the body into a pipe
/// beside the request, and tells only of the pipe where the answer has closed that first.
pub fn only_tells_of_its_pipe(message: &str) -> bool {
    message.contains("io: read/write on closed pipe")
}

fn ctr(machine: &Machine, socket: &Path) -> Command {
    // It has been seen to wait for ever after a refusal: that fails a test, and does not hold up
    // all of them.
    let mut command = machine.command(&tool("timeout", "coreutils"));
    command
        .arg("60")
        .arg(tool("ctr", "containerd"))
        .arg("--address")
        .arg(socket);
    command
}
