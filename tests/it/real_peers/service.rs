//! The program as a service: what it tells a service manager, sockets that are passed to it, health
//! checks, and a configuration made by `moorgate init`.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_port;
use super::process::{Output, Process, command, moorgate, run, tool};

/// A configuration that `moorgate init` has made, with free ports.
struct Configured {
    directory: tempfile::TempDir,
    https: u16,
    /// What was printed.
    said: String,
}

impl Configured {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let https = free_port();
        let ports = [https, free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let [listen, http, admin] = ports.each_ref().map(String::as_str);
        let mut init = command(&moorgate(), directory.path());
        init.args([
            "init",
            "etc",
            "--domain",
            "ci.test",
            "--internal",
            "--user",
            "ci",
        ])
        .args(["--listen", listen, "--http", http, "--admin", admin]);
        let said = run(&mut init, "secret\n").succeeded();
        Self {
            directory,
            https,
            said,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = command(&moorgate(), self.path());
        run(command.args(arguments).args(["--config", "etc"]), "")
    }

    fn run_command(&self) -> std::process::Command {
        let mut command = command(&moorgate(), self.path());
        command.args(["run", "--config", "etc"]);
        command
    }

    fn start(&self) -> Process {
        let mut process = Process::start("moorgate", self.run_command(), self.path());
        process.becomes("ready", || self.cli(&["health"]).status.success());
        process
    }

    /// The status of a login over TLS with moorgate's CA.
    fn login(&self, password: &str) -> String {
        let mut curl = command(&tool("curl", "curl"), self.path());
        curl.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args(["--cacert", "etc/state/internal-ca/ca.pem"])
        .args(["--user", &format!("ci:{password}")])
        .args(["--resolve", &format!("ci.test:{}:127.0.0.1", self.https)])
        .arg(format!("https://ci.test:{}/v2/", self.https));
        run(&mut curl, "").stdout
    }
}

/// Plays the service manager's end of the notifications.
struct ServiceManager {
    socket: UnixDatagram,
}

impl ServiceManager {
    fn listen(directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        Self { socket }
    }

    /// The next notification that is no sign of life.
    fn next(&self) -> String {
        loop {
            let state = self.receive();
            if state != "WATCHDOG=1\n" {
                return state;
            }
        }
    }

