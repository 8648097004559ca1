//! `./ctl.sh` as on the first day: a copy of what the repository ships, on ports that are free.
//!
//! It runs in a process namespace of its own, so that whatever it leaves running ends with the
//! test.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use super::engine::Engine;
use super::fixture::get;
use super::machine::Machine;
use super::ports::free_port;
use super::process::{self, Output, Process, moorgate, run, tool};

/// The ports that stand in ctl.sh, moorgate.toml and conf.d/.
const PORTS: [&str; 5] = ["5001", "5002", "8080", "8443", "9180"];
/// `nobody` on Debian.
const ORDINARY_USER: u32 = 65534;

/// A copy of the repository's first run.
struct FirstRun {
    namespace: Process,
    user: u32,
    ports: Vec<u16>,
    directory: tempfile::TempDir,
}

impl FirstRun {
    fn new(user: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("moorgate");
        let ports: Vec<_> = PORTS.iter().map(|_| free_port()).collect();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![PathBuf::from("ctl.sh"), PathBuf::from("moorgate.toml")];
        let samples = fs::read_dir(source.join("conf.d")).unwrap();
        files.extend(samples.map(|file| Path::new("conf.d").join(file.unwrap().file_name())));
        fs::create_dir_all(root.join("conf.d")).unwrap();
        for file in &files {
            let text = fs::read_to_string(source.join(file)).unwrap();
            fs::write(root.join(file), with_ports(&text, &ports)).unwrap();
        }
        fs::set_permissions(root.join("ctl.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        // Where any user may run it.
        fs::copy(moorgate(), directory.path().join("moorgate.bin")).unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for path in [root.clone(), root.join("conf.d")] {
            chown(path, Some(user), Some(user)).unwrap();
        }
        let mut holder = process::command(&tool("unshare", "util-linux"), directory.path());
        holder.args([
            "--pid",
            "--mount",
            "--mount-proc",
            "--fork",
            "--kill-child=KILL",
            "sleep",
            "infinity",
        ]);
        let mut namespace = Process::start("namespace", holder, directory.path());
        // Once it has a child, all of it is there.
        let id = namespace.id();
        namespace.becomes("there", || process::first_child(id).is_some());
        Self {
            namespace,
            user,
            ports,
            directory,
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("moorgate")
    }

    fn port(&self, shipped: &str) -> u16 {
        self.ports[PORTS.iter().position(|port| *port == shipped).unwrap()]
    }

    /// `./ctl.sh` with these arguments, as the user.
    fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_as(self.user, arguments)
    }

    /// The same as another user.
    fn ctl_as(&self, user: u32, arguments: &[&str]) -> Output {
        run(self.inside_as(user).arg("./ctl.sh").args(arguments), "")
    }

    /// The same for commands that do not end by themselves. What it says last is how it ended.
    fn running_ctl(&self, arguments: &str) -> Process {
        let mut command = self.inside();
        // Of a group of its own, as a terminal would have it: Ctrl-C goes to all of it.
        command.args([
            "sh",
            "-c",
            &format!("trap : INT; ./ctl.sh {arguments}; echo ended with $?"),
        ]);
        command.process_group(0);
        Process::start("ctl", command, self.directory.path())
    }

    /// A program in the namespace, as the user.
    fn inside(&self) -> Command {
        self.inside_as(self.user)
    }

    fn inside_as(&self, user: u32) -> Command {
        let first = process::first_child(self.namespace.id())
            .unwrap()
            .to_string();
        let mut command = process::command(&tool("nsenter", "util-linux"), &self.root());
        command
            .args(["--target", &first, "--pid", "--mount", "--wd=."])
            .arg("--");
        let id = user.to_string();
        command.arg(tool("setpriv", "util-linux"));
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command
            .env("HOME", self.root())
            .env("MOORGATE_BIN", self.directory.path().join("moorgate.bin"));
        command
    }

    /// A run in the foreground that is ready.
    fn debug(&self) -> Process {
        let mut debug = self.running_ctl("debug");
        let admin = self.port("9180");
        debug.becomes("ready", || {
            get(admin, "/readyz").starts_with("HTTP/1.1 200")
        });
        debug
    }

    fn listens(&self, shipped: &str) -> bool {
        TcpStream::connect(("127.0.0.1", self.port(shipped))).is_ok()
    }

    /// The passwords that a start has printed: of docker-ci, and of docker-cache.
    fn passwords(printed: &str) -> [String; 2] {
        ["docker-ci.localhost", "docker-cache.localhost"].map(|domain| {
            let of_domain = |line: &&str| line.trim_start().starts_with(&format!("{domain} "));
            let line = printed.lines().find(of_domain);
            let words = line
                .unwrap_or_else(|| panic!("no password of {domain}: {printed}"))
                .split_whitespace();
            words.last().unwrap().to_owned()
        })
    }

    fn login_status(&self, user: &str, password: &str) -> String {
        let mut curl = self.curl(user, password, "");
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        run(&mut curl, "").stdout
    }

    /// A request for what is below `/v2/` of docker-ci.
    fn curl(&self, user: &str, password: &str, path: &str) -> Command {
        let mut curl = process::command(&tool("curl", "curl"), self.directory.path());
        curl.args(["--silent", "--insecure", "--user"])
            .arg(format!("{user}:{password}"))
            .arg(format!("https://localhost:{}/v2/{path}", self.port("5001")));
        curl
    }

    /// Stores a blob as the user ci, and returns the path to it.
    fn store_blob(&self, password: &str, content: &[u8]) -> String {
        let digest = super::image::sha256(content);
        fs::write(self.directory.path().join("blob"), content).unwrap();
        let path = format!("base/app/blobs/uploads/?digest={digest}");
        let mut curl = self.curl("ci", password, &path);
        curl.args(["--fail", "--request", "POST", "--data-binary", "@blob"]);
        run(&mut curl, "").succeeded();
        format!("base/app/blobs/{digest}")
    }
}

impl Drop for FirstRun {
    fn drop(&mut self) {
        // The holder of a namespace takes no other signal; everything in it ends with it.
        self.namespace.signal(Signal::KILL);
    }
}

/// A shipped file with other ports. In one pass: a free port may have the digits of a shipped one
/// in it.
fn with_ports(text: &str, ports: &[u16]) -> String {
    let mut done = String::new();
    let mut rest = text;
    let first = |rest: &str| {
        PORTS
            .iter()
            .zip(ports)
            .filter_map(|(shipped, free)| Some((rest.find(shipped)?, *shipped, *free)))
            .min()
    };
    while let Some((at, shipped, free)) = first(rest) {
        done.push_str(&rest[..at]);
        done.push_str(&free.to_string());
        rest = &rest[at + shipped.len()..];
    }
    done + rest
}

#[test]
fn ports_with_the_digits_of_others_are_put_in_place_whole() {
    let replaced = with_ports(
        "5001 :8080\n5002 8443 9180.",
        &[28_080, 25_001, 25_002, 29_180, 28_443],
    );
    assert_eq!(replaced, "28080 :25002\n25001 29180 28443.");
}

#[test]
fn the_first_start_serves_both_samples_to_docker() {
    let first_run = FirstRun::new(0);
    let started = first_run.ctl(&["start"]).succeeded();
    let [ci, cache] = FirstRun::passwords(&started);
    let machine = Machine::new(first_run.directory.path(), &[]);
    let engine = Engine::start(&machine, &first_run.directory.path().join("engine"));
    for (port, user, password) in [("5001", "ci", ci), ("5002", "cache", cache)] {
        let authority = format!("localhost:{}", first_run.port(port));
        engine.login(&authority, user, &password).succeeded();
        let name = format!("{authority}/base/app:v1");
        engine.import(&name);
        engine.push_and_pull(&name);
    }
    // Where the last lines of a start say that the images are.
    assert!(started.contains("Images      state/store"), "{started}");
    for store in ["ci", "cache"] {
        let layout = first_run
            .root()
            .join("state/store")
            .join(store)
            .join("repositories/base+app/index.json");
        assert!(fs::read_to_string(layout).unwrap().contains("v1"));
    }
}

#[test]
fn an_ordinary_user_can_start_and_stop() {
    let first_run = FirstRun::new(ORDINARY_USER);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    assert_eq!(first_run.login_status("ci", &ci), "200");
    first_run.ctl(&["stop"]).succeeded();
    assert!(!first_run.listens("5001"));
}

#[test]
fn passwords_are_printed_once_and_kept_in_a_private_file() {
    let first_run = FirstRun::new(0);
    let secrets = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let again = first_run.ctl(&["start"]).succeeded();
    first_run.ctl(&["stop"]).succeeded();
    let later = first_run.ctl(&["start"]).succeeded();
    for secret in &secrets {
        assert!(
            !again.contains(secret) && !later.contains(secret),
            "{again}{later}"
        );
    }
    assert_eq!(
        first_run.login_status("ci", &secrets[0]),
        "200",
        "still the same"
    );
    let kept = first_run.root().join("state/credentials/passwords");
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(kept).unwrap();
    assert!(secrets.iter().all(|secret| text.contains(secret)), "{text}");
}

#[test]
fn two_first_runs_have_different_passwords() {
    let [one, other] = [FirstRun::new(0), FirstRun::new(0)]
        .map(|first_run| FirstRun::passwords(&first_run.ctl(&["start"]).succeeded()));
    let all = one
        .iter()
        .chain(&other)
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(all.len(), 4);
}

#[test]
fn ps_tells_what_runs_and_fails_when_moorgate_does_not() {
    let first_run = FirstRun::new(0);
    first_run.ctl(&["ps"]).failed();
    first_run.ctl(&["start"]).succeeded();
    let listed = first_run.ctl(&["ps"]).succeeded();
    let line = listed
        .lines()
        .find(|line| line.starts_with("moorgate "))
        .unwrap();
    assert!(
        line.contains(" ready ") && line.contains(&first_run.port("5001").to_string()),
        "{listed}"
    );
    first_run.ctl(&["stop"]).succeeded();
    let output = first_run.ctl(&["ps"]);
    assert!(!output.status.success());
    assert!(output.stdout.contains(" stopped "), "{}", output.stdout);
    for port in PORTS {
        assert!(!first_run.listens(port), "{port} is still listened on");
    }
}

#[test]
fn logs_show_requests() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    assert_eq!(first_run.login_status("ci", &ci), "200");
    process::until("the request is in the log", || {
        first_run
            .ctl(&["logs"])
            .succeeded()
            .contains(" user=ci domain=docker-ci.localhost ")
    });
}

#[test]
fn logs_are_followed() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let logs = first_run.running_ctl("logs -f");
    process::until("what was there before is shown", || {
        logs.stdout().contains("listening")
    });
    assert!(!logs.stdout().contains(" user=ci "));
    assert_eq!(first_run.login_status("ci", &ci), "200");
    let ours = " user=ci domain=docker-ci.localhost ";
    process::until("what comes is shown", || logs.stdout().contains(ours));
    // A restart begins a new file.
    first_run.ctl(&["restart"]).succeeded();
    assert_eq!(first_run.login_status("ci", "wrong"), "401");
    process::until("the new file is shown", || {
        logs.stdout()
            .contains(" user=- domain=docker-ci.localhost ")
    });
    assert!(!logs.stdout().contains("ended with"));
}

