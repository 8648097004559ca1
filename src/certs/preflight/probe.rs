//! Connects to a name as a CA does for http-01 and tls-alpn-01, to see whether this process answers.

mod handshake;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::handshake::AlpnHandshake;
use crate::certs::acme::{ExchangeError, HttpConnection};
use crate::certs::challenge::Challenges;
use crate::certs::library_error::with_sources;
use crate::config::acme::{ChallengeKind, ValidationPorts};
use crate::crypto;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// A name that is to be validated.
pub(super) struct Probe<'a> {
    pub(super) challenges: &'a Arc<Challenges>,
    pub(super) name: &'a HostName,
    pub(super) ports: ValidationPorts,
}

/// What answers under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// This process, or another one on the same state directory.
    Here,
    /// Another server, and where.
    Elsewhere(String),
    /// Not known, and why. Behind a router without hairpin NAT that is normal.
    Unknown(String),
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Connect(#[from] io::Error),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Request(#[from] http::Error),
}

impl Probe<'_> {
    /// Connects to all addresses: a CA may use any of them.
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
        let response = match run_blocking(move || challenges.answer_http(&content, &content)).await
        {
            Ok(response) => response,
            Err(error) => return Reachability::Unknown(error.to_string()),
        };
        let fetched = timeout(PROBE_TIMEOUT, self.fetch(at, &token)).await;
        run_blocking(move || drop(response)).await;
        match fetched {
            Err(_) => Reachability::Unknown(format!("{at} does not answer")),
            Ok(Ok(response)) if contains(response.body(), token.as_bytes()) => Reachability::Here,
            Ok(Ok(response)) => from_status(response.status(), at),
            Ok(Err(FetchError::Exchange(ExchangeError::TooLarge(status)))) => {
                from_status(status, at)
            }
            Ok(Err(error)) if error.is_not_http() => another_server(at),
            Ok(Err(error)) => {
                Reachability::Unknown(format!("no answer from {at}: {}", with_sources(&error)))
            }
        }
    }

    async fn fetch(&self, at: SocketAddr, token: &str) -> Result<Response<Bytes>, FetchError> {
        let stream = TcpStream::connect(at).await?;
        let mut connection = HttpConnection::new(stream)
            .await
            .map_err(ExchangeError::from)?;
        let request = Request::get(format!("/.well-known/acme-challenge/{token}"))
            .header(
                HOST,
                self.name.authority(self.ports.http, DEFAULT_HTTP_PORT),
            )
            .header(CONNECTION, "close")
            .body(Full::default())?;
        Ok(connection.exchange(request, MAX_RESPONSE_SIZE).await?)
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
        let response =
            match run_blocking(move || challenges.answer_handshake(name.as_str(), &digest)).await {
                Ok(response) => response,
                Err(error) => return Reachability::Unknown(error.to_string()),
            };
        let done = timeout(PROBE_TIMEOUT, handshake.shows(at, &digest)).await;
        run_blocking(move || drop(response)).await;
        match done {
            Err(_) => Reachability::Unknown(format!("{at} does not answer")),
            Ok(Ok(true)) => Reachability::Here,
            Ok(Ok(false)) => another_server(at),
            Ok(Err(error)) if handshake::is_refusal(&error) => another_server(at),
            Ok(Err(error)) => {
                Reachability::Unknown(format!("no answer from {at}: {}", with_sources(&error)))
            }
        }
    }
}

impl FetchError {
    /// Whether a server is there that answers something else than HTTP, or nothing.
    fn is_not_http(&self) -> bool {
        matches!(
            self,
            Self::Exchange(ExchangeError::Http(error))
                if error.is_parse()
                    || error.is_incomplete_message()
                    || error.is_canceled()
                    || error.is_closed()
        )
    }
}

/// By the status of a response that is not ours. A redirect may lead here yet, and a server that is
/// out of order may pass the request on later.
fn from_status(status: StatusCode, at: SocketAddr) -> Reachability {
    if status.is_redirection() || status.is_server_error() {
        return Reachability::Unknown(format!("{at} answers \"HTTP {status}\""));
    }
    another_server(at)
}

fn contains(body: &[u8], token: &[u8]) -> bool {
    body.windows(token.len()).any(|part| part == token)
}

fn another_server(at: SocketAddr) -> Reachability {
    Reachability::Elsewhere(format!("another server answers at {at}"))
}

const DEFAULT_HTTP_PORT: u16 = 80;
const MAX_ADDRESSES: usize = 4;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_SIZE: usize = 16 * 1024;
