//! Guessing, counting and confusing users.

use super::AttackedGateway;
use crate::harness::{Domain, Gateway, Head, Origin, RawPeer, Setup, basic, bound};
use moorgate::internal::app::{App, StartError, StartOptions};
use moorgate::internal::listen::InheritedSockets;

const PATH: &str = "/v2/";

/// What a client with these Authorization values gets on a connection of its own.
async fn answer(gateway: &Gateway, authorization: &[&str]) -> (Head, Vec<u8>) {
    let lines: String = authorization
        .iter()
        .map(|value| format!("Authorization: {value}\r\n"))
        .collect();
    let mut client = gateway.client().await;
    client
        .send(format!(
            "GET {PATH} HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n"
        ))
        .await;
    client.answer().await
}

async fn login(gateway: &Gateway, user: &str, password: &str) -> u16 {
    answer(gateway, &[&basic(user, password)]).await.0.status()
}

/// All of them at once.
async fn together(gateway: &Gateway, pairs: &[(&str, &str)]) -> Vec<u16> {
    let mut clients = Vec::new();
    for (user, password) in pairs {
        let mut client = gateway.client().await;
        let authorization = basic(user, password);
        client
            .send(format!(
                "GET {PATH} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n"
            ))
            .await;
        clients.push(client);
    }
    let mut statuses = Vec::new();
    for mut client in clients {
        statuses.push(client.answer().await.0.status());
    }
    statuses
}

