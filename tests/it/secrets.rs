//! What is secret stays out of everything that is written down: the events at every level, the
//! access log, and the status page.

use std::time::Instant;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, request_block};
use crate::harness::process::Process;
use crate::harness::{Domain, PATIENCE, RawPeer, Setup, Upstream, basic, bound};

/// A part of everything that is secret here.
const SECRET: &str = "hunter2";
const UPLOAD: &str = "/v2/a/blobs/uploads/session-hunter2?_state=hunter2";

/// The real binary, the upstream behind it, and what is wrong with its requests.
struct SecretsFixture {
    process: Process,
    upstream: Upstream,
}

impl SecretsFixture {
    async fn new(log: &str, alpn: &str) -> Self {
        let upstream = Upstream::new().await;
        let domain = Domain::new("ci.test", &upstream.url()).upstream(
            "product = \"distribution\"\nusername = \"moorgate\"\npassword = \"upstream-hunter2\"",
        );
        let process = Setup::new()
            .domain(domain)
            .main(&format!("[log]\n{log}"))
            .spawn(&entry(), alpn);
        Self { process, upstream }
    }

    async fn client(&self) -> RawPeer<TlsStream<TcpStream>> {
        RawPeer::new(self.process.tls().await)
    }

    /// A client whose request has come to the upstream, and the upstream's end.
    async fn begin_request(
        &self,
        head: &str,
    ) -> (RawPeer<TlsStream<TcpStream>>, RawPeer<TcpStream>) {
        let mut client = self.client().await;
        client.send(head).await;
        let mut registry = self.upstream.accept().await;
        let authorization = basic("moorgate", "upstream-hunter2");
        let mut asked = registry.head().await;
        // Before a body that can be sent only once, the registry is asked how it takes passwords.
        if asked.first.starts_with("GET /v2/ ") && asked.get("authorization").is_none() {
            let challenge = "WWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\r\n";
            registry
                .send(format!("HTTP/1.1 401 U\r\n{challenge}"))
                .await;
            asked = registry.head().await;
        }
        assert_eq!(asked.get("authorization"), Some(authorization.as_str()));
        (client, registry)
    }

    /// Waits until an event has been written so many times, so that what is looked at is all there.
    async fn wait_for_log(&self, what: &str, times: usize) {
        let begun = Instant::now();
        while self.process.said().matches(what).count() < times {
            assert!(
                begun.elapsed() < PATIENCE,
                "never said: {what}\n{}",
                self.process.said()
            );
            tokio::task::yield_now().await;
        }
    }

    fn keeps_its_secrets(&self, more: &str) {
        let said = self.process.said() + more;
        let pairs = [
            "alice:hunter2",
            "moorgate:upstream-hunter2",
            "alice:wrong-hunter2",
        ];
        let encoded = pairs.map(|pair| {
            let (user, password) = pair.split_once(':').unwrap();
            basic(user, password)["Basic ".len()..].to_owned()
        });
        for secret in encoded
            .iter()
            .map(String::as_str)
            .chain([SECRET, "$2b$", "BEGIN"])
        {
            let lines: Vec<_> = said.lines().filter(|line| line.contains(secret)).collect();
            assert!(
                lines.is_empty(),
                "{secret} was written down:\n{}",
                lines.join("\n")
            );
        }
    }
}

fn entry() -> String {
    format!("alice:{}\n", bcrypt::hash(SECRET, 4).unwrap())
}

fn request(method: &str, target: &str, lines: &str) -> String {
    let (authorization, target) = (basic("alice", SECRET), bound(target));
    format!(
        "{method} {target} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n{lines}\r\n"
    )
}

