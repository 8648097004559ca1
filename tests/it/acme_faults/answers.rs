//! What a CA may answer that is no answer: to be left alone, pages, bodies without end, and bytes
//! that come one by one.

use std::time::Duration;

use super::stage::{DAY, DOMAIN, MINUTE, Stage, alone, log, with};
use crate::harness::acme_ca::Scripted;

/// An order is refused so; for how long nothing is asked after that.
fn is_left_alone(mut stage: Stage, told: Scripted, wait: Duration) {
    stage.world.ca.once("order", told);
    stage.start();
    let asked = stage.world.ca.requests();
    stage.pass(wait - MINUTE);
    assert_eq!(
        (stage.world.ca.requests(), stage.served()),
        (asked, None),
        "{}",
        stage.error()
    );
    stage.restart();
    assert_eq!(stage.world.ca.requests(), asked, "nor after a restart");
    stage.pass(5 * MINUTE);
    assert!(stage.served().is_some(), "{}", stage.error());
}

#[test]
fn a_limit_s_retry_after_is_kept_to_the_minute() {
    alone(
        "answers::a_limit_s_retry_after_is_kept_to_the_minute",
        |stage| {
            let told = Scripted::Refuse("rateLimited", 429, &[("retry-after", "7200")]);
            is_left_alone(stage, told, Duration::from_secs(7200));
        },
    );
}

#[test]
fn a_page_of_a_load_balancer_s_retry_after_is_kept_to_the_minute() {
    alone(
        "answers::a_page_of_a_load_balancer_s_retry_after_is_kept_to_the_minute",
        |stage| {
            is_left_alone(
                stage,
                Scripted::Html(503, &[("retry-after", "1800")]),
                Duration::from_secs(1800),
            );
        },
    );
}

#[test]
fn a_page_of_a_load_balancer_without_json_is_kept_away_from_too() {
    alone(
        "answers::a_page_of_a_load_balancer_without_json_is_kept_away_from_too",
        |stage| {
            is_left_alone(
                stage,
                Scripted::Html(429, &[("retry-after", "3600")]),
                Duration::from_secs(3600),
            );
        },
    );
}

#[test]
fn a_wish_that_has_to_wait_is_fulfilled_when_it_may_be() {
    alone(
        "answers::a_wish_that_has_to_wait_is_fulfilled_when_it_may_be",
        |mut stage| {
            stage.start();
            let before = stage.served();
            stage.world.ca.once(
                "order",
                Scripted::Refuse("rateLimited", 429, &[("retry-after", "3600")]),
            );
            stage.renew();
            assert!(
                stage.error().contains("the CA's limit is reached"),
                "{}",
                stage.error()
            );
            stage.renew();
            stage.pass(59 * MINUTE);
            assert_eq!((stage.served(), stage.orders()), (before.clone(), 2));
            // It is not due.
            stage.pass(2 * MINUTE);
            assert_ne!(stage.served(), before, "{}", stage.error());
            assert_eq!(stage.orders(), 3);
        },
    );
}

const ENDPOINTS: [&str; 7] = [
    "directory",
    "order",
    "authz",
    "challenge",
    "o",
    "finalize",
    "cert",
];

/// Each endpoint answers so once, and the certificate comes all the same.
fn comes_all_the_same(stage: &mut Stage, told: &Scripted) {
    stage.start();
    for endpoint in ENDPOINTS {
        let before = stage.served();
        stage.world.ca.once(endpoint, told.clone());
        stage.renew();
        // One for the same names each 34 hours is what the CA's limit allows in the long run.
        stage.pass(3 * DAY);
        stage.renew();
        stage.pass(2 * DAY);
        assert_ne!(
            stage.served(),
            before,
            "{endpoint}: {}\n{}",
            stage.error(),
            log()
        );
    }
    assert_eq!(stage.world.ca.refused_for_limits(), [""; 0]);
}

#[test]
fn a_gibibyte_of_json_costs_no_memory() {
    alone(
        "answers::a_gibibyte_of_json_costs_no_memory",
        |mut stage| {
            comes_all_the_same(&mut stage, &Scripted::Endless(1 << 30));
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let peak = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .unwrap();
            let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(
                peak < 200 * 1024,
                "{peak} KiB, the CA's own memory included"
            );
        },
    );
}

