//! `./ctl.sh --compose`: the project of deploy/compose.yaml, with images made of Debian's registry
//! and a played browser, in a copy of what the repository ships.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use super::engine::Engine;
use super::image::sha256;
use super::machine::Machine;
use super::process::{self, Output, Process, moorgate, run, tool, until};
use super::program_image::ProgramImage;
use super::transfer::Upload;

/// A copy of the repository's project, and a machine for an engine.
struct ComposeProject {
    machine: Machine,
    directory: tempfile::TempDir,
}

impl ComposeProject {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names = ["docker-ci.localhost", "docker-cache.localhost"];
        let machine = Machine::new(directory.path(), &names);
        // The image has them too.
        machine.trusts(&fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap());
        let mut copy = process::command(&tool("cp", "coreutils"), directory.path());
        copy.args(["--recursive", "--parents", "./ctl.sh", "./deploy"])
            .arg(directory.path())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        run(&mut copy, "").succeeded();
        Self { machine, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn engine(&self) -> Engine<'_> {
        Engine::with_containers(&self.machine, &self.path().join("engine"))
    }

    /// An engine that has the images of the registries and of the browser.
    fn engine_with_images(&self) -> Engine<'_> {
        let engine = self.engine();
        let settings = "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\n\
                        http: {addr: \":5000\"}\n";
        ProgramImage::new(self.path().join("registry-image"))
            .program(&tool("docker-registry", "docker-registry"), "/registry")
            .file("/settings.yml", settings)
            .import(
                &engine,
                REGISTRY_IMAGE,
                r#"["/registry", "serve", "/settings.yml"]"#,
            );
        ProgramImage::new(self.path().join("browser-image"))
            .program(&tool("caddy", "caddy"), "/caddy")
            .import(
                &engine,
                BROWSER_IMAGE,
                r#"["/caddy", "respond", "--listen", ":8080", "a registry browser"]"#,
            );
        engine
    }

    /// `./ctl.sh` beside an engine, as somebody in a directory elsewhere calls it.
    fn ctl_command(&self, engine: &Engine<'_>, arguments: &[&str]) -> Command {
        let mut command = engine.beside(&self.path().join("ctl.sh"));
        command
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DOCKER_HOST", engine.host())
            .env("MOORGATE_BIN", moorgate())
            .env("REGISTRY_IMAGE", REGISTRY_IMAGE)
            .env("BROWSER_IMAGE", BROWSER_IMAGE);
        command
    }

    fn ctl(&self, engine: &Engine<'_>, arguments: &[&str]) -> Output {
        run(&mut self.ctl_command(engine, arguments), "")
    }

    /// The same for commands that do not end by themselves, in a process group of its own.
    fn running_ctl(&self, engine: &Engine<'_>, name: &'static str, arguments: &[&str]) -> Process {
        let mut command = self.ctl_command(engine, arguments);
        command.process_group(0);
        Process::start(name, command, self.path())
    }

    /// The password of a user, as it is kept.
    fn password(&self, user: &str) -> String {
        let kept = fs::read_to_string(self.path().join("state/compose/passwords")).unwrap();
        let words = kept
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[1] == user);
        words.unwrap_or_else(|| panic!("{user} in {kept}"))[2].to_owned()
    }

    /// curl as a user.
    fn curl(&self, engine: &Engine<'_>, user: &str) -> Command {
        let mut curl = engine.beside(&tool("curl", "curl"));
        let user = format!("{user}:{}", self.password(user));
        curl.args(["--silent", "--insecure", "--user", &user]);
        curl
    }

    /// An upload to docker-ci that has begun, and what is missing of it.
    fn half_upload(&self, engine: &Engine<'_>) -> (Upload, Vec<u8>) {
        let content = vec![b'x'; 1 << 20];
        let url = format!(
            "https://localhost:5001/v2/base/app/blobs/uploads/?digest={}",
            sha256(&content)
        );
        let mut upload = Upload::start(self.curl(engine, "ci"), "POST", &url);
        upload.write(&content[..1 << 19]);
        let uploads = "engine/data/volumes/moorgate_moorgate/_data/store/ci/uploads";
        until("the upload has begun", || {
            fs::read_dir(self.path().join(uploads)).is_ok_and(|mut all| all.next().is_some())
        });
        (upload, content[1 << 19..].to_vec())
    }
}

const REGISTRY_IMAGE: &str = "registry.test/registry";
const BROWSER_IMAGE: &str = "registry.test/browser";

