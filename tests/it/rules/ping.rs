//! Rule 2: the ping without credentials is always 401 with one challenge, of one scheme.

use crate::harness::{Head, Http2, ProxiedPair, no_body};

/// The challenges of an answer, each scheme a value of its own.
fn challenges(head: &Head) -> Vec<&str> {
    head.all("www-authenticate")
}

#[tokio::test]
async fn the_ping_without_credentials_gets_exactly_one_challenge() {
    let mut between = ProxiedPair::new().await;
    for path in ["/v2/", "/v2"] {
        let (head, _) = between
            .own_answer(format!("GET {path} HTTP/1.1\r\nHost: ci.test\r\n\r\n"))
            .await;
        assert_eq!(head.status(), 401);
        assert_eq!(challenges(&head), ["Basic realm=\"ci.test\""]);
    }
}

#[tokio::test]
async fn the_ping_by_head_gets_the_same_challenge() {
    let mut between = ProxiedPair::new().await;
    between
        .client
        .send("HEAD /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    let head = between.client.head().await;
    assert_eq!(head.status(), 401);
    assert_eq!(challenges(&head), ["Basic realm=\"ci.test\""]);
    between.upstream.untouched().await;
}

#[tokio::test]
async fn the_ping_over_http2_gets_the_same_challenge() {
    let between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let request = http::Request::get("https://ci.test/v2/")
        .body(no_body())
        .unwrap();
    let (head, _) = client.send(request).await.unwrap();
    assert_eq!(head.status, 401);
    let all: Vec<_> = head.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(all, ["Basic realm=\"ci.test\""]);
}

#[tokio::test]
async fn the_challenge_names_the_realm_of_the_configuration() {
    let mut between = ProxiedPair::with(|domain| domain.auth("realm = \"CI registry\"")).await;
    let (head, _) = between
        .own_answer("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    assert_eq!(challenges(&head), ["Basic realm=\"CI registry\""]);
}

#[tokio::test]
async fn another_scheme_is_challenged_and_never_passed_on() {
    let mut between = ProxiedPair::with(|domain| domain.upstream("authorization = \"pass\"")).await;
    for value in [
        "Bearer abc",
        "Negotiate abc",
        "Basic",
        "Basic !!",
        "Digest username=\"alice\"",
    ] {
        let request =
            format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {value}\r\n\r\n");
        let (head, _) = between.own_answer(request).await;
        assert_eq!(head.status(), 401, "{value}");
        assert_eq!(challenges(&head), ["Basic realm=\"ci.test\""], "{value}");
    }
}

#[tokio::test]
async fn an_empty_pair_counts_as_no_credentials() {
    let mut between = ProxiedPair::new().await;
    let (head, _) = between
        .own_answer("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Basic Og==\r\n\r\n")
        .await;
    assert_eq!(head.status(), 401);
    assert_eq!(between.gateway.app.hashes(), 0, "nothing was hashed for it");
}
