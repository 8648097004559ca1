use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config::problem::{Colour, ProblemSeverity};

const DOMAIN: &str = "domain = 'ci.example.com'\n[tls]\ninternal = true\n[auth]\nhtpasswd = 'ci.htpasswd'\n\
    [upstream]\nurl = 'http://registry:5000'\n";

struct ConfigDirectory(tempfile::TempDir);

impl ConfigDirectory {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = Self(tempfile::tempdir().expect("directory"));
        for (name, content) in files {
            directory.write(name, content);
        }
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, content).expect("written");
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(self.0.path())
    }

    fn shown(&self, problems: &Problems) -> String {
        problems
            .render(Colour::Never)
            .replace(&*self.0.path().to_string_lossy(), "DIR")
    }

    fn refused(&self) -> String {
        self.shown(&self.load().expect_err("refused"))
    }
}

#[test]
fn domain_files_are_read_in_the_order_of_their_names() {
    let domain = |name: &str| DOMAIN.replace("ci.example", name);
    let directory = ConfigDirectory::new(&[
        ("conf.d/b.toml", &domain("b")),
        ("conf.d/a.toml", &domain("a")),
        ("conf.d/.a.toml", "broken"),
        ("conf.d/a.toml.off", "broken"),
        ("conf.d/ci.htpasswd", ""),
        ("moorgate.toml", "state = 'state'"),
    ]);
    let loaded = directory.load().expect("valid");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let names: Vec<_> = loaded
        .snapshot
        .domains
        .iter()
        .map(|host| host.domain.as_str())
        .collect();
    assert_eq!(names, ["a.com", "b.com"]);
    assert_eq!(loaded.snapshot.state, directory.path("state"));
    assert_eq!(
        loaded.snapshot.domains[0].source,
        directory.path("conf.d/a.toml")
    );
    assert_eq!(
        loaded.snapshot.domains[0].auth.htpasswd,
        directory.path("conf.d/ci.htpasswd")
    );
}

