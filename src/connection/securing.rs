//! Secures a connection: its client becomes known, and its bytes a TLS stream.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::network::TrustedProxies;
use crate::config::vhost::ListenAddress;
use crate::listen::limits::{ClientPermit, ConnectionLimits};
use crate::listen::proxy_protocol::{self, ProxyHeader, ProxyProtocolError};
use crate::request::gateway::Gateway;
use crate::tls::handshake::{HandshakeError, Secured, handshake};
use crate::tls::resolver::TlsClient;
use crate::tls::server_config::ListenerConfig;

/// Why a connection did not become a TLS stream.
pub(super) enum SecureError<IO> {
    Proxy(ProxyProtocolError),
    Handshake(HandshakeError<IO>),
    /// The client that a trusted proxy names has too many connections, which has been logged.
    TooMany,
    TimedOut,
}

pub(super) async fn refuse<IO>(
    error: SecureError<IO>,
    peer: SocketAddr,
    listener: ListenAddress,
    gateway: &Gateway,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |reason: &str, error: &dyn std::fmt::Display| {
        tracing::debug!(%peer, %listener, reason, %error, "handshake failed");
        // Load balancers that check a port connect and leave, and a challenge is no failure.
        if matches!(reason, "closed" | "acme_challenge") {
            return;
        }
        if let Some(count) = gateway.handshake_log.count(peer.ip()) {
            let peer = peer.ip();
            tracing::info!(%peer, %listener, count, reason, %error, "TLS handshakes refused");
        }
    };
    match error {
        SecureError::Handshake(HandshakeError::PlainHttp(request)) => {
            tracing::debug!(%peer, %listener, "plain HTTP on a TLS port");
            if let Some(count) = gateway.plain_http_log.count(peer.ip()) {
                let peer = peer.ip();
                tracing::info!(%peer, %listener, count, "plain HTTP requests on a TLS port refused");
            }
            let _ = request.refuse().await;
        }
        SecureError::Handshake(HandshakeError::NoName) => {
            if let Some(count) = gateway.nameless_log.count(peer.ip()) {
                let (peer, cure) = (peer.ip(), NO_NAME_CURE);
                tracing::info!(%peer, %listener, count, cure, "TLS without a server name refused");
            }
        }
        SecureError::Handshake(error) => failed(error.reason(), &error),
        SecureError::Proxy(error) => failed("proxy_protocol", &error),
        SecureError::TooMany => {}
        SecureError::TimedOut => failed("timeout", &"it took too long"),
    }
}

/// What a handshake without a server name lacks.
const NO_NAME_CURE: &str = "a proxy in front must send it (SNI) or be named in `trusted_proxies`; a \
    client that uses an IP address needs it in `aliases` of one domain";

/// A client whose handshake is complete.
pub(super) struct SecuredClient<IO> {
    pub(super) secured: Secured<IO>,
    /// That of the PROXY header, or the peer's.
    pub(super) address: SocketAddr,
    pub(super) client: TlsClient,
    pub(super) permit: Option<ClientPermit>,
}

/// A connection whose client is known.
struct IdentifiedClient<IO> {
    io: IO,
    /// What has been read after the PROXY header.
    rest: Vec<u8>,
    address: SocketAddr,
    client: TlsClient,
    permit: Option<ClientPermit>,
}

/// Reads the PROXY header of a trusted proxy and performs the handshake.
pub(super) async fn secure<IO>(
    io: IO,
    peer: SocketAddr,
    trusted: &TrustedProxies,
    limits: &Arc<ConnectionLimits>,
    config: Arc<ListenerConfig>,
) -> Result<SecuredClient<IO>, SecureError<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let IdentifiedClient {
        io,
        rest,
        address,
        client,
        permit,
    } = identify(io, peer, trusted, limits).await?;
    let secured = handshake(io, rest, config, client)
        .await
        .map_err(SecureError::Handshake)?;
    Ok(SecuredClient {
        secured,
        address,
        client,
        permit,
    })
}

/// Reads the PROXY header of a trusted proxy, and counts the connection for the client it names. The
/// listener has counted all others.
async fn identify<IO>(
    mut io: IO,
    peer: SocketAddr,
    trusted: &TrustedProxies,
    limits: &Arc<ConnectionLimits>,
) -> Result<IdentifiedClient<IO>, SecureError<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if !trusted.contain(peer.ip()) {
        return Ok(IdentifiedClient {
            io,
            rest: Vec::new(),
            address: peer,
            client: TlsClient::Any,
            permit: None,
        });
    }
    let header = proxy_protocol::read(&mut io).await;
    let ProxyHeader { source, rest } = header.map_err(SecureError::Proxy)?;
    let named = source.filter(|source| !trusted.contain(source.ip()));
    let permit = match named {
        Some(source) => Some(
            limits
                .admit_client(source.ip())
                .ok_or(SecureError::TooMany)?,
        ),
        None => None,
    };
    Ok(IdentifiedClient {
        io,
        rest,
        address: source.unwrap_or(peer),
        client: TlsClient::TrustedProxy,
        permit,
    })
}
