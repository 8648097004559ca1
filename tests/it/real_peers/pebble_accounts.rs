//! Twelve domains whose account a real CA does not create at first: more than the accounts that
//! Let's Encrypt allows in three hours.

use std::fs;

use serde_json::Value;

use super::pebble_ca::{Acme, Mood, binding_key};

const DOMAINS: [&str; 12] = [
    "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test", "i.test",
    "j.test", "k.test", "l.test",
];

fn configure(acme: &Acme, ca: &str) {
    acme.configure("", ca, &DOMAINS.map(|domain| (domain, "acme = true")));
}

/// Waits until the first attempt of each domain has failed for this reason.
fn all_failed(acme: &Acme, reason: &str) {
    for domain in DOMAINS {
        let shown = acme.until_certificate(domain, "explained", |certificate| {
            certificate["acme"]["attempts"]["failed"] == 1
                && certificate["acme"]["next_attempt"].is_string()
        });
        let error = shown["acme"]["error"].as_str().unwrap();
        assert!(error.contains(reason), "{domain}: {error}");
    }
}

/// How many accounts the ledger has counted.
fn accounts(acme: &Acme) -> usize {
    let text = fs::read(acme.path().join("state/acme/ledger.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&text).unwrap();
    let cas = ledger["cas"].as_object().unwrap().values();
    cas.map(|ca| ca["accounts"].as_array().unwrap().len()).sum()
}

#[test]
fn a_ca_that_starts_later_is_used_as_soon_as_it_is_asked() {
    let mut acme = Acme::new(Mood::default());
    acme.stop_ca();
    configure(&acme, "");
    acme.serve();
    all_failed(&acme, "cannot be reached: Connection refused");
    assert_eq!(accounts(&acme), 0);
    acme.restart_ca(Mood::default());
    for domain in DOMAINS {
        let said = acme.cli(&["certs", "renew", domain]).succeeded();
        assert_eq!(said, "", "{domain}");
        acme.issued(domain);
    }
    assert_eq!((accounts(&acme), acme.asked("POST /sign-me-up")), (1, 1));
}

#[test]
fn a_mistyped_account_binding_is_corrected_by_a_reload() {
    let keys: &'static str = Box::leak(
        format!(
            "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"kid-1\": \"{}\"}}",
            binding_key()
        )
        .into_boxed_str(),
    );
    let mut acme = Acme::new(Mood {
        keys,
        ..Mood::default()
    });
    let binding = |key: &str| format!("eab_key_id = \"kid-1\"\neab_hmac_key = \"{key}\"");
    configure(&acme, &binding(&binding_key().to_lowercase()));
    acme.serve();
    all_failed(&acme, "the CA refuses");
    assert_eq!(accounts(&acme), 0);
    let asked = acme.asked("POST /sign-me-up");
    assert!(
        asked < 4,
        "{asked} requests, though all need the same account"
    );
    configure(&acme, &binding(&binding_key()));
    acme.cli(&["reload"]).succeeded();
    for domain in DOMAINS {
        acme.issued(domain);
    }
    assert_eq!(accounts(&acme), 1);
}
