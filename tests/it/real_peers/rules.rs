//! One table: each kind of access rule, and what each client is told where it meets it, in both
//! modes.

mod clients;

use std::fs;

use self::clients::{Buildah, Client, Ctr, Curl, Docker, Podman, Skopeo};
use super::clients::{Containerd, Tool};
use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::process::Output;

/// Behind those of [`RegistriesFixture::ruled`]. The deny is the one of the documentation, once for
/// where the clients are and once for where they are not.
const RULES: &str = r#"
[groups]
devs = ["dev"]

[[access]]
users = ["@devs"]
repositories = ["team/*"]
actions = ["pull", "push"]

[[access]]
users = ["@authenticated"]
repositories = ["shared/**"]
actions = ["pull", "list"]

[[access]]
users = ["ci-*"]
repositories = ["tools/*"]
actions = ["pull", "push"]

[[access]]
users = ["keeper"]
repositories = ["**"]
actions = ["all"]

[[access]]
deny = true
users = ["*"]
repositories = ["base/**"]
tags = ["release", "v*"]
actions = ["overwrite", "delete-tag"]
networks = ["127.0.0.0/8"]

[[access]]
deny = true
users = ["*"]
repositories = ["spare/**"]
tags = ["release", "v*"]
actions = ["overwrite", "delete-tag"]
networks = ["10.0.0.0/8"]

[[access]]
users = ["lister"]
repositories = ["base/**"]
actions = ["catalog"]

[[access]]
users = ["builder"]
repositories = ["lib/**"]
actions = ["mount-from"]

[[access]]
users = ["builder"]
repositories = ["built/**"]
actions = ["push"]
"#;

const USERS: [&str; 4] = ["keeper", "dev", "lister", "builder"];

