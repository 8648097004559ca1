//! Files below `state` that are damaged: said, put aside, and made anew; what is held in memory
//! stays.

use std::time::{Duration, SystemTime};

use super::fixture::{DOMAIN, IssuerFixture, MINUTE, content, log, sandboxed};
use crate::harness::acme_ca::Scripted;

/// Leaves half of a file.
fn damage(fixture: &IssuerFixture, name: &str) {
    let path = fixture.file(name);
    let text = content(&path);
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
}

/// A damaged file, while moorgate runs or while it does not; then a renewal.
fn renewal_after_damage(mut fixture: IssuerFixture, name: &str, running: bool, words: &str) {
    fixture.start();
    let before = fixture.served();
    assert!(before.is_some());
    damage(&fixture, name);
    if running {
        fixture.renew();
    } else {
        fixture.restart();
        assert_eq!(fixture.served(), before);
        fixture.renew();
    }
    fixture.advance(5 * MINUTE);
    assert_ne!(fixture.served(), before, "{}\n{}", fixture.error(), log());
    assert!(fixture.served().is_some());
    assert!(log().contains(words), "{}", log());
    assert!(
        serde_json::from_str::<serde_json::Value>(&content(&fixture.file("ledger.json"))).is_ok()
    );
    assert_eq!(fixture.sim.ca.refused_for_limits(), [""; 0]);
}

#[test]
fn a_ledger() {
    sandboxed("damage::a_ledger", |fixture| {
        renewal_after_damage(
            fixture,
            "ledger.json",
            false,
            "the ledger of ACME attempts was damaged",
        );
    });
}

#[test]
fn the_ledger_of_a_running_process_may_be_damaged() {
    sandboxed(
        "damage::the_ledger_of_a_running_process_may_be_damaged",
        |fixture| {
            renewal_after_damage(fixture, "ledger.json", true, "certificate in force");
        },
    );
}

#[test]
fn an_account() {
    sandboxed("damage::an_account", |fixture| {
        renewal_after_damage(
            fixture,
            "CA/account.json",
            false,
            "ACME state file is damaged, renaming it",
        );
    });
}

#[test]
fn the_key_of_an_account_may_be_damaged() {
    sandboxed("damage::the_key_of_an_account_may_be_damaged", |fixture| {
        renewal_after_damage(
            fixture,
            "CA/account.key",
            false,
            "the key of the account is damaged",
        );
    });
}

#[test]
fn the_key_of_an_account_may_be_damaged_inside_valid_pem() {
    sandboxed(
        "damage::the_key_of_an_account_may_be_damaged_inside_valid_pem",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n";
            std::fs::write(fixture.file("CA/account.key"), pem).unwrap();
            fixture.renew();
            assert_ne!(fixture.served(), before, "{}\n{}", fixture.error(), log());
            assert!(
                log().contains("the key of the account is damaged"),
                "{}",
                log()
            );
            assert_eq!(fixture.sim.ca.asked("account").len(), 2);
        },
    );
}

#[test]
fn a_record() {
    sandboxed("damage::a_record", |fixture| {
        let name = format!("domains/{DOMAIN}.json");
        renewal_after_damage(
            fixture,
            &name,
            true,
            "ACME state file is damaged, renaming it",
        );
    });
}

#[test]
fn a_certificate_that_is_served_may_be_damaged() {
    sandboxed(
        "damage::a_certificate_that_is_served_may_be_damaged",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            let name = format!("CA/certificates/{DOMAIN}.pem");
            damage(&fixture, &name);
            fixture.process().refresh();
            assert_eq!(fixture.served(), before);
            assert!(
                fixture.report().problem.is_some(),
                "{:#?}",
                fixture.report()
            );
            fixture.renew();
            fixture.process().refresh();
            assert_ne!(fixture.served(), before);
            assert_eq!(fixture.report().problem, None);
            assert!(content(&fixture.file(&name)).contains("CERTIFICATE"));
        },
    );
}

