//! What a token is good for: the challenge of each call, and scopes and rules together.

use super::fixture::{Kind, TokenFixture};
use crate::access::fixture::{INBOX, KINDS, allow};
use crate::harness::{Domain, Origin, Setup, basic};
use crate::store::client::Answer;
use crate::store::image::{Image, sha256};

/// What follows realm and service in the challenge of an answer.
pub fn challenge(answer: &Answer) -> String {
    let value = answer.header("www-authenticate");
    let prefix = "Bearer realm=\"https://ci.test/token\",service=\"ci.test\"";
    value
        .strip_prefix(prefix)
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

/// Every kind of call about a repository, and what its challenge asks for.
fn calls() -> Vec<(&'static str, String, &'static str)> {
    let digest = sha256(b"x");
    vec![
        ("GET", "/v2/a/b/tags/list".to_owned(), "pull"),
        ("GET", "/v2/a/b/manifests/v1".to_owned(), "pull"),
        ("HEAD", "/v2/a/b/manifests/v1".to_owned(), "pull"),
        ("GET", format!("/v2/a/b/blobs/{digest}"), "pull"),
        ("HEAD", format!("/v2/a/b/blobs/{digest}"), "pull"),
        ("GET", format!("/v2/a/b/referrers/{digest}"), "pull"),
        ("PUT", "/v2/a/b/manifests/v1".to_owned(), "pull,push"),
        ("POST", "/v2/a/b/blobs/uploads/".to_owned(), "pull,push"),
        (
            "POST",
            format!("/v2/a/b/blobs/uploads/?mount={digest}"),
            "pull,push",
        ),
        ("GET", "/v2/a/b/blobs/uploads/x".to_owned(), "pull,push"),
        ("PATCH", "/v2/a/b/blobs/uploads/x".to_owned(), "pull,push"),
        (
            "PUT",
            format!("/v2/a/b/blobs/uploads/x?digest={digest}"),
            "pull,push",
        ),
        ("DELETE", "/v2/a/b/blobs/uploads/x".to_owned(), "pull,push"),
        ("DELETE", "/v2/a/b/manifests/v1".to_owned(), "delete"),
        ("DELETE", format!("/v2/a/b/manifests/{digest}"), "delete"),
        ("DELETE", format!("/v2/a/b/blobs/{digest}"), "delete"),
    ]
}

#[tokio::test]
async fn each_call_without_a_token_is_challenged_for_its_scope() {
    let origin = Origin::new().await;
    for anonymous in ["", "\nanonymous = 'pull'"] {
        let rules = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n";
        let domain = Domain::new("ci.test", &origin.url())
            .auth(&format!("mode = 'token'{anonymous}"))
            .tables(rules);
        let gateway = Setup::new().domain(domain).start().await;
        let mut client = crate::store::client::Endpoint::new(&gateway, "http/1.1")
            .client()
            .anonymous();
        let ping = client.get("/v2/").await;
        ping.refused(401, "UNAUTHORIZED");
        assert_eq!(challenge(&ping), "");
        let catalog = client.get("/v2/_catalog").await;
        assert_eq!(challenge(&catalog), ",scope=\"registry:catalog:*\"");
        for (method, target, actions) in calls() {
            let answer = client.ask(method, &target).await.is(401);
            assert_eq!(
                challenge(&answer),
                format!(",scope=\"repository:a/b:{actions}\""),
                "{method} {target}"
            );
            // Passwords are for the endpoint, and never go on from here.
            let password = basic("alice", "secret");
            for other in [
                password.as_str(),
                "Bearer",
                "Bearer ",
                "Digest x",
                "Basic Og==x",
                "bearer\u{a0}x",
            ] {
                let answer = client
                    .ask_with(method, &target, &[("authorization", other)], "")
                    .await
                    .is(401);
                assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
                assert!(
                    answer.header("www-authenticate").starts_with("Bearer "),
                    "{answer:?}"
                );
            }
        }
        let mut alice = client.another();
        alice.get("/v2/").await.refused(401, "UNAUTHORIZED");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test]
async fn a_token_never_reaches_the_registry() {
    for (keys, expected) in [
        ("", None),
        (
            "product = 'distribution'\nusername = 'me'\npassword = 'own'",
            Some(basic("me", "own")),
        ),
    ] {
        let origin = Origin::new().await;
        let domain = Domain::new("ci.test", &origin.url())
            .auth("mode = 'token'")
            .upstream(keys);
        let gateway = Setup::new().domain(domain).start().await;
        let mut client = crate::store::client::Endpoint::new(&gateway, "http/1.1").client();
        let answer = client
            .get("/token?scope=repository:a:pull")
            .await
            .is(200)
            .json();
        let mut client = client.bearing(answer["token"].as_str().unwrap());
        client.get("/v2/").await.is(200);
        client.get("/v2/a/manifests/v1").await.is(200);
        let requests = origin.requests();
        assert_eq!(requests.len(), 2, "the endpoint is ours");
        for request in requests {
            assert_eq!(request.head.get("authorization"), expected.as_deref());
        }
    }
}

#[tokio::test]
async fn a_token_grants_its_scope_and_nothing_else() {
    for kind in KINDS {
        let fixture = TokenFixture::with(kind, "", "").await;
        let image = fixture.seeded(&["a/b", "a/bc", "c"], "v1").await;
        let scopes = [
            "",
            "repository:a/b:pull",
            "repository:a/b:push",
            "repository:a/b:delete",
            "repository:a/bc:pull,push,delete",
        ];
        for scope in scopes {
            let mut root = fixture.bearer("root", scope).await;
            root.get("/v2/").await.is(200);
            for (method, target, actions) in calls() {
                let given = scope.rsplit(':').next().unwrap();
                let is_head = method == "HEAD";
                let enough = scope.starts_with("repository:a/b:")
                    && (actions.split(',').next_back() == Some(given)
                        || is_head && given == "push");
                let target = match target.split_once("/uploads/x") {
                    None => target,
                    // What is nobody's session is unknown, whatever the token says.
                    Some((_, rest)) => {
                        let mut pusher = fixture.bearer("root", "repository:a/b:push").await;
                        pusher.start("a/b").await + rest
                    }
                };
                let answer = root.ask(method, &target).await;
                if enough {
                    assert!(
                        ![401, 403].contains(&answer.status),
                        "{scope} {method} {target}: {answer:?}"
                    );
                    continue;
                }
                assert_eq!(answer.status, 401, "{scope} {method} {target}");
                let wanted = if is_head { "pull,push" } else { actions };
                let expected =
                    format!(",scope=\"repository:a/b:{wanted}\",error=\"insufficient_scope\"");
                assert_eq!(challenge(&answer), expected);
                if !is_head {
                    answer.refused(401, "DENIED");
                }
            }
            if scope.ends_with("/b:delete") {
                fixture.seeded(&["a/b"], "v1").await;
            }
        }
        fixture
            .bearer("root", "repository:c:pull")
            .await
            .check("c", "v1", &image)
            .await;
        let mut root = fixture.bearer("root", "repository:c:pull,push").await;
        let answer = root.get("/v2/_catalog").await.is(401);
        assert_eq!(
            challenge(&answer),
            ",scope=\"registry:catalog:*\",error=\"insufficient_scope\""
        );
        let names = fixture
            .bearer("root", "registry:catalog:*")
            .await
            .get("/v2/_catalog")
            .await
            .is(200)
            .json();
        assert_eq!(
            names["repositories"],
            serde_json::json!(["a/b", "a/bc", "c"])
        );
    }
}

#[tokio::test]
async fn the_rules_refuse_calls_that_a_token_grants() {
    for kind in KINDS {
        let rules = format!("{}{INBOX}", allow("base/**", "'pull', 'list'"));
        let fixture = TokenFixture::with(kind, "", &rules).await;
        let image = fixture.seeded(&["base/app", "secret/app"], "v1").await;
        let mut alice = fixture
            .bearer(
                "alice",
                "repository:base/app:pull,push repository:secret/app:pull",
            )
            .await;
        alice.check("base/app", "v1", &image).await;
        let message = alice
            .ask("POST", "/v2/base/app/blobs/uploads/")
            .await
            .refused(403, "DENIED");
        assert!(
            message.starts_with("alice may not push to base/app, but may: "),
            "{message}"
        );
        // As if it did not exist, in basic mode's words.
        let hidden = alice.get("/v2/secret/app/manifests/v1").await;
        let missing = alice.get("/v2/nowhere/manifests/v1").await;
        let name =
            |answer: &Answer, name| String::from_utf8_lossy(&answer.body).replace(name, "NAME");
        assert_eq!((hidden.status, missing.status), (404, 404));
        assert_eq!(name(&hidden, "secret/app"), name(&missing, "nowhere"));
        // The inbox works as it does with a password.
        let mut bob = fixture.bearer("bob", "repository:bob/site:pull,push").await;
        bob.push("bob/site", "release", &image).await;
        bob.ask("HEAD", "/v2/bob/site/manifests/release")
            .await
            .is(200);
        let message = bob
            .push_manifest("bob/site", "v2", &image.manifest)
            .await
            .refused(403, "DENIED");
        assert!(
            message.contains("bob may not push bob/site:v2"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn anonymous_pulls_need_no_token_and_all_other_calls_one() {
    let rules =
        "[[access]]\nusers = ['@anonymous']\nrepositories = ['public/**']\nactions = ['all']\n";
    let fixture = TokenFixture::with(Kind::Store, "anonymous = 'pull'", rules).await;
    let image = fixture.seeded(&["public/app", "own/app"], "v1").await;
    fixture.client().check("public/app", "v1", &image).await;
    let bare = fixture.client().get("/v2/").await;
    bare.refused(401, "UNAUTHORIZED");
    let anonymous = fixture
        .get_token(None, "scope=repository:public/app:pull,push")
        .await
        .json();
    let mut anonymous = fixture
        .client()
        .bearing(anonymous["token"].as_str().unwrap());
    anonymous.check("public/app", "v1", &image).await;
    // No other token would help, but a login: so it says nothing of the token.
    let answer = anonymous.ask("POST", "/v2/public/app/blobs/uploads/").await;
    assert_eq!(
        answer.refused(401, "UNAUTHORIZED"),
        "log in to use this registry"
    );
    assert_eq!(
        challenge(&answer),
        ",scope=\"repository:public/app:pull,push\""
    );
    anonymous
        .get("/v2/own/app/manifests/v1")
        .await
        .refused(401, "UNAUTHORIZED");
    // A bad token is not nobody's.
    fixture
        .client()
        .bearing("x")
        .get("/v2/public/app/manifests/v1")
        .await
        .refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_log_names_the_user_and_the_endpoint() {
    let fixture = TokenFixture::open(Kind::Store).await;
    let alice = fixture.bearer("alice", "repository:a:pull,push").await;
    let image = Image::small(3);
    let mut alice = alice;
    alice.push("a", "v1", &image).await;
    fixture.client().get("/.well-known/jwks.json").await.is(200);
    drop(alice);
    let mut lines = Vec::new();
    assert!(fixture.0.gateway.stop().await);
    fixture.0.gateway.app.access_log().close();
    fixture.0.gateway.app.access_log().run(&mut lines);
    let log = String::from_utf8(lines).unwrap();
    let has = |words: &[&str]| {
        log.lines()
            .any(|line| words.iter().all(|word| line.split(' ').any(|w| w == *word)))
    };
    assert!(
        has(&["user=alice", "call=token", "method=GET", "status=200"]),
        "{log}"
    );
    assert!(
        has(&[
            "user=alice",
            "call=manifest.write",
            "repository=a",
            "status=201"
        ]),
        "{log}"
    );
    assert!(has(&["user=-", "call=jwks", "status=200"]), "{log}");
}
