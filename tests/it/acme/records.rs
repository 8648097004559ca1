//! TXT records of challenges: those that a command sets for each order (dns-01), and the persistent
//! one (dns-persist-01).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use moorgate::internal::app::StartOptions;
use moorgate::internal::listen::InheritedSockets;

use super::{AcmeCa, PATIENCE, Scripted, issued, renew, until};
use crate::harness::dns::Dns;
use crate::harness::{Domain, Gateway, Setup, cli, start_app, within};

/// A program that records its arguments.
fn command(directory: &Path) -> String {
    let path = directory.join("set-txt");
    std::fs::write(
        &path,
        "#!/bin/sh\necho \"$1 $2\" >>\"$(dirname \"$0\")/calls\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn calls(directory: &Path) -> Vec<String> {
    let calls = std::fs::read_to_string(directory.join("calls")).unwrap_or_default();
    calls.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_record_left_by_a_stop_is_removed_at_the_next_start() {
    let ca = AcmeCa::new().await;
    ca.offers(&["dns-01"]);
    ca.once("challenge", Scripted::Silence);
    let beside = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"dns-01\"]\ndns_command = [\"{}\"]\n{}",
        command(beside.path()),
        ca.toml(beside.path(), "ca")
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").tls("acme = true");
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    let silent = async {
        while ca.asked("challenge").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    assert!(within(PATIENCE, silent).await);
    assert!(gateway.stop().await);
    let set = "present _acme-challenge.ci.test".to_owned();
    let gone = "cleanup _acme-challenge.ci.test".to_owned();
    assert_eq!(calls(beside.path()), std::slice::from_ref(&set));

    let Gateway { app: _, directory } = gateway;
    let options = StartOptions {
        directory: directory.path().to_owned(),
        workers: None,
        log_floor: None,
        logs: None,
        sockets: InheritedSockets::default(),
        predecessor: None,
        strict: false,
    };
    let gateway = Gateway {
        app: start_app(options).await.unwrap(),
        directory,
    };
    issued(&gateway).await;
    assert_eq!(calls(beside.path()), [set.clone(), gone.clone(), set, gone]);
    assert!(!gateway.path("state/acme/texts/ci.test.json").exists());
}

#[tokio::test]
async fn a_persistent_record_proves_a_name() {
    let (ca, dns) = (AcmeCa::new().await, Dns::new().await);
    ca.offers(&["dns-persist-01"]);
    ca.identities(&["ca.test"]);
    let beside = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"dns-persist-01\"]\nresolvers = [\"{}\"]\n{}",
        dns.address(),
        ca.toml(beside.path(), "ca")
    );
    let tls = "acme = true\nnames = [\"*.example.com\"]";
    let domain = Domain::new("ci.example.com", "http://127.0.0.1:9").tls(tls);
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    let shown = until(&gateway, "postponed", |shown| {
        shown["acme"]["attempts"]["postponed"] == 1
    })
    .await;
    let found = shown["acme"]["findings"][0].as_str().unwrap();
    let record = found
        .strip_prefix("set the TXT record _validation-persist.example.com to \"")
        .unwrap();
    let record = record.trim_end_matches('"');
    assert!(
        record.starts_with("ca.test; accounturi=https://127.0.0.1:"),
        "{record}"
    );
    assert!(record.ends_with("; policy=wildcard"), "{record}");
    assert!(
        ca.asked("order").is_empty(),
        "no order is spent on what is not there"
    );
    let (code, printed, _) = cli(
        gateway.directory.path(),
        &["certs", "dns", "ci.example.com"],
    )
    .await;
    let line = format!("_validation-persist.example.com. IN TXT \"{record}\"\n");
    assert!(code == Some(0) && printed.contains(&line), "{printed}");
    dns.says("_validation-persist.example.com", record);
    renew(&gateway, "ci.example.com").await;
    issued(&gateway).await;
    assert_eq!(ca.asked("challenge").len(), 1);
}

#[tokio::test]
async fn the_next_challenge_is_used_where_the_persistent_record_is_missing() {
    let (ca, dns) = (AcmeCa::new().await, Dns::new().await);
    ca.offers(&["http-01", "dns-persist-01"]);
    ca.identities(&["ca.test"]);
    let beside = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"dns-persist-01\", \"http-01\"]\nresolvers = [\"{}\"]\n{}",
        dns.address(),
        ca.toml(beside.path(), "ca")
    );
    let domain = Domain::new("ci.example.com", "http://127.0.0.1:9").tls("acme = true");
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    issued(&gateway).await;
    assert_eq!(
        (ca.asked("order").len(), ca.asked("challenge").len()),
        (1, 1)
    );
    assert_eq!(ca.asked("challenge")[0]["type"], "http-01");
}
