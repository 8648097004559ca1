//! The product of a registry whose host does not tell it: its answer to `/v2/` does.

use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::played::{AUTO, OWN, PlayedLogin, answer, ask, ask_with_body};
use crate::harness::played::PlayedRegistry;
use crate::harness::{
    Clock, Domain, Gateway, PATIENCE, RawPeer, Setup, Upstream, basic, bound, promptly, request,
    seconds, settle, within,
};

const LIST: &str = "/v2/a/tags/list";
const TAG: &str = "/v2/a/manifests/v1";
const HARBOR: &str =
    "Bearer realm=\"http://harbor.test/service/token\",service=\"harbor-registry\"";
const ALL: &str = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n";

async fn product(gateway: &Gateway) -> Value {
    gateway.status().await["domains"][0]["upstream_product"].clone()
}

/// Waits until the product is known by the registry's answer.
async fn known(gateway: &Gateway) -> Value {
    let told = within(PATIENCE, async {
        while product(gateway).await["known_by"] != "challenge" {}
    });
    assert!(told.await, "{}", product(gateway).await);
    product(gateway).await["name"].clone()
}

async fn before(played: &PlayedLogin, keys: &str) -> Gateway {
    let domain = Domain::new("ci.test", &played.url)
        .upstream(keys)
        .tables(ALL);
    Setup::new().domain(domain).start().await
}

fn challenge(challenge: &'static str) -> Response<Full<bytes::Bytes>> {
    let mut refused = answer(StatusCode::UNAUTHORIZED, "{}");
    let headers = refused.headers_mut();
    headers.insert("www-authenticate", challenge.parse().unwrap());
    refused
}

/// A registry that takes the password and tells by its challenge what it is.
async fn harbor() -> PlayedLogin {
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.takes_passwords = true;
        state.pinged = Some(|| challenge(HARBOR));
    });
    played
}

#[tokio::test]
async fn a_registry_that_takes_passwords_is_asked_once_what_it_is() {
    let played = harbor().await;
    let gateway = before(&played, AUTO).await;
    assert_eq!(product(&gateway).await["known_by"], "default");
    for _ in 0..20 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    }
    assert_eq!(known(&gateway).await, "harbor");
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.pings(), 1);
    // It takes the password, and goes on to get it.
    let seen = played.take(false);
    let own = basic("gate", "inside");
    assert!(
        seen.iter().all(|seen| seen.authorization == own),
        "{seen:?}"
    );
    assert_eq!(played.exchanges(), [""; 0]);
}

#[tokio::test]
async fn each_product_is_known_by_its_challenge() {
    for (told, name) in [
        (
            (|| challenge("Bearer realm=\"http://r.test/oauth2/token\",service=\"r.test\""))
                as fn() -> _,
            "acr",
        ),
        (
            || challenge("Bearer realm=\"http://g.test/jwt/auth\",service=\"container_registry\""),
            "gitlab",
        ),
        (
            || challenge("Bearer realm=\"http://q.test/v2/auth\",service=\"q.test\""),
            "quay",
        ),
        (
            || challenge("Bearer realm=\"http://a.test/v2/token\",service=\"a.test\""),
            "gar",
        ),
        (
            || challenge("Basic realm=\"http://e.test\",service=\"ecr.amazonaws.com\""),
            "ecr",
        ),
        (|| challenge("Basic realm=\"harbor\""), "harbor"),
    ] {
        let played = PlayedLogin::new().await;
        played.set(|state| {
            state.takes_passwords = true;
            state.pinged = Some(told);
        });
        let gateway = before(&played, AUTO).await;
        ask(&gateway, "GET", LIST).await;
        assert_eq!(known(&gateway).await, name);
    }
}

#[tokio::test]
async fn nobody_asks_where_the_product_is_given_or_credentials_are_not_moorgates() {
    let configured = OWN.replace("distribution", "harbor");
    for keys in [OWN, &configured, "", "authorization = \"pass\""] {
        let played = harbor().await;
        let gateway = before(&played, keys).await;
        for _ in 0..3 {
            let mut client = gateway.client().await;
            client.send(request("GET", LIST, "")).await;
            client.answer().await;
        }
        settle().await;
        assert_eq!(played.pings(), 0, "{keys}");
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_the_product() {
    let played = harbor().await;
    played.set(|state| state.silent_ping = true);
    let gateway = before(&played, AUTO).await;
    // So that no wait comes to an end by itself.
    let _clock = Clock::stopped();
    for _ in 0..20 {
        assert_eq!(promptly(ask(&gateway, "GET", LIST)).await.0, 200);
    }
    let sent = ask_with_body(&gateway, "PATCH /v2/a/blobs/uploads/1", "blob");
    assert_eq!(promptly(sent).await, 200);
    assert_eq!(played.pings(), 1);
    assert_eq!(product(&gateway).await["known_by"], "default");
}

#[tokio::test]
async fn the_first_deletion_waits_for_the_product() {
    let played = PlayedRegistry::harbor().await;
    played.make_repository("acme/app");
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "mediaType": media, "schemaVersion": 2 });
    for tag in ["v1", "v2"] {
        played.put_manifest("acme/app", Some(tag), &manifest);
    }
    let own = played.switches().credentials;
    let keys = format!(
        "username = \"{}\"\npassword = \"{}\"\napi = \"{}\"",
        own.user,
        own.password,
        played.api_url()
    );
    let domain = Domain::new("ci.test", &played.url())
        .upstream(&keys)
        .tables(ALL);
    let gateway = Setup::new().domain(domain).start().await;
    played.take_lines();
    let (status, said) = ask(&gateway, "DELETE", "/v2/acme/app/manifests/v1").await;
    assert_eq!(status, 202, "{said}");
    let tags: Vec<_> = played
        .tags("acme/app")
        .into_iter()
        .map(|(tag, _)| tag)
        .collect();
    assert_eq!(tags, ["v2"]);
    let lines = played.take_lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("GET /v2/"), "{lines:#?}");
    assert!(lines[1].contains("/tags/v1"), "{lines:#?}");
}

