//! A Docker engine logs in, pushes and pulls. That certificates are verified is skopeo's to show:
//! Docker takes any from a registry whose name leads to 127.0.0.0/8.

use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::process::until;

impl RegistriesFixture {
    fn engine(&self) -> Engine<'_> {
        Engine::start(&self.machine, &self.path().join("engine"))
    }
}

#[test]
fn docker_pushes_and_pulls_by_name() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    let ci = &fixture.ci;
    engine
        .login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    let name = format!("{}/base/app:v1", ci.by_name());
    engine.import(&name);
    engine.push_and_pull(&name);
    let pushed = fixture.logged(&["call=manifest.write", "repository=base/app", "reference=v1"]);
    assert!(
        pushed[0].contains(" user=ci-bot domain=docker-ci.test "),
        "{pushed:?}"
    );
}

#[test]
fn docker_pushes_and_pulls_through_the_port_of_the_domain() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    for domain in [&fixture.ci, &fixture.cache] {
        engine
            .login(&domain.by_port(), domain.user, domain.password)
            .succeeded();
        let name = format!("{}/base/app:v1", domain.by_port());
        engine.import(&name);
        engine.push_and_pull(&name);
    }
    let pushed = fixture.logged(&["call=manifest.write", "user=cache-bot"]);
    assert!(
        pushed[0].contains(" domain=docker-cache.test "),
        "{pushed:?}"
    );
}

#[test]
fn docker_pushes_and_pulls_many_layers_and_tags() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    let cache = &fixture.cache;
    engine
        .login(&cache.by_name(), cache.user, cache.password)
        .succeeded();
    let name = format!("{}/release/many", cache.by_name());
    engine.build(&format!("{name}:v1"), 12);
    engine.push_and_pull(&format!("{name}:v1"));
    for tag in ["v2", "latest"] {
        engine
            .docker(&["tag", &format!("{name}:v1"), &format!("{name}:{tag}")])
            .succeeded();
    }
    engine.docker(&["push", "--all-tags", &name]).succeeded();
    let id = engine.image_id(&format!("{name}:v1"));
    engine
        .docker(&["image", "rm", "--force", id.trim()])
        .succeeded();
    engine.docker(&["pull", "--all-tags", &name]).succeeded();
    for tag in ["v1", "v2", "latest"] {
        assert_eq!(engine.image_id(&format!("{name}:{tag}")), id);
    }
}

#[test]
fn docker_is_told_why_it_is_refused() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    for authority in [ci.by_name(), ci.by_port()] {
        for (user, password) in [
            (ci.user, "wrong"),
            ("nobody", ci.password),
            (cache.user, cache.password),
        ] {
            let message = engine.login(&authority, user, password).failed();
            assert!(
                message.contains("/v2/ failed with status: 401 Unauthorized"),
                "{message}"
            );
        }
    }
    let log = fixture.moorgate.stdout();
    assert!(
        log.lines().all(|line| line.contains(" status=401 ")),
        "{log}"
    );
}

#[test]
fn docker_shows_that_it_has_no_login() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    // For a loopback address, a pull is repeated in plain HTTP, and only the last error is shown.
    for authority in [fixture.ci.by_name(), fixture.ci.by_port()] {
        let name = format!("{authority}/base/app:v1");
        engine.import(&name);
        for (command, shown) in [
            ("pull", "denied: log in first, with docker login"),
            ("push", "no basic auth credentials"),
        ] {
            let message = engine.docker(&[command, &name]).failed();
            assert!(message.contains(shown), "{command}: {message}");
        }
    }
}

#[test]
fn docker_shows_what_moorgate_says_when_the_kept_password_is_wrong_by_now() {
    let fixture = RegistriesFixture::new();
    let engine = fixture.engine();
    let ci = &fixture.ci;
    engine
        .login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    fixture.htpasswd("-bB", ci, &[ci.user, "another"]);
    until("the old password is wrong", || {
        fixture.login_status(&ci.by_name(), ci.user, ci.password) == "401"
    });
    let name = format!("{}/base/app:v1", ci.by_name());
    engine.import(&name);
    for command in ["push", "pull"] {
        let message = engine.docker(&[command, &name]).failed();
        assert!(
            message.contains("unauthorized: wrong user name or password"),
            "{command}: {message}"
        );
    }
}
