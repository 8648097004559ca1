//! The Kubernetes manifests: valid by the schemas of the API, and with a configuration that starts.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::{command, moorgate, run};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/moorgate.yaml")
}

/// Where `./ctl.sh test` installs it.
fn kubernetes_validate() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/root".into())).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let program = cache.join("moorgate/kubernetes-validate/bin/kubernetes-validate");
    assert!(
        program.exists(),
        "{} is missing: `./ctl.sh test` installs it",
        program.display()
    );
    program
}

#[test]
fn the_manifests_are_valid_by_the_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let validate = |file: &Path| {
        let mut validate = command(&kubernetes_validate(), directory.path());
        run(validate.arg("--strict").arg(file), "")
    };
    let report = validate(&manifests());
    let said = format!("{}{}", report.stdout, report.stderr);
    assert!(report.status.success(), "{said}");
    assert_eq!(said.matches(" passed for resource ").count(), 5, "{said}");
    // The validator is one that finds something.
    let broken = directory.path().join("broken.yaml");
    let text = fs::read_to_string(manifests()).unwrap();
    fs::write(
        &broken,
        text.replace("readOnlyRootFilesystem", "readOnlyRoot"),
    )
    .unwrap();
    validate(&broken).failed();
}

/// The block scalar below a key, without its indentation.
fn block(text: &str, key: &str) -> String {
    let (_, rest) = text.split_once(&format!("  {key}: |\n")).expect(key);
    let lines = rest.lines().map_while(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_configuration_of_the_manifests_is_valid() {
    let text = fs::read_to_string(manifests()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path();
    for folder in ["conf.d", "credentials"] {
        fs::create_dir(etc.join(folder)).unwrap();
    }
    let state = "state = \"state\"\n".to_owned();
    fs::write(
        etc.join("moorgate.toml"),
        state + &block(&text, "moorgate.toml"),
    )
    .unwrap();
    fs::write(etc.join("conf.d/domain.toml"), block(&text, "domain.toml")).unwrap();
    let mut htpasswd = command(&moorgate(), etc);
    run(
        htpasswd.args(["htpasswd", "credentials/users.htpasswd", "ci"]),
        "secret\n",
    )
    .succeeded();
    let mut check = command(&moorgate(), etc);
    let checked = run(check.args(["check", "--config", "."]), "");
    assert!(
        checked.stdout.starts_with("registry.example.com "),
        "{}",
        checked.stderr
    );
    assert!(checked.status.success(), "{}", checked.stderr);
}
