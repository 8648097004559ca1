//! For how long findings postpone an order. Pure: from facts and the time to a decision.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::certs::timestamps;

/// How certain a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Certainty {
    /// Something could not be checked. The CA, in another network, may be able to.
    Doubtful,
    /// The order would fail if the CA sees the same.
    Certain,
}

/// The record of a postponed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreflightBackoff {
    /// When the order was postponed first.
    #[serde(with = "timestamps")]
    pub(crate) since: SystemTime,
    /// How many times it was postponed.
    pub(crate) times: u32,
}

/// When to check again, if the order is postponed; `None`: it is placed in spite of the findings.
///
/// Checks follow after 1, 2, 4 minutes and so on, up to an hour. They cost a CA nothing, but they see
/// the names from here: with split-horizon DNS, or a router without hairpin NAT, that stays wrong.
/// So a doubt postpones an order for three minutes, long enough for a network that is just coming
/// up, and a certain finding for a day, but neither for more than an eighth of the remaining
/// lifetime of the served certificate. One attempt a day is far below every limit of a CA: failures are counted by the
/// hour, and Let's Encrypt takes back one of consecutive ones each day.
pub(crate) fn next_retry(
    before: Option<PreflightBackoff>,
    certainty: Certainty,
    held_until: Option<SystemTime>,
    now: SystemTime,
) -> Option<(PreflightBackoff, SystemTime)> {
    // A clock that was set back must not prolong the delay.
    let since = before.map_or(now, |before| before.since.min(now));
    let times = before.map_or(0, |before| before.times);
    let left = held_until.map(|end| end.duration_since(now).unwrap_or_default());
    let limit = match certainty {
        Certainty::Doubtful => MAX_DOUBTFUL_DELAY,
        Certainty::Certain => MAX_CERTAIN_DELAY,
    };
    let end = since + left.map_or(limit, |left| limit.min(left / 8));
    if end <= now {
        return None;
    }
    let wait = MIN_RETRY_INTERVAL * 2_u32.saturating_pow(times).min(60);
    let postponed = PreflightBackoff {
        since,
        times: times.saturating_add(1),
    };
    Some((postponed, (now + wait).min(end)))
}

const MIN_RETRY_INTERVAL: Duration = Duration::from_mins(1);
const MAX_DOUBTFUL_DELAY: Duration = Duration::from_mins(3);
const MAX_CERTAIN_DELAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    /// The minutes, from the first check, of all checks until an order is placed.
    fn checks(certainty: Certainty, lifetime_left: Option<Duration>) -> Vec<u64> {
        let mut before = None;
        let mut now = start();
        let mut checks = Vec::new();
        let held_until = lifetime_left.map(|left| start() + left);
        loop {
            checks.push(now.duration_since(start()).expect("later").as_secs() / 60);
            let Some((postponed, next)) = next_retry(before, certainty, held_until, now) else {
                return checks;
            };
            assert!(next > now && next <= now + Duration::from_hours(1));
            (before, now) = (Some(postponed), next);
        }
    }

    #[test]
    fn a_doubt_postpones_an_order_for_minutes_and_a_finding_for_a_day() {
        assert_eq!(checks(Certainty::Doubtful, None), [0, 1, 3]);
        let certain = checks(Certainty::Certain, None);
        assert_eq!(certain[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(certain.last(), Some(&(24 * 60)));
        assert_eq!(
            checks(Certainty::Certain, Some(Duration::from_hours(30 * 24))),
            certain
        );
    }

    #[test]
    fn findings_postpone_less_when_the_certificate_expires_soon() {
        let tried = |left| {
            checks(Certainty::Certain, Some(left))
                .last()
                .copied()
                .expect("a check")
        };
        assert!(tried(Duration::from_hours(16)) <= 120);
        assert_eq!(
            tried(Duration::ZERO),
            0,
            "with nothing to serve, it cannot be worse"
        );
        let doubtful = checks(Certainty::Doubtful, Some(Duration::from_mins(8)));
        assert_eq!(doubtful.last(), Some(&1));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_prolong_the_delay() {
        let before = PreflightBackoff {
            since: start() + Duration::from_hours(9),
            times: 3,
        };
        let (postponed, _) =
            next_retry(Some(before), Certainty::Certain, None, start()).expect("postponed");
        assert_eq!(postponed.since, start());
    }
}
