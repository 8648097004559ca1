//! Names that the registry cannot have.

use super::fixture::{DIGEST, MAP, mapped_pair};
use crate::harness::{ProxiedPair, json, request};

const NO_RULE: &str = "no rule for names covers it";
const SEPARATOR: &str = "a component of it contains `--`";
const TOO_LONG: &str = "longer there than the 255 characters";

#[tokio::test]
async fn a_name_without_a_counterpart_is_refused_with_the_reason() {
    let pair = mapped_pair().await;
    let long = format!("ci/{}", "a".repeat(250));
    for (name, reason) in [
        ("other/app", NO_RULE),
        ("ci", NO_RULE),
        ("acme/ci-app", NO_RULE),
        ("mirror/app", NO_RULE),
        ("ci/a--b", SEPARATOR),
        ("ci/a/b---c", SEPARATOR),
        (&long, TOO_LONG),
    ] {
        for (method, target, status, code) in [
            ("GET", "manifests/v1".to_owned(), 404, "NAME_UNKNOWN"),
            ("GET", format!("blobs/{DIGEST}"), 404, "NAME_UNKNOWN"),
            ("GET", "tags/list".to_owned(), 404, "NAME_UNKNOWN"),
            ("GET", format!("referrers/{DIGEST}"), 404, "NAME_UNKNOWN"),
            ("DELETE", "manifests/v1".to_owned(), 404, "NAME_UNKNOWN"),
            ("POST", "blobs/uploads/".to_owned(), 400, "NAME_INVALID"),
            (
                "POST",
                format!("blobs/uploads/?mount={DIGEST}&from=ci/app"),
                400,
                "NAME_INVALID",
            ),
            ("PUT", "manifests/v1".to_owned(), 400, "NAME_INVALID"),
        ] {
            let target = format!("/v2/{name}/{target}");
            let (head, body) = pair.own_answer_apart(request(method, &target, "")).await;
            assert_eq!(head.status(), status, "{method} {target}");
            let error = &json(&body)["errors"][0];
            assert_eq!(error["code"], code, "{method} {target}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(reason), "{method} {target}: {message}");
        }
    }
}

#[tokio::test]
async fn a_refused_manifest_is_read_so_that_its_client_reads_the_refusal() {
    let mut pair = mapped_pair().await;
    // So that the password is known, and the next answer could come at once.
    let first = request("GET", "/v2/other/app/tags/list", "");
    assert_eq!(pair.own_answer(first).await.0.status(), 404);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let lines = format!("Content-Type: {kind}\r\nContent-Length: 8\r\n");
    pair.client
        .send(request("PUT", "/v2/other/app/manifests/v1", &lines) + "{}")
        .await;
    pair.client.silent().await;
    let (head, _) = pair.own_answer("      ").await;
    assert_eq!(head.status(), 400);
}

#[tokio::test]
async fn with_a_rule_for_all_names_only_the_separator_is_refused() {
    let map = "[[upstream.map]]\nprefix = ''\nto = 'acme/'\nflatten = '_'\n";
    let mut pair = ProxiedPair::with(|domain| domain.tables(map)).await;
    for (name, inside) in [("a", "a"), ("a/b/c", "a_b_c"), ("a-b/c.d", "a-b_c.d")] {
        let asked = pair
            .passed(request("GET", &format!("/v2/{name}/tags/list"), ""))
            .await;
        assert_eq!(
            asked.first,
            format!("GET /v2/acme/{inside}/tags/list HTTP/1.1")
        );
    }
    let (head, _) = pair
        .own_answer_apart(request("GET", "/v2/a_b/tags/list", ""))
        .await;
    assert_eq!(head.status(), 404);
}

#[tokio::test]
async fn whoever_is_not_logged_in_learns_nothing_of_the_map() {
    let pair = mapped_pair().await;
    for target in ["/v2/other/app/tags/list", "/v2/ci/a--b/tags/list"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: ci.test\r\n\r\n");
        let (head, _) = pair.own_answer_apart(request).await;
        assert_eq!(head.status(), 401, "{target} {MAP}");
    }
}
