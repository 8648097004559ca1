//! For how long an order is postponed for what was found out about its names. Facts and time in, a
//! decision out.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::certs::timestamps;

/// How much a finding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Certainty {
    /// Something could not be seen. That is no sign of trouble: the CA looks from another place.
    Doubtful,
    /// The order would fail, if the CA sees what we see.
    Certain,
}

/// An order that was postponed, and may be again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreflightBackoff {
    /// Since when nothing has been asked of the CA.
    #[serde(with = "timestamps")]
    pub(crate) since: SystemTime,
    /// How often.
    pub(crate) times: u32,
}

/// When to look again, if the order is not to be placed now; `None`: it is tried all the same.
///
/// Checks follow after 1, 2, 4 minutes and so on, up to an hour. They cost a CA nothing, but what
/// they see is seen from here: with DNS of two faces, or a router that does not lead back in, it is
/// wrong for ever. So a doubt holds an order up for three minutes, long enough for a network that
/// is just coming up, and a certain finding for a day, or for an eighth of what is left of the
/// certificate that is being served. One attempt a day is far below what uses up any limit of a CA:
/// failures are counted by the hour, and Let's Encrypt forgives one of those in a row each day.
pub(crate) fn next_retry(
    before: Option<PreflightBackoff>,
    certainty: Certainty,
    held_until: Option<SystemTime>,
    now: SystemTime,
) -> Option<(PreflightBackoff, SystemTime)> {
    // A clock that was set back must not make it longer.
    let since = before.map_or(now, |before| before.since.min(now));
    let times = before.map_or(0, |before| before.times);
    let left = held_until.map(|end| end.duration_since(now).unwrap_or_default());
    let limit = match certainty {
        Certainty::Doubtful => MAX_DOUBTFUL_DELAY,
        Certainty::Certain => {
            left.map_or(MAX_CERTAIN_DELAY, |left| MAX_CERTAIN_DELAY.min(left / 8))
        }
    };
    let end = since + limit;
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

const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(60);
const MAX_DOUBTFUL_DELAY: Duration = Duration::from_secs(3 * 60);
const MAX_CERTAIN_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    /// The minutes, from the first look, of all looks until an order is tried.
    fn looks(certainty: Certainty, held_for: Option<Duration>) -> Vec<u64> {
        let (mut before, mut now, mut looks) = (None, start(), Vec::new());
        let held_until = held_for.map(|held| start() + held);
        loop {
            looks.push(now.duration_since(start()).expect("later").as_secs() / 60);
            let Some((postponed, next)) = next_retry(before, certainty, held_until, now) else {
                return looks;
            };
            assert!(next > now && next <= now + HOUR);
            (before, now) = (Some(postponed), next);
        }
    }

    #[test]
    fn a_doubt_holds_an_order_up_for_minutes_and_a_finding_for_a_day() {
        assert_eq!(looks(Certainty::Doubtful, None), [0, 1, 3]);
        let certain = looks(Certainty::Certain, None);
        assert_eq!(certain[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(certain.last(), Some(&(24 * 60)));
        assert_eq!(looks(Certainty::Certain, Some(30 * 24 * HOUR)), certain);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_not_let_go_for_a_finding() {
        let tried = |held| {
            looks(Certainty::Certain, Some(held))
                .last()
                .copied()
                .expect("a look")
        };
        assert!(tried(16 * HOUR) <= 120);
        assert_eq!(
            tried(Duration::ZERO),
            0,
            "with nothing to serve, it cannot be worse"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_makes_it_no_longer() {
        let before = PreflightBackoff {
            since: start() + 9 * HOUR,
            times: 3,
        };
        let (postponed, _) =
            next_retry(Some(before), Certainty::Certain, None, start()).expect("postponed");
        assert_eq!(postponed.since, start());
    }
}
