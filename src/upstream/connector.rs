//! Connects to an upstream: name, TCP, TLS. The only file of the upstream client that names rustls.
//! Ignores HTTP_PROXY and its relatives: an upstream is where the configuration says.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::destination::{AddressScope, RedirectPolicy};
use super::error::ConnectError;
use super::transfer::TransferProgress;
use crate::certs::roots::{self, RootsError};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::crypto::NoRandomness;
use crate::state_file::run_blocking;

/// Makes connections to one upstream.
pub(crate) struct Connector {
    target: UpstreamUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    lookups: Arc<Semaphore>,
    /// For the target of a redirect.
    policy: Option<RedirectPolicy>,
    /// Whether the last connection led to a public address.
    is_public: AtomicBool,
}

/// Why an upstream cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectorError {
    /// The root certificates cannot be used.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// An https target without roots to verify it by.
    #[error("an https upstream needs roots")]
    NoTrust,
    /// The host is no name that a certificate can have.
    #[error("the host name {0} cannot be verified by TLS")]
    Name(String),
    /// TLS cannot be set up.
    #[error("TLS towards the upstream cannot be set up")]
    Tls(#[from] rustls::Error),
    /// Its requests cannot be marked.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The root certificates that verify an upstream.
#[derive(Clone)]
pub(crate) struct Trust(TlsConnector);

impl Trust {
    /// The roots of a file, or else the system's. Reads files: not for the data path.
    pub(crate) fn new(roots: Option<&PathBuf>) -> Result<Self, ConnectorError> {
        tls_connector(roots).map(Self)
    }
}

impl Connector {
    /// An https target needs `trust`.
    pub(crate) fn new(target: UpstreamUrl, trust: Option<&Trust>) -> Result<Self, ConnectorError> {
        let tls = match (target.scheme, trust) {
            (Scheme::Http, _) => None,
            (Scheme::Https, Some(trust)) => Some((trust.0.clone(), server_name(&target)?)),
            (Scheme::Https, None) => return Err(ConnectorError::NoTrust),
        };
        Ok(Self {
            target,
            tls,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            policy: None,
            is_public: AtomicBool::new(true),
        })
    }

    /// The same to those addresses alone to which redirects are followed.
    pub(crate) fn restricted(self, policy: RedirectPolicy) -> Self {
        Self {
            policy: Some(policy),
            ..self
        }
    }

    /// Whether the last connection led to a public address, as far as is known.
    pub(crate) fn is_public(&self) -> bool {
        self.is_public.load(Ordering::Relaxed)
    }

    pub(crate) fn target(&self) -> &UpstreamUrl {
        &self.target
    }

    /// Connects, trying every address of the name in order. The caller sets the timeout.
    pub(super) async fn connect(
        &self,
        progress: Arc<TransferProgress>,
    ) -> Result<UpstreamIo, ConnectError> {
        let tcp = self.connect_tcp().await?;
        tcp.set_nodelay(true).map_err(ConnectError::of_tcp)?;
        let stream = match &self.tls {
            None => UpstreamStream::Plain(tcp),
            Some((tls, name)) => {
                UpstreamStream::Tls(Box::new(shake_hands(tls, name.clone(), tcp).await?))
            }
        };
        Ok(UpstreamIo {
            stream,
            progress,
            write_closed: false,
        })
    }

    async fn connect_tcp(&self) -> Result<TcpStream, ConnectError> {
        let addresses = match self.target.host.ip() {
            Some(address) => vec![SocketAddr::new(address, self.target.port)],
            None => self.resolve().await?,
        };
        let stream = TcpStream::connect(self.permitted(addresses)?.as_slice()).await;
        let stream = stream.map_err(ConnectError::of_tcp)?;
        let peer = stream.peer_addr().map_err(ConnectError::of_tcp)?;
        let scope = AddressScope::of(peer.ip());
        let is_public = scope == AddressScope::Public;
        self.is_public.store(is_public, Ordering::Relaxed);
        Ok(stream)
    }

    /// Those of the addresses to which the policy lets connect. The connection is made to them and
    /// not to the name, which may resolve differently a moment later.
    fn permitted(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
        let Some(policy) = &self.policy else {
            return Ok(addresses);
        };
        let mut refused = None;
        addresses.retain(|&address| match policy.check(address) {
            Ok(()) => true,
            Err(error) => {
                refused = Some(error);
                false
            }
        });
        match refused {
            Some(error) if addresses.is_empty() => Err(ConnectError::RefusedDestination(error)),
            _ => Ok(addresses),
        }
    }

    /// The addresses of the host. The resolver of the system blocks a thread until it answers, also
    /// when the caller's timeout has passed: so many threads are the most that one upstream takes.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let permit = self.lookups.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let host = self.target.host.as_str().to_owned();
        let port = self.target.port;
        let looked_up = run_blocking(move || {
            let _permit = permit;
            (host.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect::<Vec<_>>)
        });
        match looked_up.await {
            Ok(addresses) if addresses.is_empty() => Err(ConnectError::NoAddress),
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(ConnectError::of_lookup(&error)),
        }
    }
}

