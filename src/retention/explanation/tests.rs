//! The sentences that users read.

use super::*;
use crate::config::access::RuleLocation;
use crate::config::retention::{Grouping, RetentionRuns};
use crate::registry::digest::Digest;

const DAY: Duration = Duration::from_secs(86_400);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn pushed() -> Timestamp {
    time("2026-11-03T14:00:00Z")
}

fn pulled() -> Reason {
    Reason::PulledWithin {
        pulled: pushed(),
        within: 30 * DAY,
    }
}

fn unknown(of: UseKind, recorded_since: Option<Timestamp>) -> Reason {
    Reason::NotYetKnown {
        of,
        recorded_since,
        within: 30 * DAY,
    }
}

#[test]
fn each_reason_is_a_sentence() {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let at = pushed();
    let not_recorded = "are not recorded: whether there was none for 30 days is not known";
    for (reason, expected) in [
        (Reason::NoRule, "no rule matches it"),
        (
            Reason::Protected {
                pattern: "v*".into(),
            },
            "`protect` names it with \"v*\"",
        ),
        (
            Reason::InUse {
                source: "/etc/in-use".into(),
            },
            "/etc/in-use says that it is in use",
        ),
        (
            Reason::Young {
                pushed: at,
                min_age: DAY,
            },
            "pushed on 2026-11-03 14:00 UTC, and younger than min_age (1 day) until 2026-11-04 14:00 UTC",
        ),
        (Reason::Newest { rank: 1, of: 1 }, "the newest of its group"),
        (
            Reason::Newest { rank: 2, of: 5 },
            "number 2 of its group, of which the 5 newest stay",
        ),
        (
            pulled(),
            "pulled on 2026-11-03 14:00 UTC, which keeps it for 30 days, until 2026-12-03 14:00 UTC",
        ),
        (
            Reason::PushedWithin {
                pushed: time("2026-11-03T14:00:07.9Z"),
                within: 7 * DAY,
            },
            "pushed on 2026-11-03 14:00:07 UTC, which keeps it for 7 days, until 2026-11-10 14:00:07 UTC",
        ),
        (
            unknown(UseKind::Pull, Some(at)),
            "pulls have been recorded since 2026-11-03 14:00 UTC: whether there was none for 30 days is known on 2026-12-03 14:00 UTC",
        ),
        (
            unknown(UseKind::Push, Some(at)),
            "its push was not recorded and counts as one on 2026-11-03 14:00 UTC, when recording began: that is 30 days ago on 2026-12-03 14:00 UTC",
        ),
        (
            unknown(UseKind::Pull, None),
            &format!("pulls {not_recorded}"),
        ),
        (
            unknown(UseKind::Push, None),
            &format!("pushes {not_recorded}"),
        ),
        (
            Reason::NotExpired { until: Some(at) },
            "its rule lets it stay until it expires on 2026-11-03 14:00 UTC",
        ),
        (
            Reason::NotExpired { until: None },
            "its rule lets it stay until it expires, and nothing says when",
        ),
        (
            Reason::OfKeptImage {
                digest: digest.clone(),
            },
            &format!("it belongs to {digest}, which stays"),
        ),
        (
            Reason::WithSubject {
                digest: digest.clone(),
            },
            &format!("it belongs to {digest}, which goes"),
        ),
        (Reason::NoReasonToStay, "nothing in its rule keeps it"),
        (
            Reason::Expired { at, label: false },
            "expired on 2026-11-03 14:00 UTC by the `ttl` of its rule",
        ),
        (
            Reason::Expired { at, label: true },
            "expired on 2026-11-03 14:00 UTC by the label of its image",
        ),
        (
            Reason::BeyondLimit,
            "it would go, but the run takes away max_tags that are older",
        ),
    ] {
        assert_eq!(reason.to_string(), expected);
    }
}

#[test]
fn times_that_overflow_are_shown() {
    let reason = Reason::PushedWithin {
        pushed: Timestamp::MAX,
        within: Duration::MAX,
    };
    assert!(reason.to_string().contains("until 9999-12-30 "));
}

