//! The lines of events: times as those of requests have them, and as JSON the same names.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log_text::{push_json_string, push_time};

/// The time of an event, to the millisecond.
pub(super) struct EventTime;

impl FormatTime for EventTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut text = String::new();
        push_time(&mut text, SystemTime::now());
        writer.write_str(&text)
    }
}

/// An event as a JSON object: `time`, `level`, `message`, and its fields.
pub(super) struct JsonEvents;

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::from("{\"time\":\"");
        push_time(&mut line, SystemTime::now());
        write!(line, "\",\"level\":\"{}\"", event.metadata().level())?;
        event.record(&mut JsonFields { line: &mut line });
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Appends fields to an object.
struct JsonFields<'a> {
    line: &'a mut String,
}

impl JsonFields<'_> {
    fn push_name(&mut self, field: &Field) {
        self.line.push(',');
        push_json_string(self.line, field.name());
        self.line.push(':');
    }

    /// A value that JSON writes as it is displayed.
    fn push_plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.push_name(field);
        // Writing to a string cannot fail.
        let _ = write!(self.line, "{value}");
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_name(field);
        push_json_string(self.line, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is no number in JSON becomes null.
        self.push_plain(field, serde_json::Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct EventLines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for EventLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_object_with_the_names_of_requests() {
        let lines = EventLines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(JsonEvents)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("a \"quote\"\n");
            tracing::warn!(%error, count = 3_u64, ratio = 0.5, ok = true, at = ?Some(1), left = -1_i64, "it {}", "failed");
            tracing::info!(ratio = f64::NAN, "next");
        });
        let text = String::from_utf8(lines.0.lock().expect("one thread").clone()).expect("UTF-8");
        let objects = text.lines().map(|line| {
            let mut object: serde_json::Value = serde_json::from_str(line).expect(line);
            let time = object["time"].as_str().expect("a time").to_owned();
            assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
            object["time"] = "TIME".into();
            object.to_string()
        });
        insta::assert_snapshot!(objects.collect::<Vec<_>>().join("\n"), @r#"
        {"at":"Some(1)","count":3,"error":"a \"quote\"\n","left":-1,"level":"WARN","message":"it failed","ok":true,"ratio":0.5,"time":"TIME"}
        {"level":"INFO","message":"next","ratio":null,"time":"TIME"}
        "#);
    }
}
