//! Orders at a real CA that is asked for much: several domains of two processes, kills at any
//! moment, and a certificate that was revoked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as B64, Engine};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::pebble_ca::{Acme, Mood};
use super::process::{self, run, tool, until};

const ASKS: &str = "acme = \"ops@example.com\"";
const ORDER: &str = "POST /order-plz";

#[test]
fn two_processes_order_several_domains_once_each() {
    let environment = &[("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "3")];
    let mut acme = Acme::new(Mood {
        environment,
        ..Mood::default()
    });
    let domains: Vec<(&str, &str)> = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]
        .map(|name| (name, ASKS))
        .to_vec();
    acme.configure("", "", &domains);
    acme.serve();
    let other = acme.serve_elsewhere(&domains);
    for (name, _) in &domains {
        acme.issued(name);
        assert!(acme.is_trusted(name, 0), "{name}");
        other.has(name);
    }
    assert_eq!(acme.asked(ORDER), domains.len());
    assert_eq!(acme.kept("/account.json").len(), 1);
}

#[test]
fn kills_at_any_moment_of_an_order_cost_no_order_that_is_on_disk() {
    let resumed: usize = (0..ROUNDS).map(orders_with_kills).sum();
    println!(
        "{resumed} orders were taken up after {} kills",
        ROUNDS * KILLS
    );
    assert!(resumed > 0);
}

/// Orders for some names while moorgate is killed. How many orders were taken up.
fn orders_with_kills(round: usize) -> usize {
    let environment = &[("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "1")];
    let mut acme = Acme::new(Mood {
        environment,
        ..Mood::default()
    });
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
        let moment = asked + 1 + (round * KILLS + kill) * 3 % 11;
        until("it has asked so often, or has nothing to do", || {
            let waits = acme.moorgate.as_ref().unwrap().stderr().contains(FAILED);
            acme.asked("POST /") >= moment || on_disk(&acme).0.len() == names.len() || waits
        });
        let said = acme.kill();
        let failed = said.matches(FAILED).count();
        resumed += said.matches("resuming the stored order").count();
        let new = acme.asked(ORDER) - placed;
        let wanted = names.len() - before.0.union(&before.1).count();
        assert!(
            new <= wanted + failed,
            "{new} orders, of which {wanted} were wanted\n{said}"
        );
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
    resumed
}

/// Where the CA looked while nobody was there, moorgate would wait for a minute.
fn renew_failed(acme: &Acme, names: &[&str]) {
    for name in names {
        let shown = acme.until_certificate(name, "looked after", |shown| {
            let state = shown["acme"]["state"].as_str().unwrap_or_default();
            shown["serial"].is_string()
                || state.starts_with("waiting")
                || state.starts_with("being")
        });
        if shown["acme"]["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("waiting"))
        {
            acme.cli(&["certs", "renew", name]).succeeded();
        }
    }
}

const ROUNDS: usize = 4;
/// Each may cost every name a failed validation, of which a CA allows five an hour: two are left
/// for a CA that looks too late, on a machine with much to do.
const KILLS: usize = 3;
const FAILED: &str = "certificate order failed";

/// The names that have a certificate on disk, and those that have an order there.
fn on_disk(acme: &Acme) -> (BTreeSet<String>, BTreeSet<String>) {
    if !acme.path().join("state/acme").exists() {
        return Default::default();
    }
    let names = |paths: Vec<PathBuf>, directory: &str| {
        let paths = paths
            .into_iter()
            .filter(|path| path.parent().unwrap().ends_with(directory));
        paths
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    (
        names(acme.kept(".pem"), "certificates"),
        names(acme.kept(".json"), "orders"),
    )
}

#[test]
fn a_revoked_certificate_is_replaced_by_certs_renew() {
    let mut acme = Acme::new(Mood::default());
    acme.configure("", "", &[("ci.test", ASKS)]);
    acme.serve();
    let before = acme.issued("ci.test")["serial"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(status_of(&acme, &before), "Valid");
    revoke(&acme, &acme.kept("certificates/ci.test.pem")[0]);
    assert_eq!(status_of(&acme, &before), "Revoked");
    acme.cli(&["certs", "renew", "ci.test"]).succeeded();
    let after = acme.until_certificate("ci.test", "another", |certificate| {
        certificate["serial"] != *before
    });
    assert_eq!(status_of(&acme, after["serial"].as_str().unwrap()), "Valid");
    assert!(acme.is_trusted("ci.test", 0));
}

/// What the CA thinks of a serial number.
fn status_of(acme: &Acme, serial: &str) -> String {
    let serial = serial.replace(':', "");
    let status = acme.management(&format!(
        "cert-status-by-serial/{}",
        serial.trim_start_matches('0')
    ));
    let status: Value = serde_json::from_str(&status).unwrap();
    status["Status"].as_str().unwrap().to_owned()
}

/// Revokes a certificate with the key of moorgate's account (RFC 8555 §7.6).
fn revoke(acme: &Acme, certificate: &Path) {
    let leaf = CertificateDer::from_pem_file(certificate).unwrap();
    let account: Value =
        serde_json::from_slice(&fs::read(&acme.kept("/account.json")[0]).unwrap()).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_file(&acme.kept("/account.key")[0]).unwrap();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
    let curl = |arguments: &[&str], input: &str| {
        let mut curl = process::command(&tool("curl", "curl"), acme.path());
        run(
            curl.args(["--silent", "--fail", "--cacert", "server.pem"])
                .args(arguments),
            input,
        )
        .succeeded()
    };
    let (url, _) = acme.urls();
    let head = curl(&["--head", &format!("{url}/nonce-plz")], "");
    let head = head.replace("Replay-Nonce", "replay-nonce");
    let nonce = head
        .lines()
        .find_map(|line| line.strip_prefix("replay-nonce: "))
        .unwrap()
        .trim();
    let url = format!("{url}/revoke-cert");
    let protected = json!({ "alg": "ES256", "kid": account["url"], "nonce": nonce, "url": url });
    let payload = json!({ "certificate": B64.encode(&leaf), "reason": 1 });
    let [protected, payload] = [protected, payload].map(|part| B64.encode(part.to_string()));
    let signature = key
        .sign(
            &SystemRandom::new(),
            format!("{protected}.{payload}").as_bytes(),
        )
        .unwrap();
    let body =
        json!({ "protected": protected, "payload": payload, "signature": B64.encode(signature) });
    let kind = "content-type: application/jose+json";
    curl(
        &["--header", kind, "--data-binary", "@-", &url],
        &body.to_string(),
    );
}
