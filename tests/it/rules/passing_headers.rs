//! Rules 4 and 6: which headers pass, which are taken off and which are set, in both directions.

use crate::harness::{Http2, ProxiedPair, basic, no_body, request, request2};

const MANIFEST: &str = "/v2/a/manifests/v1";

#[tokio::test]
async fn claims_about_the_client_are_replaced() {
    let mut between = ProxiedPair::new().await;
    let lines = "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nX-FORWARDED-PROTO: http\r\n\
                 X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\n\
                 X-Forwarded-Uri: /x\r\nX-Forwarded-User: root\r\nX-Real-IP: 1.2.3.4\r\n";
    let asked = between.passed(request("GET", MANIFEST, lines)).await;
    assert_eq!(asked.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.get("x-forwarded-proto"), Some("https"));
    assert_eq!(asked.get("x-forwarded-host"), Some("ci.test"));
    let mut names: Vec<_> = asked
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto"
        ]
    );
}

#[tokio::test]
async fn names_with_underscores_do_not_pass() {
    let mut between = ProxiedPair::new().await;
    let lines = "X_Forwarded_For: 1.2.3.4\r\nX_REAL_IP: 1.2.3.4\r\nRemote_User: root\r\nContent_Length: 5\r\n\
                 Forwarded_: x\r\nX-Kept: 1\r\n";
    let asked = between.passed(request("GET", MANIFEST, lines)).await;
    assert!(
        asked.headers.iter().all(|(name, _)| !name.contains('_')),
        "{asked:?}"
    );
    assert_eq!(asked.get("x-kept"), Some("1"));
}

#[tokio::test]
async fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
    let mut between = ProxiedPair::new().await;
    let lines = "Connection: keep-alive, X-Hop\r\nConnection: x-other\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
                 Trailer: x\r\nX-Hop: 1\r\nX-Other: 1\r\nX-Kept: 1\r\n";
    let asked = between.passed(request("GET", MANIFEST, lines)).await;
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "x-hop",
        "x-other",
    ] {
        assert!(asked.all(name).is_empty(), "{name}: {asked:?}");
    }
    assert_eq!(asked.get("x-kept"), Some("1"));
}

#[tokio::test]
async fn connection_cannot_remove_headers_that_the_upstream_needs() {
    let mut between = ProxiedPair::with(|domain| domain.upstream("authorization = \"pass\"")).await;
    let lines = "Connection: Authorization, host, X-FORWARDED-FOR, x-forwarded-proto, x-forwarded-host, \
                 content-length\r\nContent-Length: 2\r\n";
    between
        .client
        .send(format!("{}hi", request("PUT", MANIFEST, lines)))
        .await;
    let asked = between.asked().await;
    assert_eq!(
        asked.get("authorization"),
        Some(basic("alice", "secret").as_str())
    );
    assert_eq!(
        asked.get("host"),
        Some(between.upstream.address().to_string().as_str())
    );
    assert_eq!(asked.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.get("x-forwarded-proto"), Some("https"));
    assert_eq!(asked.get("x-forwarded-host"), Some("ci.test"));
    assert_eq!(asked.get("content-length"), Some("2"));
    assert_eq!(between.registry().bytes(2).await, b"hi");
}

#[tokio::test]
async fn connection_naming_authorization_does_not_log_in_without_it() {
    let mut between = ProxiedPair::new().await;
    let request = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nConnection: authorization\r\n\r\n";
    assert_eq!(between.own_answer(request).await.0.status(), 401);
}

#[tokio::test]
async fn two_authorization_headers_are_refused() {
    let mut between = ProxiedPair::with(|domain| domain.upstream("authorization = \"pass\"")).await;
    for second in [
        basic("alice", "secret"),
        basic("alice", "wrong"),
        "Bearer x".to_owned(),
    ] {
        let lines = format!("Authorization: {second}\r\n");
        let (head, _) = between.own_answer(request("GET", "/v2/", &lines)).await;
        assert_eq!(head.status(), 400, "{second}");
    }
}

#[tokio::test]
async fn headers_of_registry_clients_pass_unchanged() {
    let mut between = ProxiedPair::new().await;
    let lines = "Accept: application/vnd.oci.image.index.v1+json\r\nAccept: */*\r\nAccept-Encoding: zstd;q=1.0, gzip\r\n\
                 User-Agent: docker/28\r\nRange: bytes=0-1\r\nIf-None-Match: \"x\"\r\nOCI-Filters: a\r\n";
    let asked = between.passed(request("GET", MANIFEST, lines)).await;
    assert_eq!(
        asked.all("accept"),
        ["application/vnd.oci.image.index.v1+json", "*/*"]
    );
    assert_eq!(asked.get("accept-encoding"), Some("zstd;q=1.0, gzip"));
    assert_eq!(asked.get("user-agent"), Some("docker/28"));
    assert_eq!(asked.get("range"), Some("bytes=0-1"));
    assert_eq!(asked.get("if-none-match"), Some("\"x\""));
    assert_eq!(asked.get("oci-filters"), Some("a"));
}

