//! A client that uses one connection until its server ends it, and resumes its TLS session on the
//! next one.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::basic;
use super::registry_client::{ClientAnswer, with_digest};

/// Where clients connect, as whom: alice with the password `secret`.
#[derive(Clone)]
pub struct LastingEndpoint {
    pub address: SocketAddr,
    pub host: &'static str,
    pub config: Arc<ClientConfig>,
    pub handshakes: Arc<Handshakes>,
}

/// The handshakes after the first one of each client.
#[derive(Debug, Default)]
pub struct Handshakes {
    pub again: AtomicU64,
    pub resumed: AtomicU64,
}

pub struct LastingClient {
    endpoint: LastingEndpoint,
    connection: Option<Connection>,
    has_connected: bool,
}

/// Why there was no whole answer.
#[derive(Debug)]
pub enum NoAnswer {
    Connection(String),
    Request(String),
    /// After a head with this status.
    Body(u16, String),
}

/// What came in place of the answer that a step of a push expects.
#[derive(Debug)]
pub struct BrokenPush {
    pub step: &'static str,
    pub answer: Box<Result<ClientAnswer, NoAnswer>>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(why) => write!(f, "no connection: {why}"),
            Self::Request(why) => write!(f, "no answer: {why}"),
            Self::Body(status, why) => write!(f, "no whole body after {status}: {why}"),
        }
    }
}

impl LastingEndpoint {
    pub fn client(&self) -> LastingClient {
        LastingClient {
            endpoint: self.clone(),
            connection: None,
            has_connected: false,
        }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.host).unwrap();
        TlsConnector::from(self.config.clone())
            .connect(name, tcp)
            .await
    }
}

impl LastingClient {
    async fn connect(&mut self) -> Result<Connection, NoAnswer> {
        let failed = |error: &dyn std::fmt::Debug| NoAnswer::Connection(format!("{error:?}"));
        let stream = self.endpoint.connect().await;
        let stream = stream.map_err(|error| failed(&error))?;
        let (_, session) = stream.get_ref();
        if self.has_connected {
            let handshakes = &self.endpoint.handshakes;
            handshakes.again.fetch_add(1, Ordering::Relaxed);
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                handshakes.resumed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.has_connected = true;
        if session.alpn_protocol() == Some(b"h2") {
            let begun = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (send, connection) = begun.map_err(|error| failed(&error))?;
            tokio::spawn(connection);
            Ok(Connection::Http2(send))
        } else {
            let begun = http1::handshake(TokioIo::new(stream)).await;
            let (send, connection) = begun.map_err(|error| failed(&error))?;
            tokio::spawn(connection);
            Ok(Connection::Http1(send))
        }
    }

    /// Sends a request. One that the server has announced not to process is sent over the next
    /// connection.
    pub async fn send(
        &mut self,
        method: Method,
        target: &str,
        kind: Option<&'static str>,
        body: Bytes,
    ) -> Result<ClientAnswer, NoAnswer> {
        let response = loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::builder()
                .method(&method)
                .header(header::AUTHORIZATION, basic("alice", "secret"))
                .header(header::ACCEPT, ACCEPTED)
                .body(Full::new(body.clone()))
                .unwrap();
            if let Some(kind) = kind {
                let kind = HeaderValue::from_static(kind);
                request.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            match connection.send(request, self.endpoint.host, target).await {
                Ok(response) => {
                    self.connection = Some(connection);
                    break response;
                }
                Err(error) if connection.has_not_processed(&error) => {}
                Err(error) => return Err(NoAnswer::Request(format!("{error:?}"))),
            }
        };
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        let body = body.collect().await;
        let ending = parts.headers.get(header::CONNECTION);
        if body.is_err() || ending.is_some_and(|ending| ending == "close") {
            self.connection = None;
        }
        let body = body.map_err(|error| NoAnswer::Body(status, format!("{error:?}")))?;
        Ok(ClientAnswer {
            status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }

    /// Uploads a blob in parts.
    pub async fn push_parts(
        &mut self,
        repository: &str,
        content: &Bytes,
        part: usize,
        digest: &str,
    ) -> Result<(), BrokenPush> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let expect = |step, status, answer: Result<ClientAnswer, NoAnswer>| match answer {
            Ok(answer) if answer.status == status => Ok(answer),
            other => Err(BrokenPush {
                step,
                answer: Box::new(other),
            }),
        };
        let begun = self.send(Method::POST, &target, None, Bytes::new()).await;
        let mut location = expect("POST", 202, begun)?.location();
        for begin in (0..content.len()).step_by(part) {
            let bytes = content.slice(begin..content.len().min(begin + part));
            let kind = Some("application/octet-stream");
            let sent = self.send(Method::PATCH, &location, kind, bytes).await;
            location = expect("PATCH", 202, sent)?.location();
        }
        let target = with_digest(&location, digest);
        let done = self.send(Method::PUT, &target, None, Bytes::new()).await;
        expect("PUT", 201, done).map(drop)
    }
}

impl Connection {
    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
        host: &'static str,
        target: &str,
    ) -> Result<http::Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(send) => {
                *request.uri_mut() = target.parse().unwrap();
                let host = HeaderValue::from_static(host);
                request.headers_mut().insert(header::HOST, host);
                send.ready().await?;
                send.send_request(request).await
            }
            Self::Http2(send) => {
                *request.uri_mut() = format!("https://{host}{target}").parse().unwrap();
                send.ready().await?;
                send.send_request(request).await
            }
        }
    }

    /// Whether the server has said, by GOAWAY, that it has not processed a request and will not
    /// (RFC 9113 §6.8). Clients of registries repeat such a request by themselves.
    fn has_not_processed(&self, error: &hyper::Error) -> bool {
        matches!(self, Self::Http2(_))
            && (error.is_closed()
                || error.is_canceled()
                || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)"))
    }
}

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, */*";

/// Bytes that no other number has, and their digest.
pub fn numbered_blob(number: u64, bytes: usize) -> (Bytes, String) {
    let mut content = Vec::with_capacity(bytes + 8);
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while content.len() < bytes {
        // xorshift64
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        content.extend_from_slice(&word.to_le_bytes());
    }
    content.truncate(bytes);
    let digest = super::played::digest(&content);
    (content.into(), digest)
}
