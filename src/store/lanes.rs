//! Threads for disk work in three lanes, so that short reads never queue behind writes and hashes,
//! nor these behind a disk that is slow to sync uploads.
//!
//! Each lane is the blocking pool of a small runtime of its own. The pools of the workers' runtimes
//! would need up to two threads per job at once, and a thread costs about 1 MiB.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::error::StoreError;
use crate::observe::resource_use::ResourceUse;

/// The threads of a store.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Jobs that read or open a small file.
    pub(super) read: Lane,
    /// Jobs that write, sync or hash. They never wait for a lock.
    pub(super) write: Lane,
    /// Jobs that sync the received bytes of uploads that go on.
    pub(super) sync: Lane,
}

/// A bounded pool of threads with a bounded queue.
#[derive(Debug)]
pub(super) struct Lane {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    queue: Arc<Semaphore>,
    /// The number of jobs that were queued.
    #[cfg(test)]
    pub(super) jobs: std::sync::atomic::AtomicUsize,
}

/// A job that has been queued. It runs to its end even if this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct DiskJob<T>(JoinHandle<Result<T, StoreError>>);

/// Enough to sync the files of many small pushes at the same time.
const THREADS_PER_LANE: usize = 8;
/// How long an idle thread waits for more work.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Jobs that a lane runs or queues. A request has three at most, so the limit is reached only if the
/// disk does not keep up with thousands of requests.
const MAX_JOBS: usize = 4096;

impl Lanes {
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self {
            read: Lane::start("store-read")?,
            write: Lane::start("store-write")?,
            sync: Lane::start("store-sync")?,
        })
    }

    /// The use of the fullest queue.
    pub(super) fn fullest_queue(&self) -> ResourceUse {
        let Self { read, write, sync } = self;
        let jobs = [read, write, sync].map(|lane| MAX_JOBS - lane.queue.available_permits());
        let fullest = jobs.into_iter().max().unwrap_or_default();
        ResourceUse::new("store_jobs", fullest, MAX_JOBS)
    }
}

impl Lane {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .thread_name(name)
            .max_blocking_threads(THREADS_PER_LANE)
            .thread_keep_alive(THREAD_KEEP_ALIVE)
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            queue: Arc::new(Semaphore::new(MAX_JOBS)),
            #[cfg(test)]
            jobs: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Queues a job, which starts as soon as a thread is free.
    ///
    /// Errors: `Overloaded` if the queue is full.
    pub(super) fn start_job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<DiskJob<T>, StoreError> {
        let place: OwnedSemaphorePermit = self
            .queue
            .clone()
            .try_acquire_owned()
            .map_err(|_| StoreError::Overloaded)?;
        let runtime = self.runtime.as_ref().ok_or(StoreError::Overloaded)?;
        #[cfg(test)]
        self.jobs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Boxed: the code of a task is compiled for each type of job, some 5 kB.
        let job: Box<dyn FnOnce() -> Result<T, StoreError> + Send> = Box::new(move || {
            let done = work();
            drop(place);
            done
        });
        Ok(DiskJob(runtime.spawn_blocking(job)))
    }

    /// Runs a job and returns its result. Cancel-safe in that the job runs to its end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.start_job(work)?.end().await
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Running jobs continue. Waiting for them here would block a serving thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<T> DiskJob<T> {
    pub(super) async fn end(&mut self) -> Result<T, StoreError> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                tracing::error!("disk job panicked");
                Err(io::Error::other("the disk job panicked").into())
            }
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reads_do_not_wait_for_writes() {
        let lanes = Lanes::start().unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let mut writes = Vec::new();
        for _ in 0..2 * THREADS_PER_LANE {
            let wait = wait.clone();
            let write = move || Ok(wait.lock().unwrap().recv().is_ok());
            writes.push(lanes.write.start_job(write).unwrap());
        }
        lanes.read.run(|| Ok(())).await.unwrap();
        for _ in &writes {
            release.send(()).unwrap();
        }
        for write in &mut writes {
            assert!(write.end().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_full_refuses_jobs() {
        let lane = Lane::start("store-test").unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let mut first = lane.start_job(move || Ok(wait.recv().is_ok())).unwrap();
        let all = lane.queue.clone();
        let filled = all.try_acquire_many_owned(u32::try_from(MAX_JOBS - 1).unwrap());
        let refused = lane.run(|| Ok(())).await;
        assert!(matches!(refused, Err(StoreError::Overloaded)));
        drop(filled);
        release.send(()).unwrap();
        assert!(first.end().await.unwrap());
        lane.run(|| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_costs_one_job() {
        let lane = Lane::start("store-test").unwrap();
        let failed: Result<(), _> = lane.run(|| panic!("on purpose")).await;
        assert!(matches!(failed, Err(StoreError::Io(_))));
        assert!(lane.run(|| Ok(())).await.is_ok());
    }
}
