//! The admin listener: health and status, only for those who ask by address, and only to be read.

use tokio::net::TcpStream;

use crate::harness::{Domain, Gateway, Head, RawPeer, Setup, Upstream, json};

async fn ask(gateway: &Gateway, request: &str) -> (Head, Vec<u8>) {
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    client.send(request).await;
    client.answer().await
}

async fn get(gateway: &Gateway, path: &str) -> (Head, Vec<u8>) {
    ask(
        gateway,
        &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin()),
    )
    .await
}

#[tokio::test]
async fn health_and_readiness_are_reported() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let (head, body) = get(&gateway, path).await;
        assert_eq!((head.status(), body.as_slice()), (200, text.as_bytes()));
        assert_eq!(head.get("cache-control"), Some("no-store"));
    }
    assert_eq!(get(&gateway, "/metricsx").await.0.status(), 404);
}

#[tokio::test]
async fn the_status_says_what_is_served() {
    let upstream = Upstream::new().await;
    let ci = Domain::new("ci.test", &upstream.url())
        .user("bob", "hush")
        .top("aliases = [\"alias.test\"]");
    let ci = ci.upstream("username = \"gate\"\npassword = \"inside\"");
    let ci = ci.tables("[browser]\nurl = \"http://browser.test:8080\"");
    let gateway = Setup::new()
        .domain(ci)
        .domain(Domain::new("cache.test", "https://up.test/x"))
        .start()
        .await;
    let (head, body) = get(&gateway, "/status").await;
    assert_eq!(
        (head.status(), head.get("content-type")),
        (200, Some("application/json"))
    );
    let status = json(&body);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ready"], true);
    assert!(status["started"].as_str().unwrap().ends_with('Z'));
    let logins = status["logins"].as_object().unwrap();
    let none = [
        "hashed",
        "waiting",
        "remembered",
        "refused",
        "known_wrong",
        "failing_addresses",
        "failing_users",
    ];
    assert!(none.iter().all(|count| logins[*count] == 0), "{logins:?}");
    let domains = status["domains"].as_array().unwrap();
    let ci = domains
        .iter()
        .find(|domain| domain["domain"] == "ci.test")
        .unwrap();
    assert_eq!(ci["aliases"], serde_json::json!(["alias.test"]));
    assert_eq!(ci["upstream"], upstream.url());
    assert_eq!(ci["browser"], "http://browser.test:8080");
    assert_eq!(ci["users"], 2);
    let cache = domains
        .iter()
        .find(|domain| domain["domain"] == "cache.test")
        .unwrap();
    assert_eq!(
        (&cache["upstream"], &cache["browser"]),
        (&"https://up.test/x".into(), &serde_json::Value::Null)
    );
    let certificates = status["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2, "{status}");
    assert!(
        certificates
            .iter()
            .all(|c| c["not_after"].is_string() && c["problem"].is_null()),
        "{status}"
    );
    let mut kinds: Vec<_> = status["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["kind"].as_str().unwrap())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["admin", "http", "https"]);
    let text = status.to_string();
    for secret in ["secret", "hush", "inside", "$2", "alice"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn head_has_the_head_and_no_body() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    let head = "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await.length(), Some(3));
    client.ended().await;
}

#[tokio::test]
async fn other_methods_than_get_and_head_are_refused() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request =
            format!("{method} /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let (head, _) = ask(&gateway, &request).await;
        assert_eq!(
            (head.status(), head.get("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_page_that_asks_through_its_own_name_learns_nothing() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    for host in ["evil.test", "localhost.evil.test", "ci.test", ""] {
        let (head, _) = ask(
            &gateway,
            &format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        )
        .await;
        assert_eq!(head.status(), 421, "{host:?}");
    }
    let two = "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n";
    assert_eq!(ask(&gateway, two).await.0.status(), 421);
    for host in ["localhost", "127.0.0.3:80", "[::1]"] {
        let (head, _) = ask(
            &gateway,
            &format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        )
        .await;
        assert_eq!(head.status(), 200, "{host}");
    }
}
