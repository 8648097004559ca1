//! A client of a registry that says what it likes: over plain HTTP to the registry itself, or
//! through a gateway in front of it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Gateway, basic};

/// Makes one connection for each request.
pub struct RegistryClient {
    address: SocketAddr,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The `Authorization` of every request.
    pub authorization: Option<String>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct ClientAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl RegistryClient {
    /// Without TLS, to a registry.
    pub fn plain(address: SocketAddr, authorization: Option<&str>) -> Self {
        Self {
            address,
            host: address.to_string(),
            tls: None,
            authorization: authorization.map(str::to_owned),
        }
    }

    /// Through a gateway, as alice of `ci.test`.
    pub fn through(gateway: &Gateway) -> Self {
        Self {
            address: gateway.https(),
            host: "ci.test".to_owned(),
            tls: Some(Arc::new(gateway.client_config(&["http/1.1"]))),
            authorization: Some(basic("alice", "secret")),
        }
    }

    pub async fn get(&self, target: &str) -> ClientAnswer {
        self.send("GET", target, &[], b"").await
    }

    /// A request with header lines like `accept: a/b`.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        lines: &[&str],
        body: &[u8],
    ) -> ClientAnswer {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let request = self.request((method, target), lines, body);
        let Some(config) = self.tls.clone() else {
            return exchange(tcp, request).await;
        };
        let name = ServerName::try_from(self.host.clone()).unwrap();
        let stream = TlsConnector::from(config).connect(name, tcp).await.unwrap();
        exchange(stream, request).await
    }

    fn request(
        &self,
        (method, target): (&str, &str),
        lines: &[&str],
        body: &[u8],
    ) -> Request<Full<Bytes>> {
        let mut builder = Request::builder()
            .method(method)
            .uri(target)
            .header("host", &self.host);
        if let Some(authorization) = &self.authorization {
            builder = builder.header("authorization", authorization);
        }
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            builder = builder.header(name, value);
        }
        builder
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap()
    }

    /// Uploads a blob in one stream, as Docker does; its digest.
    pub async fn push_blob(&self, repository: &str, blob: &[u8]) -> String {
        let digest = super::played::digest(blob);
        let begun = self
            .send(
                "POST",
                &format!("/v2/{repository}/blobs/uploads/"),
                &[],
                b"",
            )
            .await;
        begun.expect(202);
        let kind = "content-type: application/octet-stream";
        let sent = self.send("PATCH", &begun.location(), &[kind], blob).await;
        assert!([201, 202].contains(&sent.status), "{sent:?}");
        let target = with_digest(&sent.location(), &digest);
        self.send("PUT", &target, &[], b"").await.expect(201);
        digest
    }

    /// Pushes a manifest by a tag or a digest.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &serde_json::Value,
    ) -> ClientAnswer {
        let kind = format!("content-type: {}", manifest["mediaType"].as_str().unwrap());
        let target = format!("/v2/{repository}/manifests/{reference}");
        let body = manifest.to_string();
        self.send("PUT", &target, &[&kind], body.as_bytes()).await
    }
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> ClientAnswer {
    let (mut sender, connection) = handshake(TokioIo::new(io)).await.unwrap();
    // Ends with the sender.
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    ClientAnswer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// The address of an upload with the digest that ends it.
pub fn with_digest(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

impl ClientAnswer {
    #[track_caller]
    pub fn expect(&self, status: u16) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{:?} {body}", self.headers);
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Path and query of the `Location`, whose host is the one that was asked.
    pub fn location(&self) -> String {
        let location = self.header("location").unwrap();
        match location.split_once("://") {
            Some((_, rest)) => rest[rest.find('/').unwrap()..].to_owned(),
            None => location.to_owned(),
        }
    }

    /// The code of the first error of the distribution specification.
    pub fn code(&self) -> Option<String> {
        let document: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        document["errors"][0]["code"].as_str().map(str::to_owned)
    }

    pub fn json(&self) -> serde_json::Value {
        super::json(&self.body)
    }
}
