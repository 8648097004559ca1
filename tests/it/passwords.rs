//! Passwords: who gets in, what a wrong one tells, and what a right one costs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use moorgate::internal::app::{App, StartError, StartOptions};
use moorgate::internal::listen::InheritedSockets;

use crate::harness::{Domain, Gateway, Head, Setup, Upstream, basic, jump, promptly, seconds};

/// Asks for `/v2/` with these Authorization lines and plays an upstream that has nothing against
/// it.
async fn ask(gateway: &Gateway, upstream: &Upstream, host: &str, lines: &str) -> Head {
    let tls = gateway.tls(host, &["http/1.1"]).await.unwrap();
    let mut client = crate::harness::RawPeer::new(tls);
    client
        .send(format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"))
        .await;
    tokio::select! {
        (head, _) = client.answer() => head,
        mut registry = upstream.accept() => {
            registry.head().await;
            registry.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await;
            client.answer().await.0
        }
    }
}

async fn login(gateway: &Gateway, upstream: &Upstream, user: &str, password: &str) -> u16 {
    let line = format!("Authorization: {}\r\n", basic(user, password));
    ask(gateway, upstream, "ci.test", &line).await.status()
}

#[tokio::test]
async fn a_hundred_concurrent_logins_cost_one_hash() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    // A cost at which all of them arrive while the first is checked.
    change(
        &gateway,
        &format!("alice:{}\n", bcrypt::hash("secret", 11).unwrap()),
    )
    .await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(gateway.client().await);
    }
    let line = format!("Authorization: {}\r\n", basic("alice", "secret"));
    for client in &mut clients {
        client
            .send(format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n{line}\r\n"))
            .await;
    }
    let played = async {
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut registry = upstream.accept().await;
            registry.head().await;
            all.push(registry);
        }
        // Not before: the connection of an answered request may be used by a later one.
        for registry in &mut all {
            registry
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
        }
        all
    };
    let _registries = promptly(played).await;
    for client in &mut clients {
        assert_eq!(promptly(client.answer()).await.0.status(), 200);
    }
    assert_eq!(gateway.app.hashes(), 1);
}

#[tokio::test]
async fn a_repeated_wrong_password_costs_one_hash_for_known_and_unknown_users() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    change(
        &gateway,
        &format!("alice:{}\n", bcrypt::hash("secret", 11).unwrap()),
    )
    .await;
    for (user, hashes) in [("alice", 1), ("nobody", 2)] {
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(gateway.client().await);
        }
        let line = format!("Authorization: {}\r\n", basic(user, "wrong"));
        for client in &mut clients {
            client
                .send(format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n{line}\r\n"))
                .await;
        }
        for client in &mut clients {
            assert_eq!(promptly(client.answer()).await.0.status(), 401);
        }
        assert_eq!(gateway.app.hashes(), hashes, "{user}");
    }
    upstream.untouched().await;
}

#[tokio::test]
async fn a_cached_password_costs_no_hash_and_admits_no_other() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    for _ in 0..3 {
        assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    }
    assert_eq!(gateway.app.hashes(), 1);
    for wrong in ["secre", "secret ", "Secret", ""] {
        assert_eq!(
            login(&gateway, &upstream, "alice", wrong).await,
            401,
            "{wrong:?}"
        );
    }
    assert_eq!(gateway.app.hashes(), 5);
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let upstream = Upstream::new().await;
    let domain = Domain::new("ci.test", &upstream.url());
    let gateway = Setup::new().domain(domain).unbounded().start().await;
    // The cost of alice's own entry is far below the highest.
    let entries = [("alice", 4), ("bob", 8)];
    let lines =
        entries.map(|(user, cost)| format!("{user}:{}\n", bcrypt::hash("secret", cost).unwrap()));
    change(&gateway, &lines.concat()).await;
    let users = ["alice", "bob", "nobody"];
    let mut samples: [Vec<Duration>; 3] = Default::default();
    for round in 0..60 {
        // Another one begins each time, so that none of them always comes behind the same.
        for user in (0..3).map(|place| (place + round) % 3) {
            let (user, samples) = (users[user], &mut samples[user]);
            let line = format!(
                "Authorization: {}\r\n",
                basic(user, &format!("wrong{round}"))
            );
            let mut client = gateway.client().await;
            let begun = Instant::now();
            client
                .send(format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n{line}\r\n"))
                .await;
            assert_eq!(client.answer().await.0.status(), 401);
            samples.push(begun.elapsed());
        }
    }
    let [alice, bob, nobody] = samples.map(|mut all| {
        all.sort();
        all[all.len() / 2].as_secs_f64()
    });
    // Without the care that is taken, it is a factor of 16 here.
    for ratio in [alice / nobody, bob / nobody] {
        assert!((0.5..2.0).contains(&ratio), "{alice} {bob} {nobody}");
    }
}

