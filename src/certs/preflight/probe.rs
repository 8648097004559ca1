//! Fetches an answer of our own through the public name, in the ways in which a CA will.

mod handshake;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::handshake::AlpnHandshake;
use crate::certs::challenge::Challenges;
use crate::config::acme::{ChallengeKind, ValidationPorts};
use crate::crypto;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// A name that should lead here.
pub(super) struct Probe<'a> {
    pub(super) challenges: &'a Arc<Challenges>,
    pub(super) name: &'a HostName,
    pub(super) ports: ValidationPorts,
}

/// What stands at the end of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// We, or another process on the same state directory.
    Here,
    /// Somebody else.
    Elsewhere(String),
    /// It cannot be seen from here. Behind a router that does not lead its own network back in
    /// through its public address, this is how all is well.
    Unknown(String),
}

impl Probe<'_> {
    /// Looks at all addresses: a CA takes any of them.
    pub(super) async fn all(&self, kind: ChallengeKind, addresses: &[IpAddr]) -> Reachability {
        let mut seen = Reachability::Unknown("it has no address".to_owned());
        for (index, address) in addresses.iter().take(MAX_ADDRESSES).enumerate() {
            let reachability = match kind {
                ChallengeKind::Http01 => self.by_http(*address).await,
                ChallengeKind::TlsAlpn01 => self.by_handshake(*address).await,
                ChallengeKind::Dns01 | ChallengeKind::DnsPersist01 => return Reachability::Here,
            };
            match reachability {
                Reachability::Elsewhere(_) => return reachability,
                Reachability::Here => seen = reachability,
                Reachability::Unknown(_) if index == 0 => seen = reachability,
                Reachability::Unknown(_) => {}
            }
        }
        seen
    }

    async fn by_http(&self, address: IpAddr) -> Reachability {
        let at = SocketAddr::new(address, self.ports.http);
        let Ok(random) = crypto::random::<16>() else {
            return Reachability::Unknown("there is no randomness".to_owned());
        };
        let token = crypto::hex(&random);
        let (challenges, content) = (self.challenges.clone(), token.clone());
        let answer = match run_blocking(move || challenges.answer_http(&content, &content)).await {
            Ok(answer) => answer,
            Err(error) => return Reachability::Unknown(error.to_string()),
        };
        let fetched = timeout(PROBE_TIMEOUT, self.fetch(at, &token)).await;
        run_blocking(move || drop(answer)).await;
        match fetched {
            Err(_) => Reachability::Unknown(format!("nobody answers at {at}")),
            Ok(Err(error)) => Reachability::Unknown(format!("{at} cannot be asked: {error}")),
            Ok(Ok(text)) => from_http_response(&text, &token, at),
        }
    }

    async fn fetch(&self, at: SocketAddr, token: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(at).await?;
        let host = self.name.authority(self.ports.http, DEFAULT_HTTP_PORT);
        let request = format!(
            "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream
            .take(MAX_RESPONSE_SIZE)
            .read_to_end(&mut answer)
            .await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn by_handshake(&self, address: IpAddr) -> Reachability {
        let at = SocketAddr::new(address, self.ports.tls);
        let Ok(digest) = crypto::random::<32>() else {
            return Reachability::Unknown("there is no randomness".to_owned());
        };
        let handshake = match AlpnHandshake::new(self.name) {
            Ok(handshake) => handshake,
            Err(error) => return Reachability::Unknown(error.to_string()),
        };
        let (challenges, name) = (self.challenges.clone(), self.name.clone());
        let answer =
            match run_blocking(move || challenges.answer_handshake(name.as_str(), &digest)).await {
                Ok(answer) => answer,
                Err(error) => return Reachability::Unknown(error.to_string()),
            };
        let done = timeout(PROBE_TIMEOUT, handshake.shows(at, &digest)).await;
        run_blocking(move || drop(answer)).await;
        match done {
            Err(_) => Reachability::Unknown(format!("nobody answers at {at}")),
            Ok(Ok(true)) => Reachability::Here,
            Ok(Ok(false)) => another_server(at),
            Ok(Err(error)) if handshake::is_refusal(&error) => another_server(at),
            Ok(Err(error)) => Reachability::Unknown(format!("{at} cannot be asked: {error}")),
        }
    }
}

/// By an answer to DEFAULT_HTTP_PORT. One that leads on, or that says that something is out of
/// order, may yet end here.
fn from_http_response(text: &str, token: &str, at: SocketAddr) -> Reachability {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    if body.contains(token) {
        return Reachability::Here;
    }
    match head
        .split(' ')
        .nth(1)
        .and_then(|status| status.chars().next())
    {
        Some('3' | '5') => {
            let line = head.lines().next().unwrap_or_default();
            Reachability::Unknown(format!(
                "{at} answers \"{}\"",
                line.chars().take(60).collect::<String>()
            ))
        }
        _ => another_server(at),
    }
}

fn another_server(at: SocketAddr) -> Reachability {
    Reachability::Elsewhere(format!("another server answers at {at}"))
}

const DEFAULT_HTTP_PORT: u16 = 80;
const MAX_ADDRESSES: usize = 4;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_SIZE: u64 = 16 * 1024;
