//! What the log says when a certificate is not renewed: louder, the nearer its end, which it
//! outlives.

use super::fixture::{DAY, log, sandboxed};
use crate::harness::acme_ca::Scripted;

#[test]
fn an_unrenewed_certificate_is_logged_at_rising_levels() {
    sandboxed(
        "warnings::an_unrenewed_certificate_is_logged_at_rising_levels",
        |mut fixture| {
            fixture.start();
            let before = fixture.served();
            fixture.sim.ca.always("directory", Scripted::Hangup);
            fixture.advance(100 * DAY);
            let said = log();
            let mut said: Vec<String> = said
                .lines()
                .filter(|line| {
                    line.contains("certificate not renewed") || line.contains("has expired and")
                })
                .map(|line| line.trim().split(" domain=").next().unwrap().to_owned())
                .collect();
            // The last one each day.
            said.dedup();
            insta::assert_snapshot!(said.join("\n"), @r"
        WARN certificate not renewed, less than a fifth of its lifetime left
        WARN certificate not renewed, less than a tenth of its lifetime left
        ERROR certificate not renewed, less than a twentieth of its lifetime left
        ERROR certificate has expired and is served nevertheless
        ");
            let whole = log();
            let loudest = whole
                .lines()
                .find(|line| line.contains("has expired and"))
                .unwrap();
            assert!(
                loudest.contains("error=\"Let's Encrypt")
                    || loudest.contains("no valid response from"),
                "{loudest}"
            );
            assert_eq!(
                fixture.served(),
                before,
                "it is served to its last minute, and past it"
            );
            fixture.sim.ca.recovers();
            fixture.advance(2 * DAY);
            assert_ne!(fixture.served(), before, "{}", fixture.error());
            assert_eq!(fixture.error(), "");
        },
    );
}
