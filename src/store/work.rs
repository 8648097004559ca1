//! Runs what waits for the disk on threads that may wait, as many at once as a disk has use for.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::error::StoreError;

/// The disk work of a store.
#[derive(Clone, Debug)]
pub(super) struct Work {
    places: Arc<Semaphore>,
}

/// Work that goes on, to its end also where nobody waits for that any more.
pub(super) struct Started<T>(JoinHandle<Result<T, StoreError>>);

/// Work at once: enough for the queue of a fast disk, few enough threads that their stacks do not count.
const AT_ONCE: usize = 64;

impl Work {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins as soon as there is a place.
    pub(super) async fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Started<T> {
        let place = self.places.clone().acquire_owned().await;
        // Ends by itself: nothing that runs here waits for a client.
        Started(tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        }))
    }

    /// Waits for it to end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut started = self.start(work).await;
        started.end().await
    }
}

impl<T> Started<T> {
    pub(super) async fn end(&mut self) -> Result<T, StoreError> {
        // It ends early only by a panic, or when the process ends.
        (&mut self.0).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }
}