#[test]
fn both_domains_are_served_from_registries_in_containers() {
    let project = ComposeProject::new();
    let engine = project.engine_with_images();
    let started = project.ctl(&engine, &["--compose", "start"]).succeeded();
    let domains = [
        ("ci", "localhost:5001", "docker-ci.localhost"),
        ("cache", "localhost:5002", "docker-cache.localhost"),
    ];
    for (user, local, name) in domains {
        let password = project.password(user);
        // What is printed, once.
        assert!(started.contains(&password), "{started}");
        for authority in [local, name] {
            engine.login(authority, user, &password).succeeded();
        }
        engine.import(&format!("{name}/base/{user}:v1"));
        engine.push_and_pull(&format!("{name}/base/{user}:v1"));
    }
    for (user, authority) in [("ci", "localhost:5002"), ("cache", "localhost:5001")] {
        engine
            .login(authority, user, &project.password(user))
            .failed();
    }
    let mut browser = project.curl(&engine, "ci");
    assert_eq!(
        run(browser.arg("https://docker-ci.localhost/"), "").stdout,
        "a registry browser"
    );

    let listed = project.ctl(&engine, &["--compose", "ps"]).succeeded();
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert_only_moorgate_is_reachable(&engine, &listed);
    assert_is_confined(&engine);
    project.ctl(&engine, &["--compose", "stop"]).succeeded();
    let stopped = project.ctl(&engine, &["--compose", "ps"]);
    assert_eq!(stopped.status.code(), Some(1), "{}", stopped.stdout);
    let again = project.ctl(&engine, &["--compose", "start"]).succeeded();
    for (user, local, name) in domains {
        assert!(!again.contains(&project.password(user)), "{again}");
        let pushed = format!("{name}/base/{user}:v1");
        engine.docker(&["image", "rm", &pushed]).succeeded();
        engine
            .docker(&["pull", &format!("{local}/base/{user}:v1")])
            .succeeded();
    }
}

/// `listed`: the containers and their ports, as `ps` shows them.
fn assert_only_moorgate_is_reachable(engine: &Engine<'_>, listed: &str) {
    for line in listed.lines().skip(1) {
        let is_moorgate = line.starts_with("moorgate ");
        assert_eq!(line.contains("->"), is_moorgate, "{listed}");
    }
    let network = ["network", "inspect", "moorgate_registries"];
    let is_internal = engine.docker(&[&network[..], &["--format", "{{.Internal}}"]].concat());
    assert_eq!(is_internal.succeeded(), "true\n");
    let names = "{{range .Containers}}{{.Name}} {{end}}";
    let outside = ["network", "inspect", "moorgate_outside", "--format", names];
    let outside = engine.docker(&outside).succeeded();
    assert_eq!(outside.split_whitespace().count(), 1, "{outside}");
}

/// moorgate's container has no privileges, and the longest drain to end.
fn assert_is_confined(engine: &Engine<'_>) {
    let service = "label=com.docker.compose.service=moorgate";
    let container = engine.docker(&["ps", "--quiet", "--filter", service]);
    let format = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} \
                  {{.HostConfig.SecurityOpt}} {{.Config.StopTimeout}} {{.Config.User}}";
    let container = container.succeeded();
    let found = engine.docker(&["inspect", "--format", format, container.trim_end()]);
    assert_eq!(
        found.succeeded(),
        "true [ALL] [no-new-privileges:true] 3660 65532:65532\n"
    );
}

#[test]
fn a_refused_restart_leaves_the_containers_running() {
    let project = ComposeProject::new();
    let engine = project.engine();
    project
        .ctl(&engine, &["--compose-store", "start"])
        .succeeded();
    let domain = project
        .path()
        .join("deploy/compose-store/conf.d/docker-cache.toml");
    let text = fs::read_to_string(&domain).unwrap();
    fs::write(&domain, text.replace("[upstream]", "[upstraem]")).unwrap();
    let refused = project
        .ctl(&engine, &["--compose-store", "restart"])
        .failed();
    assert!(refused.contains("unknown key `upstraem`"), "{refused}");
    assert!(refused.contains("the one that runs goes on"), "{refused}");
    engine
        .login("localhost:5001", "ci", &project.password("ci"))
        .succeeded();

    // What the container's user may not read.
    fs::write(&domain, &text).unwrap();
    fs::set_permissions(&domain, PermissionsExt::from_mode(0o600)).unwrap();
    let refused = project
        .ctl(&engine, &["--compose-store", "restart"])
        .failed();
    assert!(
        refused.contains("may not read deploy/compose-store/conf.d/docker-cache.toml: chmod o+rX"),
        "{refused}"
    );
    fs::set_permissions(&domain, PermissionsExt::from_mode(0o644)).unwrap();
    project
        .ctl(&engine, &["--compose-store", "restart"])
        .succeeded();
    engine
        .login("localhost:5001", "ci", &project.password("ci"))
        .succeeded();
    let logs = project
        .ctl(&engine, &["--compose-store", "logs"])
        .succeeded();
    assert!(logs.contains("INFO listening"), "{logs}");
}

