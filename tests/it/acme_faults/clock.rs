//! A clock of the machine that was wrong, and is set right.

use std::time::Duration;

use super::fixture::{DAY, DOMAIN, MINUTE, content, log, sandboxed};
use crate::harness::acme_ca::Scripted;

const YEAR: i64 = 365 * 86_400;

#[test]
fn a_delay_that_began_a_year_ahead_ends_when_the_clock_is_set_right() {
    sandboxed(
        "clock::a_delay_that_began_a_year_ahead_ends_when_the_clock_is_set_right",
        |mut fixture| {
            fixture.sim.set_fast(YEAR);
            fixture
                .sim
                .ca
                .once("order", Scripted::Refuse("serverInternal", 500, &[]));
            fixture.start();
            assert_eq!(fixture.served(), None);
            assert_ne!(fixture.error(), "");
            fixture.sim.set_fast(0);
            // It looks at its clock each minute.
            (0..5).for_each(|_| fixture.advance(MINUTE));
            assert!(fixture.served().is_some(), "{:#?}", fixture.report());
        },
    );
}

#[test]
fn renewal_information_from_a_year_ahead_is_fetched_again() {
    sandboxed(
        "clock::renewal_information_from_a_year_ahead_is_fetched_again",
        |mut fixture| {
            fixture.sim.ca.suggests();
            fixture.start();
            let asked = fixture.sim.ca.asked("renewal").len();
            assert_eq!(asked, 1);
            // As it is left behind by a process that ran while the clock was wrong.
            let path = fixture.file(&format!("domains/{DOMAIN}.json"));
            let mut record: serde_json::Value = serde_json::from_str(&content(&path)).unwrap();
            let at = &mut record["advice"]["ask_again"]["secs_since_epoch"];
            *at = (at.as_u64().unwrap() + YEAR.unsigned_abs()).into();
            std::fs::write(&path, record.to_string()).unwrap();
            fixture.restart();
            assert_eq!(fixture.sim.ca.asked("renewal").len(), 2);
            fixture.restart();
            assert_eq!(
                fixture.sim.ca.asked("renewal").len(),
                2,
                "and not at each start"
            );
        },
    );
}

#[test]
fn an_expired_certificate_is_logged_each_day() {
    sandboxed(
        "clock::an_expired_certificate_is_logged_each_day",
        |mut fixture| {
            fixture.start();
            fixture.sim.ca.always("directory", Scripted::Hangup);
            let logged = || {
                log()
                    .matches("certificate has expired and is served nevertheless")
                    .count()
            };
            fixture.advance(89 * DAY);
            assert_eq!(logged(), 0);
            fixture.advance(6 * DAY + Duration::from_secs(3600));
            assert!((5..=7).contains(&logged()), "{}", logged());
        },
    );
}
