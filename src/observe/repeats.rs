//! Keeps a lasting trouble from filling the event log: one line at its beginning, one a minute with
//! a count, one at its end. This holds for every warning and error, whatever repeats it: requests,
//! accepted connections, timers, files that are read again, strangers.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::state_file::TEMPORARY_PREFIX;

/// The target of events whose origin logs a lasting trouble at this pace itself.
pub(crate) const PACED: &str = concat!(env!("CARGO_CRATE_NAME"), "::paced");

/// The warnings and errors of the last minute, and those that go on.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<HashMap<TroubleKey, Trouble>>);

/// Tells one trouble from another: where it is logged, and its texts without what differs from one
/// time to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TroubleKey {
    callsite: Identifier,
    texts: String,
}

#[derive(Clone, Debug)]
struct Trouble {
    level: Level,
    message: String,
    /// The other fields of the last event.
    last: String,
    since: Instant,
    logged: Instant,
    /// Events since the last line.
    left_out: u64,
    /// Events since the first line.
    repeated: u64,
}

/// A line about a trouble.
#[derive(Debug)]
enum RepeatLine {
    GoesOn(Trouble),
    Ended(Trouble),
}

impl Repeats {
    /// Counts an event. Returns whether it is logged: the first one is.
    fn count(&self, key: TroubleKey, event: EventTexts, level: Level, now: Instant) -> bool {
        let mut troubles = self.troubles();
        let key = if troubles.len() >= MAX_TROUBLES && !troubles.contains_key(&key) {
            // Further ones of a place share a line.
            TroubleKey {
                texts: String::new(),
                ..key
            }
        } else {
            key
        };
        let EventTexts { message, rest, .. } = event;
        if let Some(trouble) = troubles.get_mut(&key) {
            trouble.left_out += 1;
            trouble.repeated += 1;
            trouble.last = rest;
            return false;
        }
        let trouble = Trouble {
            level,
            message,
            last: rest,
            since: now,
            logged: now,
            left_out: 0,
            repeated: 0,
        };
        troubles.insert(key, trouble);
        true
    }

    /// Logs what is due.
    pub(crate) fn report(&self) {
        self.lines(Instant::now()).into_iter().for_each(log);
    }

    /// Logs what has not been said, at the end of the process.
    pub(crate) fn finish(&self) {
        for (_, trouble) in std::mem::take(&mut *self.troubles()) {
            if trouble.left_out > 0 {
                log(RepeatLine::GoesOn(trouble));
            }
        }
    }

    /// The lines that are due.
    fn lines(&self, now: Instant) -> Vec<RepeatLine> {
        let mut lines = Vec::new();
        self.troubles().retain(|_, trouble| {
            if now.duration_since(trouble.logged) < LINE_INTERVAL {
                return true;
            }
            if trouble.left_out > 0 {
                lines.push(RepeatLine::GoesOn(trouble.clone()));
                trouble.left_out = 0;
                trouble.logged = now;
                return true;
            }
            if trouble.repeated > 0 {
                lines.push(RepeatLine::Ended(trouble.clone()));
            }
            false
        });
        lines
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<TroubleKey, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs with the level of the trouble, so that whoever has seen it begin sees it end.
fn log(line: RepeatLine) {
    match line {
        RepeatLine::GoesOn(trouble) => {
            let (message, last, repeated) = (trouble.message, trouble.last, trouble.left_out);
            if trouble.level == Level::ERROR {
                tracing::error!(repeated, last, "{message}");
            } else {
                tracing::warn!(repeated, last, "{message}");
            }
        }
        RepeatLine::Ended(trouble) => {
            let (message, last, repeated) = (trouble.message, trouble.last, trouble.repeated);
            let lasted_s = trouble.logged.duration_since(trouble.since).as_secs();
            if trouble.level == Level::ERROR {
                tracing::error!(
                    repeated,
                    lasted_s,
                    last,
                    "{message}: not in the last minute"
                );
            } else {
                tracing::warn!(
                    repeated,
                    lasted_s,
                    last,
                    "{message}: not in the last minute"
                );
            }
        }
    }
}

/// Withholds repeated events from the layers above it.
#[derive(Clone, Debug)]
pub(super) struct RepeatFilter(pub(super) Arc<Repeats>);

impl<S: Subscriber> Layer<S> for RepeatFilter {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let about = event.metadata();
        let level = *about.level();
        let is_paced = about.target() == PACED || about.module_path() == Some(module_path!());
        if level > Level::WARN || is_paced {
            return true;
        }
        let mut texts = EventTexts::default();
        event.record(&mut texts);
        let key = TroubleKey {
            callsite: about.callsite(),
            texts: std::mem::take(&mut texts.key),
        };
        self.0.count(key, texts, level, Instant::now())
    }
}

/// The fields of an event.
#[derive(Debug, Default)]
struct EventTexts {
    message: String,
    /// All others, as `name=value`.
    rest: String,
    /// What tells it from other events of its place. Numbers do not: counts, statuses, times.
    key: String,
}

impl EventTexts {
    fn add(&mut self, name: &str, value: &str) {
        if name == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push_rest(name, value);
        }
        if name == "error" {
            push_constant_part(&mut self.key, value);
        } else {
            self.key.push_str(value);
        }
        self.key.push('\n');
    }

