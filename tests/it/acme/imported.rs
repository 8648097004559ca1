//! The first start after `certs import`: what was taken over is served, and nothing is ordered.

use std::path::Path;
use std::time::{Duration, SystemTime};

use moorgate::internal::app::StartOptions;
use moorgate::internal::listen::InheritedSockets;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

use super::{AcmeCa, until};
use crate::harness::{Domain, Gateway, Setup, cli, start_app};

/// What certbot keeps of a certificate for these names, from the CA at this URL.
fn certbot(directory: &Path, names: &[&str], server: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "the issuer of before");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_identifier_method = rcgen::KeyIdMethod::Sha256;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.use_authority_key_identifier_extension = true;
    params.not_before = (SystemTime::now() - Duration::from_secs(20 * 86_400)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(70 * 86_400)).into();
    let chain = params.signed_by(&key, &issuer).unwrap().pem();
    let files = [
        ("live/before/fullchain.pem", chain),
        ("live/before/privkey.pem", key.serialize_pem()),
        ("renewal/before.conf", format!("server = {server}\n")),
    ];
    for (path, text) in files {
        let path = directory.join("letsencrypt").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// Imports a certificate of that CA for these names, and starts: what was said of it, and what is
/// shown then.
async fn start(ca: &AcmeCa, names: &[&str], server: Option<&str>) -> (String, Gateway, Value) {
    let directory = tempfile::tempdir().unwrap();
    let beside = tempfile::tempdir().unwrap().keep();
    let table = ca.toml(&beside, "ca");
    let own = table.split('"').nth(1).unwrap().to_owned();
    certbot(&beside, names, server.unwrap_or(&own));
    let domain = Domain::new("ci.example.com", "http://127.0.0.1:9").tls("acme = true");
    Setup::new()
        .main(&format!("[acme]\nchallenges = [\"http-01\"]\n{table}"))
        .domain(domain)
        .write(directory.path());
    let from = beside.join("letsencrypt").display().to_string();
    let (code, said, errors) = cli(directory.path(), &["certs", "import", &from]).await;
    assert_eq!(code, Some(0), "{said}{errors}");
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
    let shown = until(&gateway, "looked after", |shown| {
        shown["acme"]["next_attempt"].is_string()
    })
    .await;
    (said, gateway, shown)
}

fn assert_good(ca: &AcmeCa, shown: &Value) {
    assert!(
        shown["acme"]["state"].as_str().unwrap().starts_with("good"),
        "{shown}"
    );
    assert!(
        shown["issuer"]
            .as_str()
            .unwrap()
            .contains("the issuer of before"),
        "{shown}"
    );
    assert!(shown["problem"].is_null(), "{shown}");
    assert_eq!((ca.asked("order").len(), ca.asked("account").len()), (0, 0));
}

#[tokio::test]
async fn a_certificate_for_more_names_is_good_until_it_is_due() {
    for names in [
        &["ci.example.com", "www.ci.example.com"][..],
        &["*.example.com"],
    ] {
        let ca = AcmeCa::new().await;
        let (said, _gateway, shown) = start(&ca, names, None).await;
        assert!(
            said.starts_with("imported  ci.example.com at 127.0.0.1:"),
            "{said}"
        );
        assert!(!said.contains("will be ordered"), "{said}");
        assert_good(&ca, &shown);
    }
}

#[tokio::test]
async fn renewal_information_is_fetched_without_an_account() {
    let ca = AcmeCa::new().await;
    ca.windows(&[(40 * 86_400, 41 * 86_400)]);
    let (_, _gateway, shown) = start(&ca, &["ci.example.com"], None).await;
    assert_good(&ca, &shown);
    assert_eq!(ca.asked("renewal").len(), 1);
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_is_not_configured_is_served_and_reported() {
    let ca = AcmeCa::new().await;
    let zerossl = Some("https://acme.zerossl.com/v2/DV90");
    let (said, gateway, shown) = start(&ca, &["ci.example.com"], zerossl).await;
    assert!(said.contains("no [[ca]] names its CA"), "{said}");
    assert_good(&ca, &shown);
    assert!(
        shown["acme"]["ca"].as_str().unwrap().contains("zerossl"),
        "{shown}"
    );
    // Once it has been replaced, it is what it would be anywhere: another CA's.
    super::renew(&gateway, "ci.example.com").await;
    until(&gateway, "another", |after| {
        after["serial"] != shown["serial"]
    })
    .await;
    assert_eq!(ca.asked("order").len(), 1);
}
