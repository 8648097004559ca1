//! The image of `deploy/Dockerfile`: built by a Docker engine around the program under test, and run
//! by it with no privileges and a root file system that cannot be written.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::engine::Engine;
use super::image::sha256;
use super::machine::Machine;
use super::process::{self, Process, moorgate, run, tool, until};
use super::program_image::ProgramImage;
use super::transfer::Upload;

/// A machine for an engine, and files for containers.
struct ContainerHost {
    machine: Machine,
    directory: tempfile::TempDir,
}

impl ContainerHost {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::new(directory.path(), &["ci.test"]);
        Self { machine, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration that containers see as `/etc/moorgate`.
    fn etc(&self) -> PathBuf {
        self.path().join("etc")
    }

    fn engine(&self) -> Engine<'_> {
        Engine::with_containers(&self.machine, &self.path().join("engine"))
    }

    /// An engine with the image, as `moorgate`.
    fn engine_with_image(&self) -> Engine<'_> {
        let engine = self.engine();
        let root = self.path().join("root");
        let mut layout = process::command(&source("deploy/image-root.sh"), self.path());
        run(layout.arg(moorgate()).arg(&root), "").succeeded();
        build(&engine, &["--build-arg", "ROOT=ready"], &root);
        engine
    }

    /// Makes the configuration with the image's own program: the domain ci.test and the user ci.
    fn init(&self, engine: &Engine<'_>) {
        fs::create_dir(self.etc()).unwrap();
        let etc = format!("{}:/etc/moorgate", self.etc().display());
        let arguments = [
            &[
                "run",
                "--rm",
                "--interactive",
                "--network",
                "none",
                "--user",
                "0:0",
            ][..],
            &[
                "--read-only",
                "--cap-drop",
                "ALL",
                "--volume",
                &etc,
                "moorgate",
            ],
            &[
                "init",
                "/etc/moorgate",
                "--domain",
                "ci.test",
                "--internal",
                "--user",
                "ci",
            ],
        ];
        engine
            .docker_with_input(&arguments.concat(), "secret\n")
            .succeeded();
        let credentials = self.etc().join("credentials");
        for path in [credentials.join("ci.test.htpasswd"), credentials] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
    }

    /// Runs the image as the documentation says, until the engine finds it healthy.
    fn start(&self, engine: &Engine<'_>) {
        let etc = format!("{}:/etc/moorgate:ro", self.etc().display());
        let arguments = [
            &[
                "run",
                "--detach",
                "--name",
                "gate",
                "--publish",
                "127.0.0.1:443:443",
            ][..],
            &[
                "--read-only",
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
            ],
            &[
                "--volume",
                &etc,
                "--volume",
                "state:/var/lib/moorgate",
                "moorgate",
            ],
        ];
        engine.docker(&arguments.concat()).succeeded();
        until("the container is healthy", || {
            inspect(engine, "{{.State.Health.Status}}") == "healthy"
        });
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds the image, as `moorgate`, in a context.
fn build(engine: &Engine<'_>, options: &[&str], context: &Path) {
    let dockerfile = source("deploy/Dockerfile");
    let mut arguments = vec!["build", "--tag", "moorgate", "--file"];
    arguments.push(dockerfile.to_str().unwrap());
    arguments.extend(options);
    arguments.push(context.to_str().unwrap());
    engine.docker(&arguments).succeeded();
}

fn inspect(engine: &Engine<'_>, format: &str) -> String {
    let said = engine.docker(&["inspect", "--format", format, "gate"]);
    said.succeeded().trim_end().to_owned()
}

/// What the container has logged, on both outputs.
fn logged(engine: &Engine<'_>) -> String {
    let log = engine.docker(&["logs", "gate"]);
    log.stdout + &log.stderr
}

/// curl as the user, beside the engine.
fn curl(engine: &Engine<'_>) -> Command {
    let mut curl = engine.beside(&tool("curl", "curl"));
    curl.args(["--silent", "--insecure", "--user", "ci:secret"]);
    curl
}

#[test]
fn a_container_without_privileges_serves_what_docker_pushes_and_reloads() {
    let host = ContainerHost::new();
    let engine = host.engine_with_image();
    host.init(&engine);
    host.start(&engine);
    engine.login("ci.test", "ci", "secret").succeeded();
    engine.import("ci.test/base/app:v1");
    engine.push_and_pull("ci.test/base/app:v1");

    let reloads = || logged(&engine).matches("configuration reloaded").count();
    engine
        .docker(&["exec", "gate", "moorgate", "reload"])
        .succeeded();
    assert_eq!(reloads(), 1);
    engine
        .docker(&["kill", "--signal", "HUP", "gate"])
        .succeeded();
    until("it is reloaded", || reloads() == 2);
    fs::write(host.etc().join("conf.d/broken.toml"), "domain").unwrap();
    let refused = engine.docker(&["exec", "gate", "moorgate", "reload"]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    fs::remove_file(host.etc().join("conf.d/broken.toml")).unwrap();

    // What it keeps outlives the container, even one that was killed.
    engine.docker(&["rm", "--force", "gate"]).succeeded();
    host.start(&engine);
    engine
        .docker(&["image", "rm", "ci.test/base/app:v1"])
        .succeeded();
    engine.docker(&["pull", "ci.test/base/app:v1"]).succeeded();
}

#[test]
fn a_container_that_is_stopped_finishes_its_transfers() {
    let host = ContainerHost::new();
    let engine = host.engine_with_image();
    host.init(&engine);
    host.start(&engine);
    let content = vec![b'x'; 1 << 20];
    let digest = sha256(&content);
    let url = format!("https://ci.test/v2/base/app/blobs/uploads/?digest={digest}");
    let mut upload = Upload::start(curl(&engine), "POST", &url);
    upload.write(&content[..1 << 19]);
    until("the upload has begun", || {
        let uploads = "store/ci/uploads";
        let state = host.path().join("engine/data/volumes/state/_data");
        fs::read_dir(state.join(uploads)).is_ok_and(|mut all| all.next().is_some())
    });

    let mut stop = host.machine.command(&tool("docker", "docker.io"));
    stop.args(["--host", &engine.host(), "stop", "--time", "600", "gate"]);
    let mut stop = Process::start("stop", stop, host.path());
    until("it drains", || logged(&engine).contains("draining"));
    let mut refused = curl(&engine);
    let refused = run(refused.arg("https://ci.test/v2/"), "");
    assert!(!refused.status.success(), "{}", refused.stdout);
    upload.write(&content[1 << 19..]);
    assert_eq!(upload.finish().unwrap(), "201");
    assert!(stop.ended().success());
    assert_eq!(inspect(&engine, "{{.State.ExitCode}}"), "0");
}

#[test]
fn the_image_is_small_and_has_labels() {
    let host = ContainerHost::new();
    let engine = host.engine_with_image();
    let of_image = |format: &str| {
        let said = engine.docker(&["image", "inspect", "--format", format, "moorgate"]);
        said.succeeded().trim_end().to_owned()
    };
    let size: u64 = of_image("{{.Size}}").parse().unwrap();
    let program = fs::metadata(host.path().join("root/usr/bin/moorgate"))
        .unwrap()
        .len();
    assert!(size - program < 4 << 20, "{size} with {program}");
    // Another profile's program is larger; `./ctl.sh test` tests the one that is released.
    if std::env::var_os("MOORGATE_BIN").is_some() {
        assert!(size < 25 << 20, "{size}");
    }
    let label = |name: &str| {
        of_image(&format!(
            "{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}"
        ))
    };
    assert_eq!(label("title"), "moorgate");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(of_image("{{.Config.User}}"), "65532:65532");
}

#[test]
fn all_of_the_image_belongs_to_root_but_for_the_state() {
    let host = ContainerHost::new();
    let engine = host.engine_with_image();
    engine
        .docker(&["create", "--name", "gate", "moorgate"])
        .succeeded();
    let archive = host.path().join("image.tar");
    engine
        .docker(&["export", "--output", archive.to_str().unwrap(), "gate"])
        .succeeded();
    let mut list = process::command(&tool("tar", "tar"), host.path());
    let list = run(
        list.arg("--list")
            .arg("--verbose")
            .arg("--numeric-owner")
            .arg("--file")
            .arg(&archive),
        "",
    );
    let list = list.succeeded();
    let owned: Vec<_> = list
        .lines()
        .filter(|line| !line.contains(" 0/0 "))
        .collect();
    assert!(
        owned.len() == 1
            && owned[0].starts_with("drwx------ 65532/65532 ")
            && owned[0].ends_with(" var/lib/moorgate/"),
        "{list}"
    );
    let programs: Vec<_> = list
        .lines()
        .filter(|line| line.starts_with("-rwx") && line.contains("/bin/"))
        .collect();
    assert!(
        programs.len() == 1 && programs[0].ends_with(" usr/bin/moorgate"),
        "{list}"
    );
}

/// Plays the compiler's image: a shell, what `deploy/image-root.sh` needs, and a cargo that has the
/// program ready.
fn import_played_compiler(engine: &Engine<'_>, host: &ContainerHost) {
    let authorities = fs::read_to_string(AUTHORITIES).unwrap();
    let programs = [
        ("sh", "dash"),
        ("bash", "bash"),
        ("cat", "coreutils"),
        ("mawk", "mawk"),
        ("chmod", "coreutils"),
        ("cp", "coreutils"),
        ("dirname", "coreutils"),
        ("ldd", "libc-bin"),
        ("mkdir", "coreutils"),
        ("rmdir", "coreutils"),
        ("strip", "binutils"),
    ];
    let mut image = ProgramImage::new(host.path().join("compiler"))
        .program(&moorgate(), "/moorgate")
        .file("/bin/cargo", PLAYED_CARGO)
        .file(AUTHORITIES, &authorities);
    for (name, package) in programs {
        let path = format!("/bin/{}", if name == "mawk" { "awk" } else { name });
        image = image.program(&tool(name, package), &path);
    }
    let dockerfile = fs::read_to_string(source("deploy/Dockerfile")).unwrap();
    let name = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM ")?.strip_suffix(" AS built"))
        .unwrap();
    image.import(engine, name, "[]");
}

/// Builds only in a context of what cargo reads.
const PLAYED_CARGO: &str = r#"#!/bin/sh
set -e
[ "$*" = "build --profile dist --locked" ]
for wanted in .cargo/config.toml Cargo.toml Cargo.lock src/main.rs tests/it/main.rs benches/hot_path.rs; do
    [ -f "$wanted" ] || { echo "$wanted is not in the context"; exit 1; }
done
for unwanted in .git ctl.sh docs deploy/Dockerfile tests/it/harness; do
    [ ! -e "$unwanted" ] || { echo "$unwanted is in the context"; exit 1; }
done
mkdir -p target/dist
cp /moorgate target/dist/moorgate
"#;

#[test]
fn the_image_is_built_from_source_in_a_context_without_the_rest() {
    let host = ContainerHost::new();
    let engine = host.engine();
    import_played_compiler(&engine, &host);
    build(&engine, &[], &source(""));
    let version = engine.docker(&["run", "--rm", "--network", "none", "moorgate", "--version"]);
    assert_eq!(
        version.succeeded(),
        format!("moorgate {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// That of the image, and its group.
const USER: u32 = 65532;

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
