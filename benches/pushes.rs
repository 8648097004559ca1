//! Pushes blobs to a registry as clients do, and pulls one, for `benches/stores.sh`: one of 1 GiB,
//! or 2,000 small ones over eight connections. Prints the seconds that each took.
//!
//! `pushes ADDRESS CA_PEM USER:PASSWORD REPOSITORY (large|small)`; the name in the certificate is
//! `localhost`.
#![expect(clippy::disallowed_methods, reason = "ends with the process")]
#![forbid(unsafe_code)]

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use aws_lc_rs::digest;
use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

const LARGE_BLOB_BYTES: u64 = 1 << 30;
const FRAME_BYTES: usize = 64 * 1024;
const SMALL_BLOBS: u64 = 2000;
const CLIENTS: u64 = 8;

/// Bytes that repeat a frame, whose first bytes make a blob unlike any other.
#[derive(Clone)]
struct Blob {
    frame: Bytes,
    left: u64,
}

impl Body for Blob {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let length = (self.frame.len() as u64).min(self.left);
        self.left -= length;
        let frame = self.frame.slice(..usize::try_from(length).unwrap_or(0));
        Poll::Ready((length > 0).then(|| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Blob {
    fn new(seed: &[u8], length: u64) -> Self {
        let mut frame = vec![0; FRAME_BYTES];
        for (slot, byte) in frame.iter_mut().zip(seed) {
            *slot = *byte;
        }
        Self {
            frame: frame.into(),
            left: length,
        }
    }

    fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut left = self.left;
        while left > 0 {
            let length = left.min(FRAME_BYTES as u64);
            context.update(&self.frame[..usize::try_from(length).unwrap_or(0)]);
            left -= length;
        }
        let hex: String = context
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}")
    }
}

/// Where a registry is, and as whom it is asked.
struct Registry {
    address: String,
    tls: TlsConnector,
    authorization: String,
    repository: String,
}

struct Client<'a> {
    registry: &'a Registry,
    send: SendRequest<Blob>,
}

impl Registry {
    async fn client(&self) -> Result<Client<'_>, Failure> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self
            .tls
            .connect(ServerName::try_from("localhost")?, tcp)
            .await?;
        let (send, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Client {
            registry: self,
            send,
        })
    }
}

impl Client<'_> {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Blob,
    ) -> Result<Response<Incoming>, Failure> {
        let port = self.registry.address.rsplit(':').next().unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("localhost:{port}"))
            .header(header::AUTHORIZATION, &self.registry.authorization)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(body)?;
        self.send.ready().await?;
        Ok(self.send.send_request(request).await?)
    }

    /// The path and query of the `Location` of an answer that must have this status.
    async fn go_on(
        &mut self,
        method: Method,
        path: &str,
        body: Blob,
        expected: StatusCode,
    ) -> Result<String, Failure> {
        let answer = self.ask(method, path, body).await?;
        if answer.status() != expected {
            return Err(format!("{path}: {}", answer.status()).into());
        }
        let location = answer
            .headers()
            .get(header::LOCATION)
            .ok_or("no Location")?
            .to_str()?
            .to_owned();
        answer.into_body().collect().await?;
        let begin = location.find("/v2/").ok_or("a strange Location")?;
        Ok(location[begin..].to_owned())
    }

    /// As Docker does: a session, the content streamed, a commit.
    async fn push(&mut self, blob: &Blob, digest: &str) -> Result<(), Failure> {
        let none = Blob::new(&[], 0);
        let start = format!("/v2/{}/blobs/uploads/", self.registry.repository);
        let session = self
            .go_on(Method::POST, &start, none.clone(), StatusCode::ACCEPTED)
            .await?;
        let session = self
            .go_on(Method::PATCH, &session, blob.clone(), StatusCode::ACCEPTED)
            .await?;
        let joint = if session.contains('?') { '&' } else { '?' };
        let commit = format!("{session}{joint}digest={digest}");
        self.go_on(Method::PUT, &commit, none, StatusCode::CREATED)
            .await?;
        Ok(())
    }

    async fn pull(&mut self, digest: &str) -> Result<u64, Failure> {
        let path = format!("/v2/{}/blobs/{digest}", self.registry.repository);
        let mut body = self
            .ask(Method::GET, &path, Blob::new(&[], 0))
            .await?
            .into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(bytes)
    }
}

async fn large(registry: &Registry, seed: &[u8]) -> Result<(), Failure> {
    let blob = Blob::new(seed, LARGE_BLOB_BYTES);
    let digest = blob.digest();
    let mut client = registry.client().await?;
    let start = Instant::now();
    client.push(&blob, &digest).await?;
    println!("push {:.3}", start.elapsed().as_secs_f64());
    let start = Instant::now();
    if client.pull(&digest).await? != LARGE_BLOB_BYTES {
        return Err("the blob came back with another length".into());
    }
    println!("pull {:.3}", start.elapsed().as_secs_f64());
    Ok(())
}

async fn small(registry: Arc<Registry>, seed: [u8; 16]) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (registry, next) = (registry.clone(), next.clone());
            tokio::spawn(async move {
                let mut client = registry.client().await?;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= SMALL_BLOBS {
                        return Ok::<_, Failure>(());
                    }
                    let own = [&seed[..], &n.to_be_bytes()].concat();
                    // Configurations and small layers: from 1 to 32 KiB.
                    let blob = Blob::new(&own, 1024 * (1 + n % 32));
                    let digest = blob.digest();
                    client.push(&blob, &digest).await?;
                }
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    println!("push {:.3}", start.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // cargo runs every bench target with `--bench` and nothing else: then there is nothing to do.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let [address, ca, login, repository, kind] = arguments.as_slice() else {
        eprintln!(
            "usage: pushes ADDRESS CA_PEM USER:PASSWORD REPOSITORY (large|small)   (benches/stores.sh starts it)"
        );
        return Ok(());
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let registry = Registry {
        address: address.clone(),
        tls: TlsConnector::from(Arc::new(config)),
        authorization: format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(login)
        ),
        repository: repository.clone(),
    };
    let mut seed = [0; 16];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| "no random numbers")?;
    match kind.as_str() {
        "large" => large(&registry, &seed).await,
        "small" => small(Arc::new(registry), seed).await,
        _ => Err("large or small".into()),
    }
}
