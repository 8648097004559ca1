//! `moorgate certs` and `certs renew`, as the real program asks the running process.

use serde_json::Value;

use super::{ACME_TLS, AcmeCa, Scripted, ask, failed, gateway, issued, until};
use crate::harness::{Domain, Setup, cli};

#[tokio::test]
async fn the_listing_is_that_of_the_running_process() {
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .start()
        .await;
    let directory = gateway.directory.path().to_owned();
    let (code, listed, said) = cli(&directory, &["certs", "--json"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        serde_json::to_value(gateway.app.certificate_reports()).unwrap()
    );
    // Only the process knows the leaves of its own CA.
    let until = listed[0]["not_after"].as_str().unwrap();
    let (_, text, _) = cli(&directory, &["certs"]).await;
    assert!(
        text.starts_with(&format!("ci.test  internal  until {until}  by ")),
        "{text}"
    );
    assert!(gateway.stop().await);
    let (code, text, said) = cli(&directory, &["certs"]).await;
    assert_eq!(code, Some(0));
    assert!(text.starts_with("ci.test  internal  by "), "{text}");
    assert_eq!(
        said,
        "no moorgate runs here: nobody answers in DIR/state/control; is --config that of the running one?\nThis is what the files say:\n"
    );
}

#[tokio::test]
async fn certs_renew_says_what_will_happen() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await;
    let url = before["acme"]["ca"].as_str().unwrap();
    let directory = gateway.directory.path().to_owned();
    let (code, printed, said) = cli(&directory, &["certs", "renew", "ci.test"]).await;
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    assert_eq!(
        said,
        format!(
            "process PID (DIR): the certificate of ci.test: it is being ordered from {url} now; `moorgate certs` shows what comes of it\n"
        )
    );
    until(&gateway, "another", |shown| {
        shown["serial"] != before["serial"]
    })
    .await;

    let path = gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let aliases = "domain = \"ci.test\"\naliases = [\"alias.test\"]";
    std::fs::write(path, text.replace("domain = \"ci.test\"", aliases)).unwrap();
    gateway.app.reload().await.unwrap();
    let (code, _, said) = cli(&directory, &["certs", "renew", "alias.test"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("process PID (DIR): the certificate of ci.test: "),
        "{said}"
    );

    let unknown = cli(&directory, &["certs", "renew", "x.test"]).await;
    assert_eq!(
        unknown,
        (
            Some(1),
            String::new(),
            "process PID (DIR): there is no domain x.test; there are: ci.test\n".to_owned()
        )
    );
    assert!(gateway.stop().await);
    let (code, _, said) = cli(&directory, &["certs", "renew", "ci.test"]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("moorgate: no moorgate runs here: "),
        "{said}"
    );
}

#[tokio::test]
async fn a_domain_without_a_ca_cannot_be_renewed() {
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .start()
        .await;
    let answer = ask(
        &gateway,
        &serde_json::json!({ "command": "certs-renew", "domain": "ci.test" }),
    )
    .await;
    assert_eq!(answer["outcome"], "failed");
    assert_eq!(
        answer["text"],
        "no CA is asked for the certificate of ci.test: its [tls] does not say `acme`"
    );
}

#[tokio::test]
async fn a_request_that_has_to_wait_says_until_when() {
    let ca = AcmeCa::new().await;
    let gateway = gateway(&[&ca], ACME_TLS).await;
    issued(&gateway).await;
    ca.once(
        "order",
        Scripted::Refuse("rateLimited", 429, &[("retry-after", "3600")]),
    );
    super::renew(&gateway, "ci.test").await;
    failed(&gateway).await;
    let answer = ask(
        &gateway,
        &serde_json::json!({ "command": "certs-renew", "domain": "ci.test" }),
    )
    .await;
    let text = answer["text"].as_str().unwrap();
    assert!(
        text.starts_with("the certificate of ci.test: it will be ordered at 20"),
        "{text}"
    );
    assert!(
        text.contains("Z: the CA asked to wait: the CA's limit is reached"),
        "{text}"
    );
    assert_eq!(ca.asked("order").len(), 2);
}
