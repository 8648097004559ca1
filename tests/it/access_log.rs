//! The access log: one line for each request, whichever way it ended, and never a secret.

use std::sync::mpsc::Receiver;

use crate::harness::{
    Domain, Http2, ProxiedPair, Setup, Upstream, basic, log_lines, no_body, request, request2,
    settle,
};

const BLOB: &str =
    "/v2/base/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A gateway whose log the test reads.
struct Logged {
    between: ProxiedPair,
    lines: Receiver<String>,
}

impl Logged {
    async fn new(format: &str) -> Self {
        let upstream = Upstream::new().await;
        let gateway = Setup::new()
            .domain(Domain::new("ci.test", &upstream.url()))
            .main(&format!("[log]\nformat = \"{format}\""))
            .start()
            .await;
        let client = gateway.client().await;
        let (lines, _) = log_lines(&gateway);
        Self {
            between: ProxiedPair {
                gateway,
                upstream,
                client,
                registry: None,
            },
            lines,
        }
    }

    /// The next line as JSON; the log writes by itself a moment after the request.
    async fn line(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    async fn text(&mut self) -> String {
        loop {
            settle().await;
            // The end of a request may still have to come over a socket.
            tokio::task::spawn_blocking(std::thread::yield_now)
                .await
                .unwrap();
            if let Ok(line) = self.lines.try_recv() {
                return line;
            }
        }
    }
}

#[tokio::test]
async fn a_complete_download_is_one_line_with_all_that_is_known() {
    let mut logged = Logged::new("json").await;
    logged.between.forwarded(request("GET", BLOB, "")).await;
    logged
        .between
        .answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345")
        .await;
    let line = logged.line().await;
    let expected = [
        ("client", "127.0.0.1"),
        ("user", "alice"),
        ("domain", "ci.test"),
        ("method", "GET"),
        ("call", "blob.read"),
        ("repository", "base/app"),
        (
            "reference",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        ("protocol", "HTTP/1.1"),
        ("end", "complete"),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!(
        (&line["status"], &line["bytes_in"], &line["bytes_out"]),
        (&200.into(), &0.into(), &5.into())
    );
    assert!(
        line["duration_ms"].as_f64().unwrap() >= line["upstream_ms"].as_f64().unwrap(),
        "{line}"
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    assert_eq!(line.as_object().unwrap().len(), 18, "{line}");
}

#[tokio::test]
async fn answers_without_a_body_are_complete() {
    let mut logged = Logged::new("json").await;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (
            "DELETE",
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        logged.between.forwarded(request(method, BLOB, "")).await;
        logged.between.answered_head(answer).await;
        let line = logged.line().await;
        assert_eq!(
            (&line["method"], &line["end"]),
            (&method.into(), &"complete".into()),
            "{line}"
        );
        assert_eq!(line["bytes_out"], 0);
    }
    // Our own answer to HEAD as well.
    logged
        .between
        .client
        .send("HEAD /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    logged.between.client.head().await;
    let line = logged.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&401.into(), &"complete".into()),
        "{line}"
    );
}

#[tokio::test]
async fn answers_over_http2_are_complete_with_and_without_a_body() {
    let mut logged = Logged::new("json").await;
    let mut client = Http2::connect(&logged.between.gateway, "ci.test").await;
    for (method, bytes) in [("HEAD", 0), ("GET", 5)] {
        let answer = tokio::spawn(client.send(request2(method, BLOB).body(no_body()).unwrap()));
        logged.between.asked().await;
        let body = if bytes > 0 { "12345" } else { "" };
        logged
            .between
            .registry()
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}"
            ))
            .await;
        answer.await.unwrap().unwrap();
        let line = logged.line().await;
        assert_eq!(
            (&line["protocol"], &line["end"]),
            (&"HTTP/2".into(), &"complete".into()),
            "{line}"
        );
        assert_eq!(line["bytes_out"], bytes);
    }
}

