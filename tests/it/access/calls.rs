//! Every call under every right: what one action alone allows, and what is left without it.

use moorgate::internal::registry::Action::{
    Catalog, DeleteManifest, DeleteTag, List, MountFrom, Overwrite, Pull, Push,
};
use moorgate::internal::registry::{Action, Actions};

use super::fixture::{AccessFixture, INBOX, KINDS, Kind, Login, allow};
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST, sha256};

/// What one user may do in `base/**`.
#[derive(Clone, Copy, Debug, Default)]
struct Rights {
    allowed: Actions,
    denied: Actions,
}

impl Rights {
    fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        Self {
            allowed: actions.into_iter().collect(),
            denied: Actions::default(),
        }
    }

    fn without(self, action: Action) -> Self {
        Self {
            denied: self.denied.and(action.into()),
            ..self
        }
    }

    fn has(&self, action: Action) -> bool {
        self.allowed.has(action) && !self.denied.has(action)
    }

    /// A push checks for existing content first, unless the user may not read.
    fn may_look(&self) -> bool {
        self.has(Pull) || self.has(Push) && !self.denied.has(Pull)
    }

    /// Either right is enough, and a deny of either is enough against it.
    fn may_mount(&self) -> bool {
        let either = |actions: Actions| actions.has(Pull) || actions.has(MountFrom);
        either(self.allowed) && !either(self.denied)
    }
}

/// A call in `base/app`, and what it is answered under these rights.
struct Case {
    name: &'static str,
    method: &'static str,
    target: String,
    body: Vec<u8>,
    status: fn(&Rights) -> u16,
}

fn when(allowed: bool, status: u16) -> u16 {
    if allowed { status } else { 403 }
}

fn case(
    name: &'static str,
    method: &'static str,
    target: &str,
    status: fn(&Rights) -> u16,
) -> Case {
    Case {
        name,
        method,
        target: format!("/v2/base/app/{target}"),
        body: Vec::new(),
        status,
    }
}

/// The calls in the order in which they are made. Nothing that one of them needs is gone before it.
fn cases(image: &Image, other: &Image, [session, unwanted]: &[String; 2]) -> Vec<Case> {
    let (digest, blob) = (image.digest(), sha256(&image.layers[0]));
    let with = |body: &[u8], case: Case| Case {
        body: body.to_vec(),
        ..case
    };
    let at = |target: String, case: Case| Case { target, ..case };
    let commit = format!("{session}?digest={}", sha256(b"0123456789"));
    let tags = format!("manifests/{}?tag=also&tag=v1", other.digest());
    let mount = format!("blobs/uploads/?mount={blob}&from=base/other");
    let whole = format!("blobs/uploads/?digest={}", sha256(b"whole"));
    let [new, same] = [&image.manifest; 2];
    vec![
        case("manifest by tag", "GET", "manifests/v1", |r| {
            when(r.has(Pull), 200)
        }),
        case("its head", "HEAD", "manifests/v1", |r| {
            when(r.may_look(), 200)
        }),
        case(
            "manifest by digest",
            "GET",
            &format!("manifests/{digest}"),
            |r| when(r.has(Pull), 200),
        ),
        case("its head", "HEAD", &format!("manifests/{digest}"), |r| {
            when(r.may_look(), 200)
        }),
        case("blob", "GET", &format!("blobs/{blob}"), |r| {
            when(r.has(Pull), 200)
        }),
        case("its head", "HEAD", &format!("blobs/{blob}"), |r| {
            when(r.may_look(), 200)
        }),
        case("referrers", "GET", &format!("referrers/{digest}"), |r| {
            when(r.has(Pull), 200)
        }),
        case("tags", "GET", "tags/list", |r| when(r.has(List), 200)),
        at(
            session.clone(),
            case("status", "GET", "", |r| when(r.has(Push), 204)),
        ),
        at(
            session.clone(),
            case("status", "HEAD", "", |r| when(r.has(Push), 204)),
        ),
        with(
            b"0123456789",
            at(
                session.clone(),
                case("chunk", "PATCH", "", |r| when(r.has(Push), 202)),
            ),
        ),
        at(
            commit,
            case("commit", "PUT", "", |r| when(r.has(Push), 201)),
        ),
        at(
            unwanted.clone(),
            case("cancel", "DELETE", "", |r| when(r.has(Push), 204)),
        ),
        case("upload", "POST", "blobs/uploads/", |r| {
            when(r.has(Push), 202)
        }),
        with(
            b"whole",
            case("upload at once", "POST", &whole, |r| when(r.has(Push), 201)),
        ),
        case("mount", "POST", &mount, |r| {
            when(r.has(Push), if r.may_mount() { 201 } else { 202 })
        }),
        with(
            new,
            case("new tag", "PUT", "manifests/new", |r| {
                when(r.has(Push), 201)
            }),
        ),
        with(
            same,
            case("same again", "PUT", "manifests/v1", |r| {
                when(r.has(Push) || r.has(Overwrite), 201)
            }),
        ),
        with(
            &other.manifest,
            case(
                "by digest",
                "PUT",
                &format!("manifests/{}", other.digest()),
                |r| when(r.has(Push), 201),
            ),
        ),
        with(
            &other.manifest,
            case("more tags", "PUT", &tags, |r| {
                when(r.has(Push) && r.has(Overwrite), 201)
            }),
        ),
        with(
            &other.manifest,
            case("moved tag", "PUT", "manifests/moved", |r| {
                when(r.has(Overwrite), 201)
            }),
        ),
        case("tag away", "DELETE", "manifests/away", |r| {
            when(r.has(DeleteTag), 202)
        }),
        case(
            "blob away",
            "DELETE",
            &format!("blobs/{}", sha256(b"alone")),
            |r| when(r.has(DeleteManifest), 202),
        ),
        case(
            "manifest away",
            "DELETE",
            &format!("manifests/{}", other.digest()),
            |r| when(r.has(DeleteManifest), 202),
        ),
    ]
}

