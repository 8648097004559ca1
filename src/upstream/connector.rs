//! A connection to an upstream: name, TCP, TLS. One file knows how; it is the only one here that
//! names rustls. HTTP_PROXY and its kin are never looked at: an upstream is where it is said to be.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::exchange::Exchange;
use crate::certs::roots::{self, RootsError};
use crate::config::vhost::{Scheme, UpstreamUrl};

/// Makes connections to one upstream.
pub(crate) struct Connector {
    target: UpstreamUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why an upstream cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectorError {
    /// Nobody would be believed.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// An https target without roots to verify it by.
    #[error("an https upstream needs roots")]
    NoTrust,
    /// The host cannot stand in a certificate.
    #[error("the host name {0} cannot be verified by TLS")]
    Name(String),
    /// TLS cannot be set up.
    #[error("TLS towards the upstream cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Whose certificates are believed.
#[derive(Clone)]
pub(crate) struct Trust(TlsConnector);

impl Trust {
    /// The roots of a file, or else the system's. Reads files: not for the data path.
    pub(crate) fn new(roots: Option<&PathBuf>) -> Result<Self, ConnectorError> {
        tls_connector(roots).map(Self)
    }
}

impl Connector {
    /// An https target needs a trust.
    pub(crate) fn new(target: UpstreamUrl, trust: Option<&Trust>) -> Result<Self, ConnectorError> {
        let tls = match (target.scheme, trust) {
            (Scheme::Http, _) => None,
            (Scheme::Https, Some(trust)) => Some((trust.0.clone(), server_name(&target)?)),
            (Scheme::Https, None) => return Err(ConnectorError::NoTrust),
        };
        Ok(Self { target, tls })
    }

    /// The target.
    pub(crate) fn target(&self) -> &UpstreamUrl {
        &self.target
    }

    /// A connection; every address of the name is tried in its order. The time limit is the
    /// caller's.
    pub(crate) async fn connect(&self, exchange: Arc<Exchange>) -> io::Result<UpstreamIo> {
        let tcp = self.connect_tcp().await?;
        tcp.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((tls, name)) => Stream::Tls(Box::new(tls.connect(name.clone(), tcp).await?)),
        };
        Ok(UpstreamIo {
            stream,
            exchange,
            deaf: false,
        })
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.target.host.ip() {
            return TcpStream::connect(SocketAddr::new(address, self.target.port)).await;
        }
        TcpStream::connect((self.target.host.as_str(), self.target.port)).await
    }
}

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

/// A connection that tells its exchange when bytes went out or came in.
///
/// A peer that refuses a body closes without reading the rest, which resets the connection right
/// behind its answer. Then writing fails first, and hyper would give up with the answer unread in
/// the socket (RFC 9112 §9.5 wants it read). So a peer that takes no more is one that is waited
/// for: the reader finds the answer, or the end.
pub(crate) struct UpstreamIo {
    stream: Stream,
    exchange: Arc<Exchange>,
    deaf: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamIo {
    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(_)) => self.exchange.wrote(),
            Poll::Ready(Err(error)) => return self.fall_silent(error),
            Poll::Pending => {}
        }
        result
    }

    /// Pending for ever: the reader is woken by what ended the writing.
    fn fall_silent<T>(&mut self, error: io::Error) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
            return Poll::Ready(Err(error));
        }
        self.deaf = true;
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
            Stream::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.exchange.heard();
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
        if self.deaf {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            Stream::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Stream::Tls(io) => Pin::new(io).poll_write(cx, buf),
        };
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            Stream::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Stream::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(io) => io.is_write_vectored(),
            Stream::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Pending;
        }
        let result = match &mut self.stream {
            Stream::Plain(io) => Pin::new(io).poll_flush(cx),
            Stream::Tls(io) => Pin::new(io).poll_flush(cx),
        };
        match result {
            Poll::Ready(Err(error)) => self.fall_silent(error),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
