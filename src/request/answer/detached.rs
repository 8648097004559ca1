//! Writes that go on when nobody waits for them any more.

/// Runs a write to its end even if its client leaves: it may still take effect, and the tag must
/// stay locked until the result is known.
#[expect(
    clippy::disallowed_methods,
    reason = "a write goes on when its client leaves; ends by the timeouts of the transfer"
)]
pub(in crate::request) async fn run_detached<T: Send + 'static>(
    guards: impl Send + 'static,
    write: impl Future<Output = T> + Send + 'static,
) -> T {
    let task = tokio::spawn(async move {
        let done = write.await;
        drop(guards);
        done
    });
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
