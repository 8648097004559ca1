//! What people read when a CA or its server cannot be used: the cause and the cure, in words, for as
//! long as it holds.

use std::time::SystemTime;

use moorgate::internal::app::StartOptions;
use moorgate::internal::listen::InheritedSockets;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::net::TcpListener;

use super::{ACME_TLS, AcmeCa, Scripted, failed, gateway, issued, renew, until};
use crate::harness::{Domain, Gateway, Setup, cli, start_app, tls_server};

async fn change(gateway: &Gateway, from: &str, to: &str) {
    let path = gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

const WRONG: &str = "acme = true\nprofile = \"shortlifed\"";

#[tokio::test]
async fn the_last_error_ends_when_the_setting_is_corrected() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let before = issued(&gateway).await;
    change(&gateway, ACME_TLS, WRONG).await;
    gateway.app.reload().await.unwrap();
    let shown = failed(&gateway).await;
    assert_eq!(shown["serial"], before["serial"], "{shown}");
    change(&gateway, WRONG, ACME_TLS).await;
    gateway.app.reload().await.unwrap();
    let shown = until(&gateway, "good without an error", |shown| {
        let state = shown["acme"]["state"].as_str().unwrap_or_default();
        state.starts_with("good") && shown["acme"]["error"].is_null()
    })
    .await;
    assert_eq!(shown["serial"], before["serial"], "{shown}");
    let directory = gateway.directory.path().to_owned();
    assert!(gateway.stop().await);
    let (_, listed, _) = cli(&directory, &["certs"]).await;
    assert!(!listed.contains("LAST ERROR"), "{listed}");
}

#[tokio::test]
async fn a_correction_while_nothing_runs_is_tried_at_the_next_start() {
    let ca = AcmeCa::new().await;
    ca.profiles(&["classic", "shortlived"]);
    let gateway = gateway(&[&ca], WRONG).await;
    failed(&gateway).await;
    change(&gateway, WRONG, ACME_TLS).await;
    assert!(gateway.stop().await);
    let Gateway { app: _, directory } = gateway;
    let (_, listed, _) = cli(directory.path(), &["certs"]).await;
    assert!(!listed.contains("LAST ERROR"), "{listed}");
    let began = SystemTime::now();
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
    let shown = issued(&gateway).await;
    assert!(shown["acme"]["error"].is_null(), "{shown}");
    assert!(
        began.elapsed().unwrap().as_secs() < 50,
        "a back-off is one minute"
    );
}

#[tokio::test]
async fn the_page_that_explains_a_renewal_window_is_shown() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    ca.explains("https://ca.test/incident-7");
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = until(&gateway, "explained", |shown| {
        shown["acme"]["explanation"] == "https://ca.test/incident-7"
    })
    .await;
    assert!(shown["acme"]["window_start"].is_string(), "{shown}");
    let (_, listed, _) = cli(gateway.directory.path(), &["certs"]).await;
    let line = "the CA explains that at https://ca.test/incident-7";
    assert!(listed.contains(line), "{listed}");
}

#[tokio::test]
async fn a_text_that_is_no_url_is_not_shown_as_an_explanation() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    ca.explains("\u{1b}[31mnow");
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = issued(&gateway).await;
    assert!(shown["acme"]["explanation"].is_null(), "{shown}");
}

#[tokio::test]
async fn a_refusal_without_a_reason_is_said_to_be_one() {
    let ca = AcmeCa::new().await;
    ca.once("order", Scripted::Html(400, &[]));
    let gateway = gateway(&[&ca], ACME_TLS).await;
    let shown = failed(&gateway).await;
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("the CA refuses: HTTP 400 Bad Request without a reason"),
        "{error}"
    );
    ca.once("dir", Scripted::Html(404, &[]));
    renew(&gateway, "ci.test").await;
    let shown = until(&gateway, "refused again", |shown| {
        shown["acme"]["attempts"]["failed"] == 2
    })
    .await;
    let error = shown["acme"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("is `directory` the URL of an ACME directory?"),
        "{error}"
    );
}

/// The error for a CA whose server has this certificate and is verified by that one.
async fn error_of_server(server: CertificateParams, roots: Option<CertificateParams>) -> String {
    let key = KeyPair::generate().unwrap();
    let server = server.self_signed(&key).unwrap();
    let other = KeyPair::generate().unwrap();
    let roots = roots.map_or_else(
        || server.pem(),
        |roots| roots.self_signed(&other).unwrap().pem(),
    );
    let tls = tls_server(&server, &key);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = tls.accept(tcp).await;
        }
    });
    let beside = tempfile::tempdir().unwrap().keep().join("roots.pem");
    std::fs::write(&beside, roots).unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\n[[ca]]\ndirectory = \"https://{address}/dir\"\nroots = \"{}\"\n",
        beside.display()
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").tls(ACME_TLS);
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    let shown = failed(&gateway).await;
    let error = shown["acme"]["error"].as_str().unwrap();
    error.replace(&address.to_string(), "ADDRESS")
}

#[tokio::test]
async fn what_is_wrong_with_the_server_of_a_ca_is_a_sentence() {
    let params = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut ca = params("127.0.0.1");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut ended = params("127.0.0.1");
    ended.not_before = SystemTime::UNIX_EPOCH.into();
    ended.not_after = (SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400)).into();
    let errors = [
        error_of_server(ca, None).await,
        error_of_server(ended, None).await,
        error_of_server(params("ca.test"), None).await,
        error_of_server(params("127.0.0.1"), Some(params("127.0.0.1"))).await,
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
    https://ADDRESS/dir: ADDRESS cannot be reached: the server's certificate is that of a CA (CA:TRUE), which cannot be a server's: give it another one, signed by that CA
    https://ADDRESS/dir: ADDRESS cannot be reached: the server's certificate expired on 1970-01-02T00:00:00Z: renew it, or set the clock of this machine
    https://ADDRESS/dir: ADDRESS cannot be reached: the server's certificate is for ca.test, not for 127.0.0.1: use its name in the URL, or give it a certificate for this one
    https://ADDRESS/dir: ADDRESS cannot be reached: the server's certificate is not signed by the CA in `roots` that has the name of its issuer: that CA has another key
    ");
}
