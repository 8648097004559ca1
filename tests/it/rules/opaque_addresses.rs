//! Rule 5: any address on the registry's own host leads back there, whatever its path.

use crate::harness::{Head, ProxiedPair, RawPeer, Upstream, basic, json, request, url};

const UPLOADS: &str = "/v2/a/blobs/uploads/";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const BLOB: &str =
    "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OWN: &str = "product = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"";

/// As Google's Artifact Registry names a session, which takes more than a thousand characters.
fn google() -> String {
    let id = "AHf3wE4n-_".repeat(110);
    format!("/artifacts-uploads/namespaces/p/repositories/r/uploads/{id}")
}

/// As GitHub's registry does.
const GITHUB: &str = "/v2/a/blobs/upload/1:3f1c6f6e-8d5e";

fn located(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} S\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// Opens an upload for which the registry gives this address. Returns that of the client.
async fn started(between: &mut ProxiedPair, location: &str) -> String {
    let start = request("POST", UPLOADS, "Content-Length: 0\r\n");
    between.forwarded(start).await;
    let (head, _) = between.answered(located(202, location)).await;
    assert_eq!(head.status(), 202, "{location}");
    let session = head.get("location").unwrap().to_owned();
    assert!(session.starts_with(&url(UPLOADS)), "{location}: {session}");
    session
}

#[tokio::test]
async fn an_upload_goes_to_whatever_address_the_registry_gave_it() {
    for address in [
        google(),
        GITHUB.to_owned(),
        "/uploads?id=a%2Fb&x={}".to_owned(),
        // The upload of another name, as it is called inside.
        "/v2/library/a/blobs/uploads/1?_state=x".to_owned(),
        "/v2/a/blobs/uploads/~1".to_owned(),
        "/v2/a/blobs/uploads/a%3Ab".to_owned(),
    ] {
        let mut between = ProxiedPair::new().await;
        let session = started(&mut between, &address).await;
        let chunk = request("PATCH", &session, "Content-Length: 0\r\n");
        let asked = between.forwarded(chunk).await;
        assert_eq!(asked.first, format!("PATCH {address} HTTP/1.1"));
        // Every step may give another.
        let next = format!(
            "{address}{}step=2",
            if address.contains('?') { '&' } else { '?' }
        );
        let (head, _) = between.answered(located(202, &next)).await;
        let session = head.get("location").unwrap().to_owned();
        for method in ["GET", "DELETE"] {
            let asked = between.passed(request(method, &session, "")).await;
            assert_eq!(asked.first, format!("{method} {next} HTTP/1.1"));
        }
        let sign = if session.contains('?') { '&' } else { '?' };
        let commit = format!("{session}{sign}digest={DIGEST}");
        let asked = between
            .forwarded(request("PUT", &commit, "Content-Length: 0\r\n"))
            .await;
        assert_eq!(asked.first, format!("PUT {next}&digest={DIGEST} HTTP/1.1"));
        let (head, _) = between.answered(located(201, "/artifacts/1")).await;
        assert_eq!(head.get("location"), Some(url(BLOB).as_str()));
    }
}

#[tokio::test]
async fn the_own_host_is_known_in_every_form() {
    let mut between = ProxiedPair::new().await;
    let address = between.upstream.address();
    for own in [
        format!("http://{address}"),
        // As the client's side has it.
        format!("https://{address}"),
        format!("//{address}"),
        format!("https://{}", address.ip()),
        format!("http://{}:1", address.ip()),
        "https://ci.test".to_owned(),
    ] {
        let session = started(&mut between, &format!("{own}/uploads/1")).await;
        let asked = between.passed(request("GET", &session, "")).await;
        assert_eq!(asked.first, "GET /uploads/1 HTTP/1.1", "{own}");
    }
    // With the port that this client named, too.
    let start = request("POST", UPLOADS, "Content-Length: 0\r\n");
    between
        .forwarded(start.replacen("ci.test", "ci.test:5001", 1))
        .await;
    let (head, _) = between
        .answered(located(202, "https://ci.test:5001/uploads/1"))
        .await;
    let session = head.get("location").unwrap();
    assert!(session.starts_with("https://ci.test:5001/v2/a/blobs/uploads/"));
    // Relative ones are relative to what the registry was asked.
    let session = started(&mut between, "../../../../uploads/1").await;
    let chunk = request("PATCH", &session, "Content-Length: 0\r\n");
    between.forwarded(chunk).await;
    let (head, _) = between.answered(located(202, "2")).await;
    let asked = between
        .passed(request("GET", head.get("location").unwrap(), ""))
        .await;
    assert_eq!(asked.first, "GET /uploads/2 HTTP/1.1");
}

