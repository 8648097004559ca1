//! The ways in which an upstream is reached: whose credentials it gets, and over which transport.

use rcgen::{CertificateParams, KeyPair};

use crate::harness::{Domain, Gateway, ProxiedPair, Setup, Upstream, basic, bound, json, request};
use crate::harness::{RawPeer, tls_server, url};

#[tokio::test]
async fn the_clients_credentials_are_taken_off() {
    let mut between = ProxiedPair::new().await;
    assert_eq!(
        between
            .passed(request("GET", "/v2/", ""))
            .await
            .get("authorization"),
        None
    );
}

#[tokio::test]
async fn the_clients_credentials_pass_where_that_is_wanted() {
    let mut between = ProxiedPair::with(|domain| domain.upstream("authorization = \"pass\"")).await;
    let asked = between.passed(request("GET", "/v2/", "")).await;
    assert_eq!(
        asked.get("authorization"),
        Some(basic("alice", "secret").as_str())
    );
}

#[tokio::test]
async fn configured_credentials_replace_those_of_the_client() {
    let keys = "product = \"distribution\"\nusername = \"gate\"\npassword = \"in:side\"";
    let mut between = ProxiedPair::with(|domain| domain.upstream(keys)).await;
    let asked = between.passed(request("GET", "/v2/", "")).await;
    assert_eq!(
        asked.get("authorization"),
        Some(basic("gate", "in:side").as_str())
    );
}

#[tokio::test]
async fn a_401_to_configured_credentials_does_not_reach_the_client() {
    let own = "product = \"distribution\"\nusername = \"gate\"\npassword = \"wrong\"";
    for keys in ["", own] {
        let mut between = ProxiedPair::with(|domain| domain.upstream(keys)).await;
        between.forwarded(request("GET", "/v2/", "")).await;
        let (head, body) = between
            .answered("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"inside\"\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(head.status(), 502);
        assert_eq!(head.get("www-authenticate"), None);
        let document = json(&body);
        assert_eq!(document["errors"][0]["code"], "UNAVAILABLE");
        assert!(
            document["errors"][0]["message"]
                .as_str()
                .unwrap()
                .contains("[upstream]"),
            "{document}"
        );
    }
}

#[tokio::test]
async fn an_upstreams_401_to_the_clients_own_credentials_comes_with_our_challenge() {
    let mut between = ProxiedPair::with(|domain| domain.upstream("authorization = \"pass\"")).await;
    between.forwarded(request("GET", "/v2/", "")).await;
    let (head, body) = between
        .answered("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"inside\"\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    assert_eq!(head.status(), 401);
    assert_eq!(head.all("www-authenticate"), ["Basic realm=\"ci.test\""]);
    assert_eq!(body, b"{}");
}

/// A certificate for `127.0.0.1` that is its own root, made now.
struct Made {
    pem: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn made() -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    Made {
        pem: certificate.pem(),
        certificate,
        key,
    }
}

/// A gateway before an https upstream, of which it believes what `roots` certifies.
async fn before_https(upstream: &Upstream, roots: &Made) -> (Gateway, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("roots.pem");
    std::fs::write(&file, &roots.pem).unwrap();
    let url = format!("https://{}", upstream.address());
    let domain = Domain::new("ci.test", &url).upstream(&format!("roots = \"{}\"", file.display()));
    (Setup::new().domain(domain).start().await, directory)
}

#[tokio::test]
async fn an_https_upstream_is_verified_by_its_own_roots() {
    let (upstream, own) = (Upstream::new().await, made());
    let (gateway, _directory) = before_https(&upstream, &own).await;
    let mut client = gateway.client().await;
    client.send(request("GET", "/v2/a/tags/list", "")).await;
    let tcp = upstream.accept().await.io;
    let mut registry = RawPeer::new(
        tls_server(&own.certificate, &own.key)
            .accept(tcp)
            .await
            .unwrap(),
    );
    assert_eq!(registry.head().await.first, "GET /v2/a/tags/list HTTP/1.1");
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let (head, body) = client.answer().await;
    assert_eq!((head.status(), body.as_slice()), (200, b"{}".as_slice()));
}

#[tokio::test]
async fn locations_of_an_https_upstream_become_ours() {
    let (upstream, own) = (Upstream::new().await, made());
    let (gateway, _directory) = before_https(&upstream, &own).await;
    let mut client = gateway.client().await;
    client
        .send(request(
            "POST",
            "/v2/a/blobs/uploads/",
            "Content-Length: 0\r\n",
        ))
        .await;
    let tcp = upstream.accept().await.io;
    let mut registry = RawPeer::new(
        tls_server(&own.certificate, &own.key)
            .accept(tcp)
            .await
            .unwrap(),
    );
    registry.head().await;
    let location = format!("https://{}/v2/a/blobs/uploads/1", upstream.address());
    registry
        .send(format!(
            "HTTP/1.1 202 A\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(
        client.answer().await.0.get("location"),
        Some(url(&bound("/v2/a/blobs/uploads/1")).as_str())
    );
}

#[tokio::test]
async fn an_https_upstream_with_another_root_gets_no_request() {
    let (upstream, own, other) = (Upstream::new().await, made(), made());
    let (gateway, _directory) = before_https(&upstream, &other).await;
    let mut client = gateway.client().await;
    client.send(request("GET", "/v2/", "")).await;
    let tcp = upstream.accept().await.io;
    assert!(
        tls_server(&own.certificate, &own.key)
            .accept(tcp)
            .await
            .is_err(),
        "the handshake ends in an alert"
    );
    let (head, body) = client.answer().await;
    assert_eq!(head.status(), 503);
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
}
