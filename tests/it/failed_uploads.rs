//! Pushes that fail again and again in the same way end with an answer that clients do not repeat.

use crate::harness::{Clock, Events, ProxiedPair, json, request, seconds};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const EVENT: &str = "uploads keep failing";
const NO_BODY: &str = "Content-Length: 0\r\n";

/// What a client gets.
struct Answer {
    status: u16,
    code: String,
    message: String,
    retry_after: Option<String>,
}

/// How the registry answers a step.
#[derive(Clone, Copy)]
enum Fails {
    With(u16, &'static str),
    ByClosing,
}

struct Pushes {
    between: ProxiedPair,
}

impl Pushes {
    async fn new() -> Self {
        Self {
            between: ProxiedPair::new().await,
        }
    }

    /// Begins an upload, and gets its address.
    async fn begin(&mut self, repository: &str) -> String {
        let target = format!("/v2/{repository}/blobs/uploads/");
        self.between
            .forwarded(request("POST", &target, NO_BODY))
            .await;
        let answer = format!(
            "HTTP/1.1 202 Accepted\r\nLocation: /v2/{repository}/blobs/uploads/1\r\n{NO_BODY}\r\n"
        );
        let (head, _) = self.between.answered(answer).await;
        assert_eq!(head.status(), 202);
        head.get("location").unwrap().to_owned()
    }