#[test]
fn spans_are_in_their_largest_unit() {
    for (seconds, expected) in [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (60, "1 minute"),
        (5_400, "90 minutes"),
        (86_400, "1 day"),
        (36 * 3_600, "36 hours"),
        (30 * 86_400, "30 days"),
    ] {
        assert_eq!(TimeSpan(Duration::from_secs(seconds)).to_string(), expected);
    }
}

fn settings(keep: Option<Keep>) -> RetentionSettings {
    RetentionSettings {
        rules: vec![RetentionRule {
            repositories: Vec::new(),
            tags: Vec::new(),
            protect: Vec::new(),
            keep,
            ttl: None,
            per: Grouping::Repository,
            expiry_label: None,
            location: RuleLocation {
                file: "conf.d/app.toml".into(),
                line: 1,
            },
        }],
        runs: RetentionRuns::default(),
    }
}

fn decision(stays: bool, reason: Reason, until: Option<&str>) -> TagOutcome {
    TagOutcome {
        stays,
        reasons: vec![reason],
        rule: Some(0),
        until: until.map(time),
        expires: None,
    }
}

#[test]
fn prospects_say_until_when_a_tag_stays_and_what_would_keep_it() {
    let settings = settings(Some(Keep {
        newest: Some(5),
        pulled_within: Some(30 * DAY),
        pushed_within: Some(7 * DAY),
    }));
    let stays = decision(true, pulled(), Some("2026-12-03T14:00:00Z"));
    let expected = [
        "without a push or a pull it goes after 2026-12-03 14:00 UTC",
        "a pull before 2026-12-03 14:00 UTC keeps it for 30 days",
        "a push before 2026-12-03 14:00 UTC keeps it for 7 days",
        "a push before 2026-12-03 14:00 UTC makes it the newest of its group",
    ];
    assert_eq!(prospects(&stays, &settings), expected);
    let expires = TagOutcome {
        expires: Some(time("2026-12-24T00:00:00Z")),
        ..stays
    };
    assert_eq!(
        prospects(&expires, &settings)[1],
        "a pull before 2026-12-03 14:00 UTC keeps it for 30 days, but not beyond 2026-12-24 00:00 UTC, when it expires"
    );
    let goes = decision(false, Reason::NoReasonToStay, None);
    let expected = [
        "it goes with the next run",
        "a pull before that keeps it for 30 days",
        "a push before that keeps it for 7 days",
        "a push before that makes it the newest of its group",
    ];
    assert_eq!(prospects(&goes, &settings), expected);
    // No pull helps a tag that has expired.
    let expired = Reason::Expired {
        at: pushed(),
        label: false,
    };
    assert_eq!(
        prospects(&decision(false, expired, None), &settings).len(),
        3
    );
    let beyond = decision(true, Reason::BeyondLimit, None);
    assert_eq!(prospects(&beyond, &settings)[0], "it goes with a later run");
}

#[test]
fn prospects_of_what_no_use_changes_are_one_sentence() {
    let settings = settings(None);
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    for (stays, reason, expected) in [
        (true, Reason::NoRule, "it stays as long as that is so"),
        (
            true,
            Reason::InUse {
                source: "list".into(),
            },
            "it stays as long as that is so",
        ),
        (
            true,
            Reason::OfKeptImage {
                digest: digest.clone(),
            },
            "it stays as long as that is so",
        ),
        (
            false,
            Reason::WithSubject { digest },
            "it goes with the next run",
        ),
    ] {
        assert_eq!(
            prospects(&decision(stays, reason, None), &settings),
            [expected]
        );
    }
    let unkept = prospects(
        &decision(true, Reason::NotExpired { until: None }, None),
        &settings,
    );
    assert_eq!(
        unkept,
        [
            "it stays as long as that is so",
            "a push at any time keeps it for 1 day"
        ]
    );
}
