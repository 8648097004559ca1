//! Which lists of tags are cut into pages, and which pass as they are.

use serde_json::json;

use crate::harness::{ProxiedPair, json as read, request};

fn listed(lines: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {length}\r\n\r\n{body}")
}

/// What a client gets for a target when the registry answers so; with the link.
async fn answered(target: &str, answer: String) -> (Option<String>, Vec<u8>) {
    let mut between = ProxiedPair::new().await;
    let asked = between.forwarded(request("GET", target, "")).await;
    let coding = target.contains('?').then_some("identity");
    assert_eq!(asked.get("accept-encoding"), coding);
    let (head, body) = between.answered(answer).await;
    assert_eq!(head.status(), 200);
    let link = head.get("link").map(str::to_owned);
    (link, body.to_vec())
}

#[tokio::test]
async fn a_whole_list_is_sorted_and_cut() {
    let body = r#"{"child":["x"],"tags":["c","a","b","d"],"name":"a"}"#;
    let tags = |tags: &[&str]| json!({"name": "a", "tags": tags});
    for (query, seen, last) in [
        ("?n=2", &["a", "b"][..], Some("b")),
        ("?n=2&last=a", &["b", "c"], Some("c")),
        ("?n=2&last=b", &["c", "d"], None),
        ("?n=2&last=aa", &["b", "c"], Some("c")),
        ("?n=3&last=z", &[], None),
        ("?last=b", &["c", "d"], None),
        ("?n=4&last=c", &["d"], None),
        ("?n=0", &[], None),
        ("?n=0&last=a", &[], None),
    ] {
        let target = format!("/v2/a/tags/list{query}");
        let (link, page) = answered(&target, listed("", body)).await;
        assert_eq!(read(&page), tags(seen), "{query}");
        let n = query.chars().nth(3).unwrap();
        let expected =
            last.map(|last| format!("</v2/a/tags/list?n={n}&last={last}>; rel=\"next\""));
        assert_eq!(link, expected, "{query}");
    }
}

#[tokio::test]
async fn any_other_list_passes_as_it_is() {
    let body = r#"{ "tags" : ["c","a"],"name":"a","x":1}"#;
    let null = r#"{"name":"a","tags":null}"#;
    let next = "Link: </v2/a/tags/list?n=1&last=c>; rel=\"next\"\r\n";
    for (query, lines, body) in [
        ("", "", body),
        ("?n=2", "", body),
        ("?n=1000", "", body),
        // A page of a registry that knows what is next.
        ("?n=1", next, body),
        // After a token of the registry's own.
        ("?n=2&last=dG9rZW4%3D", "", body),
        ("?last=dG9rZW4%3D", "", body),
        ("?n=1", "", null),
        ("?n=1", "", "no JSON [\"tags\""),
        ("?n=1", "Content-Encoding: gzip\r\n", body),
    ] {
        let target = format!("/v2/a/tags/list{query}");
        let (link, page) = answered(&target, listed(lines, body)).await;
        assert_eq!(String::from_utf8(page).unwrap(), body, "{query}");
        assert_eq!(link.is_some(), lines == next, "{query}");
    }
}

#[tokio::test]
async fn a_list_too_long_to_be_kept_has_its_tags() {
    let filling = json!("x".repeat(1 << 10));
    for filled in [3, 6] {
        let fillings = vec![filling.clone(); filled << 10];
        let body = json!({"manifest": fillings, "name": "a", "tags": ["b", "a"]}).to_string();
        let (link, page) = answered("/v2/a/tags/list?n=2", listed("", &body)).await;
        let page = read(&page);
        assert_eq!(link, None);
        assert_eq!(page.get("manifest").is_some(), filled == 3);
        let mut tags: Vec<String> = serde_json::from_value(page["tags"].clone()).unwrap();
        tags.sort();
        assert_eq!(tags, ["a", "b"]);
    }
}

#[tokio::test]
async fn a_registry_that_gives_no_empty_page_is_asked_for_one_entry() {
    let mut between = ProxiedPair::new().await;
    let target = "/v2/a/tags/list?n=0";
    between.forwarded(request("GET", target, "")).await;
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
    between.registry().send(refused).await;
    let asked = between.asked().await;
    assert_eq!(asked.first, "GET /v2/a/tags/list?n=1 HTTP/1.1");
    let next = "Link: </v2/a/tags/list?n=1&last=a>; rel=\"next\"\r\n";
    let answer = listed(next, r#"{"name":"a","tags":["a"]}"#);
    let (head, body) = between.answered(answer).await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.get("link"), None);
    assert_eq!(read(&body), json!({"name": "a", "tags": []}));
}

#[tokio::test]
async fn a_list_that_ends_early_is_none() {
    let mut between = ProxiedPair::new().await;
    between
        .forwarded(request("GET", "/v2/a/tags/list?n=1", ""))
        .await;
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                  18\r\n{\"name\":\"a\",\"tags\":[\"a\"\r\nno chunk\r\n";
    between.registry().send(broken).await;
    assert_eq!(between.client.answer().await.0.status(), 502);
}
