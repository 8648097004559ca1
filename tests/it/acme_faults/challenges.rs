//! The challenge that works is remembered for each domain, and tried first from then on.

use super::stage::{DOMAIN, MINUTE, Stage, with};
use crate::harness::acme_ca::Scripted;

const OTHER: &str = "classic2.example.com";

/// By which challenges the names were proved, or were to be.
fn asked(stage: &Stage, name: &str) -> Vec<String> {
    let asked = stage
        .world
        .ca
        .asked("challenge")
        .into_iter()
        .filter(|one| one["name"] == name);
    asked
        .map(|one| one["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_one_that_works_is_remembered_for_each_domain_across_a_restart() {
    let domains = [
        ("classic", &[DOMAIN][..]),
        ("classic", &[OTHER, "classic2.example.org"][..]),
    ];
    let test = "challenges::the_one_that_works_is_remembered_for_each_domain_across_a_restart";
    with(
        test,
        &domains,
        "[\"tls-alpn-01\", \"http-01\"]",
        |mut stage| {
            // Nobody can be asked on port 443 of one domain.
            stage.world.ca.decides(Box::new(|asked| {
                let (kind, name) = asked.challenge.as_ref()?;
                (kind == "tls-alpn-01" && name == DOMAIN).then_some(Scripted::Unmet)
            }));
            stage.start();
            stage.pass(5 * MINUTE);
            assert_eq!(asked(&stage, DOMAIN), ["tls-alpn-01", "http-01"]);
            assert_eq!(asked(&stage, OTHER), ["tls-alpn-01"]);
            let before = stage.served();
            stage.restart();
            for domain in [DOMAIN, OTHER] {
                stage.process().renew(domain);
            }
            stage.process().work();
            assert_ne!(stage.served(), before);
            assert_eq!(asked(&stage, DOMAIN), ["tls-alpn-01", "http-01", "http-01"]);
            assert_eq!(asked(&stage, OTHER), ["tls-alpn-01", "tls-alpn-01"]);
        },
    );
}

#[test]
fn one_that_works_stays_the_first_when_the_ca_itself_is_out_of_order() {
    let test = "challenges::one_that_works_stays_the_first_when_the_ca_itself_is_out_of_order";
    with(
        test,
        &[("classic", &[DOMAIN])],
        "[\"tls-alpn-01\", \"http-01\"]",
        |mut stage| {
            stage.start();
            let mut expected = vec!["tls-alpn-01"];
            let hiccups = [
                Scripted::Hangup,
                Scripted::Html(503, &[]),
                Scripted::Refuse("serverInternal", 500, &[]),
            ];
            for (endpoint, told) in ["challenge", "o", "challenge"].into_iter().zip(hiccups) {
                let before = stage.served();
                stage.world.ca.once(endpoint, told);
                stage.renew();
                assert_eq!(stage.served(), before);
                stage.renew();
                assert_ne!(stage.served(), before, "{}", stage.error());
                expected.extend(["tls-alpn-01"; 2]);
            }
            let mut asked = asked(&stage, DOMAIN);
            // Nothing is left to prove in an order whose challenge was answered, and only its end
            // was missed.
            asked.dedup();
            expected.dedup();
            assert_eq!(asked, expected);
        },
    );
}