#[test]
fn a_certificate_may_be_damaged_while_nothing_runs() {
    sandboxed(
        "damage::a_certificate_may_be_damaged_while_nothing_runs",
        |mut fixture| {
            fixture.start();
            damage(&fixture, &format!("CA/certificates/{DOMAIN}.pem"));
            fixture.restart();
            // The one thing that helps is another one, at once.
            assert!(fixture.served().is_some(), "{}", fixture.error());
            assert_eq!((fixture.orders(), fixture.report().problem), (2, None));
            assert!(
                log().contains("no certificate: handshakes are refused"),
                "{}",
                log()
            );
        },
    );
}

fn order_after_damage(mut fixture: IssuerFixture, name: &str, words: &str) {
    fixture.sim.ca.once("cert", Scripted::Hangup);
    fixture.start();
    assert_eq!(fixture.served(), None);
    damage(&fixture, name);
    fixture.advance(30 * MINUTE);
    assert!(fixture.served().is_some(), "{}\n{}", fixture.error(), log());
    assert_eq!(fixture.orders(), 2);
    assert!(log().contains(words), "{}", log());
}

#[test]
fn an_order_in_flight() {
    sandboxed("damage::an_order_in_flight", |fixture| {
        order_after_damage(fixture, &format!("CA/orders/{DOMAIN}.json"), "is damaged");
    });
}

#[test]
fn the_key_of_a_pending_order_may_be_damaged() {
    sandboxed(
        "damage::the_key_of_a_pending_order_may_be_damaged",
        |fixture| {
            order_after_damage(fixture, &format!("CA/orders/{DOMAIN}.key"), "is damaged");
        },
    );
}

#[test]
fn the_key_of_an_order_before_finalization_may_be_damaged() {
    sandboxed(
        "damage::the_key_of_an_order_before_finalization_may_be_damaged",
        |mut fixture| {
            fixture.sim.ca.once("authz", Scripted::Hangup);
            fixture.start();
            assert_eq!((fixture.served(), fixture.orders()), (None, 1));
            damage(&fixture, &format!("CA/orders/{DOMAIN}.key"));
            fixture.advance(5 * MINUTE);
            assert!(fixture.served().is_some(), "{}\n{}", fixture.error(), log());
            assert_eq!(fixture.orders(), 2);
        },
    );
}

#[test]
fn an_order_left_by_a_kill_is_not_resumed_for_a_renewal() {
    sandboxed(
        "damage::an_order_left_by_a_kill_is_not_resumed_for_a_renewal",
        |mut fixture| {
            fixture.sim.ca.once("cert", Scripted::Hangup);
            fixture.start();
            let files = ["json", "key"]
                .map(|extension| fixture.file(&format!("CA/orders/{DOMAIN}.{extension}")));
            let left = files.each_ref().map(|file| content(file));
            fixture.advance(30 * MINUTE);
            let before = fixture.served();
            assert!(
                before.is_some() && !files[0].exists(),
                "{}",
                fixture.error()
            );
            // Killed after the certificate was there, and before the order was forgotten.
            for (file, text) in files.iter().zip(left) {
                std::fs::write(file, text).unwrap();
            }
            fixture.restart();
            fixture.renew();
            assert_ne!(fixture.served(), before, "{}", log());
            assert!(files.iter().all(|file| !file.exists()));
        },
    );
}

#[test]
fn challenge_responses_left_by_a_kill_are_removed_after_a_day() {
    sandboxed(
        "damage::challenge_responses_left_by_a_kill_are_removed_after_a_day",
        |mut fixture| {
            let directory = fixture.file("challenges");
            std::fs::create_dir_all(&directory).unwrap();
            let [old, fresh] = ["http-old", "http-fresh"].map(|name| directory.join(name));
            for file in [&old, &fresh] {
                std::fs::write(file, "an answer").unwrap();
            }
            let before = SystemTime::now() - Duration::from_secs(25 * 3600);
            std::fs::File::options()
                .write(true)
                .open(&old)
                .unwrap()
                .set_modified(before)
                .unwrap();
            fixture.start();
            assert!(fixture.served().is_some());
            assert!(!old.exists() && fresh.exists());
        },
    );
}
