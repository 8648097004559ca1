//! Token mode as real clients meet it: pulls without a login, pushes after one, and what they keep
//! of it.

use std::fs;

use super::access::{containerd, podman_or_buildah, refused};
use super::clients::Tool;
use super::engine::Engine;
use super::fixture::RegistriesFixture;

impl RegistriesFixture {
    fn with_tokens(self) -> Self {
        self.ruled_with("mode = \"token\"\nrealm = \"CI\"")
    }
}

fn docker(fixture: &RegistriesFixture) {
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let authority = fixture.ci.by_name();
    let name = |what: &str| format!("{authority}/{what}");
    let login = |user: &str| {
        engine
            .login(&authority, user, fixture.password(user))
            .succeeded()
    };
    let image = fixture.image_of("one");
    fixture
        .copied("ci-bot", &image, "public/app:v1")
        .succeeded();
    fixture.copied("ci-bot", &image, "base/app:v1").succeeded();

    // What basic mode cannot: without a login it pulls, and after one it pushes.
    engine.docker(&["pull", &name("public/app:v1")]).succeeded();
    fixture.logged(&["user=-", "call=token", "status=200"]);
    refused(
        &engine.docker(&["pull", &name("base/app:v1")]).failed(),
        "log in to use this registry",
    );
    engine
        .docker(&["tag", &name("public/app:v1"), &name("public/app:mine")])
        .succeeded();
    refused(
        &engine.docker(&["push", &name("public/app:mine")]).failed(),
        "log in to use this registry",
    );
    let message = engine.login(&authority, "ci-bot", "not it").failed();
    refused(&message, "wrong user name or password");

    login("ci-bot");
    for what in ["base/app:v2", "public/app:v2"] {
        engine.import(&name(what));
        engine.push_and_pull(&name(what));
    }
    // Blobs that are there in a repository that it may read are mounted.
    engine
        .docker(&["tag", &name("base/app:v2"), &name("base/other:v2")])
        .succeeded();
    engine.docker(&["push", &name("base/other:v2")]).succeeded();
    fixture.logged(&["call=upload.mount", "repository=base/other", "status=201"]);
    engine
        .docker(&["tag", &name("public/app:v2"), &name("base/app:v1")])
        .succeeded();
    let message = engine.docker(&["push", &name("base/app:v1")]).failed();
    refused(&message, "denied: ci-bot may not overwrite base/app:v1");

    login("reader");
    engine.docker(&["pull", &name("base/app:v2")]).succeeded();
    engine
        .docker(&["tag", &name("base/app:v2"), &name("base/app:mine")])
        .succeeded();
    refused(
        &engine.docker(&["push", &name("base/app:mine")]).failed(),
        "reader may not push",
    );

    login("contractor");
    engine
        .docker(&[
            "tag",
            &name("base/app:v2"),
            &name("contractor/site:release"),
        ])
        .succeeded();
    engine
        .docker(&["push", &name("contractor/site:release")])
        .succeeded();
    refused(
        &engine.docker(&["pull", &name("base/app:v2")]).failed(),
        "not found",
    );

    engine.docker(&["logout", &authority]).succeeded();
    engine.docker(&["pull", &name("public/app:v2")]).succeeded();
}

#[test]
fn docker_pulls_without_a_login_and_pushes_after_one() {
    docker(&RegistriesFixture::new().with_tokens());
}

#[test]
fn docker_does_so_at_a_store_too() {
    docker(&RegistriesFixture::of_stores().with_tokens());
}

#[test]
fn docker_keeps_a_refresh_token_that_can_be_taken_back() {
    let fixture = RegistriesFixture::of_stores().with_tokens();
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let authority = fixture.ci.by_name();
    let name = format!("{authority}/base/app:v1");
    engine
        .login(&authority, "ci-bot", fixture.password("ci-bot"))
        .succeeded();
    let kept = fs::read_to_string(fixture.machine.home().join(".docker/config.json")).unwrap();
    assert!(kept.contains("identitytoken"), "{kept}");
    engine.import(&name);
    engine.docker(&["push", &name]).succeeded();
    let listed = fixture.cli(&["tokens", "list"]).succeeded();
    assert!(
        listed.contains("  ci-bot  docker-ci.test  docker  made "),
        "{listed}"
    );
    let revoked = fixture.cli(&["tokens", "revoke", "--user", "ci-bot"]);
    let said = &revoked.stderr;
    assert!(said.starts_with("process "), "{said}");
    assert!(said.ends_with(": 1 refresh token revoked\n"), "{said}");
    engine
        .docker(&["tag", &name, &format!("{authority}/base/app:v2")])
        .succeeded();
    engine
        .docker(&["push", &format!("{authority}/base/app:v2")])
        .failed();
    engine
        .login(&authority, "ci-bot", fixture.password("ci-bot"))
        .succeeded();
    engine
        .docker(&["push", &format!("{authority}/base/app:v2")])
        .succeeded();
    // Whatever was written down, no token was.
    let said = fixture.moorgate.stdout() + &fixture.moorgate.stderr();
    assert!(
        !said.contains("moorgate_") && !said.contains("eyJ"),
        "{said}"
    );
}

