//! The access log: one line per request, without secrets and query strings.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use super::log_queue::{LogKind, LogQueue};
use super::log_text::{push_digits, push_json_string, push_time};
use crate::config::snapshot::LogFormat;

/// One request. Sizes are those of bodies, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLogEntry<'a> {
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
    /// Why the request was refused, if credentials or rights were missing.
    pub reason: Option<&'static str>,
    /// The user name of a login that failed, as the client wrote it.
    pub tried: Option<&'a str>,
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
            reason,
            tried,
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
            ("rule", LogField::Text(rule)),
            ("reason", LogField::Text(reason)),
            ("tried", LogField::Text(tried.map(shortened))),
        ]
    }
}

const FIELDS: usize = 17;
/// The last fields, which the text format has only where they are known.
const REFUSAL_FIELDS: usize = 3;
/// The bytes of a name that are logged.
const MAX_NAME: usize = 64;

/// The beginning of a name.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME)]
}

/// Formats lines and adds them to a queue.
#[derive(Debug)]
pub(crate) struct AccessLog {
    on: AtomicBool,
    json: AtomicU8,
    lines: Arc<LogQueue>,
}

thread_local! {
    /// Formats a line outside the lock.
    static LINE_BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

impl AccessLog {
    /// A log that is off until [`AccessLog::configure`] turns it on.
    pub(crate) fn new(lines: Arc<LogQueue>) -> Self {
        Self {
            on: AtomicBool::new(false),
            json: AtomicU8::new(0),
            lines,
        }
    }

    /// Sets whether and how lines are written from now on.
    pub(crate) fn configure(&self, on: bool, format: LogFormat) {
        self.json
            .store(u8::from(format == LogFormat::Json), Ordering::Relaxed);
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether lines are written.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Adds a line.
    pub(crate) fn write(&self, entry: &AccessLogEntry<'_>) {
        // A thread that is ending has lost its buffer.
        let mut text = LINE_BUFFER.try_with(Cell::take).unwrap_or_default();
        text.clear();
        if self.json.load(Ordering::Relaxed) == 1 {
            write_json(&mut text, entry);
        } else {
            write_text(&mut text, entry);
        }
        text.push('\n');
        self.lines.add(LogKind::Access, &text);
        let _ = LINE_BUFFER.try_with(|buffer| buffer.set(text));
    }

    /// Where its lines wait to be written.
    pub(crate) fn queue(&self) -> &Arc<LogQueue> {
        &self.lines
    }
}

/// Milliseconds with three decimals.
fn push_ms(out: &mut String, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_digits(out, micros / 1000, 1);
    out.push('.');
    push_digits(out, micros % 1000, 3);
}

/// `key=value` pairs in a fixed order; unknown values are `-`. The fields of refusals are left out
/// if they are unknown.
fn write_text(out: &mut String, entry: &AccessLogEntry<'_>) {
    push_time(out, entry.time);
    for (index, (key, field)) in entry.fields().into_iter().enumerate() {
        if index >= FIELDS - REFUSAL_FIELDS && matches!(field, LogField::Text(None)) {
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

#[cfg(test)]
mod tests {
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
            reason: None,
            tried: None,
        }
    }

    fn written(format: LogFormat) -> String {
        let log = AccessLog::new(Arc::default());
        log.configure(true, format);
        log.write(&line());
        log.queue().close();
        let mut out = Vec::new();
        log.queue().run(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_text_line_is_one_line() {
        insta::assert_snapshot!(written(LogFormat::Text), @r#"2026-09-21T14:13:20.123Z client=127.0.0.1 user="ci bot\n" domain=ci.example.com method=GET call=manifest.read repository=base/app reference=v1 status=200 bytes_in=0 bytes_out=512 duration_ms=1.250 upstream_ms=- protocol=HTTP/2 end=complete"#);
    }

    #[test]
    fn a_name_that_was_tried_forges_nothing_and_is_short() {
        let log = AccessLog::new(Arc::default());
        log.configure(true, LogFormat::Text);
        let long = "ü".repeat(40);
        for tried in [
            "x\" client=192.0.2.1\r\n2026 \u{1b}[31m",
            "ci reason=none",
            &long,
        ] {
            log.write(&AccessLogEntry {
                reason: Some("unknown-user"),
                tried: Some(tried),
                ..line()
            });
        }
        log.queue().close();
        let mut out = Vec::new();
        log.queue().run(&mut out);
        let text = String::from_utf8(out).expect("text");
        let ends: Vec<_> = text
            .lines()
            .map(|line| line.split_once("end=complete ").expect("the end").1)
            .collect();
        insta::assert_snapshot!(ends.join("\n"), @r#"
        reason=unknown-user tried="x\" client=192.0.2.1\r\n2026 \u{1b}[31m"
        reason=unknown-user tried="ci reason=none"
        reason=unknown-user tried="üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü"
        "#);
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = written(LogFormat::Json);
        insta::assert_snapshot!(line, @r#"{"time":"2026-09-21T14:13:20.123Z","client":"127.0.0.1","user":"ci bot\n","domain":"ci.example.com","method":"GET","call":"manifest.read","repository":"base/app","reference":"v1","protocol":"HTTP/2","end":"complete","rule":null,"reason":null,"tried":null,"status":200,"bytes_in":0,"bytes_out":512,"duration_ms":1.250,"upstream_ms":null}"#);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["user"], "ci bot\n");
        assert_eq!(value["upstream_ms"], serde_json::Value::Null);
        assert_eq!(value["duration_ms"], 1.25);
    }
}
