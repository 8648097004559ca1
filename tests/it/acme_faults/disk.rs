//! A disk that is full or read-only: nothing is ordered that could not be kept, what is held stays,
//! and it goes on by itself.

use super::fixture::{DAY, DOMAIN, IssuerFixture, MINUTE, content, log, sandboxed};
use crate::acme_year::acme_sim::fill;

/// A renewal is due while nothing can be written, and then something can.
fn renewal_without_disk(
    mut fixture: IssuerFixture,
    take: fn(&IssuerFixture),
    give: fn(&IssuerFixture),
    words: &str,
) {
    fixture.start();
    fixture.advance_to_renewal();
    let (before, file) = (
        fixture.served(),
        fixture.file(&format!("CA/certificates/{DOMAIN}.pem")),
    );
    let kept = content(&file);
    take(&fixture);
    fixture.advance(DAY / 24);
    let report = fixture.report();
    let acme = report.acme.unwrap();
    assert!(
        acme.error
            .as_ref()
            .is_some_and(|error| error.contains(words)),
        "{acme:#?}"
    );
    assert!(
        acme.state.starts_with("waiting: ") && acme.next_attempt.is_some(),
        "{acme:#?}"
    );
    assert!(
        log().contains("certificates cannot be ordered"),
        "{}",
        log()
    );
    assert_eq!(
        fixture.orders(),
        1,
        "nothing is ordered that could not be kept"
    );
    assert_eq!((fixture.served(), content(&file)), (before.clone(), kept));
    // Another process finds the good copy.
    fixture.restart();
    assert_eq!((fixture.served(), fixture.orders()), (before.clone(), 1));
    give(&fixture);
    fixture.advance(2 * MINUTE);
    assert_ne!(fixture.served(), before, "it recovers by itself");
    assert_eq!((fixture.error().as_str(), fixture.orders()), ("", 2));
    assert!(content(&file).contains("PRIVATE KEY"));
}

#[test]
fn a_renewal_waits_for_a_full_disk() {
    sandboxed("disk::a_renewal_waits_for_a_full_disk", |fixture| {
        let (take, give) = (
            |fixture: &IssuerFixture| fixture.sim.fill_disk(),
            |fixture: &IssuerFixture| fixture.sim.free_disk(),
        );
        renewal_without_disk(fixture, take, give, "No space left on device");
    });
}

#[test]
fn a_renewal_waits_for_a_read_only_disk() {
    sandboxed("disk::a_renewal_waits_for_a_read_only_disk", |fixture| {
        let take = |fixture: &IssuerFixture| fixture.sim.mount_disk("ro");
        let give = |fixture: &IssuerFixture| fixture.sim.mount_disk("rw");
        renewal_without_disk(fixture, take, give, "Read-only file system");
    });
}

#[test]
fn a_start_on_a_full_disk_orders_nothing() {
    sandboxed(
        "disk::a_start_on_a_full_disk_orders_nothing",
        |mut fixture| {
            fixture.sim.fill_disk();
            fixture.start();
            assert_eq!(
                (fixture.served(), fixture.sim.ca.requests()),
                (None, 0),
                "{}",
                log()
            );
            assert!(
                fixture.error().contains("No space left on device"),
                "{}",
                fixture.error()
            );
            fixture.sim.free_disk();
            fixture.advance(2 * MINUTE);
            assert!(fixture.served().is_some(), "{}", fixture.error());
        },
    );
}

/// The disk is full as soon as an endpoint is asked.
fn fills_at(fixture: &IssuerFixture, endpoint: &'static str) {
    let directory = fixture.sim.directory.clone();
    fixture.sim.ca.decides(Box::new(move |asked| {
        if asked.endpoint == endpoint {
            fill(&directory);
        }
        None
    }));
}

#[test]
fn a_certificate_that_could_not_be_stored_comes_from_the_same_order() {
    sandboxed(
        "disk::a_certificate_that_could_not_be_stored_comes_from_the_same_order",
        |mut fixture| {
            fills_at(&fixture, "cert");
            fixture.start();
            assert_eq!(fixture.served(), None);
            assert!(
                fixture.error().contains("the certificate cannot be stored"),
                "{}",
                fixture.error()
            );
            fixture.sim.ca.recovers();
            fixture.sim.free_disk();
            fixture.advance(2 * MINUTE);
            assert!(fixture.served().is_some(), "{}", fixture.error());
            assert_eq!((fixture.orders(), fixture.sim.ca.issued().len()), (1, 1));
        },
    );
}

#[test]
fn an_order_that_could_not_be_stored_is_not_completed() {
    sandboxed(
        "disk::an_order_that_could_not_be_stored_is_not_completed",
        |mut fixture| {
            fills_at(&fixture, "order");
            fixture.start();
            assert!(
                fixture.error().contains("the order cannot be stored"),
                "{}",
                fixture.error()
            );
            assert_eq!(
                (fixture.orders(), fixture.sim.ca.asked("authz").len()),
                (1, 0)
            );
            fixture.advance(MINUTE * 30);
            assert_eq!(fixture.orders(), 1, "and no other is placed");
            fixture.sim.ca.recovers();
            fixture.sim.free_disk();
            fixture.advance(2 * MINUTE);
            assert!(fixture.served().is_some(), "{}", fixture.error());
        },
    );
}