#[test]
fn a_directory_without_domains_says_how_to_begin() {
    insta::assert_snapshot!(ConfigDirectory::new(&[("moorgate.toml", "")]).refused(), @r#"
    error: there is no domain
    --> DIR/conf.d
     = help: write the first one, conf.d/registry.toml:
             domain = "registry.example.com"
             [tls]
             internal = true
             [auth]
             htpasswd = "../credentials/registry.htpasswd"
             [upstream]
             url = "http://registry:5000"
    "#);
    let missing = load(&ConfigDirectory::new(&[]).path("nowhere"))
        .expect_err("refused")
        .to_string();
    assert!(
        missing.contains("the configuration directory cannot be read"),
        "{missing}"
    );
}

#[test]
fn all_files_are_looked_at_whatever_is_wrong_with_one() {
    let directory = ConfigDirectory::new(&[
        ("conf.d/a.toml", "domain = \n"),
        ("conf.d/b.toml", &DOMAIN.replace("url", "ulr")),
        ("conf.d/c.toml/file", ""),
        ("moorgate.toml", "[log]\nformat = 'xml'\n"),
    ]);
    fs::write(directory.path("conf.d/d.toml"), b"# \xff\n").expect("written");
    insta::assert_snapshot!(directory.refused(), @r#"
    error: string values must be quoted, expected literal string
     --> DIR/conf.d/a.toml:1:10
      |
    1 | domain = 
      |          ^
      |
      = help: correct the TOML syntax here; strings stand in quotes, tables in [brackets]

    error: `auth.htpasswd` cannot be read: DIR/conf.d/ci.htpasswd: No such file or directory (os error 2)
     --> DIR/conf.d/b.toml:5:12
      |
    5 | htpasswd = 'ci.htpasswd'
      |            ^^^^^^^^^^^^^
      |
      = help: `moorgate htpasswd FILE USER` makes it; a relative path starts at the file that names it

    error: `upstream.url` is missing
     --> DIR/conf.d/b.toml:6:1
      |
    6 | [upstream]
      | ^^^^^^^^^^
      |
      = help: write url = "http://registry:5000" in [upstream], or directory = "NAME" for a registry that moorgate keeps itself

    error: unknown key `ulr` in [upstream]
     --> DIR/conf.d/b.toml:7:1
      |
    7 | ulr = …
      | ^^^
      |
      = help: did you mean `url`?

    error: cannot be read: not a regular file
    --> DIR/conf.d/c.toml
     = help: make it readable for moorgate's user, as UTF-8 text

    error: cannot be read: stream did not contain valid UTF-8
    --> DIR/conf.d/d.toml
     = help: make it readable for moorgate's user, as UTF-8 text

    error: `log.format` is not a known value
     --> DIR/moorgate.toml:2:10
      |
    2 | format = 'xml'
      |          ^^^^^
      |
      = help: write "text" or "json"
    "#);
}

#[test]
fn files_that_settings_name_are_looked_for() {
    let text = DOMAIN
        .replace(
            "internal = true",
            "certificate = 'ci.pem'\nkey = '../ci.key'",
        )
        .replace(
            "http://registry:5000'",
            "https://registry:5000'\nroots = '.'",
        );
    let directory = ConfigDirectory::new(&[("conf.d/ci.toml", &text)]);
    insta::assert_snapshot!(directory.refused(), @"
    warning: `tls.certificate` cannot be read: DIR/conf.d/ci.pem: No such file or directory (os error 2)
     --> DIR/conf.d/ci.toml:3:15
      |
    3 | certificate = 'ci.pem'
      |               ^^^^^^^^
      |
      = help: the domain has no certificate until the file is there and moorgate's user may read it

    warning: `tls.key` cannot be read: DIR/conf.d/../ci.key: No such file or directory (os error 2)
     --> DIR/conf.d/ci.toml:4:7
      |
    4 | key = '../ci.key'
      |       ^^^^^^^^^^^
      |
      = help: the domain has no certificate until the file is there and moorgate's user may read it

    error: `auth.htpasswd` cannot be read: DIR/conf.d/ci.htpasswd: No such file or directory (os error 2)
     --> DIR/conf.d/ci.toml:6:12
      |
    6 | htpasswd = 'ci.htpasswd'
      |            ^^^^^^^^^^^^^
      |
      = help: `moorgate htpasswd FILE USER` makes it; a relative path starts at the file that names it

    error: `upstream.roots` cannot be read: DIR/conf.d/.: not a regular file
     --> DIR/conf.d/ci.toml:9:9
      |
    9 | roots = '.'
      |         ^^^
      |
      = help: name a PEM file that moorgate's user may read, or leave `roots` out for the system's
    ");
}

#[test]
fn a_missing_certificate_is_a_warning() {
    let text = DOMAIN.replace("internal = true", "certificate = 'ci.pem'\nkey = 'ci.key'");
    let directory = ConfigDirectory::new(&[("conf.d/ci.toml", &text), ("conf.d/ci.htpasswd", "")]);
    let loaded = directory.load().expect("valid");
    assert_eq!(loaded.warnings.count(ProblemSeverity::Warning), 2);
    directory.write("conf.d/ci.pem", "");
    directory.write("conf.d/ci.key", "");
    assert!(directory.load().expect("valid").warnings.is_empty());
}

#[test]
fn secrets_are_read_and_never_shown() {
    let text =
        format!("{DOMAIN}username = 'me'\npassword = {{ file = '../credentials/upstream' }}\n");
    let directory = ConfigDirectory::new(&[("conf.d/ci.toml", &text), ("conf.d/ci.htpasswd", "")]);
    insta::assert_snapshot!(directory.refused(), @"
    error: `upstream.password` names the file `DIR/conf.d/../credentials/upstream`, which cannot be read: No such file or directory (os error 2)
     --> DIR/conf.d/ci.toml:9:12
      |
    9 | password = { file = '../credentials/upstream' }
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: make a UTF-8 file that moorgate's user may read; a relative path starts at the file that names it
    ");
    directory.write("credentials/upstream", "s3cret\n");
    let loaded = directory.load().expect("valid");
    assert!(!format!("{loaded:?}").contains("s3cret"));
    directory.write(
        "conf.d/ci.toml",
        &format!("{DOMAIN}username = 'me'\npassword = \"s3\\u001bcret\"\n"),
    );
    insta::assert_snapshot!(directory.refused(), @"
    error: `upstream.password` holds a control character
     --> DIR/conf.d/ci.toml:9:12
      |
    9 | password = …
      |            ^
      |
      = help: write it without tabs and other control characters
    ");
}
