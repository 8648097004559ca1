//! The access log: one line per request on standard output, without secrets and query strings.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::snapshot::LogFormat;

/// One request. Sizes are those of bodies, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct AccessLogEntry<'a> {
    /// When the request head was complete.
    pub time: SystemTime,
    pub client: &'a str,
    /// The authenticated user.
    pub user: Option<&'a str>,
    /// The virtual host, if the request reached one.
    pub domain: Option<&'a str>,
    pub method: &'a str,
    /// The registry call; `None` outside `/v2/`.
    pub call: Option<&'static str>,
    pub repository: Option<&'a str>,
    /// A tag, digest or upload session.
    pub reference: Option<&'a str>,
    /// The response status; `None` if the client left before.
    pub status: Option<u16>,
    /// Received bytes of the request body.
    pub bytes_in: u64,
    /// Sent bytes of the response body.
    pub bytes_out: u64,
    /// From the request head to the end of the response.
    pub duration: Duration,
    /// From forwarding to the upstream's response head; `None` if the request was not forwarded.
    pub upstream: Option<Duration>,
    pub protocol: &'static str,
    /// `complete`, `upstream-cut` or `client-gone`.
    pub end: &'static str,
    /// The access rule that denied the request, as `FILE:LINE`, or `none` where no rule allows it.
    pub rule: Option<&'a str>,
}

/// A field of a line, apart from the time. `None`: unknown.
enum LogField<'a> {
    Text(Option<&'a str>),
    Number(Option<u64>),
    Duration(Option<Duration>),
}

impl<'a> AccessLogEntry<'a> {
    /// The fields after the time, in the order of the text format.
    fn fields(&self) -> [(&'static str, LogField<'a>); FIELDS] {
        let Self {
            time: _,
            client,
            user,
            domain,
            method,
            call,
            repository,
            reference,
            status,
            bytes_in,
            bytes_out,
            duration,
            upstream,
            protocol,
            end,
            rule,
        } = *self;
        [
            ("client", LogField::Text(Some(client))),
            ("user", LogField::Text(user)),
            ("domain", LogField::Text(domain)),
            ("method", LogField::Text(Some(method))),
            ("call", LogField::Text(call)),
            ("repository", LogField::Text(repository)),
            ("reference", LogField::Text(reference)),
            ("status", LogField::Number(status.map(u64::from))),
            ("bytes_in", LogField::Number(Some(bytes_in))),
            ("bytes_out", LogField::Number(Some(bytes_out))),
            ("duration_ms", LogField::Duration(Some(duration))),
            ("upstream_ms", LogField::Duration(upstream)),
            ("protocol", LogField::Text(Some(protocol))),
            ("end", LogField::Text(Some(end))),
            (RULE, LogField::Text(rule)),
        ]
    }
}

const FIELDS: usize = 15;
const RULE: &str = "rule";

