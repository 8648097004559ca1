//! Responses of a CA that the issuer has to survive: rate limits, HTML, endless bodies, single bytes,
//! orders that never end.

use std::time::Duration;

use super::fixture::{DAY, DOMAIN, IssuerFixture, MINUTE, log, sandboxed, sandboxed_with};
use crate::harness::acme_ca::Scripted;

/// Checks that no request is sent for so long after an order was refused with this response.
fn no_request_before(mut fixture: IssuerFixture, response: Scripted, wait: Duration) {
    fixture.sim.ca.once("order", response);
    fixture.start();
    let asked = fixture.sim.ca.requests();
    fixture.advance(wait - MINUTE);
    assert_eq!(
        (fixture.sim.ca.requests(), fixture.served()),
        (asked, None),
        "{}",
        fixture.error()
    );
    fixture.restart();
    assert_eq!(fixture.sim.ca.requests(), asked, "nor after a restart");
    fixture.advance(5 * MINUTE);
    assert!(fixture.served().is_some(), "{}", fixture.error());
}

#[test]
fn retry_after_of_a_rate_limit_is_respected_to_the_minute() {
    sandboxed(
        "answers::retry_after_of_a_rate_limit_is_respected_to_the_minute",
        |fixture| {
            let response = Scripted::Refuse("rateLimited", 429, &[("retry-after", "7200")]);
            no_request_before(fixture, response, Duration::from_secs(7200));
        },
    );
}

#[test]
fn retry_after_of_a_load_balancer_is_respected_to_the_minute() {
    sandboxed(
        "answers::retry_after_of_a_load_balancer_is_respected_to_the_minute",
        |fixture| {
            no_request_before(
                fixture,
                Scripted::Html(503, &[("retry-after", "1800")]),
                Duration::from_secs(1800),
            );
        },
    );
}

#[test]
fn a_rate_limit_of_a_load_balancer_is_respected() {
    sandboxed(
        "answers::a_rate_limit_of_a_load_balancer_is_respected",
        |fixture| {
            no_request_before(
                fixture,
                Scripted::Html(429, &[("retry-after", "3600")]),
                Duration::from_secs(3600),
            );
        },
    );
}

