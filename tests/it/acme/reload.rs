//! What a reload with other `[acme]`, `[[ca]]` or `[tls]` tables changes, without a restart.

use super::{ACME_TLS, AcmeCa, Scripted, failed, gateway, issued, until};
use crate::harness::Gateway;

/// Changes a file of the configuration, and reloads.
async fn change(gateway: &Gateway, file: &str, from: &str, to: &str) {
    let path = gateway.path(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    gateway.app.reload().await.unwrap();
}

/// The `[[ca]]` of a CA, whose roots outlive the test's gateway.
fn table(ca: &AcmeCa, name: &str) -> String {
    ca.toml(&tempfile::tempdir().unwrap().keep(), name)
}

/// Replaces all `[[ca]]` by these, and reloads.
async fn name(gateway: &Gateway, cas: &[&AcmeCa]) {
    let tables: String = cas.iter().map(|ca| table(ca, "ca")).collect();
    let text = std::fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    let (_, before) = text.split_once("[[ca]]").unwrap();
    change(
        gateway,
        "moorgate.toml",
        &format!("[[ca]]{before}"),
        &tables,
    )
    .await;
}

#[tokio::test]
async fn another_ca_issues_at_once_and_the_old_certificate_is_served_meanwhile() {
    let (staging, production) = (AcmeCa::new().await, AcmeCa::new().await);
    staging.windows(&[(40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&staging], ACME_TLS).await;
    let before = issued(&gateway).await;
    production.once("finalize", Scripted::Busy(1, "1"));
    name(&gateway, &[&production]).await;
    production.until_asked("finalize", 1).await;
    let meanwhile = super::shown(&gateway);
    assert_eq!(
        (&meanwhile["serial"], &meanwhile["problem"]),
        (&before["serial"], &before["problem"])
    );
    let after = until(&gateway, "another", |shown| {
        shown["acme"]["ca"] != before["acme"]["ca"] && shown["acme"]["next_attempt"].is_string()
    })
    .await;
    assert_eq!(after["acme"]["attempts"]["issued"], 2);
    assert_eq!(
        (
            staging.asked("order").len(),
            production.asked("order").len()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_certificate_stays_when_another_ca_is_added() {
    let (first, second) = (AcmeCa::new().await, AcmeCa::new().await);
    let gateway = gateway(&[&first], ACME_TLS).await;
    issued(&gateway).await;
    name(&gateway, &[&second, &first]).await;
    super::renew(&gateway, "ci.test").await;
    until(&gateway, "renewed", |shown| {
        shown["acme"]["attempts"]["issued"] == 2
    })
    .await;
    // Only what was asked for.
    assert_eq!(
        (first.asked("order").len(), second.asked("order").len()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_second_ca_is_used_as_soon_as_it_is_configured() {
    let (first, second) = (AcmeCa::new().await, AcmeCa::new().await);
    first.always(
        "order",
        Scripted::Refuse("caa", 403, &[("retry-after", "36000")]),
    );
    let gateway = gateway(&[&first], ACME_TLS).await;
    failed(&gateway).await;
    name(&gateway, &[&first, &second]).await;
    issued(&gateway).await;
    assert_eq!(second.asked("order").len(), 1);
}

#[tokio::test]
async fn changed_challenges_end_the_wait_after_failures() {
    let ca = AcmeCa::new().await;
    ca.once("challenge", Scripted::Unmet);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    failed(&gateway).await;
    change(
        &gateway,
        "moorgate.toml",
        "[\"http-01\"]",
        "[\"tls-alpn-01\", \"http-01\"]",
    )
    .await;
    issued(&gateway).await;
    assert_eq!(ca.asked("order").len(), 2);
}

#[tokio::test]
async fn a_profile_of_the_ca_is_ordered_when_it_is_configured() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    change(
        &gateway,
        "moorgate.toml",
        "[[ca]]\n",
        "[[ca]]\nprofile = \"shortlived\"\n",
    )
    .await;
    until(&gateway, "another", |shown| shown["serial"] != before).await;
    assert_eq!(ca.asked("order")[1]["profile"], "shortlived");
}

#[tokio::test]
async fn names_that_are_added_during_an_order_are_ordered_when_it_has_failed() {
    let ca = AcmeCa::new().await;
    ca.once("finalize", Scripted::Busy(2, "1"));
    ca.once("cert", Scripted::Html(500, &[]));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    ca.until_asked("finalize", 1).await;
    let both = "domain = \"ci.test\"\naliases = [\"alias.test\"]";
    change(
        &gateway,
        "conf.d/ci.test.toml",
        "domain = \"ci.test\"",
        both,
    )
    .await;
    ca.until_asked("cert", 1).await;
    ca.until_asked("order", 2).await;
    let names = serde_json::json!(["ci.test", "alias.test"]);
    until(&gateway, "for both", |shown| shown["names"] == names).await;
}

#[tokio::test]
async fn changed_contacts_are_updated_at_the_ca() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], "acme = \"ops@example.com\"").await;
    issued(&gateway).await;
    change(&gateway, "conf.d/ci.test.toml", "ops@", "night@").await;
    ca.until_asked("account", 2).await;
    assert_eq!(
        ca.asked("account")[1]["contact"][0],
        "mailto:night@example.com"
    );
    assert_eq!(ca.asked("order").len(), 1);
}

#[tokio::test]
async fn a_damaged_file_costs_nothing_when_the_tables_change() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await;
    ca.always("dir", Scripted::Hangup);
    for path in certificates(&gateway) {
        std::fs::write(path, "damaged").unwrap();
    }
    change(
        &gateway,
        "conf.d/ci.test.toml",
        "acme = true",
        "acme = true\nfallback = \"internal\"",
    )
    .await;
    let after = super::shown(&gateway);
    assert_eq!(after["serial"], before["serial"], "{after}");
    assert!(after["problem"].is_string(), "{after}");
}

/// The files of certificates of the domain below `state`.
fn certificates(gateway: &Gateway) -> Vec<std::path::PathBuf> {
    let cas = std::fs::read_dir(gateway.path("state/acme")).unwrap();
    let files = cas.map(|entry| entry.unwrap().path().join("certificates/ci.test.pem"));
    files.filter(|path| path.exists()).collect()
}
