//! The finished examples of the page about retention: each is valid without a warning.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::markdown::Page;
use crate::harness::{Domain, Setup};

#[test]
fn the_finished_examples_are_valid() {
    let page = Page::read("docs/retention.md");
    let examples: Vec<_> = page.text.split("```toml\n").skip(1).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let (example, _) = example.split_once("```\n").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let domain = Domain::new("ci.test", "http://127.0.0.1:1");
        Setup::new().domain(domain).write(directory.path());
        let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
        std::fs::create_dir_all(at("credentials")).unwrap();
        for name in ["docker-ci", "docker-cache", "inbox"] {
            std::fs::write(at(&format!("credentials/{name}.htpasswd")), &users).unwrap();
        }
        let password = at("credentials/docker-cache.password");
        std::fs::write(&password, "secret\n").unwrap();
        std::fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
        std::fs::remove_file(at("conf.d/ci.test.toml")).unwrap();
        let tls = "[tls]\ninternal = true\n";
        let listen = "listen = [\"127.0.0.1:0\"]\n";
        let (first, rest) = example.split_once('\n').unwrap();
        let file = format!("{first}\n{listen}{tls}{rest}");
        std::fs::write(at("conf.d/example.toml"), &file).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
        command
            .args(["check", "--strict", "--config"])
            .arg(directory.path());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{file}\n{said}");
    }
}
