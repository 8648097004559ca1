//! A well-behaved HTTP/2 client, whose bodies the test feeds and reads by hand.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Gateway, basic};

/// A connection, driven by a task of its own.
pub struct Http2 {
    pub send: SendRequest<Fed>,
}

/// A body that ends when its sender is dropped, and breaks when an error is sent.
pub struct Fed(Option<Receiver<io::Result<Bytes>>>);

pub type Feed = Sender<io::Result<Bytes>>;

impl Fed {
    pub fn empty() -> Self {
        Self(None)
    }

    pub fn new() -> (Feed, Self) {
        let (sender, receiver) = channel(1);
        (sender, Self(Some(receiver)))
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(receiver) => receiver.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

impl Http2 {
    /// Speaks HTTP/2 over a TLS stream that agreed on it.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) =
            Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await.unwrap();
        // Ends when the last sender is dropped.
        tokio::spawn(connection);
        Self { send }
    }

    /// Sends a request of `alice` and waits for the answer's head.
    pub async fn ask(&mut self, method: &str, path: &str, body: Fed) -> hyper::Result<Response<Incoming>> {
        self.send.ready().await?;
        self.send.send_request(request(method, path, body)).await
    }
}

/// A request of `alice` to `ci.test`.
pub fn request(method: &str, path: &str, body: Fed) -> Request<Fed> {
    Request::builder()
        .method(method)
        .uri(format!("https://ci.test{path}"))
        .header("authorization", basic("alice", "secret"))
        .body(body)
        .unwrap()
}

/// The whole body of an answer, or why it broke.
pub async fn whole(answer: Response<Incoming>) -> hyper::Result<Bytes> {
    Ok(answer.into_body().collect().await?.to_bytes())
}

impl Gateway {
    /// An HTTP/2 connection for `ci.test`.
    pub async fn http2(&self) -> Http2 {
        Http2::over(self.tls("ci.test", &["h2"]).await.unwrap()).await
    }
}
