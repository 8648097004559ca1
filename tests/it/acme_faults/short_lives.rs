//! Certificates that live for ten minutes, at a CA that fails when they are to be renewed.

use std::time::Duration;

use super::fixture::{IssuerFixture, sandboxed};
use crate::harness::acme_ca::Scripted;

const TEN_MINUTES: Scripted = Scripted::Life(0, 600);

/// Checks that a certificate is replaced before its end although an endpoint has responded so to the
/// first four attempts.
fn is_replaced_despite(mut fixture: IssuerFixture, endpoint: &'static str, response: Scripted) {
    fixture.sim.ca.once("finalize", TEN_MINUTES);
    fixture.start();
    let (before, end) = (fixture.served(), fixture.report().not_after.unwrap());
    fixture.advance_to_renewal();
    fixture.sim.ca.always(endpoint, response);
    for times in 1..=4 {
        while fixture.report().acme.unwrap().attempts.failed < times {
            fixture.advance(Duration::from_secs(1));
            assert!(fixture.sim.now() < end, "{}", fixture.error());
        }
        let next = fixture.report().acme.unwrap().next_attempt.unwrap();
        let late = next.duration_since(end);
        assert!(late.is_err(), "after {times} failures: {late:?} too late");
    }
    fixture.sim.ca.recovers();
    fixture.sim.ca.once("finalize", TEN_MINUTES);
    let left = end.duration_since(fixture.sim.now()).unwrap();
    fixture.advance(left - Duration::from_secs(1));
    assert_ne!(fixture.served(), before, "{}", fixture.error());
    assert_eq!(fixture.sim.ca.refused_for_limits(), [""; 0]);
}

#[test]
fn a_certificate_of_ten_minutes_survives_an_order_that_never_ends() {
    sandboxed(
        "short_lives::a_certificate_of_ten_minutes_survives_an_order_that_never_ends",
        |mut fixture| {
            fixture.sim.ca.once("finalize", TEN_MINUTES);
            fixture.start();
            let (before, end) = (fixture.served(), fixture.report().not_after.unwrap());
            fixture.advance_to_renewal();
            let response = Scripted::Busy(u32::MAX, "3600");
            fixture.sim.ca.once("finalize", response);
            fixture.sim.ca.once("finalize", TEN_MINUTES);
            let left = end.duration_since(fixture.sim.now()).unwrap();
            fixture.advance_polling(left - Duration::from_secs(1));
            assert_ne!(fixture.served(), before, "{}", fixture.error());
            assert_eq!(fixture.orders(), 3);
        },
    );
}

#[test]
fn a_certificate_of_ten_minutes_survives_failed_validations() {
    sandboxed(
        "short_lives::a_certificate_of_ten_minutes_survives_failed_validations",
        |fixture| is_replaced_despite(fixture, "challenge", Scripted::Unmet),
    );
}

#[test]
fn a_certificate_of_ten_minutes_survives_refused_orders() {
    sandboxed(
        "short_lives::a_certificate_of_ten_minutes_survives_refused_orders",
        |fixture| {
            let response = Scripted::Refuse("rejectedIdentifier", 400, &[]);
            is_replaced_despite(fixture, "order", response);
        },
    );
}

#[test]
fn a_certificate_of_ten_minutes_survives_an_outage_of_minutes() {
    sandboxed(
        "short_lives::a_certificate_of_ten_minutes_survives_an_outage_of_minutes",
        |fixture| is_replaced_despite(fixture, "directory", Scripted::Hangup),
    );
}
