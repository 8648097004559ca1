//! The connections to one upstream, and the bound of their number. Idle ones are in a list for each
//! worker thread: below the bound, forwarding a request never wakes another thread.

mod slots;

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::health::{FailureReason, UpstreamHealth};
use super::request_body::{RequestBody, Upload};
use super::transfer::{StalledSide, TransferProgress};
use slots::{ConnectionSlot, ConnectionSlots, Vacancy};

/// The connections of one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    workers: Box<[Mutex<Vec<PooledConnection>>]>,
    /// For how long a connection is used; `None`: as long as it stays open.
    lifetime: Option<Duration>,
    /// What its connections show.
    health: Option<Arc<UpstreamHealth>>,
    slots: Arc<ConnectionSlots<PooledConnection>>,
}

/// A request without a connection may open one, or gets another one's.
pub(super) enum Admitted {
    ToConnect(UpstreamPermit),
    Connected(Lease),
}

/// The right to open one connection, and to have it as long as it is open.
#[derive(Debug)]
pub(super) struct UpstreamPermit {
    /// `None` for a connection beside the bound.
    _slot: Option<ConnectionSlot<PooledConnection>>,
}

impl UpstreamPermit {
    /// For one connection beside the bound.
    pub(super) fn extra() -> Self {
        Self { _slot: None }
    }
}

/// No connection became free in time.
#[derive(Debug)]
pub(super) struct NoneFree;

/// Idle connections of one worker to one upstream: as many as two or three full HTTP/2 connections
/// of clients use. `upstream_idle` closes what a burst leaves.
const MAX_IDLE_CONNECTIONS: usize = 256;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Makes the current thread worker `index`, counted from 0.
pub(crate) fn become_worker(index: usize) {
    WORKER.set(index);
}

/// A connection and the task that drives it, on the worker that opened it.
#[derive(Debug)]
pub(super) struct PooledConnection {
    pub(super) send: SendRequest<RequestBody>,
    pub(super) progress: Arc<TransferProgress>,
    pub(super) driver: AbortHandle,
    opened: Instant,
    worker: usize,
    /// Dropped after the driver is told to end.
    _permit: UpstreamPermit,
}

