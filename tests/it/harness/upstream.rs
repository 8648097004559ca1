//! An upstream that the test plays: it takes connections one by one and says what it likes.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::raw_peer::RawPeer;

/// A listener on loopback that counts on the test to answer.
pub struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
}

impl Upstream {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next connection that the gateway makes.
    pub async fn accept(&self) -> RawPeer<TcpStream> {
        RawPeer::new(self.listener.accept().await.unwrap().0)
    }

    /// Asserts that no connection has come so far.
    pub async fn untouched(&self) {
        super::settle().await;
        let mut accept = std::pin::pin!(self.listener.accept());
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "the gateway connected");
    }
}

/// The TLS side of an upstream, with a certificate that the test has made.
pub fn tls_server(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