#[tokio::test]
async fn a_changed_entry_ends_the_old_password_at_once() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    change(
        &gateway,
        &Domain::htpasswd(&[("alice".into(), "other".into())]),
    )
    .await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 401);
    assert_eq!(login(&gateway, &upstream, "alice", "other").await, 200);
}

#[tokio::test]
async fn a_removed_user_is_refused_at_once() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    change(
        &gateway,
        &Domain::htpasswd(&[("bob".into(), "secret".into())]),
    )
    .await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 401);
    assert_eq!(login(&gateway, &upstream, "bob", "secret").await, 200);
}

#[tokio::test]
async fn an_emptied_file_ends_all_logins_after_two_seconds() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    // As it is while it is being written in place.
    change(&gateway, "").await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    assert_eq!(login(&gateway, &upstream, "alice", "").await, 401);
    jump(seconds(2)).await;
    gateway.app.refresh_files().await;
    for password in ["secret", ""] {
        assert_eq!(login(&gateway, &upstream, "alice", password).await, 401);
    }
    change(
        &gateway,
        &Domain::htpasswd(&[("alice".into(), "secret".into())]),
    )
    .await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
}

#[tokio::test]
async fn removing_the_last_user_counts_without_a_restart() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 200);
    let file = gateway.path("conf.d/ci.test.htpasswd");
    let options = moorgate::internal::cli::htpasswd::HtpasswdOptions {
        delete: true,
        cost: 4,
    };
    moorgate::internal::cli::htpasswd::run(&file, "alice", options).unwrap();
    gateway.app.refresh_files().await;
    jump(seconds(2)).await;
    gateway.app.refresh_files().await;
    assert_eq!(login(&gateway, &upstream, "alice", "secret").await, 401);
}

/// Puts something in the place of an htpasswd file that can never be read as one.
fn make_unreadable(file: &Path, how: &str) {
    std::fs::remove_file(file).unwrap();
    match how {
        "a directory" => std::fs::create_dir(file).unwrap(),
        "a link to itself" => symlink(file, file).unwrap(),
        "a link to nothing" => symlink(file.with_extension("gone"), file).unwrap(),
        other => panic!("{other}"),
    }
}

const UNREADABLE: [(&str, &str); 3] = [
    ("a directory", "not a regular file"),
    ("a link to itself", "Too many levels of symbolic links"),
    ("a link to nothing", "No such file or directory"),
];