impl PooledConnection {
    /// A connection that was opened on this thread.
    pub(super) fn new(
        send: SendRequest<RequestBody>,
        progress: Arc<TransferProgress>,
        driver: AbortHandle,
        permit: UpstreamPermit,
    ) -> Self {
        Self {
            send,
            progress,
            driver,
            opened: Instant::now(),
            worker: WORKER.get(),
            _permit: permit,
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        // Without this a driver whose request body never ends would keep the socket.
        self.driver.abort();
    }
}

impl Pool {
    pub(super) fn new(
        workers: usize,
        lifetime: Option<Duration>,
        health: Option<Arc<UpstreamHealth>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            lifetime,
            health,
            workers: (0..workers.max(1))
                .map(|_| Mutex::new(Vec::new()))
                .collect(),
            slots: ConnectionSlots::new(usize::MAX),
        })
    }

    pub(super) fn health(&self) -> Option<&Arc<UpstreamHealth>> {
        self.health.as_ref()
    }

    /// Bounds the connections, idle ones included.
    pub(super) fn set_max(&self, max: usize) {
        self.slots.set_max(max);
    }

    /// The open connections, and their bound.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.slots.counts()
    }

    fn connections_of(&self, worker: usize) -> Option<&Mutex<Vec<PooledConnection>>> {
        self.workers.get(worker).or_else(|| self.workers.first())
    }

    /// The most recently used connection that is still open and ready.
    pub(super) fn checkout(self: &Arc<Self>) -> Option<Lease> {
        self.checkout_of(self.connections_of(WORKER.get())?)
    }

    fn checkout_of(self: &Arc<Self>, idle: &Mutex<Vec<PooledConnection>>) -> Option<Lease> {
        let mut waiting = idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unready = None;
        let found = loop {
            let Some(connection) = waiting.pop() else {
                break None;
            };
            if connection.send.is_ready() {
                break Some(connection);
            }
            // Closed, or its driver has not run since the last response: one of the latter is kept,
            // since it is about to be ready.
            if !connection.send.is_closed() && unready.is_none() {
                unready = Some(connection);
            }
        };
        waiting.extend(unready);
        drop(waiting);
        Some(self.lease(found?))
    }

    /// Waits for the right to open a connection, or for one that becomes idle.
    ///
    /// Cancel-safe: what comes too late goes to the next in line.
    pub(super) async fn admit(self: &Arc<Self>, wait: Duration) -> Result<Admitted, NoneFree> {
        let to_connect = |slot| Admitted::ToConnect(UpstreamPermit { _slot: Some(slot) });
        if let Some(slot) = self.slots.take() {
            return Ok(to_connect(slot));
        }
        let admitted = async {
            let vacancy = self.slots.wait().ok()?;
            // Those of other workers. What becomes idle from now on goes to the line.
            let mut idle = self.workers.iter();
            if let Some(lease) = idle.find_map(|idle| self.checkout_of(idle)) {
                return Some(Admitted::Connected(lease));
            }
            match vacancy.await.ok()? {
                Vacancy::Slot(slot) => Some(to_connect(slot)),
                Vacancy::Connection(mut connection) => {
                    // Its driver may not have run since the last response. One that has ended is
                    // noticed when it is used.
                    let _ = connection.send.ready().await;
                    Some(Admitted::Connected(self.lease(connection)))
                }
            }
        };
        match tokio::time::timeout(wait, admitted).await {
            Ok(Some(admitted)) => Ok(admitted),
            Ok(None) | Err(_) => Err(NoneFree),
        }
    }

    /// A lease on a connection that nobody else uses.
    pub(super) fn lease(self: &Arc<Self>, connection: PooledConnection) -> Lease {
        Lease {
            connection: Some(connection),
            pool: self.clone(),
            upload: None,
        }
    }

    fn release(&self, mut connection: PooledConnection) {
        let now = connection.progress.end();
        let is_old = |lifetime| now.duration_since(connection.opened) > lifetime;
        if self.lifetime.is_some_and(is_old) {
            return;
        }
        let Some(own) = self.connections_of(connection.worker) else {
            return;
        };
        loop {
            let mut idle = own.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock: whoever joins the line later searches this list.
            if !self.slots.has_waiting() {
                if idle.len() < MAX_IDLE_CONNECTIONS {
                    idle.push(connection);
                }
                return;
            }
            drop(idle);
            match self.slots.hand_over(connection) {
                Some(unwanted) => connection = unwanted,
                None => return,
            }
        }
    }
}

/// The use of one connection for one request. Dropping it before the end closes the connection, so
/// that the upstream stops sending a response that nobody reads.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<PooledConnection>,
    pool: Arc<Pool>,
    /// The request body, which may outlast the response.
    upload: Option<Arc<Upload>>,
}

impl Lease {
    /// Sets the body that must be sent completely before the connection can be reused.
    pub(super) fn set_upload(&mut self, upload: Option<Arc<Upload>>) {
        self.upload = upload;
    }

    pub(super) fn connection(&mut self) -> &mut PooledConnection {
        self.connection
            .as_mut()
            .expect("taken only when the lease ends")
    }

    pub(super) fn progress(&self) -> &Arc<TransferProgress> {
        &self
            .connection
            .as_ref()
            .expect("taken only when the lease ends")
            .progress
    }

    /// The response has ended too early. Returns which failure of the upstream that is; `None`: it is
    /// the client's.
    pub(super) fn cut(self) -> Option<CutResponse> {
        let cut = match self.progress().stalled_side() {
            Some(StalledSide::Client) => return None,
            Some(StalledSide::Upstream) => CutResponse::Stalled,
            None => CutResponse::Closed,
        };
        if let Some(health) = self.pool.health() {
            health.failed(cut.reason(), cut.to_string());
        }
        Some(cut)
    }

    /// Returns the connection to the pool: the response is complete.
    pub(super) fn release(mut self) {
        let whole = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.is_finished());
        if let Some(connection) = self.connection.take().filter(|_| whole) {
            self.pool.release(connection);
        }
    }
}

/// How a response ended too early.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum CutResponse {
    #[error("the upstream sent no more of its response: see the upstream's own log")]
    Stalled,
    #[error("the upstream ended its response too early: see the upstream's own log")]
    Closed,
}

impl CutResponse {
    pub(super) fn reason(self) -> FailureReason {
        match self {
            Self::Stalled => FailureReason::Timeout,
            Self::Closed => FailureReason::Cut,
        }
    }
}
