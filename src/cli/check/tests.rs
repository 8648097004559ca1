use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::config;

const DOMAIN: &str = "domain = 'docker-ci.example.com'\nlisten = [':443', ':5000']\n[tls]\ninternal = true\n\
    [auth]\nhtpasswd = 'ci.htpasswd'\n[upstream]\nurl = 'http://registry-ci:5000'\n\
    username = 'ci'\npassword = 's3cret'\n[browser]\nurl = 'http://browser:8080'\n";

fn directory(domain: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("directory");
    let folder = directory.path().join("conf.d");
    std::fs::create_dir(&folder).expect("conf.d");
    std::fs::write(folder.join("ci.toml"), domain).expect("domain file");
    let mode = Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.join("ci.toml"), mode).expect("private");
    std::fs::write(folder.join("ci.htpasswd"), "ci:$2y$05$x\n").expect("htpasswd");
    directory
}

fn snapshot(directory: &Path) -> Snapshot {
    config::load(directory).expect("valid").snapshot
}

fn findings(problems: Problems) -> CheckFindings {
    CheckFindings {
        problems,
        upstreams: None,
    }
}

fn shown(text: &str, directory: &Path) -> String {
    text.replace(&*directory.to_string_lossy(), "DIR")
}

#[test]
fn a_good_configuration_is_one_line_a_domain() {
    let directory = directory(DOMAIN);
    let snapshot = snapshot(directory.path());
    let mut text = Vec::new();
    write_domains(&snapshot, &mut text).expect("written");
    insta::assert_snapshot!(String::from_utf8(text).expect("text"), @"docker-ci.example.com  https :443, :5000  certificate internal  users conf.d/ci.htpasswd  -> http://registry-ci:5000");
    let status = |problems: &Problems, json, strict| {
        let options = CheckOptions {
            json,
            strict,
            live: false,
            repository: None,
        };
        let findings = findings(problems.clone());
        report(&findings, Some(&snapshot), &options).expect("written")
    };
    let mut problems = Problems::default();
    assert_eq!(status(&problems, true, true), ExitCode::SUCCESS);
    problems.push(Problem::in_file(directory.path(), "odd", "look").warning());
    assert_eq!(status(&problems, false, false), ExitCode::SUCCESS);
    for json in [false, true] {
        assert_eq!(status(&problems, json, true), ExitCode::from(1));
    }
}

#[test]
fn an_error_of_another_part_is_exit_status_2() {
    let directory = directory(DOMAIN);
    let snapshot = snapshot(directory.path());
    let file = directory.path().join("conf.d/ci.toml");
    let extra = || {
        vec![Problem::at_key(
            &file,
            &["auth", "htpasswd"],
            "no usable entry",
            "add one",
        )]
    };
    let mut problems = Problems::default();
    problems.extend(extra());
    for json in [false, true] {
        let options = CheckOptions {
            json,
            strict: false,
            live: false,
            repository: None,
        };
        let status =
            report(&findings(problems.clone()), Some(&snapshot), &options).expect("written");
        assert_eq!(status, ExitCode::from(2));
    }
    problems.push(problems.iter().next().expect("one").clone().warning());
    let mut text = Vec::new();
    write_problems(&problems, Colour::Never, &mut text).expect("written");
    insta::assert_snapshot!(shown(&String::from_utf8(text).expect("text"), directory.path()), @r"
    error: no usable entry
     --> DIR/conf.d/ci.toml:6:12
      |
    6 | htpasswd = 'ci.htpasswd'
      |            ^^^^^^^^^^^^^
      |
      = help: add one

    warning: no usable entry
     --> DIR/conf.d/ci.toml:6:12
      |
    6 | htpasswd = 'ci.htpasswd'
      |            ^^^^^^^^^^^^^
      |
      = help: add one

    1 error, 1 warning
    ");
}

#[test]
fn json_tells_scripts_the_same_without_secrets() {
    let good = directory(DOMAIN);
    let main = "http = [':8080']\n[admin]\nlisten = '127.0.0.1:9180'\n";
    std::fs::write(good.path().join("moorgate.toml"), main).expect("moorgate.toml");
    let loaded = config::load(good.path()).expect("valid");
    let text = format!(
        "{:#}",
        json(&findings(loaded.warnings), Some(&loaded.snapshot))
    );
    insta::assert_snapshot!(shown(&text, good.path()), @r#"
    {
      "domains": [
        {
          "aliases": [],
          "authorization": "own",
          "browser": "http://browser:8080",
          "certificate": {
            "internal": true
          },
          "directory": null,
          "domain": "docker-ci.example.com",
          "htpasswd": "DIR/conf.d/ci.htpasswd",
          "listen": [
            ":443",
            ":5000"
          ],
          "mode": "basic",
          "realm": "docker-ci.example.com",
          "source": "DIR/conf.d/ci.toml",
          "upstream": "http://registry-ci:5000"
        }
      ],
      "listen": [
        {
          "address": ":443",
          "role": "https"
        },
        {
          "address": ":5000",
          "role": "https"
        },
        {
          "address": ":8080",
          "role": "http"
        },
        {
          "address": "127.0.0.1:9180",
          "role": "admin"
        }
      ],
      "ok": true,
      "problems": []
    }
    "#);

    let bad = directory("domain = 5\n[upstream]\npasword = 's3cret'\n");
    let problems = config::load(bad.path()).expect_err("invalid");
    let text = format!("{:#}", json(&findings(problems), None));
    assert!(!text.contains("s3cret"));
    insta::assert_snapshot!(shown(&text, bad.path()), @r#"
    {
      "domains": [],
      "listen": [],
      "ok": false,
      "problems": [
        {
          "column": null,
          "file": "DIR/conf.d/ci.toml",
          "help": "write acme = true, `certificate` and `key`, or internal = true, in [tls]",
          "line": null,
          "message": "no source of the certificate is given",
          "severity": "error"
        },
        {
          "column": null,
          "file": "DIR/conf.d/ci.toml",
          "help": "write htpasswd = \"../credentials/NAME.htpasswd\" in [auth]; `moorgate htpasswd` makes one",
          "line": null,
          "message": "`auth.htpasswd` is missing: nobody could log in",
          "severity": "error"
        },
        {
          "column": 10,
          "file": "DIR/conf.d/ci.toml",
          "help": "write a DNS name such as \"docker-ci.example.com\", without scheme, port and path",
          "line": 1,
          "message": "`domain` must be a string in quotes, not an integer",
          "severity": "error"
        },
        {
          "column": 1,
          "file": "DIR/conf.d/ci.toml",
          "help": "write url = \"http://registry:5000\" in [upstream], or directory = \"NAME\" for a registry that moorgate keeps itself",
          "line": 2,
          "message": "`upstream.url` is missing",
          "severity": "error"
        },
        {
          "column": 1,
          "file": "DIR/conf.d/ci.toml",
          "help": "did you mean `password`?",
          "line": 3,
          "message": "unknown key `pasword` in [upstream]",
          "severity": "error"
        }
      ]
    }
    "#);
}
