//! Certificates that a CA has issued and that are not as they should be: what is served stays, they
//! are kept, and the next order waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::net::TcpStream;

use super::{ACME_TLS, AcmeCa, Scripted, failed, gateway, issued, renew, timestamp, until};
use crate::harness::acme_ca::CaOptions;
use crate::harness::{Gateway, RawPeer, cli};

const DAY: i64 = 86_400;

/// Waits until the last attempt has failed and the next one waits, and returns the report.
async fn waiting(gateway: &Gateway) -> Value {
    until(gateway, "waiting", |shown| {
        let state = shown["acme"]["state"].as_str().unwrap_or_default();
        shown["acme"]["error"].is_string() && state.starts_with("waiting")
    })
    .await
}

/// The file of the certificate that is not in force.
fn unused(gateway: &Gateway) -> Option<PathBuf> {
    let cas = std::fs::read_dir(gateway.path("state/acme")).unwrap();
    cas.map(|entry| entry.unwrap().path().join("unused/ci.test.pem"))
        .find(|path| path.exists())
}

/// What a CA sends in place of a good certificate while one is served, and the words about it.
async fn never_replaces(endpoint: &'static str, scripted: Scripted, words: &str, is_kept: bool) {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    ca.always(endpoint, scripted);
    renew(&gateway, "ci.test").await;
    let began = SystemTime::now();
    let shown = failed(&gateway).await;
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(error.contains(words), "{error}");
    assert_eq!(shown["serial"], before, "{shown}");
    assert_eq!(shown["acme"]["unused"].is_string(), is_kept, "{shown}");
    assert_eq!(unused(&gateway).is_some(), is_kept);
    let next = timestamp(&shown["acme"]["next_attempt"]);
    assert!(next > began + Duration::from_secs(50), "{shown}");
    assert_eq!(ca.asked("order").len(), 2);
    let (_, listed, _) = cli(gateway.directory.path(), &["certs"]).await;
    assert!(listed.contains(words), "{listed}");
    assert_eq!(listed.contains("NOT IN FORCE: "), is_kept, "{listed}");
    assert!(gateway.stop().await);
}

#[tokio::test]
async fn a_certificate_that_has_ended_replaces_nothing() {
    let ended = Scripted::Life(-90 * DAY, -DAY);
    let words = "the certificate that the CA has issued is not as it should be: it ended on ";
    never_replaces("finalize", ended, words, true).await;
}

#[tokio::test]
async fn a_certificate_that_begins_tomorrow_replaces_nothing_today() {
    let early = Scripted::Life(DAY, 90 * DAY);
    never_replaces("finalize", early, "it is not valid before ", true).await;
}

#[tokio::test]
async fn a_chain_that_its_issuer_has_not_signed_replaces_nothing() {
    let words = "CN=a played CA has not signed ";
    never_replaces("cert", Scripted::ForgedIssuer, words, true).await;
}

#[tokio::test]
async fn a_chain_out_of_order_replaces_nothing() {
    let words = "CN=a foreign CA does not sign ";
    never_replaces("cert", Scripted::ForeignIssuer, words, true).await;
}

#[tokio::test]
async fn a_certificate_for_another_key_replaces_nothing() {
    let words = "the certificate is for another key than the order's";
    never_replaces("cert", Scripted::WrongChain, words, false).await;
}

#[tokio::test]
async fn what_is_no_certificate_is_said_to_be_none() {
    let damaged = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, words) in [
        ("", "it contains no certificate in PEM"),
        ("<html>busy</html>", "it contains no certificate in PEM"),
        (damaged, "its PEM is damaged"),
        (other, "its first certificate is not valid X.509"),
    ] {
        let whole = format!("what the CA sent in place of the certificate cannot be used: {words}");
        never_replaces("cert", Scripted::Text(text), &whole, false).await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_in_force_counts_for_the_limits_of_the_ca() {
    let ca = AcmeCa::new().await;
    ca.always("finalize", Scripted::Life(-90 * DAY, -DAY));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = waiting(&gateway).await;
    assert!(shown["serial"].is_null(), "{shown}");
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    let host = gateway.admin();
    client
        .send(&format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    let (_, body) = client.answer().await;
    let left = crate::harness::json(&body)["budgets"][0]["left"].clone();
    assert_eq!(left["duplicate_certificates"], 9, "{left}");
    assert_eq!(left["failed_authorizations"], 5, "{left}");
}

#[tokio::test]
async fn a_good_certificate_ends_what_was_kept() {
    let ca = AcmeCa::new().await;
    ca.once("finalize", Scripted::Life(-90 * DAY, -DAY));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    waiting(&gateway).await;
    assert!(unused(&gateway).is_some());
    renew(&gateway, "ci.test").await;
    let shown = until(&gateway, "good", |shown| {
        shown["serial"].is_string() && shown["acme"]["error"].is_null()
    })
    .await;
    assert!(shown["acme"]["unused"].is_null(), "{shown}");
    assert_eq!(unused(&gateway), None);
}

#[tokio::test]
async fn a_broken_chain_is_served_where_nothing_else_is_and_another_is_ordered() {
    let ca = AcmeCa::new().await;
    ca.once("cert", Scripted::ForgedIssuer);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = waiting(&gateway).await;
    assert!(shown["serial"].is_string(), "{shown}");
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(
        error.contains("; it is served, as nothing better is there"),
        "{error}"
    );
    assert_eq!(ca.asked("order").len(), 1);
    renew(&gateway, "ci.test").await;
    let after = until(&gateway, "another", |after| {
        after["serial"] != shown["serial"] && after["acme"]["error"].is_null()
    })
    .await;
    assert_eq!(after["acme"]["attempts"]["issued"], 1, "{after}");
}

#[tokio::test]
async fn a_certificate_that_is_due_when_it_is_issued_is_not_ordered_again_at_once() {
    let ca = AcmeCa::new().await;
    ca.always("finalize", Scripted::Life(-80 * DAY, 3600));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = waiting(&gateway).await;
    assert!(shown["serial"].is_string(), "{shown}");
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(
        error.contains("so that its renewal is due already"),
        "{error}"
    );
    assert_eq!(ca.asked("order").len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_ahead_of_a_certificate_s_life_is_said_and_orders_once() {
    let behind = Duration::from_secs(100 * DAY.unsigned_abs());
    let ca = AcmeCa::with(CaOptions {
        clock: Arc::new(move || SystemTime::now() - behind),
        ..CaOptions::default()
    })
    .await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = waiting(&gateway).await;
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(
        error.contains("the clock of this machine is 100 days ahead of the CA's: set it"),
        "{error}"
    );
    // Clients whose clocks are right can verify it.
    assert!(shown["serial"].is_string(), "{shown}");
    assert_eq!(ca.asked("order").len(), 1);
}