#[test]
fn debug_runs_in_the_foreground_with_a_detailed_log_until_ctrl_c() {
    let first_run = FirstRun::new(0);
    let debug = first_run.debug();
    let [ci, _] = FirstRun::passwords(&debug.stdout());
    assert_eq!(first_run.login_status("ci", &ci), "200");
    process::until("requests are shown", || {
        debug
            .stdout()
            .contains(" user=ci domain=docker-ci.localhost ")
    });
    // An event that only a detailed log has.
    get(first_run.port("5001"), "/v2/");
    process::until("details are shown", || {
        debug.stderr().contains("DEBUG plain HTTP on a TLS port")
    });
    assert!(first_run.ctl(&["ps"]).succeeded().contains(" ready "));
    first_run.ctl(&["start"]).succeeded();
    kill_process_group(
        Pid::from_raw(debug.id().cast_signed()).unwrap(),
        Signal::INT,
    )
    .unwrap();
    process::until("it has ended", || {
        debug.stdout().ends_with("ended with 0\n")
    });
    assert!(
        debug
            .stderr()
            .contains("draining: running transfers may finish")
    );
    for port in PORTS {
        assert!(!first_run.listens(port), "{port} is still listened on");
    }
}

#[test]
fn stop_ends_a_debug_run_and_debug_refuses_a_second_one() {
    let first_run = FirstRun::new(ORDINARY_USER);
    let debug = first_run.debug();
    let message = first_run.ctl(&["debug"]).failed();
    assert!(message.contains("moorgate is already running"), "{message}");
    first_run.ctl(&["stop"]).succeeded();
    process::until("it has ended", || {
        debug.stdout().ends_with("ended with 0\n")
    });
    for port in PORTS {
        assert!(!first_run.listens(port), "{port} is still listened on");
    }
}

