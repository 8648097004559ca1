//! The queue between those who log and the thread that writes: nothing that serves ever waits for
//! whoever reads a log. What does not fit is dropped, counted, and said afterwards.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// One line for each request.
    Access,
    /// What happens to the process.
    Events,
}

impl LogKind {
    pub(crate) const ALL: [Self; 2] = [Self::Access, Self::Events];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Events => "events",
        }
    }

    /// How much may be pending for a line to be added. Requests cannot crowd out events.
    fn max_pending(self) -> usize {
        match self {
            Self::Access => MAX_PENDING,
            Self::Events => MAX_PENDING + RESERVED_FOR_EVENTS,
        }
    }
}

/// Buffers lines, which [`LogQueue::run`] writes in batches.
#[derive(Debug, Default)]
pub struct LogQueue {
    pending: Mutex<PendingLines>,
    filled: Condvar,
    lost: [AtomicU64; LogKind::ALL.len()],
}

#[derive(Debug, Default)]
struct PendingLines {
    batch: LineBatch,
    dropped: LineCounts,
    closed: bool,
}

/// Lines that are written together.
#[derive(Debug, Default)]
struct LineBatch {
    text: String,
    lines: LineCounts,
}

/// A number of lines of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LineCounts {
    access: u64,
    events: u64,
}

impl LineCounts {
    fn add(&mut self, kind: LogKind) {
        match kind {
            LogKind::Access => self.access += 1,
            LogKind::Events => self.events += 1,
        }
    }

    fn of(self, kind: LogKind) -> u64 {
        match kind {
            LogKind::Access => self.access,
            LogKind::Events => self.events,
        }
    }

    fn total(self) -> u64 {
        self.access + self.events
    }
}

impl PendingLines {
    /// Whether it is time to write. Events are written at once: the process may be about to end.
    fn is_due(&self) -> bool {
        self.closed || self.batch.lines.events > 0 || self.batch.text.len() >= BATCH_SIZE
    }

    fn is_empty(&self) -> bool {
        self.batch.text.is_empty() && self.dropped.total() == 0
    }
}

