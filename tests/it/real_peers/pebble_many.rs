//! Many orders at a real CA: a thousand domains within the limits, several domains of two processes, kills
//! at any moment, and a certificate that was revoked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as B64, Engine};
use moorgate::certs::issuer::Issuer;
use moorgate::certs::manager::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::pebble_ca::{Acme, Mood};
use super::process::{self, run, tool, until};
use crate::harness::plain::answer_challenges;

const ASKS: &str = "acme = \"ops@example.com\"";
const ORDER: &str = "POST /order-plz";

/// The limit that moorgate keeps towards a CA that publishes none.
const ORDERS: usize = 300;
const WINDOW: Duration = Duration::from_secs(3 * 3600 + 120);

#[tokio::test]
async fn a_thousand_domains_are_issued_within_the_limit_of_orders() {
    let acme = Acme::new(Mood::default());
    let names: Vec<String> = (0..1000).map(|n| format!("d{n}.many.test")).collect();
    let domains: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), ASKS)).collect();
    acme.configure("[acme]\nchallenges = [\"http-01\"]", "", &domains);
    let config = acme.path().join("config");
    let snapshot = moorgate::config::load(&config).unwrap_or_else(|_| panic!("it is wrong")).snapshot;
    let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
    certificates.apply(&snapshot);
    // What moorgate's plain listener does, whose clock the test cannot move.
    let challenges = certificates.table().challenges().clone();
    tokio::spawn(answer_challenges(([127, 0, 0, 1], acme.urls().1).into(), challenges));
    let ahead = Arc::new(AtomicU64::new(0));
    let wall = {
        let ahead = ahead.clone();
        Arc::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst)))
    };
    let issuer = Arc::new(Issuer::new(certificates.clone(), &snapshot, wall));
    tokio::spawn(issuer.run(CancellationToken::new()));
    let begun = std::time::Instant::now();
    let held = || certificates.report().iter().filter(|report| report.serial.is_some()).count();
    let (mut placed, mut hiccups) = (0, 0);
    while held() < names.len() {
        // Nothing tells when it has done what the limit allows, but that it waits.
        let settled = async {
            while certificates.report().iter().any(|report| {
                let acme = report.acme.as_ref();
                acme.is_none_or(|acme| acme.next_attempt.is_none() || acme.state.starts_with("being"))
            }) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(240), settled).await.is_ok(),
            "{} are there",
            held()
        );
        let errors: Vec<_> =
            certificates.report().iter().filter_map(|report| report.acme.as_ref()?.error.clone()).collect();
        println!("{} after {:?} {errors:?}", held(), begun.elapsed());
        let before = std::mem::replace(&mut placed, acme.asked(ORDER));
        assert!(placed - before <= ORDERS, "{placed} orders, {before} before");
        // On a machine with much to do, the CA may leave an order without any answer for good.
        hiccups += errors.len();
        let pause = if errors.is_empty() { WINDOW } else { WINDOW * 9 };
        ahead.fetch_add(pause.as_secs(), Ordering::SeqCst);
        crate::harness::jump(pause).await;
    }
    assert!(hiccups < 10 && placed <= names.len() + hiccups, "{placed} orders, {hiccups} hiccups");
    let refused = acme.asked("rateLimited") + acme.asked("-> 429");
    assert_eq!(refused, 0);
}

