//! The one way from asynchronous code to work that waits for a disk.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on a thread that may block and returns its result. A panic of `work` goes on in the
/// caller.
///
/// Never completes when the runtime shuts down before `work` has begun: the caller is about to be
/// dropped too.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let done = Arc::new(Mutex::new(None));
    let slot = done.clone();
    let job = Box::new(move || {
        let result = work();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    run_job(job).await;
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    done.take().expect("the job has ended")
}

/// Of one type of work: the code of a task is compiled for each, some 5 kB.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place for work that blocks; awaited at once"
)]
async fn run_job(job: Box<dyn FnOnce() + Send>) {
    match spawn_blocking(job).await.map_err(JoinError::try_into_panic) {
        Ok(()) => {}
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_shutdown_before_the_work_begins_is_no_panic() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let mut work = pin!(run_blocking(|| ()));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert_eq!(work.as_mut().poll(&mut cx), Poll::Pending);
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_work_goes_on_in_the_caller() {
        let caller = tokio::spawn(run_blocking(|| panic!("work failed")));
        let error = caller.await.expect_err("a panic");
        assert!(error.is_panic());
    }
}
