//! Runs what waits for the disk on a few threads of its own.
//!
//! tokio's threads for blocking work would do, but there may be two of them for each piece of work
//! at once, in each worker's runtime, and each costs about 1 MiB: it kept twice the memory of
//! docker-registry.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::StoreError;

/// The disk work of a store.
#[derive(Clone)]
pub(super) struct Work {
    shared: Arc<Shared>,
}

/// Work that goes on, to its end also where nobody waits for that any more.
pub(super) struct Started<T>(oneshot::Receiver<Result<T, StoreError>>);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    waits: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// The most threads: enough that many small files reach the disk together.
const THREADS: usize = 8;
/// How long a thread waits for more work.
const IDLE: Duration = Duration::from_secs(10);

impl Work {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// Begins as soon as a thread is free.
    pub(super) fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Started<T> {
        let (done, result) = oneshot::channel();
        self.shared.give(Box::new(move || {
            // Nobody may wait for it any more.
            let _ = done.send(work());
        }));
        Started(result)
    }

    /// Waits for it to end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.start(work).end().await
    }
}

impl<T> Started<T> {
    pub(super) async fn end(&mut self) -> Result<T, StoreError> {
        let lost = |_| Err(io::Error::other("the work on the disk ended by a panic").into());
        (&mut self.0).await.unwrap_or_else(lost)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "waits for the disk; ends when there is no work"
    )]
    fn give(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.waits.notify_one();
            return;
        }
        if state.threads < THREADS {
            let shared = self.clone();
            // Ends when there has been no work for a while.
            let started = std::thread::Builder::new()
                .name("store".to_owned())
                .spawn(move || shared.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    tracing::warn!(%error, threads = state.threads, "no thread for the store")
                }
            }
        }
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            // Its waiter finds out, since what would have told it is gone.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("work on the disk ended by a panic");
            }
        }
    }

    /// The next job. `None`: there was none for a while, and this thread is no longer counted.
    fn take(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            let waited = self.waits.wait_timeout(state, IDLE);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_work_is_done_on_few_threads() {
        let work = Work::new();
        let mut all: Vec<_> = (0..200).map(|n| work.start(move || Ok(n))).collect();
        for (n, started) in all.iter_mut().enumerate() {
            assert_eq!(started.end().await.unwrap(), n);
        }
        assert!(work.shared.state().threads <= THREADS);
    }

    #[tokio::test]
    async fn a_panic_costs_one_piece_of_work() {
        let work = Work::new();
        let failed: Result<(), _> = work.run(|| panic!("on purpose")).await;
        assert!(matches!(failed, Err(StoreError::Io(_))));
        assert!(work.run(|| Ok(())).await.is_ok());
    }
}