#[tokio::test]
async fn several_ranges_and_the_answer_to_them_pass_unchanged() {
    let mut between = ProxiedPair::new().await;
    let blob = format!("/v2/a/blobs/sha256:{}", "0".repeat(64));
    let lines = "Range: bytes=0-1,4-5\r\nIf-Range: \"x\"\r\n";
    let asked = between.forwarded(request("GET", &blob, lines)).await;
    assert_eq!(asked.get("range"), Some("bytes=0-1,4-5"));
    assert_eq!(asked.get("if-range"), Some("\"x\""));
    let part = |range, bytes| format!("--B\r\nContent-Range: bytes {range}/9\r\n\r\n{bytes}\r\n");
    let parts = format!("{}{}--B--\r\n", part("0-1", "ab"), part("4-5", "ef"));
    let answer = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\
         Content-Type: multipart/byteranges; boundary=B\r\n\r\n{parts}",
        parts.len()
    );
    let (head, body) = between.answered(answer).await;
    let content_type = head.get("content-type");
    assert_eq!(
        (head.status(), content_type),
        (206, Some("multipart/byteranges; boundary=B"))
    );
    assert_eq!(body, parts.as_bytes());
}

#[tokio::test]
async fn cookies_of_a_page_do_not_reach_the_registry() {
    let mut between = ProxiedPair::new().await;
    let asked = between
        .passed(request("GET", MANIFEST, "Cookie: session=1\r\n"))
        .await;
    assert_eq!(asked.get("cookie"), None);
}

#[tokio::test]
async fn headers_about_the_upstream_never_reach_the_client() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", MANIFEST, "")).await;
    let (head, _) = between
        .answered(
            "HTTP/1.1 404 Not Found\r\nWWW-Authenticate: Bearer realm=\"http://inside/token\"\r\nServer: nginx\r\n\
             Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nStrict-Transport-Security: max-age=1\r\nAlt-Svc: h3=\":1\"\r\n\
             Proxy-Authenticate: Basic\r\nKeep-Alive: timeout=1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Content-Length: 2\r\n\r\n{}",
        )
        .await;
    let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    // RFC 9110 §6.6.1: who forwards an answer without a date has to add it.
    assert_eq!(names, ["content-length", "date"]);
}

/// What clients work by.
const KEPT: &str = "Docker-Content-Digest: sha256:1\r\nETag: \"sha256:1\"\r\nContent-Type: application/x\r\n\
    Range: 0-99\r\nDocker-Upload-UUID: u\r\nOCI-Chunk-Min-Length: 5\r\nOCI-Subject: sha256:2\r\nOCI-Tag: v1\r\n\
    OCI-Filters-Applied: artifactType\r\nWarning: 299 - \"old\"\r\nWarning: 299 - \"older\"\r\n\
    Docker-Distribution-Api-Version: registry/2.0\r\nX-Content-Type-Options: nosniff\r\nAccept-Ranges: bytes\r\n\
    Content-Range: bytes 0-1/2\r\nCache-Control: max-age=31536000\r\nRetry-After: 7\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n";

fn lines(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    text.trim_end().split("\r\n").map(pair).collect()
}

#[tokio::test]
async fn headers_that_clients_need_reach_them() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", MANIFEST, "")).await;
    let (mut head, _) = between
        .answered(format!(
            "HTTP/1.1 206 Partial Content\r\n{KEPT}Content-Length: 2\r\n\r\n{{}}"
        ))
        .await;
    let mut expected = lines(KEPT);
    expected.push(("content-length".to_owned(), "2".to_owned()));
    expected.sort();
    head.headers.sort();
    assert_eq!(head.headers, expected);
}

#[tokio::test]
async fn headers_that_clients_need_reach_them_over_http2() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("GET", MANIFEST).body(no_body()).unwrap()));
    between.asked().await;
    between
        .registry()
        .send(format!(
            "HTTP/1.1 206 Partial\r\n{KEPT}Content-Length: 2\r\n\r\n{{}}"
        ))
        .await;
    let (head, body) = answer.await.unwrap().unwrap();
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    let mut expected = lines(KEPT);
    expected.push(("content-length".to_owned(), "2".to_owned()));
    expected.sort();
    headers.sort();
    assert_eq!(headers, expected);
    assert_eq!(&body[..], b"{}");
}
