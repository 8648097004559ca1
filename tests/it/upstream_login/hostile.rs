//! A registry that wants moorgate's credentials to go elsewhere: not a byte of them does.

use std::sync::{Arc, Mutex};

use base64::Engine;
use http::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::played::{OWN, PlayedLogin, answer, ask};
use crate::harness::{Events, settle};

/// A server that reads whatever comes, and answers nothing.
struct Thief {
    url: String,
    read: Arc<Mutex<Vec<u8>>>,
}

impl Thief {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let all = read.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let all = all.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        all.lock().unwrap().extend_from_slice(&buffer[..count]);
                        let end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, end).await;
                    }
                });
            }
        });
        Self { url, read }
    }

    /// Asserts that neither the password nor a token has come.
    async fn has_no_credential(&self, case: &str) {
        settle().await;
        let read = String::from_utf8_lossy(&self.read.lock().unwrap()).into_owned();
        let pair = base64::engine::general_purpose::STANDARD.encode("gate:inside");
        for part in ["inside", "token-", &pair, "authorization", "Authorization"] {
            assert!(!read.contains(part), "{case}: {read}");
        }
    }
}

#[tokio::test]
async fn a_realm_elsewhere_gets_nothing() {
    let thief = Thief::new().await;
    let port = thief.url.rsplit(':').next().unwrap().to_owned();
    let played = PlayedLogin::new().await;
    let own = played.url.clone();
    for realm in [
        format!("{}/token", thief.url),
        format!("http://localhost:{port}/token"),
        format!("{own}@127.0.0.1:{port}/token"),
        format!("http://gate:inside@127.0.0.1:{port}/token"),
        format!("{}/token?x={own}", thief.url),
        format!("//127.0.0.1:{port}/token"),
        format!("https://127.0.0.1:{port}/token"),
        "/token".to_owned(),
        "token".to_owned(),
        String::new(),
        "file:///etc/passwd".to_owned(),
        format!("{own}\\\\@127.0.0.1:{port}/token"),
    ] {
        let events = Events::kept();
        played.set(|state| state.realm = realm.clone());
        let gateway = played.gateway(OWN).await;
        let (status, said) = ask(&gateway, "GET", "/v2/a/tags/list").await;
        assert_eq!(status, 502, "{realm}: {said}");
        assert!(!said.contains(&port), "{said}");
        assert_eq!(played.exchanges(), [""; 0], "{realm}");
        let lines = events.with("upstream fails");
        assert_eq!(lines.len(), 1, "{realm}: {lines:#?}");
        assert!(lines[0].contains("reason=\"credentials\""), "{lines:#?}");
        thief.has_no_credential(&realm).await;
    }
    assert!(thief.read.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_realm_that_is_named_is_used() {
    let played = PlayedLogin::new().await;
    let port = played.url.rsplit(':').next().unwrap();
    let realm = format!("http://localhost:{port}/token?account=a");
    played.set(|state| state.realm = realm);
    let keys = format!("{OWN}\nhosts = [\"localhost:{port}\"]");
    let gateway = played.gateway(&keys).await;
    assert_eq!(ask(&gateway, "GET", "/v2/a/tags/list").await.0, 200);
    let expected = "/token?account=a&service=played&scope=repository:a:pull";
    assert_eq!(played.exchanges(), [expected]);
}

#[tokio::test]
async fn a_redirect_of_the_token_service_is_not_followed() {
    let thief = Thief::new().await;
    static TARGET: Mutex<String> = Mutex::new(String::new());
    *TARGET.lock().unwrap() = thief.url.clone();
    for status in [301, 302, 303, 307, 308] {
        static STATUS: Mutex<u16> = Mutex::new(0);
        *STATUS.lock().unwrap() = status;
        let played = PlayedLogin::new().await;
        played.set(|state| {
            state.exchanged = Some(|| {
                let status = StatusCode::from_u16(*STATUS.lock().unwrap()).unwrap();
                let mut redirect = answer(status, "");
                let target = TARGET.lock().unwrap().parse().unwrap();
                redirect.headers_mut().insert("location", target);
                redirect
            });
        });
        let gateway = played.gateway(OWN).await;
        assert_eq!(ask(&gateway, "GET", "/v2/a/tags/list").await.0, 502);
        thief.has_no_credential("redirect").await;
    }
    assert!(thief.read.lock().unwrap().is_empty());
}

#[tokio::test]
async fn addresses_of_answers_get_no_token() {
    let thief = Thief::new().await;
    static TARGET: Mutex<String> = Mutex::new(String::new());
    *TARGET.lock().unwrap() = thief.url.clone();
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.found = |seen| {
            let target = TARGET.lock().unwrap().clone();
            let value = |text: String| http::HeaderValue::try_from(text).unwrap();
            let is_blob = seen.target.contains("/blobs/sha256");
            let status = if is_blob { 307 } else { 200 };
            let body = "{\"repositories\":[\"a\"]}";
            let mut found = answer(StatusCode::from_u16(status).unwrap(), body);
            let headers = found.headers_mut();
            headers.insert("location", value(format!("{target}/x")));
            headers.insert(
                "link",
                value(format!("<{target}/v2/_catalog?n=1>; rel=\"next\"")),
            );
            found
        };
    });
    let keys = format!("{OWN}\nredirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]");
    let domain = crate::harness::Domain::new("ci.test", &played.url)
        .upstream(&keys)
        .tables("[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n");
    let gateway = crate::harness::Setup::new().domain(domain).start().await;
    let blob = format!("/v2/a/blobs/sha256:{}", "0".repeat(64));
    for (method, target) in [
        ("GET", blob.as_str()),
        ("HEAD", &blob),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/a/tags/list"),
        ("POST", "/v2/a/blobs/uploads/"),
    ] {
        ask(&gateway, method, target).await;
        thief.has_no_credential(target).await;
    }
    // It was asked for the blob, without credentials.
    assert!(!thief.read.lock().unwrap().is_empty());
}