#[test]
fn docker_keeps_a_password_that_others_can_use_where_there_are_no_refresh_tokens() {
    let fixture = RegistriesFixture::of_stores()
        .ruled_with("mode = \"token\"\nrefresh_tokens = false\nrealm = \"CI\"");
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let authority = fixture.ci.by_name();
    let name = format!("{authority}/base/app:v1");
    engine
        .login(&authority, "ci-bot", fixture.password("ci-bot"))
        .succeeded();
    let file = fixture.machine.home().join(".docker/config.json");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let entry = &kept["auths"][authority.as_str()];
    let sent = crate::harness::basic("ci-bot", fixture.password("ci-bot"));
    let pair = sent.strip_prefix("Basic ").unwrap();
    assert_eq!(*entry, serde_json::json!({ "auth": pair }));
    engine.import(&name);
    engine.push_and_pull(&name);
    // As a pull secret: a client that reads nothing but user and password.
    let file = file.to_str().unwrap();
    fixture
        .skopeo(&["inspect", "--authfile", file, &format!("docker://{name}")])
        .succeeded();
}

#[test]
fn containerd_pulls_without_a_login_and_pushes_with_one() {
    containerd(&RegistriesFixture::new().with_tokens());
}

#[test]
fn podman_pulls_without_a_login_and_pushes_after_one() {
    let fixture = RegistriesFixture::new().with_tokens();
    podman_or_buildah(&fixture, &Tool::podman(&fixture));
}

#[test]
fn buildah_pulls_without_a_login_and_pushes_after_one() {
    let fixture = RegistriesFixture::of_stores().with_tokens();
    podman_or_buildah(&fixture, &Tool::buildah(&fixture));
}

#[test]
fn skopeo_reads_copies_and_deletes() {
    let fixture = RegistriesFixture::new().with_tokens();
    let [one, two] = ["one", "two"].map(|word| fixture.image_of(word));
    fixture.copied("ci-bot", &one, "base/app:v1").succeeded();
    refused(
        &fixture.copied("ci-bot", &two, "base/app:v1").failed(),
        "ci-bot may not overwrite base/app:v1",
    );
    fixture.copied("ci-bot", &one, "public/app:v1").succeeded();
    let remote = |what: &str| format!("docker://{}/{what}", fixture.ci.by_name());
    fixture
        .skopeo(&["inspect", &remote("public/app:v1")])
        .succeeded();
    refused(
        &fixture
            .skopeo(&["inspect", &remote("base/app:v1")])
            .failed(),
        "log in to use this registry",
    );
    fixture.inspected("reader", "base/app:v1").succeeded();
    refused(
        &fixture.copied("reader", &two, "base/app:v3").failed(),
        "denied",
    );
    refused(
        &fixture
            .inspected("reader", "contractor/site:release")
            .failed(),
        "unknown",
    );
    for image in [&one, &two] {
        fixture
            .copied("contractor", image, "contractor/site:release")
            .succeeded();
    }
    let message = fixture
        .copied("contractor", &one, "contractor/site:latest")
        .failed();
    refused(
        &message,
        "but may: push and overwrite contractor/** (tag release)",
    );
    // From one repository to another, with a token for both.
    let credentials = format!("ci-bot:{}", fixture.password("ci-bot"));
    let copy = [
        "copy",
        "--src-creds",
        &credentials,
        "--dest-creds",
        &credentials,
    ];
    fixture
        .skopeo(
            &[
                &copy[..],
                &[&remote("base/app:v1"), &remote("public/copy:v1")],
            ]
            .concat(),
        )
        .succeeded();
    let delete = |what: &str| fixture.skopeo(&["delete", "--creds", &credentials, &remote(what)]);
    delete("public/copy:v1").succeeded();
    refused(
        &delete("base/app:v1").failed(),
        "ci-bot may not delete from base/app",
    );
    let listed = fixture
        .skopeo(&["list-tags", "--creds", &credentials, &remote("base/app")])
        .succeeded();
    assert!(listed.contains("v1"), "{listed}");
}
