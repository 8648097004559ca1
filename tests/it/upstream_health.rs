//! The health of upstreams as requests show it: in `/status`, in the metrics, and in events when it
//! changes.

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{
    Clock, Domain, Events, Gateway, ProxiedPair, RawPeer, Setup, Upstream, jump, request, seconds,
    settle,
};

const LIST: &str = "/v2/a/tags/list";
const BLOB: &str =
    "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OWN: &str = "product = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"";

/// What `/status` says of the upstream of `ci.test`.
async fn health(gateway: &Gateway) -> Value {
    gateway.status().await["domains"][0]["upstream_health"].clone()
}

async fn state(gateway: &Gateway) -> String {
    health(gateway).await["state"].as_str().unwrap().to_owned()
}

async fn admin(gateway: &Gateway, path: &str) -> (u16, String) {
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send(asked).await;
    let (head, body) = client.answer().await;
    (head.status(), String::from_utf8(body).unwrap())
}

/// The series of upstreams, without the address.
async fn series(gateway: &Gateway, url: &str) -> Vec<String> {
    let (_, text) = admin(gateway, "/metrics").await;
    let lines = text.lines().filter(|line| {
        line.starts_with("moorgate_upstream_up{") || line.contains("_upstream_failures_total{")
    });
    lines.map(|line| line.replace(url, "URL")).collect()
}

/// A request, which the upstream answers with a closed connection. The status for the client.
async fn closed(between: &mut ProxiedPair) -> u16 {
    between.forwarded(request("GET", LIST, "")).await;
    between.registry = None;
    loop {
        tokio::select! {
            (head, _) = between.client.answer() => return head.status(),
            // Once more, where the connection was not the first one.
            mut again = between.upstream.accept() => { again.head().await; }
        }
    }
}

async fn answered(between: &mut ProxiedPair, status: &str) -> u16 {
    between.forwarded(request("GET", LIST, "")).await;
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    between.answered(answer).await.0.status()
}

#[tokio::test]
async fn a_registry_that_fails_and_recovers_is_in_status_metrics_and_events() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    let url = between.upstream.url();
    let unknown = health(&between.gateway).await;
    assert_eq!(unknown["state"], "unknown");
    for field in ["since", "last_success", "last_failure"] {
        assert!(unknown[field].is_null(), "{unknown}");
    }
    assert_eq!(series(&between.gateway, &url).await, [""; 0]);

    between.passed(request("GET", LIST, "")).await;
    let healthy = health(&between.gateway).await;
    assert_eq!(healthy["state"], "healthy");
    assert!(
        healthy["since"].is_string() && healthy["last_success"].is_string(),
        "{healthy}"
    );
    let up = "moorgate_upstream_up{domain=\"ci.test\",role=\"registry\",upstream=\"URL\"}";
    assert_eq!(series(&between.gateway, &url).await, [format!("{up} 1")]);
    assert_eq!(events.with("upstream"), [""; 0]);

    assert_eq!(closed(&mut between).await, 502);
    let failing = health(&between.gateway).await;
    assert_eq!(
        (&failing["state"], &failing["consecutive_failures"]),
        (&"failing".into(), &1.into())
    );
    assert_eq!(failing["last_success"], healthy["last_success"]);
    assert_eq!(failing["last_failure"]["reason"], "closed");
    assert!(failing["last_failure"]["time"].is_string(), "{failing}");
    let failures = "moorgate_upstream_failures_total{domain=\"ci.test\",role=\"registry\",upstream=\"URL\",reason=\"closed\"}";
    assert_eq!(
        series(&between.gateway, &url).await,
        [format!("{up} 0"), format!("{failures} 1")]
    );
    let ready = admin(&between.gateway, "/readyz").await;
    assert_eq!(ready, (200, "ready\n".to_owned()));

    between.passed(request("GET", LIST, "")).await;
    assert_eq!(state(&between.gateway).await, "healthy");
    assert_eq!(
        series(&between.gateway, &url).await,
        [format!("{up} 1"), format!("{failures} 1")]
    );
    let lines = events.with("upstream").join("\n").replace(&url, "URL");
    insta::assert_snapshot!(lines, @r#"
    WARN moorgate::paced: upstream fails domain="ci.test" role="registry" upstream="URL" reason="closed" error="the upstream closed the connection before its response: see the upstream's own log; if it speaks TLS, write https:// in its `url`" failures=1 failing_s=0
    INFO moorgate::paced: upstream has recovered domain="ci.test" role="registry" upstream="URL" failing_s=0
    "#);
}

