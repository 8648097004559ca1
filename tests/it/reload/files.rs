//! Files that change take effect by themselves, each for its domain alone. Time runs as it does:
//! events of the kernel do not wait for a test's clock.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use moorgate::internal::app::StartError;
use serde_json::Value;

use super::{LOGGED_IN, status_of};
use crate::harness::{Domain, Gateway, ProxiedPair, Setup, Upstream, cli, request};

const NOWHERE: &str = "http://127.0.0.1:1";

/// Waits until something is so. Each check waits for a response of the gateway.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(done.is_ok(), "{what}");
}

async fn is_served(gateway: &Gateway, name: &str) -> bool {
    gateway.tls(name, &["http/1.1"]).await.is_ok()
}

async fn served(gateway: &Gateway, name: &str) {
    eventually(name, async || is_served(gateway, name).await).await;
}

async fn gone(gateway: &Gateway, name: &str) {
    eventually(name, async || !is_served(gateway, name).await).await;
}

fn aliased(name: &str, alias: &str) -> String {
    let domain = Domain::new(name, NOWHERE);
    domain.top(&format!("aliases = [\"{alias}\"]")).toml()
}

async fn two_domains() -> Gateway {
    Setup::new()
        .domain(Domain::new("ci.test", NOWHERE))
        .domain(Domain::new("cache.test", NOWHERE))
        .start()
        .await
}

async fn problems(gateway: &Gateway) -> Vec<Value> {
    let status = gateway.status().await;
    status["configuration"]["problems"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_new_a_changed_and_a_removed_domain_file_take_effect() {
    let gateway = two_domains().await;
    let file = gateway.path("conf.d/ci.test.toml");
    fs::write(&file, aliased("ci.test", "alias.test")).unwrap();
    served(&gateway, "alias.test").await;
    Setup::new()
        .domain(Domain::new("new.test", NOWHERE))
        .write_domains(gateway.directory.path());
    served(&gateway, "new.test").await;
    fs::remove_file(gateway.path("conf.d/cache.test.toml")).unwrap();
    gone(&gateway, "cache.test").await;
    assert!(is_served(&gateway, "alias.test").await);
}

#[tokio::test]
async fn a_broken_file_is_reported_until_it_is_corrected_while_others_change() {
    let gateway = two_domains().await;
    let broken = gateway.path("conf.d/ci.test.toml");
    fs::write(&broken, "domain = 5").unwrap();
    fs::write(
        gateway.path("conf.d/cache.test.toml"),
        aliased("cache.test", "alias.test"),
    )
    .unwrap();
    served(&gateway, "alias.test").await;
    eventually("the problem is in /status", async || {
        problems(&gateway).await.len() == 1
    })
    .await;
    let found = problems(&gateway).await;
    assert_eq!(found[0]["file"], broken.display().to_string());
    assert_eq!(found[0]["domain"], "ci.test");
    assert_eq!(found[0]["effect"], "earlier-served");
    assert_eq!(
        gateway.status().await["configuration"]["refused"],
        Value::Null
    );
    let metrics = crate::metrics::scrape(&gateway).await;
    let series = format!(
        "moorgate_configuration_problem{{domain=\"ci.test\",file=\"{}\"}}",
        broken.display()
    );
    assert_eq!(metrics[&*series], 1.0);
    assert_eq!(metrics["moorgate_configuration_ok"], 0.0);
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    fs::write(&broken, aliased("ci.test", "mended.test")).unwrap();
    served(&gateway, "mended.test").await;
    assert_eq!(problems(&gateway).await, Vec::<Value>::new());
    let metrics = crate::metrics::scrape(&gateway).await;
    assert_eq!(metrics["moorgate_configuration_ok"], 1.0);
}

#[tokio::test]
async fn a_problem_of_the_main_file_changes_nothing_until_it_is_corrected() {
    let gateway = two_domains().await;
    let file = gateway.path("moorgate.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[access")).unwrap();
    eventually("it is refused", async || {
        let status = gateway.status().await;
        status["configuration"]["refused"].is_string()
    })
    .await;
    fs::write(
        gateway.path("conf.d/ci.test.toml"),
        aliased("ci.test", "alias.test"),
    )
    .unwrap();
    assert!(gateway.app.reload().await.is_err());
    assert!(!is_served(&gateway, "alias.test").await);
    fs::write(&file, good).unwrap();
    served(&gateway, "alias.test").await;
    assert!(problems(&gateway).await.is_empty());
}

#[tokio::test]
async fn a_start_with_one_broken_file_serves_the_others() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    let broken = directory.path().join("conf.d/broken.toml");
    fs::write(&broken, "domain = \"broken.test\"").unwrap();
    let setup = Setup::new().domain(Domain::new("ci.test", NOWHERE));
    let gateway = setup.try_start_in(directory).await.unwrap();
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    let found = problems(&gateway).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["domain"], "broken.test");
    assert_eq!(found[0]["effect"], "not-served");
    assert!(!is_served(&gateway, "broken.test").await);
}

#[tokio::test]
async fn a_strict_start_refuses_a_broken_file() {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(Domain::new("ci.test", NOWHERE));
    setup.write(directory.path());
    fs::write(directory.path().join("conf.d/broken.toml"), "domain = 5").unwrap();
    let (code, _, said) = cli(directory.path(), &["run", "--strict"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("broken.toml:1:10"), "{said}");
}

#[tokio::test]
async fn a_start_without_a_valid_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    fs::write(directory.path().join("conf.d/broken.toml"), "domain = 5").unwrap();
    let started = Setup::new().try_start_in(directory).await;
    assert!(matches!(started, Err(StartError::Configuration(_))));
}

