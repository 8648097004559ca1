//! Does the same with many things, a few at a time.

use std::sync::{Mutex, PoisonError};

/// Does `work` with each item, four at a time, and gives the results in the order of the items. The
/// first error ends it.
pub(super) async fn in_lanes<T: Send, R: Send, E: Send, F>(
    items: Vec<T>,
    work: impl Fn(T) -> F + Send + Sync,
) -> Result<Vec<R>, E>
where
    F: Future<Output = Result<R, E>> + Send,
{
    let count = items.len();
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let lane = || async {
        loop {
            let next = lock(&waiting).next();
            let Some((place, item)) = next else {
                return Ok(());
            };
            // Boxed to keep four of it out of the future of whoever waits.
            let result = Box::pin(work(item)).await?;
            lock(&done).push((place, result));
        }
    };
    tokio::try_join!(lane(), lane(), lane(), lane())?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn four_at_a_time_in_order_until_the_first_error() {
        let (now, most, begun) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let work = |item: usize| {
            let (now, most, begun) = (&now, &most, &begun);
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let milliseconds = 10 * (20 - item % 20) as u64;
                tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                if item == 99 { Err(item) } else { Ok(item * 2) }
            }
        };
        let done = in_lanes((0..50).collect(), work).await;
        assert_eq!(done, Ok((0..50).map(|item| item * 2).collect()));
        assert_eq!(most.load(Ordering::Relaxed), 4);
        assert_eq!(begun.load(Ordering::Relaxed), 50);
        assert_eq!(in_lanes(vec![1, 99, 2, 3, 4, 5, 6, 7], work).await, Err(99));
    }
}