#[tokio::test]
async fn a_failing_registry_is_one_line_a_minute_with_a_count_and_one_at_its_end() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    let clock = Clock::stopped();
    for _ in 0..20 {
        assert_eq!(closed(&mut between).await, 502);
    }
    assert_eq!(events.with("upstream").len(), 1, "{}", events.all());
    clock.jump(seconds(61)).await;
    for _ in 0..20 {
        assert_eq!(closed(&mut between).await, 502);
    }
    let lines = events.with("upstream fails");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let counts = ["failures=1 failing_s=0", "failures=20 failing_s=61"];
    for (line, count) in lines.iter().zip(counts) {
        assert!(line.contains("WARN") && line.contains(count), "{line}");
    }
    clock.jump(seconds(20)).await;
    between.passed(request("GET", LIST, "")).await;
    let lines = events.with("upstream has recovered");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("INFO") && lines[0].contains("failing_s=81"),
        "{lines:#?}"
    );
    assert_eq!(events.with("upstream").len(), 3, "{}", events.all());
}

#[tokio::test]
async fn answers_that_alternate_are_two_lines_a_minute() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    let clock = Clock::stopped();
    for minute in 1..=2 {
        for _ in 0..10 {
            assert_eq!(closed(&mut between).await, 502);
            assert_eq!(state(&between.gateway).await, "failing");
            between.passed(request("GET", LIST, "")).await;
            assert_eq!(state(&between.gateway).await, "healthy");
        }
        assert_eq!(events.with("upstream fails").len(), minute);
        assert_eq!(events.with("upstream has recovered").len(), minute);
        clock.jump(seconds(61)).await;
    }
    assert!(events.with("upstream fails")[1].contains("failures=10 "));
}

#[tokio::test]
async fn another_reason_is_another_line_at_once() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    for _ in 0..3 {
        closed(&mut between).await;
        answered(&mut between, "101 Switching Protocols").await;
        between.registry = None;
    }
    let lines = events.with("upstream");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("reason=\"closed\""), "{lines:#?}");
    assert!(lines[1].contains("reason=\"protocol\""), "{lines:#?}");
}

