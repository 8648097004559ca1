//! The threads that write the logs of the process: the access log to standard output, events to
//! standard error. Where both lead to the same file, one thread writes all lines in order.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::fstat;

use super::log_queue::LogQueue;

/// Where the lines of both logs go.
#[derive(Clone, Debug)]
pub struct LogQueues {
    pub access: Arc<LogQueue>,
    pub events: Arc<LogQueue>,
}

/// Writes both logs until it is dropped, which waits a moment for what is pending.
#[derive(Debug)]
pub struct LogWriters {
    access: LogThread,
    /// `None`: standard error leads to where standard output does.
    events: Option<LogThread>,
}

impl LogWriters {
    /// Starts the threads.
    pub fn start() -> io::Result<Self> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let events = if is_same_file(&stdout, &stderr) {
            None
        } else {
            Some(LogThread::start("event-log", &stderr)?)
        };
        let access = LogThread::start("access-log", &stdout)?;
        Ok(Self { access, events })
    }

    pub fn queues(&self) -> LogQueues {
        let access = &self.access;
        LogQueues {
            access: access.queue.clone(),
            events: self.events.as_ref().unwrap_or(access).queue.clone(),
        }
    }
}

impl Drop for LogWriters {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let is_written = self.access.finish(deadline);
        let Some(events) = &self.events else {
            return;
        };
        if !is_written {
            tracing::warn!("log reader is too slow, the last lines of requests are lost");
        }
        events.finish(deadline);
    }
}

/// A thread that writes to a stream, which may block.
#[derive(Debug)]
struct LogThread {
    queue: Arc<LogQueue>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl LogThread {
    #[expect(
        clippy::disallowed_methods,
        reason = "writes a log; ends when its queue is closed"
    )]
    fn start(name: &str, stream: &impl AsFd) -> io::Result<Self> {
        // Standard output of the library has a lock and a buffer, which the end of the process
        // would have to wait for.
        let out = Output::new(File::from(stream.as_fd().try_clone_to_owned()?));
        let queue = Arc::new(LogQueue::default());
        let (sender, ended) = channel::<()>();
        let lines = queue.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _on_end = sender;
                lines.run(out);
            })?;
        Ok(Self { queue, ended })
    }

    /// Waits until all lines are written. Returns whether they are.
    fn finish(&self, deadline: Instant) -> bool {
        self.queue.close();
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

/// A stream that waits for its reader, also where another process has made it non-blocking: all
/// that have inherited a pipe or a terminal share that flag. Lines of several processes do not mix.
struct Output {
    file: File,
    /// What is written to a file at once stays together.
    is_file: bool,
}

impl Output {
    fn new(file: File) -> Self {
        let is_file = file.metadata().is_ok_and(|data| data.is_file());
        Self { file, is_file }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = if self.is_file {
            bytes
        } else {
            first_lines(bytes)
        };
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that fit into [`MAX_UNDIVIDED_BYTES`], or the first one.
fn first_lines(bytes: &[u8]) -> &[u8] {
    if bytes.len() <= MAX_UNDIVIDED_BYTES {
        return bytes;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let (first, rest) = bytes.split_at(MAX_UNDIVIDED_BYTES);
    let end = first.iter().rposition(is_end).or_else(|| {
        let end = rest.iter().position(is_end)?;
        Some(MAX_UNDIVIDED_BYTES + end)
    });
    end.and_then(|end| bytes.get(..=end)).unwrap_or(bytes)
}

/// `PIPE_BUF` of Linux: a pipe does not divide so many bytes between those of other processes,
/// such as the one that takes over from this one.
const MAX_UNDIVIDED_BYTES: usize = 4096;

fn is_same_file(one: &impl AsFd, other: &impl AsFd) -> bool {
    let identity = |stream: &dyn AsFd| fstat(stream).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// For the last lines, at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    #[test]
    fn a_stream_that_another_process_made_non_blocking_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl_setfl(&writer, OFlags::NONBLOCK).expect("non-blocking");
        let mut out = Output::new(File::from(OwnedFd::from(writer)));
        let lines = vec![b'x'; 1024 * 1024];
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let written = out.write_all(&lines);
                drop(out);
                written
            });
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("read");
            let written = writing.join().expect("no panic");
            assert!(written.is_ok(), "{written:?}");
            assert_eq!(read.len(), lines.len());
        });
    }

    #[test]
    fn whole_lines_are_written_at_once() {
        let lines = |lengths: &[usize]| -> Vec<u8> {
            let line = |bytes: &usize| [vec![b'x'; *bytes], vec![b'\n']].concat();
            lengths.iter().flat_map(line).collect()
        };
        for (lengths, first) in [
            (&[10, 10][..], 22),
            (&[4000, 95], 4097 - 96),
            (&[4095, 1], 4096),
            (&[10, 5000], 11),
            (&[5000, 10], 5001),
        ] {
            assert_eq!(first_lines(&lines(lengths)).len(), first, "{lengths:?}");
        }
        assert_eq!(first_lines(&[b'x'; 5000]).len(), 5000);
    }

    #[test]
    fn two_ends_of_one_file_are_one() {
        let file = tempfile::tempfile().expect("a file");
        let other = tempfile::tempfile().expect("a file");
        let again = file.try_clone().expect("the file");
        assert!(is_same_file(&file, &again));
        assert!(!is_same_file(&file, &other));
    }
}
