//! Certificates from a simulated CA: renewal information, refusals, lost accounts and orders, invalid
//! responses.

mod budgets;
mod commands;
mod failures;
mod imported;
mod lost_state;
mod order_contents;
mod preflight;
mod received;
mod records;
mod reload;

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::harness::acme_ca::{AcmeCa, Scripted};
use crate::harness::{Domain, Gateway, PATIENCE, Setup, within};

const ACME_TLS: &str = "acme = true";

/// A gateway for `ci.test` whose certificate comes from these CAs.
async fn gateway(cas: &[&AcmeCa], tls: &str) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let tables = cas
        .iter()
        .enumerate()
        .map(|(index, ca)| ca.toml(directory.path(), &index.to_string()));
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\n{}",
        tables.collect::<String>()
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").tls(tls);
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    // Read when the CA is asked, for as long as the gateway runs.
    let _kept = directory.keep();
    gateway
}

/// The report of the only domain.
fn shown(gateway: &Gateway) -> Value {
    serde_json::to_value(&gateway.app.certificate_reports()[0]).unwrap()
}

/// Waits until the report matches.
async fn until(gateway: &Gateway, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let last = RefCell::new(Value::Null);
    let seen = async {
        loop {
            *last.borrow_mut() = shown(gateway);
            if so(&last.borrow()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    if !within(PATIENCE, seen).await {
        panic!("it is not {what}: {:#}", last.borrow());
    }
    last.into_inner()
}

async fn issued(gateway: &Gateway) -> Value {
    until(gateway, "issued", |shown| {
        shown["serial"].is_string() && shown["acme"]["next_attempt"].is_string()
    })
    .await
}

async fn failed(gateway: &Gateway) -> Value {
    until(gateway, "explained", |shown| {
        shown["acme"]["error"].is_string()
    })
    .await
}

/// Requests a renewal as `moorgate certs renew` does.
async fn renew(gateway: &Gateway, domain: &str) {
    let answer = ask(
        gateway,
        &json!({ "command": "certs-renew", "domain": domain }),
    )
    .await;
    assert_eq!(answer["outcome"], "done", "{answer}");
}

/// Sends a command to the control socket.
async fn ask(gateway: &Gateway, command: &Value) -> Value {
    let mut stream = UnixStream::connect(gateway.control_socket()).await.unwrap();
    stream
        .write_all(format!("{command}\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// What the limits of the CAs leave, as the admin listener says.
async fn budgets(gateway: &Gateway) -> Value {
    gateway.status().await["budgets"].clone()
}

fn timestamp(value: &Value) -> SystemTime {
    value
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into()
}

#[tokio::test]
async fn a_window_of_the_ca_decides_when_to_renew() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = issued(&gateway).await;
    let next = timestamp(&shown["acme"]["next_attempt"]);
    assert!(
        timestamp(&shown["acme"]["window_start"]) <= next
            && next <= timestamp(&shown["acme"]["window_end"])
    );
    assert_eq!(ca.asked("order").len(), 1);
}

#[tokio::test]
async fn a_window_in_the_past_renews_at_once_and_names_what_is_replaced() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(-7200, -3600), (40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    ca.until_asked("cert", 2).await;
    issued(&gateway).await;
    let orders = ca.asked("order");
    assert_eq!(orders.len(), 2);
    assert!(orders[0]["replaces"].is_null());
    assert_eq!(
        orders[1]["replaces"].as_str().unwrap().matches('.').count(),
        1,
        "{}",
        orders[1]
    );
}

#[tokio::test]
async fn an_order_that_is_refused_as_a_replacement_is_placed_without_it() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    ca.once("order", Scripted::Refuse("alreadyReplaced", 409, &[]));
    renew(&gateway, "ci.test").await;
    until(&gateway, "another", |shown| shown["serial"] != before).await;
    assert_eq!(replacing(&ca), [false, true, false]);
}

/// Which orders name a certificate to be replaced.
fn replacing(ca: &AcmeCa) -> Vec<bool> {
    ca.asked("order")
        .iter()
        .map(|order| order["replaces"].is_string())
        .collect()
}

#[tokio::test]
async fn a_replacement_may_be_refused_with_other_errors() {
    for (kind, status) in [("malformed", 400), ("unauthorized", 403), ("conflict", 409)] {
        let ca = AcmeCa::new().await;
        ca.windows(&[(40 * 86_400, 41 * 86_400)]);
        let gateway = gateway(&[&ca], ACME_TLS).await;
        let before = issued(&gateway).await["serial"].clone();
        ca.once("order", Scripted::Refuse(kind, status, &[]));
        renew(&gateway, "ci.test").await;
        until(&gateway, "another", |shown| shown["serial"] != before).await;
        assert_eq!(replacing(&ca), [false, true, false], "{kind}");
    }
}

#[tokio::test]
async fn an_order_that_does_not_echo_replaces_is_completed() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    ca.once("order", Scripted::NotReplacing);
    renew(&gateway, "ci.test").await;
    until(&gateway, "another", |shown| shown["serial"] != before).await;
    assert_eq!(replacing(&ca), [false, true]);
    assert_eq!(ca.asked("finalize").len(), 2);
}

#[tokio::test]
async fn without_a_window_the_last_third_of_the_lifetime_is_for_renewal() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = issued(&gateway).await;
    let left = timestamp(&shown["not_after"])
        .duration_since(timestamp(&shown["acme"]["next_attempt"]))
        .unwrap();
    let days = left.as_secs() / 86_400;
    assert!((30..=34).contains(&days), "{days}");
    assert!(shown["acme"]["window_start"].is_null());
}

#[tokio::test]
async fn a_challenge_that_fails_at_once_is_a_failed_authorization() {
    let ca = AcmeCa::new().await;
    ca.once("challenge", Scripted::Unmet);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let error = failed(&gateway).await["acme"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    let words =
        "ci.test was not validated by http-01: nobody answers (connection); the CA must reach";
    assert!(error.contains(words), "{error}");
}

#[tokio::test]
async fn the_profile_is_ordered_and_an_unknown_one_costs_no_order() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let wrong = gateway(&[&ca], "acme = true\nprofile = \"shortlifed\"").await;
    let error = failed(&wrong).await["acme"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        error.ends_with(
            r#"the CA has no profile "shortlifed": set `profile` to one that it has, "classic", "shortlived""#
        ),
        "{error}"
    );
    assert_eq!(ca.asked("order").len(), 0);
    let right = gateway(&[&ca], "acme = true\nprofile = \"shortlived\"").await;
    assert_eq!(issued(&right).await["acme"]["profile"], "shortlived");
    assert_eq!(ca.asked("order")[0]["profile"], "shortlived");
}

#[tokio::test]
async fn retry_after_of_a_rate_limit_is_waited_for() {
    let ca = AcmeCa::new().await;
    ca.once(
        "order",
        Scripted::Refuse("rateLimited", 429, &[("retry-after", "7200")]),
    );
    let began = SystemTime::now();
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = until(&gateway, "waiting", |shown| {
        shown["acme"]["next_attempt"].is_string()
    })
    .await;
    let wait = timestamp(&shown["acme"]["next_attempt"])
        .duration_since(began)
        .unwrap();
    assert!(wait >= Duration::from_secs(7190), "{wait:?}");
    assert!(
        shown["acme"]["error"]
            .as_str()
            .unwrap()
            .contains("the CA's limit is reached"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_page_of_html_is_reported_as_its_status() {
    let ca = AcmeCa::new().await;
    ca.once("order", Scripted::Html(503, &[("retry-after", "1800")]));
    let began = SystemTime::now();
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = failed(&gateway).await;
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(error.contains("HTTP 503 Service Unavailable"), "{error}");
    let wait = timestamp(&shown["acme"]["next_attempt"])
        .duration_since(began)
        .unwrap();
    assert!(wait >= Duration::from_secs(1790), "{wait:?}");
}

#[tokio::test]
async fn requests_with_refused_nonces_are_repeated_with_the_nonce_of_the_refusal() {
    let ca = AcmeCa::new().await;
    let endpoints = ["account", "order", "authz", "finalize", "challenge", "cert"];
    for endpoint in endpoints {
        for _ in 0..25 {
            ca.once(endpoint, Scripted::Refuse("badNonce", 400, &[]));
        }
    }
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = issued(&gateway).await;
    assert_eq!(shown["acme"]["attempts"]["failed"], 0, "{shown}");
    for endpoint in endpoints {
        assert_eq!(ca.asked(endpoint).len(), 26, "{endpoint}");
    }
    // One for the first request of each session, and for those that follow an answer whose nonce
    // the library drops.
    let nonces = ca.asked("nonce").len();
    assert!(nonces <= 12, "{nonces}");
}

#[tokio::test]
async fn a_failed_download_is_repeated_from_the_same_order() {
    let ca = AcmeCa::new().await;
    ca.once("cert", Scripted::Html(500, &[]));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    failed(&gateway).await;
    renew(&gateway, "ci.test").await;
    issued(&gateway).await;
    assert_eq!(
        (ca.asked("order").len(), ca.asked("finalize").len()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_retry_after_of_a_day_does_not_end_polling() {
    let ca = AcmeCa::new().await;
    ca.once("finalize", Scripted::Busy(3, "86400"));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    issued(&gateway).await;
    assert_eq!(
        (ca.asked("order").len(), ca.asked("finalize").len()),
        (1, 1)
    );
}

#[tokio::test]
async fn an_invalid_order_is_not_resumed() {
    let ca = AcmeCa::new().await;
    ca.once("finalize", Scripted::Invalid("serverInternal", 1));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = failed(&gateway).await;
    assert!(
        shown["acme"]["error"]
            .as_str()
            .unwrap()
            .contains("the CA is unavailable"),
        "{shown}"
    );
    renew(&gateway, "ci.test").await;
    issued(&gateway).await;
    assert_eq!(ca.asked("order").len(), 2);
}

#[tokio::test]
async fn an_order_whose_finalization_was_not_acknowledged_is_completed() {
    let ca = AcmeCa::new().await;
    // As if an earlier request had been heard, and its answer lost.
    ca.once("finalize", Scripted::Denied("orderNotReady", 403));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    issued(&gateway).await;
    assert_eq!(
        (ca.asked("order").len(), ca.asked("finalize").len()),
        (1, 1)
    );
}

#[tokio::test]
async fn failing_renewal_information_delays_nothing() {
    for response in [
        Scripted::Html(500, &[]),
        Scripted::Refuse("malformed", 404, &[]),
        Scripted::Html(404, &[]),
    ] {
        let ca = AcmeCa::new().await;
        ca.windows(&[(40 * 86_400, 41 * 86_400)]);
        ca.always("renewal", response);
        let gateway = gateway(&[&ca], ACME_TLS).await;
        let shown = issued(&gateway).await;
        let left = timestamp(&shown["not_after"])
            .duration_since(timestamp(&shown["acme"]["next_attempt"]))
            .unwrap();
        let days = left.as_secs() / 86_400;
        assert!((30..=34).contains(&days), "{days}");
        assert!(shown["acme"]["window_start"].is_null());
        assert_eq!(ca.asked("renewal").len(), 1);
    }
}

#[tokio::test]
async fn attempts_and_remaining_limits_are_reported() {
    let ca = AcmeCa::new().await;
    ca.once("order", Scripted::Refuse("caa", 403, &[]));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = failed(&gateway).await;
    assert_eq!(
        shown["acme"]["attempts"],
        json!({ "issued": 0, "failed": 1, "postponed": 0 })
    );
    renew(&gateway, "ci.test").await;
    let counted = json!({ "issued": 1, "failed": 1, "postponed": 0 });
    until(&gateway, "counted", |shown| {
        shown["acme"]["attempts"] == counted
    })
    .await;
    let budgets = budgets(&gateway).await;
    assert_eq!(budgets[0]["domain"], "ci.test");
    let left = json!({ "orders": 299, "failed_authorizations": 5, "duplicate_certificates": 9 });
    assert_eq!(budgets[0]["left"], left, "{budgets}");
}

/// The files below a directory, with what others may do with them.
fn files(directory: &Path) -> Vec<(PathBuf, u32)> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let each = entries.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![(
            path.clone(),
            path.metadata().unwrap().permissions().mode() & 0o077,
        )],
    });
    each.collect()
}

#[tokio::test]
async fn stored_files_are_pem_and_private() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    issued(&gateway).await;
    let files = files(&gateway.path("state/acme"));
    assert!(files.iter().all(|(_, others)| *others == 0), "{files:?}");
    let texts: Vec<_> = files
        .iter()
        .filter_map(|(path, _)| std::fs::read_to_string(path).ok())
        .collect();
    let with = |label: &str| {
        texts
            .iter()
            .filter(|text| text.contains(&format!("-----BEGIN {label}-----")))
            .count()
    };
    // The account's key and the domain's; its chain.
    assert_eq!(
        (with("PRIVATE KEY"), with("CERTIFICATE")),
        (2, 1),
        "{files:?}"
    );
}

#[tokio::test]
async fn an_account_that_the_ca_has_lost_is_registered_again() {
    let ca = AcmeCa::new().await;
    ca.once("order", Scripted::Refuse("accountDoesNotExist", 400, &[]));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    issued(&gateway).await;
    assert_eq!(ca.asked("account").len(), 2);
}

#[tokio::test]
async fn the_next_ca_is_used_when_the_first_cannot_issue() {
    let (first, second) = (AcmeCa::new().await, AcmeCa::new().await);
    first.once("order", Scripted::Refuse("caa", 403, &[]));
    let gateway = gateway(&[&first, &second], ACME_TLS).await;
    let shown = issued(&gateway).await;
    assert_eq!(
        (first.asked("order").len(), second.asked("order").len()),
        (1, 1)
    );
    assert!(shown["acme"]["error"].is_null(), "{shown}");
}

#[tokio::test]
async fn a_ca_that_never_answers_delays_neither_start_nor_stop() {
    let ca = AcmeCa::new().await;
    ca.once("dir", Scripted::Silence);
    let gateway = gateway(&[&ca], "acme = true\nfallback = \"internal\"").await;
    assert!(gateway.tls("ci.test", &["http/1.1"]).await.is_ok());
    assert!(
        gateway.stop().await,
        "it ends although the CA is still being asked"
    );
}

#[tokio::test]
async fn a_reload_neither_cancels_nor_repeats_an_order() {
    let ca = AcmeCa::new().await;
    ca.once("finalize", Scripted::Busy(3, "1"));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    ca.until_asked("finalize", 1).await;
    for _ in 0..3 {
        gateway.app.reload().await.unwrap();
    }
    issued(&gateway).await;
    assert_eq!(
        (ca.asked("order").len(), ca.asked("finalize").len()),
        (1, 1)
    );
}