#[tokio::test]
async fn one_503_is_no_failing_registry_and_three_in_a_row_are() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    for status in [
        "500 Error",
        "507 Full",
        "404 Not Found",
        "429 Slow",
        "508 Loop",
    ] {
        for _ in 0..3 {
            answered(&mut between, status).await;
            assert_eq!(state(&between.gateway).await, "healthy", "{status}");
        }
    }
    for status in ["502 Bad", "503 Unavailable", "504 Timeout"] {
        for _ in 0..2 {
            answered(&mut between, status).await;
            assert_eq!(state(&between.gateway).await, "healthy", "{status}");
        }
        answered(&mut between, "200 OK").await;
    }
    assert_eq!(events.with("upstream"), [""; 0]);
    for _ in 0..3 {
        assert_eq!(answered(&mut between, "503 Unavailable").await, 503);
    }
    let failing = health(&between.gateway).await;
    assert_eq!(failing["state"], "failing");
    assert_eq!(failing["last_failure"]["reason"], "status");
    assert!(
        failing["last_failure"]["error"]
            .as_str()
            .unwrap()
            .contains("503 Service Unavailable"),
        "{failing}"
    );
    assert_eq!(events.with("upstream fails").len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_says_nothing_of_the_registry() {
    let events = Events::kept();
    let mut between = ProxiedPair::new().await;
    let part = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: ci.test\r\n";
    let login = format!(
        "Authorization: {}\r\n",
        crate::harness::basic("alice", "secret")
    );
    let asked = [
        request("GET", LIST, ""),
        format!("{part}{login}Content-Length: 10\r\n\r\nhalf"),
    ];
    for asked in asked {
        between.forwarded(asked).await;
        between.client = between.gateway.client().await;
        between.registry().rest().await;
        between.registry = None;
        settle().await;
    }
    // One that sends no more of its body for too long.
    between
        .forwarded(format!("{part}{login}Content-Length: 10\r\n\r\nhalf"))
        .await;
    jump(seconds(121)).await;
    assert_eq!(between.client.head().await.status(), 408);
    assert_eq!(state(&between.gateway).await, "unknown");
    assert_eq!(events.with("upstream"), [""; 0], "{}", events.all());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_in_time_fails() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", LIST, "")).await;
    jump(seconds(121)).await;
    assert_eq!(between.client.answer().await.0.status(), 504);
    let failing = health(&between.gateway).await;
    assert_eq!(failing["last_failure"]["reason"], "timeout");
}

#[tokio::test]
async fn refused_credentials_of_moorgate_are_an_event_with_the_setting_to_correct() {
    const UNAUTHORIZED: &str = "401 U\r\nWWW-Authenticate: Basic realm=\"inside\"";
    for (keys, setting) in [
        ("", "set [upstream] username and password"),
        (
            OWN,
            "the username and password in [upstream]: its administrator has to correct them",
        ),
    ] {
        let events = Events::kept();
        let mut between = ProxiedPair::with(|domain| domain.upstream(keys)).await;
        for _ in 0..5 {
            assert_eq!(answered(&mut between, UNAUTHORIZED).await, 502);
        }
        let failing = health(&between.gateway).await;
        assert_eq!(failing["state"], "failing");
        assert_eq!(failing["consecutive_failures"], 5);
        assert_eq!(failing["last_failure"]["reason"], "credentials");
        let lines = events.with("upstream ");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let url = format!("upstream=\"{}\"", between.upstream.url());
        for part in [
            "domain=\"ci.test\"",
            &url,
            setting,
            "reason=\"credentials\"",
        ] {
            assert!(lines[0].contains(part), "{part}: {lines:#?}");
        }
        assert!(!events.all().contains("realm"));
        answered(&mut between, "200 OK").await;
        assert_eq!(events.with("upstream has recovered").len(), 1);
    }
    // A wrong password of a client is no fault of the registry.
    let events = Events::kept();
    let pass = "authorization = \"pass\"";
    let mut between = ProxiedPair::with(|domain| domain.upstream(pass)).await;
    assert_eq!(answered(&mut between, UNAUTHORIZED).await, 401);
    assert_eq!(state(&between.gateway).await, "healthy");
    assert_eq!(events.with("upstream"), [""; 0]);
}

#[tokio::test]
async fn the_server_of_pages_has_a_health_of_its_own() {
    let events = Events::kept();
    let pages = Upstream::new().await;
    let browser = format!("[browser]\nurl = \"{}\"", pages.url());
    let mut between = ProxiedPair::with(|domain| domain.tables(&browser)).await;
    between.client.send(request("GET", "/ui", "")).await;
    pages.accept().await.head().await;
    assert_eq!(between.client.answer().await.0.status(), 502);
    between.passed(request("GET", LIST, "")).await;
    let domain = between.gateway.status().await["domains"][0].clone();
    assert_eq!(domain["browser_health"]["state"], "failing");
    assert_eq!(domain["upstream_health"]["state"], "healthy");
    let lines = events.with("upstream fails");
    assert!(lines[0].contains("role=\"browser\""), "{lines:#?}");
    // A page may ask for a login of its own.
    between.client.send(request("GET", "/ui", "")).await;
    let mut server = pages.accept().await;
    server.head().await;
    server
        .send("HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 401);
    let domain = between.gateway.status().await["domains"][0].clone();
    assert_eq!(domain["browser_health"]["state"], "healthy");
    let series = series(&between.gateway, "none").await;
    assert_eq!(series.len(), 3, "{series:#?}");
}

/// A registry with the server of its pages behind one address.
#[tokio::test]
async fn one_address_for_both_makes_no_series_twice() {
    let upstream = Upstream::new().await;
    let url = upstream.url();
    let domain = Domain::new("ci.test", &url).tables(&format!("[browser]\nurl = \"{url}\""));
    let gateway = Setup::new().domain(domain).start().await;
    for target in [LIST, "/ui"] {
        let mut client = gateway.client().await;
        client.send(request("GET", target, "")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        client.answer().await;
    }
    let mut series = series(&gateway, &url).await;
    assert_eq!(series.len(), 2);
    series.dedup();
    assert_eq!(series.len(), 2, "{series:#?}");
}

#[tokio::test]
async fn the_health_survives_a_reload_and_belongs_to_the_address() {
    // Nobody listens there.
    let gone = |number| format!("https://127.93.0.{number}:9");
    let setup = |url: &str| {
        Setup::new().domain(Domain::new("ci.test", url).tables("[timeouts]\nstall = \"1min\""))
    };
    let gateway = setup(&gone(1)).start().await;
    let events = Events::kept();
    let ask = async || {
        let mut client = gateway.client().await;
        client.send(request("GET", LIST, "")).await;
        client.answer().await.0.status()
    };
    assert_eq!(ask().await, 503);
    gateway.app.reload().await.unwrap();
    assert_eq!(ask().await, 503);
    let failing = health(&gateway).await;
    assert_eq!(failing["consecutive_failures"], 2, "{failing}");
    assert_eq!(failing["last_failure"]["reason"], "refused");
    assert_eq!(events.with("upstream fails").len(), 1);
    setup(&gone(2)).write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
    assert_eq!(state(&gateway).await, "unknown");
}

#[tokio::test]
async fn the_storage_of_a_registry_is_not_its_upstream() {
    let events = Events::kept();
    let keys = "redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]";
    let mut between = ProxiedPair::with(|domain| domain.upstream(keys)).await;
    between.forwarded(request("GET", BLOB, "")).await;
    let storage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = storage.local_addr().unwrap();
    drop(storage);
    between
        .registry()
        .send(format!(
            "HTTP/1.1 307 T\r\nLocation: https://{at}/x?sig=secret\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let (head, body) = between.client.answer().await;
    assert_eq!(head.status(), 503);
    let message = String::from_utf8(body).unwrap();
    assert!(message.contains("the storage of the upstream registry cannot be reached"));
    assert_eq!(state(&between.gateway).await, "healthy");
    let lines = events.with("WARN");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("upstream request failed") && !lines[0].contains("sig"),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_store_has_no_upstream_health() {
    let gateway = Setup::new()
        .domain(Domain::store("ci.test", "s"))
        .start()
        .await;
    let domain = gateway.status().await["domains"][0].clone();
    for field in ["upstream_health", "browser_health"] {
        assert!(domain[field].is_null() && domain.as_object().unwrap().contains_key(field));
    }
}

/// More requests than one thread makes, at a registry that is gone: none waits for another.
#[tokio::test]
async fn many_requests_at_once_are_counted_each() {
    let gateway = Gateway::before("http://127.93.0.3:9").await;
    let events = Events::kept();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.client().await);
    }
    for client in &mut clients {
        client.send(request("GET", LIST, "")).await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.0.status(), 503);
    }
    let failing = health(&gateway).await;
    assert_eq!(failing["consecutive_failures"], 20);
    assert_eq!(events.with("upstream").len(), 1);
}
