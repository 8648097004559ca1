use proptest::prelude::*;

use super::*;

impl Renewal {
    fn is_due(&self, now: SystemTime) -> bool {
        self.at <= now
    }
}

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn day(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * u32::try_from(n).expect("few")
}

fn life(from: u64, length: Duration) -> Validity {
    Validity {
        not_before: day(from),
        not_after: day(from) + length,
    }
}

#[test]
fn a_third_of_the_life_decides() {
    // now, not before, not after, due
    let table = [
        (100, 100, 130, false),
        (119, 100, 130, false),
        (120, 100, 130, false),
        (121, 100, 130, true),
        (130, 100, 130, true),
        (500, 100, 130, true),
        (99, 100, 130, true),
        (104, 100, 106, false),
        (105, 100, 106, true),
        (100, 130, 100, true),
    ];
    for (now, not_before, not_after, due) in table {
        let decided = is_due(day(now), day(not_before), day(not_after));
        assert_eq!(decided, due, "{now} in {not_before}..{not_after}");
    }
}

#[test]
fn a_pulled_in_window_renews_at_once() {
    let life = life(100, 90 * DAY);
    let revoked = AriWindow::new(day(99), day(101)).expect("a window");
    for number in 0..100 {
        assert!(renewal(life, Some(revoked), Seed::new(number)).is_due(day(101)));
    }
    assert!(!renewal(life, None, Seed::new(1)).is_due(day(101)));
}

#[test]
fn a_window_that_ends_before_it_starts_is_none() {
    assert_eq!(AriWindow::new(day(2), day(1)), None);
    assert_eq!(AriWindow::new(day(1), day(1)), None);
    assert_eq!(AriWindow::new(SystemTime::UNIX_EPOCH - HOUR, day(1)), None);
}

#[test]
fn short_lives_are_renewed_at_half_and_long_ones_at_two_thirds() {
    for (length, least, most) in [
        (160 * HOUR, 160 * HOUR * 23 / 50, 80 * HOUR),
        (90 * DAY, 90 * DAY * 187 / 300, 60 * DAY),
    ] {
        for number in 0..100 {
            let life = life(100, length);
            let after = renewal(life, None, Seed::new(number))
                .at
                .duration_since(life.not_before);
            let after = after.expect("later");
            assert!(
                after >= least && after <= most + Duration::from_secs(1),
                "{after:?}"
            );
        }
    }
}

#[test]
fn a_window_at_the_end_of_the_life_is_too_late() {
    let life = life(100, 160 * HOUR);
    let late =
        AriWindow::new(life.not_after - 2 * HOUR, life.not_after + 2 * HOUR).expect("a window");
    let renewal = renewal(life, Some(late), Seed::new(7));
    assert_eq!(renewal.at, life.not_after - 72 * HOUR);
    assert_eq!(renewal.why, RenewalReason::TooLateForSafety(late));
}

