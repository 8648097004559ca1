//! Who gets in, and who is told why not.

use super::process::{run, until};
use super::stage::{Domain, RegistriesFixture};

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
    let stage = RegistriesFixture::new();
    let (ci, cache) = (&stage.ci, &stage.cache);
    for (domain, stranger) in [(ci, cache), (cache, ci)] {
        for authority in [domain.by_name(), domain.by_port()] {
            let status =
                |user: &str, password: &str| stage.login_status(&authority, user, password);
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
    let stage = RegistriesFixture::new();
    let (ci, cache) = (&stage.ci, &stage.cache);
    for (user, password) in [
        (ci.user, "wrong"),
        ("nobody", ci.password),
        (cache.user, cache.password),
    ] {
        let message = stage.skopeo_login(&ci.by_name(), user, password).failed();
        assert!(message.contains("invalid username/password"), "{message}");
    }
    stage
        .skopeo_login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
}

#[test]
fn an_entry_that_htpasswd_adds_counts_without_a_restart() {
    let stage = RegistriesFixture::new();
    assert_eq!(
        stage.login_status(&stage.ci.by_name(), "new-bot", "new password"),
        "401"
    );
    stage.htpasswd("-bB", &stage.ci, &["new-bot", "new password"]);
    stage.login_becomes(&stage.ci, "new-bot", "new password", "200");
    assert_eq!(
        stage.login_status(&stage.ci.by_name(), stage.ci.user, stage.ci.password),
        "200"
    );
    assert_eq!(
        stage.login_status(&stage.cache.by_name(), "new-bot", "new password"),
        "401"
    );
}

#[test]
fn a_changed_password_is_the_only_one_that_counts() {
    let stage = RegistriesFixture::new();
    let ci = &stage.ci;
    // Remembered by now: the next line must make it forgotten.
    assert_eq!(
        stage.login_status(&ci.by_name(), ci.user, ci.password),
        "200"
    );
    stage.htpasswd("-bB", ci, &[ci.user, "another"]);
    stage.login_becomes(ci, ci.user, "another", "200");
    assert_eq!(
        stage.login_status(&ci.by_name(), ci.user, ci.password),
        "401"
    );
}

#[test]
fn a_deleted_user_is_out_without_a_restart() {
    let stage = RegistriesFixture::new();
    stage.htpasswd("-bB", &stage.ci, &["leaver", "password"]);
    stage.login_becomes(&stage.ci, "leaver", "password", "200");
    stage.htpasswd("-D", &stage.ci, &["leaver"]);
    stage.login_becomes(&stage.ci, "leaver", "password", "401");
}

#[test]
fn a_deleted_htpasswd_file_keeps_its_users_and_is_reported() {
    let mut stage = RegistriesFixture::new();
    std::fs::remove_file(stage.conf_d(&stage.ci, "htpasswd")).unwrap();
    let log = stage.path().join("logs/moorgate.err");
    let reported = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("the previous users stay")
    };
    stage
        .moorgate
        .becomes("aware of the missing file", reported);
    assert_eq!(
        stage.login_status(&stage.ci.by_name(), stage.ci.user, stage.ci.password),
        "200"
    );
    assert_eq!(
        stage.login_status(&stage.ci.by_name(), stage.ci.user, "wrong"),
        "401"
    );
}

#[test]
fn the_catalog_is_for_users_only() {
    let stage = RegistriesFixture::new();
    let ci = &stage.ci;
    let url = format!("https://{}/v2/_catalog", ci.by_name());
    let stranger = run(stage.curl().arg(&url), "").succeeded();
    assert!(stranger.contains("UNAUTHORIZED"), "{stranger}");
    let user = format!("{}:{}", ci.user, ci.password);
    let listed = run(stage.curl().args(["--user", &user]).arg(&url), "").succeeded();
    assert_eq!(listed.trim(), r#"{"repositories":[]}"#);
}

#[test]
fn no_password_is_in_any_log() {
    let stage = RegistriesFixture::new();
    let ci = &stage.ci;
    stage
        .skopeo_login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    stage
        .skopeo_login(&ci.by_name(), ci.user, "a wrong password")
        .failed();
    stage.logged(&["status=401", "call=ping"]);
    stage.logged(&["status=200", "user=ci-bot"]);
    let entry = std::fs::read_to_string(stage.conf_d(ci, "htpasswd")).unwrap();
    let hash = entry.trim().split_once(':').unwrap().1;
    let basic = crate::harness::basic(ci.user, ci.password);
    let basic = basic.strip_prefix("Basic ").unwrap();
    for log in [stage.moorgate.stdout(), stage.moorgate.stderr()] {
        for secret in [ci.password, "a wrong password", hash, basic] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}
