//! Runs a connection with its timeouts and its graceful shutdown.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::closing::close;
use super::io::WatchedIo;
use crate::clock::{Expired, Watched};
use crate::request::conn_info::ConnInfo;

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a connection with its timeouts and its graceful shutdown.
pub(super) struct ConnectionDriver<'a> {
    pub(super) activity: Arc<Activity>,
    pub(super) drain: CancellationToken,
    pub(super) conn: &'a ConnInfo,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    Complete,
    Failed,
    TimedOut,
}

impl ConnectionEnd {
    fn logged(ended: Result<Result<(), ConnectionError>, Expired>, conn: &ConnInfo) -> Self {
        let (peer, listener) = (&conn.peer, &conn.listener);
        match ended {
            Ok(Ok(())) => Self::Complete,
            Ok(Err(error)) => {
                let error = &*error as &dyn std::error::Error;
                tracing::debug!(%peer, %listener, error, "connection ended");
                Self::Failed
            }
            Err(Expired) => {
                tracing::debug!(%peer, %listener, "connection timed out");
                Self::TimedOut
            }
        }
    }
}

impl ConnectionDriver<'_> {
    /// Drives an HTTP/1.1 connection, and closes it.
    pub(super) async fn drive_http1<IO, S, B>(
        self,
        connection: http1::Connection<TokioIo<WatchedIo<IO>>, S>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + 'static,
        S: HttpService<Incoming, ResBody = B> + Unpin,
        S::Error: Into<ConnectionError>,
        B: Body + 'static,
        B::Error: Into<ConnectionError>,
    {
        let activity = self.activity.clone();
        let graceful = http1::Connection::graceful_shutdown;
        let (connection, end) = self.drive(connection, graceful, nothing_pending).await;
        let io = Pin::into_inner(connection).into_parts().io.into_inner();
        // A response that is cut short must not look complete: a client that only knows its end by
        // the end of the connection is not sent the regular one of TLS.
        let between_responses = end == ConnectionEnd::TimedOut && activity.is_idle();
        if io.is_shut() || between_responses {
            Box::pin(close(io, activity)).await;
        }
    }

    /// Polls a connection until it ends, its deadline passes, or it has shut down for the drain or for
    /// another connection.
    /// After each poll, `flush` writes what is pending to the socket.
    pub(super) async fn drive<C, E>(
        self,
        connection: C,
        graceful: fn(Pin<&mut C>),
        flush: impl Fn(&mut Context<'_>) -> Poll<std::io::Result<()>>,
    ) -> (Pin<Box<C>>, ConnectionEnd)
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let Self {
            activity,
            drain,
            conn,
        } = self;
        let mut watched = Watched::new(Box::pin(connection), activity.clone());
        let mut stop = std::pin::pin!(drain.cancelled());
        let mut stopping = false;
        let ended = poll_fn(|cx| {
            if !stopping && let Poll::Ready(cause) = poll_end_cause(stop.as_mut(), &activity, cx) {
                stopping = true;
                if cause == EndCause::Unfinished {
                    return Poll::Ready(Err(Expired));
                }
                graceful(watched.get_mut().as_mut());
            }
            loop {
                let polled = watched.poll_with(cx, |connection, cx| {
                    let polled = connection
                        .as_mut()
                        .poll(cx)
                        .map_err(|error| Box::new(error) as ConnectionError);
                    match flush(cx) {
                        Poll::Ready(Err(error)) if polled.is_pending() => {
                            Poll::Ready(Err(error.into()))
                        }
                        _ => polled,
                    }
                });
                // The client of an idle connection is told that a request which it may be sending
                // is not answered.
                if matches!(polled, Poll::Ready(Err(_))) && !stopping && activity.end_idle() {
                    stopping = true;
                    graceful(watched.get_mut().as_mut());
                    continue;
                }
                return polled;
            }
        });
        let end = ConnectionEnd::logged(ended.await, conn);
        (watched.into_inner(), end)
    }
}

/// Why a connection is to end before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndCause {
    /// The drain, or an eviction between two requests.
    Regular,
    /// An eviction in the middle of a head or of an answer that nobody reads.
    Unfinished,
}

fn poll_end_cause(
    drain: Pin<&mut impl Future<Output = ()>>,
    activity: &Activity,
    cx: &mut Context<'_>,
) -> Poll<EndCause> {
    if drain.poll(cx).is_ready() {
        activity.begin_ending();
        return Poll::Ready(EndCause::Regular);
    }
    activity.poll_evicted(cx).map(|()| {
        if activity.end_evicted() {
            EndCause::Regular
        } else {
            EndCause::Unfinished
        }
    })
}

/// HTTP/1.1 writes to the socket itself.
fn nothing_pending(_: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    Poll::Ready(Ok(()))
}