#[tokio::test]
async fn an_unknown_user_looks_and_costs_like_a_wrong_password() {
    let fixture = AttackedGateway::new().await;
    let hashes = || fixture.gateway.app.hashes();
    let mut answers = Vec::new();
    for (user, password) in [
        ("alice", "wrong"),
        ("nobody", "wrong"),
        ("alice", ""),
        ("nobody", ""),
        ("", "x"),
    ] {
        let before = hashes();
        let (mut head, body) = answer(&fixture.gateway, &[&basic(user, password)]).await;
        head.headers.retain(|(name, _)| name != "date");
        assert_eq!(
            (head.status(), hashes() - before),
            (401, 1),
            "{user}:{password}"
        );
        answers.push((head, body));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    fixture.untouched().await;
}

#[tokio::test]
async fn tries_at_once_are_not_joined_across_users_or_passwords() {
    let origin = Origin::new().await;
    let domain = Domain::new("ci.test", &origin.url())
        .user("ab", "cd")
        .user("abc", "x")
        .user("a", "bcd");
    let gateway = Setup::new().domain(domain).unbounded().start().await;
    let pairs = [
        ("ab", "cd"),
        ("abc", "d"),
        ("a", "bcd"),
        ("abcd", ""),
        ("ab", "c"),
        ("abc", "x"),
        ("ab", "x"),
        ("ab", "cd\u{e9}"),
        ("AB", "cd"),
        ("ab ", "cd"),
        ("ab", " cd"),
        ("ab", ":cd"),
        ("ab", "cd"),
    ];
    let expected = [
        200, 401, 200, 401, 401, 200, 401, 401, 401, 401, 401, 401, 200,
    ];
    assert_eq!(together(&gateway, &pairs).await, expected);
    // Once more, when the right ones are remembered.
    assert_eq!(together(&gateway, &pairs).await, expected);
    assert_eq!(origin.requests().len(), 8);
}

#[tokio::test]
async fn users_with_the_same_entry_are_not_joined() {
    let origin = Origin::new().await;
    let gateway = Gateway::before(&origin.url()).await;
    // As when a line is copied and only its name changed: everything but user and password is
    // equal, and user and password run together are, too.
    let entry = hash(4, "bcd");
    enlist(&gateway, &format!("a:{entry}\nab:{entry}\nabc:{entry}\n")).await;
    let pairs = [
        ("a", "bcd"),
        ("ab", "cd"),
        ("abc", "d"),
        ("ab", "bcd"),
        ("abc", "bcd"),
        ("a", "bbcd"),
    ];
    let expected = [200, 401, 401, 200, 200, 401];
    assert_eq!(together(&gateway, &pairs).await, expected);
    assert_eq!(
        together(&gateway, &pairs).await,
        expected,
        "when the right ones are remembered"
    );
}

#[tokio::test]
async fn concurrent_logins_cost_one_hash_for_known_and_unknown_users() {
    let fixture = AttackedGateway::new().await;
    // Dear enough that all of them come while the first is checked.
    let dear = format!("alice:{}\nbob:{}\n", hash(11, "secret"), hash(4, "hunter2"));
    enlist(&fixture.gateway, &dear).await;
    let mut costs = Vec::new();
    for user in ["alice", "bob", "nobody"] {
        let before = fixture.gateway.app.hashes();
        assert_eq!(
            together(&fixture.gateway, &[(user, "wrong"); 8]).await,
            [401; 8]
        );
        costs.push(fixture.gateway.app.hashes() - before);
    }
    assert_eq!(costs, [1, 1, 1]);
    fixture.untouched().await;
}

fn hash(cost: u32, password: &str) -> String {
    bcrypt::hash(password, cost).unwrap()
}

/// Puts these lines in the place of the users.
async fn enlist(gateway: &Gateway, lines: &str) {
    std::fs::write(gateway.path("conf.d/ci.test.htpasswd"), lines).unwrap();
    gateway.app.refresh_files().await;
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_does_not_keep_a_user_out() {
    let fixture = AttackedGateway::new().await;
    for (user, password) in [("alice", "secret"), ("bob", "hunter2")] {
        assert_eq!(login(&fixture.gateway, user, password).await, 200);
    }
    let mut flood = Vec::new();
    for number in 0..200 {
        let mut client = fixture.gateway.client().await;
        let authorization = basic("alice", &format!("wrong{number}"));
        client
            .send(format!(
                "GET {PATH} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n"
            ))
            .await;
        flood.push(client);
    }
    let before = fixture.gateway.app.hashes();
    assert_eq!(login(&fixture.gateway, "alice", "secret").await, 200);
    assert!(
        fixture.gateway.app.hashes() - before <= 20,
        "the budget of an address"
    );
    for mut client in flood {
        assert!(matches!(client.answer().await.0.status(), 401 | 429 | 503));
    }
    assert_eq!(fixture.seen().await.len(), 3);
}

#[tokio::test]
async fn a_cached_login_covers_nothing_else() {
    let fixture = AttackedGateway::new().await;
    assert_eq!(login(&fixture.gateway, "alice", "secret").await, 200);
    for (user, password) in [
        ("alice", "secre"),
        ("alice", "secret "),
        ("Alice", "secret"),
        ("bob", "secret"),
        ("alice", ""),
    ] {
        assert_eq!(
            login(&fixture.gateway, user, password).await,
            401,
            "{user}:{password}"
        );
    }
    assert_eq!(fixture.seen().await.len(), 1);
}

#[tokio::test]
async fn a_changed_password_ends_the_old_one_at_the_reload() {
    let origin = Origin::new().await;
    let gateway = Gateway::before(&origin.url()).await;
    assert_eq!(login(&gateway, "alice", "secret").await, 200);
    let file = gateway.path("conf.d/ci.test.htpasswd");
    std::fs::write(
        &file,
        Domain::htpasswd(&[("alice".into(), "changed".into())]),
    )
    .unwrap();
    gateway.app.reload().await.unwrap();
    assert_eq!(login(&gateway, "alice", "secret").await, 401);
    assert_eq!(login(&gateway, "alice", "changed").await, 200);
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn bcrypt_reads_72_bytes_and_no_nul() {
    let origin = Origin::new().await;
    let long = "p".repeat(72);
    let domain = Domain::new("ci.test", &origin.url()).user("long", &long);
    let gateway = Setup::new().domain(domain).start().await;
    assert_eq!(login(&gateway, "alice", "secret\0junk").await, 401);
    assert_eq!(login(&gateway, "alice", "secret\0").await, 401);
    assert_eq!(login(&gateway, "alice\0", "secret").await, 401);
    assert_eq!(login(&gateway, "long", &long[..71]).await, 401);
    assert!(origin.requests().is_empty());
    assert_eq!(login(&gateway, "long", &long).await, 200);
    assert_eq!(
        login(&gateway, "long", &format!("{long}and more")).await,
        200
    );
}

#[tokio::test]
async fn a_damaged_entry_keeps_out_only_its_user() {
    let origin = Origin::new().await;
    let gateway = Gateway::before(&origin.url()).await;
    let good = bcrypt::hash("secret", 4).unwrap();
    let short = &good[..30];
    let file = format!(
        "short:{short}\nempty:\nbare:$2y$\naccent:$2y$04$\u{e9}{}\ncost:$2y$99${}\nplain:secret\n\u{0}\nalice:{good}\n",
        &good[8..58],
        &good[7..]
    );
    std::fs::write(
        gateway.path("conf.d/ci.test.htpasswd"),
        [file.as_bytes(), b"\xff\xfe:x\n"].concat(),
    )
    .unwrap();
    gateway.app.reload().await.unwrap();
    for user in ["short", "empty", "bare", "accent", "cost", "plain"] {
        for password in ["secret", "", short] {
            assert_eq!(login(&gateway, user, password).await, 401, "{user}");
        }
    }
    assert_eq!(login(&gateway, "alice", "secret").await, 200);
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn two_logins_are_refused_whichever_is_right() {
    let fixture = AttackedGateway::new().await;
    let (good, bad) = (basic("alice", "secret"), basic("alice", "wrong"));
    for pair in [
        [&good, &bad],
        [&bad, &good],
        [&good, &good],
        [&good, &"Bearer x".to_owned()],
    ] {
        let (head, _) = answer(&fixture.gateway, &pair.map(String::as_str)).await;
        assert_eq!(head.status(), 400, "{pair:?}");
    }
    for joined in [
        format!("{good}, {bad}"),
        format!("{bad},{good}"),
        format!("{good} {good}"),
    ] {
        assert_eq!(answer(&fixture.gateway, &[&joined]).await.0.status(), 401);
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn a_login_holds_for_one_request_only() {
    let fixture = AttackedGateway::new().await;
    let mut client = fixture.gateway.client().await;
    let alice = format!("Authorization: {}\r\n", basic("alice", "secret"));
    for (lines, expected) in [
        (alice.as_str(), 200),
        ("", 401),
        ("Cookie: a=b\r\n", 401),
        (alice.as_str(), 200),
        ("", 401),
    ] {
        client
            .send(format!(
                "GET {PATH} HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.0.status(), expected, "{lines}");
    }
    assert_eq!(fixture.seen().await.len(), 2);
}

#[tokio::test]
async fn without_users_a_domain_does_not_start() {
    let origin = Origin::new().await;
    let gateway = Gateway::before(&origin.url()).await;
    let file = gateway.path("conf.d/ci.test.htpasswd");
    for content in [
        Some("".as_bytes()),
        Some(b"\n# nobody\n"),
        Some(b"alice:secret\n"),
        Some(b"\0\0"),
        None,
    ] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let _ = gateway.app.reload().await;
        let directory = gateway.directory.path().to_owned();
        let options = StartOptions {
            directory,
            workers: None,
            log_floor: None,
            logs: None,
            sockets: InheritedSockets::default(),
            predecessor: None,
            strict: false,
        };
        let started = App::start(options).await;
        assert!(
            matches!(started, Err(StartError::Configuration(_))),
            "{content:?}"
        );
        // The last good file still decides: it does not fail open.
        for (user, password, expected) in [
            ("alice", "secret", 200),
            ("alice", "", 401),
            ("", "", 401),
            ("x", "y", 401),
        ] {
            assert_eq!(
                login(&gateway, user, password).await,
                expected,
                "{content:?} {user}"
            );
        }
    }
    assert_eq!(origin.requests().len(), 5);
}

#[tokio::test]
async fn the_catalog_needs_a_login() {
    let fixture = AttackedGateway::new().await;
    for target in [
        "/v2/_catalog",
        "/v2/_catalog?n=1",
        "/v2/a/tags/list",
        "/v2/a/referrers/sha256:x",
    ] {
        let mut client = fixture.gateway.client().await;
        client.send(super::ask("GET", target, &[])).await;
        assert!(
            matches!(client.answer().await.0.status(), 400 | 401),
            "{target}"
        );
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let (registry, storage) = (
        crate::harness::Upstream::new().await,
        crate::harness::Upstream::new().await,
    );
    let domain = Domain::new("ci.test", &registry.url()).upstream(
        "redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]\nauthorization = \"pass\"",
    );
    let gateway = Setup::new().domain(domain).start().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut client: RawPeer<_> = gateway.client().await;
    let lines = "Cookie: a=b\r\nX-Private: 1\r\n";
    client
        .send(crate::harness::request(
            "GET",
            &format!("/v2/a/blobs/{digest}"),
            lines,
        ))
        .await;
    let mut asked = registry.accept().await;
    assert_eq!(
        asked.head().await.get("authorization"),
        Some(basic("alice", "secret").as_str())
    );
    let location = format!("{}/blob?signature=x", storage.url());
    asked
        .send(format!(
            "HTTP/1.1 307 T\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let mut stored = storage.accept().await;
    let head = stored.head().await;
    assert_eq!(head.first, "GET /blob?signature=x HTTP/1.1");
    for name in [
        "authorization",
        "cookie",
        "x-private",
        "proxy-authorization",
        "x-forwarded-for",
    ] {
        assert_eq!(head.get(name), None, "{name}");
    }
    stored
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.answer().await.1, b"ok");
}

#[tokio::test]
async fn the_access_log_holds_no_secret_and_no_query() {
    let origin = Origin::new().await;
    let domain = Domain::new("ci.test", &origin.url());
    let gateway = Setup::new()
        .domain(domain)
        .main("[log]\naccess = true")
        .start()
        .await;
    for password in ["secret", "wrong-secret"] {
        let mut client = gateway.client().await;
        let login = basic("alice", password);
        let lines = [
            ("Authorization", login.as_str()),
            ("Cookie", "session=topsecret"),
            ("Content-Length", "6"),
        ];
        let upload = bound("/v2/a/blobs/uploads/x?_state=topsecret&token=secret");
        client.send(super::ask("PATCH", &upload, &lines)).await;
        client.send("secret").await;
        client.answer().await;
    }
    assert!(gateway.stop().await);
    let mut log = Vec::new();
    gateway.app.access_log().close();
    gateway.app.access_log().run(&mut log);
    let log = String::from_utf8(log).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(
        log.contains("user=alice") && log.contains("status=401"),
        "{log}"
    );
    let encoded = basic("alice", "secret");
    for secret in ["secret", "_state", encoded.trim_start_matches("Basic ")] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
