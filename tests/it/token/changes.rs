//! What happens to tokens that were given when users, rules, keys, time or the process change.

use std::time::Duration;

use super::fixture::{Kind, TokenFixture};
use crate::access::fixture::allow;
use crate::harness::{Domain, Setup, Upstream, bound, jump, seconds};
use crate::store::client::Endpoint;
use crate::store::image::sha256;

const SCOPE: &str = "repository:own/app:pull,push,delete";

#[tokio::test]
async fn a_user_who_is_removed_or_has_another_password_is_refused_at_once() {
    let fixture = TokenFixture::new(&allow("own/**", "'all'")).await;
    let mut alice = fixture.bearer("alice", SCOPE).await;
    let mut bob = fixture.bearer("bob", "").await;
    alice.get("/v2/").await.is(200);
    fixture.users(&["root", "bob", "carol"]).await;
    let gone = alice.get("/v2/").await;
    gone.refused(401, "UNAUTHORIZED");
    assert!(
        gone.header("www-authenticate")
            .ends_with(",error=\"invalid_token\"")
    );
    // As `users` makes new entries of the same passwords, the tokens of others ended too.
    bob.get("/v2/").await.refused(401, "UNAUTHORIZED");
    fixture.users(&["alice", "root", "bob"]).await;
    alice.get("/v2/").await.refused(401, "UNAUTHORIZED");
    fixture
        .bearer("alice", SCOPE)
        .await
        .get("/v2/")
        .await
        .is(200);
}

#[tokio::test]
async fn users_that_stay_in_the_file_stay_logged_in() {
    let fixture = TokenFixture::new("").await;
    let mut alice = fixture.bearer("alice", SCOPE).await;
    let path = fixture.0.gateway.path("conf.d/ci.test.htpasswd");
    let users = std::fs::read_to_string(&path).unwrap();
    let less: String = users
        .lines()
        .filter(|line| !line.starts_with("bob:"))
        .map(|l| format!("{l}\n"))
        .collect();
    let mut bob = fixture.bearer("bob", SCOPE).await;
    std::fs::write(&path, less).unwrap();
    fixture.0.gateway.app.refresh_files().await;
    alice.get("/v2/").await.is(200);
    bob.get("/v2/").await.refused(401, "UNAUTHORIZED");
    // With the same entry it is the same user.
    std::fs::write(&path, users).unwrap();
    fixture.0.gateway.app.refresh_files().await;
    bob.get("/v2/").await.is(200);
}

#[tokio::test]
async fn a_tightened_rule_counts_for_tokens_issued_before() {
    for kind in [Kind::Store, Kind::Upstream] {
        let fixture = TokenFixture::with(kind, "", &allow("own/**", "'all'")).await;
        let image = fixture.seeded(&["own/app"], "v1").await;
        let mut alice = fixture.bearer("alice", SCOPE).await;
        alice.check("own/app", "v1", &image).await;
        let blob = sha256(&image.config);
        fixture.0.rules(&allow("own/**", "'pull'")).await;
        alice.check("own/app", "v1", &image).await;
        alice
            .ask("POST", "/v2/own/app/blobs/uploads/")
            .await
            .refused(403, "DENIED");
        alice
            .ask("DELETE", &format!("/v2/own/app/blobs/{blob}"))
            .await
            .refused(403, "DENIED");
        fixture.0.rules("").await;
        alice.get("/v2/own/app/manifests/v1").await.is(404);
        // A rule that is loosened gives the token nothing: it says which one would do.
        let mut little = fixture.bearer("alice", SCOPE).await;
        fixture.0.rules(&allow("own/**", "'all'")).await;
        let answer = little.get("/v2/own/app/manifests/v1").await.is(401);
        assert!(
            answer
                .header("www-authenticate")
                .contains("scope=\"repository:own/app:pull\",error=\"insufficient_scope\"")
        );
        fixture
            .bearer("alice", SCOPE)
            .await
            .check("own/app", "v1", &image)
            .await;
    }
}