/// Buffers lines and writes them in batches, so that a request never waits for a slow reader of the
/// log. When 4 MiB are pending, lines are dropped and counted.
#[derive(Debug)]
pub struct AccessLog {
    on: AtomicBool,
    json: AtomicU8,
    pending: Mutex<PendingLines>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct PendingLines {
    text: String,
    dropped: u64,
    closed: bool,
}

const MAX_PENDING: usize = 4 * 1024 * 1024;
/// How long a line may wait for others.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// A batch of this size is written at once.
const BATCH_SIZE: usize = 64 * 1024;

thread_local! {
    /// Formats a line outside the lock.
    static LINE_BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

impl AccessLog {
    /// A log that is off until [`AccessLog::configure`] turns it on.
    pub fn new() -> Self {
        Self {
            on: AtomicBool::new(false),
            json: AtomicU8::new(0),
            pending: Mutex::new(PendingLines::default()),
            filled: Condvar::new(),
        }
    }

    /// Sets whether and how lines are written from now on.
    pub fn configure(&self, on: bool, format: LogFormat) {
        self.json
            .store(u8::from(format == LogFormat::Json), Ordering::Relaxed);
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether lines are written.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn pending(&self) -> MutexGuard<'_, PendingLines> {
        // A line is appended whole or not at all, so a panic leaves nothing half-done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub fn write(&self, entry: &AccessLogEntry<'_>) {
        // A thread that is ending has lost its buffer.
        let mut text = LINE_BUFFER.try_with(Cell::take).unwrap_or_default();
        text.clear();
        if self.json.load(Ordering::Relaxed) == 1 {
            write_json(&mut text, entry);
        } else {
            write_text(&mut text, entry);
        }
        text.push('\n');
        self.add(&text);
        let _ = LINE_BUFFER.try_with(|buffer| buffer.set(text));
    }

    fn add(&self, line: &str) {
        let mut pending = self.pending();
        let before = pending.text.len();
        if before + line.len() > MAX_PENDING {
            pending.dropped += 1;
            return;
        }
        pending.text.push_str(line);
        let full = before < BATCH_SIZE && pending.text.len() >= BATCH_SIZE;
        drop(pending);
        if before == 0 || full {
            self.filled.notify_one();
        }
    }

    /// Writes batches to `out` until [`AccessLog::close`]. For a thread of its own.
    pub fn run(&self, mut out: impl Write) {
        let mut batch = String::new();
        let mut failures = WriteFailures::default();
        loop {
            let mut pending = self.pending();
            while pending.text.is_empty() && !pending.closed {
                pending = self
                    .filled
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if !pending.closed {
                let waits =
                    |pending: &mut PendingLines| !pending.closed && pending.text.len() < BATCH_SIZE;
                let filled = self
                    .filled
                    .wait_timeout_while(pending, BATCH_INTERVAL, waits);
                pending = filled.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut batch, &mut pending.text);
            let closed = pending.closed;
            let dropped = std::mem::take(&mut pending.dropped);
            drop(pending);
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "access log reader is too slow, lines dropped"
                );
            }
            let written = out.write_all(batch.as_bytes()).and_then(|()| out.flush());
            failures.report(written, &batch);
            batch.clear();
            // The two buffers are swapped and kept: allocating one in other threads each time cost
            // 10 MiB at 20,000 lines per second.
            batch.shrink_to(2 * BATCH_SIZE);
            if closed {
                return;
            }
        }
    }

    /// Ends [`AccessLog::run`] after it has written all lines.
    pub fn close(&self) {
        self.pending().closed = true;
        self.filled.notify_all();
    }
}

/// Reports in the event log that the access log cannot be written: when it begins and when it ends.
/// Requests go on: they matter more than their lines.
#[derive(Debug, Default)]
struct WriteFailures {
    /// The lines that were lost since the first failure. `None`: the last write succeeded.
    lost: Option<usize>,
}

impl WriteFailures {
    fn report(&mut self, written: io::Result<()>, batch: &str) {
        match (written, &mut self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lines)) => {
                tracing::warn!(lines, "access log is written again, lines were lost");
                self.lost = None;
            }
            (Err(_), Some(lines)) => *lines += batch.lines().count(),
            (Err(error), None) => {
                tracing::error!(%error, "access log cannot be written, lines are lost");
                self.lost = Some(batch.lines().count());
            }
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::new()
    }
}

/// The last second that a thread has formatted: each has thousands of lines.
struct CachedSecond {
    unix: u64,
    text: String,
}

thread_local! {
    static CACHED_SECOND: RefCell<CachedSecond> =
        const { RefCell::new(CachedSecond { unix: u64::MAX, text: String::new() }) };
}

/// RFC 3339 in UTC, to the millisecond.
fn push_time(out: &mut String, time: SystemTime) {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    CACHED_SECOND.with_borrow_mut(|second| {
        if second.unix != since.as_secs() {
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            let stamp = jiff::Timestamp::try_from(whole).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let text = format!("{stamp:.0}");
            *second = CachedSecond {
                unix: since.as_secs(),
                text: text.trim_end_matches('Z').to_owned(),
            };
        }
        out.push_str(&second.text);
    });
    out.push('.');
    push_digits(out, u64::from(since.subsec_millis()), 3);
    out.push('Z');
}

/// Milliseconds with three decimals.
fn push_ms(out: &mut String, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_digits(out, micros / 1000, 1);
    out.push('.');
    push_digits(out, micros % 1000, 3);
}

/// A number with leading zeros up to `width` digits. `write!` costs several times as much, for each
/// field of each line.
fn push_digits(out: &mut String, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(digits);
}

/// `key=value` pairs in a fixed order; unknown values are `-`. The rule is left out if it is
/// unknown.
fn write_text(out: &mut String, entry: &AccessLogEntry<'_>) {
    push_time(out, entry.time);
    for (key, field) in entry.fields() {
        if key == RULE && entry.rule.is_none() {
            continue;
        }
        out.push(' ');
        out.push_str(key);
        out.push('=');
        match field {
            LogField::Text(Some(text)) => push_text(out, text),
            LogField::Number(Some(number)) => push_digits(out, number, 1),
            LogField::Duration(Some(duration)) => push_ms(out, duration),
            LogField::Text(None) | LogField::Number(None) | LogField::Duration(None) => {
                out.push('-');
            }
        }
    }
}

