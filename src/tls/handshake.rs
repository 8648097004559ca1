//! The TLS handshake: a byte stream becomes [`Secured`], or is refused with an alert.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};

use super::plain_http::PlainHttp;
use super::resolver::{ALPN_ACME, ChallengeResolver, TlsClient, is_acme_challenge};
use super::server_config::{ALPN_H2, ListenerConfig};
use super::transport::TlsTransport;
use crate::certs::library_error;
use crate::registry::host::HostName;

/// A TLS stream over a byte stream.
pub(crate) type SecureStream<IO> = TlsStream<TlsTransport<IO>>;

/// A connection whose handshake is complete.
#[derive(Debug)]
pub(crate) struct Secured<IO> {
    /// The plaintext side.
    pub io: SecureStream<IO>,
    /// The name that the client asked for (RFC 6066 §3); `None` if it connected to an address, or
    /// is a trusted proxy.
    pub sni: Option<HostName>,
    /// The negotiated protocol.
    pub alpn: Alpn,
}

/// The application protocol (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1, also when the client offered no protocol.
    Http1,
}

/// Why a handshake failed. The client or the network is the cause of each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError<IO> {
    /// A plain HTTP request.
    #[error("plain HTTP on a TLS port")]
    PlainHttp(PlainHttp<IO>),
    /// No certificate here answers this name; the alert `unrecognized_name` was sent.
    #[error("no certificate for the name {0:?}")]
    UnknownName(Box<str>),
    /// A tls-alpn-01 challenge was answered; the connection serves nothing else (RFC 8737 §3).
    #[error("a CA's challenge for {0:?} was answered")]
    ChallengeAnswered(Box<str>),
    /// No name, and no certificate here answers without one; the alert `missing_extension` was
    /// sent.
    #[error("no server name")]
    NoName,
    /// The client sent an alert, for instance because it does not trust the certificate.
    #[error("the client sent the alert {}", library_error::alert_name(*.0))]
    ClientAlert(rustls::AlertDescription),
    /// The bytes are not TLS, or there is no common version or parameter.
    #[error("{}", library_error::tls_of_client(.0))]
    Protocol(rustls::Error),
    /// The connection ended or failed.
    #[error("{0}")]
    Closed(io::Error),
}

impl<IO> HandshakeError<IO> {
    /// A label for logs, out of a closed set.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::PlainHttp(_) => "plain_http",
            Self::UnknownName(_) => "unknown_sni",
            Self::ChallengeAnswered(_) => "acme_challenge",
            Self::NoName => "no_sni",
            Self::ClientAlert(_) => "client_alert",
            Self::Protocol(_) => "protocol",
            Self::Closed(_) => "closed",
        }
    }
}

impl<IO> From<io::Error> for HandshakeError<IO> {
    /// tokio-rustls returns an error of rustls inside an `io::Error`, or one of the stream.
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(rustls::Error::AlertReceived(alert)) => Self::ClientAlert(alert),
            Ok(error) => Self::Protocol(error),
            Err(error) => Self::Closed(error),
        }
    }
}

/// Performs the handshake on a stream of which `read` has been read already. The caller sets the
/// timeout.
pub(crate) async fn handshake<IO>(
    io: IO,
    read: Vec<u8>,
    config: Arc<ListenerConfig>,
    client: TlsClient,
) -> Result<Secured<IO>, HandshakeError<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), TlsTransport::new(io, read));
    let mut start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => {
            let plain = acceptor.take_io().filter(TlsTransport::speaks_plain_http);
            return Err(plain.map_or_else(
                || error.into(),
                |transport| {
                    let (io, read) = transport.into_parts();
                    HandshakeError::PlainHttp(PlainHttp { io, read })
                },
            ));
        }
    };

    // rustls would refuse a name without a certificate by `access_denied`, which says nothing to a
    // client.
    let hello = start.client_hello();
    let name: Option<Box<str>> = hello.server_name().map(Into::into);
    let sni = name.as_deref().map(HostName::parse);
    if is_acme_challenge(&hello) {
        let name = name.unwrap_or_default();
        return Err(answer_challenge(start, &config, name).await);
    }
    let server = config.server(client);
    if server.cert_resolver.resolve(hello).is_none() || matches!(sni, Some(Err(_))) {
        // A client that does not wait for the alert is refused all the same.
        let _ = refuse(&mut start.io, name.is_some()).await;
        return Err(name.map_or(HandshakeError::NoName, HandshakeError::UnknownName));
    }

    let stream = start
        .into_stream_with(server.clone(), |connection| {
            connection.set_buffer_limit(Some(MAX_OUTGOING))
        })
        .await?;
    let alpn = match stream.get_ref().1.alpn_protocol() {
        Some(ALPN_H2) => Alpn::H2,
        Some(_) | None => Alpn::Http1,
    };
    Ok(Secured {
        io: stream,
        sni: sni.and_then(Result::ok),
        alpn,
    })
}

/// Answers a tls-alpn-01 challenge, or refuses the name, and closes the connection.
async fn answer_challenge<IO>(
    mut start: StartHandshake<TlsTransport<IO>>,
    config: &ListenerConfig,
    name: Box<str>,
) -> HandshakeError<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let found = match config.challenges.find_handshake(&name) {
        Some(found) => Some(found),
        None => config.challenges.find_shared_handshake(&name).await,
    };
    let Some(found) = found else {
        let _ = refuse(&mut start.io, true).await;
        return HandshakeError::UnknownName(name);
    };
    let mut answering = ServerConfig::clone(config.server(TlsClient::Any));
    answering.alpn_protocols = vec![ALPN_ACME.into()];
    answering.cert_resolver = Arc::new(ChallengeResolver(found));
    match start.into_stream(Arc::new(answering)).await {
        Ok(mut stream) => {
            // The CA has the certificate by now and need not wait for the end.
            let _ = stream.shutdown().await;
            HandshakeError::ChallengeAnswered(name)
        }
        Err(error) => error.into(),
    }
}

/// Sends the alert of RFC 6066 §3 (unknown name) or RFC 8446 §9.2 (no name).
async fn refuse<IO: AsyncWrite + Unpin>(io: &mut IO, named: bool) -> io::Result<()> {
    let description = if named {
        UNRECOGNIZED_NAME
    } else {
        MISSING_EXTENSION
    };
    // A record of type alert, version 3.3, two bytes: fatal, and why (RFC 8446 §5.1, §6).
    io.write_all(&[21, 3, 3, 0, 2, 2, description]).await?;
    io.shutdown().await
}

const UNRECOGNIZED_NAME: u8 = 112;
const MISSING_EXTENSION: u8 = 109;

/// Encrypted bytes that may be pending for the socket: four records, one `writev`.
///
/// The memory of a connection is bounded by this, the read buffer of [`TlsTransport`] (32 KiB,
/// while bytes come), the deframer of rustls (64 KiB in a handshake, 18 KiB after), and unread
/// plaintext (about one record, 16 KiB): 130 KiB together, a few when idle, and 160 KiB in a
/// handshake, below the 256 KiB that an unauthenticated client may occupy.
const MAX_OUTGOING: usize = 64 * 1024;

#[cfg(test)]
mod tests;