#[test]
fn a_request_that_a_limit_delays_is_served_afterwards() {
    sandboxed(
        "answers::a_request_that_a_limit_delays_is_served_afterwards",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            fixture.sim.ca.once(
                "order",
                Scripted::Refuse("rateLimited", 429, &[("retry-after", "3600")]),
            );
            fixture.renew();
            assert!(
                fixture.error().contains("the CA's limit is reached"),
                "{}",
                fixture.error()
            );
            fixture.renew();
            fixture.advance(59 * MINUTE);
            assert_eq!((fixture.served(), fixture.orders()), (before.clone(), 2));
            // It is not due.
            fixture.advance(2 * MINUTE);
            assert_ne!(fixture.served(), before, "{}", fixture.error());
            assert_eq!(fixture.orders(), 3);
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

/// Checks that a certificate is issued although each endpoint gives this response once.
fn is_issued_despite(fixture: &mut IssuerFixture, response: &Scripted) {
    fixture.start();
    for endpoint in ENDPOINTS {
        let before = fixture.served();
        fixture.sim.ca.once(endpoint, response.clone());
        fixture.renew();
        // The CA's limit allows one certificate for the same names in 34 hours in the long run.
        fixture.advance(3 * DAY);
        fixture.renew();
        fixture.advance(2 * DAY);
        assert_ne!(
            fixture.served(),
            before,
            "{endpoint}: {}\n{}",
            fixture.error(),
            log()
        );
    }
    assert_eq!(fixture.sim.ca.refused_for_limits(), [""; 0]);
}

#[test]
fn a_gibibyte_of_json_costs_no_memory() {
    sandboxed(
        "answers::a_gibibyte_of_json_costs_no_memory",
        |mut fixture| {
            is_issued_despite(&mut fixture, &Scripted::Endless(1 << 30));
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
fn html_in_place_of_json_stops_nothing_for_good() {
    sandboxed(
        "answers::html_in_place_of_json_stops_nothing_for_good",
        |mut fixture| {
            is_issued_despite(&mut fixture, &Scripted::Html(200, &[]));
        },
    );
}

#[test]
fn lost_responses_stop_nothing_for_good() {
    sandboxed(
        "answers::lost_responses_stop_nothing_for_good",
        |mut fixture| {
            is_issued_despite(&mut fixture, &Scripted::Lost);
        },
    );
}

#[test]
fn a_chain_with_crlf_line_ends_is_served() {
    sandboxed(
        "answers::a_chain_with_crlf_line_ends_is_served",
        |mut fixture| {
            fixture.sim.ca.once("cert", Scripted::WindowsLines);
            fixture.start();
            let served = fixture.served();
            assert!(served.is_some(), "{}", fixture.error());
            fixture.restart();
            assert_eq!((fixture.served(), fixture.orders()), (served, 1));
        },
    );
}

#[test]
fn a_slow_trickle_of_bytes_does_not_prolong_a_response() {
    sandboxed(
        "answers::a_slow_trickle_of_bytes_does_not_prolong_a_response",
        |mut fixture| {
            fixture.sim.ca.once("directory", Scripted::Trickle);
            fixture.start_only();
            for _ in 0..5 {
                fixture.sim.ca.drip();
                fixture.sim.pass(Duration::from_secs(15));
                fixture.process().pass(Duration::from_secs(15));
            }
            fixture.process().work();
            assert!(
                fixture.error().contains("does not answer"),
                "{}",
                fixture.error()
            );
            fixture.advance(5 * MINUTE);
            assert!(fixture.served().is_some(), "{}", fixture.error());
        },
    );
}

#[test]
fn an_order_that_never_ends_is_abandoned_in_time() {
    let test = "answers::an_order_that_never_ends_is_abandoned_in_time";
    sandboxed_with(
        test,
        &[("shortlived", &[DOMAIN])],
        "[\"http-01\"]",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            fixture.advance_to_renewal();
            fixture
                .sim
                .ca
                .once("finalize", Scripted::Busy(u32::MAX, "3600"));
            fixture.advance_polling(2 * MINUTE);
            assert_eq!(
                (fixture.served(), fixture.orders()),
                (before.clone(), 2),
                "{}",
                fixture.error()
            );
            // Renewed at half its life, it has another three days.
            fixture.advance_polling(30 * 60 * MINUTE);
            assert_ne!(fixture.served(), before, "{}\n{}", fixture.error(), log());
            assert_eq!((fixture.orders(), fixture.error().as_str()), (3, ""));
        },
    );
}

#[test]
fn an_order_that_takes_long_is_polled_and_delays_no_other() {
    const OTHER: &str = "classic2.example.com";
    let domains = [
        ("classic", &[DOMAIN][..]),
        ("classic", &[OTHER, "classic2.example.org"][..]),
    ];
    let test = "answers::an_order_that_takes_long_is_polled_and_delays_no_other";
    sandboxed_with(test, &domains, "[\"http-01\"]", |mut fixture| {
        // So does a CA that exists.
        fixture
            .sim
            .ca
            .once("finalize", Scripted::Busy(u32::MAX, "86400"));
        fixture.start_only();
        fixture.process().work_through_delays(&fixture.sim.ca, 0);
        let serial = |fixture: &IssuerFixture, name| {
            fixture.process().served(name).map(|facts| facts.serial)
        };
        let is_first = serial(&fixture, DOMAIN).is_none();
        let (slow, other) = if is_first {
            (DOMAIN, OTHER)
        } else {
            (OTHER, DOMAIN)
        };
        let error = |fixture: &IssuerFixture| {
            fixture
                .process()
                .report(slow)
                .acme
                .unwrap()
                .error
                .unwrap_or_default()
        };
        assert!(
            error(&fixture).contains("has not finished the order yet"),
            "{}",
            error(&fixture)
        );
        let order = fixture.file(&format!("CA/orders/{slow}.json"));
        assert!(order.exists() && order.with_extension("key").exists());
        let before = serial(&fixture, other);
        assert!(before.is_some());
        fixture.process().renew(other);
        fixture.process().work();
        assert_ne!(serial(&fixture, other), before);
        // Each hour, however often it was looked at in vain.
        for _ in 0..6 {
            let asked = fixture.sim.ca.asked("o").len();
            fixture.advance_polling(70 * MINUTE);
            assert!(
                fixture.sim.ca.asked("o").len() > asked,
                "{}",
                error(&fixture)
            );
        }
        assert_eq!(serial(&fixture, slow), None);
        fixture.sim.ca.finishes();
        fixture.advance_polling(70 * MINUTE);
        assert!(serial(&fixture, slow).is_some(), "{}", error(&fixture));
        assert_eq!(fixture.orders(), 3);
    });
}

#[test]
fn a_request_whose_order_takes_long_is_served_when_it_ends() {
    sandboxed(
        "answers::a_request_whose_order_takes_long_is_served_when_it_ends",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            fixture
                .sim
                .ca
                .once("finalize", Scripted::Busy(u32::MAX, "86400"));
            let asked = fixture.sim.ca.requests();
            fixture.process().renew(DOMAIN);
            fixture
                .process()
                .work_through_delays(&fixture.sim.ca, asked);
            assert!(
                fixture.error().contains("has not finished the order yet"),
                "{}",
                fixture.error()
            );
            fixture.sim.ca.finishes();
            fixture.advance(70 * MINUTE);
            assert_ne!(
                fixture.served(),
                before,
                "though it was not due: {}",
                fixture.error()
            );
            assert_eq!((fixture.orders(), fixture.error().as_str()), (2, ""));
        },
    );
}

fn is_replaced_by_another(mut fixture: IssuerFixture, kind: &'static str) {
    fixture.sim.ca.once("finalize", Scripted::Invalid(kind, 0));
    fixture.start();
    assert_eq!(
        (fixture.served(), fixture.orders()),
        (None, 1),
        "{}",
        fixture.error()
    );
    fixture.advance(5 * MINUTE);
    assert!(fixture.served().is_some(), "{}\n{}", fixture.error(), log());
    assert_eq!(fixture.orders(), 2);
}

#[test]
fn an_order_that_the_ca_could_not_complete_is_replaced() {
    sandboxed(
        "answers::an_order_that_the_ca_could_not_complete_is_replaced",
        |fixture| {
            is_replaced_by_another(fixture, "serverInternal");
        },
    );
}

#[test]
fn an_order_that_reached_a_limit_is_replaced() {
    sandboxed(
        "answers::an_order_that_reached_a_limit_is_replaced",
        |fixture| {
            is_replaced_by_another(fixture, "rateLimited");
        },
    );
}

#[test]
fn orders_that_the_ca_does_not_finalize_do_not_count_as_certificates() {
    sandboxed(
        "answers::orders_that_the_ca_does_not_finalize_do_not_count_as_certificates",
        |mut fixture| {
            fixture
                .sim
                .ca
                .always("finalize", Scripted::Refuse("badCSR", 400, &[]));
            fixture.start();
            for _ in 0..5 {
                fixture.renew();
            }
            assert_eq!(
                (fixture.served(), fixture.orders()),
                (None, 6),
                "{}",
                fixture.error()
            );
            fixture.sim.ca.recovers();
            fixture.renew();
            assert!(fixture.served().is_some(), "{}", fixture.error());
            assert_eq!(fixture.sim.ca.refused_for_limits(), [""; 0]);
        },
    );
}

#[test]
fn renewal_information_is_fetched_at_the_interval_of_the_ca() {
    sandboxed(
        "answers::renewal_information_is_fetched_at_the_interval_of_the_ca",
        |mut fixture| {
            fixture.sim.ca.suggests();
            fixture.start();
            let asked = |fixture: &IssuerFixture| fixture.sim.ca.asked("renewal").len();
            assert_eq!(asked(&fixture), 1);
            // It says 12 hours.
            for times in 1..4 {
                fixture.advance(DAY / 2 - MINUTE);
                assert_eq!(asked(&fixture), times);
                fixture.advance(MINUTE + MINUTE / 6);
                assert_eq!(asked(&fixture), times + 1);
            }
        },
    );
}
