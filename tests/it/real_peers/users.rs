//! Who gets in, and who is told why not.

use super::fixture::{Domain, RegistriesFixture};
use super::process::{run, until};

impl RegistriesFixture {
    /// Waits until a login has this status: htpasswd files are looked at once a second.
    fn login_becomes(&self, domain: &Domain, user: &str, password: &str, status: &str) {
        until(&format!("{user} gets {status}"), || {
            self.login_status(&domain.by_name(), user, password) == status
        });
    }
}

#[test]
fn only_the_users_of_a_domain_get_into_it() {
    let fixture = RegistriesFixture::new();
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    for (domain, stranger) in [(ci, cache), (cache, ci)] {
        for authority in [domain.by_name(), domain.by_port()] {
            let status =
                |user: &str, password: &str| fixture.login_status(&authority, user, password);
            assert_eq!(status(domain.user, domain.password), "200", "{authority}");
            assert_eq!(status(domain.user, "wrong"), "401", "{authority}");
            assert_eq!(status(domain.user, stranger.password), "401", "{authority}");
            assert_eq!(status("nobody", domain.password), "401", "{authority}");
            assert_eq!(
                status(stranger.user, stranger.password),
                "401",
                "{authority}"
            );
        }
    }
}

#[test]
fn skopeo_is_told_that_the_password_is_wrong() {
    let fixture = RegistriesFixture::new();
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    for (user, password) in [
        (ci.user, "wrong"),
        ("nobody", ci.password),
        (cache.user, cache.password),
    ] {
        let message = fixture.skopeo_login(&ci.by_name(), user, password).failed();
        assert!(message.contains("invalid username/password"), "{message}");
    }
    fixture
        .skopeo_login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
}

#[test]
fn an_entry_that_htpasswd_adds_counts_without_a_restart() {
    let fixture = RegistriesFixture::new();
    assert_eq!(
        fixture.login_status(&fixture.ci.by_name(), "new-bot", "new password"),
        "401"
    );
    fixture.htpasswd("-bB", &fixture.ci, &["new-bot", "new password"]);
    fixture.login_becomes(&fixture.ci, "new-bot", "new password", "200");
    assert_eq!(
        fixture.login_status(&fixture.ci.by_name(), fixture.ci.user, fixture.ci.password),
        "200"
    );
    assert_eq!(
        fixture.login_status(&fixture.cache.by_name(), "new-bot", "new password"),
        "401"
    );
}

#[test]
fn a_changed_password_is_the_only_one_that_counts() {
    let fixture = RegistriesFixture::new();
    let ci = &fixture.ci;
    // Remembered by now: the next line must make it forgotten.
    assert_eq!(
        fixture.login_status(&ci.by_name(), ci.user, ci.password),
        "200"
    );
    fixture.htpasswd("-bB", ci, &[ci.user, "another"]);
    fixture.login_becomes(ci, ci.user, "another", "200");
    assert_eq!(
        fixture.login_status(&ci.by_name(), ci.user, ci.password),
        "401"
    );
}

#[test]
fn a_deleted_user_is_out_without_a_restart() {
    let fixture = RegistriesFixture::new();
    fixture.htpasswd("-bB", &fixture.ci, &["leaver", "password"]);
    fixture.login_becomes(&fixture.ci, "leaver", "password", "200");
    fixture.htpasswd("-D", &fixture.ci, &["leaver"]);
    fixture.login_becomes(&fixture.ci, "leaver", "password", "401");
}

#[test]
fn a_deleted_htpasswd_file_keeps_its_users_and_is_reported() {
    let mut fixture = RegistriesFixture::new();
    std::fs::remove_file(fixture.conf_d(&fixture.ci, "htpasswd")).unwrap();
    let log = fixture.path().join("logs/moorgate.err");
    let reported = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("the previous users stay")
    };
    fixture
        .moorgate
        .becomes("aware of the missing file", reported);
    assert_eq!(
        fixture.login_status(&fixture.ci.by_name(), fixture.ci.user, fixture.ci.password),
        "200"
    );
    assert_eq!(
        fixture.login_status(&fixture.ci.by_name(), fixture.ci.user, "wrong"),
        "401"
    );
}

#[test]
fn the_catalog_is_for_users_only() {
    let fixture = RegistriesFixture::new();
    let ci = &fixture.ci;
    let url = format!("https://{}/v2/_catalog", ci.by_name());
    let stranger = run(fixture.curl().arg(&url), "").succeeded();
    assert!(stranger.contains("UNAUTHORIZED"), "{stranger}");
    let user = format!("{}:{}", ci.user, ci.password);
    let listed = run(fixture.curl().args(["--user", &user]).arg(&url), "").succeeded();
    assert_eq!(listed.trim(), r#"{"repositories":[]}"#);
}

#[test]
fn no_password_is_in_any_log() {
    let fixture = RegistriesFixture::new();
    let ci = &fixture.ci;
    fixture
        .skopeo_login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    fixture
        .skopeo_login(&ci.by_name(), ci.user, "a wrong password")
        .failed();
    fixture.logged(&["status=401", "call=ping"]);
    fixture.logged(&["status=200", "user=ci-bot"]);
    let entry = std::fs::read_to_string(fixture.conf_d(ci, "htpasswd")).unwrap();
    let hash = entry.trim().split_once(':').unwrap().1;
    let basic = crate::harness::basic(ci.user, ci.password);
    let basic = basic.strip_prefix("Basic ").unwrap();
    for log in [fixture.moorgate.stdout(), fixture.moorgate.stderr()] {
        for secret in [ci.password, "a wrong password", hash, basic] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}
