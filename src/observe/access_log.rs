//! The access log: one line for each request, on standard output. Never a secret, never a query.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::snapshot::LogFormat;

/// What a line says. Times are in milliseconds, sizes in bytes of bodies.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the head of the request had come.
    pub time: SystemTime,
    /// The client's address.
    pub client: IpAddr,
    /// Who it was, once the password was right.
    pub user: Option<&'a str>,
    /// The virtual host, once it was known.
    pub domain: Option<&'a str>,
    /// The HTTP method.
    pub method: &'a str,
    /// The registry call; none outside `/v2/`.
    pub call: Option<&'static str>,
    /// The repository that it names.
    pub repository: Option<&'a str>,
    /// The tag, digest or upload session that it names.
    pub reference: Option<&'a str>,
    /// The status of the answer; none if the client left before it.
    pub status: Option<u16>,
    /// Bytes of the request's body that came.
    pub bytes_in: u64,
    /// Bytes of the answer's body that went out.
    pub bytes_out: u64,
    /// From the request's head to the end of the answer.
    pub duration_ms: f64,
    /// From forwarding to the head of the upstream's answer; none if it was not forwarded.
    pub upstream_ms: Option<f64>,
    /// The protocol of the client's connection.
    pub protocol: &'static str,
    /// `complete`, `upstream-cut` or `client-gone`.
    pub end: &'static str,
}

/// Collects lines and writes them in batches, so that a request never waits for a slow reader of
/// the log. When the reader is so slow that [`MOST`] bytes wait, lines are dropped and counted.
#[derive(Debug)]
pub struct AccessLog {
    on: AtomicBool,
    json: AtomicU8,
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    dropped: u64,
    closed: bool,
}

/// The most bytes that wait to be written.
const MOST: usize = 4 * 1024 * 1024;
/// How long a line may wait for others to be written with.
const BATCH: Duration = Duration::from_millis(100);

impl AccessLog {
    /// A log that is off until [`AccessLog::configure`] turns it on.
    pub fn new() -> Self {
        Self {
            on: AtomicBool::new(false),
            json: AtomicU8::new(0),
            waiting: Mutex::new(Waiting::default()),
            filled: Condvar::new(),
        }
    }

    /// Sets whether and how lines are written from now on.
    pub fn configure(&self, on: bool, format: LogFormat) {
        self.json.store(u8::from(format == LogFormat::Json), Ordering::Relaxed);
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether lines are written.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A line is appended whole or not at all, so a panic leaves nothing half-done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub fn write(&self, line: &Line<'_>) {
        let mut text = String::with_capacity(320);
        if self.json.load(Ordering::Relaxed) == 1 {
            json(&mut text, line)
        } else {
            plain(&mut text, line)
        }
        text.push('\n');
        let mut waiting = self.waiting();
        if waiting.text.len() + text.len() > MOST {
            waiting.dropped += 1;
            return;
        }
        let first = waiting.text.is_empty();
        waiting.text.push_str(&text);
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
    }

    /// Writes batches to `out` until [`AccessLog::close`]. For a thread of its own.
    pub fn run(&self, mut out: impl Write) {
        let mut batch = String::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.text.is_empty() && !waiting.closed {
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.closed {
                let grown = self.filled.wait_timeout_while(waiting, BATCH, |w| !w.closed);
                waiting = grown.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut batch, &mut waiting.text);
            let closed = waiting.closed;
            let dropped = std::mem::take(&mut waiting.dropped);
            drop(waiting);
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "the reader of the access log is too slow, lines were dropped"
                );
            }
            // Nobody reads it any more: requests matter more than their lines.
            let _: io::Result<()> = out.write_all(batch.as_bytes()).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(64 * 1024);
            if closed {
                return;
            }
        }
    }

    /// Ends [`AccessLog::run`] once all lines are written.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.filled.notify_all();
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::new()
    }
}

fn timestamp(time: SystemTime) -> jiff::Timestamp {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.round(jiff::Unit::Millisecond).unwrap_or(time)
}