/// What a client is asked to do. `NAME` stands for the client's own.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Pull(&'static str),
    /// One of the images `one` and `two`, to a repository and a tag.
    Push(&'static str, &'static str),
    /// The tags of a repository.
    List(&'static str),
    Catalog,
    /// What a tag stands for, by its digest.
    Delete(&'static str),
    DeleteTag(&'static str),
}

/// What comes of it.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Done,
    /// With words of the sentence, which clients show that show any.
    Denied(&'static str),
    /// The same by the deny that is about this network.
    DeniedByRule(&'static str),
    /// As if the repository did not exist.
    Hidden,
}

use Act::{Catalog, Delete, DeleteTag, List, Pull, Push};
use Answer::{Denied, DeniedByRule, Done, Hidden};

/// In this order: some begin where others have ended.
const ROWS: &[(&str, Act, Answer)] = &[
    // mount-from, without the right to pull.
    ("builder", Push("one", "built/NAME:v1"), Done),
    (
        "builder",
        Pull("lib/one:v1"),
        Denied("builder may not pull lib/one"),
    ),
    // A group.
    ("dev", Push("one", "team/NAME:v1"), Done),
    ("dev", Pull("team/NAME:v1"), Done),
    (
        "reader",
        Push("one", "team/NAME:v2"),
        Denied("reader may not push to team/NAME"),
    ),
    ("reader", Pull("team/NAME:v1"), Hidden),
    // A star in a name, and one level.
    ("ci-bot", Push("two", "tools/NAME:v1"), Done),
    ("ci-bot", Pull("tools/NAME:v1"), Done),
    (
        "ci-bot",
        Push("two", "tools/NAME/deep:v1"),
        Denied("ci-bot may not push to tools/NAME/deep"),
    ),
    (
        "dev",
        Push("two", "tools/NAME:v2"),
        Denied("dev may not push to tools/NAME"),
    ),
    // Everybody who is logged in.
    ("contractor", Pull("shared/app:v1"), Done),
    ("contractor", Pull("base/app:v1"), Hidden),
    // push without overwrite.
    ("ci-bot", Push("one", "base/NAME:v1"), Done),
    ("ci-bot", Push("one", "base/NAME:nightly"), Done),
    ("ci-bot", Push("one", "base/NAME:nightly"), Done),
    (
        "ci-bot",
        Push("two", "base/NAME:nightly"),
        Denied("ci-bot may not overwrite base/NAME:nightly"),
    ),
    // A deny of tags, from this network and from another one.
    (
        "keeper",
        Push("two", "base/NAME:v1"),
        DeniedByRule("keeper may not overwrite base/NAME:v1"),
    ),
    ("keeper", Push("two", "base/NAME:nightly"), Done),
    ("keeper", Push("one", "spare/NAME:v1"), Done),
    ("keeper", Push("two", "spare/NAME:v1"), Done),
    // The push inbox.
    ("contractor", Push("one", "contractor/NAME:release"), Done),
    ("contractor", Push("two", "contractor/NAME:release"), Done),
    (
        "contractor",
        Push("two", "contractor/NAME:v2"),
        Denied("contractor may not push contractor/NAME:v2"),
    ),
    // Lists.
    ("reader", List("base/app"), Done),
    ("contractor", List("base/app"), Hidden),
    ("lister", Catalog, Done),
    (
        "reader",
        Catalog,
        Denied("reader may not list the repositories"),
    ),
    // Deletes.
    (
        "keeper",
        DeleteTag("base/NAME:v1"),
        DeniedByRule("keeper may not delete base/NAME:v1"),
    ),
    ("keeper", DeleteTag("spare/NAME:v1"), Done),
    (
        "ci-bot",
        Delete("base/NAME:nightly"),
        Denied("ci-bot may not delete from base/NAME"),
    ),
    ("keeper", Delete("base/NAME:nightly"), Done),
];

impl RegistriesFixture {
    /// The rules of the table and their users, and what is there before the first row.
    fn tabled(self, auth: &str) -> Self {
        for user in USERS {
            self.htpasswd("-bB", &self.ci, &[user, "their password"]);
        }
        let fixture = self.ruled_by(auth, RULES);
        for (image, to) in [
            ("three", "base/app:v1"),
            ("three", "shared/app:v1"),
            ("one", "lib/one:v1"),
            ("two", "lib/two:v1"),
        ] {
            fixture
                .copied("keeper", &fixture.image_of(image), to)
                .succeeded();
        }
        fixture
    }

    fn named(&self, what: &str) -> String {
        format!("{}/{what}", self.ci.by_name())
    }

    /// The deny that is about this network, as the log names it.
    fn deny(&self) -> String {
        let text = fs::read_to_string(self.conf_d(&self.ci, "toml")).unwrap();
        let above = text.lines().position(|line| line == "deny = true").unwrap();
        format!(" rule=conf.d/docker-ci.test.toml:{above}")
    }
}

/// Plays all rows; each client that has a command for one is told what the table says.
fn play(fixture: &RegistriesFixture, client: &dyn Client) {
    for image in ["lib/one:v1", "lib/two:v1"] {
        client
            .act("keeper", Pull(image), image)
            .map(Output::succeeded);
    }
    for (user, act, answer) in ROWS {
        let what = what(*act).replace("NAME", client.name());
        let Some(output) = client.act(user, *act, &what) else {
            continue;
        };
        let row = format!("{}: {user} {act:?}\n{output:?}", client.name());
        let repository = what.rsplit_once(':').map_or(&*what, |(name, _)| name);
        let repository = format!(
            "repository={}",
            if repository.is_empty() {
                "-"
            } else {
                repository
            }
        );
        // It takes any answer for one.
        let is_curl = matches!(act, DeleteTag(_));
        assert_eq!(
            output.status.success(),
            is_curl || matches!(answer, Done),
            "{row}"
        );
        let refused = |message: &str, words: &str, status: &str, by: &str| {
            let is_shown = message.contains(words) || client.is_silent(message);
            assert!(is_shown, "{words:?} is not shown: {row}");
            let lines = fixture.logged(&[&format!("user={user}"), &repository, status]);
            assert!(
                lines
                    .iter()
                    .any(|line| line.ends_with(by) || line.contains(&format!("{by} "))),
                "{by:?} is not logged: {row}\n{lines:?}"
            );
        };
        let by = if matches!(answer, DeniedByRule(_)) {
            fixture.deny()
        } else {
            " rule=none".to_owned()
        };
        match answer {
            Done => assert!(!output.stdout.contains("DENIED"), "{row}"),
            Denied(words) | DeniedByRule(words) if is_curl => {
                refused(
                    &output.stdout,
                    &words.replace("NAME", client.name()),
                    "status=403",
                    &by,
                );
            }
            Denied(words) | DeniedByRule(words) => {
                let words = client.shown(*act, &words.replace("NAME", client.name()));
                refused(&output.failed(), &words, "status=403", &by);
            }
            Hidden => refused(&output.failed(), client.unknown(*act), "status=404", &by),
        }
    }
}

fn what(act: Act) -> &'static str {
    match act {
        Pull(what) | Push(_, what) | List(what) | Delete(what) | DeleteTag(what) => what,
        // Of the whole registry.
        Catalog => "",
    }
}

fn all_clients(fixture: &RegistriesFixture, tokens: bool) {
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let containerd = Containerd::start(&fixture.machine, &fixture.path().join("containerd"));
    let podman = Podman(fixture, Tool::podman(fixture));
    let clients: [&dyn Client; 6] = [
        &podman,
        &Buildah(fixture, Tool::buildah(fixture)),
        &Ctr(fixture, containerd),
        &Skopeo(fixture),
        &Curl { fixture, tokens },
        // The last: the others look into its file of logins, and do not touch one with a refresh
        // token.
        &Docker(fixture, engine),
    ];
    clients.iter().for_each(|client| play(fixture, *client));
    let listed = podman.act("lister", Catalog, "").unwrap().succeeded();
    assert!(
        listed.contains("/base/app") && !listed.contains("/lib/"),
        "what it may list: {listed}"
    );
    // The others look first whether the blob is there, for which they would have to have the right
    // to pull.
    for client in ["docker", "ctr"] {
        let mounts = |user: &str, into: &str| {
            let repository = format!("repository={into}/{client}");
            fixture.logged(&["call=upload.mount", &format!("user={user}"), &repository])
        };
        let [builder, dev] = [mounts("builder", "built"), mounts("dev", "team")];
        assert!(
            builder.iter().any(|line| line.contains(" status=201 ")),
            "{client}: {builder:?}"
        );
        assert!(
            dev.iter().all(|line| line.contains(" status=202 ")),
            "of what it may not read: {dev:?}"
        );
    }
}

#[test]
fn each_client_meets_each_row_in_basic_mode() {
    all_clients(&RegistriesFixture::new().tabled(""), false);
}

#[test]
fn each_client_meets_each_row_in_token_mode() {
    all_clients(
        &RegistriesFixture::of_stores().tabled("mode = \"token\""),
        true,
    );
}