#[tokio::test]
async fn at_a_start_neither_of_two_files_with_a_domain_is_served() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    let copy = directory.path().join("conf.d/a-copy.toml");
    fs::write(&copy, Domain::new("cache.test", NOWHERE).toml()).unwrap();
    let setup = Setup::new()
        .domain(Domain::new("ci.test", NOWHERE))
        .domain(Domain::new("cache.test", NOWHERE));
    let gateway = setup.try_start_in(directory).await.unwrap();
    assert!(is_served(&gateway, "ci.test").await);
    assert!(!is_served(&gateway, "cache.test").await);
    assert_eq!(problems(&gateway).await.len(), 2);
    fs::remove_file(gateway.path("conf.d/a-copy.toml")).unwrap();
    served(&gateway, "cache.test").await;
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_takes_effect() {
    let gateway = two_domains().await;
    for alias in ["one.test", "two.test"] {
        let new = gateway.path("conf.d/.ci.test.toml.new");
        fs::write(&new, aliased("ci.test", alias)).unwrap();
        fs::rename(new, gateway.path("conf.d/ci.test.toml")).unwrap();
        served(&gateway, alias).await;
    }
}

#[tokio::test]
async fn a_swap_of_symbolic_links_takes_effect() {
    let gateway = two_domains().await;
    let folder = gateway.path("conf.d");
    // As Kubernetes mounts a ConfigMap.
    let version = |name: &str, alias: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        let file = folder.join(name).join("ci.test.toml");
        let toml = aliased("ci.test", alias);
        let users = folder.join("ci.test.htpasswd").display().to_string();
        fs::write(file, toml.replace("ci.test.htpasswd", &users)).unwrap();
    };
    version("..1", "one.test");
    symlink("..1", folder.join("..data")).unwrap();
    fs::remove_file(folder.join("ci.test.toml")).unwrap();
    symlink("..data/ci.test.toml", folder.join("ci.test.toml")).unwrap();
    served(&gateway, "one.test").await;
    for (name, alias) in [("..2", "two.test"), ("..3", "three.test")] {
        version(name, alias);
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        served(&gateway, alias).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_directory_that_is_made_anew_is_watched_on() {
    let gateway = two_domains().await;
    let (folder, other) = (gateway.path("conf.d"), gateway.path("other"));
    for alias in ["one.test", "two.test"] {
        copy(&folder, &other);
        fs::write(other.join("ci.test.toml"), aliased("ci.test", alias)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&other, &folder).unwrap();
        served(&gateway, alias).await;
        assert!(is_served(&gateway, "cache.test").await);
    }
    // And a change in the new one.
    fs::write(
        folder.join("ci.test.toml"),
        aliased("ci.test", "three.test"),
    )
    .unwrap();
    served(&gateway, "three.test").await;
}

#[tokio::test]
async fn a_missing_directory_changes_nothing() {
    let gateway = two_domains().await;
    fs::rename(gateway.path("conf.d"), gateway.path("away")).unwrap();
    eventually("it is refused", async || {
        let status = gateway.status().await;
        status["configuration"]["refused"].is_string()
    })
    .await;
    assert!(is_served(&gateway, "ci.test").await);
    fs::rename(gateway.path("away"), gateway.path("conf.d")).unwrap();
    eventually("it is there again", async || {
        problems(&gateway).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_missing_htpasswd_file_is_the_problem_of_its_domain_until_it_is_there() {
    let gateway = two_domains().await;
    let (users, away) = (
        gateway.path("conf.d/ci.test.htpasswd"),
        gateway.path("away"),
    );
    fs::rename(&users, &away).unwrap();
    eventually("it is reported", async || {
        let found = problems(&gateway).await;
        found
            .iter()
            .any(|problem| problem["effect"] == "earlier-served")
    })
    .await;
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    fs::rename(&away, &users).unwrap();
    eventually("it is there again", async || {
        problems(&gateway).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_file_that_changes_without_end_delays_no_other_one() {
    let gateway = two_domains().await;
    let file = gateway.path("conf.d/ci.test.toml");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let mut count = 0;
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            stopped.recv_timeout(Duration::from_millis(20))
        {
            count += 1;
            let toml = aliased("ci.test", &format!("n{count}.test"));
            fs::write(&file, toml).unwrap();
        }
        count
    });
    fs::write(
        gateway.path("conf.d/cache.test.toml"),
        aliased("cache.test", "alias.test"),
    )
    .unwrap();
    served(&gateway, "alias.test").await;
    drop(stop);
    let last = writing.join().unwrap();
    served(&gateway, &format!("n{last}.test")).await;
    assert!(problems(&gateway).await.is_empty());
}

#[tokio::test]
async fn what_did_not_change_goes_on() {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    let hashes = between.gateway.app.hashes();
    let other = Upstream::new().await;
    Setup::new()
        .domain(Domain::new("cache.test", &other.url()))
        .write_domains(between.gateway.directory.path());
    served(&between.gateway, "cache.test").await;
    // The same connection to the registry, and no password is hashed again.
    between.passed(request("GET", "/v2/", "")).await;
    assert_eq!(between.gateway.app.hashes(), hashes);
}