#[tokio::test]
async fn an_address_beside_the_base_path_stays_there() {
    for (address, target) in [
        ("/uploads/1", "/uploads/1"),
        ("/registry/eu/uploads/1", "/registry/eu/uploads/1"),
        ("../../../../uploads/1", "/registry/eu/uploads/1"),
    ] {
        let mut between = ProxiedPair::with(|domain| domain.base_path("/registry/eu")).await;
        let session = started(&mut between, address).await;
        let asked = between.passed(request("GET", &session, "")).await;
        assert_eq!(asked.first, format!("GET {target} HTTP/1.1"), "{address}");
    }
}

#[tokio::test]
async fn an_address_belongs_to_its_user_and_repository() {
    let with = |domain: crate::harness::Domain| domain.user("bob", "secret");
    let mut between = ProxiedPair::with(with).await;
    let session = started(&mut between, "/uploads/1").await;
    let other = started(&mut between, "/admin").await;
    let (address, tag) = session.rsplit_once('~').unwrap();
    let (other_address, _) = other.rsplit_once('~').unwrap();
    let alice = |target: &str| request("GET", target, "");
    let bob = basic("bob", "secret");
    for request in [
        alice(&session).replace(&basic("alice", "secret"), &bob),
        alice(&session.replacen("/v2/a/", "/v2/b/", 1)),
        alice(&format!("{other_address}~{tag}")),
        alice(address),
        alice(&format!("{address}~")),
        // What the address is, without a tag.
        alice(&url("/v2/a/blobs/uploads/~L2FkbWlu")),
    ] {
        let (head, body) = between.own_answer(&request).await;
        assert_eq!(head.status(), 404, "{request}");
        assert_eq!(json(&body)["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn an_address_that_is_too_long_is_said_to_be() {
    let mut between = ProxiedPair::new().await;
    let start = request("POST", UPLOADS, "Content-Length: 0\r\n");
    for length in [5000, 6000] {
        between.forwarded(&start).await;
        let address = format!("/uploads/{}", "x".repeat(length - "/uploads/".len()));
        let (head, body) = between.answered(located(202, &address)).await;
        if length == 5000 {
            let session = head.get("location").unwrap().to_owned() + "?digest=" + DIGEST;
            let put = request("PUT", &session, "Content-Length: 0\r\n");
            let asked = between.passed(put).await;
            assert!(asked.first.starts_with(&format!("PUT {address}?digest=")));
            continue;
        }
        assert_eq!(head.status(), 502);
        let message = json(&body)["errors"][0]["message"].to_string();
        assert!(message.contains("6000 characters"), "{message}");
    }
}

#[tokio::test]
async fn what_was_pushed_is_found_under_its_own_name() {
    let mut between = ProxiedPair::new().await;
    let mount = format!("{UPLOADS}?mount={DIGEST}&from=b");
    let whole = format!("{UPLOADS}?digest={DIGEST}");
    let manifest = "/v2/a/manifests/v1";
    for (method, target, place) in [
        ("POST", mount.as_str(), BLOB),
        ("POST", whole.as_str(), BLOB),
        ("PUT", manifest, manifest),
    ] {
        let lines = "Content-Length: 0\r\nContent-Type: application/x\r\n";
        between.forwarded(request(method, target, lines)).await;
        let (head, _) = between.answered(located(201, "/artifacts/1")).await;
        assert_eq!(head.get("location"), Some(url(place).as_str()), "{target}");
    }
}

fn found(location: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nDocker-Content-Digest: {DIGEST}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// A download that the registry redirects; the next head that it sees.
async fn redirected(between: &mut ProxiedPair, method: &str, lines: &str, to: &str) -> Head {
    between.forwarded(request(method, BLOB, lines)).await;
    between.registry().send(found(to)).await;
    between.asked().await
}

#[tokio::test]
async fn a_download_elsewhere_at_the_registry_is_fetched_there() {
    for mode in ["pass", "follow"] {
        let keys = format!("redirects = \"{mode}\"\n{OWN}");
        let mut between = ProxiedPair::with(|domain| domain.upstream(&keys)).await;
        let lines = "Range: bytes=2-3\r\nAccept: */*\r\n";
        let to = "/artifacts-downloads/x?sig=a%2Fb";
        let asked = redirected(&mut between, "GET", lines, to).await;
        assert_eq!(asked.first, format!("GET {to} HTTP/1.1"));
        let credentials = basic("gate", "inside");
        assert_eq!(asked.get("authorization"), Some(credentials.as_str()));
        assert_eq!(asked.get("range"), Some("bytes=2-3"));
        let part = "HTTP/1.1 206 P\r\nContent-Range: bytes 2-3/9\r\nContent-Length: 2\r\n\r\nab";
        let (head, body) = between.answered(part).await;
        assert_eq!((head.status(), body.as_slice()), (206, b"ab".as_slice()));
        assert_eq!(head.get("docker-content-digest"), Some(DIGEST));
        assert_eq!(head.get("location"), None);
        let asked = redirected(&mut between, "HEAD", "", "https://ci.test/x").await;
        assert_eq!(asked.first, "HEAD /x HTTP/1.1");
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\n\r\n";
        let head = between.answered_head(length).await;
        assert_eq!(head.get("content-length"), Some("12345678901"));
    }
}

#[tokio::test]
async fn the_storage_behind_a_redirect_at_the_registry_sees_no_credentials() {
    for (mode, hosts) in [("pass", ""), ("follow", "follow_hosts = [\"127.0.0.1\"]")] {
        let keys = format!("redirects = \"{mode}\"\n{hosts}\n{OWN}");
        let mut between = ProxiedPair::with(|domain| domain.upstream(&keys)).await;
        let storage = Upstream::new().await;
        redirected(&mut between, "GET", "", "/downloads/x").await;
        let there = format!("{}/bucket", storage.url());
        if mode == "pass" {
            let (head, _) = between.answered(found(&there)).await;
            assert_eq!(
                (head.status(), head.get("location")),
                (302, Some(there.as_str()))
            );
            storage.untouched().await;
            continue;
        }
        between.registry().send(found(&there)).await;
        let mut peer: RawPeer<_> = storage.accept().await;
        let asked = peer.head().await;
        assert_eq!((asked.get("authorization"), asked.headers.len()), (None, 1));
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(between.client.answer().await.1, b"ok");
    }
}

#[tokio::test]
async fn redirects_within_the_registry_end() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", BLOB, "")).await;
    for asked in 0..20 {
        between
            .registry()
            .send(found(&format!("/again/{asked}")))
            .await;
        let head = tokio::select! {
            head = between.client.head() => head,
            _ = async {
                let registry = between.registry.as_mut().unwrap();
                match registry.try_head().await {
                    Some(head) => head,
                    None => std::future::pending().await,
                }
            } => continue,
        };
        assert_eq!(head.status(), 502);
        assert!(asked <= 5, "{asked}");
        return;
    }
    panic!("no end of it");
}

#[tokio::test]
async fn a_write_that_is_redirected_out_of_the_protocol_is_refused() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("DELETE", BLOB, "")).await;
    let (head, body) = between.answered(located(307, "/artifacts/1")).await;
    assert_eq!(head.status(), 502);
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
    // A Location without a meaning leads to nothing.
    between.forwarded(request("GET", BLOB, "")).await;
    let (head, _) = between.answered(located(200, "/artifacts/1")).await;
    assert_eq!((head.status(), head.get("location")), (200, None));
}

#[tokio::test]
async fn the_inner_address_of_content_is_left_out() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", BLOB, "")).await;
    let inner = format!("{}/artifacts/1", between.upstream.url());
    let (head, _) = between
        .answered(format!(
            "HTTP/1.1 200 OK\r\nContent-Location: {inner}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(head.get("content-location"), None);
}