#[tokio::test]
async fn an_unreadable_file_keeps_its_users() {
    for (how, _) in UNREADABLE {
        let upstream = Upstream::new().await;
        let gateway = Gateway::before(&upstream.url()).await;
        make_unreadable(&gateway.path("conf.d/ci.test.htpasswd"), how);
        gateway.app.refresh_files().await;
        // Not out of memory: neither was asked for before.
        assert_eq!(
            login(&gateway, &upstream, "alice", "secret").await,
            200,
            "{how}"
        );
        assert_eq!(
            login(&gateway, &upstream, "alice", "wrong").await,
            401,
            "{how}"
        );
        assert_eq!(
            login(&gateway, &upstream, "nobody", "secret").await,
            401,
            "{how}"
        );
        let file = gateway.path("conf.d/ci.test.htpasswd");
        let _ = std::fs::remove_dir(&file);
        let _ = std::fs::remove_file(&file);
        change(
            &gateway,
            &Domain::htpasswd(&[("bob".into(), "secret".into())]),
        )
        .await;
        assert_eq!(
            login(&gateway, &upstream, "alice", "secret").await,
            401,
            "{how}"
        );
        assert_eq!(
            login(&gateway, &upstream, "bob", "secret").await,
            200,
            "{how}"
        );
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_problem_of_the_configuration() {
    for (how, why) in UNREADABLE {
        let directory = tempfile::tempdir().unwrap();
        Setup::new()
            .domain(Domain::new("ci.test", "http://127.0.0.1:1"))
            .write(directory.path());
        make_unreadable(&directory.path().join("conf.d/ci.test.htpasswd"), how);
        let problems = refusal(directory.path()).await;
        assert!(
            problems.contains("`auth.htpasswd` cannot be read") && problems.contains(why),
            "{how}: {problems}"
        );
    }
}

/// Why a gateway does not start with the configuration in a directory.
async fn refusal(directory: &Path) -> String {
    let directory = directory.to_owned();
    let options = StartOptions {
        directory,
        workers: None,
        log_floor: None,
        logs: None,
        sockets: InheritedSockets::default(),
        predecessor: None,
        strict: false,
    };
    match App::start(options).await {
        Err(StartError::Configuration(problems)) => problems.to_string(),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test]
async fn malformed_credentials_are_refused() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let right = basic("alice", "secret");
    let refused = [
        (String::new(), 401),
        (format!("Authorization: {}\r\n", basic("", "")), 401),
        ("Authorization:\r\n".to_owned(), 401),
        ("Authorization: Basic\r\n".to_owned(), 401),
        ("Authorization: Basic %%%\r\n".to_owned(), 401),
        ("Authorization: Bearer abc\r\n".to_owned(), 401),
        (
            format!("Authorization: {}\r\n", right.replace("Basic", "Bearer")),
            401,
        ),
        (
            format!("Authorization: {}\r\n", basic("alice", "secret\0x")),
            401,
        ),
        (
            format!("Authorization: {}\r\n", basic("alice\0", "secret")),
            401,
        ),
        (
            format!("Authorization: {}\r\n", basic("Alice", "secret")),
            401,
        ),
        (
            format!("Authorization: {right}\r\nAuthorization: {right}\r\n"),
            400,
        ),
        (
            format!("Authorization: {right}\r\nAuthorization: Basic QTpi\r\n"),
            400,
        ),
        (
            format!("Authorization: Basic QTpi\r\nauthorization: {right}\r\n"),
            400,
        ),
    ];
    for (lines, status) in refused {
        let head = ask(&gateway, &upstream, "ci.test", &lines).await;
        assert_eq!(head.status(), status, "{lines:?}");
        let challenge = (status == 401).then_some("Basic realm=\"ci.test\"");
        assert_eq!(head.get("www-authenticate"), challenge, "{lines:?}");
    }
    upstream.untouched().await;
}

#[tokio::test]
async fn an_empty_pair_costs_no_hash() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    assert_eq!(login(&gateway, &upstream, "", "").await, 401);
    assert_eq!(gateway.app.hashes(), 0);
}

#[tokio::test]
async fn a_user_of_the_other_domain_is_refused() {
    let upstream = Upstream::new().await;
    let setup = Setup::new()
        .domain(Domain::new("ci.test", &upstream.url()))
        .domain(Domain::new("cache.test", &upstream.url()).user("carol", "secret"));
    let gateway = setup.start().await;
    let carol = format!("Authorization: {}\r\n", basic("carol", "secret"));
    for (host, status) in [("cache.test", 200), ("ci.test", 401), ("cache.test", 200)] {
        assert_eq!(
            ask(&gateway, &upstream, host, &carol).await.status(),
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_long_password_counts_with_its_first_72_bytes() {
    let upstream = Upstream::new().await;
    let long = "p".repeat(72);
    let domain = Domain::new("ci.test", &upstream.url()).user("long", &long);
    let gateway = Setup::new().domain(domain).start().await;
    assert_eq!(login(&gateway, &upstream, "long", &long).await, 200);
    assert_eq!(
        login(&gateway, &upstream, "long", &format!("{long}and more")).await,
        200
    );
    assert_eq!(login(&gateway, &upstream, "long", &long[..71]).await, 401);
}

#[tokio::test]
async fn a_domain_without_users_refuses_all_logins() {
    let without_users = ["", "# nobody\n", "alice:plain\n"].map(Some);
    for content in [None].into_iter().chain(without_users) {
        let directory = tempfile::tempdir().unwrap();
        Setup::new()
            .domain(Domain::new("ci.test", "http://127.0.0.1:1"))
            .write(directory.path());
        let file = directory.path().join("conf.d/ci.test.htpasswd");
        match content {
            Some(content) => std::fs::write(file, content).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let problems = refusal(directory.path()).await;
        let why = if content.is_none() {
            "No such file"
        } else {
            "has no usable entry"
        };
        assert!(problems.contains(why), "{content:?}: {problems}");
    }
}

/// Changes the htpasswd file and lets the gateway look at it.
async fn change(gateway: &Gateway, content: &str) {
    std::fs::write(gateway.path("conf.d/ci.test.htpasswd"), content).unwrap();
    gateway.app.refresh_files().await;
}