#[test]
fn an_htpasswd_file_that_its_user_may_not_read_keeps_its_users_and_forbids_a_start() {
    let first_run = FirstRun::new(ORDINARY_USER);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let file = first_run
        .root()
        .join("state/credentials/registry-ci.htpasswd");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
    process::until("it is reported", || {
        let log = first_run.ctl(&["logs"]).succeeded();
        log.contains("registry-ci.htpasswd` cannot be read: Permission denied")
            && log.contains("the previous users stay")
    });
    assert_eq!(first_run.login_status("ci", &ci), "200");
    assert_eq!(first_run.login_status("ci", "wrong"), "401");
    first_run.ctl(&["stop"]).succeeded();
    let message = first_run.ctl(&["start"]).failed();
    assert!(
        message.contains("`auth.htpasswd` cannot be read"),
        "{message}"
    );
    assert!(message.contains("Permission denied"), "{message}");
    assert!(!first_run.listens("5001"));
}

#[test]
fn a_restart_keeps_passwords_and_the_ca() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let before = fs::read(first_run.root().join("state/ca.pem")).unwrap();
    first_run.ctl(&["restart"]).succeeded();
    assert_eq!(first_run.login_status("ci", &ci), "200");
    assert_eq!(
        fs::read(first_run.root().join("state/ca.pem")).unwrap(),
        before,
        "the CA stays"
    );
}

