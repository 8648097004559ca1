//! How long a push waits for another one of the same tag, and that the manifests that wait count in
//! the memory budget.

use crate::access::fixture::allow;
use crate::harness::{
    Clock, Domain, Gateway, RawPeer, Setup, Upstream, basic, json, promptly, request, seconds,
    settle,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A gateway where tags may be created and not overwritten, before a registry that does not answer.
async fn gateway(upstream: &Upstream) -> Gateway {
    let rules = allow("**", "'pull', 'push'");
    let domain = Domain::new("ci.test", &upstream.url()).tables(&rules);
    Setup::new().domain(domain).start().await
}

/// Begins to push a manifest.
async fn push(gateway: &Gateway, tag: &str, manifest: &[u8]) -> RawPeer<TlsStream<TcpStream>> {
    let mut client = promptly(gateway.client()).await;
    let length = format!("Content-Length: {}\r\n", manifest.len());
    let head = request("PUT", &format!("/v2/base/app/manifests/{tag}"), &length);
    client.send(head).await;
    promptly(client.try_send(manifest)).await.unwrap();
    client
}

/// Asserts that a push waits, and that it is refused after this time.
async fn is_refused_after<IO>(clock: &Clock, client: &mut RawPeer<IO>, limit: u64, message: &str)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    clock.jump(seconds(limit - 1)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")));
    let error = &json(&body)["errors"][0];
    assert_eq!(error["code"], "UNAVAILABLE");
    let text = error["message"].as_str().unwrap();
    assert!(text.starts_with(message), "{text}");
}

#[tokio::test]
async fn a_push_waits_thirty_seconds_for_another_of_its_tag() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = gateway(&upstream).await;
    let mut first = push(&gateway, "v1", b"{}").await;
    let mut registry = promptly(upstream.accept()).await;
    assert!(promptly(registry.head()).await.first.starts_with("HEAD "));
    let mut second = push(&gateway, "v1", b"{\"other\": 1}").await;
    upstream.untouched().await;
    let refused = "another push to this tag has not ended yet";
    is_refused_after(&clock, &mut second, 30, refused).await;
    upstream.untouched().await;

    // The first one goes on, and others find the tag unlocked when it has ended.
    let answer = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    registry.send(answer("404 Not Found")).await;
    assert!(promptly(registry.head()).await.first.starts_with("PUT "));
    assert_eq!(promptly(registry.bytes(2)).await, b"{}");
    registry.send(answer("201 Created")).await;
    assert_eq!(promptly(first.answer()).await.0.status(), 201);
    let _third = push(&gateway, "v1", b"{}").await;
    assert!(promptly(registry.head()).await.first.starts_with("HEAD "));
}

#[tokio::test]
async fn manifests_at_a_registry_that_does_not_answer_count_in_the_budget() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = gateway(&upstream).await;
    // 16 MiB for one user.
    let manifest = vec![b' '; 4 << 20];
    let mut registries = Vec::new();
    let mut pushes = Vec::new();
    for tag in ["v1", "v2", "v3", "v4"] {
        pushes.push(push(&gateway, tag, &manifest).await);
        let mut registry = promptly(upstream.accept()).await;
        assert!(promptly(registry.head()).await.first.starts_with("HEAD "));
        registries.push(registry);
    }
    let mut fifth = push(&gateway, "v5", b"{}").await;
    is_refused_after(
        &clock,
        &mut fifth,
        10,
        "too many manifests are being pushed",
    )
    .await;
    upstream.untouched().await;

    // The memory is released with the push.
    drop(registries.pop());
    assert_eq!(
        promptly(pushes.pop().unwrap().answer()).await.0.status(),
        502
    );
    let _sixth = push(&gateway, "v6", b"{}").await;
    let mut registry = promptly(upstream.accept()).await;
    assert!(promptly(registry.head()).await.first.starts_with("HEAD "));
}

/// Begins to push a manifest of 4 MiB, and sends a byte of it.
async fn push_slowly(gateway: &Gateway, user: &str, tag: &str) -> RawPeer<TlsStream<TcpStream>> {
    let mut client = promptly(gateway.client()).await;
    let login = basic(user, "secret");
    client
        .send(format!(
            "PUT /v2/base/app/manifests/{tag} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {login}\r\n\
             Content-Length: 4194304\r\n\r\n{{"
        ))
        .await;
    client
}

#[tokio::test]
async fn slow_manifests_take_memory_for_what_has_come_and_have_an_end() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let rules = allow("**", "'pull', 'push'").replace("'alice'", "'*'");
    let users = ["bob", "carol", "dave"];
    let domain = Domain::new("ci.test", &upstream.url()).tables(&rules);
    let domain = users
        .iter()
        .fold(domain, |domain, user| domain.user(user, "secret"));
    let gateway = Setup::new().domain(domain).start().await;
    let mut slow = Vec::new();
    for user in users.iter().chain(&["alice"]) {
        for tag in 0..8 {
            slow.push(push_slowly(&gateway, user, &format!("slow{tag}")).await);
        }
    }
    settle().await;
    let _fast = push(&gateway, "fast", b"{}").await;
    let mut registry = promptly(upstream.accept()).await;
    assert!(promptly(registry.head()).await.first.starts_with("HEAD "));

    // Progress does not renew the time of a manifest.
    for _ in 0..2 {
        clock.jump(seconds(14)).await;
        for client in &mut slow {
            client.send(" ").await;
        }
        settle().await;
    }
    clock.jump(seconds(1)).await;
    slow[0].silent().await;
    clock.jump(seconds(1)).await;
    for client in &mut slow {
        let (head, body) = promptly(client.answer()).await;
        assert_eq!(head.status(), 408);
        let text = json(&body)["errors"][0]["message"].to_string();
        assert!(text.contains("within 30 s of its first byte"), "{text}");
    }
}