/// Everything over HTTP/1.1 that moorgate writes an event about.
async fn everything_goes_wrong(fixture: &SecretsFixture) {
    let wrong = basic("alice", "wrong-hunter2");
    for value in [
        wrong.as_str(),
        "Basic hunter2!",
        "Bearer hunter2",
        "hunter2",
    ] {
        let mut client = fixture.client().await;
        client
            .send(format!(
                "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {value}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.0.status(), 401);
    }
    for head in [
        request("GET", "/v2/a//b?token=hunter2", ""),
        request("GET", "/v2/?token=hunter2", "Authorization hunter2\r\n"),
        request("GET", "/v2/\u{7f}?token=hunter2", ""),
    ] {
        let mut client = fixture.client().await;
        client.send(head).await;
        assert_eq!(client.head().await.status(), 400);
    }
    fixture.wait_for_log("connection ended", 1).await;
    let mut plain = RawPeer::new(TcpStream::connect(fixture.process.https).await.unwrap());
    plain.send(request("GET", "/v2/?token=hunter2", "")).await;
    plain.rest().await;
    fixture.wait_for_log("plain HTTP on a TLS port", 1).await;
    an_upstream_goes_wrong(fixture).await;
    a_reload_goes_wrong(fixture).await;
}

async fn an_upstream_goes_wrong(fixture: &SecretsFixture) {
    let upload = request("PATCH", UPLOAD, "Content-Length: 10\r\n") + "hunter2";
    let (client, _registry) = fixture.begin_request(&upload).await;
    drop(client);
    fixture.wait_for_log("request not completed", 1).await;
    let location = format!("HTTP/1.1 202 Accepted\r\nLocation: {UPLOAD}\r\n");
    for answer in [
        "",
        "hunter2\r\n\r\n",
        &format!("{location}hunter2\r\n\r\n"),
        &location,
    ] {
        let (mut client, mut registry) = fixture.begin_request(&upload).await;
        registry.send(answer).await;
        drop(registry);
        assert_eq!(client.head().await.status(), 502);
    }
    fixture.wait_for_log("upstream request failed", 1).await;
    // A connection that ends when it is used again.
    let (mut client, mut registry) = fixture.begin_request(&request("GET", UPLOAD, "")).await;
    registry
        .send(format!("{location}Content-Length: 0\r\n\r\n"))
        .await;
    client.answer().await;
    client.send(request("GET", UPLOAD, "")).await;
    registry.head().await;
    drop(registry);
    let mut fresh = fixture.upstream.accept().await;
    fresh.head().await;
    fresh
        .send("HTTP/1.1 307 Else\r\nLocation: https://s3.test/x?sig=hunter2\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(
        client.answer().await.0.get("location"),
        Some("https://s3.test/x?sig=hunter2")
    );
    fixture
        .wait_for_log("pooled connection was closed", 1)
        .await;
}

async fn a_reload_goes_wrong(fixture: &SecretsFixture) {
    let users = format!("{}bob:hunter2\nhunter2\ncarol:$apr1$hunter2\n", entry());
    std::fs::write(fixture.process.path("conf.d/ci.test.htpasswd"), users).unwrap();
    fixture.wait_for_log("has a plain password", 1).await;
    let file = fixture.process.path("conf.d/ci.test.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let breaks = [
        ("password = ", "pasword = "),
        ("password = \"", "password = [1]\npassword = \""),
        ("password = \"", "password = hunter2\""),
        ("http://", "http://moorgate:hunter2@"),
    ];
    for (times, (from, to)) in (1..).zip(breaks) {
        std::fs::write(&file, good.replace(from, to)).unwrap();
        fixture.process.signal(Signal::HUP);
        fixture
            .wait_for_log("has problems, its last valid version stays", times)
            .await;
    }
}

#[tokio::test]
async fn events_as_text_hold_no_secret() {
    let fixture = SecretsFixture::new("level = \"debug\"", "http/1.1").await;
    everything_goes_wrong(&fixture).await;
    fixture.keeps_its_secrets("");
}

#[tokio::test]
async fn events_as_json_hold_no_secret() {
    let fixture = SecretsFixture::new("level = \"trace\"\nformat = \"json\"", "http/1.1").await;
    everything_goes_wrong(&fixture).await;
    fixture.keeps_its_secrets("");
}

#[tokio::test]
async fn events_about_http2_hold_no_secret() {
    let fixture = SecretsFixture::new("level = \"trace\"", "h2").await;
    let right = basic("alice", SECRET);
    for (path, value) in [
        (UPLOAD, right.as_str()),
        ("/v2/ ?token=hunter2", &right),
        ("hunter2", &right),
        ("/v2/?token=hunter2", "hunter2\n"),
        ("/v2/?token=hunter2", "Basic hunter2"),
    ] {
        let mut client = Frames::over(fixture.process.tls().await, 65_535).await;
        let head = request_block(
            "GET",
            path,
            &[("authorization", value), ("cookie", "hunter2")],
        );
        client
            .send(HEADERS, END_HEADERS | END_STREAM, 1, &head)
            .await;
        if path == UPLOAD {
            fixture.upstream.accept().await.head().await;
        }
        while client
            .try_next()
            .await
            .is_some_and(|frame| frame.stream != 1)
        {}
    }
    fixture.wait_for_log("upstream request failed", 1).await;
    fixture.keeps_its_secrets("");
}

#[tokio::test]
async fn tokens_stay_out_of_the_log() {
    let domain = Domain::store("ci.test", "ci").auth("mode = \"token\"");
    let process = Setup::new()
        .domain(domain)
        .main("[log]\nlevel = \"trace\"")
        .spawn(&entry(), "http/1.1");
    let ask = async |request: String| {
        let mut client = RawPeer::new(process.tls().await);
        client.send(request).await;
        client.answer().await
    };
    let post = |form: &str| {
        let length = form.len();
        format!(
            "POST /token HTTP/1.1\r\nHost: ci.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{form}"
        )
    };
    let scope = "service=ci.test&scope=repository:a:pull";
    let (head, body) = ask(request(
        "GET",
        &format!("/token?{scope}&offline_token=true"),
        "",
    ))
    .await;
    assert_eq!(head.status(), 200);
    let answer = crate::harness::json(&body);
    let [token, refresh] =
        ["token", "refresh_token"].map(|name| answer[name].as_str().unwrap().to_owned());
    let with = |token: &str| {
        format!(
            "GET /v2/a/tags/list HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    assert_eq!(ask(with(&token)).await.0.status(), 404);
    let password = format!("grant_type=password&username=alice&password=hunter2&{scope}");
    let wrong = [
        post(&format!(
            "grant_type=refresh_token&refresh_token={refresh}x"
        )),
        post(&format!(
            "grant_type=refresh_token&refresh_token={refresh}&scope=hunter2"
        )),
        post(&password.replace("hunter2", "wrong-hunter2")),
        post(&format!("{password}&%zz")),
        post(&password.replace("password&", "hunter2&")),
        with(&format!("{token}x")),
        with(&token[..token.len() / 2]),
        with("hunter2"),
        request("GET", "/token?scope=hunter2&account=hunter2", ""),
    ];
    for request in wrong {
        let (head, body) = ask(request).await;
        let said = String::from_utf8(body).unwrap();
        assert!((400..402).contains(&head.status()), "{said}");
        assert!(
            !said.contains(SECRET) && !said.contains(&token[..20]) && !said.contains(&refresh[9..]),
            "{said}"
        );
    }
    assert_eq!(ask(post(&password)).await.0.status(), 200);
    assert_eq!(
        ask(post(&format!(
            "grant_type=refresh_token&refresh_token={refresh}"
        )))
        .await
        .0
        .status(),
        200
    );
    let begun = Instant::now();
    while process.said().matches("call=token").count() < 9 {
        assert!(begun.elapsed() < PATIENCE, "{}", process.said());
        tokio::task::yield_now().await;
    }
    let listed = std::process::Command::new(env!("CARGO_BIN_EXE_moorgate"))
        .args(["tokens", "list", "--config"])
        .arg(process.path("."))
        .output()
        .unwrap();
    let said = process.said() + &String::from_utf8(listed.stdout).unwrap();
    assert!(
        said.contains("user=alice") && said.contains("  alice  ci.test  "),
        "{said}"
    );
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token}")
    };
    let encoded = &basic("alice", SECRET)["Basic ".len()..];
    for secret in [
        header,
        payload,
        signature,
        &refresh[9..],
        SECRET,
        encoded,
        "$2b$",
    ] {
        let lines: Vec<_> = said.lines().filter(|line| line.contains(secret)).collect();
        assert!(
            lines.is_empty(),
            "{secret} was written down:\n{}",
            lines.join("\n")
        );
    }
}

#[tokio::test]
async fn the_status_page_holds_no_secret() {
    let fixture = SecretsFixture::new("level = \"debug\"", "http/1.1").await;
    let (_client, _registry) = fixture
        .begin_request(&request("PATCH", UPLOAD, "Content-Length: 10\r\n"))
        .await;
    let mut admin = RawPeer::new(TcpStream::connect(fixture.process.admin).await.unwrap());
    admin
        .send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let (head, body) = admin.answer().await;
    assert_eq!(head.status(), 200);
    let status = String::from_utf8(body).unwrap();
    assert!(status.contains("\"users\": 1"), "{status}");
    fixture.keeps_its_secrets(&status);
}