/// A registry that is asked by hand: what comes before the answer to the ping, and what after.
async fn first_request(
    head: String,
    body: &str,
) -> (
    Upstream,
    Gateway,
    RawPeer<tokio::net::TcpStream>,
    RawPeer<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
) {
    let registry = Upstream::new().await;
    let domain = Domain::new("ci.test", &registry.url())
        .upstream(AUTO)
        .tables(ALL);
    let gateway = Setup::new().domain(domain).start().await;
    let mut client = gateway.client().await;
    client.send(head + body).await;
    let mut ping = registry.accept().await;
    let asked = ping.head().await;
    assert_eq!(asked.first, "GET /v2/ HTTP/1.1");
    assert_eq!(asked.get("authorization"), None);
    settle().await;
    registry.untouched().await;
    (registry, gateway, ping, client)
}

#[tokio::test]
async fn the_first_chunk_waits_for_the_product() {
    let target = bound("/v2/a/blobs/uploads/1");
    let lines = "Content-Length: 4\r\nContent-Range: 0-3\r\n";
    let head = request("PATCH", &target, lines);
    let (registry, _gateway, mut ping, mut client) = first_request(head, "blob").await;
    let refusal = "HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"r\",\
                   service=\"ecr.amazonaws.com\"\r\nContent-Length: 0\r\n\r\n";
    ping.send(refusal).await;
    // The product takes a blob in one piece: nothing is sent before its end.
    let (head, _) = client.answer().await;
    assert_eq!((head.status(), head.get("range")), (202, Some("0-3")));
    registry.untouched().await;
}

#[tokio::test]
async fn the_first_manifest_is_compared_where_tags_may_be_immutable() {
    let digest = crate::store::image::sha256(b"{}");
    let lines = "Content-Length: 2\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let registry = Upstream::new().await;
    let domain = Domain::new("ci.test", &registry.url())
        .upstream(AUTO)
        .tables(ALL);
    let gateway = Setup::new().domain(domain).start().await;
    let mut client = gateway.client().await;
    client.send(request("PUT", TAG, lines) + "{}").await;
    // The ping and the manifest come in any order.
    let mut sent = None;
    let mut ping = None;
    for _ in 0..2 {
        let mut peer = registry.accept().await;
        let head = peer.head().await;
        match head.first.as_str() {
            "GET /v2/ HTTP/1.1" => ping = Some(peer),
            "PUT /v2/a/manifests/v1 HTTP/1.1" => {
                assert_eq!(peer.bytes(2).await, b"{}");
                sent = Some(peer);
            }
            other => panic!("{other}"),
        }
    }
    let (mut sent, mut ping) = (sent.unwrap(), ping.unwrap());
    let body = "{\"errors\":[{\"code\":\"PRECONDITION\",\"message\":\"the tag v1 configured as \
                immutable, cannot be updated\"}]}";
    let length = body.len();
    sent.send(format!(
        "HTTP/1.1 412 P\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await;
    settle().await;
    ping.send(format!(
        "HTTP/1.1 401 U\r\nWWW-Authenticate: {HARBOR}\r\nContent-Length: 0\r\n\r\n"
    ))
    .await;
    let asked = sent.head().await;
    assert_eq!(asked.first, "HEAD /v2/a/manifests/v1 HTTP/1.1");
    sent.send(format!(
        "HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 2\r\n\r\n"
    ))
    .await;
    assert_eq!(client.answer().await.0.status(), 201);
}

#[tokio::test]
async fn a_registry_that_does_not_tell_is_asked_again_after_a_while() {
    let played = harbor().await;
    played.set(|state| state.pinged = Some(|| answer(StatusCode::SERVICE_UNAVAILABLE, "")));
    let gateway = before(&played, AUTO).await;
    let clock = Clock::stopped();
    for _ in 0..50 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
        settle().await;
    }
    assert_eq!(played.pings(), 1);
    let health = &gateway.status().await["domains"][0]["upstream_health"];
    assert_eq!(health["state"], "healthy");
    assert_eq!(health["last_failure"], Value::Null);
    // What has to know it does not guess.
    played.take(false);
    for _ in 0..10 {
        let (status, said) = ask(&gateway, "DELETE", TAG).await;
        assert_eq!(status, 503, "{said}");
        assert!(said.contains("does not answer /v2/"), "{said}");
    }
    let seen = played.take(false);
    assert!(seen.is_empty(), "{seen:?}");
    clock.jump(seconds(6)).await;
    played.set(|state| state.pinged = Some(|| challenge("Basic realm=\"r\"")));
    assert_eq!(ask(&gateway, "DELETE", TAG).await.0, 200);
    assert_eq!(played.pings(), 1);
    assert_eq!(product(&gateway).await["known_by"], "default");
}
