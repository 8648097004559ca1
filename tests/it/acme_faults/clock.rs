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
fn a_clock_a_year_ahead_neither_orders_again_and_again_nor_keeps_clients_out() {
    sandboxed(
        "clock::a_clock_a_year_ahead_neither_orders_again_and_again_nor_keeps_clients_out",
        |mut fixture| {
            fixture.sim.set_fast(YEAR);
            fixture.start();
            let words = "the clock of this machine is 365 days ahead of the CA's: set it";
            assert!(fixture.error().contains(words), "{}", fixture.error());
            assert!(log().contains(words), "{}", log());
            assert!(fixture.served().is_some());
            assert_eq!(fixture.orders(), 1);
            fixture.advance(2 * DAY);
            assert!(fixture.orders() <= 5, "{} orders", fixture.orders());
            assert_eq!(fixture.sim.ca.refused_for_limits(), [""; 0]);
            fixture.sim.set_fast(0);
            (0..5).for_each(|_| fixture.advance(MINUTE));
            let shown = format!("{:#?}", fixture.report());
            assert!(shown.contains("state: \"good"), "{shown}");
        },
    );
}

#[test]
fn a_certificate_that_begins_tomorrow_is_used_tomorrow() {
    sandboxed(
        "clock::a_certificate_that_begins_tomorrow_is_used_tomorrow",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            let day = 86_400;
            fixture
                .sim
                .ca
                .once("finalize", Scripted::Life(day, 100 * day));
            fixture.renew();
            let words = "it is not valid before ";
            assert!(fixture.error().contains(words), "{}", fixture.error());
            assert_eq!((fixture.served(), fixture.orders()), (before.clone(), 2));
            fixture.advance(DAY / 2);
            fixture.restart();
            assert_eq!((fixture.served(), fixture.orders()), (before.clone(), 2));
            fixture.advance(DAY / 2 + MINUTE);
            let after = fixture.served();
            assert_ne!(after, before, "{}", log());
            assert_eq!((fixture.orders(), fixture.error().as_str()), (2, ""));
            fixture.restart();
            assert_eq!((fixture.served(), fixture.orders()), (after, 2));
            assert!(!fixture.file(&format!("CA/unused/{DOMAIN}.pem")).exists());
        },
    );
}

#[test]
fn a_certificate_that_was_not_put_in_force_stays_so_after_a_restart() {
    sandboxed(
        "clock::a_certificate_that_was_not_put_in_force_stays_so_after_a_restart",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            let day = 86_400;
            fixture
                .sim
                .ca
                .once("finalize", Scripted::Life(-90 * day, -day));
            fixture.renew();
            assert!(fixture.file(&format!("CA/unused/{DOMAIN}.pem")).exists());
            fixture.restart();
            assert_eq!((fixture.served(), fixture.orders()), (before, 2));
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
