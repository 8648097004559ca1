//! Rule 3: path and query reach the upstream byte for byte, or not at all.

use crate::harness::{Http2, ProxiedPair, json, no_body, request, request2};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn targets_reach_the_upstream_byte_for_byte() {
    let mut between = ProxiedPair::new().await;
    let targets = [
        "/v2/".to_owned(),
        "/v2".to_owned(),
        "/v2/?".to_owned(),
        "/v2/_catalog?n=10&last=a%2Fb".to_owned(),
        "/v2/a/b/c/tags/list?n=0".to_owned(),
        format!("/v2/a/blobs/{DIGEST}"),
        format!("/v2/a/blobs/{}?ns=docker.io", DIGEST.replace(':', "%3a")),
        format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A")),
        "/v2/a/manifests/v1?a=b&a=c&&=&%20%7e=+".to_owned(),
        "/v2/a/blobs/uploads/x-y_z?_state=eyJ%2B%2F%3D-_.~".to_owned(),
        format!("/v2/a/referrers/{DIGEST}?artifactType=application%2Fvnd.x%2Bjson"),
    ];
    for target in targets {
        let asked = between.passed(request("GET", &target, "")).await;
        assert_eq!(asked.first, format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn unusual_bytes_in_a_query_are_forwarded_unchanged() {
    let mut between = ProxiedPair::new().await;
    for query in [
        "x={}|^`'!$()*,:@[]~",
        "x=%00%ff%E2%82%AC",
        "?",
        "??a=/../b//c/./d",
        "a=%2e%2E%2f",
    ] {
        let target = format!("/v2/a/manifests/v1?{query}");
        let asked = between.passed(request("GET", &target, "")).await;
        assert_eq!(asked.first, format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_trailing_slash_and_the_state_stay_on_uploads() {
    let mut between = ProxiedPair::new().await;
    for (method, target) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", "/v2/a/blobs/uploads".to_owned()),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount={DIGEST}&from=b%2Fc"),
        ),
        ("PATCH", "/v2/a/blobs/uploads/1?_state=a%3D%3D".to_owned()),
        (
            "PUT",
            format!(
                "/v2/a/blobs/uploads/1?_state=a%3D%3D&digest={}",
                DIGEST.replace(':', "%3A")
            ),
        ),
    ] {
        let asked = between
            .passed(request(method, &target, "Content-Length: 0\r\n"))
            .await;
        assert_eq!(asked.first, format!("{method} {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn targets_come_through_http2_unchanged() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let target = "/v2/a/blobs/uploads/x?_state=a%2Fb%3D&x={}|";
    let answer = tokio::spawn(client.send(request2("GET", target).body(no_body()).unwrap()));
    assert_eq!(
        between.asked().await.first,
        format!("GET {target} HTTP/1.1")
    );
    between
        .registry()
        .send("HTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert_eq!(answer.await.unwrap().unwrap().0.status, 204);
}

/// Forms under which a path could mean another one to the upstream.
const CROOKED: [&str; 27] = [
    "/v2/../v2/a/tags/list",
    "/v2/./a/tags/list",
    "/v2/a/../b/tags/list",
    "/v2/..",
    "/v2/.",
    "/v2//a/tags/list",
    "//v2/a/tags/list",
    "/v2/a//tags/list",
    "/v2/a%2fb/tags/list",
    "/v2/a%2Fb/tags/list",
    "/v2%2fa/tags/list",
    "/v2/%2e%2e/tags/list",
    "/v2/a/%2E/tags/list",
    "/v2/a/.%2e/tags/list",
    "/v2/a%00/tags/list",
    "/v2/a\\b/tags/list",
    "/v2/a%5cb/tags/list",
    "/v2/a%252fb/tags/list",
    "/v2/a;x/tags/list",
    "/v2/a%3bx/tags/list",
    "/v2/%61/tags/list",
    "/v2/a%/tags/list",
    "/v2/a/%3a/tags/list",
    "/x/../v2/a/tags/list",
    "/%2e%2e/v2/a/tags/list",
    "/x%2f..%2fv2/a/tags/list",
    "/x\\..\\v2/a/tags/list",
];

#[tokio::test]
async fn ambiguous_paths_are_refused_and_never_forwarded() {
    // With a page server too, for the paths outside `/v2/`.
    let browser = crate::harness::Upstream::new().await;
    let table = format!("[browser]\nurl = \"{}\"", browser.url());
    let between = ProxiedPair::with(|domain| domain.tables(&table)).await;
    for path in CROOKED {
        let (head, _) = between.own_answer_apart(request("GET", path, "")).await;
        assert!(matches!(head.status(), 400 | 404), "{path}: {head:?}");
        browser.untouched().await;
    }
}

#[tokio::test]
async fn ambiguous_paths_are_refused_over_http2_too() {
    let browser = crate::harness::Upstream::new().await;
    let table = format!("[browser]\nurl = \"{}\"", browser.url());
    let between = ProxiedPair::with(|domain| domain.tables(&table)).await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    for path in CROOKED {
        // What the client's own types cannot say it cannot send.
        let Ok(request) = request2("GET", path).body(no_body()) else {
            continue;
        };
        let (head, _) = client.send(request).await.unwrap();
        assert!(
            matches!(head.status.as_u16(), 400 | 404),
            "{path}: {head:?}"
        );
        between.upstream.untouched().await;
        browser.untouched().await;
    }
}

#[tokio::test]
async fn what_the_registry_protocol_does_not_know_is_never_forwarded() {
    let mut between = ProxiedPair::new().await;
    for (method, path, status) in [
        ("GET", "/v2/a/b", 404),
        ("GET", "/v2/_nodes", 404),
        ("GET", "/v2/a/tags/list/", 404),
        ("GET", "/v2/A/tags/list", 400),
        ("GET", "/v2/-a/tags/list", 400),
        ("GET", "/v2/a/blobs/latest", 400),
        ("GET", "/v2/a/blobs/sha256:abc", 400),
        ("GET", "/v2/a/manifests/..x", 404),
        ("PUT", "/v2/a/manifests/..x", 400),
        ("OPTIONS", "/v2/", 405),
        ("TRACE", "/v2/a/tags/list", 405),
        ("get", "/v2/", 405),
        ("DELETE", "/v2/a/tags/list", 405),
        ("POST", "/v2/a/manifests/v1", 405),
        ("PATCH", "/v2/a/blobs/uploads/", 405),
        ("PUT", "/v2/a/blobs/uploads/1", 400),
    ] {
        let (head, body) = between.own_answer(request(method, path, "")).await;
        assert_eq!(head.status(), status, "{method} {path}");
        assert!(json(&body)["errors"][0]["code"].is_string());
        assert_eq!(
            head.get("allow").is_some(),
            status == 405,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn version_1_of_the_protocol_gets_404_in_json_at_once() {
    let mut between = ProxiedPair::new().await;
    for path in ["/v1/_ping", "/v1/search?q=x", "/v1/", "/v1"] {
        // Without credentials: an old client must not be asked for any.
        let (head, body) = between
            .own_answer(format!("GET {path} HTTP/1.1\r\nHost: ci.test\r\n\r\n"))
            .await;
        assert_eq!(head.status(), 404, "{path}");
        assert_eq!(head.get("content-type"), Some("application/json"));
        assert_eq!(json(&body)["errors"][0]["code"], "UNSUPPORTED");
    }
}
