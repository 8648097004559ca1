//! The challenge that works is recorded for each domain and tried first from then on.

use super::fixture::{DOMAIN, IssuerFixture, MINUTE, sandboxed_with};
use crate::harness::acme_ca::Scripted;

const OTHER: &str = "classic2.example.com";

/// The challenges that were started for a name, in order.
fn asked(fixture: &IssuerFixture, name: &str) -> Vec<String> {
    let asked = fixture
        .sim
        .ca
        .asked("challenge")
        .into_iter()
        .filter(|one| one["name"] == name);
    asked
        .map(|one| one["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_working_challenge_of_each_domain_is_remembered_across_a_restart() {
    let domains = [
        ("classic", &[DOMAIN][..]),
        ("classic", &[OTHER, "classic2.example.org"][..]),
    ];
    let test = "challenges::the_working_challenge_of_each_domain_is_remembered_across_a_restart";
    sandboxed_with(
        test,
        &domains,
        "[\"tls-alpn-01\", \"http-01\"]",
        |mut fixture| {
            // The CA cannot connect to port 443 of one domain.
            fixture.sim.ca.decides(Box::new(|asked| {
                let (kind, name) = asked.challenge.as_ref()?;
                (kind == "tls-alpn-01" && name == DOMAIN).then_some(Scripted::Unmet)
            }));
            fixture.start();
            fixture.advance(5 * MINUTE);
            assert_eq!(asked(&fixture, DOMAIN), ["tls-alpn-01", "http-01"]);
            assert_eq!(asked(&fixture, OTHER), ["tls-alpn-01"]);
            let before = fixture.served();
            fixture.restart();
            for domain in [DOMAIN, OTHER] {
                fixture.process().renew(domain);
            }
            fixture.process().work();
            assert_ne!(fixture.served(), before);
            assert_eq!(
                asked(&fixture, DOMAIN),
                ["tls-alpn-01", "http-01", "http-01"]
            );
            assert_eq!(asked(&fixture, OTHER), ["tls-alpn-01", "tls-alpn-01"]);
        },
    );
}

#[test]
fn the_working_challenge_stays_first_when_the_ca_is_out_of_order() {
    let test = "challenges::the_working_challenge_stays_first_when_the_ca_is_out_of_order";
    sandboxed_with(
        test,
        &[("classic", &[DOMAIN])],
        "[\"tls-alpn-01\", \"http-01\"]",
        |mut fixture| {
            fixture.start();
            let mut expected = vec!["tls-alpn-01"];
            let hiccups = [
                Scripted::Hangup,
                Scripted::Html(503, &[]),
                Scripted::Refuse("serverInternal", 500, &[]),
            ];
            for (endpoint, response) in ["challenge", "o", "challenge"].into_iter().zip(hiccups) {
                let before = fixture.served();
                fixture.sim.ca.once(endpoint, response);
                fixture.renew();
                assert_eq!(fixture.served(), before);
                fixture.renew();
                assert_ne!(fixture.served(), before, "{}", fixture.error());
                expected.extend(["tls-alpn-01"; 2]);
            }
            let mut asked = asked(&fixture, DOMAIN);
            // Nothing is left to prove in an order whose challenge was answered, and only its end
            // was missed.
            asked.dedup();
            expected.dedup();
            assert_eq!(asked, expected);
        },
    );
}
