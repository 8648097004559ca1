//! The clock of this machine, compared with that of a CA.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The time by two clocks at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    pub(super) ours: SystemTime,
    /// By the Date of a response of the CA, if it had one (RFC 9110 §6.6.1).
    pub(super) of_the_ca: Option<SystemTime>,
}

/// How far the clock of this machine is from that of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockDifference {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockReading {
    /// The difference, if it is more than a slow line explains.
    pub(super) fn difference(&self) -> Option<ClockDifference> {
        let theirs = self.of_the_ca?;
        let difference = match self.ours.duration_since(theirs) {
            Ok(by) => ClockDifference::Ahead(by),
            Err(error) => ClockDifference::Behind(error.duration()),
        };
        let (ClockDifference::Ahead(by) | ClockDifference::Behind(by)) = difference;
        (by > MAX_CLOCK_DIFFERENCE).then_some(difference)
    }
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, direction) = match self {
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        let minutes = by.as_secs() / 60;
        let (count, unit) = match minutes {
            0..180 => (minutes, "minutes"),
            180..4320 => (minutes / 60, "hours"),
            _ => (minutes / 60 / 24, "days"),
        };
        write!(
            f,
            "the clock of this machine is {count} {unit} {direction} the CA's: set it"
        )
    }
}

/// Responses may take a minute, and a Date has whole seconds.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_said_in_the_largest_unit_that_fits() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 60);
        let said = |ours: SystemTime| {
            let reading = ClockReading {
                ours,
                of_the_ca: Some(now),
            };
            reading
                .difference()
                .map(|difference| difference.to_string())
        };
        assert_eq!(said(now), None);
        assert_eq!(said(now + Duration::from_mins(5)), None);
        assert_eq!(said(now - Duration::from_mins(5)), None);
        let texts = [
            now + Duration::from_mins(6),
            now - Duration::from_hours(5),
            now + Duration::from_hours(100 * 24),
        ]
        .map(|ours| said(ours).expect("a difference"))
        .join("\n");
        insta::assert_snapshot!(texts, @r"
        the clock of this machine is 6 minutes ahead of the CA's: set it
        the clock of this machine is 5 hours behind the CA's: set it
        the clock of this machine is 100 days ahead of the CA's: set it
        ");
        let unknown = ClockReading {
            ours: now,
            of_the_ca: None,
        };
        assert_eq!(unknown.difference(), None);
    }
}
