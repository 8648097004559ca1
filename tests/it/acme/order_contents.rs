//! What an order contains (profile, addresses, contacts), and what follows when the configuration
//! changes it.

use serde_json::json;

use super::{ACME_TLS, AcmeCa, gateway, issued, timestamp, until};
use crate::harness::{Domain, Gateway, Setup};

/// Writes other `[tls]` tables for the domain, and reloads.
async fn change(gateway: &Gateway, tls: &str) {
    let path = gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("[tls]\n").unwrap();
    let (_, after) = rest.split_once("\n[").unwrap();
    std::fs::write(path, format!("{before}[tls]\n{tls}\n[{after}")).unwrap();
    gateway.app.reload().await.unwrap();
}

#[tokio::test]
async fn another_profile_is_ordered_when_only_that_changes() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    change(&gateway, "acme = true\nprofile = \"shortlived\"").await;
    let shown = until(&gateway, "another", |shown| shown["serial"] != before).await;
    assert_eq!(ca.asked("order")[1]["profile"], "shortlived");
    // The same again: nothing is to be done.
    change(
        &gateway,
        "acme = true\nprofile = \"shortlived\"\nfallback = \"internal\"",
    )
    .await;
    let good = until(&gateway, "good", |shown| {
        shown["acme"]["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("good"))
    });
    assert_eq!(good.await["serial"], shown["serial"]);
    assert_eq!(ca.asked("order").len(), 2);
}

#[tokio::test]
async fn an_imported_certificate_is_good_whatever_its_profile() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    // As if it had been taken over from another server: there is a certificate, and no word about
    // it.
    std::fs::remove_file(gateway.path("state/acme/domains/ci.test.json")).unwrap();
    change(&gateway, "acme = true\nprofile = \"shortlived\"").await;
    let good = until(&gateway, "good", |shown| {
        shown["acme"]["profile"] == "shortlived"
            && shown["acme"]["state"]
                .as_str()
                .is_some_and(|state| state.starts_with("good"))
    });
    assert_eq!(good.await["serial"], before);
    assert_eq!(ca.asked("order").len(), 1);
}

#[tokio::test]
async fn an_address_has_a_certificate_that_lives_for_160_hours() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["shortlived"]);
    let directory = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\n{}",
        ca.toml(directory.path(), "ca")
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").top("aliases = [\"127.0.0.9\"]");
    let domain = domain.tls("acme = true\nprofile = \"shortlived\"");
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    let shown = issued(&gateway).await;
    assert_eq!(shown["names"], json!(["ci.test", "127.0.0.9"]));
    let wanted = [("dns", "ci.test"), ("ip", "127.0.0.9")];
    let wanted = wanted.map(|(kind, value)| json!({ "type": kind, "value": value }));
    assert_eq!(ca.asked("order")[0]["identifiers"], json!(wanted));
    let next = timestamp(&shown["acme"]["next_attempt"]);
    let lived = next
        .duration_since(timestamp(&shown["not_before"]))
        .unwrap();
    // Half of the life, or up to 1/25 earlier.
    assert!((73..=80).contains(&(lived.as_secs() / 3600)), "{lived:?}");
}

#[tokio::test]
async fn changed_contacts_are_updated_before_the_next_order() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], "acme = \"ops@example.com\"").await;
    issued(&gateway).await;
    change(&gateway, "acme = \"night@example.com\"").await;
    super::renew(&gateway, "ci.test").await;
    ca.until_asked("order", 2).await;
    let told: Vec<_> = ca
        .asked("account")
        .iter()
        .map(|payload| payload["contact"].clone())
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|contact| contact[0].as_str().unwrap_or_default())
        .collect();
    assert_eq!(told, ["mailto:ops@example.com", "mailto:night@example.com"]);
    let shown = until(&gateway, "counted", |shown| {
        shown["acme"]["attempts"]["issued"] == 2
    })
    .await;
    let renewed = shown["serial"].clone();
    super::renew(&gateway, "ci.test").await;
    until(&gateway, "another", |shown| shown["serial"] != renewed).await;
    assert_eq!(ca.asked("account").len(), 2, "they are told once");
}
