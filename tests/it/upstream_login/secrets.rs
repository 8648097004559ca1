//! Passwords in files, which change while moorgate runs.

use super::played::{OWN, PlayedLogin, ask, replace};
use crate::harness::{Domain, Gateway, ProxiedPair, Setup, basic, request};

const LIST: &str = "/v2/a/tags/list";
const OF_FILE: &str = "username = \"gate\"\npassword = { file = \"password\" }";

async fn with_file(upstream: &str) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    crate::harness::gateway::write_session_key(&directory.path().join("state"));
    std::fs::create_dir_all(directory.path().join("conf.d")).unwrap();
    std::fs::write(directory.path().join("conf.d/password"), "inside\n").unwrap();
    let domain = Domain::new("ci.test", upstream).upstream(OF_FILE);
    let setup = Setup::new().domain(domain);
    setup
        .try_start_in(directory)
        .await
        .map_err(|_| "it starts")
        .unwrap()
}

#[tokio::test]
async fn a_rotated_password_gets_the_next_token() {
    let played = PlayedLogin::new().await;
    let gateway = with_file(&played.url).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    played.set(|state| {
        state.password = "rotated".to_owned();
        state.revoke();
    });
    replace(&gateway.path("conf.d/password"), "rotated\n");
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
}

#[tokio::test]
async fn a_password_that_changes_after_a_refusal_works_at_once() {
    let played = PlayedLogin::new().await;
    played.set(|state| state.password = "rotated".to_owned());
    let gateway = with_file(&played.url).await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    }
    replace(&gateway.path("conf.d/password"), "rotated\n");
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
}

#[tokio::test]
async fn a_rotated_password_is_sent_to_a_registry_that_takes_passwords() {
    let between = ProxiedPair::with(|domain| domain.upstream(OWN)).await;
    let gateway = with_file(&between.upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("GET", LIST, "")).await;
    let mut registry = between.upstream.accept().await;
    let first = registry.head().await;
    assert_eq!(
        first.get("authorization"),
        Some(basic("gate", "inside").as_str())
    );
    replace(&gateway.path("conf.d/password"), "rotated\n");
    registry
        .send("HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\r\n")
        .await;
    let second = registry.head().await;
    assert_eq!(
        second.get("authorization"),
        Some(basic("gate", "rotated").as_str())
    );
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.0.status(), 200);
}
