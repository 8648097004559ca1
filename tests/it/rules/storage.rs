//! Rule 5, `redirects = "follow"`: moorgate goes to the storage in the client's place.

use tokio::net::TcpStream;

use crate::harness::{Events, Head, ProxiedPair, RawPeer, Upstream, json, request, url};

const BLOB: &str =
    "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SIGNED: &str = "/bucket/data?X-Amz-Signature=a%2Fb+c&x={}";

fn redirect(location: &str) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nDocker-Content-Digest: sha256:1\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

async fn following() -> (ProxiedPair, Upstream) {
    // The registry would get this; the storage must not.
    let keys = "redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]\nproduct = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"";
    (
        ProxiedPair::with(|domain| domain.upstream(keys)).await,
        Upstream::new().await,
    )
}

/// Asks for a blob, is redirected by the registry, and returns what the storage sees.
async fn fetched(
    between: &mut ProxiedPair,
    storage: &Upstream,
    request: &str,
    location: &str,
) -> (RawPeer<TcpStream>, Head) {
    between.forwarded(request).await;
    between.registry().send(redirect(location)).await;
    let mut peer = storage.accept().await;
    let head = peer.head().await;
    (peer, head)
}

#[tokio::test]
async fn redirects_to_the_storage_are_followed() {
    let (mut between, storage) = following().await;
    let location = format!("{}{SIGNED}", storage.url());
    let (mut peer, asked) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, "Accept: */*\r\n"),
        &location,
    )
    .await;
    assert_eq!(asked.first, format!("GET {SIGNED} HTTP/1.1"));
    assert_eq!(
        asked.get("host"),
        Some(storage.address().to_string().as_str())
    );
    assert_eq!(asked.get("accept"), Some("*/*"));
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\nServer: MinIO\r\n\r\nbytes")
        .await;
    let (head, body) = between.client.answer().await;
    assert_eq!(head.status(), 200);
    assert_eq!(
        head.get("docker-content-digest"),
        Some("sha256:1"),
        "from the registry's redirect"
    );
    assert_eq!(head.get("etag"), Some("\"e\""));
    assert_eq!(head.get("server"), None);
    assert_eq!(head.get("location"), None);
    assert_eq!(body, b"bytes");
}

#[tokio::test]
async fn the_storage_never_sees_credentials_or_claims() {
    let (mut between, storage) = following().await;
    let lines = "Cookie: a=b\r\nX-Secret: 1\r\nReferer: https://ci.test/\r\n";
    let (_, asked) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, lines),
        &storage.url(),
    )
    .await;
    let names: Vec<_> = asked
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["host"], "{asked:?}");
}

#[tokio::test]
async fn a_range_is_requested_from_the_storage() {
    let (mut between, storage) = following().await;
    let lines = "Range: bytes=2-3\r\nIf-Range: \"e\"\r\n";
    let (mut peer, asked) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, lines),
        &storage.url(),
    )
    .await;
    assert_eq!(asked.get("range"), Some("bytes=2-3"));
    assert_eq!(asked.get("if-range"), Some("\"e\""));
    peer.send("HTTP/1.1 206 Partial\r\nContent-Range: bytes 2-3/9\r\nContent-Length: 2\r\n\r\nab")
        .await;
    let (head, body) = between.client.answer().await;
    assert_eq!(
        (head.status(), head.get("content-range")),
        (206, Some("bytes 2-3/9"))
    );
    assert_eq!(body, b"ab");
}

#[tokio::test]
async fn head_is_followed_by_head() {
    let (mut between, storage) = following().await;
    let (mut peer, asked) = fetched(
        &mut between,
        &storage,
        &request("HEAD", BLOB, ""),
        &storage.url(),
    )
    .await;
    assert_eq!(asked.first, "HEAD / HTTP/1.1");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\n\r\n")
        .await;
    let head = between.client.head().await;
    assert_eq!(head.get("content-length"), Some("12345678901"));
}

#[tokio::test]
async fn redirects_of_the_storage_are_followed_too() {
    let (mut between, storage) = following().await;
    let (mut peer, _) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, ""),
        &format!("{}/one?x", storage.url()),
    )
    .await;
    // To itself by path, by URL and relatively; to another storage without a scheme.
    let other = Upstream::new().await;
    for (location, next) in [
        ("/two?y".to_owned(), "GET /two?y HTTP/1.1"),
        (
            format!("{}/three/a?z", storage.url()),
            "GET /three/a?z HTTP/1.1",
        ),
        ("four".to_owned(), "GET /three/four HTTP/1.1"),
    ] {
        peer.send(redirect(&location)).await;
        peer = storage.accept().await;
        assert_eq!(peer.head().await.first, next);
    }
    peer.send(redirect(&format!("//{}/five", other.address())))
        .await;
    let mut last = other.accept().await;
    assert_eq!(last.head().await.first, "GET /five HTTP/1.1");
    last.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let (head, body) = between.client.answer().await;
    assert_eq!((head.status(), body.as_slice()), (200, b"ok".as_slice()));
}

#[tokio::test]
async fn redirect_loops_end() {
    let (mut between, storage) = following().await;
    let elsewhere = Upstream::new().await;
    let (mut peer, _) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, ""),
        &storage.url(),
    )
    .await;
    let mut asked = 1;
    let head = loop {
        // Round between two hosts, so that none of them redirects to itself.
        let next = if asked % 2 == 1 { &elsewhere } else { &storage };
        peer.send(redirect(&next.url())).await;
        tokio::select! {
            fresh = next.accept() => peer = fresh,
            head = between.client.head() => break head,
        }
        peer.head().await;
        asked += 1;
        assert!(asked < 20, "no end of it");
    };
    assert_eq!(head.status(), 502);
    assert_eq!(head.get("location"), None);
}