#[tokio::test]
async fn anonymous_tokens_end_with_the_setting() {
    let rules =
        "[[access]]\nusers = ['@anonymous']\nrepositories = ['public/**']\nactions = ['pull']\n";
    let fixture = TokenFixture::with(Kind::Store, "anonymous = 'pull'", rules).await;
    fixture.seeded(&["public/app"], "v1").await;
    let answer = fixture
        .get_token(None, "scope=repository:public/app:pull")
        .await
        .json();
    let mut anonymous = fixture.client().bearing(answer["token"].as_str().unwrap());
    anonymous.get("/v2/public/app/manifests/v1").await.is(200);
    anonymous.get("/v2/").await.is(200);
    let file = fixture.0.gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("anonymous = 'pull'", "")).unwrap();
    fixture.0.gateway.app.reload().await.unwrap();
    anonymous
        .get("/v2/public/app/manifests/v1")
        .await
        .refused(401, "UNAUTHORIZED");
    anonymous.get("/v2/").await.refused(401, "UNAUTHORIZED");
    fixture
        .get_token(None, "")
        .await
        .refused_token(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn a_request_that_comes_a_moment_after_the_end_of_its_token_is_answered() {
    for kind in [Kind::Store, Kind::Upstream] {
        let rules = allow("own/**", "'all'");
        let fixture = TokenFixture::with(kind, "token_lifetime = '1min'", &rules).await;
        let image = fixture.seeded(&["own/app"], "v1").await;
        let [mut used, mut unused, mut bob] = [
            fixture.bearer("alice", SCOPE).await,
            fixture.bearer("alice", SCOPE).await,
            fixture.bearer("bob", "").await,
        ];
        used.check("own/app", "v1", &image).await;
        jump(seconds(110)).await;
        // Verified before, and now for the first time.
        for alice in [&mut used, &mut unused] {
            alice.check("own/app", "v1", &image).await;
            alice.push_blob("own/app", b"late").await;
        }
        // What has changed counts in that minute too.
        fixture.0.rules(&allow("own/**", "'pull'")).await;
        used.ask("POST", "/v2/own/app/blobs/uploads/")
            .await
            .refused(403, "DENIED");
        bob.get("/v2/").await.is(200);
        fixture.users(&["alice", "root"]).await;
        bob.get("/v2/").await.refused(401, "UNAUTHORIZED");
        fixture.0.rules(&rules).await;
        let mut alice = fixture.bearer("alice", SCOPE).await;
        alice.check("own/app", "v1", &image).await;
        jump(seconds(120)).await;
        assert_eq!(
            alice.get("/v2/").await.refused(401, "UNAUTHORIZED"),
            "the token has expired: get a new one, or log in again"
        );
    }
}

#[tokio::test]
async fn a_token_is_checked_when_a_request_begins() {
    let upstream = Upstream::new().await;
    let domain =
        Domain::new("ci.test", &upstream.url()).auth("mode = 'token'\ntoken_lifetime = '10min'");
    let gateway = Setup::new().domain(domain).start().await;
    let client = Endpoint::new(&gateway, "http/1.1").client();
    let answer = client
        .another()
        .get("/token?scope=repository:a:push")
        .await
        .is(200)
        .json();
    assert_eq!(answer["expires_in"], 600);
    let token = answer["token"].as_str().unwrap();
    let head = |method: &str, target: &str, lines: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer {token}\r\n{lines}\r\n"
        )
    };
    // An upload that has begun goes on after the token's end.
    let mut uploader = gateway.client().await;
    uploader
        .send(head(
            "PATCH",
            &bound("/v2/a/blobs/uploads/1"),
            "Content-Length: 8\r\n",
        ))
        .await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    for pause in [100, 100, 100, 100, 100, 60, 110] {
        uploader.send("x").await;
        registry.bytes(1).await;
        if pause == 60 {
            let mut ping = gateway.client().await;
            ping.send(head("GET", "/v2/", "")).await;
            let mut behind = upstream.accept().await;
            behind.head().await;
            behind
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
            assert_eq!(ping.answer().await.0.status(), 200);
        }
        jump(seconds(pause)).await;
    }
    let expired = client.bearing(token).get("/v2/").await;
    let message = expired.refused(401, "UNAUTHORIZED");
    assert_eq!(
        message,
        "the token has expired: get a new one, or log in again"
    );
    assert!(
        expired
            .header("www-authenticate")
            .ends_with(",error=\"invalid_token\"")
    );
    uploader.send("x").await;
    registry.bytes(1).await;
    registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(uploader.head().await.status(), 202);
}

#[tokio::test]
async fn a_restart_leaves_tokens_and_refresh_tokens_good() {
    let mut fixture = TokenFixture::new(&allow("own/**", "'all'")).await;
    let token = fixture.token("alice", SCOPE).await;
    let answer = fixture
        .get_token(Some(("alice", "secret")), "offline_token=true")
        .await
        .json();
    let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
    let keys = fixture.client().get("/.well-known/jwks.json").await.body;
    fixture.0.restart().await;
    fixture.client().bearing(&token).get("/v2/").await.is(200);
    fixture
        .post_form(&format!("grant_type=refresh_token&refresh_token={refresh}"))
        .await
        .is(200);
    assert_eq!(
        fixture.client().get("/.well-known/jwks.json").await.body,
        keys
    );
}

#[tokio::test]
async fn signing_keys_are_rotated() {
    let fixture = TokenFixture::with(Kind::Store, "token_lifetime = '24h'", "").await;
    let (_, first) = fixture.key().await;
    let kid = |token: &str| {
        super::fixture::part(token, 0)["kid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    jump(Duration::from_secs(30 * 86_400)).await;
    fixture.0.gateway.app.refresh_files().await;
    let shown = fixture.client().get("/.well-known/jwks.json").await.json();
    assert_eq!(
        shown["keys"].as_array().unwrap().len(),
        2,
        "the next one is shown"
    );
    let old = fixture.token("alice", SCOPE).await;
    assert_eq!(kid(&old), first, "before it signs");
    jump(Duration::from_secs(3601)).await;
    let new = fixture.token("alice", SCOPE).await;
    assert_ne!(kid(&new), first);
    for token in [&old, &new] {
        fixture.client().bearing(token).get("/v2/").await.is(200);
    }
    jump(Duration::from_secs(30 * 86_400)).await;
    fixture.0.gateway.app.refresh_files().await;
    let shown = fixture.client().get("/.well-known/jwks.json").await.json();
    assert!(!shown.to_string().contains(&first), "gone with its tokens");
}

#[tokio::test]
async fn reloads_turn_token_mode_on_and_off() {
    let fixture = TokenFixture::new("").await;
    let token = fixture.token("alice", SCOPE).await;
    let file = fixture.0.gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let password = [("authorization", crate::harness::basic("alice", "secret"))];
    let password = password
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    std::fs::write(&file, text.replace("mode = 'token'", "mode = 'basic'")).unwrap();
    fixture.0.gateway.app.reload().await.unwrap();
    let answer = fixture.client().bearing(&token).get("/v2/").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, "Basic realm=\"ci.test\"")
    );
    fixture
        .client()
        .ask_with("GET", "/v2/", &password, "")
        .await
        .is(200);
    std::fs::write(&file, text).unwrap();
    fixture.0.gateway.app.reload().await.unwrap();
    fixture.client().bearing(&token).get("/v2/").await.is(200);
    fixture
        .client()
        .ask_with("GET", "/v2/", &password, "")
        .await
        .refused(401, "UNAUTHORIZED");
}
