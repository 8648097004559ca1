//! The challenge that works is remembered for each domain, and tried first from then on.

use super::stage::{DOMAIN, MINUTE, with};
use crate::harness::acme_ca::Told;

const OTHER: &str = "classic2.example.com";

#[test]
fn the_one_that_works_is_remembered_for_each_domain_across_a_restart() {
    let domains = [("classic", &[DOMAIN][..]), ("classic", &[OTHER, "classic2.example.org"][..])];
    let test = "challenges::the_one_that_works_is_remembered_for_each_domain_across_a_restart";
    with(test, &domains, "[\"tls-alpn-01\", \"http-01\"]", |mut stage| {
        // Nobody can be asked on port 443 of one domain.
        stage.world.ca.decides(Box::new(|asked| {
            let (kind, name) = asked.challenge.as_ref()?;
            (kind == "tls-alpn-01" && name == DOMAIN).then_some(Told::Unmet)
        }));
        stage.start();
        stage.pass(5 * MINUTE);
        let asked = |stage: &super::stage::Stage, name: &str| {
            let asked = stage.world.ca.asked("challenge").into_iter();
            let asked =
                asked.filter(|one| one["name"] == name).map(|one| one["type"].as_str().unwrap().to_owned());
            asked.collect::<Vec<_>>()
        };
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
    });
}
