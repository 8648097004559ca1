//! The commands of the real program: what they print, and how they end.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::fixture::RegistriesFixture;
use super::process::{self, Output, moorgate, run, tool};
use crate::harness::Domain;

fn in_directory(path: &Path) -> Command {
    process::command(&moorgate(), path)
}

/// A directory with two broken files.
fn broken() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    fs::write(
        directory.path().join("moorgate.toml"),
        "https = [\":70000\"]\n[lgo]\nlevel = \"info\"\n",
    )
    .unwrap();
    let domain = "domain = \"docker ci\"\n\n[tls]\ninternal = \"yes\"\n\n[auth]\nhtpasswd = \"none\"\n\n\
                  [upstream]\nurl = \"ftp://registry\"\n";
    fs::write(directory.path().join("conf.d/ci.toml"), domain).unwrap();
    directory
}

/// What people read, without the temporary directory's name.
fn text(output: &Output, directory: &Path) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    format!("{status}\n-- stdout\n{stdout}-- stderr\n{stderr}")
        .replace(directory.to_str().unwrap(), "DIR")
}

#[test]
fn check_reports_all_problems_of_all_files() {
    let directory = broken();
    let output = run(
        in_directory(directory.path()).args(["check", "--config", "."]),
        "",
    );
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(text(&output, directory.path()));
}

#[test]
fn run_refuses_a_broken_configuration_with_the_same_words() {
    let directory = broken();
    let check = run(
        in_directory(directory.path()).args(["check", "--config", "."]),
        "",
    );
    let run = run(
        in_directory(directory.path()).args(["run", "--config", "."]),
        "",
    );
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(run.stderr, check.stderr);
    assert_eq!(run.stdout, "");
}

#[test]
fn check_has_a_line_for_each_domain() {
    let fixture = RegistriesFixture::new();
    let output = fixture.cli(&["check"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        output.stderr
    );
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, domain) in lines.iter().zip([cache, ci]) {
        let name = domain.by_name();
        let name = name.split(':').next().unwrap();
        assert!(
            line.starts_with(&format!("{name}  https 127.0.0.1:")),
            "{line}"
        );
        assert!(
            line.ends_with(&format!(" -> http://{}", domain.registry())),
            "{line}"
        );
    }
}

#[test]
fn ctl_sh_knows_the_listeners_as_moorgate_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("conf.d")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ctl.sh");
    fs::copy(script, path.join("ctl.sh")).unwrap();
    // Forms that a search for `https = ["…"]` on one line would not understand.
    let main = "https = [\n  \":8443\", # for all domains\n  '127.0.0.1:9443',\n]\n\"http\" = []\n\
                # listen = \":1\"\nadmin = { listen = '127.0.0.1:9180' }\n";
    fs::write(path.join("moorgate.toml"), main).unwrap();
    let domain = "domain = 'ci.test'\nauth.htpasswd = 'users'\ntls.internal = true\n\
                  upstream.url = 'http://registry:5000'\n";
    fs::write(path.join("conf.d/ci.toml"), domain).unwrap();
    let users = Domain::htpasswd(&[("ci".to_owned(), "secret".to_owned())]);
    fs::write(path.join("conf.d/users"), users).unwrap();
    let mut ps = process::command(&tool("bash", "bash"), path);
    ps.args(["ctl.sh", "ps"]).env("MOORGATE_BIN", moorgate());
    let output = run(&mut ps, "");
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    let line = output.stdout.lines().last().unwrap();
    let columns: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "moorgate",
            "-",
            "stopped",
            ":8443",
            "127.0.0.1:9443",
            "127.0.0.1:9180"
        ],
        "{}",
        output.stdout
    );
}

#[test]
fn a_port_in_use_ends_a_start_with_status_1_and_the_address() {
    let fixture = RegistriesFixture::new();
    let output = fixture.cli(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("cannot listen on 127.0.0.1:"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains(": already in use by moorgate (pid ")
            && output.stderr.contains("/moorgate.toml:5:10\n"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("os error"), "{}", output.stderr);
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["fly"][..],
        &[],
        &["check", "--colour"],
        &["htpasswd", "file"],
    ] {
        let output = run(in_directory(directory.path()).args(arguments), "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(
            output.stderr.contains("Usage: moorgate"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn apache_s_htpasswd_verifies_an_entry_of_moorgate_s() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let add = ["htpasswd", "users", "alice", "--cost", "4"];
    run(in_directory(path).args(add), "first\n").succeeded();
    run(in_directory(path).args(add), "second\n").succeeded();
    let verify = |password: &str| {
        let mut command = process::command(&tool("htpasswd", "apache2-utils"), path);
        run(command.args(["-vb", "users", "alice", password]), "")
            .status
            .success()
    };
    assert!(verify("second"));
    assert!(!verify("first"));
    assert_eq!(
        fs::read_to_string(path.join("users"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}

#[test]
fn the_printed_ca_has_signed_what_is_served() {
    let fixture = RegistriesFixture::new();
    let ca = fixture.path().join("ca.pem");
    fs::write(&ca, fixture.cli(&["certs", "ca"]).succeeded()).unwrap();
    for domain in [&fixture.ci, &fixture.cache] {
        for authority in [domain.by_name(), domain.by_port()] {
            let mut openssl = process::command(&tool("openssl", "openssl"), fixture.path());
            let (name, port) = authority.split_once(':').unwrap();
            let address = format!("127.0.0.1:{port}");
            openssl.args([
                "s_client",
                "-connect",
                &address,
                "-servername",
                name,
                "-verify_hostname",
                name,
            ]);
            openssl
                .args(["-verify_return_error", "-brief", "-CAfile"])
                .arg(&ca);
            let output = run(&mut openssl, "");
            assert!(
                output.stderr.contains("Verification: OK"),
                "{}",
                output.stderr
            );
        }
    }
    let listed = fixture.cli(&["certs"]).succeeded();
    let (_, listed) = listed
        .split_once("docker-ci.test  internal  until 20")
        .expect(&listed);
    assert!(
        listed.contains("Z  by CN=moorgate internal CA "),
        "{listed}"
    );
}

#[test]
fn completions_are_scripts_that_bash_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let script = run(
        in_directory(directory.path()).args(["completions", "bash"]),
        "",
    )
    .succeeded();
    assert!(script.contains("htpasswd"), "{script}");
    fs::write(directory.path().join("script"), script).unwrap();
    let mut bash = process::command(&tool("bash", "bash"), directory.path());
    run(bash.args(["-n", "script"]), "").succeeded();
}

#[test]
fn help_says_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let help = run(
        in_directory(directory.path())
            .env("COLUMNS", "100")
            .arg("--help"),
        "",
    );
    insta::assert_snapshot!(text(&help, directory.path()));
}
