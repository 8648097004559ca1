//! `moorgate certs import`, as the administrator runs it before a switch from another server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

/// A configuration with one domain, and beside it what certbot left.
fn fixture() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("moorgate.toml", "state = \"state\"\n");
    write("conf.d/users", "");
    let domain = "domain = \"ci.example.com\"\n[tls]\nacme = true\n[auth]\nhtpasswd = \"users\"\n\
                  [upstream]\nurl = \"http://127.0.0.1:1\"\n";
    write("conf.d/ci.toml", domain);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["ci.example.com".to_owned()]).unwrap();
    params.not_before = SystemTime::now().into();
    params.not_after = (SystemTime::now() + Duration::from_secs(60 * 24 * 60 * 60)).into();
    let live = "letsencrypt/live/ci.example.com";
    write(
        &format!("{live}/fullchain.pem"),
        &params.self_signed(&key).unwrap().pem(),
    );
    write(&format!("{live}/privkey.pem"), &key.serialize_pem());
    let server = "server = https://acme-v02.api.letsencrypt.org/directory\n";
    write("letsencrypt/renewal/ci.example.com.conf", server);
    directory
}

fn import(directory: &Path, arguments: &[&str]) -> Output {
    import_by(Command::new(moorgate()), directory, arguments)
}

fn moorgate() -> PathBuf {
    std::env::var_os("MOORGATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_moorgate").into(), PathBuf::from)
}

fn import_by(mut moorgate: Command, directory: &Path, arguments: &[&str]) -> Output {
    moorgate
        .args(["certs", "import", "--config"])
        .arg(directory)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn held(directory: &Path) -> PathBuf {
    let ca = "state/acme/acme-v02.api.letsencrypt.org+directory";
    directory.join(ca).join("certificates/ci.example.com.pem")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_dry_run_is_followed_by_the_same_in_earnest_and_then_by_nothing() {
    let fixture = fixture();
    let directory = fixture.path();
    let dry = import(directory, &["letsencrypt", "--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(
        text(&dry.stderr).contains("would import 1 into "),
        "{}",
        text(&dry.stderr)
    );
    assert!(!held(directory).exists());

    let done = import(directory, &["letsencrypt"]);
    assert!(done.status.success());
    let told = text(&dry.stdout).replace("would import ", "imported  ");
    assert_eq!(text(&done.stdout), told);
    assert_ne!(text(&done.stdout), text(&dry.stdout));
    let line = "imported  ci.example.com at acme-v02.api.letsencrypt.org; until 20";
    assert!(
        text(&done.stdout).starts_with(line),
        "{}",
        text(&done.stdout)
    );
    let kept = fs::read_to_string(held(directory)).unwrap();
    let key =
        fs::read_to_string(directory.join("letsencrypt/live/ci.example.com/privkey.pem")).unwrap();
    assert!(
        kept.replace('\n', "")
            .starts_with(&key.replace(['\r', '\n'], "")),
        "the key, then the chain"
    );
    assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(
        fs::metadata(held(directory)).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let again = import(directory, &["letsencrypt"]);
    assert!(again.status.success());
    assert!(
        text(&again.stdout).starts_with("kept      ci.example.com"),
        "{}",
        text(&again.stdout)
    );
    assert!(text(&again.stderr).contains("imported 0 into "));
}

#[test]
fn what_root_imports_belongs_to_the_owner_of_the_state() {
    let fixture = fixture();
    let state = fixture.path().join("state");
    // Run by anybody else, there is only one owner.
    let user = rustix::process::geteuid();
    let owner = if user.is_root() { 65534 } else { user.as_raw() };
    fs::create_dir(&state).unwrap();
    chown(&state, Some(owner), None).unwrap();
    let dry = import(fixture.path(), &["letsencrypt", "--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert_eq!(
        entries(&state),
        Vec::<PathBuf>::new(),
        "a dry run makes nothing"
    );

    let done = import(fixture.path(), &["letsencrypt"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let made = entries(&state);
    assert!(made.contains(&held(fixture.path())), "{made:?}");
    assert!(
        made.iter()
            .any(|path| path.extension() == Some("lock".as_ref())),
        "{made:?}"
    );
    for path in made {
        assert_eq!(
            fs::metadata(&path).unwrap().uid(),
            owner,
            "{}",
            path.display()
        );
    }
}

/// All files and directories below a directory.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(entries(&path));
        }
        all.push(path);
    }
    all
}

#[test]
fn domains_that_ask_no_ca_get_nothing() {
    let fixture = fixture();
    let directory = fixture.path();
    let file = directory.join("conf.d/ci.toml");
    let domain = fs::read_to_string(&file)
        .unwrap()
        .replace("acme = true", "internal = true");
    fs::write(file, domain).unwrap();
    let done = import(directory, &["letsencrypt"]);
    assert!(done.status.success());
    let line = "skipped   ci.example.com: no CA is asked for ci.example.com: its [tls] does not say `acme`";
    assert!(
        text(&done.stdout).starts_with(line),
        "{}",
        text(&done.stdout)
    );
    assert!(!held(directory).exists());
}

#[test]
fn failures_have_their_own_exit_status() {
    let fixture = fixture();
    let directory = fixture.path();
    let nothing = import(directory, &["conf.d"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        text(&nothing.stderr).contains("found no certificates of "),
        "{}",
        text(&nothing.stderr)
    );
    let usage = import(directory, &["letsencrypt", "--ca", "letsencrypt"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(
        text(&usage.stderr).contains("begins with https:// and a host"),
        "{}",
        text(&usage.stderr)
    );
    // Something of the same name stands in the way.
    fs::create_dir_all(held(directory)).unwrap();
    let failed = import(directory, &["letsencrypt"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stdout).starts_with("FAILED"),
        "{}",
        text(&failed.stdout)
    );
}

/// The user nobody, who may run the program wherever it was built.
fn as_nobody(directory: &Path) -> Command {
    let own = directory.join("moorgate");
    fs::copy(moorgate(), &own).unwrap();
    for path in [directory, &own] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(own);
    command
}

#[test]
fn what_cannot_be_read_is_not_said_to_be_missing() {
    assert!(rustix::process::geteuid().is_root(), "run this as root");
    let fixture = fixture();
    let directory = fixture.path();
    let missing = import(directory, &["letsencrip"]);
    assert_eq!(text(&missing.stderr), "moorgate: there is no letsencrip\n");

    let theirs = directory.join("letsencrypt").canonicalize().unwrap();
    let closed = |path: &str, mode: u32| {
        let path = theirs.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let cure = "run this as root or as the owner of these files";
    // certbot's own modes: nobody but root may enter.
    for (path, words) in [("", "letsencrypt"), ("live", "live")] {
        let shown = closed(path, 0o700);
        let refused = import_by(as_nobody(directory), directory, &["letsencrypt"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = text(&refused.stderr);
        let wanted = format!("cannot read {}", shown.trim_end_matches('/'));
        assert!(
            said.contains(&wanted) && said.contains("Permission denied"),
            "{words}: {said}"
        );
        assert!(
            said.contains(cure) && !said.contains("found no"),
            "{words}: {said}"
        );
        closed(path, 0o755);
    }
    let key = closed("live/ci.example.com/privkey.pem", 0o600);
    let refused = import_by(
        as_nobody(directory),
        directory,
        &["letsencrypt", "--dry-run"],
    );
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stdout);
    assert!(
        said.starts_with("FAILED    ci.example.com: cannot read "),
        "{said}"
    );
    assert!(
        said.contains(&key) && said.contains("Permission denied"),
        "{said}"
    );
}