#[test]
fn a_page_of_html_in_place_of_json_stops_nothing_for_good() {
    alone(
        "answers::a_page_of_html_in_place_of_json_stops_nothing_for_good",
        |mut stage| {
            comes_all_the_same(&mut stage, &Scripted::Html(200, &[]));
        },
    );
}

#[test]
fn answers_that_are_lost_stop_nothing_for_good() {
    alone(
        "answers::answers_that_are_lost_stop_nothing_for_good",
        |mut stage| {
            comes_all_the_same(&mut stage, &Scripted::Lost);
        },
    );
}

#[test]
fn a_chain_with_the_line_ends_of_windows_is_served() {
    alone(
        "answers::a_chain_with_the_line_ends_of_windows_is_served",
        |mut stage| {
            stage.world.ca.once("cert", Scripted::WindowsLines);
            stage.start();
            let served = stage.served();
            assert!(served.is_some(), "{}", stage.error());
            stage.restart();
            assert_eq!((stage.served(), stage.orders()), (served, 1));
        },
    );
}

#[test]
fn a_byte_now_and_then_does_not_keep_an_answer_alive() {
    alone(
        "answers::a_byte_now_and_then_does_not_keep_an_answer_alive",
        |mut stage| {
            stage.world.ca.once("directory", Scripted::Trickle);
            stage.start_only();
            for _ in 0..5 {
                stage.world.ca.drip();
                stage.world.pass(Duration::from_secs(15));
                stage.process().pass(Duration::from_secs(15));
            }
            stage.process().work();
            assert!(
                stage.error().contains("does not answer"),
                "{}",
                stage.error()
            );
            stage.pass(5 * MINUTE);
            assert!(stage.served().is_some(), "{}", stage.error());
        },
    );
}

#[test]
fn an_order_that_never_ends_is_given_up_while_there_is_time() {
    let test = "answers::an_order_that_never_ends_is_given_up_while_there_is_time";
    with(
        test,
        &[("shortlived", &[DOMAIN])],
        "[\"http-01\"]",
        |mut stage| {
            stage.start();
            let before = stage.served();
            stage.pass_until_renewal();
            stage
                .world
                .ca
                .once("finalize", Scripted::Busy(u32::MAX, "3600"));
            stage.pass_patiently(2 * MINUTE);
            assert_eq!(
                (stage.served(), stage.orders()),
                (before.clone(), 2),
                "{}",
                stage.error()
            );
            // Renewed at half its life, it has another three days.
            stage.pass_patiently(30 * 60 * MINUTE);
            assert_ne!(stage.served(), before, "{}\n{}", stage.error(), log());
            assert_eq!((stage.orders(), stage.error().as_str()), (3, ""));
        },
    );
}

#[test]
fn an_order_that_takes_long_is_looked_at_again_and_holds_up_no_other() {
    const OTHER: &str = "classic2.example.com";
    let domains = [
        ("classic", &[DOMAIN][..]),
        ("classic", &[OTHER, "classic2.example.org"][..]),
    ];
    let test = "answers::an_order_that_takes_long_is_looked_at_again_and_holds_up_no_other";
    with(test, &domains, "[\"http-01\"]", |mut stage| {
        // So does a CA that exists.
        stage
            .world
            .ca
            .once("finalize", Scripted::Busy(u32::MAX, "86400"));
        stage.start_only();
        stage.process().work_through_delays(&stage.world.ca, 0);
        let serial = |stage: &Stage, name| stage.process().served(name).map(|facts| facts.serial);
        let is_first = serial(&stage, DOMAIN).is_none();
        let (slow, other) = if is_first {
            (DOMAIN, OTHER)
        } else {
            (OTHER, DOMAIN)
        };
        let error = |stage: &Stage| {
            stage
                .process()
                .report(slow)
                .acme
                .unwrap()
                .error
                .unwrap_or_default()
        };
        assert!(
            error(&stage).contains("has not finished the order yet"),
            "{}",
            error(&stage)
        );
        let order = stage.file(&format!("CA/orders/{slow}.json"));
        assert!(order.exists() && order.with_extension("key").exists());
        let before = serial(&stage, other);
        assert!(before.is_some());
        stage.process().renew(other);
        stage.process().work();
        assert_ne!(serial(&stage, other), before);
        // Each hour, however often it was looked at in vain.
        for _ in 0..6 {
            let asked = stage.world.ca.asked("o").len();
            stage.pass_patiently(70 * MINUTE);
            assert!(stage.world.ca.asked("o").len() > asked, "{}", error(&stage));
        }
        assert_eq!(serial(&stage, slow), None);
        stage.world.ca.finishes();
        stage.pass_patiently(70 * MINUTE);
        assert!(serial(&stage, slow).is_some(), "{}", error(&stage));
        assert_eq!(stage.orders(), 3);
    });
}

