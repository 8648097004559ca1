//! When the next scheduled run begins. Pure: the time is an argument.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::records::RunRecords;
use crate::config::retention::{HoursOfDay, RetentionRuns};

/// When the next run of a domain begins. `None`: by command only. The past: now.
///
/// `records.first_seen` is given, and no time of them is after `now` (see [`settle`]).
pub(crate) fn next_run(
    runs: &RetentionRuns,
    records: &RunRecords,
    now: Timestamp,
) -> Option<Timestamp> {
    let every = runs.every?;
    let last = records.scheduled.or(records.first_seen).unwrap_or(now);
    let interval = if records.scheduled_failed {
        every.min(RETRY_INTERVAL)
    } else {
        every
    };
    let was_killed = records.unfinished.is_some() && !records.scheduled_failed;
    let due = if was_killed {
        now
    } else {
        last.checked_add(interval).unwrap_or(Timestamp::MAX)
    };
    let Some(hours) = runs.hours else {
        return Some(due);
    };
    Some(within(hours, due.max(now)))
}

/// Sets the time from which the first run is counted, and those that a wrong clock put into the
/// future. Returns whether something was set.
pub(crate) fn settle(records: &mut RunRecords, now: Timestamp) -> bool {
    let RunRecords {
        first_seen,
        scheduled,
        scheduled_failed: _,
        unfinished: _,
        last: _,
    } = records;
    let mut is_changed = false;
    for time in [first_seen, scheduled] {
        if time.is_some_and(|time| time > now) {
            *time = Some(now);
            is_changed = true;
        }
    }
    if records.first_seen.is_none() {
        records.first_seen = Some(now);
        is_changed = true;
    }
    is_changed
}

/// The first time from `due` on that is within the hours of a day.
fn within(hours: HoursOfDay, due: Timestamp) -> Timestamp {
    let HoursOfDay { from, to } = hours;
    let time = due.to_zoned(TimeZone::UTC).time();
    let minute =
        u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
    let is_within = if from < to {
        (from..to).contains(&minute)
    } else {
        minute >= from || minute < to
    };
    if is_within {
        return due;
    }
    let wait = (from + MINUTES_OF_DAY - minute) % MINUTES_OF_DAY;
    let begun = i64::from(time.second());
    let wait = SignedDuration::from_mins(wait.into()) - SignedDuration::from_secs(begun);
    due.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// After a failure: the domain may have one window of hours each day, and what failed may work soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(3600);
const MINUTES_OF_DAY: u16 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn runs(hours: Option<(u16, u16)>) -> RetentionRuns {
        RetentionRuns {
            every: Some(DAY),
            hours: hours.map(|(from, to)| HoursOfDay { from, to }),
            ..RetentionRuns::default()
        }
    }

    fn first_seen(now: Timestamp) -> RunRecords {
        let mut records = RunRecords::default();
        assert!(settle(&mut records, now));
        assert!(!settle(&mut records, now));
        records
    }

    #[test]
    fn the_first_run_is_one_interval_after_the_first_start() {
        let now = at("2026-03-01T10:00:00Z");
        let records = first_seen(now);
        assert_eq!(next_run(&runs(None), &records, now), Some(now + DAY));
        // A restart does not put it off.
        let later = now + DAY / 2;
        assert_eq!(next_run(&runs(None), &records, later), Some(now + DAY));
        let never = RetentionRuns {
            every: None,
            ..runs(None)
        };
        assert_eq!(next_run(&never, &records, now), None);
    }

    #[test]
    fn a_failed_run_is_tried_again_within_the_hour_and_a_killed_one_at_once() {
        let now = at("2026-03-01T10:00:00Z");
        let mut records = first_seen(now);
        records.scheduled = Some(now);
        records.scheduled_failed = true;
        let next = next_run(&runs(None), &records, now);
        assert_eq!(next, Some(now + RETRY_INTERVAL));
        records.unfinished = Some("x".to_owned());
        let next = next_run(&runs(None), &records, now);
        assert_eq!(next, Some(now + RETRY_INTERVAL));
        records.scheduled_failed = false;
        assert_eq!(next_run(&runs(None), &records, now), Some(now));
    }

    #[test]
    fn runs_begin_within_the_hours() {
        let case = |hours, now: &str| {
            let now = at(now);
            let mut records = first_seen(now - DAY);
            records.scheduled = Some(now - DAY);
            next_run(&runs(Some(hours)), &records, now)
                .expect("one")
                .to_string()
        };
        let night = (60, 300);
        assert_eq!(case(night, "2026-03-01T00:59:30Z"), "2026-03-01T01:00:00Z");
        assert_eq!(case(night, "2026-03-01T01:00:00Z"), "2026-03-01T01:00:00Z");
        assert_eq!(case(night, "2026-03-01T04:59:59Z"), "2026-03-01T04:59:59Z");
        assert_eq!(case(night, "2026-03-01T05:00:00Z"), "2026-03-02T01:00:00Z");
        let over_midnight = (1380, 60);
        assert_eq!(
            case(over_midnight, "2026-03-01T23:30:00Z"),
            "2026-03-01T23:30:00Z"
        );
        assert_eq!(
            case(over_midnight, "2026-03-01T00:30:00Z"),
            "2026-03-01T00:30:00Z"
        );
        assert_eq!(
            case(over_midnight, "2026-03-01T01:00:00Z"),
            "2026-03-01T23:00:00Z"
        );
    }

    #[test]
    fn times_in_the_future_are_a_wrong_clock() {
        let now = at("2026-03-01T10:00:00Z");
        let mut records = first_seen(now + DAY * 400);
        assert!(settle(&mut records, now));
        assert_eq!(next_run(&runs(None), &records, now), Some(now + DAY));
    }
}