/// Appends a text: plain if it is one word, else quoted with escapes, so that a user name with
/// spaces or quotes cannot forge a field or a line.
fn push_text(out: &mut String, text: &str) {
    let is_plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=')
    };
    if !text.is_empty() && text != "-" && is_plain(text) {
        out.push_str(text);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "{text:?}");
    }
}

/// One JSON object with the same fields, texts first; unknown values are null.
fn write_json(out: &mut String, entry: &AccessLogEntry<'_>) {
    out.push_str("{\"time\":\"");
    push_time(out, entry.time);
    out.push('"');
    let fields = entry.fields();
    let is_text = |field: &LogField<'_>| matches!(field, LogField::Text(_));
    let texts = fields.iter().filter(|(_, field)| is_text(field));
    let numbers = fields.iter().filter(|(_, field)| !is_text(field));
    for (key, field) in texts.chain(numbers) {
        out.push_str(",\"");
        out.push_str(key);
        out.push_str("\":");
        match field {
            LogField::Text(Some(text)) => push_json_string(out, text),
            LogField::Number(Some(number)) => push_digits(out, *number, 1),
            LogField::Duration(Some(duration)) => push_ms(out, *duration),
            LogField::Text(None) | LogField::Number(None) | LogField::Duration(None) => {
                out.push_str("null");
            }
        }
    }
    out.push('}');
}

fn push_json_string(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn line<'a>() -> AccessLogEntry<'a> {
        AccessLogEntry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
            client: "127.0.0.1",
            user: Some("ci bot\n"),
            domain: Some("ci.example.com"),
            method: "GET",
            call: Some("manifest.read"),
            repository: Some("base/app"),
            reference: Some("v1"),
            status: Some(200),
            bytes_in: 0,
            bytes_out: 512,
            duration: Duration::from_micros(1250),
            upstream: None,
            protocol: "HTTP/2",
            end: "complete",
            rule: None,
        }
    }

    fn written(format: LogFormat) -> String {
        let log = AccessLog::new();
        log.configure(true, format);
        log.write(&line());
        log.close();
        let mut out = Vec::new();
        log.run(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_text_line_is_one_line() {
        insta::assert_snapshot!(written(LogFormat::Text), @r#"2026-09-21T14:13:20.123Z client=127.0.0.1 user="ci bot\n" domain=ci.example.com method=GET call=manifest.read repository=base/app reference=v1 status=200 bytes_in=0 bytes_out=512 duration_ms=1.250 upstream_ms=- protocol=HTTP/2 end=complete"#);
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = written(LogFormat::Json);
        insta::assert_snapshot!(line, @r#"{"time":"2026-09-21T14:13:20.123Z","client":"127.0.0.1","user":"ci bot\n","domain":"ci.example.com","method":"GET","call":"manifest.read","repository":"base/app","reference":"v1","protocol":"HTTP/2","end":"complete","rule":null,"status":200,"bytes_in":0,"bytes_out":512,"duration_ms":1.250,"upstream_ms":null}"#);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["user"], "ci bot\n");
        assert_eq!(value["upstream_ms"], serde_json::Value::Null);
        assert_eq!(value["duration_ms"], 1.25);
    }

    /// Standard output on a file system that is full for the first two batches.
    struct FullDisk<'a> {
        log: &'a AccessLog,
        writes: usize,
    }

    impl Write for FullDisk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            self.log.write(&line());
            match self.writes {
                1 | 2 => Err(io::ErrorKind::StorageFull.into()),
                _ => {
                    self.log.close();
                    Ok(bytes.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_reported_once_and_when_it_ends() {
        let log = AccessLog::new();
        log.configure(true, LogFormat::Text);
        log.write(&line());
        let events = tempfile::NamedTempFile::new().expect("a file");
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Arc::new(events.reopen().expect("the file")))
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            log.run(FullDisk {
                log: &log,
                writes: 0,
            });
        });
        let events = std::fs::read_to_string(events.path()).expect("text");
        insta::assert_snapshot!(events, @r"
        ERROR access log cannot be written, lines are lost error=no storage space
         WARN access log is written again, lines were lost lines=2
        ");
    }

    #[test]
    fn a_slow_reader_costs_lines_and_not_memory() {
        let log = AccessLog::new();
        log.configure(true, LogFormat::Text);
        for _ in 0..50_000 {
            log.write(&line());
        }
        assert!(log.pending().text.len() <= MAX_PENDING);
        assert!(log.pending().dropped > 0);
    }
}