#[test]
fn a_wish_whose_order_takes_long_is_fulfilled_when_it_has_ended() {
    alone(
        "answers::a_wish_whose_order_takes_long_is_fulfilled_when_it_has_ended",
        |mut stage| {
            stage.start();
            let before = stage.served();
            stage
                .world
                .ca
                .once("finalize", Scripted::Busy(u32::MAX, "86400"));
            let asked = stage.world.ca.requests();
            stage.process().renew(DOMAIN);
            stage.process().work_through_delays(&stage.world.ca, asked);
            assert!(
                stage.error().contains("has not finished the order yet"),
                "{}",
                stage.error()
            );
            stage.world.ca.finishes();
            stage.pass(70 * MINUTE);
            assert_ne!(
                stage.served(),
                before,
                "though it was not due: {}",
                stage.error()
            );
            assert_eq!((stage.orders(), stage.error().as_str()), (2, ""));
        },
    );
}

fn is_replaced_by_another(mut stage: Stage, kind: &'static str) {
    stage.world.ca.once("finalize", Scripted::Invalid(kind, 0));
    stage.start();
    assert_eq!(
        (stage.served(), stage.orders()),
        (None, 1),
        "{}",
        stage.error()
    );
    stage.pass(5 * MINUTE);
    assert!(stage.served().is_some(), "{}\n{}", stage.error(), log());
    assert_eq!(stage.orders(), 2);
}

#[test]
fn an_order_that_the_ca_could_not_fulfil_is_replaced_by_another() {
    alone(
        "answers::an_order_that_the_ca_could_not_fulfil_is_replaced_by_another",
        |stage| {
            is_replaced_by_another(stage, "serverInternal");
        },
    );
}

#[test]
fn an_order_that_came_to_a_limit_is_replaced_by_another() {
    alone(
        "answers::an_order_that_came_to_a_limit_is_replaced_by_another",
        |stage| {
            is_replaced_by_another(stage, "rateLimited");
        },
    );
}

#[test]
fn orders_that_the_ca_will_not_finalize_are_no_certificates() {
    alone(
        "answers::orders_that_the_ca_will_not_finalize_are_no_certificates",
        |mut stage| {
            stage
                .world
                .ca
                .always("finalize", Scripted::Refuse("badCSR", 400, &[]));
            stage.start();
            for _ in 0..5 {
                stage.renew();
            }
            assert_eq!(
                (stage.served(), stage.orders()),
                (None, 6),
                "{}",
                stage.error()
            );
            stage.world.ca.recovers();
            stage.renew();
            assert!(stage.served().is_some(), "{}", stage.error());
            assert_eq!(stage.world.ca.refused_for_limits(), [""; 0]);
        },
    );
}

#[test]
fn the_ca_is_asked_when_to_renew_as_often_as_it_wants_to_be() {
    alone(
        "answers::the_ca_is_asked_when_to_renew_as_often_as_it_wants_to_be",
        |mut stage| {
            stage.world.ca.suggests();
            stage.start();
            let asked = |stage: &Stage| stage.world.ca.asked("renewal").len();
            assert_eq!(asked(&stage), 1);
            // It says 12 hours.
            for times in 1..4 {
                stage.pass(DAY / 2 - MINUTE);
                assert_eq!(asked(&stage), times);
                stage.pass(MINUTE + MINUTE / 6);
                assert_eq!(asked(&stage), times + 1);
            }
        },
    );
}
