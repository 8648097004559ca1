//! Reasons and decisions in sentences, for plans and `moorgate retention explain`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::reason::{Reason, TagOutcome, UseKind};
use crate::config::retention::{Keep, RetentionRule, RetentionSettings};

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule matches it"),
            Self::Protected { pattern } => write!(f, "`protect` names it with {pattern:?}"),
            Self::InUse { source } => write!(f, "{source} says that it is in use"),
            Self::Young { pushed, min_age } => write!(
                f,
                "pushed on {}, and younger than min_age ({}) until {}",
                Utc(*pushed),
                TimeSpan(*min_age),
                Utc(after(*pushed, *min_age))
            ),
            Self::Newest { rank: 1, of: 1 } => f.write_str("the newest of its group"),
            Self::Newest { rank, of } => {
                write!(
                    f,
                    "number {rank} of its group, of which the {of} newest stay"
                )
            }
            Self::PulledWithin { pulled, within } => use_within(f, "pulled", *pulled, *within),
            Self::PushedWithin { pushed, within } => use_within(f, "pushed", *pushed, *within),
            Self::NotYetKnown {
                of,
                recorded_since,
                within,
            } => not_yet_known(f, *of, *recorded_since, *within),
            Self::NotExpired { until: Some(until) } => {
                write!(
                    f,
                    "its rule lets it stay until it expires on {}",
                    Utc(*until)
                )
            }
            Self::NotExpired { until: None } => {
                f.write_str("its rule lets it stay until it expires, and nothing says when")
            }
            Self::OfKeptImage { digest } => write!(f, "it belongs to {digest}, which stays"),
            Self::WithSubject { digest } => write!(f, "it belongs to {digest}, which goes"),
            Self::NoReasonToStay => f.write_str("nothing in its rule keeps it"),
            Self::Expired { at, label: false } => {
                write!(f, "expired on {} by the `ttl` of its rule", Utc(*at))
            }
            Self::Expired { at, label: true } => {
                write!(f, "expired on {} by the label of its image", Utc(*at))
            }
            Self::BeyondLimit => {
                f.write_str("it would go, but the run takes away max_tags that are older")
            }
        }
    }
}

fn use_within(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    time: Timestamp,
    within: Duration,
) -> fmt::Result {
    let (span, end) = (TimeSpan(within), Utc(after(time, within)));
    write!(
        f,
        "{what} on {}, which keeps it for {span}, until {end}",
        Utc(time)
    )
}

fn not_yet_known(
    f: &mut fmt::Formatter<'_>,
    of: UseKind,
    recorded_since: Option<Timestamp>,
    within: Duration,
) -> fmt::Result {
    let span = TimeSpan(within);
    match (of, recorded_since) {
        (UseKind::Pull, Some(since)) => write!(
            f,
            "pulls have been recorded since {}: whether there was none for {span} is known on {}",
            Utc(since),
            Utc(after(since, within))
        ),
        (UseKind::Push, Some(since)) => write!(
            f,
            "its push was not recorded and counts as one on {}, when recording began: that is {span} \
             ago on {}",
            Utc(since),
            Utc(after(since, within))
        ),
        (UseKind::Pull, None) => write!(
            f,
            "pulls are not recorded: whether there was none for {span} is not known"
        ),
        (UseKind::Push, None) => write!(
            f,
            "pushes are not recorded: whether there was none for {span} is not known"
        ),
    }
}

/// What becomes of a tag if nothing happens, and what would keep it: one sentence each.
pub(crate) fn prospects(decision: &TagOutcome, settings: &RetentionSettings) -> Vec<String> {
    let mut sentences = vec![fate(decision)];
    let rule = decision.rule.and_then(|rule| settings.rules.get(rule));
    let depends_on_itself = !decision.reasons.iter().any(|reason| match reason {
        Reason::NoRule
        | Reason::Protected { .. }
        | Reason::InUse { .. }
        | Reason::OfKeptImage { .. }
        | Reason::WithSubject { .. } => true,
        Reason::Young { .. }
        | Reason::Newest { .. }
        | Reason::PulledWithin { .. }
        | Reason::PushedWithin { .. }
        | Reason::NotYetKnown { .. }
        | Reason::NotExpired { .. }
        | Reason::NoReasonToStay
        | Reason::Expired { .. }
        | Reason::BeyondLimit => false,
    });
    if let Some(rule) = rule.filter(|_| depends_on_itself) {
        add_uses(&mut sentences, decision, rule, settings.runs.min_age);
    }
    sentences
}

fn fate(decision: &TagOutcome) -> String {
    match (decision.stays, decision.until) {
        (false, _) => "it goes with the next run".to_owned(),
        (true, Some(until)) => {
            format!("without a push or a pull it goes after {}", Utc(until))
        }
        (true, None) if decision.reasons == [Reason::BeyondLimit] => {
            "it goes with a later run".to_owned()
        }
        (true, None) => "it stays as long as that is so".to_owned(),
    }
}

fn add_uses(
    sentences: &mut Vec<String>,
    decision: &TagOutcome,
    rule: &RetentionRule,
    min_age: Duration,
) {
    let Keep {
        newest,
        pulled_within,
        pushed_within,
    } = rule.keep.unwrap_or_default();
    let before = match decision.until {
        Some(until) => format!("before {}", Utc(until)),
        None if decision.stays => "at any time".to_owned(),
        None => "before that".to_owned(),
    };
    let is_expired =
        (decision.reasons.iter()).any(|reason| matches!(reason, Reason::Expired { .. }));
    if let Some(within) = pulled_within.filter(|_| !is_expired) {
        let end = match decision.expires {
            Some(expires) => format!(", but not beyond {}, when it expires", Utc(expires)),
            None => String::new(),
        };
        sentences.push(format!(
            "a pull {before} keeps it for {}{end}",
            TimeSpan(within)
        ));
    }
    let kept = pushed_within.unwrap_or_default().max(min_age);
    if !kept.is_zero() {
        sentences.push(format!("a push {before} keeps it for {}", TimeSpan(kept)));
    }
    if newest.is_some() {
        sentences.push(format!("a push {before} makes it the newest of its group"));
    }
}

/// A time as people read it, exact to the second.
pub(crate) struct Utc(pub(crate) Timestamp);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole_minute = self.0.as_second().rem_euclid(60) == 0;
        let format = if is_whole_minute {
            "%Y-%m-%d %H:%M UTC"
        } else {
            "%Y-%m-%d %H:%M:%S UTC"
        };
        write!(f, "{}", self.0.strftime(format))
    }
}

/// A span of time in its largest unit of which it is a whole number.
pub(crate) struct TimeSpan(pub(crate) Duration);

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = [(86_400, "day"), (3_600, "hour"), (60, "minute")]
            .into_iter()
            .find(|(unit, _)| seconds.is_multiple_of(*unit) && seconds > 0)
            .map_or((seconds, "second"), |(size, unit)| (seconds / size, unit));
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

/// The end of a span of time, or the last time that there is.
fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
