//! A client that speaks to a registry, over HTTP/1.1 or HTTP/2, and goes on over a new connection
//! when the old one has ended.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::image::{Image, sha256};
use crate::harness::{Gateway, basic, json};

/// Where a registry is, and how to speak to it.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub config: Arc<ClientConfig>,
    /// The domain, as clients name it.
    pub host: String,
}

/// A client at `ci.test`, of user `alice` unless told otherwise.
pub struct Client {
    endpoint: Endpoint,
    /// The value of `Authorization`, if it sends one.
    authorization: Option<String>,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why there was no answer.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Endpoint {
    pub fn new(gateway: &Gateway, alpn: &str) -> Self {
        let config = Arc::new(gateway.client_config(&[alpn]));
        Self {
            address: gateway.https(),
            config,
            host: "ci.test".to_owned(),
        }
    }

    pub async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let connector = TlsConnector::from(self.config.clone());
        connector
            .connect(ServerName::try_from(self.host.clone()).unwrap(), tcp)
            .await
    }

    pub fn client(&self) -> Client {
        Client {
            endpoint: self.clone(),
            authorization: Some(basic("alice", "secret")),
            connection: None,
        }
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        let io = self.tls().await?;
        if io.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (send, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
            tokio::spawn(connection);
            return Ok(Connection::Http2(send));
        }
        let (send, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Connection::Http1(send))
    }
}

impl Client {
    /// Another one, with a connection of its own.
    pub fn another(&self) -> Self {
        self.endpoint.client()
    }

    /// The same client of another user, whose password is `secret`.
    pub fn of(mut self, user: &str) -> Self {
        self.authorization = Some(basic(user, "secret"));
        self
    }

    /// The same client with a token.
    pub fn bearing(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// The same client without credentials.
    pub fn anonymous(mut self) -> Self {
        self.authorization = None;
        self
    }

    /// Sends a request and reads its answer. A connection that has ended is replaced.
    pub async fn try_ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Broken> {
        let is_ready = match &mut self.connection {
            Some(Connection::Http1(send)) => send.ready().await.is_ok(),
            Some(Connection::Http2(send)) => send.ready().await.is_ok(),
            None => false,
        };
        if !is_ready {
            self.connection = Some(self.endpoint.connect().await?);
        }
        let mut request = Request::builder().method(method);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.into());
        let host = &self.endpoint.host;
        // A `Location` is a URL of the host that was asked.
        let here = target.strip_prefix("https://");
        let target = here.map_or(target, |rest| {
            let path = rest.strip_prefix(host.as_str());
            path.unwrap_or_else(|| panic!("not at {host}: {target}"))
        });
        let answer = match self.connection.as_mut().unwrap() {
            Connection::Http1(send) => {
                send.send_request(request.uri(target).header("host", host).body(body)?)
                    .await?
            }
            Connection::Http2(send) => {
                send.send_request(request.uri(format!("https://{host}{target}")).body(body)?)
                    .await?
            }
        };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    /// The same, with further headers.
    pub async fn ask_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let answer = self.try_ask(method, target, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// A request without a body.
    pub async fn ask(&mut self, method: &str, target: &str) -> Answer {
        self.ask_with(method, target, &[], "").await
    }

    pub async fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target).await
    }

    /// Opens an upload session. Returns where it is.
    pub async fn start(&mut self, repository: &str) -> String {
        let answer = self
            .ask("POST", &format!("/v2/{repository}/blobs/uploads/"))
            .await
            .is(202);
        answer.header("location").to_owned()
    }

    /// Pushes a blob in a session, as most clients do. Returns its digest.
    pub async fn push_blob(&mut self, repository: &str, blob: &[u8]) -> String {
        let session = self.start(repository).await;
        let digest = sha256(blob);
        let body = Bytes::copy_from_slice(blob);
        let joint = if session.contains('?') { '&' } else { '?' };
        let target = format!("{session}{joint}digest={digest}");
        self.ask_with("PUT", &target, &[], body).await.is(201);
        digest
    }

    /// Pushes a manifest under a tag or a digest.
    pub async fn push_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        manifest: &[u8],
    ) -> Answer {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let kind = serde_json::from_slice::<serde_json::Value>(manifest).ok();
        let kind = kind
            .and_then(|manifest| Some(manifest["mediaType"].as_str()?.to_owned()))
            .unwrap();
        let body = Bytes::copy_from_slice(manifest);
        self.ask_with("PUT", &target, &[("content-type", &kind)], body)
            .await
    }

    /// Pushes all of an image. Returns its digest.
    pub async fn push(&mut self, repository: &str, reference: &str, image: &Image) -> String {
        for blob in image.blobs() {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, reference, &image.manifest)
            .await
            .is(201);
        image.digest()
    }

    /// Pulls all of an image and compares it.
    pub async fn check(&mut self, repository: &str, reference: &str, image: &Image) {
        let manifest = self
            .get(&format!("/v2/{repository}/manifests/{reference}"))
            .await
            .is(200);
        assert_eq!(manifest.body, image.manifest);
        for blob in image.blobs() {
            let answer = self
                .get(&format!("/v2/{repository}/blobs/{}", sha256(blob)))
                .await
                .is(200);
            assert!(
                answer.body == blob,
                "{repository}:{reference} has a wrong blob"
            );
        }
    }
}

impl Answer {
    /// Asserts its status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The value of a header that must be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values
            .next()
            .unwrap_or_else(|| panic!("no {name}: {self:?}"));
        assert!(
            values.next().is_none(),
            "{name} stands more than once: {self:?}"
        );
        value.to_str().unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn json(&self) -> serde_json::Value {
        json(&self.body)
    }

    /// Asserts that it is a refusal of the token endpoint, which says the same in the registry's
    /// words and in OAuth's, and returns its message.
    #[track_caller]
    pub fn refused_token(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        assert_eq!(body["errors"][0]["code"], code, "{self:?}");
        assert!(body["error"].is_string(), "{self:?}");
        assert_eq!(body["error_description"], body["errors"][0]["message"]);
        body["error_description"].as_str().unwrap().to_owned()
    }

    /// Asserts that it is the registry's refusal with this status and code, and returns its
    /// message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(
            self.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        let error = &self.json()["errors"][0];
        assert_eq!(error["code"], code, "{self:?}");
        error["message"].as_str().unwrap().to_owned()
    }
}