/// `key=value` pairs in a fixed order; what is not known is `-`.
fn plain(out: &mut String, line: &Line<'_>) {
    let Line { time, client, user, domain, method, call, repository, reference, .. } = *line;
    let Line { status, bytes_in, bytes_out, duration_ms, upstream_ms, protocol, end, .. } = *line;
    let _ = write!(out, "{:.3} client={client} user=", timestamp(time));
    word(out, user);
    for (key, value) in [
        (" domain=", domain),
        (" method=", Some(method)),
        (" call=", call),
        (" repository=", repository),
        (" reference=", reference),
    ] {
        out.push_str(key);
        word(out, value);
    }
    let _ = match status {
        Some(status) => write!(out, " status={status}"),
        None => write!(out, " status=-"),
    };
    let _ = write!(out, " bytes_in={bytes_in} bytes_out={bytes_out} duration_ms={duration_ms:.3}");
    let _ = match upstream_ms {
        Some(upstream) => write!(out, " upstream_ms={upstream:.3}"),
        None => write!(out, " upstream_ms=-"),
    };
    let _ = write!(out, " protocol={protocol} end={end}");
}

/// A value as it is if it is one plain word, else quoted with escapes: a user name may hold spaces
/// or quotes and must not be able to forge a field or a line.
fn word(out: &mut String, value: Option<&str>) {
    let plain = |text: &str| {
        !text.is_empty()
            && text != "-"
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=')
    };
    match value {
        None => out.push('-'),
        Some(text) if plain(text) => out.push_str(text),
        Some(text) => {
            let _ = write!(out, "{text:?}");
        }
    }
}

fn json(out: &mut String, line: &Line<'_>) {
    let Line { time, client, user, domain, method, call, repository, reference, .. } = *line;
    let Line { status, bytes_in, bytes_out, duration_ms, upstream_ms, protocol, end, .. } = *line;
    let _ = write!(out, "{{\"time\":\"{:.3}\",\"client\":\"{client}\"", timestamp(time));
    for (key, value) in [
        ("user", user),
        ("domain", domain),
        ("method", Some(method)),
        ("call", call),
        ("repository", repository),
        ("reference", reference),
    ] {
        let _ = write!(out, ",\"{key}\":");
        match value {
            None => out.push_str("null"),
            Some(text) => match serde_json::to_string(text) {
                Ok(quoted) => out.push_str(&quoted),
                Err(_) => out.push_str("null"),
            },
        }
    }
    let _ = match status {
        Some(status) => write!(out, ",\"status\":{status}"),
        None => write!(out, ",\"status\":null"),
    };
    let _ =
        write!(out, ",\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out},\"duration_ms\":{duration_ms:.3}");
    let _ = match upstream_ms {
        Some(upstream) => write!(out, ",\"upstream_ms\":{upstream:.3}"),
        None => write!(out, ",\"upstream_ms\":null"),
    };
    let _ = write!(out, ",\"protocol\":\"{protocol}\",\"end\":\"{end}\"}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>() -> Line<'a> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
            client: IpAddr::from([127, 0, 0, 1]),
            user: Some("ci bot\n"),
            domain: Some("ci.example.com"),
            method: "GET",
            call: Some("manifest.read"),
            repository: Some("base/app"),
            reference: Some("v1"),
            status: Some(200),
            bytes_in: 0,
            bytes_out: 512,
            duration_ms: 1.25,
            upstream_ms: None,
            protocol: "HTTP/2",
            end: "complete",
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
        let value: serde_json::Value = serde_json::from_str(&written(LogFormat::Json)).expect("JSON");
        assert_eq!(value["user"], "ci bot\n");
        assert_eq!(value["upstream_ms"], serde_json::Value::Null);
        assert_eq!(value["duration_ms"], 1.25);
    }

    #[test]
    fn a_slow_reader_costs_lines_and_not_memory() {
        let log = AccessLog::new();
        log.configure(true, LogFormat::Text);
        for _ in 0..50_000 {
            log.write(&line());
        }
        assert!(log.waiting().text.len() <= MOST);
        assert!(log.waiting().dropped > 0);
    }
}