async fn made(client: &mut Client, case: &Case) -> Answer {
    let kind: &[(&str, &str)] = if case.target.contains("/manifests/") {
        &[("content-type", MANIFEST)]
    } else {
        &[]
    };
    client
        .ask_with(case.method, &case.target, kind, case.body.clone())
        .await
}

const BASE: [&str; 2] = ["base/app", "base/other"];

/// Makes what the calls are about, as root, but for the sessions, which are alice's own.
async fn staged(fixture: &AccessFixture, login: Login, seed: u64) -> Vec<Case> {
    fixture.rules(&allow("base/**", "'push'")).await;
    let mut root = fixture.login(login, "root", &BASE).await;
    let (image, other) = (Image::small(2 * seed), Image::small(2 * seed + 1));
    root.push("base/other", "v1", &image).await;
    root.push("base/app", "v1", &image).await;
    root.push("base/app", "other", &other).await;
    for tag in ["moved", "away"] {
        root.push_manifest("base/app", tag, &image.manifest)
            .await
            .is(201);
    }
    for tag in ["new", "also"] {
        let target = format!("/v2/base/app/manifests/{tag}");
        let gone = root.ask("DELETE", &target).await;
        assert!([202, 404].contains(&gone.status), "{gone:?}");
    }
    root.push_manifest("base/app", "v1", &image.manifest)
        .await
        .is(201);
    root.push_blob("base/app", b"alone").await;
    let mut alice = fixture.login(login, "alice", &BASE).await;
    let sessions = [alice.start("base/app").await, alice.start("base/app").await];
    cases(&image, &other, &sessions)
}

/// Makes every call as alice under these rules, and compares with the rights they give.
async fn tried((fixture, login): (&AccessFixture, Login), rules: &str, rights: Rights, seed: u64) {
    let cases = staged(fixture, login, seed).await;
    fixture.rules(rules).await;
    let mut alice = fixture.login(login, "alice", &BASE).await;
    for case in &cases {
        let Case {
            name,
            method,
            target,
            status,
            ..
        } = case;
        let (answer, expected) = (made(&mut alice, case).await, status(&rights));
        let context =
            format!("{login:?} {rights:?}: {name}: {method} {target}: {answer:?}\n{rules}");
        assert_eq!(answer.status, expected, "{context}");
        if expected == 403 && *method != "HEAD" {
            assert!(
                answer.refused(403, "DENIED").starts_with("alice may not "),
                "{context}"
            );
        }
    }
    let catalog = alice.get("/v2/_catalog").await;
    if rights.allowed.has(Catalog) {
        let seen: &[&str] = if rights.has(Catalog) { &BASE } else { &[] };
        assert_eq!(
            catalog.is(200).json()["repositories"],
            serde_json::json!(seen),
            "{rules}"
        );
    } else {
        catalog.refused(403, "DENIED");
    }
    alice.get("/v2/").await.is(200);
}