#[test]
fn a_restart_with_a_broken_domain_leaves_the_old_one_running() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let file = first_run.root().join("conf.d/docker-cache.toml");
    let broken = fs::read_to_string(&file)
        .unwrap()
        .replace("[upstream]", "[upstraem]");
    fs::write(&file, broken).unwrap();
    let message = first_run.ctl(&["restart"]).failed();
    assert!(message.contains("unknown key `upstraem`"), "{message}");
    assert!(message.contains("the one that runs goes on"), "{message}");
    assert_eq!(first_run.login_status("ci", &ci), "200");
    let listed = first_run.ctl(&["ps"]).succeeded();
    assert!(listed.contains(" ready "), "{listed}");
    assert!(
        listed.contains("the configuration has problems"),
        "{listed}"
    );
}

#[test]
fn a_restart_that_cannot_start_again_stops_nothing() {
    let first_run = FirstRun::new(ORDINARY_USER);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let message = first_run.ctl_as(0, &["restart"]).failed();
    assert!(message.contains("run ./ctl.sh as that user"), "{message}");
    assert_eq!(first_run.login_status("ci", &ci), "200");

    // A further port, which another program has.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = first_run.root().join("conf.d/docker-ci.toml");
    let text = fs::read_to_string(&file).unwrap();
    let listen = format!("listen = [\"{}\", ", other.local_addr().unwrap());
    assert!(text.contains("listen = ["), "{text}");
    fs::write(&file, text.replacen("listen = [", &listen, 1)).unwrap();
    let message = first_run.ctl(&["restart"]).failed();
    assert!(message.contains("the one that runs goes on"), "{message}");
    assert_eq!(first_run.login_status("ci", &ci), "200");
}

