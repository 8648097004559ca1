//! Connections to one upstream that wait for their next request, a list for each worker thread:
//! a request never wakes another thread to be forwarded.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::body::{RequestBody, Upload};
use super::exchange::Exchange;

/// The connections of one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    workers: Box<[Mutex<Vec<Connection>>]>,
}

/// How many connections a worker keeps without use for one upstream: as many as two or three full
/// HTTP/2 connections of clients keep busy. `upstream_idle` ends what a burst leaves.
const KEPT: usize = 256;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Names the current thread as worker `index`, counted from 0.
pub(crate) fn become_worker(index: usize) {
    WORKER.set(index);
}

/// One connection, driven by a task of its own on the worker that made it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) send: SendRequest<RequestBody>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Without this a driver whose request body never ends would keep the socket.
        self.driver.abort();
    }
}

impl Pool {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers.max(1))
                .map(|_| Mutex::new(Vec::new()))
                .collect(),
        })
    }

    fn mine(&self) -> Option<&Mutex<Vec<Connection>>> {
        self.workers
            .get(WORKER.get())
            .or_else(|| self.workers.first())
    }

    /// The connection used last that is still open and at rest.
    pub(super) fn take(self: &Arc<Self>) -> Option<Lease> {
        let mut waiting = self.mine()?.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unready = None;
        let found = loop {
            let Some(connection) = waiting.pop() else {
                break None;
            };
            if connection.send.is_ready() {
                break Some(connection);
            }
            // Closed, or its driver has not come round since the last answer: at most one of the
            // latter is worth keeping, since it will be ready in a moment.
            if !connection.send.is_closed() && unready.is_none() {
                unready = Some(connection);
            }
        };
        waiting.extend(unready);
        drop(waiting);
        Some(Lease {
            connection: Some(found?),
            pool: self.clone(),
            reused: true,
            upload: None,
        })
    }

    /// A lease on a connection that was just made.
    pub(super) fn adopt(self: &Arc<Self>, connection: Connection) -> Lease {
        Lease {
            connection: Some(connection),
            pool: self.clone(),
            reused: false,
            upload: None,
        }
    }

    fn give_back(&self, connection: Connection) {
        connection.exchange.rest();
        let Some(mine) = self.mine() else { return };
        let mut waiting = mine.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < KEPT {
            waiting.push(connection);
        }
    }
}

/// The use of one connection for one exchange. Dropped before the end, it ends the connection:
/// the upstream sees at once that nobody wants its answer any more.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    reused: bool,
    /// The request's body, if it has one that may outlast the answer.
    upload: Option<Arc<Upload>>,
}

impl Lease {
    /// Whether the connection has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Remembers the body that must have gone up whole before the connection can be used again.
    pub(super) fn carries(&mut self, upload: Option<Arc<Upload>>) {
        self.upload = upload;
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("taken only when the lease ends")
    }

    pub(super) fn exchange(&self) -> &Arc<Exchange> {
        &self
            .connection
            .as_ref()
            .expect("taken only when the lease ends")
            .exchange
    }

    /// The answer is complete: the connection may carry the next request.
    pub(super) fn give_back(mut self) {
        let whole = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.is_finished());
        if let Some(connection) = self.connection.take().filter(|_| whole) {
            self.pool.give_back(connection);
        }
    }
}
