//! A request that has come to the upstream, which has not answered yet: where tests of what happens
//! to a transfer begin.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::frames::Frames;
use super::{Gateway, RawPeer, Upstream};

/// Both ends of a transfer, through the domain `ci.test` as it is by default.
pub struct Transfer<C> {
    /// The client's end.
    pub client: C,
    /// The upstream's end of the connection that the request came over.
    pub registry: RawPeer<TcpStream>,
    pub upstream: Upstream,
    pub gateway: Gateway,
}

impl Transfer<RawPeer<TlsStream<TcpStream>>> {
    /// A request over HTTP/1.1, or its head.
    pub async fn http1(request: impl AsRef<[u8]>) -> Self {
        let upstream = Upstream::new().await;
        let gateway = Gateway::before(&upstream.url()).await;
        let mut client = gateway.client().await;
        client.send(request).await;
        let registry = begun(&upstream).await;
        Self {
            client,
            registry,
            upstream,
            gateway,
        }
    }
}

impl Transfer<Frames> {
    /// A request of `alice` over HTTP/2, on stream 1.
    pub async fn frames(flags: u8, method: &str, path: &str) -> Self {
        Self::frames_with_window(65_535, flags, method, path).await
    }

    /// The same, with a window of so many bytes for each answer.
    pub async fn frames_with_window(window: u32, flags: u8, method: &str, path: &str) -> Self {
        let upstream = Upstream::new().await;
        let gateway = Gateway::before(&upstream.url()).await;
        let mut client = gateway.frames_with_window(window).await;
        client.request(1, flags, method, path).await;
        let registry = begun(&upstream).await;
        Self {
            client,
            registry,
            upstream,
            gateway,
        }
    }
}

async fn begun(upstream: &Upstream) -> RawPeer<TcpStream> {
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry
}
