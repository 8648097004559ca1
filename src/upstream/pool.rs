//! Idle connections to one upstream, in a list for each worker thread: forwarding a request never
//! wakes another thread.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::request_body::{RequestBody, Upload};
use super::transfer::TransferProgress;

/// The connections of one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    workers: Box<[Mutex<Vec<PooledConnection>>]>,
}

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
}

impl Drop for PooledConnection {
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

    fn own_connections(&self) -> Option<&Mutex<Vec<PooledConnection>>> {
        self.workers
            .get(WORKER.get())
            .or_else(|| self.workers.first())
    }

    /// The most recently used connection that is still open and ready.
    pub(super) fn checkout(self: &Arc<Self>) -> Option<Lease> {
        let mut waiting = self
            .own_connections()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
        Some(Lease {
            connection: Some(found?),
            pool: self.clone(),
            reused: true,
            upload: None,
        })
    }

    /// A lease on a new connection.
    pub(super) fn lease(self: &Arc<Self>, connection: PooledConnection) -> Lease {
        Lease {
            connection: Some(connection),
            pool: self.clone(),
            reused: false,
            upload: None,
        }
    }

    fn release(&self, connection: PooledConnection) {
        connection.progress.end();
        let Some(own) = self.own_connections() else {
            return;
        };
        let mut waiting = own.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_IDLE_CONNECTIONS {
            waiting.push(connection);
        }
    }
}

/// The use of one connection for one request. Dropping it before the end closes the connection, so
/// that the upstream stops sending a response that nobody reads.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<PooledConnection>,
    pool: Arc<Pool>,
    reused: bool,
    /// The request body, which may outlast the response.
    upload: Option<Arc<Upload>>,
}

impl Lease {
    /// Whether the connection has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

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