#[test]
fn the_store_needs_no_registry_container_and_a_stop_waits_for_transfers() {
    let project = ComposeProject::new();
    let engine = project.engine();
    let start = || project.ctl(&engine, &["--compose-store", "start"]);
    start().succeeded();
    engine
        .login("localhost:5001", "ci", &project.password("ci"))
        .succeeded();
    assert_is_confined(&engine);
    engine.import("localhost:5001/base/app:v1");
    engine.push_and_pull("localhost:5001/base/app:v1");

    let (mut upload, rest) = project.half_upload(&engine);
    let mut stop = project.running_ctl(&engine, "stop", &["--compose-store", "stop"]);
    stop.becomes("waiting", || {
        stop_text(&project).contains("finishes the transfers that are running")
    });
    upload.write(&rest);
    assert_eq!(upload.finish().unwrap(), "201");
    assert!(stop.ended().success());

    start().succeeded();
    let (upload, _) = project.half_upload(&engine);
    let mut stop = project.running_ctl(&engine, "stop", &["--compose-store", "stop"]);
    stop.becomes("waiting", || {
        stop_text(&project).contains("finishes the transfers that are running")
    });
    project
        .ctl(&engine, &["--compose-store", "stop"])
        .succeeded();
    assert!(stop.ended().success());
    upload.finish().unwrap_err();
}

/// What the running stop has said.
fn stop_text(project: &ComposeProject) -> String {
    fs::read_to_string(project.path().join("stop.out")).unwrap()
}

#[test]
fn debug_shows_details_until_ctrl_c() {
    let project = ComposeProject::new();
    let engine = project.engine();
    let mut debug = project.running_ctl(&engine, "debug", &["--compose-store", "debug"]);
    let ready = || {
        project
            .ctl(&engine, &["--compose-store", "ps"])
            .status
            .success()
    };
    debug.becomes("ready", ready);
    // An event that only a detailed log has.
    let mut plain = engine.beside(&tool("curl", "curl"));
    run(plain.args(["--silent", "http://localhost:5001/v2/"]), "");
    let said = || debug.stdout() + &debug.stderr();
    until("details are shown", || {
        said().contains("DEBUG plain HTTP on a TLS port")
    });
    let again = project.ctl(&engine, &["--compose-store", "debug"]).failed();
    assert!(again.contains("moorgate is already running"), "{again}");
    let group = Pid::from_raw(debug.id().cast_signed()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    assert!(debug.ended().success());
    assert!(!ready());
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let project = ComposeProject::new();
    let programs = project.path().join("programs");
    let ctl = |path: &Path| {
        let mut command = process::command(&project.path().join("ctl.sh"), project.path());
        command
            .args(["--compose", "start"])
            .env("PATH", path)
            .env("DOCKER_HOST", "unix:///nowhere");
        run(&mut command, "").failed()
    };
    let no_engine = ctl(Path::new("/usr/bin:/bin"));
    assert!(
        no_engine.contains("the Docker engine does not answer: Cannot connect")
            && no_engine.contains("systemctl start docker"),
        "{no_engine}"
    );
    fs::create_dir(&programs).unwrap();
    for name in ["bash", "dirname", "id", "readlink", "stat", "env"] {
        symlink(tool(name, "coreutils"), programs.join(name)).unwrap();
    }
    let no_docker = ctl(&programs);
    assert!(
        no_docker.contains("docker is missing: apt-get install docker.io"),
        "{no_docker}"
    );
    // An engine that answers, and a client without Compose.
    let docker: PathBuf = programs.join("docker");
    fs::write(&docker, "#!/bin/sh\n[ \"$1\" = version ]\n").unwrap();
    fs::set_permissions(&docker, PermissionsExt::from_mode(0o755)).unwrap();
    let no_compose = ctl(&programs);
    assert!(
        no_compose.contains("Docker Compose is missing: apt-get install docker-compose"),
        "{no_compose}"
    );
}
