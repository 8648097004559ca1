//! When the connections of a process are to end: all at once, or, where another process takes over,
//! each after its next answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Version};
use tokio_util::sync::CancellationToken;

use crate::request::conn_info::Protocol;

/// The signals that end connections. Running requests finish in any case.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionDrain {
    /// Nothing is accepted any more, and HTTP/2 clients are told to send no further request, which
    /// loses none of those under way (RFC 9113 §6.8).
    begun: CancellationToken,
    /// HTTP/1.1 connections between two requests are closed. A request that is under way then is
    /// lost: its client has to repeat it (RFC 9112 §9.5).
    idle: CancellationToken,
    /// HTTP/1.1 clients are told with each answer that the connection ends with it.
    is_last_answer: Arc<AtomicBool>,
}

impl ConnectionDrain {
    /// `begun` is cancelled with the drain.
    pub(crate) fn new(begun: CancellationToken) -> Self {
        Self {
            begun,
            idle: CancellationToken::new(),
            is_last_answer: Arc::default(),
        }
    }

    /// Each connection ends with its next answer; one that is idle waits for a request.
    pub(crate) fn begin(&self) {
        // First, so that an answer to a request that comes now is the last one.
        self.is_last_answer.store(true, Ordering::Release);
        self.begun.cancel();
    }

    /// Idle connections end now.
    pub(crate) fn end_idle(&self) {
        self.begin();
        self.idle.cancel();
    }

    /// Cancelled when a connection of this protocol is to end as soon as no request runs.
    pub(super) fn token(&self, protocol: Protocol) -> CancellationToken {
        match protocol {
            Protocol::Http1 => self.idle.clone(),
            Protocol::Http2 => self.begun.clone(),
        }
    }

    /// Tells an HTTP/1.1 client of the end of the connection, if it ends with this answer.
    pub(super) fn mark_last_answer(&self, version: Version, headers: &mut HeaderMap) {
        if self.is_last_answer.load(Ordering::Relaxed) && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
