//! Files below `state` that are damaged: said, put aside, and made anew; what is held in memory
//! stays.

use std::time::{Duration, SystemTime};

use super::stage::{DOMAIN, MINUTE, Stage, alone, content, log};
use crate::harness::acme_ca::Scripted;

/// Leaves half of a file.
fn damage(stage: &Stage, name: &str) {
    let path = stage.file(name);
    let text = content(&path);
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
}

/// A damaged file, while moorgate runs or while it does not; then a renewal.
fn renewal_after_damage(mut stage: Stage, name: &str, running: bool, words: &str) {
    stage.start();
    let before = stage.served();
    assert!(before.is_some());
    damage(&stage, name);
    if running {
        stage.renew();
    } else {
        stage.restart();
        assert_eq!(stage.served(), before);
        stage.renew();
    }
    stage.pass(5 * MINUTE);
    assert_ne!(stage.served(), before, "{}\n{}", stage.error(), log());
    assert!(stage.served().is_some());
    assert!(log().contains(words), "{}", log());
    assert!(
        serde_json::from_str::<serde_json::Value>(&content(&stage.file("ledger.json"))).is_ok()
    );
    assert_eq!(stage.world.ca.refused_for_limits(), [""; 0]);
}

#[test]
fn a_ledger() {
    alone("damage::a_ledger", |stage| {
        renewal_after_damage(
            stage,
            "ledger.json",
            false,
            "the ledger of ACME attempts was damaged",
        );
    });
}

#[test]
fn a_ledger_under_a_running_process() {
    alone("damage::a_ledger_under_a_running_process", |stage| {
        renewal_after_damage(stage, "ledger.json", true, "certificate in force");
    });
}

#[test]
fn an_account() {
    alone("damage::an_account", |stage| {
        renewal_after_damage(
            stage,
            "CA/account.json",
            false,
            "ACME state file is damaged, renaming it",
        );
    });
}

#[test]
fn the_key_of_an_account() {
    alone("damage::the_key_of_an_account", |stage| {
        renewal_after_damage(
            stage,
            "CA/account.key",
            false,
            "the key of the account is damaged",
        );
    });
}

#[test]
fn the_key_of_an_account_that_is_none_in_sound_pem() {
    alone(
        "damage::the_key_of_an_account_that_is_none_in_sound_pem",
        |mut stage| {
            stage.start();
            let before = stage.served();
            let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n";
            std::fs::write(stage.file("CA/account.key"), pem).unwrap();
            stage.renew();
            assert_ne!(stage.served(), before, "{}\n{}", stage.error(), log());
            assert!(
                log().contains("the key of the account is damaged"),
                "{}",
                log()
            );
            assert_eq!(stage.world.ca.asked("account").len(), 2);
        },
    );
}

#[test]
fn a_record() {
    alone("damage::a_record", |stage| {
        let name = format!("domains/{DOMAIN}.json");
        renewal_after_damage(
            stage,
            &name,
            true,
            "ACME state file is damaged, renaming it",
        );
    });
}

#[test]
fn a_certificate_that_is_held_in_memory() {
    alone(
        "damage::a_certificate_that_is_held_in_memory",
        |mut stage| {
            stage.start();
            let before = stage.served();
            let name = format!("CA/certificates/{DOMAIN}.pem");
            damage(&stage, &name);
            stage.process().refresh();
            assert_eq!(stage.served(), before);
            assert!(stage.report().problem.is_some(), "{:#?}", stage.report());
            stage.renew();
            stage.process().refresh();
            assert_ne!(stage.served(), before);
            assert_eq!(stage.report().problem, None);
            assert!(content(&stage.file(&name)).contains("CERTIFICATE"));
        },
    );
}

#[test]
fn a_certificate_while_nobody_holds_it() {
    alone(
        "damage::a_certificate_while_nobody_holds_it",
        |mut stage| {
            stage.start();
            damage(&stage, &format!("CA/certificates/{DOMAIN}.pem"));
            stage.restart();
            // The one thing that helps is another one, at once.
            assert!(stage.served().is_some(), "{}", stage.error());
            assert_eq!((stage.orders(), stage.report().problem), (2, None));
            assert!(
                log().contains("no certificate: handshakes are refused"),
                "{}",
                log()
            );
        },
    );
}

fn order_after_damage(mut stage: Stage, name: &str, words: &str) {
    stage.world.ca.once("cert", Scripted::Hangup);
    stage.start();
    assert_eq!(stage.served(), None);
    damage(&stage, name);
    stage.pass(30 * MINUTE);
    assert!(stage.served().is_some(), "{}\n{}", stage.error(), log());
    assert_eq!(stage.orders(), 2);
    assert!(log().contains(words), "{}", log());
}

#[test]
fn an_order_in_flight() {
    alone("damage::an_order_in_flight", |stage| {
        order_after_damage(stage, &format!("CA/orders/{DOMAIN}.json"), "is damaged");
    });
}

#[test]
fn the_key_of_an_order_in_flight() {
    alone("damage::the_key_of_an_order_in_flight", |stage| {
        order_after_damage(stage, &format!("CA/orders/{DOMAIN}.key"), "is damaged");
    });
}

#[test]
fn the_key_of_an_order_that_is_not_finalized_yet() {
    alone(
        "damage::the_key_of_an_order_that_is_not_finalized_yet",
        |mut stage| {
            stage.world.ca.once("authz", Scripted::Hangup);
            stage.start();
            assert_eq!((stage.served(), stage.orders()), (None, 1));
            damage(&stage, &format!("CA/orders/{DOMAIN}.key"));
            stage.pass(5 * MINUTE);
            assert!(stage.served().is_some(), "{}\n{}", stage.error(), log());
            assert_eq!(stage.orders(), 2);
        },
    );
}

#[test]
fn an_order_that_a_kill_left_behind_is_not_taken_for_a_renewal() {
    alone(
        "damage::an_order_that_a_kill_left_behind_is_not_taken_for_a_renewal",
        |mut stage| {
            stage.world.ca.once("cert", Scripted::Hangup);
            stage.start();
            let files = ["json", "key"]
                .map(|extension| stage.file(&format!("CA/orders/{DOMAIN}.{extension}")));
            let left = files.each_ref().map(|file| content(file));
            stage.pass(30 * MINUTE);
            let before = stage.served();
            assert!(before.is_some() && !files[0].exists(), "{}", stage.error());
            // Killed after the certificate was there, and before the order was forgotten.
            for (file, text) in files.iter().zip(left) {
                std::fs::write(file, text).unwrap();
            }
            stage.restart();
            stage.renew();
            assert_ne!(stage.served(), before, "{}", log());
            assert!(files.iter().all(|file| !file.exists()));
        },
    );
}

#[test]
fn answers_that_a_kill_left_behind_are_taken_away_after_a_day() {
    alone(
        "damage::answers_that_a_kill_left_behind_are_taken_away_after_a_day",
        |mut stage| {
            let directory = stage.file("challenges");
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
            stage.start();
            assert!(stage.served().is_some());
            assert!(!old.exists() && fresh.exists());
        },
    );
}
