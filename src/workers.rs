//! The threads that serve connections: one for each core, each with a scheduler, a reactor and
//! upstream connections of its own, so that a request is served from head to end on one thread.
//!
//! A scheduler over all threads would balance better, but costs each request several wake-ups.
//! Instead, a new connection goes to the worker with the fewest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

use crate::upstream::pool;

/// The workers of the process.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// Every connection of every worker.
    pub(crate) connections: TaskTracker,
}

struct Worker {
    runtime: Handle,
    serving: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it is served.
struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, which end with the process.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let all = (0..count.max(1))
            .map(Self::thread)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            all,
            connections: TaskTracker::new(),
        })
    }

    /// Serves on the runtime that calls this: one thread for everything, as tests want it.
    pub(crate) fn here() -> Self {
        let worker = Worker {
            runtime: Handle::current(),
            serving: Arc::default(),
        };
        Self {
            all: vec![worker],
            connections: TaskTracker::new(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the threads that serve; joined at the end"
    )]
    fn thread(index: usize) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                pool::become_worker(index);
                runtime.block_on(std::future::pending::<()>());
            })?;
        Ok(Worker {
            runtime: handle,
            serving: Arc::default(),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Waits until every worker has run a task.
    pub(crate) async fn answer(&self) {
        for worker in &self.all {
            // An error would mean that the runtime has ended, which it does with the process.
            let _ = worker.runtime.spawn(async {}).await;
        }
    }

    /// Serves a connection on the worker that serves least.
    pub(crate) fn serve<F, S>(&self, stream: TcpStream, peer: SocketAddr, serve: S)
    where
        S: FnOnce(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self
            .all
            .iter()
            .min_by_key(|worker| worker.serving.load(Ordering::Relaxed))
        else {
            return;
        };
        worker.serving.fetch_add(1, Ordering::Relaxed);
        let serving = Serving(worker.serving.clone());
        // The stream leaves the reactor that accepted it and joins the worker's.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        self.connections.spawn_on(
            async move {
                let _serving = serving;
                match TcpStream::from_std(stream) {
                    Ok(stream) => serve(stream, peer).await,
                    Err(error) => tracing::warn!(%error, "a connection could not be served"),
                }
            },
            &worker.runtime,
        );
    }
}