/// A fixture of every kind with passwords, and of two with tokens. Of groups, alice is in `devs`
/// alone.
async fn columns() -> Vec<(AccessFixture, Login)> {
    let mut all = Vec::new();
    let passwords = KINDS.map(|kind| (kind, Login::Password));
    for (kind, login) in passwords
        .into_iter()
        .chain([Kind::Store, Kind::UpstreamHttp2].map(|kind| (kind, Login::Token)))
    {
        let mode = if login == Login::Token {
            "mode = 'token'\n"
        } else {
            ""
        };
        let auth = format!("{mode}[groups]\ndevs = ['alice', 'carol']\nops = ['bob', 'root']");
        all.push((
            AccessFixture::with(kind, "", move |domain| domain.auth(&auth)).await,
            login,
        ));
    }
    all
}

#[tokio::test]
async fn one_action_allows_its_own_calls_alone() {
    for (fixture, login) in columns().await {
        let alone = Action::ALL.map(|action| vec![action]);
        let mounts = [
            vec![Push, MountFrom],
            vec![Push, Pull],
            Action::ALL.to_vec(),
        ];
        for (seed, actions) in (0..).zip(alone.into_iter().chain(mounts)) {
            let words: Vec<_> = actions.iter().map(|action| format!("'{action}'")).collect();
            tried(
                (&fixture, login),
                &allow("base/**", &words.join(", ")),
                Rights::of(actions),
                seed,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_deny_denies_its_own_calls_alone() {
    for (fixture, login) in columns().await {
        for (seed, action) in (0..).zip(Action::ALL) {
            let deny = format!(
                "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['base/*']\nactions = ['{action}']\n\
                 networks = ['127.0.0.0/8']\n"
            );
            let rules = format!("{}{deny}", allow("base/**", "'all'"));
            tried(
                (&fixture, login),
                &rules,
                Rights::of(Action::ALL).without(action),
                seed,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_rule_counts_for_its_users_and_networks() {
    let here = "networks = ['127.0.0.0/8', '10.0.0.0/8']\n";
    let elsewhere = "networks = ['10.0.0.0/8', '::1/128']\n";
    let users = [
        ("'alice'", "", true),
        ("'al*e'", here, true),
        ("'*'", "", true),
        ("'@authenticated'", "", true),
        ("'@devs'", "", true),
        ("'bob', '@devs'", here, true),
        ("'@ops'", "", false),
        ("'bob'", "", false),
        ("'alic'", "", false),
        ("'alice'", elsewhere, false),
        ("'@devs'", elsewhere, false),
        // What those may do who are not logged in, all may; what they may not, only they may not.
        ("'@anonymous'", "", true),
    ];
    for (fixture, login) in columns()
        .await
        .into_iter()
        .filter(|(fixture, _)| fixture.kind() == Kind::Store)
    {
        for (seed, (users, networks, counts)) in (0..).zip(users) {
            let rule = |deny: bool| {
                format!(
                    "[[access]]\ndeny = {deny}\nusers = [{users}]\nrepositories = ['base/**']\n\
                     actions = ['pull']\n{networks}"
                )
            };
            let rights = Rights::of(if counts { vec![Push, Pull] } else { vec![Push] });
            let rules = format!("{}{}", allow("base/**", "'push'"), rule(false));
            tried((&fixture, login), &rules, rights, 2 * seed).await;
            let all = Rights::of(Action::ALL);
            let denied = counts && users != "'@anonymous'";
            let rules = format!("{}{}", allow("base/**", "'all'"), rule(true));
            tried(
                (&fixture, login),
                &rules,
                if denied { all.without(Pull) } else { all },
                2 * seed + 1,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_rule_of_tags_is_applied_to_all_tags_that_a_delete_removes() {
    let deny = |action: &str| {
        let all = allow("base/**", "'all'");
        format!(
            "{all}{}tags = ['v*']\n",
            allow("base/**", action).replace("users", "deny = true\nusers")
        )
    };
    let only = |action: &str| format!("{}tags = ['v*']\n", allow("base/**", action));
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, "").await;
        // Of the tag `v1`, the tag `other`, a manifest that has no tag of the rule, and a blob.
        for (rules, expected) in [
            (only("'delete-tag'"), [202, 403, 403, 403]),
            (
                only("'delete-manifest', 'delete-tag'"),
                [202, 403, 403, 403],
            ),
            (deny("'delete-tag'"), [403, 202, 202, 202]),
            (deny("'delete-manifest'"), [202, 202, 403, 403]),
            (deny("'all'"), [403, 202, 403, 403]),
        ] {
            fixture.rules("").await;
            let image = fixture.seeded(1, &["base/app"], "v1").await;
            let other = fixture.seeded(2, &["base/app"], "other").await;
            fixture.client("root").push_blob("base/app", b"alone").await;
            assert_ne!(image.digest(), other.digest());
            fixture.rules(&rules).await;
            let mut alice = fixture.client("alice");
            let targets = [
                "manifests/v1".to_owned(),
                "manifests/other".to_owned(),
                format!("manifests/{}", other.digest()),
                format!("blobs/{}", sha256(b"alone")),
            ];
            for (target, status) in targets.iter().zip(expected) {
                let answer = alice.ask("DELETE", &format!("/v2/base/app/{target}")).await;
                assert_eq!(
                    answer.status, status,
                    "{kind:?} {target}: {answer:?}\n{rules}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_denied_pull_is_denied_for_head() {
    for kind in KINDS {
        let deny = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['**']\nactions = ['pull']\n";
        let fixture = AccessFixture::new(kind, &format!("{}{deny}", allow("**", "'all'"))).await;
        fixture.seeded(1, &["base/app"], "v1").await;
        let mut alice = fixture.client("alice");
        for method in ["GET", "HEAD"] {
            alice.ask(method, "/v2/base/app/manifests/v1").await.is(403);
        }
        alice.get("/v2/base/app/tags/list").await.is(200);
    }
}

#[tokio::test]
async fn without_a_rule_every_user_may_do_everything() {
    let fixture = AccessFixture::with(Kind::Store, "", |domain| domain.tables("")).await;
    let image = Image::small(1);
    let mut bob = fixture.client("bob");
    bob.push("any/where", "v1", &image).await;
    let mut carol = fixture.client("carol");
    carol.push("any/where", "v1", &Image::small(2)).await;
    carol
        .ask("DELETE", "/v2/any/where/manifests/v1")
        .await
        .is(202);
    // But for the uploads of others, which are theirs alone.
    let session = bob.start("any/where").await;
    carol
        .ask("DELETE", &session)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    bob.ask("DELETE", &session).await.is(204);
}

#[tokio::test]
async fn an_inbox_accepts_its_own_tag_and_hides_all_others() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, INBOX).await;
        fixture
            .seeded(1, &["base/app", "bob/site"], "release")
            .await;
        let mut alice = fixture.client("alice");
        for seed in [2, 3, 3] {
            alice
                .push("alice/site", "release", &Image::small(seed))
                .await;
        }
        let may = "but may: push and overwrite alice/** (tag release)";
        let refused = alice
            .push_manifest("alice/site", "latest", &Image::small(3).manifest)
            .await;
        let expected = format!("alice may not push alice/site:latest, {may}");
        assert_eq!(refused.refused(403, "DENIED"), expected);
        let refused = alice.ask("POST", "/v2/base/app/blobs/uploads/").await;
        assert_eq!(
            refused.refused(403, "DENIED"),
            format!("alice may not push to base/app, {may}")
        );
        alice
            .get("/v2/bob/site/manifests/release")
            .await
            .refused(404, "NAME_UNKNOWN");
        alice
            .get("/v2/base/app/tags/list")
            .await
            .refused(404, "NAME_UNKNOWN");
        alice.get("/v2/_catalog").await.refused(403, "DENIED");
        alice
            .get("/v2/alice/site/manifests/release")
            .await
            .refused(403, "DENIED");
    }
}

#[tokio::test]
async fn rules_and_groups_apply_as_soon_as_they_are_loaded() {
    let fixture = AccessFixture::new(Kind::Store, &allow("base/**", "'pull'")).await;
    fixture.seeded(1, &["base/app"], "v1").await;
    let mut alice = fixture.client("alice");
    let target = "/v2/base/app/manifests/v1";
    alice.get(target).await.is(200);
    let path = fixture.gateway.path("conf.d/ci.test.toml");
    let text = fixture
        .domain("[[access]]\nusers = ['@devs']\nrepositories = ['**']\nactions = ['pull']\n");
    std::fs::write(path, text.top("groups_file = 'groups'").toml()).unwrap();
    for (groups, status) in [("devs: alice\n", 200), ("devs: bob\n", 404)] {
        std::fs::write(fixture.gateway.path("conf.d/groups"), groups).unwrap();
        fixture.gateway.app.reload().await.unwrap();
        alice.get(target).await.is(status);
    }
    std::fs::write(fixture.gateway.path("conf.d/groups"), "devs alice\n").unwrap();
    assert!(fixture.gateway.app.reload().await.is_err());
    alice.get(target).await.is(404);
}