    /// A step of an upload that fails, the first as it is told.
    async fn fail(&mut self, repository: &str, method: &str, fails: Fails) -> Answer {
        let target = match method {
            "POST" => format!("/v2/{repository}/blobs/uploads/"),
            "PATCH" => self.begin(repository).await,
            _ => format!("{}?digest={DIGEST}", self.begin(repository).await),
        };
        self.between
            .forwarded(request(method, &target, NO_BODY))
            .await;
        let (head, body) = match fails {
            Fails::With(status, code) => {
                let body =
                    format!(r#"{{"errors":[{{"code":"{code}","message":"of the registry"}}]}}"#);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
                self.between.answered(answer).await
            }
            Fails::ByClosing => {
                self.between.registry = None;
                loop {
                    tokio::select! {
                        answer = self.between.client.answer() => break answer,
                        // Once more, where the connection was not the first one.
                        mut again = self.between.upstream.accept() => { again.head().await; }
                    }
                }
            }
        };
        let error = json(&body)["errors"][0].clone();
        Answer {
            status: head.status(),
            code: error["code"].as_str().unwrap().to_owned(),
            message: error["message"].as_str().unwrap().to_owned(),
            retry_after: head.get("retry-after").map(str::to_owned),
        }
    }

    async fn succeed(&mut self, repository: &str) {
        let address = self.begin(repository).await;
        let target = format!("{address}?digest={DIGEST}");
        self.between
            .forwarded(request("PUT", &target, NO_BODY))
            .await;
        let answer = format!("HTTP/1.1 201 Created\r\n{NO_BODY}\r\n");
        assert_eq!(self.between.answered(answer).await.0.status(), 201);
    }
}

const LOST: Fails = Fails::With(404, "BLOB_UPLOAD_UNKNOWN");

#[tokio::test]
async fn a_run_of_equal_failures_ends_the_push_with_the_suspected_cause() {
    let clock = Clock::stopped();
    for (method, fails, shown, cause, pause) in [
        ("PATCH", LOST, "PATCH: status 404", "http.secret", 8),
        ("PUT", LOST, "PUT: status 404", "replicas", 8),
        (
            "PATCH",
            Fails::With(416, ""),
            "PATCH: status 416",
            "does not list at once",
            8,
        ),
        (
            "PUT",
            Fails::With(500, "UNKNOWN"),
            "PUT: status 500",
            "multipart",
            8,
        ),
        (
            "PATCH",
            Fails::With(500, "UNKNOWN"),
            "PATCH: status 500",
            "no room",
            8,
        ),
        (
            "PUT",
            Fails::With(504, ""),
            "PUT: status 504",
            "a proxy between",
            31,
        ),
        (
            "POST",
            Fails::With(500, ""),
            "POST: status 500",
            "no right",
            8,
        ),
        (
            "PATCH",
            Fails::ByClosing,
            "PATCH: connection closed",
            "crashes",
            31,
        ),
    ] {
        let events = Events::kept();
        let mut pushes = Pushes::new().await;
        for _ in 0..4 {
            let passed = pushes.fail("acme/app", method, fails).await;
            assert_ne!(passed.status, 429, "{shown}");
            assert_eq!(passed.retry_after, None, "{shown}");
            clock.jump(seconds(pause)).await;
        }
        assert!(events.with(EVENT).is_empty(), "{shown}");
        for _ in 0..3 {
            let stopped = pushes.fail("acme/app", method, fails).await;
            // Docker tries again after any other code that does not speak of rights.
            assert_eq!((stopped.status, &*stopped.code), (429, "TOOMANYREQUESTS"));
            assert_eq!(stopped.retry_after.as_deref(), Some("60"));
            assert!(stopped.message.contains(shown), "{}", stopped.message);
            assert!(stopped.message.contains(cause), "{}", stopped.message);
        }
        let event = events.with(EVENT);
        assert_eq!(event.len(), 1, "{event:?}");
        for part in ["repository=acme/app", "domain=ci.test", "failures=5", cause] {
            assert!(event[0].contains(part), "{part}: {event:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_run_passes_on_as_the_registry_says_it() {
    let clock = Clock::stopped();
    let mut pushes = Pushes::new().await;
    // Many at once: the registry may be starting.
    for _ in 0..10 {
        assert_eq!(pushes.fail("app", "PATCH", LOST).await.status, 404);
    }
    // Not equal, not the same repository.
    clock.jump(seconds(31)).await;
    assert_eq!(pushes.fail("app", "PUT", LOST).await.status, 404);
    let other = Fails::With(500, "UNKNOWN");
    assert_eq!(pushes.fail("app", "PATCH", other).await.status, 500);
    assert_eq!(pushes.fail("web", "PATCH", LOST).await.status, 404);
    // What clients or their rights are to blame for.
    for _ in 0..6 {
        let denied = Fails::With(403, "DENIED");
        assert_eq!(pushes.fail("docs", "PATCH", denied).await.status, 403);
        let wrong = Fails::With(400, "DIGEST_INVALID");
        assert_eq!(pushes.fail("docs", "PUT", wrong).await.status, 400);
        clock.jump(seconds(10)).await;
    }
    assert_eq!(pushes.fail("app", "PATCH", LOST).await.status, 429);
    // Long after the last one another run begins.
    for _ in 0..20 {
        pushes.succeed("docs").await;
        clock.jump(seconds(31)).await;
    }
    assert_eq!(pushes.fail("app", "PATCH", LOST).await.status, 404);
}

#[tokio::test]
async fn a_registry_that_answers_like_one_that_is_started_anew_has_two_minutes() {
    let clock = Clock::stopped();
    for fails in [Fails::With(502, ""), Fails::With(503, ""), Fails::ByClosing] {
        let mut pushes = Pushes::new().await;
        for _ in 0..6 {
            assert_ne!(pushes.fail("app", "PATCH", fails).await.status, 429);
            clock.jump(seconds(19)).await;
        }
        clock.jump(seconds(10)).await;
        assert_eq!(pushes.fail("app", "PATCH", fails).await.status, 429);
    }
}

#[tokio::test]
async fn an_upload_that_succeeds_ends_the_run() {
    let clock = Clock::stopped();
    let events = Events::kept();
    let mut pushes = Pushes::new().await;
    let ended = "uploads succeed again";
    for has_stopped in [false, true] {
        let failures = if has_stopped { 5 } else { 4 };
        for _ in 0..failures {
            pushes.fail("app", "PATCH", LOST).await;
            clock.jump(seconds(9)).await;
        }
        pushes.succeed("web").await;
        assert!(events.with(ended).is_empty());
        pushes.succeed("app").await;
        assert_eq!(events.with(ended).len(), usize::from(has_stopped));
        assert_eq!(events.with(EVENT).len(), usize::from(has_stopped));
    }
    assert!(events.with(ended)[0].contains("failures=5"));
    assert_eq!(pushes.fail("app", "PATCH", LOST).await.status, 404);
}
