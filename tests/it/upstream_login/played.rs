//! A registry and its token service in one server, which count every request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::{Domain, Gateway, RawPeer, Setup, basic, request};

/// The keys of `[upstream]` with the credentials that the token service knows.
pub const OWN: &str = "product = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"";
/// The same, where the registry has to tell its product.
pub const AUTO: &str = "username = \"gate\"\npassword = \"inside\"";

/// A registry with its token service. Dropped, it stops listening.
pub struct PlayedLogin {
    pub url: String,
    pub state: Arc<Mutex<PlayedState>>,
    listening: tokio::task::JoinHandle<()>,
}

/// An answer that a test gives in place of the usual one.
type Answer = Response<Full<Bytes>>;

/// What it does, and what it saw.
pub struct PlayedState {
    pub seen: Vec<Seen>,
    /// The realm of its challenges; by default, its own token service.
    pub realm: String,
    /// The password of `gate` that the token service accepts.
    pub password: String,
    /// Further members of the token's document.
    pub members: String,
    /// What the token service answers instead.
    pub exchanged: Option<fn() -> Answer>,
    /// What the registry answers to a valid token.
    pub found: fn(&Seen) -> Answer,
    /// Whether the token service refuses GET.
    pub only_post: bool,
    /// The path below which no token has a right.
    pub denied: Option<&'static str>,
    /// While it is set, the token service does not answer.
    pub silent: bool,
    /// What the registry answers to `/v2/` without credentials instead.
    pub pinged: Option<fn() -> Answer>,
    /// While it is set, the registry does not answer that.
    pub silent_ping: bool,
    /// Whether the registry takes the password itself.
    pub takes_passwords: bool,
    /// How long the registry takes a token.
    pub life: Duration,
    /// The tokens, with their ends.
    valid: HashMap<String, Instant>,
    issued: usize,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub authorization: String,
    pub body: String,
}

impl Seen {
    /// Whether it asks what the registry is.
    pub fn is_ping(&self) -> bool {
        self.target == "/v2/" && self.authorization.is_empty()
    }
}

impl PlayedState {
    fn is_silent(&self, seen: &Seen) -> bool {
        let is_token = self.silent && seen.target.starts_with("/token");
        is_token || self.silent_ping && seen.is_ping()
    }

    /// The tokens that were issued before become invalid.
    pub fn revoke(&mut self) {
        self.valid.clear();
    }
}

