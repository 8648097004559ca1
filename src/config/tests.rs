use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::config::problem::Colour;

const DOMAIN: &str = "domain = 'ci.example.com'\n[tls]\ninternal = true\n[auth]\nhtpasswd = 'ci.htpasswd'\n\
    [upstream]\nurl = 'http://registry:5000'\n";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

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
        fs::write(&path, content).expect("written");
        // Readable by others: only what a test makes so.
        set_mode(&path, 0o600);
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
     = help: put a regular file there, or move it away

    error: cannot be read: stream did not contain valid UTF-8
    --> DIR/conf.d/d.toml
     = help: write it in UTF-8

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
      = help: name a PEM file, or leave `roots` out for the system's
    ");
}

#[test]
fn secrets_that_everybody_can_read_are_warned_of() {
    let literal = format!("{DOMAIN}username = 'me'\npassword = 's3cret'\n");
    let files = literal
        .replace("'s3cret'", "{ file = '../secret' }")
        .replace("internal = true", "certificate = 'ci.pem'\nkey = 'ci.key'");
    let main = "[[ca]]\ndirectory = 'zerossl'\neab_key_id = 'me'\n\
                eab_hmac_key = 'c2VjcmV0IHNlY3JldCBzZWNyZXQ'\n";
    let directory = ConfigDirectory::new(&[
        ("conf.d/a.toml", &literal.replace("ci.example", "a")),
        ("conf.d/b.toml", &files.replace("ci.example", "b")),
        ("conf.d/ci.htpasswd", ""),
        ("conf.d/ci.key", ""),
        ("secret", "s3cret"),
        ("moorgate.toml", main),
    ]);
    let warnings = || directory.load().expect("valid").warnings;
    let all = ["conf.d/a.toml", "conf.d/ci.key", "secret", "moorgate.toml"];
    set_mode(directory.0.path(), 0o755);
    assert!(warnings().is_empty(), "{}", warnings());
    for file in all {
        set_mode(&directory.path(file), 0o644);
    }
    insta::assert_snapshot!(directory.shown(&warnings()), @r#"
    warning: `upstream.password` can be read by every user of this machine
     --> DIR/conf.d/a.toml:9:12
      |
    9 | password = …
      |            ^
      |
      = help: run `chmod o-r DIR/conf.d/a.toml`, or write { file = "PATH" }

    warning: `tls.key` can be read by every user of this machine
     --> DIR/conf.d/b.toml:4:7
      |
    4 | key = 'ci.key'
      |       ^^^^^^^^
      |
      = help: run `chmod o-r DIR/conf.d/ci.key`

    warning: `upstream.password` can be read by every user of this machine
      --> DIR/conf.d/b.toml:10:12
       |
    10 | password = { file = '../secret' }
       |            ^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: run `chmod o-r DIR/conf.d/../secret`

    warning: `ca.eab_hmac_key` can be read by every user of this machine
     --> DIR/moorgate.toml:4:16
      |
    4 | eab_hmac_key = …
      |                ^
      |
      = help: run `chmod o-r DIR/moorgate.toml`, or write { file = "PATH" }
    "#);
    assert!(!warnings().to_string().contains("s3cret"));
    // Whoever cannot enter the directory cannot read its files.
    set_mode(directory.0.path(), 0o750);
    assert!(warnings().is_empty(), "{}", warnings());
}

#[test]
fn secrets_are_read_and_never_shown() {
    let text =
        format!("{DOMAIN}username = 'me'\npassword = {{ file = '../credentials/upstream' }}\n");
    let directory = ConfigDirectory::new(&[("conf.d/ci.toml", &text), ("conf.d/ci.htpasswd", "")]);
    insta::assert_snapshot!(directory.refused(), @r"
    error: `upstream.password` names the file `DIR/conf.d/../credentials/upstream`, which cannot be read: No such file or directory (os error 2)
     --> DIR/conf.d/ci.toml:9:12
      |
    9 | password = { file = '../credentials/upstream' }
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: make the file; a relative path starts at the file that names it
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

#[test]
fn what_other_programs_read_is_named_and_not_passed_over_in_silence() {
    let caddy = "ci.example.com {\n  tls ops@example.com\n  proxy / registry:5000\n}\n";
    let directory = ConfigDirectory::new(&[
        ("conf.d/docker-ci.conf", caddy),
        ("conf.d/Caddyfile", caddy),
        ("conf.d/b.TOML", DOMAIN),
        ("conf.d/notes.txt", ""),
        ("conf.d/ci.htpasswd", ""),
        ("ci.toml", DOMAIN),
        ("other.toml", "[package]\nname = 'other'\n"),
    ]);
    insta::assert_snapshot!(directory.refused(), @r#"
    warning: this domain file is passed over: only those in conf.d are read
    --> DIR/ci.toml
     = help: move it to DIR/conf.d

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

    warning: this file is passed over: only *.toml is read
    --> DIR/conf.d/Caddyfile
     = help: `moorgate import caddy DIR/conf.d/Caddyfile` translates it; then move it away

    warning: this file is passed over: only *.toml is read
    --> DIR/conf.d/b.TOML
     = help: move it away, and write what it says into a domain file, `DIR/conf.d/b.toml`, which docs/configuration.md explains

    warning: this file is passed over: only *.toml is read
    --> DIR/conf.d/docker-ci.conf
     = help: `moorgate import caddy DIR/conf.d/docker-ci.conf` translates it; then move it away
    "#);
    directory.write("conf.d/a.toml", DOMAIN);
    let warnings = directory.load().expect("valid").warnings;
    assert_eq!(warnings.iter().count(), 4, "{warnings}");
    for (text, language) in [
        (caddy, "Caddy"),
        ("server {\n  listen 443 ssl;\n}\n", "nginx"),
        ("http:\n  addr: :5000\n", "YAML"),
    ] {
        directory.write("conf.d/a.toml", text);
        let said = directory.refused();
        let first = format!("error: this is not TOML, but looks like {language}\n");
        assert!(said.contains(&first) && said.contains("[auth]\n"), "{said}");
        let import = "`moorgate import caddy DIR/conf.d/a.toml` translates it";
        assert_eq!(said.contains(import), language == "Caddy", "{said}");
    }
}

#[test]
fn a_secret_that_looks_like_a_variable_is_warned_of() {
    for (written, is_warned_of) in [
        ("'$REGISTRY_PASSWORD'", true),
        ("'${REGISTRY_PASSWORD}'", true),
        ("'env:REGISTRY_PASSWORD'", true),
        ("'$ecret'", false),
        ("'a$SECRET'", false),
        ("'$'", false),
    ] {
        let text = format!("{DOMAIN}username = 'me'\npassword = {written}\n");
        let directory =
            ConfigDirectory::new(&[("conf.d/ci.toml", &text), ("conf.d/ci.htpasswd", "")]);
        let said = directory.shown(&directory.load().expect("valid").warnings);
        assert_eq!(!said.is_empty(), is_warned_of, "{written}: {said}");
        assert!(
            !said.contains("PASSWORD") && !said.contains("ecret"),
            "{said}"
        );
    }
}
