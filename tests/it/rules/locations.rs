//! Rule 5: what points at the upstream comes back as a URL on our side, what points elsewhere stays.

use crate::harness::{
    Domain, Head, Http2, ProxiedPair, Setup, bound, json, no_body, request, request2, url,
};

const UPLOADS: &str = "/v2/a/blobs/uploads/";
const BLOB: &str =
    "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The client's answer to an upload start at which the upstream sends this `Location`.
async fn accepted(between: &mut ProxiedPair, location: &str) -> Head {
    between
        .forwarded(request("POST", UPLOADS, "Content-Length: 0\r\n"))
        .await;
    let answer =
        format!("HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    between.answered(answer).await.0
}

/// The same for a redirect of a download.
async fn redirected(between: &mut ProxiedPair, location: &str) -> Head {
    between.forwarded(request("GET", BLOB, "")).await;
    let answer =
        format!("HTTP/1.1 307 Temporary\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    between.answered(answer).await.0
}

#[tokio::test]
async fn locations_of_the_registry_become_urls_of_the_request() {
    let mut between = ProxiedPair::new().await;
    let upstream = between.upstream.url();
    let here = "/v2/a/blobs/uploads/1?_state=x%2Fy==&z";
    for location in [
        format!("{upstream}{here}"),
        format!("{}{here}", upstream.to_uppercase()),
        here.to_owned(),
        // Whatever the registry believes to be called: `http.host`, a name of ours, another port.
        format!("http://registry.internal:5000{here}"),
        format!("https://ci.test{here}"),
        format!("http://ci.test:8080{here}"),
        format!("//{}{here}", between.upstream.address()),
        "1?_state=x%2Fy==&z".to_owned(),
        "./x/../1?_state=x%2Fy==&z".to_owned(),
    ] {
        let head = accepted(&mut between, &location).await;
        assert_eq!(head.status(), 202, "{location}");
        assert_eq!(
            head.get("location"),
            Some(url(&bound(here)).as_str()),
            "{location}"
        );
    }
}

#[tokio::test]
async fn a_repository_name_may_contain_blobs_uploads() {
    let mut between = ProxiedPair::new().await;
    let target = "/v2/x/blobs/uploads/y/blobs/uploads/";
    between
        .forwarded(request("POST", target, "Content-Length: 0\r\n"))
        .await;
    let session = format!("{target}0123-4567?_state=x");
    let answer =
        format!("HTTP/1.1 202 Accepted\r\nLocation: {session}\r\nContent-Length: 0\r\n\r\n");
    let (head, _) = between.answered(answer).await;
    assert_eq!(head.status(), 202);
    let location = head.get("location").unwrap();
    assert_eq!(location, url(&bound(&session)));
    let asked = between.passed(request("GET", location, "")).await;
    assert_eq!(asked.first, format!("GET {session} HTTP/1.1"));
}

#[tokio::test]
async fn locations_lose_the_base_path_of_the_upstream() {
    let mut between = ProxiedPair::with(|domain| domain.base_path("/registry/eu")).await;
    let upstream = between.upstream.url();
    for location in [
        format!("{upstream}/registry/eu/v2/a/blobs/uploads/1?s"),
        "/registry/eu/v2/a/blobs/uploads/1?s".to_owned(),
        "1?s".to_owned(),
        "../uploads/1?s".to_owned(),
        "https://ci.test/v2/a/blobs/uploads/1?s".to_owned(),
    ] {
        let head = accepted(&mut between, &location).await;
        assert_eq!(
            head.get("location"),
            Some(url(&bound("/v2/a/blobs/uploads/1?s")).as_str()),
            "{location}"
        );
    }
}

#[tokio::test]
async fn a_base_path_is_put_before_the_target() {
    let mut between = ProxiedPair::with(|domain| domain.base_path("/registry/eu/")).await;
    let asked = between
        .passed(request("GET", "/v2/a/tags/list?n=1", ""))
        .await;
    assert_eq!(asked.first, "GET /registry/eu/v2/a/tags/list?n=1 HTTP/1.1");
}

#[tokio::test]
async fn a_redirect_to_another_host_passes_unchanged() {
    let mut between = ProxiedPair::new().await;
    for location in [
        "https://s3.example.com/bucket/data?X-Amz-Signature=a%2Fb&x=../y",
        "http://127.0.0.1:1/v2/a/blobs/x",
        "https://ci.test:9000/bucket/data?sig=1",
        "https://S3.example.com",
    ] {
        let head = redirected(&mut between, location).await;
        assert_eq!(head.status(), 307);
        assert_eq!(head.get("location"), Some(location));
    }
}

#[tokio::test]
async fn a_network_path_to_another_host_is_no_path_of_ours() {
    let mut between = ProxiedPair::new().await;
    let head = redirected(&mut between, "//s3.example.com/bucket").await;
    // It is passed, with the scheme that it has at the upstream or without one, but never as a
    // path.
    let location = head.get("location").unwrap();
    assert!(
        location == "//s3.example.com/bucket" || location == "http://s3.example.com/bucket",
        "{location}"
    );
}

#[tokio::test]
async fn a_redirect_of_the_registry_to_another_call_is_left_to_the_client() {
    let mut between = ProxiedPair::new().await;
    let location = format!("{}/v2/b/manifests/v1?x", between.upstream.url());
    assert_eq!(
        redirected(&mut between, &location).await.get("location"),
        Some(url("/v2/b/manifests/v1?x").as_str())
    );
}

#[tokio::test]
async fn a_location_that_could_lead_anywhere_is_not_passed() {
    for location in [
        "javascript:alert(1)",
        "/\\evil.test/x",
        "http://user:pw@s3.example.com/",
        "http:///x",
        "/x//../..//evil.test",
    ] {
        let mut between = ProxiedPair::new().await;
        let head = redirected(&mut between, location).await;
        assert_eq!(head.status(), 502, "{location}");
        assert_eq!(head.get("location"), None, "{location}");
    }
}

#[tokio::test]
async fn a_rejected_location_is_reported_as_an_upstream_error() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", BLOB, "")).await;
    let (_, body) = between
        .answered("HTTP/1.1 307 T\r\nLocation: javascript:x\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn links_to_the_next_page_become_paths() {
    let mut between = ProxiedPair::new().await;
    let upstream = between.upstream.url();
    for link in [
        format!("<{upstream}/v2/_catalog?last=b&n=2>; rel=\"next\""),
        "</v2/_catalog?last=b&n=2>; rel=\"next\"".to_owned(),
        "<http://registry.internal/v2/_catalog?last=b&n=2>; rel=\"next\"".to_owned(),
        "<_catalog?last=b&n=2>; rel=\"next\"".to_owned(),
    ] {
        between
            .forwarded(request("GET", "/v2/_catalog?n=2", ""))
            .await;
        let answer = format!("HTTP/1.1 200 OK\r\nLink: {link}\r\nContent-Length: 2\r\n\r\n{{}}");
        let (head, _) = between.answered(answer).await;
        assert_eq!(
            head.get("link"),
            Some("</v2/_catalog?last=b&n=2>; rel=\"next\""),
            "{link}"
        );
    }
}

#[tokio::test]
async fn links_lose_the_base_path_of_the_upstream() {
    let mut between = ProxiedPair::with(|domain| domain.base_path("/eu")).await;
    between.forwarded(request("GET", "/v2/_catalog", "")).await;
    let answer = "HTTP/1.1 200 OK\r\nLink: </eu/v2/_catalog?last=b>; rel=next, <https://docs.example.com/>; rel=help\r\n\
                  Content-Length: 0\r\n\r\n";
    let (head, _) = between.answered(answer).await;
    assert_eq!(
        head.get("link"),
        Some("</v2/_catalog?last=b>; rel=next, <https://docs.example.com/>; rel=help")
    );
}

#[tokio::test]
async fn locations_are_rewritten_over_http2() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("POST", UPLOADS).body(no_body()).unwrap()));
    between.asked().await;
    let location = format!("{}/v2/a/blobs/uploads/1?_state=x", between.upstream.url());
    between
        .registry()
        .send(format!(
            "HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let (head, _) = answer.await.unwrap().unwrap();
    assert_eq!(
        head.headers.get("location").unwrap(),
        &url(&bound("/v2/a/blobs/uploads/1?_state=x"))
    );
}

#[tokio::test]
async fn a_location_has_the_host_and_port_that_the_client_named() {
    let store = Domain::store("ci.test", "ci");
    let gateway = Setup::new().domain(store).start().await;
    let mut between = ProxiedPair::new().await;
    for host in ["ci.test", "ci.test:8443", "CI.Test:443"] {
        let start = request("POST", UPLOADS, "Content-Length: 0\r\n").replacen("ci.test", host, 1);
        between.forwarded(&start).await;
        let answer =
            "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n";
        let (head, _) = between.answered(answer).await;
        let path = bound("/v2/a/blobs/uploads/1");
        assert_eq!(
            head.get("location"),
            Some(format!("https://{host}{path}").as_str())
        );
        let mut client = gateway.client().await;
        client.send(&start).await;
        let (head, _) = client.answer().await;
        let session = head.get("location").unwrap();
        let here = format!("https://{host}{UPLOADS}");
        assert!(session.starts_with(&here), "{session}");
    }
}

#[tokio::test]
async fn a_front_that_changes_the_host_can_have_paths() {
    let relative = "locations = \"relative\"";
    let mut between = ProxiedPair::with(|domain| domain.upstream(relative)).await;
    let session = format!("{}{UPLOADS}1?_state=x", between.upstream.url());
    let head = accepted(&mut between, &session).await;
    let path = bound("/v2/a/blobs/uploads/1?_state=x");
    assert_eq!(head.get("location"), Some(path.as_str()));
    let store = format!("directory = \"ci\"\n{relative}");
    let store = Domain::new("ci.test", "").upstream(&store);
    let gateway = Setup::new().domain(store).start().await;
    let mut client = gateway.client().await;
    client
        .send(request("POST", UPLOADS, "Content-Length: 0\r\n"))
        .await;
    let (head, _) = client.answer().await;
    assert!(head.get("location").unwrap().starts_with(UPLOADS));
}