impl PlayedLogin {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(PlayedState {
            seen: Vec::new(),
            realm: format!("{url}/token"),
            password: "inside".to_owned(),
            members: "\"expires_in\":300".to_owned(),
            exchanged: None,
            found: |_| answer(StatusCode::OK, "{}"),
            only_post: false,
            denied: None,
            silent: false,
            pinged: None,
            silent_ping: false,
            takes_passwords: false,
            life: Duration::from_hours(48),
            valid: HashMap::new(),
            issued: 0,
        }));
        let shared = state.clone();
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                let service = service_fn(move |request| respond(state.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self {
            url,
            state,
            listening,
        }
    }

    pub fn set(&self, change: impl FnOnce(&mut PlayedState)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since the last call, those to the token service or the others.
    pub fn take(&self, of_tokens: bool) -> Vec<Seen> {
        let seen = &mut self.state.lock().unwrap().seen;
        let is_token = |seen: &Seen| seen.target.starts_with("/token");
        let (found, left) = std::mem::take(seen)
            .into_iter()
            .partition(|seen| is_token(seen) == of_tokens);
        *seen = left;
        found
    }

    /// How often it was asked what it is since the last call.
    pub fn pings(&self) -> usize {
        let seen = &mut self.state.lock().unwrap().seen;
        let before = seen.len();
        seen.retain(|seen| !seen.is_ping());
        before - seen.len()
    }

    /// The targets of the exchanges since the last call, decoded.
    pub fn exchanges(&self) -> Vec<String> {
        let targets = self.take(true).into_iter().map(|seen| seen.target);
        targets
            .map(|target| target.replace("%2C", ",").replace("%2A", "*"))
            .collect()
    }

    /// A gateway with the domain `ci.test` before it.
    pub async fn gateway(&self, keys: &str) -> Gateway {
        let domain = Domain::new("ci.test", &self.url).upstream(keys);
        Setup::new().domain(domain).start().await
    }
}

impl Drop for PlayedLogin {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

pub fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

async fn respond(
    state: Arc<Mutex<PlayedState>>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let header = parts.headers.get("authorization");
    let mut seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        authorization: header
            .map_or("", |value| value.to_str().unwrap())
            .to_owned(),
        body: String::new(),
    };
    if let Ok(body) = body.collect().await {
        seen.body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    }
    state.lock().unwrap().seen.push(seen.clone());
    while state.lock().unwrap().is_silent(&seen) {
        tokio::task::yield_now().await;
    }
    let mut state = state.lock().unwrap();
    Ok(if seen.target.starts_with("/token") {
        exchange(&mut state, &seen)
    } else {
        registry(&state, &seen)
    })
}

fn exchange(state: &mut PlayedState, seen: &Seen) -> Answer {
    if let Some(exchanged) = state.exchanged {
        return exchanged();
    }
    if state.only_post && seen.method != "POST" {
        return answer(StatusCode::NOT_FOUND, "");
    }
    let pair = format!("username=gate&password={}", state.password);
    if seen.authorization != basic("gate", &state.password) && !seen.body.contains(&pair) {
        return answer(StatusCode::UNAUTHORIZED, "{}");
    }
    state.issued += 1;
    let token = format!("token-{}", state.issued);
    let end = Instant::now() + state.life;
    state.valid.insert(format!("Bearer {token}"), end);
    let members = &state.members;
    let separator = if members.is_empty() { "" } else { "," };
    answer(
        StatusCode::OK,
        format!("{{\"token\":\"{token}\"{separator}{members}}}"),
    )
}

fn registry(state: &PlayedState, seen: &Seen) -> Answer {
    if let Some(pinged) = state.pinged.filter(|_| seen.is_ping()) {
        return pinged();
    }
    let takes_it = state.takes_passwords && seen.authorization == basic("gate", &state.password);
    let end = state.valid.get(&seen.authorization);
    let is_valid = takes_it || end.is_some_and(|end| Instant::now() < *end);
    let is_denied = |path: &str| seen.target.starts_with(path);
    let is_denied = is_valid && state.denied.is_some_and(is_denied);
    if is_valid && !is_denied {
        return (state.found)(seen);
    }
    let mut refused = answer(StatusCode::UNAUTHORIZED, "{}");
    let error = if is_denied {
        ",error=\"insufficient_scope\""
    } else {
        ""
    };
    let challenge = match state.takes_passwords {
        true => "Basic realm=\"played\"".to_owned(),
        false => format!("Bearer realm=\"{}\",service=\"played\"{error}", state.realm),
    };
    refused
        .headers_mut()
        .insert("www-authenticate", challenge.parse().unwrap());
    refused
}

/// The status of a request of `alice` over a connection of its own, and what its answer says.
pub async fn ask(gateway: &Gateway, method: &str, target: &str) -> (u16, String) {
    let mut client = gateway.client().await;
    client.send(request(method, target, "")).await;
    if method == "HEAD" {
        return (client.head().await.status(), String::new());
    }
    let (head, body) = client.answer().await;
    assert_eq!(head.get("www-authenticate"), None, "{head:?}");
    (head.status(), String::from_utf8(body).unwrap())
}

/// Replaces a file as a whole.
pub fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Sends a request with a body.
pub async fn ask_with_body(gateway: &Gateway, head: &str, body: &str) -> u16 {
    let mut client = gateway.client().await;
    let (method, target) = head.split_once(' ').unwrap();
    let length = format!("Content-Length: {}\r\n", body.len());
    client.send(request(method, target, &length) + body).await;
    let (head, _) = RawPeer::answer(&mut client).await;
    head.status()
}
