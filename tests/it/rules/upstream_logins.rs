//! What is said when a registry does not accept a login: the cause, and whose it is.

use crate::harness::{Domain, ProxiedPair, basic, json, request};

const BASIC: &str = "Basic realm=\"inside, Bearer\"";
const BEARER: &str = "Bearer realm=\"https://auth.inside/token\",service=\"inside\"";
const OWN: &str = "product = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"";
const PASS: &str = "authorization = \"pass\"";

/// Status and message with which a request ends that the upstream refuses with these challenges.
async fn said(keys: &str, challenges: &[&str]) -> (u16, String) {
    let mut between = ProxiedPair::with(|domain| domain.upstream(keys)).await;
    between
        .forwarded(request("GET", "/v2/a/tags/list", ""))
        .await;
    let lines: String = challenges
        .iter()
        .map(|challenge| format!("WWW-Authenticate: {challenge}\r\n"))
        .collect();
    let answer = format!("HTTP/1.1 401 U\r\n{lines}Content-Length: 2\r\n\r\n{{}}");
    let (head, body) = between.answered(answer).await;
    let shown = String::from_utf8(body.clone()).unwrap() + &format!("{head:?}");
    assert!(!shown.contains("auth.inside"), "{shown}");
    let message = json(&body)["errors"][0]["message"].clone();
    (
        head.status(),
        message.as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn a_registry_that_wants_tokens_is_said_to() {
    let both = format!("{BEARER}, {BASIC}");
    for (keys, challenge, status, words) in [
        ("", BEARER, 502, "this registry wants tokens"),
        (OWN, BEARER, 502, "does not accept this proxy's own login"),
        (PASS, BEARER, 502, "this registry wants tokens"),
        (OWN, "bearer", 502, "does not accept this proxy's own login"),
        ("", BASIC, 502, "set [upstream] username and password"),
        (
            "",
            both.as_str(),
            502,
            "set [upstream] username and password",
        ),
        (OWN, BASIC, 502, "does not accept this proxy's own login"),
        (
            OWN,
            both.as_str(),
            502,
            "does not accept this proxy's own login",
        ),
        (PASS, BASIC, 401, ""),
        (PASS, both.as_str(), 401, ""),
    ] {
        let (answered, message) = said(keys, &[challenge]).await;
        assert_eq!(answered, status, "{keys} {challenge}: {message}");
        assert!(message.contains(words), "{keys} {challenge}: {message}");
    }
    let (_, message) = said(OWN, &[BEARER, BASIC]).await;
    assert!(message.contains("this proxy's own login"), "{message}");
    let (_, message) = said(OWN, &[]).await;
    assert!(message.contains("this proxy's own login"), "{message}");
}

#[tokio::test]
async fn who_is_not_logged_in_is_asked_to_even_where_tokens_are_wanted() {
    let keys = |domain: Domain| domain.upstream(PASS).auth("anonymous = \"pull\"");
    let mut between = ProxiedPair::with(keys).await;
    let line = format!("Authorization: {}\r\n", basic("alice", "secret"));
    let anonymous = request("GET", "/v2/a/tags/list", "").replace(&line, "");
    between.forwarded(anonymous).await;
    let answer =
        format!("HTTP/1.1 401 U\r\nWWW-Authenticate: {BEARER}\r\nContent-Length: 0\r\n\r\n");
    let (head, _) = between.answered(answer).await;
    assert_eq!(head.status(), 401);
    assert!(head.get("www-authenticate").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn the_check_of_a_tag_says_why_it_could_not_be_made() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['push']\n";
    let mut between = ProxiedPair::with(|domain| domain.upstream(OWN).tables(rules)).await;
    let put = request(
        "PUT",
        "/v2/a/manifests/v1",
        "Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 2\r\n",
    );
    let asked = between.forwarded(put + "{}").await;
    assert!(asked.first.starts_with("HEAD "), "{asked:?}");
    let answer =
        format!("HTTP/1.1 401 U\r\nWWW-Authenticate: {BEARER}\r\nContent-Length: 0\r\n\r\n");
    let (head, body) = between.answered(answer).await;
    assert_eq!(head.status(), 502);
    let message = json(&body)["errors"][0]["message"].to_string();
    assert!(message.contains("this proxy's own login"), "{message}");
}

#[tokio::test]
async fn a_storage_that_refuses_is_not_taken_for_the_registry() {
    let keys = format!("redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]\n{OWN}");
    let mut between = ProxiedPair::with(|domain| domain.upstream(&keys)).await;
    let storage = crate::harness::Upstream::new().await;
    let blob = format!("/v2/a/blobs/sha256:{}", "0".repeat(64));
    between.forwarded(request("GET", &blob, "")).await;
    let there = storage.url();
    between
        .registry()
        .send(format!(
            "HTTP/1.1 307 T\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let mut peer = storage.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 401 U\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (head, body) = between.client.answer().await;
    assert_eq!(head.status(), 502);
    let message = json(&body)["errors"][0]["message"].to_string();
    assert!(message.contains("storage"), "{message}");
}
