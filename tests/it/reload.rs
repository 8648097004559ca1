//! Reloading: what is valid of a configuration is in force at once and cuts nothing, what is not
//! changes nothing.

mod files;
mod listeners;
mod scale;

use std::path::Path;
use std::time::Duration;

use moorgate::internal::app::StartError;
use rcgen::{CertificateParams, KeyPair};

use crate::harness::{Domain, Gateway, Head, ProxiedPair, Setup, Upstream, basic, jump, request};

/// The problems that a reload reports; nothing may have changed then.
async fn problems(gateway: &Gateway) -> String {
    match gateway.app.reload().await {
        Err(StartError::Configuration(problems)) => {
            problems.render(moorgate::internal::config::Colour::Never)
        }
        other => panic!("{other:?}"),
    }
}

/// Logs in for a ping, which the upstream of `ci.test` would answer.
async fn status_of(gateway: &Gateway, user: &str, password: &str) -> u16 {
    let mut client = gateway.client().await;
    let authorization = basic(user, password);
    // A path that is refused after the login, so that no upstream has to answer.
    client
        .send(format!(
            "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\
             Content-Length: 99999999\r\n\r\n"
        ))
        .await;
    let (head, _): (Head, _) = client.answer().await;
    head.status()
}

const LOGGED_IN: u16 = 413;

#[tokio::test]
async fn reload_takes_a_new_domain_into_force() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert!(gateway.tls("cache.test", &["http/1.1"]).await.is_err());
    let both = Setup::new()
        .domain(Domain::new("ci.test", &upstream.url()))
        .domain(Domain::new("cache.test", &upstream.url()));
    both.write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
    assert!(gateway.tls("cache.test", &["http/1.1"]).await.is_ok());
}

#[tokio::test]
async fn reload_takes_a_domain_out_of_force() {
    let upstream = Upstream::new().await;
    let cache = Domain::new("cache.test", &upstream.url());
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", &upstream.url()))
        .domain(cache)
        .start()
        .await;
    std::fs::remove_file(gateway.path("conf.d/cache.test.toml")).unwrap();
    gateway.app.reload().await.unwrap();
    assert!(gateway.tls("cache.test", &["http/1.1"]).await.is_err());
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
}

#[tokio::test]
async fn reload_takes_new_limits_into_force_on_open_connections() {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    let limited =
        Domain::new("ci.test", &between.upstream.url()).tables("[limits]\nmanifest = \"1KiB\"");
    Setup::new()
        .domain(limited)
        .write(between.gateway.directory.path());
    between.gateway.app.reload().await.unwrap();
    between
        .client
        .send(request(
            "PUT",
            "/v2/a/manifests/v1",
            "Content-Length: 2000\r\n",
        ))
        .await;
    assert_eq!(between.client.answer().await.0.status(), 413);
}

#[tokio::test]
async fn reload_takes_a_new_upstream_into_force() {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    let other = Upstream::new().await;
    Setup::new()
        .domain(Domain::new("ci.test", &other.url()))
        .write(between.gateway.directory.path());
    between.gateway.app.reload().await.unwrap();
    between
        .client
        .send(request("GET", "/v2/_catalog", ""))
        .await;
    assert_eq!(
        other.accept().await.head().await.first,
        "GET /v2/_catalog HTTP/1.1"
    );
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_is_reported() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let file = gateway.path("conf.d/ci.test.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (bad, reported) in [
        (good.replace("[upstream]", "[uptsream]"), "uptsream"),
        (good.replace("ci.test\"", "ci..test\""), "ci..test"),
        (
            good.replace("ci.test.htpasswd", "nowhere.htpasswd"),
            "nowhere.htpasswd",
        ),
        (format!("{good}\n= broken"), "ci.test.toml"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let problems = problems(&gateway).await;
        assert!(problems.contains(reported), "{problems}");
        assert_eq!(
            status_of(&gateway, "alice", "secret").await,
            LOGGED_IN,
            "{reported}"
        );
    }
}

#[tokio::test]
async fn one_bad_file_keeps_no_other_one_from_changing() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let cache = Domain::new("cache.test", &upstream.url());
    let limited = Domain::new("ci.test", &upstream.url()).tables("[limits]\nmanifest = \"1KiB\"");
    Setup::new()
        .domain(cache)
        .domain(limited)
        .write(gateway.directory.path());
    std::fs::write(gateway.path("conf.d/bad.toml"), "domain = 5").unwrap();
    assert!(problems(&gateway).await.contains("bad.toml"));
    assert!(gateway.tls("cache.test", &["http/1.1"]).await.is_ok());
}

