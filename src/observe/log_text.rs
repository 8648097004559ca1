//! The parts of log lines that requests and events have in common: times, numbers, texts in JSON.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

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
pub(super) fn push_time(out: &mut String, time: SystemTime) {
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

/// A number with leading zeros up to `width` digits. `write!` costs several times as much, for each
/// field of each line.
pub(super) fn push_digits(out: &mut String, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(digits);
}

/// A text as JSON has it, with its quotes.
pub(super) fn push_json_string(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("null"),
    }
}
