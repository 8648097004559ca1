//! `Location` and `Link` with the names that clients know.

use super::fixture::{DIGEST, mapped_pair};
use crate::harness::{Head, ProxiedPair, bound, request, url};

async fn head_for(pair: &mut ProxiedPair, method: &str, target: &str, answer: &str) -> Head {
    pair.forwarded(request(method, target, "")).await;
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
    pair.answered(answer).await.0
}

#[tokio::test]
async fn an_upload_goes_on_at_the_name_that_its_client_knows() {
    let mut pair = mapped_pair().await;
    let upstream = pair.upstream.url();
    for location in [
        format!("{upstream}/v2/acme/ci-a--b/blobs/uploads/0-1?_state=x%3D"),
        "/v2/acme/ci-a--b/blobs/uploads/0-1?_state=x%3D".to_owned(),
        "0-1?_state=x%3D".to_owned(),
    ] {
        let answer = format!("202 Accepted\r\nLocation: {location}");
        let head = head_for(&mut pair, "POST", "/v2/ci/a/b/blobs/uploads/", &answer).await;
        let outside = "/v2/ci/a/b/blobs/uploads/0-1?_state=x%3D";
        assert_eq!(
            head.get("location"),
            Some(&*url(&bound(outside))),
            "{location}"
        );
        let asked = pair.passed(request("PATCH", outside, "")).await;
        assert_eq!(
            asked.first,
            "PATCH /v2/acme/ci-a--b/blobs/uploads/0-1?_state=x%3D HTTP/1.1"
        );
    }
}

#[tokio::test]
async fn an_upload_at_another_address_goes_on_there() {
    let mut pair = mapped_pair().await;
    for address in [
        "/artifacts-uploads/acme?x=%2F",
        // Of another repository, whatever it is called outside.
        "/v2/mirror/app/blobs/uploads/0-1?x",
        "/v2/elsewhere/blobs/uploads/0-1",
    ] {
        let answer = format!("202 Accepted\r\nLocation: {address}");
        let head = head_for(&mut pair, "POST", "/v2/ci/a/b/blobs/uploads/", &answer).await;
        let location = head.get("location").unwrap().to_owned();
        assert!(
            location.starts_with("https://ci.test/v2/ci/a/b/blobs/uploads/~"),
            "{location}"
        );
        let target = location.strip_prefix("https://ci.test").unwrap();
        let asked = pair.passed(request("PATCH", target, "")).await;
        assert_eq!(asked.first, format!("PATCH {address} HTTP/1.1"));
    }
}

#[tokio::test]
async fn what_was_created_is_at_the_name_that_its_client_knows() {
    let mut pair = mapped_pair().await;
    let mount = format!("/v2/ci/a/b/blobs/uploads/?mount={DIGEST}&from=base/app");
    let outside = url(&format!("/v2/ci/a/b/blobs/{DIGEST}"));
    for location in [
        format!("/v2/acme/ci-a--b/blobs/{DIGEST}"),
        format!("/v2/elsewhere/blobs/{DIGEST}"),
        "/somewhere/else".to_owned(),
    ] {
        let answer = format!("201 Created\r\nLocation: {location}");
        let head = head_for(&mut pair, "POST", &mount, &answer).await;
        assert_eq!(head.get("location"), Some(&*outside), "{location}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_repository_leads_to_its_name_outside_or_nowhere() {
    for (location, outside) in [
        (
            "/v2/mirror/a/b/manifests/v1",
            Some("/v2/base/a/b/manifests/v1"),
        ),
        (
            "/v2/acme/ci-a--b/manifests/v1?x=%2F",
            Some("/v2/ci/a/b/manifests/v1?x=%2F"),
        ),
        ("/v2/", Some("/v2/")),
        ("/v2/elsewhere/manifests/v1", None),
    ] {
        let mut pair = mapped_pair().await;
        let answer = format!("307 Temporary Redirect\r\nLocation: {location}");
        let head = head_for(&mut pair, "GET", "/v2/ci/app/manifests/v1", &answer).await;
        let (status, outside) = outside.map_or((502, None), |path| (307, Some(url(path))));
        assert_eq!(
            (head.status(), head.get("location")),
            (status, outside.as_deref()),
            "{location}"
        );
    }
}

#[tokio::test]
async fn links_lead_to_names_that_clients_know() {
    let mut pair = mapped_pair().await;
    let upstream = pair.upstream.url();
    for (link, outside) in [
        (
            "</v2/acme/ci-a--b/tags/list?n=2&last=x%2F>; rel=\"next\"".to_owned(),
            Some("</v2/ci/a/b/tags/list?n=2&last=x%2F>; rel=\"next\""),
        ),
        (
            format!("<{upstream}/v2/mirror/a/tags/list>; rel=next; title=\"a, b\""),
            Some("</v2/base/a/tags/list>; rel=next; title=\"a, b\""),
        ),
        (
            format!("</v2/acme/ci-a--b/referrers/{DIGEST}?t=1>;rel=next, <https://docs.test/>"),
            Some(&*format!(
                "</v2/ci/a/b/referrers/{DIGEST}?t=1>;rel=next, <https://docs.test/>"
            )),
        ),
        ("</v2/elsewhere/tags/list>; rel=\"next\"".to_owned(), None),
        ("</acme/ci-a--b>; rel=\"next\"".to_owned(), None),
    ] {
        let answer = format!("200 OK\r\nLink: {link}");
        let head = head_for(&mut pair, "GET", "/v2/ci/a/b/tags/list", &answer).await;
        assert_eq!(head.get("link"), outside, "{link}");
    }
}