/// The TLS handshake. Of one that fails, the server's first bytes show whether it speaks HTTP: they
/// are peeked at before the handshake reads them.
async fn shake_hands(
    tls: &TlsConnector,
    name: ServerName<'static>,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let mut handshake = tls.connect(name, tcp);
    let mut is_http = None;
    let stream = poll_fn(|cx| {
        if is_http.is_none() {
            is_http = handshake
                .get_ref()
                .and_then(|tcp| begins_like_http(tcp, cx));
        }
        Pin::new(&mut handshake).poll(cx)
    });
    let stream = stream.await;
    stream.map_err(|error| ConnectError::of_handshake(error, is_http == Some(true)))
}

/// `None` if no byte has come.
fn begins_like_http(tcp: &TcpStream, cx: &mut Context<'_>) -> Option<bool> {
    let mut bytes = [0; 5];
    let mut buffer = ReadBuf::new(&mut bytes);
    match tcp.poll_peek(cx, &mut buffer) {
        Poll::Ready(Ok(1..)) => Some(buffer.filled() == b"HTTP/"),
        _ => None,
    }
}

/// Concurrent name lookups of one upstream.
const MAX_LOOKUPS: usize = 16;

fn tls_connector(roots: Option<&PathBuf>) -> Result<TlsConnector, ConnectorError> {
    let store = roots::roots(roots.map(PathBuf::as_path))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn server_name(target: &UpstreamUrl) -> Result<ServerName<'static>, ConnectorError> {
    let name = target.host.as_str().to_owned();
    ServerName::try_from(name.clone()).map_err(|_| ConnectorError::Name(name))
}

/// A connection that reports written and received bytes to its [`TransferProgress`].
///
/// An upstream that refuses a body closes without reading the rest, which resets the connection
/// right behind its response. The write then fails first, and hyper would give up with the response
/// unread in the socket, which RFC 9112 §9.5 wants read. So a write error is ignored and writing
/// stays pending: the reader finds the response, or the end.
pub(crate) struct UpstreamIo {
    stream: UpstreamStream,
    progress: Arc<TransferProgress>,
    write_closed: bool,
}

enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamIo {
    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(_)) => self.progress.wrote(),
            Poll::Ready(Err(error)) => return self.ignore_write_error(error),
            Poll::Pending => {}
        }
        result
    }

    /// Returns pending for ever: what ended the writing wakes the reader.
    fn ignore_write_error<T>(&mut self, error: io::Error) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
            return Poll::Ready(Err(error));
        }
        self.write_closed = true;
        Poll::Pending
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.stream {
            UpstreamStream::Plain(io) => Pin::new(io).poll_read(cx, buf),
            UpstreamStream::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        let new = buf.filled().get(before..).unwrap_or_default();
        if !self.progress.received(new) {
            let error = "more than 512 KiB came before the head of a response";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        result
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            UpstreamStream::Plain(io) => Pin::new(io).poll_write(cx, buf),
            UpstreamStream::Tls(io) => Pin::new(io).poll_write(cx, buf),
        };
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            UpstreamStream::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            UpstreamStream::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            UpstreamStream::Plain(io) => io.is_write_vectored(),
            UpstreamStream::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_closed {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            UpstreamStream::Plain(io) => Pin::new(io).poll_flush(cx),
            UpstreamStream::Tls(io) => Pin::new(io).poll_flush(cx),
        };
        match result {
            Poll::Ready(Err(error)) => self.ignore_write_error(error),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            UpstreamStream::Plain(io) => Pin::new(io).poll_shutdown(cx),
            UpstreamStream::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
