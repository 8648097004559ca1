//! The Debian package in a fresh Debian: installed, configured, started, upgraded and purged.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ports::free_port;
use super::process::{Output, Process, command, moorgate, run, tool};

/// Packages the binary under test.
fn package(directory: &Path, revision: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = directory.join(format!("moorgate_{revision}.deb"));
    let mut package = command(&tool("bash", "bash"), source);
    package.arg("deploy/package.sh").arg(&file);
    // Cargo's own, and where `./ctl.sh test` installs cargo-deb.
    for name in ["HOME", "PATH", "CARGO_HOME", "RUSTUP_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            package.env(name, value);
        }
    }
    package
        .env("MOORGATE_BIN", moorgate())
        .env("DEB_REVISION", revision);
    let output = run(&mut package, "");
    assert!(
        output.status.success(),
        "{}\n`./ctl.sh test` installs cargo-deb",
        output.stderr
    );
    file
}

/// The root of a Debian that has nothing but the essential packages.
struct DebianRoot {
    directory: tempfile::TempDir,
}

impl DebianRoot {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let release = fs::read_to_string("/etc/os-release").unwrap();
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .expect("a Debian");
        let mut debootstrap = command(&tool("debootstrap", "debootstrap"), directory.path());
        debootstrap.args([
            "--variant=minbase",
            "--include=adduser,ca-certificates",
            suite,
        ]);
        run(debootstrap.arg(directory.path().join("root")), "").succeeded();
        let root = Self { directory };
        // Services are not started by their packages here, as in every container.
        let policy = root.path("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n").unwrap();
        fs::set_permissions(policy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(&tool("chroot", "coreutils"), self.directory.path());
        command.arg(self.path("")).arg(program);
        command
    }

    fn run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        run(self.command(program).args(words), "")
    }

    fn dpkg(&self, package: &Path) -> String {
        fs::copy(package, self.path("moorgate.deb")).unwrap();
        self.run("dpkg --install /moorgate.deb").succeeded()
    }

    /// The program as its unit starts it.
    fn as_service(&self, arguments: &str) -> Command {
        let mut command = self.command("setpriv");
        command
            .args(["--reuid=moorgate", "--regid=moorgate", "--init-groups"])
            .args(["--no-new-privs", "moorgate"])
            .args(arguments.split(' '));
        command
    }

    fn owner(&self, path: &str) -> (u32, u32) {
        let metadata = fs::metadata(self.path(path)).unwrap();
        (metadata.uid(), metadata.mode() & 0o7777)
    }

    fn uid(&self) -> u32 {
        self.run("id --user moorgate")
            .succeeded()
            .trim()
            .parse()
            .unwrap()
    }
}

#[test]
fn a_package_is_installed_started_upgraded_and_purged() {
    let directory = tempfile::tempdir().unwrap();
    let first = package(directory.path(), "1");
    let mut lintian = command(&tool("lintian", "lintian"), directory.path());
    let report = run(lintian.args(["--fail-on", "error,warning"]).arg(&first), "");
    assert!(report.status.success(), "{}", report.stdout);

    let root = DebianRoot::new();
    let said = root.dpkg(&first);
    assert!(said.contains("Next: moorgate init /etc/moorgate"), "{said}");
    let uid = root.uid();
    assert_eq!(root.owner("var/lib/moorgate"), (uid, 0o700));
    assert_eq!(root.owner("etc/moorgate/credentials"), (uid, 0o750));
    for path in [
        "usr/lib/systemd/system/moorgate.service",
        "usr/lib/systemd/system/moorgate.socket",
        "usr/share/man/man1/moorgate.1.gz",
        "usr/share/bash-completion/completions/moorgate",
    ] {
        assert!(root.path(path).exists(), "{path}");
    }

    let https = free_port();
    let (http, admin) = (free_port(), free_port());
    let main = root.path("etc/moorgate/moorgate.toml");
    let settings = format!(
        "https = [\"127.0.0.1:{https}\"]\nhttp = [\"127.0.0.1:{http}\"]\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"
    );
    fs::write(&main, &settings).unwrap();
    let init = format!(
        "moorgate init /etc/moorgate --domain ci.test --internal --user ci --listen 127.0.0.1:{https}"
    );
    let said = root.run(&init).succeeded();
    assert!(said.contains("\n  systemctl restart moorgate\n"), "{said}");
    let password = said.lines().next().unwrap().rsplit(' ').next().unwrap();
    let serves = || {
        let mut process = Process::start("moorgate", root.as_service("run"), directory.path());
        process.becomes("ready", || {
            run(&mut root.as_service("health"), "").status.success()
        });
        let mut curl = command(&tool("curl", "curl"), directory.path());
        curl.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .arg("--cacert")
        .arg(root.path("var/lib/moorgate/internal-ca/ca.pem"))
        .args(["--user", &format!("ci:{password}")])
        .args(["--resolve", &format!("ci.test:{https}:127.0.0.1")])
        .arg(format!("https://ci.test:{https}/v2/"));
        assert_eq!(run(&mut curl, "").stdout, "200");
    };
    serves();

    let image = root.path("var/lib/moorgate/store/ci/kept");
    fs::write(&image, "an image").unwrap();
    root.dpkg(&package(directory.path(), "2"));
    assert_eq!(fs::read_to_string(&main).unwrap(), settings);
    serves();

    let said = root.run("dpkg --purge moorgate").succeeded();
    assert!(
        said.contains("/var/lib/moorgate is not empty and was left"),
        "{said}"
    );
    // Made by the package, and by the service.
    for path in [
        "etc/moorgate/moorgate.toml",
        "usr/bin/moorgate",
        "var/lib/moorgate/internal-ca",
        "var/lib/moorgate/control",
    ] {
        assert!(!root.path(path).exists(), "{path}");
    }
    // Made by people.
    assert!(image.exists());
    assert!(root.path("etc/moorgate/conf.d/ci.test.toml").exists());
}
