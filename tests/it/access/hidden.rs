//! A repository that one may not see answers as one that does not exist: the same status, code and
//! words.

use super::fixture::{AccessFixture, KINDS, allow};
use crate::harness::{ProxiedPair, request};
use crate::store::client::Answer;
use crate::store::image::sha256;

/// What a client can tell of an answer.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let is_stable = |name: &str| !matches!(name, "date");
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| is_stable(name.as_str()));
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (
        answer.status,
        headers,
        String::from_utf8_lossy(&answer.body).into_owned(),
    )
}

#[tokio::test]
async fn an_invisible_repository_answers_as_a_nonexistent_one() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &allow("own/**", "'pull', 'push'")).await;
        let image = fixture.seeded(1, &["secret/app"], "v1").await;
        let (digest, blob) = (image.digest(), sha256(&image.layers[0]));
        let targets = [
            ("GET", "manifests/v1".to_owned()),
            ("HEAD", "manifests/v1".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("HEAD", format!("manifests/{digest}")),
            ("GET", format!("blobs/{blob}")),
            ("HEAD", format!("blobs/{blob}")),
            ("GET", format!("referrers/{digest}")),
            ("GET", "tags/list".to_owned()),
            ("GET", "tags/list?n=5&last=a".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
            ("DELETE", format!("manifests/{digest}")),
            ("DELETE", format!("blobs/{blob}")),
        ];
        for (method, target) in targets {
            // Who may see everything is told the truth about what is not there; as long as the
            // other name.
            let truth = fixture
                .client("root")
                .ask(method, &format!("/v2/secret/nil/{target}"))
                .await;
            let denied = fixture
                .client("alice")
                .ask(method, &format!("/v2/secret/app/{target}"))
                .await;
            let (status, headers, body) = seen(&denied);
            let denied = (status, headers, body.replace("secret/app", "secret/nil"));
            assert_eq!(denied, seen(&truth), "{kind:?} {method} {target}");
            let free = fixture
                .client("alice")
                .ask(method, &format!("/v2/secret/nil/{target}"))
                .await;
            assert_eq!(seen(&free), seen(&truth), "{kind:?} {method} {target}");
        }
        fixture
            .client("root")
            .check("secret/app", "v1", &image)
            .await;
    }
}

#[tokio::test]
async fn a_push_is_refused_alike_whether_the_repository_exists_or_not() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &allow("own/**", "'pull', 'push'")).await;
        let image = fixture.seeded(1, &["secret/app"], "v1").await;
        let mut alice = fixture.client("alice");
        for (method, target) in [
            ("POST", "blobs/uploads/".to_owned()),
            (
                "POST",
                format!(
                    "blobs/uploads/?mount={}&from=own/app",
                    sha256(&image.config)
                ),
            ),
            ("PATCH", "blobs/uploads/1".to_owned()),
            ("GET", "blobs/uploads/1".to_owned()),
            ("DELETE", "blobs/uploads/1".to_owned()),
            ("PUT", format!("blobs/uploads/1?digest={}", image.digest())),
            ("PUT", "manifests/v1".to_owned()),
            ("PUT", format!("manifests/{}", image.digest())),
        ] {
            let there = alice.ask(method, &format!("/v2/secret/app/{target}")).await;
            let nowhere = alice.ask(method, &format!("/v2/secret/nil/{target}")).await;
            let there_says = there
                .refused(403, "DENIED")
                .replace("secret/app", "secret/nil");
            assert_eq!(
                there_says,
                nowhere.refused(403, "DENIED"),
                "{kind:?} {method} {target}"
            );
        }
    }
}

#[tokio::test]
async fn errors_of_the_registry_have_the_requested_name() {
    let rules = allow("own/**", "'pull'");
    let mut between = ProxiedPair::with(|domain| domain.tables(&rules)).await;
    let digest = sha256(b"x");
    for method in ["GET", "HEAD"] {
        let target = format!("/v2/secret/app/manifests/{digest}?ns=a%2Fb");
        let asked = between.forwarded(request(method, &target, "")).await;
        // Another name of as many levels, and GET either way, so that the length of the words is
        // known.
        let path = asked.first.strip_prefix("GET /v2/").unwrap();
        let (name, rest) = path.split_once("/manifests/").unwrap();
        assert_eq!(rest, format!("{digest}?ns=a%2Fb HTTP/1.1"));
        assert!(
            name.split('/').count() == 2 && name.len() == 65 && !name.contains("secret"),
            "{name}"
        );
        let words = |name: &str| {
            format!("{{\"errors\":[{{\"code\":\"X\",\"detail\":{{\"name\":\"{name}\"}}}}]}}")
        };
        let said = words(name);
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\
             Link: </v2/{name}/x>; rel=\"next\"\r\n\r\n{said}",
            said.len()
        );
        between.registry().send(answer).await;
        let head = between.client.head().await;
        let expected = words("secret/app");
        assert_eq!((head.status(), head.length()), (404, Some(expected.len())));
        assert_eq!(head.get("link"), Some("</v2/secret/app/x>; rel=\"next\""));
        if method == "GET" {
            assert_eq!(
                between.client.bytes(expected.len()).await,
                expected.as_bytes()
            );
        }
    }
}

#[tokio::test]
async fn bodies_that_are_rewritten_are_requested_without_compression() {
    let mut between = ProxiedPair::with(|domain| domain.tables(&allow("own/**", "'pull'"))).await;
    let lines = "Accept-Encoding: gzip, br\r\nRange: bytes=5-\r\nIf-Range: \"a\"\r\nIf-None-Match: \"a\"\r\n\
        If-Match: *\r\nIf-Modified-Since: Fri, 27 Nov 2026 00:00:00 GMT\r\n\
        If-Unmodified-Since: Fri, 27 Nov 2026 00:00:00 GMT\r\nAccept: a/b\r\n";
    let asked = between
        .forwarded(request("GET", "/v2/secret/app/manifests/v1", lines))
        .await;
    assert_eq!(
        (asked.get("accept"), asked.get("accept-encoding")),
        (Some("a/b"), Some("identity"))
    );
    for name in [
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
    ] {
        assert_eq!(asked.get(name), None, "{name}");
    }
    // Compressed all the same, nobody can put the right name into it.
    let answer =
        "HTTP/1.1 404 Not Found\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\u{1f}x";
    let (head, _) = between.answered(answer).await;
    assert_eq!((head.status(), head.get("content-encoding")), (502, None));
}
