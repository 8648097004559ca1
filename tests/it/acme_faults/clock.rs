//! A clock of the machine that was wrong, and is set right.

use std::time::Duration;

use super::stage::{DAY, DOMAIN, MINUTE, alone, content, log};
use crate::harness::acme_ca::Scripted;

const YEAR: i64 = 365 * 86_400;

#[test]
fn a_wait_that_began_a_year_ahead_ends_when_the_clock_is_set_right() {
    alone(
        "clock::a_wait_that_began_a_year_ahead_ends_when_the_clock_is_set_right",
        |mut stage| {
            stage.world.set_fast(YEAR);
            stage
                .world
                .ca
                .once("order", Scripted::Refuse("serverInternal", 500, &[]));
            stage.start();
            assert_eq!(stage.served(), None);
            assert_ne!(stage.error(), "");
            stage.world.set_fast(0);
            // It looks at its clock each minute.
            (0..5).for_each(|_| stage.pass(MINUTE));
            assert!(stage.served().is_some(), "{:#?}", stage.report());
        },
    );
}

#[test]
fn advice_that_was_asked_for_a_year_ahead_is_asked_for_again() {
    alone(
        "clock::advice_that_was_asked_for_a_year_ahead_is_asked_for_again",
        |mut stage| {
            stage.world.ca.suggests();
            stage.start();
            let asked = stage.world.ca.asked("renewal").len();
            assert_eq!(asked, 1);
            // As it is left behind by a process that ran while the clock was wrong.
            let path = stage.file(&format!("domains/{DOMAIN}.json"));
            let mut record: serde_json::Value = serde_json::from_str(&content(&path)).unwrap();
            let at = &mut record["advice"]["ask_again"]["secs_since_epoch"];
            *at = (at.as_u64().unwrap() + YEAR.unsigned_abs()).into();
            std::fs::write(&path, record.to_string()).unwrap();
            stage.restart();
            assert_eq!(stage.world.ca.asked("renewal").len(), 2);
            stage.restart();
            assert_eq!(
                stage.world.ca.asked("renewal").len(),
                2,
                "and not at each start"
            );
        },
    );
}

#[test]
fn an_expired_certificate_is_announced_each_day() {
    alone(
        "clock::an_expired_certificate_is_announced_each_day",
        |mut stage| {
            stage.start();
            stage.world.ca.always("directory", Scripted::Hangup);
            let said = || {
                log()
                    .matches("the certificate has expired and is served all the same")
                    .count()
            };
            stage.pass(89 * DAY);
            assert_eq!(said(), 0);
            stage.pass(6 * DAY + Duration::from_secs(3600));
            assert!((5..=7).contains(&said()), "{}", said());
        },
    );
}
