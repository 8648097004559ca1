//! An HTTP/2 client that speaks well, for what is the same in both protocols.

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Gateway, basic};

/// One HTTP/2 connection.
pub struct Http2 {
    send: SendRequest<Full<Bytes>>,
}

impl Http2 {
    /// Connects with a name in the TLS handshake.
    pub async fn connect(gateway: &Gateway, sni: &str) -> Self {
        let io = gateway.tls(sni, &["h2"]).await.unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Self { send }
    }

    /// Sends a request; the future returns its answer.
    pub fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<(Parts, Bytes)>> + 'static {
        let answer = self.send.send_request(request);
        async move {
            let (parts, body) = answer.await?.into_parts();
            Ok((parts, body.collect().await?.to_bytes()))
        }
    }

    /// Whether the gateway takes no more requests on it.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }
}

/// A request of `alice` to `ci.test`.
pub fn request2(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("https://ci.test{target}"))
        .header("authorization", basic("alice", "secret"))
}

/// A request's missing body.
pub fn no_body() -> Full<Bytes> {
    Full::default()
}
