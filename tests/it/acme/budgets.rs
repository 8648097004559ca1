//! What an attempt uses up of the limits of a CA: each limit only by what the CA can have counted.

use serde_json::{Value, json};

use super::{ACME_TLS, AcmeCa, Scripted, budgets, failed, gateway, issued, renew, until};
use crate::harness::{Domain, Gateway, Setup};

/// How many accounts the ledger has counted at the only CA.
fn accounts(gateway: &Gateway) -> usize {
    let text = std::fs::read(gateway.path("state/acme/ledger.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&text).unwrap();
    let cas = ledger["cas"].as_object().unwrap().values();
    cas.map(|ca| ca["accounts"].as_array().unwrap().len()).sum()
}

/// What the limits leave for the only domain: orders, failed validations, certificates.
async fn left(gateway: &Gateway) -> [u64; 3] {
    let budgets = budgets(gateway).await;
    let kinds = ["orders", "failed_authorizations", "duplicate_certificates"];
    kinds.map(|kind| budgets[0]["left"][kind].as_u64().unwrap())
}

/// Waits until so many attempts have failed.
async fn failed_times(gateway: &Gateway, times: u64) -> Value {
    until(gateway, "tried so often", |shown| {
        shown["acme"]["attempts"]["failed"] == times
    })
    .await
}

#[tokio::test]
async fn a_refused_account_is_not_counted() {
    let refusals = [
        ("externalAccountRequired", 403),
        ("unauthorized", 403),
        ("malformed", 400),
        ("invalidContact", 400),
        ("unsupportedContact", 400),
        ("userActionRequired", 403),
    ];
    for (kind, status) in refusals {
        let ca = AcmeCa::new().await;
        ca.once("account", Scripted::Refuse(kind, status, &[]));
        let gateway = gateway(&[&ca], ACME_TLS).await;
        failed(&gateway).await;
        assert_eq!(accounts(&gateway), 0, "{kind}");
        renew(&gateway, "ci.test").await;
        issued(&gateway).await;
        assert_eq!(accounts(&gateway), 1, "{kind}");
    }
}

#[tokio::test]
async fn an_account_that_was_never_requested_is_not_counted() {
    let responses = [
        ("dir", Scripted::Hangup),
        ("dir", Scripted::Html(503, &[])),
        ("nonce", Scripted::Hangup),
        ("nonce", Scripted::Html(503, &[])),
    ];
    for (endpoint, response) in responses {
        let ca = AcmeCa::new().await;
        ca.once(endpoint, response.clone());
        let gateway = gateway(&[&ca], ACME_TLS).await;
        failed(&gateway).await;
        assert_eq!(accounts(&gateway), 0, "{endpoint}: {response:?}");
    }
}

#[tokio::test]
async fn an_account_that_the_ca_may_have_created_is_counted() {
    let responses = [
        Scripted::Lost,
        Scripted::Html(502, &[]),
        Scripted::Html(200, &[]),
        Scripted::Refuse("serverInternal", 500, &[]),
        Scripted::Refuse("rateLimited", 429, &[]),
    ];
    for response in responses {
        let ca = AcmeCa::new().await;
        ca.once("account", response.clone());
        let gateway = gateway(&[&ca], ACME_TLS).await;
        failed(&gateway).await;
        assert_eq!(accounts(&gateway), 1, "{response:?}");
    }
}

#[tokio::test]
async fn a_profile_that_the_ca_lacks_uses_up_no_limit() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic"]);
    let gateway = gateway(&[&ca], "acme = true\nprofile = \"clasic\"").await;
    for times in 1..=6 {
        let shown = failed_times(&gateway, times).await;
        let error = shown["acme"]["error"].as_str().unwrap();
        assert!(error.contains("has no profile \"clasic\""), "{error}");
        assert_eq!(left(&gateway).await, [300, 5, 10], "{shown}");
        renew(&gateway, "ci.test").await;
    }
    assert_eq!(ca.asked("order"), Vec::<Value>::new());
}

#[tokio::test]
async fn a_refused_order_is_not_counted() {
    let refusals = [
        ("rejectedIdentifier", 400),
        ("unsupportedIdentifier", 400),
        ("invalidProfile", 400),
        ("malformed", 400),
        ("unauthorized", 403),
        ("caa", 403),
    ];
    for (kind, status) in refusals {
        let ca = AcmeCa::new().await;
        ca.always("order", Scripted::Refuse(kind, status, &[]));
        let gateway = gateway(&[&ca], ACME_TLS).await;
        for times in 1..=6 {
            failed_times(&gateway, times).await;
            assert_eq!(left(&gateway).await, [300, 5, 10], "{kind}");
            renew(&gateway, "ci.test").await;
        }
        ca.recovers();
        renew(&gateway, "ci.test").await;
        issued(&gateway).await;
        assert_eq!(left(&gateway).await, [299, 5, 9], "{kind}");
    }
}

#[tokio::test]
async fn an_order_that_may_have_been_placed_counts_as_an_order_alone() {
    let responses = [
        Scripted::Lost,
        Scripted::Html(200, &[]),
        Scripted::Refuse("serverInternal", 500, &[]),
        Scripted::Refuse("rateLimited", 429, &[]),
    ];
    for response in responses {
        let ca = AcmeCa::new().await;
        ca.once("order", response.clone());
        let gateway = gateway(&[&ca], ACME_TLS).await;
        failed(&gateway).await;
        assert_eq!(left(&gateway).await, [299, 5, 10], "{response:?}");
    }
}

#[tokio::test]
async fn a_replacement_that_is_refused_is_not_counted() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await["serial"].clone();
    ca.once("order", Scripted::Refuse("alreadyReplaced", 409, &[]));
    renew(&gateway, "ci.test").await;
    until(&gateway, "another", |shown| shown["serial"] != before).await;
    assert_eq!(ca.asked("order").len(), 3);
    assert_eq!(left(&gateway).await, [298, 5, 8]);
}

