//! Every call under every right: what one action alone allows, and what is left without it.

use moorgate::registry::action::Action;
use moorgate::registry::action::Action::{Catalog, DeleteManifest, DeleteTag, List, Overwrite, Pull, Push};

use super::stage::{INBOX, KINDS, Kind, Stage, allow};
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST, sha256};

/// A call in `base/app`, and whether it may be made with these rights.
struct Case {
    name: &'static str,
    method: &'static str,
    target: String,
    body: Vec<u8>,
    may: fn(&dyn Fn(Action) -> bool) -> bool,
}

fn case(
    name: &'static str,
    method: &'static str,
    target: &str,
    may: fn(&dyn Fn(Action) -> bool) -> bool,
) -> Case {
    Case { name, method, target: format!("/v2/base/app/{target}"), body: Vec::new(), may }
}

/// The calls in the order in which they are made. Nothing that one of them needs is gone before it.
fn cases(image: &Image, other: &Image, session: &str) -> Vec<Case> {
    let (digest, blob) = (image.digest(), sha256(&image.layers[0]));
    let manifest = |body: &Image, case: Case| Case { body: body.manifest.clone(), ..case };
    let session = |name, method, query: &str, body: &[u8], may| Case {
        name,
        method,
        target: format!("{session}{query}"),
        body: body.to_vec(),
        may,
    };
    let commit = format!("?digest={}", sha256(b"0123456789"));
    let tags = format!("manifests/{}?tag=also&tag=v1", other.digest());
    vec![
        case("manifest by tag", "GET", "manifests/v1", |has| has(Pull)),
        case("its head", "HEAD", "manifests/v1", |has| has(Pull) || has(Push)),
        case("manifest by digest", "GET", &format!("manifests/{digest}"), |has| has(Pull)),
        case("its head", "HEAD", &format!("manifests/{digest}"), |has| has(Pull) || has(Push)),
        case("blob", "GET", &format!("blobs/{blob}"), |has| has(Pull)),
        case("its head", "HEAD", &format!("blobs/{blob}"), |has| has(Pull) || has(Push)),
        case("referrers", "GET", &format!("referrers/{digest}"), |has| has(Pull)),
        case("tags", "GET", "tags/list", |has| has(List)),
        session("status", "GET", "", b"", |has| has(Push)),
        session("status", "HEAD", "", b"", |has| has(Push)),
        session("chunk", "PATCH", "", b"0123456789", |has| has(Push)),
        session("commit", "PUT", &commit, b"", |has| has(Push)),
        case("upload", "POST", "blobs/uploads/", |has| has(Push)),
        case("mount", "POST", &format!("blobs/uploads/?mount={blob}&from=base/other"), |has| has(Push)),
        manifest(image, case("new tag", "PUT", "manifests/new", |has| has(Push))),
        manifest(image, case("same again", "PUT", "manifests/v1", |has| has(Push) || has(Overwrite))),
        manifest(other, case("by digest", "PUT", &format!("manifests/{}", other.digest()), |has| has(Push))),
        manifest(other, case("more tags", "PUT", &tags, |has| has(Push) && has(Overwrite))),
        manifest(other, case("moved tag", "PUT", "manifests/moved", |has| has(Overwrite))),
        case("tag away", "DELETE", "manifests/away", |has| has(DeleteTag)),
        case("blob away", "DELETE", &format!("blobs/{}", sha256(b"alone")), |has| has(DeleteManifest)),
        case("manifest away", "DELETE", &format!("manifests/{}", other.digest()), |has| has(DeleteManifest)),
    ]
}

async fn made(client: &mut Client, case: &Case) -> Answer {
    let kind: &[(&str, &str)] =
        if case.target.contains("/manifests/") { &[("content-type", MANIFEST)] } else { &[] };
    client.ask_with(case.method, &case.target, kind, case.body.clone()).await
}

/// Makes what the calls are about, as root, but for the session, which is alice's own.
async fn staged(stage: &Stage, seed: u64) -> Vec<Case> {
    stage.rules(&allow("base/**", "'push'")).await;
    let mut root = stage.client("root");
    let image = stage.seeded(2 * seed, &["base/other", "base/app"], "v1").await;
    let other = stage.seeded(2 * seed + 1, &["base/app"], "other").await;
    for tag in ["moved", "away"] {
        root.push_manifest("base/app", tag, &image.manifest).await.is(201);
    }
    for tag in ["new", "also"] {
        let target = format!("/v2/base/app/manifests/{tag}");
        let gone = root.ask("DELETE", &target).await;
        assert!([202, 404].contains(&gone.status), "{gone:?}");
    }
    root.push_manifest("base/app", "v1", &image.manifest).await.is(201);
    root.push_blob("base/app", b"alone").await;
    let session = stage.client("alice").start("base/app").await;
    cases(&image, &other, &session)
}

/// Makes every call and compares with what it needs.
async fn tried(stage: &Stage, rules: &str, seed: u64, has: &dyn Fn(Action) -> bool, word: &str) {
    let cases = staged(stage, seed).await;
    stage.rules(rules).await;
    let mut alice = stage.client("alice");
    for case in &cases {
        let answer = made(&mut alice, case).await;
        let (name, allowed) = (case.name, (case.may)(has));
        assert_eq!(
            (200..300).contains(&answer.status),
            allowed,
            "{word}: {name}: {} {}: {answer:?}",
            case.method,
            case.target
        );
        if !allowed && case.method != "HEAD" {
            assert!(answer.refused(403, "DENIED").starts_with("alice may not "), "{answer:?}");
        } else if !allowed {
            assert_eq!(answer.status, 403);
        }
    }
    let catalog = alice.get("/v2/_catalog").await;
    assert_eq!(catalog.status, if has(Catalog) { 200 } else { 403 }, "{word}: {catalog:?}");
    alice.get("/v2/").await.is(200);
}

