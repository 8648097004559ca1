//! One HTTP/1.1 connection of a client. No task drives it: it makes progress while a request is
//! under way, and nothing is left behind when it is dropped.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection over a stream.
pub(in crate::certs) struct HttpConnection<S: AsyncRead + AsyncWrite + Unpin> {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<S>, Full<Bytes>>>>,
}

/// Why a request has no usable response.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs) enum ExchangeError {
    /// The connection broke, or the answer is not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the body of the response exceeds the limit (HTTP {0})")]
    TooLarge(StatusCode),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> HttpConnection<S> {
    pub(in crate::certs) async fn new(stream: S) -> hyper::Result<Self> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            driver: Box::pin(driver),
        })
    }

    /// Whether it can take another request: the peer has not closed it since the last one.
    pub(super) async fn is_alive(&mut self) -> bool {
        let open = poll_fn(|cx| Poll::Ready(self.driver.as_mut().poll(cx).is_pending())).await;
        open && self.sender.is_ready()
    }

    /// Sends a request and reads the response, whose body has `max_bytes` at most. Without a limit
    /// of time.
    pub(in crate::certs) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let Self { sender, driver } = self;
        let mut exchange = pin!(send(sender, request, max_bytes));
        let mut is_closed = false;
        poll_fn(|cx| {
            // When the connection ends, the response is there already, or will fail.
            if !is_closed {
                is_closed = driver.as_mut().poll(cx).is_ready();
            }
            exchange.as_mut().poll(cx)
        })
        .await
    }
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let (parts, body) = sender.send_request(request).await?.into_parts();
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(ExchangeError::Http(*error)),
            Err(other) => {
                debug_assert!(other.is::<LengthLimitError>());
                Err(ExchangeError::TooLarge(parts.status))
            }
        },
    }
}