#[tokio::test]
async fn reload_keeps_uploads_open() {
    let mut between = ProxiedPair::new().await;
    let head = request("PATCH", "/v2/a/blobs/uploads/1", "Content-Length: 10\r\n");
    between.forwarded(head + "12345").await;
    assert_eq!(between.registry().bytes(5).await, b"12345");
    // Everything about the domain changes, and then it is gone.
    let other = Upstream::new().await;
    let changed = Domain::new("ci.test", &other.url()).tables("[limits]\nbody = \"1KiB\"");
    let setup = Setup::new()
        .domain(changed)
        .domain(Domain::new("cache.test", &other.url()));
    setup.write(between.gateway.directory.path());
    between.gateway.app.reload().await.unwrap();
    std::fs::remove_file(between.gateway.path("conf.d/ci.test.toml")).unwrap();
    between.gateway.app.reload().await.unwrap();
    between.client.send("67890").await;
    assert_eq!(between.registry().bytes(5).await, b"67890");
    let (head, _) = between
        .answered("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(head.status(), 202);
}

#[tokio::test]
async fn reload_keeps_downloads_open() {
    let mut between = ProxiedPair::new().await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    between.client.head().await;
    let other = Upstream::new().await;
    Setup::new()
        .domain(Domain::new("cache.test", &other.url()))
        .write(between.gateway.directory.path());
    std::fs::remove_file(between.gateway.path("conf.d/ci.test.toml")).unwrap();
    between.gateway.app.reload().await.unwrap();
    between.registry().send("67890").await;
    assert_eq!(between.client.bytes(10).await, b"1234567890");
}

#[tokio::test]
async fn reload_adds_and_removes_listeners() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let first = gateway.https();
    let both = gateway.path("moorgate.toml");
    let main = std::fs::read_to_string(&both).unwrap();
    std::fs::write(
        &both,
        main.replace("\"127.0.0.1:0\"", "\"127.0.0.1:0\", \"127.0.0.4:0\""),
    )
    .unwrap();
    gateway.app.reload().await.unwrap();
    assert_eq!(gateway.https(), first, "what stays is not bound anew");
    let added = gateway
        .app
        .listeners()
        .into_iter()
        .find(|l| l.configured.0.ip().to_string() == "127.0.0.4")
        .unwrap();
    assert!(tokio::net::TcpStream::connect(added.bound).await.is_ok());
    std::fs::write(&both, main.replace("127.0.0.1:0", "127.0.0.4:0")).unwrap();
    gateway.app.reload().await.unwrap();
    assert!(
        gateway
            .app
            .listeners()
            .iter()
            .all(|listener| listener.bound != first)
    );
    until(async || tokio::net::TcpStream::connect(first).await.is_err()).await;
    assert!(tokio::net::TcpStream::connect(added.bound).await.is_ok());
}

/// Moves the clock on, past each look at the files, until something is so.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        jump(Duration::from_secs(2)).await;
        // The files are looked at on a blocking thread.
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
    }
}

fn write_users(path: &Path, users: &[(&str, &str)]) {
    let users: Vec<_> = users
        .iter()
        .map(|(user, password)| ((*user).to_owned(), (*password).to_owned()))
        .collect();
    std::fs::write(path, Domain::htpasswd(&users)).unwrap();
}

#[tokio::test]
async fn a_changed_htpasswd_file_takes_effect_by_itself() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    write_users(
        &gateway.path("conf.d/ci.test.htpasswd"),
        &[("alice", "new"), ("bob", "hush")],
    );
    until(async || status_of(&gateway, "bob", "hush").await == LOGGED_IN).await;
    assert_eq!(status_of(&gateway, "alice", "new").await, LOGGED_IN);
    assert_eq!(
        status_of(&gateway, "alice", "secret").await,
        401,
        "remembered, but no longer right"
    );
}

#[tokio::test]
async fn a_bad_htpasswd_file_keeps_the_last_good_one() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let file = gateway.path("conf.d/ci.test.htpasswd");
    std::fs::write(&file, "mallory:plain\n").unwrap();
    for _ in 0..3 {
        jump(Duration::from_secs(2)).await;
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
        assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
        assert_eq!(status_of(&gateway, "mallory", "plain").await, 401);
    }
    // That it was looked at shows when it is good again.
    write_users(&file, &[("bob", "hush")]);
    until(async || status_of(&gateway, "bob", "hush").await == LOGGED_IN).await;
    assert_eq!(status_of(&gateway, "alice", "secret").await, 401);
}

/// Writes a new certificate for `ci.test` and returns it in DER.
fn write_certificate(directory: &Path) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["ci.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::write(directory.join("ci.key"), key.serialize_pem()).unwrap();
    std::fs::write(directory.join("ci.pem"), certificate.pem()).unwrap();
    certificate.der().to_vec()
}

#[tokio::test]
async fn a_changed_certificate_file_takes_effect_on_the_next_handshake() {
    let directory = tempfile::tempdir().unwrap();
    let first = write_certificate(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let tls = format!(
        "certificate = \"{}\"\nkey = \"{}\"",
        file("ci.pem"),
        file("ci.key")
    );
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:1").tls(&tls))
        .start()
        .await;
    assert!(gateway.shows("ci.test", &first).await);
    let second = write_certificate(directory.path());
    until(async || gateway.shows("ci.test", &second).await).await;
    assert!(!gateway.shows("ci.test", &first).await);
    // A file that went wrong leaves the last good one.
    std::fs::write(directory.path().join("ci.pem"), "no certificate").unwrap();
    for _ in 0..3 {
        jump(Duration::from_secs(2)).await;
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
        assert!(gateway.shows("ci.test", &second).await);
    }
}