#[tokio::test]
async fn the_bytes_of_an_upload_are_counted() {
    let mut logged = Logged::new("json").await;
    let head = request(
        "PATCH",
        "/v2/a/blobs/uploads/1",
        "Transfer-Encoding: chunked\r\n",
    );
    logged
        .between
        .forwarded(head + "5\r\n12345\r\n3\r\n678\r\n0\r\n\r\n")
        .await;
    logged.between.registry().chunked().await.unwrap();
    logged
        .between
        .answered("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    let line = logged.line().await;
    assert_eq!(
        (&line["call"], &line["bytes_in"], &line["end"]),
        (&"upload.chunk".into(), &8.into(), &"complete".into())
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_logged_as_gone() {
    let mut logged = Logged::new("json").await;
    logged.between.forwarded(request("GET", BLOB, "")).await;
    logged
        .between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    logged.between.client.head().await;
    logged.between.client.bytes(5).await;
    let fresh = logged.between.gateway.client().await;
    drop(std::mem::replace(&mut logged.between.client, fresh));
    let line = logged.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&200.into(), &"client-gone".into()),
        "{line}"
    );
    assert_eq!(line["bytes_out"], 5);
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_has_no_status() {
    let mut logged = Logged::new("json").await;
    logged.between.forwarded(request("GET", BLOB, "")).await;
    let fresh = logged.between.gateway.client().await;
    drop(std::mem::replace(&mut logged.between.client, fresh));
    let line = logged.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&serde_json::Value::Null, &"client-gone".into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_response_cut_by_the_upstream_is_logged_as_cut() {
    let mut logged = Logged::new("json").await;
    logged.between.forwarded(request("GET", BLOB, "")).await;
    logged
        .between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    logged.between.registry = None;
    let line = logged.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&200.into(), &"upstream-cut".into()),
        "{line}"
    );
}

#[tokio::test]
async fn refusals_are_logged_with_what_was_known_then() {
    let mut logged = Logged::new("json").await;
    let anonymous = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (request, status, domain, call) in [
        (
            anonymous("ci.test", "/v2/a/tags/list"),
            401,
            Some("ci.test"),
            Some("tags.list"),
        ),
        (anonymous("nobody.test", "/v2/"), 404, None, None),
        (anonymous("ci.test", "/v2/a//b"), 400, Some("ci.test"), None),
        (anonymous("ci.test", "/"), 404, Some("ci.test"), None),
    ] {
        logged.between.own_answer(request).await;
        let line = logged.line().await;
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(
            (line["domain"].as_str(), line["call"].as_str()),
            (domain, call),
            "{line}"
        );
        assert_eq!(
            (&line["user"], &line["end"]),
            (&serde_json::Value::Null, &"complete".into()),
            "{line}"
        );
        assert_eq!(line["upstream_ms"], serde_json::Value::Null, "{line}");
    }
}

#[tokio::test]
async fn an_upstream_without_an_answer_is_logged_as_our_answer() {
    let mut logged = Logged::new("json").await;
    logged.between.forwarded(request("GET", BLOB, "")).await;
    logged.between.registry = None;
    logged.between.client.answer().await;
    let line = logged.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&502.into(), &"complete".into()),
        "{line}"
    );
    assert!(line["upstream_ms"].is_number(), "{line}");
}

#[tokio::test]
async fn no_line_holds_a_secret_or_a_query() {
    let mut logged = Logged::new("text").await;
    let target = "/v2/a/blobs/uploads/session-id?_state=hidden-state";
    let lines = "Cookie: hidden-cookie\r\nX-Token: hidden-token\r\nContent-Length: 0\r\n";
    logged.between.passed(request("PATCH", target, lines)).await;
    let line = logged.text().await;
    for secret in ["secret", "hidden", "session-id", "YWxpY2U6", "Basic", "?"] {
        assert!(!line.contains(secret), "{secret}: {line}");
    }
    assert!(line.contains(" user=alice domain=ci.test method=PATCH call=upload.chunk repository=a reference=- status=200 bytes_in=0 bytes_out=0 "), "{line}");
    assert!(line.ends_with(" protocol=HTTP/1.1 end=complete"), "{line}");
}

#[tokio::test]
async fn a_refused_login_has_a_reason_and_the_name_that_was_tried() {
    let mut logged = Logged::new("json").await;
    let login = |user: &str, password: &str| {
        let good = basic("alice", "secret");
        request("GET", "/v2/a/tags/list", "").replace(&good, &basic(user, password))
    };
    let bearer = request("GET", "/v2/", "").replace(&basic("alice", "secret"), "Bearer x");
    let without = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n".to_owned();
    let mut answers = Vec::new();
    for (request, reason, tried) in [
        (without, "no-credentials", None),
        (bearer, "unusable-credentials", None),
        (login("alice", "wrong"), "wrong-credentials", Some("alice")),
        // Known to be wrong by now.
        (login("alice", "wrong"), "wrong-credentials", Some("alice")),
        (login("root", "secret"), "unknown-user", Some("root")),
    ] {
        answers.push(logged.between.own_answer(request).await);
        let line = logged.line().await;
        assert_eq!(
            (&line["status"], &line["reason"], line["tried"].as_str()),
            (&401.into(), &reason.into(), tried),
            "{line}"
        );
        assert_eq!(line["user"], serde_json::Value::Null, "{line}");
    }
    // The answer does not tell whether the user exists.
    assert_eq!(answers[2].1, answers[4].1);
}