#[test]
fn two_processes_order_several_domains_once_each() {
    let environment = &[("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "3")];
    let mut acme = Acme::new(Mood { environment, ..Mood::default() });
    let domains: Vec<(&str, &str)> =
        ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"].map(|name| (name, ASKS)).to_vec();
    acme.configure("", "", &domains);
    acme.serve();
    let other = acme.serve_elsewhere(&domains);
    for (name, _) in &domains {
        acme.issued(name);
        assert!(acme.is_trusted(name, 0), "{name}");
        let here = format!("certificate in force domain={name} ");
        until("the other one has it", || other.stderr().contains(&here));
    }
    assert_eq!(acme.asked(ORDER), domains.len());
    assert_eq!(acme.kept("/account.json").len(), 1);
}

#[test]
fn kills_at_any_moment_of_an_order_cost_no_order_that_is_on_disk() {
    let environment = &[("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "1")];
    let mut acme = Acme::new(Mood { environment, ..Mood::default() });
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    acme.configure("", "", &names.map(|name| (name, ASKS)));
    let mut resumed = 0;
    for kill in 0..KILLS {
        let before = on_disk(&acme);
        let placed = acme.asked(ORDER);
        let asked = acme.asked("POST /");
        acme.serve();
        renew_failed(&acme, &names);
        // An order takes about twelve requests.
        let moment = asked + 1 + kill * 3 % 11;
        until("it has asked so often, or has nothing to do", || {
            let waits = acme.moorgate.as_ref().unwrap().stderr().contains(FAILED);
            acme.asked("POST /") >= moment || on_disk(&acme).0.len() == names.len() || waits
        });
        let said = acme.kill();
        let failed = said.matches(FAILED).count();
        resumed += said.matches("taking up an order").count();
        let new = acme.asked(ORDER) - placed;
        let wanted = names.len() - before.0.union(&before.1).count();
        assert!(new <= wanted + failed, "{new} orders, of which {wanted} were wanted\n{said}");
    }
    acme.serve();
    until("all have one", || {
        renew_failed(&acme, &names);
        on_disk(&acme).0.len() == names.len()
    });
    for name in names {
        acme.issued(name);
        assert!(acme.is_trusted(name, 0), "{name}");
    }
    println!("{} orders for {} names, {resumed} taken up, {KILLS} kills", acme.asked(ORDER), names.len());
    assert!(resumed > 0);
}

/// Where the CA looked while nobody was there, moorgate would wait for a minute.
fn renew_failed(acme: &Acme, names: &[&str]) {
    for name in names {
        let shown = acme.until_certificate(name, "looked after", |shown| {
            let state = shown["acme"]["state"].as_str().unwrap_or_default();
            shown["serial"].is_string() || state.starts_with("waiting") || state.starts_with("being")
        });
        if shown["acme"]["state"].as_str().is_some_and(|state| state.starts_with("waiting")) {
            acme.cli(&["certs", "renew", name]).succeeded();
        }
    }
}

const KILLS: usize = 12;
const FAILED: &str = "no certificate from this CA";

/// The names that have a certificate on disk, and those that have an order there.
fn on_disk(acme: &Acme) -> (BTreeSet<String>, BTreeSet<String>) {
    if !acme.path().join("state/acme").exists() {
        return Default::default();
    }
    let names = |paths: Vec<PathBuf>, directory: &str| {
        let paths = paths.into_iter().filter(|path| path.parent().unwrap().ends_with(directory));
        paths.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    (names(acme.kept(".pem"), "certificates"), names(acme.kept(".json"), "orders"))
}

#[test]
fn a_revoked_certificate_is_replaced_by_certs_renew() {
    let mut acme = Acme::new(Mood::default());
    acme.configure("", "", &[("ci.test", ASKS)]);
    acme.serve();
    let before = acme.issued("ci.test")["serial"].as_str().unwrap().to_owned();
    assert_eq!(status_of(&acme, &before), "Valid");
    revoke(&acme, &acme.kept("certificates/ci.test.pem")[0]);
    assert_eq!(status_of(&acme, &before), "Revoked");
    acme.cli(&["certs", "renew", "ci.test"]).succeeded();
    let after = acme.until_certificate("ci.test", "another", |certificate| certificate["serial"] != *before);
    assert_eq!(status_of(&acme, after["serial"].as_str().unwrap()), "Valid");
    assert!(acme.is_trusted("ci.test", 0));
}

/// What the CA thinks of a serial number.
fn status_of(acme: &Acme, serial: &str) -> String {
    let serial = serial.replace(':', "");
    let status = acme.management(&format!("cert-status-by-serial/{}", serial.trim_start_matches('0')));
    let status: Value = serde_json::from_str(&status).unwrap();
    status["Status"].as_str().unwrap().to_owned()
}

/// Revokes a certificate with the key of moorgate's account (RFC 8555 §7.6).
fn revoke(acme: &Acme, certificate: &Path) {
    let leaf = CertificateDer::from_pem_file(certificate).unwrap();
    let account: Value = serde_json::from_slice(&fs::read(&acme.kept("/account.json")[0]).unwrap()).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_file(&acme.kept("/account.key")[0]).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
    let curl = |arguments: &[&str], input: &str| {
        let mut curl = process::command(&tool("curl", "curl"), acme.path());
        run(curl.args(["--silent", "--fail", "--cacert", "server.pem"]).args(arguments), input).succeeded()
    };
    let (url, _) = acme.urls();
    let head = curl(&["--head", &format!("{url}/nonce-plz")], "");
    let head = head.replace("Replay-Nonce", "replay-nonce");
    let nonce = head.lines().find_map(|line| line.strip_prefix("replay-nonce: ")).unwrap().trim();
    let url = format!("{url}/revoke-cert");
    let protected = json!({ "alg": "ES256", "kid": account["url"], "nonce": nonce, "url": url });
    let payload = json!({ "certificate": B64.encode(&leaf), "reason": 1 });
    let [protected, payload] = [protected, payload].map(|part| B64.encode(part.to_string()));
    let signature = key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
    let body = json!({ "protected": protected, "payload": payload, "signature": B64.encode(signature) });
    let kind = "content-type: application/jose+json";
    curl(&["--header", kind, "--data-binary", "@-", &url], &body.to_string());
}