    fn receive(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a notification");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[test]
fn a_service_manager_is_told_of_every_change() {
    let configured = Configured::new();
    let manager = ServiceManager::listen(configured.path());
    let mut command = configured.run_command();
    command.env("NOTIFY_SOCKET", configured.path().join("notify"));
    let mut process = Process::start("moorgate", command, configured.path());
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving 1 domain\n");
    // Ready means that it accepts.
    TcpStream::connect(("127.0.0.1", configured.https)).unwrap();

    process.signal(Signal::HUP);
    let reloading = manager.next();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving 1 domain\n");

    fs::write(configured.path().join("etc/conf.d/other.toml"), "domain").unwrap();
    assert_eq!(configured.cli(&["reload"]).status.code(), Some(2));
    manager.next();
    assert_eq!(
        manager.next(),
        "READY=1\nSTATUS=serving 1 domain; the newest configuration is refused\n"
    );

    process.signal(Signal::TERM);
    let stopping = manager.next();
    // The drain is an hour by default, and what comes after it gets a minute.
    assert!(
        stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=3660000000\nSTATUS=draining: "),
        "{stopping}"
    );
    assert!(process.ended().success());
}

#[test]
fn signs_of_life_come_for_as_long_as_they_are_asked_for() {
    let configured = Configured::new();
    let manager = ServiceManager::listen(configured.path());
    let mut command = configured.run_command();
    command
        .env("NOTIFY_SOCKET", configured.path().join("notify"))
        .env("WATCHDOG_USEC", "2000000");
    let _process = Process::start("moorgate", command, configured.path());
    let states: Vec<String> = (0..4).map(|_| manager.receive()).collect();
    assert!(states[0].starts_with("READY=1\n"), "{states:?}");
    assert_eq!(states[1..], ["WATCHDOG=1\n"; 3]);
}

#[test]
fn sockets_of_the_service_manager_are_served() {
    let configured = Configured::new();
    let mut activate = command(
        &tool("systemd-socket-activate", "systemd"),
        configured.path(),
    );
    let unused = free_port();
    activate
        .args(["--listen", &format!("127.0.0.1:{}", configured.https)])
        .args(["--listen", &format!("127.0.0.1:{unused}")])
        .arg(moorgate())
        .args(["run", "--config", "etc"]);
    let mut process = Process::start("moorgate", activate, configured.path());
    // The first connection starts the program, which serves it.
    process.becomes("activated", || {
        TcpStream::connect(("127.0.0.1", configured.https)).is_ok()
    });
    process.becomes("ready", || configured.cli(&["health"]).status.success());
    assert_eq!(configured.login("secret"), "200");
    let log = process.stderr();
    let warning = format!(
        "the service manager passed a socket that no setting names: nobody answers there address=127.0.0.1:{unused}"
    );
    assert!(log.contains(&warning), "{log}");
    // It is found again after a configuration without it.
    let main = configured.path().join("etc/moorgate.toml");
    let with = fs::read_to_string(&main).unwrap();
    let other = free_port().to_string();
    fs::write(&main, with.replace(&configured.https.to_string(), &other)).unwrap();
    configured.cli(&["reload"]).succeeded();
    fs::write(&main, with).unwrap();
    configured.cli(&["reload"]).succeeded();
    assert_eq!(configured.login("secret"), "200");
}

/// A process that has taken over. It ends with this.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

impl Configured {
    fn upgrade(&self) -> Successor {
        let upgraded = self.cli(&["upgrade"]);
        assert!(upgraded.status.success(), "{}", upgraded.stderr);
        let (_, pid) = upgraded.stderr.split_once("): process ").unwrap();
        let (pid, _) = pid.split_once(" serves now").unwrap();
        Successor(Pid::from_raw(pid.parse().unwrap()).unwrap())
    }
}

#[test]
fn an_upgrade_names_the_new_main_process() {
    let configured = Configured::new();
    let manager = ServiceManager::listen(configured.path());
    let mut command = configured.run_command();
    command.env("NOTIFY_SOCKET", configured.path().join("notify"));
    let mut process = Process::start("moorgate", command, configured.path());
    let ready = "READY=1\nSTATUS=serving 1 domain\n";
    assert_eq!(manager.next(), ready);
    let successor = configured.upgrade();
    let mut said = [manager.next(), manager.next()];
    said.sort();
    let main = format!("MAINPID={}\n", successor.0.as_raw_nonzero());
    assert_eq!(said, [main.as_str(), ready]);
    assert!(process.ended().success());
    // The old one has left without a word: the service goes on.
    kill_process(successor.0, Signal::TERM).unwrap();
    let stopping = manager.next();
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
}

#[test]
fn sockets_of_the_service_manager_go_to_the_new_process() {
    let configured = Configured::new();
    let mut activate = command(
        &tool("systemd-socket-activate", "systemd"),
        configured.path(),
    );
    let unused = free_port();
    activate
        .args(["--listen", &format!("127.0.0.1:{}", configured.https)])
        .args(["--listen", &format!("127.0.0.1:{unused}")])
        .arg(moorgate())
        .args(["run", "--config", "etc"]);
    let mut process = Process::start("moorgate", activate, configured.path());
    process.becomes("activated", || {
        TcpStream::connect(("127.0.0.1", configured.https)).is_ok()
    });
    process.becomes("ready", || configured.cli(&["health"]).status.success());
    let first = configured.upgrade();
    assert!(process.ended().success());
    assert_eq!(configured.login("secret"), "200");
    let _second = configured.upgrade();
    drop(first);
    assert_eq!(configured.login("secret"), "200");
    // Also the one that no setting names stays open.
    TcpStream::connect(("127.0.0.1", unused)).unwrap();
}

#[test]
fn health_is_that_of_the_process_of_the_configuration() {
    let configured = Configured::new();
    let stopped = configured.cli(&["health"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(
        stopped.stderr.contains("no moorgate runs here"),
        "{}",
        stopped.stderr
    );
    let process = configured.start();
    let ready = configured.cli(&["health"]);
    assert!(ready.status.success());
    assert!(ready.stderr.ends_with(": ready\n"), "{}", ready.stderr);
    fs::remove_dir_all(configured.path().join("etc/state/store/ci")).unwrap();
    let damaged = configured.cli(&["health"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(
        damaged
            .stderr
            .ends_with(": not ready: the directory of a store is not there\n"),
        "{}",
        damaged.stderr
    );
    drop(process);
}

#[test]
fn a_configuration_is_made_without_an_editor() {
    let configured = Configured::new();
    let said = &configured.said;
    let next = format!("docker login ci.test:{} --username ci", configured.https);
    assert!(said.contains(&next), "{said}");
    assert!(!said.contains("password"), "{said}");
    let checked = configured.cli(&["check", "--strict"]);
    assert!(checked.status.success(), "{}", checked.stderr);
    let _process = configured.start();
    assert_eq!(configured.login("secret"), "200");
    assert_eq!(configured.login("another"), "401");
}

#[test]
fn init_adds_a_domain_and_replaces_nothing() {
    let configured = Configured::new();
    let etc = configured.path().join("etc");
    let main = fs::read(etc.join("moorgate.toml")).unwrap();
    let init = |domain: &str, upstream: &str| {
        let mut init = command(&moorgate(), configured.path());
        init.args(["init", "etc", "--user", "o'x \"y\"", "--domain", domain]);
        run(
            init.args(["--upstream", upstream, "--acme", "ops@example.com"]),
            "",
        )
    };
    let again = init("ci.test", "http://127.0.0.1:5000").failed();
    assert!(
        again.contains("etc/conf.d/ci.test.toml exists already"),
        "{again}"
    );
    // What cannot be served is not kept.
    let wrong = init("new.example.com", "ftp://127.0.0.1").failed();
    assert!(wrong.contains("conf.d/new.example.com.toml:"), "{wrong}");
    assert!(wrong.ends_with("moorgate: nothing was kept\n"), "{wrong}");
    assert_eq!(fs::read_dir(etc.join("conf.d")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(etc.join("credentials")).unwrap().count(), 1);
    // Without a password, one is made and shown once.
    let said = init("new.example.com", "http://127.0.0.1:5000").succeeded();
    let first = said.lines().next().unwrap();
    let password = first
        .strip_prefix("The password of o'x \"y\" is ")
        .expect(first);
    assert_eq!(password.len(), 24, "{password}");
    assert_eq!(configured.cli(&["check"]).stdout.lines().count(), 2);
    // An error of another domain does not keep this one back, and is told.
    fs::write(etc.join("conf.d/broken.toml"), "domain").unwrap();
    let beside = init("other.example.com", "http://127.0.0.1:5000");
    assert_eq!(beside.status.code(), Some(2));
    assert!(
        beside.stderr.contains("conf.d/broken.toml:"),
        "{}",
        beside.stderr
    );
    assert!(etc.join("conf.d/other.example.com.toml").exists());
    assert_eq!(fs::read(etc.join("moorgate.toml")).unwrap(), main);
}

#[test]
fn beside_an_existing_main_file_init_passes_over_no_option() {
    let configured = Configured::new();
    let init = |options: &[&str]| {
        let mut init = command(&moorgate(), configured.path());
        init.args([
            "init",
            "etc",
            "--user",
            "ops",
            "--domain",
            "new.example.com",
        ]);
        run(init.args(["--internal"]).args(options), "")
    };
    for option in ["http", "admin", "state"] {
        let said = init(&[&format!("--{option}"), "127.0.0.1:1"]).failed();
        let reason = format!("etc/moorgate.toml exists already: set `{option}` in it");
        assert!(said.contains(&reason), "{said}");
    }
    let domain = configured.path().join("etc/conf.d/new.example.com.toml");
    assert!(!domain.exists());
    let said = init(&["--listen", "127.0.0.1:7443"]).succeeded();
    assert!(
        said.contains("  docker login new.example.com:7443 --username ops\n"),
        "{said}"
    );
    let text = fs::read_to_string(domain).unwrap();
    assert!(text.contains("\nlisten = [\"127.0.0.1:7443\"]\n"), "{text}");
}

#[test]
fn without_a_terminal_init_names_the_options_that_are_missing() {
    let directory = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let mut init = command(&moorgate(), directory.path());
        run(init.args(["init", "etc"]).args(arguments), "").failed()
    };
    assert!(said(&[]).contains("--domain"));
    let domain = ["--domain", "ci.example.com"];
    assert!(said(&domain).contains("--acme EMAIL, --internal, or --certificate with --key"));
    assert!(said(&[&domain[..], &["--internal"]].concat()).contains("--user"));
    assert!(said(&["--domain", "a b"]).contains("`a b`"));
    assert!(!directory.path().join("etc").exists());
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let mut manual = command(&moorgate(), directory.path());
    run(manual.args(["manual", "man"]), "").succeeded();
    let page = |name: &str| fs::read_to_string(directory.path().join("man").join(name)).unwrap();
    for command in moorgate::internal::cli::command().get_subcommands() {
        let about = command.get_about().unwrap().to_string();
        let first: String = about
            .chars()
            .take_while(|c| *c != '\'' && *c != '-')
            .collect();
        let page = page(&format!("moorgate-{}.1", command.get_name()));
        assert!(page.contains(&first), "{first} in {page}");
    }
    assert!(page("moorgate.1").contains("Exit status"));
}

#[test]
fn the_unit_is_valid_and_hardened() {
    let directory = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    for unit in ["moorgate.service", "optional/moorgate.socket"] {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        let text = text.replace("/usr/bin/moorgate", moorgate().to_str().unwrap());
        fs::write(
            directory.path().join(unit.trim_start_matches("optional/")),
            text,
        )
        .unwrap();
    }
    let analyze = |arguments: &[&str]| {
        let mut analyze = command(&tool("systemd-analyze", "systemd"), directory.path());
        run(analyze.args(arguments), "")
    };
    let verified = analyze(&[
        "verify",
        "--man=no",
        "./moorgate.service",
        "./moorgate.socket",
    ]);
    assert!(verified.stderr.is_empty(), "{}", verified.stderr);
    verified.succeeded();
    let report = analyze(&[
        "security",
        "--offline=true",
        "--threshold=20",
        "./moorgate.service",
    ]);
    assert!(report.status.success(), "{}", report.stdout);
}
