//! The time of day, and deadlines that move with progress, watched by one timer that is re-armed
//! lazily.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The time of day, for what outlives the process. Advancing the paused clock of a test advances
/// it, too.
pub(crate) fn time_of_day() -> SystemTime {
    // Outside tests both are one clock, and the later reading is never before the earlier one.
    let real = std::time::Instant::now();
    let moved = Instant::now().into_std().saturating_duration_since(real);
    SystemTime::now()
        + if moved > Duration::from_secs(1) {
            moved
        } else {
            Duration::ZERO
        }
}

/// Something that must make progress before a deadline.
pub(crate) trait Deadline {
    /// When it expires unless it makes progress before; `None`: no deadline for now.
    fn deadline(&self) -> Option<Instant>;
}

/// A future that ends early when its deadline passes.
///
/// The deadline may move with every byte, so progress does not touch the timer: it fires at the
/// deadline that held when it was armed, checks the current one, and sleeps on. A deadline that
/// becomes earlier while the future is not polled is noticed within [`MAX_RECHECK_INTERVAL`].
pub(crate) struct Watched<F, D> {
    future: F,
    watch: D,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

const MAX_RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The deadline has passed.
#[derive(Debug)]
pub(crate) struct Expired;

impl<F, D: Deadline> Watched<F, D> {
    pub(crate) fn new(future: F, watch: D) -> Self {
        let first = watch.deadline();
        let armed = first.map(|at| at.min(Instant::now() + MAX_RECHECK_INTERVAL));
        let timer = Box::pin(sleep_until(armed.unwrap_or_else(Instant::now)));
        Self {
            future,
            watch,
            timer,
            armed,
        }
    }

    /// The future, for a graceful shutdown.
    pub(crate) fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// The future, when it has ended early or is done.
    pub(crate) fn into_inner(self) -> F {
        self.future
    }

    /// Ready when the deadline has passed; else the task is woken when it may have.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let Some(due) = self.watch.deadline() else {
                // Whatever sets a deadline again also polls this future.
                self.armed = None;
                return Poll::Pending;
            };
            if self.armed.is_none_or(|armed| due < armed) {
                let at = due.min(Instant::now() + MAX_RECHECK_INTERVAL);
                self.armed = Some(at);
                self.timer.as_mut().reset(at);
            }
            // Outside the coop budget of this poll: a future that always uses it up (there is
            // always more to read) would keep the timer from ever completing.
            if pin!(unconstrained(self.timer.as_mut()))
                .poll(cx)
                .is_pending()
            {
                return Poll::Pending;
            }
            if due <= Instant::now() {
                return Poll::Ready(Expired);
            }
            self.armed = None;
        }
    }
}

impl<F: Unpin, D: Deadline> Watched<F, D> {
    /// Polls `step` on the future, then the deadline.
    pub(crate) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut F, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Expired>> {
        if let Poll::Ready(done) = step(&mut self.future, cx) {
            return Poll::Ready(Ok(done));
        }
        self.poll_expired(cx).map(Err)
    }
}

impl<F: Future + Unpin, D: Deadline + Unpin> Future for Watched<F, D> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut()
            .poll_with(cx, |future, cx| Pin::new(future).poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct SharedDeadline(Arc<Mutex<Option<Instant>>>);

    impl Deadline for SharedDeadline {
        fn deadline(&self) -> Option<Instant> {
            *self.0.lock().expect("not poisoned")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_moves_the_deadline_and_silence_ends_it() {
        let start = Instant::now();
        let due = Arc::new(Mutex::new(Some(start + Duration::from_secs(100))));
        let watched = Watched::new(std::future::pending::<()>(), SharedDeadline(due.clone()));
        let task = tokio::spawn(watched);
        tokio::time::sleep(Duration::from_secs(99)).await;
        *due.lock().expect("not poisoned") = Some(start + Duration::from_secs(500));
        assert!(task.await.expect("no panic").is_err());
        assert_eq!(start.elapsed().as_secs(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_uses_up_each_poll_does_not_hide_the_deadline() {
        let due = Arc::new(Mutex::new(Some(Instant::now() + Duration::from_secs(1))));
        // Like a socket with more in it than one poll may read.
        let busy = Box::pin(async {
            loop {
                tokio::task::consume_budget().await;
            }
        });
        let task = tokio::spawn(Watched::new(busy, SharedDeadline(due)));
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(task.is_finished());
        let expired: Result<(), Expired> = task.await.expect("no panic");
        assert!(expired.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_is_noticed_soon() {
        let start = Instant::now();
        let due = Arc::new(Mutex::new(Some(start + Duration::from_secs(900))));
        let task = tokio::spawn(Watched::new(
            std::future::pending::<()>(),
            SharedDeadline(due.clone()),
        ));
        tokio::task::yield_now().await;
        *due.lock().expect("not poisoned") = Some(start + Duration::from_secs(1));
        assert!(task.await.expect("no panic").is_err());
        assert!(start.elapsed() <= MAX_RECHECK_INTERVAL + Duration::from_secs(1));
    }
}