#[tokio::test]
async fn one_action_allows_its_own_calls_alone() {
    for kind in KINDS {
        let stage = Stage::new(kind, "").await;
        for (seed, action) in (0..).zip(Action::ALL) {
            let rules = allow("base/**", &format!("'{action}'"));
            tried(&stage, &rules, seed, &|asked| asked == action, &format!("{kind:?} with {action}")).await;
        }
        tried(&stage, &allow("**", "'all'"), 100, &|_| true, "with all").await;
    }
}

#[tokio::test]
async fn a_deny_takes_its_own_calls_alone() {
    for kind in KINDS {
        let stage = Stage::new(kind, "").await;
        for (seed, action) in (0..).zip(Action::ALL) {
            let deny = format!(
                "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/app']\nactions = ['{action}']\n\
                 networks = ['127.0.0.0/8']\n"
            );
            if matches!(action, Pull | Catalog) {
                // Of a HEAD and of the catalog more below: one needs either right, the other none in particular.
                continue;
            }
            let rules = format!("{}{deny}", allow("base/**", "'all'"));
            tried(
                &stage,
                &rules.replace("['*']", "['alice']"),
                seed,
                &|asked| asked != action,
                &format!("{kind:?} without {action}"),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_denied_pull_is_denied_to_head_also() {
    for kind in KINDS {
        let deny = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['**']\nactions = ['pull']\n";
        let stage = Stage::new(kind, &format!("{}{deny}", allow("**", "'all'"))).await;
        stage.seeded(1, &["base/app"], "v1").await;
        let mut alice = stage.client("alice");
        for method in ["GET", "HEAD"] {
            alice.ask(method, "/v2/base/app/manifests/v1").await.is(403);
        }
        alice.get("/v2/base/app/tags/list").await.is(200);
    }
}

#[tokio::test]
async fn without_a_rule_every_user_may_do_everything() {
    let stage = Stage::with(Kind::Store, "", |domain| domain.tables("")).await;
    let image = Image::small(1);
    let mut bob = stage.client("bob");
    bob.push("any/where", "v1", &image).await;
    let mut carol = stage.client("carol");
    carol.push("any/where", "v1", &Image::small(2)).await;
    carol.ask("DELETE", "/v2/any/where/manifests/v1").await.is(202);
    // But for the uploads of others, which are theirs alone.
    let session = bob.start("any/where").await;
    carol.ask("DELETE", &session).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    bob.ask("DELETE", &session).await.is(204);
}

#[tokio::test]
async fn an_inbox_takes_its_own_tag_and_shows_nothing_else() {
    for kind in KINDS {
        let stage = Stage::new(kind, INBOX).await;
        stage.seeded(1, &["base/app", "bob/site"], "release").await;
        let mut alice = stage.client("alice");
        for seed in [2, 3, 3] {
            alice.push("alice/site", "release", &Image::small(seed)).await;
        }
        let may = "but may: push and overwrite alice/** (tag release)";
        let refused = alice.push_manifest("alice/site", "latest", &Image::small(3).manifest).await;
        let expected = format!("alice may not push alice/site:latest, {may}");
        assert_eq!(refused.refused(403, "DENIED"), expected);
        let refused = alice.ask("POST", "/v2/base/app/blobs/uploads/").await;
        assert_eq!(refused.refused(403, "DENIED"), format!("alice may not push to base/app, {may}"));
        alice.get("/v2/bob/site/manifests/release").await.refused(404, "NAME_UNKNOWN");
        alice.get("/v2/base/app/tags/list").await.refused(404, "NAME_UNKNOWN");
        alice.get("/v2/_catalog").await.refused(403, "DENIED");
        alice.get("/v2/alice/site/manifests/release").await.refused(403, "DENIED");
    }
}

#[tokio::test]
async fn rules_and_groups_hold_as_soon_as_they_are_loaded() {
    let stage = Stage::new(Kind::Store, &allow("base/**", "'pull'")).await;
    stage.seeded(1, &["base/app"], "v1").await;
    let mut alice = stage.client("alice");
    let target = "/v2/base/app/manifests/v1";
    alice.get(target).await.is(200);
    let path = stage.gateway.path("conf.d/ci.test.toml");
    let text = stage.domain("[[access]]\nusers = ['@devs']\nrepositories = ['**']\nactions = ['pull']\n");
    std::fs::write(path, text.top("groups_file = 'groups'").toml()).unwrap();
    for (groups, status) in [("devs: alice\n", 200), ("devs: bob\n", 404)] {
        std::fs::write(stage.gateway.path("conf.d/groups"), groups).unwrap();
        stage.gateway.app.reload().await.unwrap();
        alice.get(target).await.is(status);
    }
    std::fs::write(stage.gateway.path("conf.d/groups"), "devs alice\n").unwrap();
    assert!(stage.gateway.app.reload().await.is_err());
    alice.get(target).await.is(404);
}
