//! Programs as processes: found or missed by name, run to their end, or kept running and ended in
//! any case.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The moorgate under test: the one that `./ctl.sh test` has built, or else cargo's.
pub fn moorgate() -> PathBuf {
    std::env::var_os("MOORGATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_moorgate").into(), PathBuf::from)
}

/// Where a tool is. Fails with the name of the Debian package that it is in.
pub fn tool(name: &str, package: &str) -> PathBuf {
    // Debian's own before any other of the same name; daemons are not in every user's PATH.
    let places = [
        "/usr/bin",
        "/usr/sbin",
        "/bin",
        "/sbin",
        "/usr/local/bin",
        "/usr/local/sbin",
    ];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("`{name}` is missing: run `apt-get install {package}`, or `./ctl.sh test`, which installs it")
    })
}

/// A command that knows nothing of this user's settings and ends when the test's process does.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(tool("setpriv", "util-linux"));
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .current_dir(home)
        .env_clear();
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("LC_ALL", "C.UTF-8");
    command
}

/// What a program that has ended said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // All inputs here fit into a pipe. A program that does not want its input has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Output {
    /// Asserts success, and returns what was said on standard output.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(
            self.status.success(),
            "{}\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Asserts failure by the program's own doing, and returns what was said on standard error.
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(
            !self.status.success(),
            "it succeeded:\n{}{}",
            self.stdout,
            self.stderr
        );
        // Whoever waits for ever was not refused.
        assert_ne!(
            self.status.code(),
            Some(TIMED_OUT),
            "it hung:\n{}{}",
            self.stdout,
            self.stderr
        );
        assert!(
            !was_killed(self.status),
            "it was ended:\n{}{}",
            self.stdout,
            self.stderr
        );
        self.stderr
    }
}

/// A process that runs until it is dropped. What it says goes into two files.
pub struct Process {
    name: &'static str,
    child: Child,
    logs: PathBuf,
}

impl Process {
    /// Starts it; its files go into the directory `logs`.
    pub fn start(name: &'static str, mut command: Command, logs: &Path) -> Self {
        let file = |kind: &str| File::create(logs.join(format!("{name}.{kind}"))).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"));
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            name,
            child,
            logs: logs.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.logs.join(format!("{}.out", self.name))).unwrap()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.logs.join(format!("{}.err", self.name))).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // One that has ended and was not waited for is still there to take it.
        kill_process(id, signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name;
        let mut status = None;
        until(&format!("{name} ends"), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits until `ready`, which it has to reach alive.
    pub fn becomes(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let mut ended = None;
        until(&format!("{} is {what}", self.name), || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || ready()
        });
        assert!(
            ended.is_none(),
            "{} ended with {ended:?}\n{}{}",
            self.name,
            self.stdout(),
            self.stderr()
        );
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::TERM);
            // An engine ends what it has started; the others are quick.
            for _ in 0..100 {
                if !self.is_running() {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            for (kind, text) in [("out", self.stdout()), ("err", self.stderr())] {
                let lines: Vec<_> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("-- {} ({kind}):\n{last}", self.name);
            }
        }
    }
}

/// The first process that a process has started, if there is one.
pub fn first_child(id: u32) -> Option<u32> {
    let children = format!("/proc/{id}/task/{id}/children");
    let children = std::fs::read_to_string(children).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Asks again until the answer is yes: nothing else tells when a process has come so far.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if done() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("still not so after {TRIES} looks: {what}");
}

/// Whether a program was ended by a signal rather than by itself.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// What `timeout` says of a program that it had to end.
const TIMED_OUT: i32 = 124;

/// Two minutes and more: only what never comes waits for all of them.
const TRIES: u32 = 2400;
const PAUSE: Duration = Duration::from_millis(50);
