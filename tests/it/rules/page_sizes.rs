//! Lists are requested in pages that every registry gives.

use crate::harness::{ProxiedPair, request};

const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
const LISTED: &str = "HTTP/1.1 200 OK\r\nLink: </v2/a/tags/list?n=1000&last=z>; rel=\"next\"\r\n\
                      Content-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_page_is_at_most_as_large_as_registries_give() {
    let mut between = ProxiedPair::new().await;
    let referrers = format!("/v2/a/referrers/sha256:{}", "0".repeat(64));
    for list in ["/v2/a/tags/list", "/v2/_catalog", &referrers] {
        for (requested, forwarded) in [
            ("?n=10000", "?n=1000"),
            ("?last=a%2Fb&%6e=4294967295&x=y", "?last=a%2Fb&n=1000&x=y"),
            ("?n=1000&last=b", "?n=1000&last=b"),
            ("?n=5", "?n=5"),
            ("?n=0", "?n=0"),
            ("?last=b", "?last=b"),
            ("", ""),
        ] {
            let target = format!("{list}{requested}");
            let asked = between.forwarded(request("GET", &target, "")).await;
            assert_eq!(asked.first, format!("GET {list}{forwarded} HTTP/1.1"));
            let (head, _) = between.answered(LISTED).await;
            let next = "</v2/a/tags/list?n=1000&last=z>; rel=\"next\"";
            // Behind no tags, there are no more.
            let is_empty = target == "/v2/a/tags/list?n=0";
            assert_eq!(head.get("link"), (!is_empty).then_some(next));
        }
    }
}

#[tokio::test]
async fn a_registry_of_smaller_pages_is_asked_again() {
    let mut between = ProxiedPair::new().await;
    for (requested, first) in [("n=10000&last=b", "n=1000&last=b"), ("n=101", "n=101")] {
        let target = format!("/v2/a/tags/list?{requested}");
        let asked = between
            .forwarded(request("GET", &target, "Accept: x\r\n"))
            .await;
        assert_eq!(asked.first, format!("GET /v2/a/tags/list?{first} HTTP/1.1"));
        between.registry().send(REFUSED).await;
        let asked = between.asked().await;
        let again = format!("n=100{}", first.strip_prefix("n=1000").unwrap_or_default());
        assert_eq!(asked.first, format!("GET /v2/a/tags/list?{again} HTTP/1.1"));
        assert_eq!(asked.get("accept"), Some("x"));
        assert_eq!(between.answered(LISTED).await.0.status(), 200);
    }
    // What a smaller page does not help against is passed on.
    for requested in ["n=100", "last=b", "n=200"] {
        let target = format!("/v2/a/tags/list?{requested}");
        between.forwarded(request("GET", &target, "")).await;
        if requested == "n=200" {
            between.registry().send(REFUSED).await;
            between.asked().await;
        }
        assert_eq!(between.answered(REFUSED).await.0.status(), 400);
    }
}

#[tokio::test]
async fn a_filtered_catalog_is_read_in_smaller_pages_too() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n";
    let mut between = ProxiedPair::with(|domain| domain.tables(rules)).await;
    for (requested, queries) in [
        ("n=10000", &["n=1000", "n=100"][..]),
        ("n=9&last=b", &["n=1000&last=b", "n=100&last=b"]),
        (
            "n=9&last=b",
            &["n=1000&last=b", "n=100&last=b", "n=1000", "n=100"],
        ),
    ] {
        let target = format!("/v2/_catalog?{requested}");
        between.client.send(request("GET", &target, "")).await;
        for (at, query) in queries.iter().enumerate() {
            let asked = between.asked().await;
            assert_eq!(asked.first, format!("GET /v2/_catalog?{query} HTTP/1.1"));
            if at + 1 < queries.len() {
                between.registry().send(REFUSED).await;
            }
        }
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"repositories\":[\"b\",\"c\"]}";
        let (head, body) = between.answered(page).await;
        assert_eq!(head.status(), 200);
        let names = crate::harness::json(&body)["repositories"].clone();
        assert_eq!(names.as_array().unwrap().last().unwrap(), "c");
    }
}
