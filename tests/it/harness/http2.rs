//! HTTP/2 as a good client speaks it, through hyper. Bodies may be fed and read by hand.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Gateway, basic, bound};

/// A connection, driven by a task of its own.
pub struct Http2 {
    send: SendRequest<BodySender>,
}

impl Http2 {
    /// Connects with a name in the TLS handshake.
    pub async fn connect(gateway: &Gateway, sni: &str) -> Self {
        let io = gateway.tls(sni, &["h2"]).await.unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(io).await
    }

    /// Speaks over a TLS stream that agreed on it.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        // Ends when the last sender is dropped.
        tokio::spawn(connection);
        Self { send }
    }

    /// Sends a request; the future returns its answer, read to its end.
    pub fn send(
        &mut self,
        request: Request<BodySender>,
    ) -> impl Future<Output = hyper::Result<(Parts, Bytes)>> + 'static {
        let answer = self.send.send_request(request);
        async move {
            let (parts, body) = answer.await?.into_parts();
            Ok((parts, body.collect().await?.to_bytes()))
        }
    }

    /// Sends a request and waits for the answer's head.
    pub async fn begin(
        &mut self,
        request: Request<BodySender>,
    ) -> hyper::Result<Response<Incoming>> {
        self.send.ready().await?;
        self.send.send_request(request).await
    }

    /// The same with a request of `alice`.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: BodySender,
    ) -> hyper::Result<Response<Incoming>> {
        self.begin(request2(method, path).body(body).unwrap()).await
    }

    /// Whether the gateway takes no more requests on it.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }
}

/// A request of `alice` to `ci.test`. An upload session stands in it as the registry knows it.
pub fn request2(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("https://ci.test{}", bound(target)))
        .header("authorization", basic("alice", "secret"))
}

/// A request's missing body.
pub fn no_body() -> BodySender {
    BodySender(None)
}

/// The whole body of an answer, or why it broke.
pub async fn collect(answer: Response<Incoming>) -> hyper::Result<Bytes> {
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// A body that ends when its sender is dropped, and breaks when an error is sent.
pub struct BodySender(Option<Receiver<io::Result<Bytes>>>);

pub type Feed = Sender<io::Result<Bytes>>;

impl BodySender {
    pub fn new() -> (Feed, Self) {
        let (sender, receiver) = channel(1);
        (sender, Self(Some(receiver)))
    }
}

impl Body for BodySender {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(receiver) => receiver
                .poll_recv(cx)
                .map(|part| part.map(|part| part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