#[test]
fn a_restart_serves_while_the_previous_process_finishes_a_pull() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let pull = SlowPull::begin(&first_run, &ci);
    let said = first_run.ctl(&["restart"]).succeeded();
    assert!(
        said.contains("the previous process finishes its transfers"),
        "{said}"
    );
    assert_eq!(first_run.login_status("ci", &ci), "200");
    let listed = first_run.ctl(&["ps"]).succeeded();
    assert!(
        listed.contains(" ready ") && listed.contains(" draining "),
        "{listed}"
    );

    pull.finish();
    first_run.ctl(&["stop"]).succeeded();
    assert!(!first_run.ctl(&["ps"]).stdout.contains("draining"));
}

/// The pids of the processes in a state, as `ps` lists them.
fn pids(listed: &str, state: &str) -> Vec<String> {
    let lines = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| fields.get(2) == Some(&state))
        .map(|fields| fields[1].to_owned())
        .collect()
}

#[test]
fn ps_and_stop_follow_an_upgrade() {
    let first_run = FirstRun::new(0);
    let [ci, _] = FirstRun::passwords(&first_run.ctl(&["start"]).succeeded());
    let before = pids(&first_run.ctl(&["ps"]).succeeded(), "ready");
    let pull = SlowPull::begin(&first_run, &ci);
    let mut upgrade = first_run.inside();
    upgrade.arg(first_run.directory.path().join("moorgate.bin"));
    let upgraded = run(
        upgrade.args(["upgrade", "--config"]).arg(first_run.root()),
        "",
    );
    assert!(upgraded.status.success(), "{}", upgraded.stderr);
    let listed = first_run.ctl(&["ps"]).succeeded();
    assert_eq!(pids(&listed, "draining"), before, "{listed}");
    let serving = pids(&listed, "ready");
    assert!(serving.len() == 1 && serving != before, "{listed}");
    pull.finish();
    first_run.ctl(&["stop"]).succeeded();
    let listed = first_run.ctl(&["ps"]);
    assert!(!listed.status.success(), "{}", listed.stdout);
    for port in PORTS {
        assert!(!first_run.listens(port), "{port} is still listened on");
    }
}

/// A pull that goes on only as far as it is read: of more than pipe and sockets hold.
struct SlowPull {
    pull: Process,
    reader: fs::File,
}

impl SlowPull {
    const BYTES: usize = 32 << 20;

    fn begin(first_run: &FirstRun, password: &str) -> Self {
        let blob = first_run.store_blob(password, &vec![b'x'; Self::BYTES]);
        let directory = first_run.directory.path();
        let pipe = directory.join("pipe");
        let mut make = process::command(&tool("mkfifo", "coreutils"), directory);
        run(make.arg(&pipe), "").succeeded();
        let mut pull = first_run.curl("ci", password, &blob);
        pull.arg("--output").arg(&pipe);
        let pull = Process::start("pull", pull, directory);
        let mut reader = fs::File::open(&pipe).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        Self { pull, reader }
    }

    fn finish(mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap();
        assert!(self.pull.ended().success());
        assert_eq!(rest.len() + 1, Self::BYTES);
    }
}

#[test]
fn a_start_with_a_broken_sample_says_what_is_wrong_and_leaves_nothing_running() {
    let first_run = FirstRun::new(0);
    let file = first_run.root().join("conf.d/docker-ci.toml");
    let broken = fs::read_to_string(&file)
        .unwrap()
        .replace("[upstream]", "[upstraem]");
    fs::write(&file, broken).unwrap();
    let message = first_run.ctl(&["start"]).failed();
    assert!(message.contains("unknown key `upstraem`"), "{message}");
    assert!(
        message.contains("moorgate cannot start with this configuration"),
        "{message}"
    );
    for port in PORTS {
        assert!(!first_run.listens(port), "{port} is listened on");
    }
}
