//! A disk that is full or read-only: nothing is ordered that could not be kept, what is held stays,
//! and it goes on by itself.

use super::stage::{DAY, DOMAIN, MINUTE, Stage, alone, content, log};
use crate::acme_year::acme_sim::fill;

/// A renewal is due while nothing can be written, and then something can.
fn renewal_without_disk(mut stage: Stage, take: fn(&Stage), give: fn(&Stage), words: &str) {
    stage.start();
    stage.pass_until_renewal();
    let (before, file) = (
        stage.served(),
        stage.file(&format!("CA/certificates/{DOMAIN}.pem")),
    );
    let kept = content(&file);
    take(&stage);
    stage.pass(DAY / 24);
    let report = stage.report();
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
        stage.orders(),
        1,
        "nothing is ordered that could not be kept"
    );
    assert_eq!((stage.served(), content(&file)), (before.clone(), kept));
    // Another process finds the good copy.
    stage.restart();
    assert_eq!((stage.served(), stage.orders()), (before.clone(), 1));
    give(&stage);
    stage.pass(2 * MINUTE);
    assert_ne!(stage.served(), before, "it recovers by itself");
    assert_eq!((stage.error().as_str(), stage.orders()), ("", 2));
    assert!(content(&file).contains("PRIVATE KEY"));
}

#[test]
fn a_renewal_waits_for_a_full_disk() {
    alone("disk::a_renewal_waits_for_a_full_disk", |stage| {
        let (take, give) = (
            |stage: &Stage| stage.world.fill_disk(),
            |stage: &Stage| stage.world.free_disk(),
        );
        renewal_without_disk(stage, take, give, "No space left on device");
    });
}

#[test]
fn a_renewal_waits_for_a_read_only_disk() {
    alone("disk::a_renewal_waits_for_a_read_only_disk", |stage| {
        let take = |stage: &Stage| stage.world.mount_disk("ro");
        let give = |stage: &Stage| stage.world.mount_disk("rw");
        renewal_without_disk(stage, take, give, "Read-only file system");
    });
}

#[test]
fn a_start_on_a_full_disk_orders_nothing() {
    alone(
        "disk::a_start_on_a_full_disk_orders_nothing",
        |mut stage| {
            stage.world.fill_disk();
            stage.start();
            assert_eq!(
                (stage.served(), stage.world.ca.requests()),
                (None, 0),
                "{}",
                log()
            );
            assert!(
                stage.error().contains("No space left on device"),
                "{}",
                stage.error()
            );
            stage.world.free_disk();
            stage.pass(2 * MINUTE);
            assert!(stage.served().is_some(), "{}", stage.error());
        },
    );
}

/// The disk is full as soon as an endpoint is asked.
fn fills_at(stage: &Stage, endpoint: &'static str) {
    let directory = stage.world.directory.clone();
    stage.world.ca.decides(Box::new(move |asked| {
        if asked.endpoint == endpoint {
            fill(&directory);
        }
        None
    }));
}

#[test]
fn a_certificate_that_could_not_be_kept_comes_from_the_same_order() {
    alone(
        "disk::a_certificate_that_could_not_be_kept_comes_from_the_same_order",
        |mut stage| {
            fills_at(&stage, "cert");
            stage.start();
            assert_eq!(stage.served(), None);
            assert!(
                stage.error().contains("the certificate cannot be stored"),
                "{}",
                stage.error()
            );
            stage.world.ca.recovers();
            stage.world.free_disk();
            stage.pass(2 * MINUTE);
            assert!(stage.served().is_some(), "{}", stage.error());
            assert_eq!((stage.orders(), stage.world.ca.issued().len()), (1, 1));
        },
    );
}

#[test]
fn an_order_that_could_not_be_kept_is_not_gone_on_with() {
    alone(
        "disk::an_order_that_could_not_be_kept_is_not_gone_on_with",
        |mut stage| {
            fills_at(&stage, "order");
            stage.start();
            assert!(
                stage.error().contains("the order cannot be stored"),
                "{}",
                stage.error()
            );
            assert_eq!(
                (stage.orders(), stage.world.ca.asked("authz").len()),
                (1, 0)
            );
            stage.pass(MINUTE * 30);
            assert_eq!(stage.orders(), 1, "and no other is placed");
            stage.world.ca.recovers();
            stage.world.free_disk();
            stage.pass(2 * MINUTE);
            assert!(stage.served().is_some(), "{}", stage.error());
        },
    );
}