#[tokio::test]
async fn an_order_that_was_not_finalized_is_no_certificate() {
    let refused = Scripted::Refuse("badCSR", 400, &[]);
    for (response, certificates) in [(refused, 10), (Scripted::Lost, 9)] {
        let ca = AcmeCa::new().await;
        ca.once("finalize", response.clone());
        let gateway = gateway(&[&ca], ACME_TLS).await;
        failed(&gateway).await;
        let expected = [299, 5, certificates];
        assert_eq!(left(&gateway).await, expected, "{response:?}");
    }
}

#[tokio::test]
async fn a_challenge_that_cannot_be_answered_is_no_failed_validation() {
    let ca = AcmeCa::new().await;
    ca.offers(&["dns-01"]);
    let beside = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"dns-01\"]\ndns_command = [\"/bin/false\"]\n{}",
        ca.toml(beside.path(), "ca")
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").tls(ACME_TLS);
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    for times in 1..=6 {
        failed_times(&gateway, times).await;
        assert_eq!(left(&gateway).await, [300 - times, 5, 10]);
        renew(&gateway, "ci.test").await;
    }
    assert_eq!(ca.asked("challenge"), Vec::<Value>::new());
}

#[tokio::test]
async fn a_failed_validation_counts_for_the_name_that_failed() {
    let ca = AcmeCa::new().await;
    ca.decides(Box::new(|asked| {
        let (_, name) = asked.challenge.as_ref()?;
        (name == "alias.test").then_some(Scripted::Unmet)
    }));
    let beside = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\n{}",
        ca.toml(beside.path(), "ca")
    );
    let domain = |more| {
        Domain::new("ci.test", "http://127.0.0.1:9")
            .tls(ACME_TLS)
            .top(more)
    };
    let both = domain("aliases = [\"alias.test\"]");
    let gateway = Setup::new().main(&main).domain(both).start().await;
    for times in 1..=5 {
        failed_times(&gateway, times).await;
        assert_eq!(left(&gateway).await, [300 - times, 5 - times, 10]);
        renew(&gateway, "ci.test").await;
    }
    let path = gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let without = text.replace("aliases = [\"alias.test\"]\n", "");
    assert_ne!(without, text);
    std::fs::write(path, without).unwrap();
    gateway.app.reload().await.unwrap();
    let shown = until(&gateway, "issued", |shown| {
        shown["names"] == json!(["ci.test"])
    })
    .await;
    assert_eq!(left(&gateway).await, [294, 5, 9], "{shown}");
}