#[tokio::test]
async fn a_redirect_loop_within_the_storage_ends() {
    let (mut between, storage) = following().await;
    let (mut peer, _) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, ""),
        &storage.url(),
    )
    .await;
    for _ in 0..20 {
        peer.send(redirect("/again")).await;
        tokio::select! {
            fresh = storage.accept() => peer = fresh,
            (head, body) = between.client.answer() => {
                assert_eq!(head.status(), 502);
                assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
                return;
            }
        }
        peer.head().await;
    }
    panic!("no end of it");
}

#[tokio::test]
async fn a_storage_that_cannot_be_reached_is_unavailable() {
    let (mut between, storage) = following().await;
    let url = storage.url();
    drop(storage);
    between.forwarded(request("GET", BLOB, "")).await;
    let (head, body) = between.answered(redirect(&url)).await;
    assert_eq!(head.status(), 503);
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_cut_response_of_the_storage_is_cut_for_the_client() {
    let (mut between, storage) = following().await;
    let (mut peer, _) = fetched(
        &mut between,
        &storage,
        &request("GET", BLOB, ""),
        &storage.url(),
    )
    .await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    assert_eq!(between.client.head().await.length(), Some(10));
    drop(peer);
    assert_eq!(between.client.rest().await, b"12345");
}

#[tokio::test]
async fn a_redirect_to_another_repository_is_left_to_the_client() {
    let (mut between, _storage) = following().await;
    between.forwarded(request("GET", BLOB, "")).await;
    let other = BLOB.replacen("/a/", "/b/", 1) + "?y";
    let (head, _) = between.answered(redirect(&other)).await;
    assert_eq!(
        (head.status(), head.get("location")),
        (307, Some(url(&other).as_str()))
    );
}

#[tokio::test]
async fn an_upload_is_never_followed() {
    let (mut between, storage) = following().await;
    let location = format!("{}/bucket", storage.url());
    between
        .forwarded(request(
            "POST",
            "/v2/a/blobs/uploads/",
            "Content-Length: 0\r\n",
        ))
        .await;
    let (head, _) = between.answered(redirect(&location)).await;
    assert_eq!(
        (head.status(), head.get("location")),
        (307, Some(location.as_str()))
    );
    storage.untouched().await;
}

/// A registry on loopback, with these settings for redirects.
async fn following_to(hosts: &str) -> ProxiedPair {
    let keys = format!("redirects = \"follow\"\nfollow_hosts = [{hosts}]");
    ProxiedPair::with(|domain| domain.upstream(&keys)).await
}

/// Asserts that a redirect is not followed, and that the log says why.
async fn is_not_followed(between: &mut ProxiedPair, location: &str, why: &str) {
    let events = Events::kept();
    between.forwarded(request("GET", BLOB, "")).await;
    let (head, body) = between.answered(redirect(location)).await;
    assert_eq!(head.status(), 502, "{location}");
    let text = json(&body)["errors"][0]["message"].to_string();
    assert!(text.contains("follow_hosts"), "{text}");
    let lines = events.with(why);
    assert_eq!(lines.len(), 1, "{location}: {}", events.all());
}

#[tokio::test]
async fn redirects_to_addresses_of_the_host_are_not_followed() {
    let mut between = following_to("").await;
    let storage = Upstream::new().await;
    let port = storage.address().port();
    for host in [
        "127.0.0.1",
        "127.0.0.2",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
    ] {
        let location = format!("http://{host}:{port}/x");
        is_not_followed(
            &mut between,
            &location,
            "is an address of this host or its link",
        )
        .await;
    }
    storage.untouched().await;
}

#[tokio::test]
async fn each_redirect_of_the_storage_is_looked_at() {
    let mut between = following_to("\"127.0.0.1\"").await;
    let storage = Upstream::new().await;
    let events = Events::kept();
    let asked = request("GET", BLOB, "");
    let (mut peer, _) = fetched(&mut between, &storage, &asked, &storage.url()).await;
    let inside = Upstream::new().await;
    let port = inside.address().port();
    peer.send(redirect(&format!("http://localhost:{port}/x")))
        .await;
    assert_eq!(between.client.answer().await.0.status(), 502);
    assert_eq!(events.with("of this host or its link").len(), 1);
    inside.untouched().await;
}

#[tokio::test]
async fn redirects_to_a_host_are_followed_to_the_named_port_alone() {
    let storage = Upstream::new().await;
    let other = Upstream::new().await;
    let mut between = following_to(&format!("\"{}\"", storage.address())).await;
    let asked = request("GET", BLOB, "");
    let (mut peer, _) = fetched(&mut between, &storage, &asked, &storage.url()).await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 200);
    is_not_followed(&mut between, &other.url(), "of this host or its link").await;
    other.untouched().await;
}

#[tokio::test]
async fn redirects_to_moorgate_itself_are_never_followed() {
    let mut between = following_to("\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"").await;
    let gateway = &between.gateway;
    let own = [gateway.https(), gateway.http(), gateway.admin()];
    for address in own {
        for host in [
            format!("{}", address.ip()),
            format!("[::ffff:{}]", address.ip()),
        ] {
            let location = format!("http://{host}:{}/status", address.port());
            is_not_followed(&mut between, &location, "is a listener of moorgate").await;
        }
    }
    // The next configuration has the same listeners.
    between.gateway.app.reload().await.unwrap();
    let location = format!("http://{}/metrics", own[2]);
    is_not_followed(&mut between, &location, "is a listener of moorgate").await;
}