impl LogQueue {
    /// Adds a line, with its end, or drops and counts it.
    pub(crate) fn add(&self, kind: LogKind, line: &str) {
        let mut pending = self.pending();
        if pending.batch.text.len() + line.len() > kind.max_pending() {
            pending.dropped.add(kind);
            drop(pending);
            self.count_lost(kind, 1);
            return;
        }
        let (was_empty, was_due) = (pending.batch.text.is_empty(), pending.is_due());
        pending.batch.text.push_str(line);
        pending.batch.lines.add(kind);
        let wakes = was_empty || (!was_due && pending.is_due());
        drop(pending);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Writes batches to `out` until [`LogQueue::close`]. For a thread of its own.
    pub fn run(&self, mut out: impl Write) {
        let mut batch = LineBatch::default();
        let mut failures = WriteFailures::default();
        while let Some(dropped) = self.next_batch(&mut batch) {
            let written = out
                .write_all(batch.text.as_bytes())
                .and_then(|()| out.flush());
            if written.is_err() {
                for kind in LogKind::ALL {
                    self.count_lost(kind, batch.lines.of(kind));
                }
            }
            failures.report(written, batch.lines.total());
            for kind in LogKind::ALL
                .into_iter()
                .filter(|kind| dropped.of(*kind) > 0)
            {
                let (log, lines) = (kind.as_str(), dropped.of(kind));
                tracing::warn!(log, lines, "log reader is too slow, lines were dropped");
            }
            batch.text.clear();
            // The two buffers are swapped and kept: allocating one in other threads each time cost
            // 10 MiB at 20,000 lines per second.
            batch.text.shrink_to(2 * BATCH_SIZE);
            batch.lines = LineCounts::default();
        }
    }

    /// Waits for lines and swaps them with `batch`, which is empty. Returns how many were dropped
    /// since the last batch; `None` once the queue is closed and nothing is left.
    fn next_batch(&self, batch: &mut LineBatch) -> Option<LineCounts> {
        let pending = self.pending();
        let rests = |pending: &mut PendingLines| pending.is_empty() && !pending.closed;
        let filled = self.filled.wait_while(pending, rests);
        let pending = filled.unwrap_or_else(PoisonError::into_inner);
        let waits = |pending: &mut PendingLines| !pending.is_due();
        let due = self
            .filled
            .wait_timeout_while(pending, BATCH_INTERVAL, waits);
        let mut pending = due.unwrap_or_else(PoisonError::into_inner).0;
        if pending.is_empty() {
            return None;
        }
        std::mem::swap(batch, &mut pending.batch);
        Some(std::mem::take(&mut pending.dropped))
    }

    /// Ends [`LogQueue::run`] after it has written all lines.
    pub fn close(&self) {
        self.pending().closed = true;
        self.filled.notify_all();
    }

    /// The lines since the start that were never written.
    pub(crate) fn lost(&self, kind: LogKind) -> u64 {
        self.lost[kind as usize].load(Ordering::Relaxed)
    }

    fn count_lost(&self, kind: LogKind, lines: u64) {
        self.lost[kind as usize].fetch_add(lines, Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, PendingLines> {
        // A line is appended whole or not at all, so a panic leaves nothing half-done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports that a log cannot be written: when it begins and when it ends. Requests go on: they
/// matter more than their lines.
#[derive(Debug, Default)]
struct WriteFailures {
    /// The lines that were lost since the first failure. `None`: the last write succeeded.
    lost: Option<u64>,
}

impl WriteFailures {
    fn report(&mut self, written: io::Result<()>, lines: u64) {
        match (written, &mut self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lines)) => {
                tracing::warn!(lines, "log is written again, lines were lost");
                self.lost = None;
            }
            (Err(_), Some(lost)) => *lost += lines,
            (Err(error), None) => {
                tracing::error!(%error, "log cannot be written, lines are lost");
                self.lost = Some(lines);
            }
        }
    }
}

const MAX_PENDING: usize = 4 * 1024 * 1024;
/// For events, where both logs go to the same reader.
const RESERVED_FOR_EVENTS: usize = 1024 * 1024;
/// How long the line of a request may wait for others.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// A batch of this size is written at once.
const BATCH_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LINE: &str = "a line of a log that is as long as others\n";

    /// Standard output on a file system that is full for the first two batches.
    struct FullDisk<'a> {
        log: &'a LogQueue,
        writes: usize,
    }

    impl Write for FullDisk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            if self.writes == 3 {
                self.log.close();
                return Ok(bytes.len());
            }
            self.log.add(LogKind::Access, LINE);
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The events while `run` runs, without their times.
    fn events(run: impl FnOnce()) -> String {
        let events = tempfile::NamedTempFile::new().expect("a file");
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Arc::new(events.reopen().expect("the file")))
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, run);
        std::fs::read_to_string(events.path()).expect("text")
    }

    #[test]
    fn lines_that_cannot_be_written_are_reported_once_and_when_it_ends() {
        let log = LogQueue::default();
        log.add(LogKind::Access, LINE);
        let events = events(|| {
            log.run(FullDisk {
                log: &log,
                writes: 0,
            });
        });
        insta::assert_snapshot!(events, @r"
        ERROR log cannot be written, lines are lost error=no storage space
         WARN log is written again, lines were lost lines=2
        ");
        assert_eq!(log.lost(LogKind::Access), 2);
    }

    #[test]
    fn a_slow_reader_costs_lines_and_not_memory_and_the_number_is_said() {
        let log = LogQueue::default();
        let fits = MAX_PENDING / LINE.len();
        for _ in 0..fits + 3 {
            log.add(LogKind::Access, LINE);
        }
        assert!(log.pending().batch.text.len() <= MAX_PENDING);
        assert_eq!(log.lost(LogKind::Access), 3);
        // Events have room left.
        log.add(LogKind::Events, LINE);
        assert_eq!(log.lost(LogKind::Events), 0);
        log.close();
        let mut written = Vec::new();
        let events = events(|| log.run(&mut written));
        assert_eq!(written.len(), (fits + 1) * LINE.len());
        insta::assert_snapshot!(events, @r#" WARN log reader is too slow, lines were dropped log="access" lines=3"#);
    }

    #[test]
    fn events_are_written_at_once_and_in_order_with_requests() {
        let log = LogQueue::default();
        for (kind, line) in [
            (LogKind::Access, "1\n"),
            (LogKind::Events, "2\n"),
            (LogKind::Access, "3\n"),
        ] {
            log.add(kind, line);
        }
        assert!(log.pending().is_due());
        let mut batch = LineBatch::default();
        assert!(log.next_batch(&mut batch).is_some());
        assert_eq!(batch.text, "1\n2\n3\n");
        log.add(LogKind::Access, "4\n");
        assert!(!log.pending().is_due());
    }

    #[test]
    fn what_is_queued_when_the_log_is_closed_is_still_written() {
        let log = LogQueue::default();
        log.add(LogKind::Events, LINE);
        log.close();
        log.add(LogKind::Events, LINE);
        let mut written = Vec::new();
        log.run(&mut written);
        assert_eq!(written.len(), 2 * LINE.len());
    }
}