    fn push_rest(&mut self, name: &str, value: &str) {
        let space = if self.rest.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(self.rest, "{space}{name}={value}");
    }
}

impl Visit for EventTexts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.add(field.name(), &text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_rest(field.name(), &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_rest(field.name(), &value.to_string());
    }
}

/// Appends an error's text without the names of temporary files, and without words that contain a
/// digit, which may be ports, times or upload sessions.
fn push_constant_part(out: &mut String, text: &str) {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let words = text.split_inclusive(|c| !is_word(c));
    let constant = words.map(|word| {
        if word.starts_with(TEMPORARY_PREFIX) || word.contains(|c: char| c.is_ascii_digit()) {
            "#"
        } else {
            word
        }
    });
    out.extend(constant);
}

const LINE_INTERVAL: Duration = Duration::from_mins(1);
/// A few hundred KiB. Only clients can cause more, with names and addresses of theirs.
const MAX_TROUBLES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The events of `run` without times, where repeated ones are left out.
    fn logged(run: impl FnOnce(&Repeats)) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let repeats = Arc::<Repeats>::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(Arc::new(file.reopen().expect("the file")))
            .without_time()
            .with_ansi(false)
            .with_target(false);
        let subscriber = tracing_subscriber::registry()
            .with(RepeatFilter(repeats.clone()))
            .with(layer);
        tracing::subscriber::with_default(subscriber, || run(&repeats));
        std::fs::read_to_string(file.path()).expect("text")
    }

    fn later(repeats: &Repeats, minutes: u64) {
        let now = Instant::now() + Duration::from_mins(minutes);
        repeats.lines(now).into_iter().for_each(log);
    }

    #[test]
    fn a_lasting_trouble_is_logged_when_it_begins_once_a_minute_and_when_it_ends() {
        let trouble = |domain: &str, times: u16| {
            for number in 0..times {
                let error = io::Error::other(format!("cannot write /state/.tmp-{number}x/a"));
                tracing::error!(domain, status = 500 + number, %error, "store request failed");
            }
        };
        let text = logged(|repeats| {
            trouble("a.test", 3);
            trouble("b.test", 1);
            later(repeats, 1);
            trouble("a.test", 2);
            later(repeats, 2);
            later(repeats, 3);
            // A new one.
            trouble("a.test", 1);
        });
        insta::assert_snapshot!(text, @r#"
        ERROR store request failed domain="a.test" status=500 error=cannot write /state/.tmp-0x/a
        ERROR store request failed domain="b.test" status=500 error=cannot write /state/.tmp-0x/a
        ERROR store request failed repeated=2 last="domain=a.test status=502 error=cannot write /state/.tmp-2x/a"
        ERROR store request failed repeated=2 last="domain=a.test status=501 error=cannot write /state/.tmp-1x/a"
        ERROR store request failed: not in the last minute repeated=4 lasted_s=120 last="domain=a.test status=501 error=cannot write /state/.tmp-1x/a"
        ERROR store request failed domain="a.test" status=500 error=cannot write /state/.tmp-0x/a
        "#);
    }

    #[test]
    fn what_differs_is_logged_and_so_is_what_is_no_trouble() {
        let text = logged(|_| {
            for error in [
                "connection refused",
                "no route to host",
                "connection refused",
            ] {
                tracing::warn!(error, "upstream request failed");
                tracing::info!("configuration reloaded");
            }
            for line in [1, 2, 1] {
                tracing::warn!("line {line} is wrong");
            }
            for name in ["abc", "xyz"] {
                tracing::warn!(
                    error = format!("{TEMPORARY_PREFIX}{name}: full"),
                    "not kept"
                );
            }
        });
        insta::assert_snapshot!(text, @r#"
         WARN upstream request failed error="connection refused"
         INFO configuration reloaded
         WARN upstream request failed error="no route to host"
         INFO configuration reloaded
         INFO configuration reloaded
         WARN line 1 is wrong
         WARN line 2 is wrong
         WARN not kept error=".moorgate-abc: full"
        "#);
    }

    #[test]
    fn strangers_with_many_names_occupy_bounded_memory_and_lines() {
        let text = logged(|repeats| {
            for number in 0..10 * MAX_TROUBLES {
                let client = format!("client {number}");
                tracing::warn!(client, "login refused");
            }
            assert!(repeats.troubles().len() <= MAX_TROUBLES + 1);
        });
        assert_eq!(text.lines().count(), MAX_TROUBLES + 1);
    }
}