#[test]
fn the_reasons_are_said() {
    let window = AriWindow::new(day(30), day(31)).expect("a window");
    let words = [
        RenewalReason::Ari(window),
        RenewalReason::TooLateForSafety(window),
        RenewalReason::LifeLeft,
    ]
    .map(|why| why.to_string());
    insta::assert_snapshot!(words.join("\n"), @r"
    the CA suggests 1970-01-31T00:00:00Z to 1970-02-01T00:00:00Z
    the CA suggests 1970-01-31T00:00:00Z to 1970-02-01T00:00:00Z, which leaves too little time for failures
    by its lifetime, as the CA suggests no time
    ");
}

#[test]
fn the_ca_says_when_it_is_asked_again_within_reason() {
    let wait = |answer| {
        ask_ari_again(day(1), answer)
            .duration_since(day(1))
            .expect("later")
    };
    let answered = |seconds: Option<u64>| AriAnswer::Answered {
        retry_after: seconds.map(Duration::from_secs),
    };
    assert_eq!(wait(answered(Some(21_600))), 6 * HOUR);
    assert_eq!(wait(answered(None)), 6 * HOUR);
    assert_eq!(wait(answered(Some(0))), MINUTE);
    assert_eq!(wait(answered(Some(u64::MAX))), DAY);
    let failed = |times| {
        wait(AriAnswer::Failed {
            times,
            retry_after: None,
        })
    };
    assert_eq!(
        [1, 2, 3, 4, 99].map(failed),
        [1, 10, 100, 360, 360].map(|n| n * MINUTE)
    );
    assert_eq!(
        wait(AriAnswer::Failed {
            times: 1,
            retry_after: Some(HOUR)
        }),
        HOUR
    );
    assert_eq!(
        wait(AriAnswer::Failed {
            times: 3,
            retry_after: Some(MINUTE)
        }),
        100 * MINUTE
    );
}

#[test]
fn warnings_grow_louder() {
    let life = life(100, 100 * DAY);
    let told =
        [100, 180, 181, 190, 191, 195, 196, 199, 200, 999].map(|now| urgency(life, day(now)));
    use Urgency::{Alarm, Calm, Expired, Notice, Warning};
    assert_eq!(
        told,
        [
            Calm, Calm, Notice, Notice, Warning, Warning, Alarm, Alarm, Expired, Expired
        ]
    );
}

#[test]
fn what_was_issued_together_is_not_renewed_together() {
    let life = life(100, 90 * DAY);
    let hours = |window| {
        let hour = |number| {
            let at = renewal(life, window, Seed::of(&format!("serial {number}"))).at;
            at.duration_since(day(100)).expect("later").as_secs() / 3600
        };
        (0..200)
            .map(hour)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    // 200 certificates over the 86 hours of the jitter, and over the 48 of a window.
    assert!(hours(None) > 60);
    assert!(hours(AriWindow::new(day(150), day(152))) > 40);
}

prop_compose! {
    fn lives()(from in 0..4_000_000_000_u64, length in 3600..400 * 86_400_u64) -> Validity {
        Validity { not_before: at(from), not_after: at(from + length) }
    }
}

prop_compose! {
    fn windows()(start in 0..5_000_000_000_u64, length in 1..400 * 86_400_u64) -> Option<AriWindow> {
        AriWindow::new(at(start), at(start + length))
    }
}

proptest! {
    #[test]
    fn renewal_is_always_well_before_expiry(
        life in lives(), window in proptest::option::of(windows()), seed: u64,
    ) {
        let renewal = renewal(life, window.flatten(), Seed::new(seed));
        prop_assert!(renewal.at <= life.not_after - life.length() / 5 + Duration::from_millis(1));
        prop_assert_eq!(urgency(life, renewal.at.max(life.not_before)), Urgency::Calm);
    }

    #[test]
    fn once_due_always_due(life in lives(), window in windows(), seed: u64, now: u32, later: u32) {
        let renewal = renewal(life, window, Seed::new(seed));
        let now = at(u64::from(now));
        if renewal.is_due(now) {
            prop_assert!(renewal.is_due(now + Duration::from_secs(u64::from(later))));
        }
    }

    #[test]
    fn the_moment_lies_in_the_window_or_at_the_safe_end(life in lives(), window in windows(), seed: u64) {
        let window = window.expect("a window");
        let renewal = renewal(life, Some(window), Seed::new(seed));
        match renewal.why {
            RenewalReason::Ari(_) => prop_assert!(window.start() <= renewal.at && renewal.at < window.end()),
            RenewalReason::TooLateForSafety(_) => prop_assert!(renewal.at < window.end() && renewal.at >= life.not_before),
            RenewalReason::LifeLeft => prop_assert!(false, "the window was ignored"),
        }
    }

    #[test]
    fn a_window_in_the_past_means_now(life in lives(), window in windows(), seed: u64) {
        let window = window.expect("a window");
        prop_assert!(renewal(life, Some(window), Seed::new(seed)).is_due(window.end()));
    }

    #[test]
    fn an_earlier_window_never_renews_later(life in lives(), start: u32, earlier: u32, seed: u64) {
        let (start, earlier) = (u64::from(start), u64::from(earlier.min(start)));
        let window = |start: u64| AriWindow::new(at(start), at(start + 86_400));
        let one = renewal(life, window(start), Seed::new(seed)).at;
        let other = renewal(life, window(start - earlier), Seed::new(seed)).at;
        // Each window draws its own moment, so that two that overlap may swap within their length.
        prop_assert!(other <= one + DAY);
    }

    #[test]
    fn the_jitter_is_bounded(life in lives(), seed: u64) {
        let renewal = renewal(life, None, Seed::new(seed)).at;
        let left = life.not_after.duration_since(renewal).expect("before the end");
        let usual = if life.length() < 10 * DAY { life.length() / 2 } else { life.length() / 3 };
        prop_assert!(left >= usual && left <= usual + life.length() / 25);
    }

    #[test]
    fn urgency_never_falls(life in lives(), now: u32, later: u32) {
        let now = at(u64::from(now));
        prop_assert!(urgency(life, now) <= urgency(life, now + Duration::from_secs(u64::from(later))));
    }

    #[test]
    fn the_next_question_is_a_minute_to_a_day_away(
        asked: u32, times: u32, failed: bool, seconds in proptest::option::of(0..u64::MAX),
    ) {
        let retry_after = seconds.map(Duration::from_secs);
        let answer = if failed { AriAnswer::Failed { times, retry_after } } else { AriAnswer::Answered { retry_after } };
        let asked = at(u64::from(asked));
        let wait = ask_ari_again(asked, answer).duration_since(asked).expect("later");
        prop_assert!((MINUTE..=DAY).contains(&wait));
    }
}
