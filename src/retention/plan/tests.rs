//! What becomes of the tags of small repositories, by each rule and for each reason.

mod model;
mod properties;
mod random;
mod sample;
mod scale;
mod situations;

use std::time::Duration;

use self::sample::{DAY, HOUR, Sample, at, digest, rule, sample};
use super::super::inventory::ContentSize;
use super::*;
use crate::config::retention::{Grouping, Keep, RetentionRule};
use crate::registry::pattern::{Pattern, RepositoryPattern};

fn newest(count: usize) -> Keep {
    Keep {
        newest: Some(count),
        ..Keep::default()
    }
}

fn pulled_within(within: Duration) -> Keep {
    Keep {
        pulled_within: Some(within),
        ..Keep::default()
    }
}

fn pushed_within(within: Duration) -> Keep {
    Keep {
        pushed_within: Some(within),
        ..Keep::default()
    }
}

#[test]
fn without_a_rule_a_tag_stays() {
    let mut sample = sample();
    sample.tag("app", 90 * DAY);
    sample.rules[0].tags = vec![Pattern::new("b*")];
    assert_eq!(sample.shown(), ["app stays: no rule"]);
    sample.rules[0].tags = vec![Pattern::new("a*")];
    sample.rules[0].repositories = vec![RepositoryPattern::parse("other/**").unwrap()];
    assert_eq!(sample.shown(), ["app stays: no rule"]);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut sample = sample();
    sample.tag("a", 90 * DAY);
    sample.tag("b", 90 * DAY);
    sample.rules = vec![
        RetentionRule {
            tags: vec![Pattern::new("a")],
            keep: Some(newest(1)),
            ..rule()
        },
        rule(),
    ];
    let plan = sample.decisions();
    assert_eq!(plan[0].rule, Some(0));
    assert!(plan[0].stays);
    assert_eq!(plan[1].rule, Some(1));
    assert!(!plan[1].stays);
}

#[test]
fn protected_tags_stay_and_are_not_counted() {
    let mut sample = sample();
    sample.tag("1.0.0", 80 * DAY);
    sample.tag("latest", 10 * DAY);
    sample.tag("x", 90 * DAY);
    sample.rules[0].protect = vec![Pattern::new("latest")];
    sample.rules[0].keep = Some(newest(1));
    sample.rules[0].ttl = Some(85 * DAY);
    let shown = [
        "1.0.0 stays until 5d: newest 1/1",
        "latest stays: protected latest",
        "x goes: expired -5d",
    ];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn images_in_use_stay_with_all_that_leads_to_them() {
    let mut sample = sample();
    let child = sample.image(90 * DAY);
    let index = sample.index(&[child], 90 * DAY);
    sample.tag_of("index", index, 90 * DAY);
    sample.tag("named", 90 * DAY);
    sample.tag("other", 90 * DAY);
    sample.rules[0].ttl = Some(DAY);
    sample.use_elsewhere(&format!(
        "r.example.com/app:named\nr.example.com/app@{}\nr.example.com/else:other",
        digest(child)
    ));
    let shown = [
        "index stays: in use",
        "named stays: in use",
        "other goes: expired -89d",
    ];
    assert_eq!(sample.shown(), shown);
    assert_eq!(sample.going_images(), [3]);
}

#[test]
fn young_tags_stay_whatever_expires() {
    let mut sample = sample();
    sample.min_age = DAY;
    sample.rules[0].ttl = Some(HOUR);
    sample.tag("border", DAY);
    sample.tag("young", DAY - HOUR);
    // The tag is old, and its image was pushed again.
    let image = sample.image(2 * HOUR);
    sample.tag_of("pushed-again", image, 90 * DAY);
    let shown = [
        "border goes: expired -23h",
        "pushed-again stays until 22h: young 2h",
        "young stays until 1h: young 23h",
    ];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn the_newest_of_each_group_stay_and_ties_with_the_last_of_them() {
    let mut sample = sample();
    for (tag, age) in [
        ("a-1", 5 * DAY),
        ("a-2", 4 * DAY),
        ("a-3", 4 * DAY),
        ("a-4", 3 * DAY),
        ("b-1", 90 * DAY),
        ("c", 80 * DAY),
        ("d", 70 * DAY),
        ("e", 60 * DAY),
    ] {
        sample.tag(tag, age);
    }
    sample.rules[0].keep = Some(newest(2));
    sample.rules[0].per = Grouping::PrefixBeforeLastDash;
    let shown = [
        "a-1 goes: nothing",
        "a-2 stays: newest 2/2",
        "a-3 stays: newest 2/2",
        "a-4 stays: newest 1/2",
        "b-1 stays: newest 1/2",
        "c goes: nothing",
        "d stays: newest 2/2",
        "e stays: newest 1/2",
    ];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn builds_order_tags_whose_pushes_are_not_known() {
    let mut sample = sample();
    sample.recorded_since = Some(90 * DAY);
    sample.tag("pushed", 80 * DAY);
    for (tag, built) in [("old", Some(400)), ("new", Some(300)), ("unknown", None)] {
        let image = sample.image(Duration::ZERO);
        sample.images[image].pushed = None;
        sample.images[image].created = built.map(|days| at(days * DAY));
        sample.tag_of(tag, image, Duration::ZERO);
        sample.tags.last_mut().unwrap().pushed = None;
    }
    sample.rules[0].keep = Some(newest(2));
    let shown = [
        "new stays: newest 2/2",
        "old goes: nothing",
        "pushed stays: newest 1/2",
        // No older than any that was built, so far as is known.
        "unknown stays: newest 2/2",
    ];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn pulls_keep_a_tag_while_they_are_in_the_window() {
    let mut sample = sample();
    sample.recorded_since = Some(200 * DAY);
    sample.rules[0].keep = Some(pulled_within(30 * DAY));
    for (tag, pulled) in [("border", 30), ("out", 31), ("in", 29)] {
        let image = sample.image(90 * DAY);
        sample.tag_of(tag, image, 90 * DAY);
        sample.tags.last_mut().unwrap().pulled = Some(at(pulled * DAY));
    }
    sample.tag("never", 90 * DAY);
    let shown = [
        "border goes: nothing",
        "in stays until 1d: pulled 29d/30d",
        "never goes: nothing",
        "out goes: nothing",
    ];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn pulls_of_children_count_for_all_indexes_above() {
    let mut sample = sample();
    sample.recorded_since = Some(200 * DAY);
    sample.rules[0].keep = Some(pulled_within(30 * DAY));
    let child = sample.image(90 * DAY);
    let other = sample.image(90 * DAY);
    let left = sample.index(&[child], 90 * DAY);
    let right = sample.index(&[child, other], 90 * DAY);
    let top = sample.index(&[left, right], 90 * DAY);
    sample.images[child].pulled = Some(at(DAY));
    sample.tag_of("other", other, 90 * DAY);
    sample.tag_of("right", right, 90 * DAY);
    sample.tag_of("top", top, 90 * DAY);
    let shown = [
        "other goes: nothing",
        "right stays until 29d: pulled 1d/30d",
        "top stays until 29d: pulled 1d/30d",
    ];
    assert_eq!(sample.shown(), shown);
    assert!(sample.going_images().is_empty());
}

#[test]
fn what_was_not_recorded_may_have_been() {
    let mut sample = sample();
    sample.min_age = DAY;
    sample.tag("pushed", 90 * DAY);
    sample.tag("unknown", 90 * DAY);
    sample.tags[1].pushed = None;
    sample.rules[0].keep = Some(Keep {
        pulled_within: Some(30 * DAY),
        pushed_within: Some(7 * DAY),
        newest: None,
    });
    let cases: [(Option<Duration>, &str, &str); 5] = [
        (
            None,
            "stays: unknown pull 30d",
            "stays: unknown push 1d, unknown pull 30d, unknown push 7d",
        ),
        (
            Some(HOUR),
            "stays until 719h: unknown pull 30d",
            "stays until 719h: unknown push 1d, unknown pull 30d, unknown push 7d",
        ),
        (
            Some(3 * DAY),
            "stays until 27d: unknown pull 30d",
            "stays until 27d: unknown pull 30d, unknown push 7d",
        ),
        (
            Some(29 * DAY),
            "stays until 1d: unknown pull 30d",
            "stays until 1d: unknown pull 30d",
        ),
        (Some(30 * DAY), "goes: nothing", "goes: nothing"),
    ];
    for (since, pushed, unknown) in cases {
        sample.recorded_since = since;
        let shown = [format!("pushed {pushed}"), format!("unknown {unknown}")];
        assert_eq!(sample.shown(), shown);
    }
}

#[test]
fn recent_pushes_keep_a_tag() {
    let mut sample = sample();
    sample.rules[0].keep = Some(pushed_within(7 * DAY));
    sample.tag("border", 7 * DAY);
    sample.tag("in", 6 * DAY);
    let shown = ["border goes: nothing", "in stays until 1d: pushed 6d/7d"];
    assert_eq!(sample.shown(), shown);
}

#[test]
fn expired_tags_go_although_they_are_pulled() {
    let mut sample = sample();
    sample.recorded_since = Some(200 * DAY);
    sample.rules[0].ttl = Some(30 * DAY);
    sample.rules[0].keep = Some(pulled_within(20 * DAY));
    for (tag, age) in [("border", 30), ("old", 90), ("soon", 29), ("young", 1)] {
        sample.tag(tag, age * DAY);
        sample.images.last_mut().unwrap().pulled = Some(at(DAY));
    }
    let shown = [
        "border goes: expired 0h",
        "old goes: expired -60d",
        "soon stays until 1d: pulled 1d/20d",
        "young stays until 19d: pulled 1d/20d",
    ];
    assert_eq!(sample.shown(), shown);
    // Somebody pulls their images by digest.
    assert!(sample.going_images().is_empty());
    sample.rules[0].keep = None;
    assert_eq!(sample.shown()[3], "young stays until 29d: not expired 29d");
    assert_eq!(sample.going_images(), [0, 1]);
    sample.rules[0].ttl = None;
    assert_eq!(sample.shown()[1], "old stays: not expired");
}

#[test]
fn expiry_of_an_unseen_push_counts_from_the_start_of_recording() {
    let mut sample = sample();
    sample.rules[0].keep = None;
    sample.rules[0].ttl = Some(30 * DAY);
    sample.tag("app", 90 * DAY);
    sample.tags[0].pushed = None;
    for (since, shown) in [
        (None, "app stays: not expired"),
        (Some(29), "app stays until 1d: not expired 1d"),
        (Some(30), "app goes: expired 0h"),
    ] {
        sample.recorded_since = since.map(|days: u32| days * DAY);
        assert_eq!(sample.shown(), [shown]);
    }
}

#[test]
fn labels_of_images_say_how_long_they_live() {
    let label = || Some("quay.expires-after".into());
    let mut sample = sample();
    sample.rules[0].keep = None;
    let lives = |sample: &mut Sample, days: u64| {
        let image = sample.image(10 * DAY);
        sample.images[image].created = Some(at(11 * DAY));
        let life = Duration::from_secs(days * 86_400);
        sample.images[image].expires_after = super::super::expiry::whole_seconds(life);
        image
    };
    let (short, long, endless) = (
        lives(&mut sample, 5),
        lives(&mut sample, 20),
        lives(&mut sample, 0),
    );
    let attestation = sample.image(10 * DAY);
    let all = sample.index(&[short, long, attestation], 10 * DAY);
    let some = sample.index(&[short, endless], 10 * DAY);
    let own = sample.index(&[endless], 10 * DAY);
    sample.images[own].expires_after = super::super::expiry::whole_seconds(12 * DAY);
    for (tag, image) in [("all", all), ("own", own), ("short", short), ("some", some)] {
        sample.tag_of(tag, image, 10 * DAY);
    }
    assert_eq!(sample.shown()[2], "short stays: not expired");
    sample.rules[0].expiry_label = label();
    // Read from another label.
    assert_eq!(sample.shown()[2], "short stays: not expired");
    sample.expiry_label = label();
    let shown = [
        "all stays until 10d: not expired 10d",
        "own stays until 2d: not expired 2d",
        "short goes: expired by label -5d",
        "some stays: not expired",
    ];
    assert_eq!(sample.shown(), shown);
    sample.rules[0].ttl = Some(5 * DAY);
    assert_eq!(sample.shown()[2], "short goes: expired -5d");
    sample.rules[0].ttl = Some(6 * DAY);
    assert_eq!(sample.shown()[2], "short goes: expired by label -5d");
    assert_eq!(sample.shown()[0], "all goes: expired -4d");
}

#[test]
fn referrers_stay_and_go_with_their_subjects() {
    let mut sample = sample();
    sample.rules[0].tags = vec![Pattern::new("app*")];
    sample.rules[0].keep = Some(newest(1));
    let (old, new) = (sample.image(90 * DAY), sample.image(80 * DAY));
    sample.tag_of("app-1", old, 90 * DAY);
    sample.tag_of("app-2", new, 80 * DAY);
    let mut refer = |subject, end: &str| {
        let image = sample.image(70 * DAY);
        let tag = format!("{}{end}", digest(subject).as_str().replace(':', "-"));
        sample.tag_of(&tag, image, 70 * DAY);
        image
    };
    let signature = refer(old, ".sig");
    // The signature of a signature.
    refer(signature, ".sig");
    refer(new, "");
    refer(new, ".sbom");
    refer(99, ".sig");
    let untagged = sample.image(70 * DAY);
    sample.images[untagged].subject = Some(ImageIndex(0));
    let shown: Vec<_> = sample
        .shown()
        .iter()
        .map(|line| line.replace(&"0".repeat(61), ""))
        .collect();
    let expected = [
        "app-1 goes: nothing",
        "app-2 stays: newest 1/1",
        "sha256-001.sig goes: with 001",
        "sha256-002 stays: of 002",
        "sha256-002.sbom stays: of 002",
        "sha256-003.sig goes: with 003",
        "sha256-064.sig stays: no rule",
    ];
    assert_eq!(shown, expected);
    assert_eq!(sample.going_images(), [0, 7, 2, 3]);
    let rules: Vec<_> = sample.decisions().iter().map(|d| d.rule).collect();
    assert_eq!(
        rules,
        [Some(0), Some(0), Some(0), None, None, Some(0), None]
    );
}

#[test]
fn a_run_takes_the_oldest_and_their_referrers() {
    let mut sample = sample();
    for (tag, age) in [("a", 90), ("b", 95), ("c", 93), ("d", 91)] {
        sample.tag(tag, age * DAY);
    }
    let signature = sample.image(80 * DAY);
    let tag = format!("{}.sig", digest(2).as_str().replace(':', "-"));
    sample.tag_of(&tag, signature, 80 * DAY);
    let going = |sample: &Sample| -> Vec<String> {
        let shown = sample.shown().into_iter();
        let goes = shown.filter(|line| line.contains(" goes"));
        goes.map(|line| line[..1].to_owned()).collect()
    };
    for (max_tags, expected) in [
        (0, &[][..]),
        (1, &["b"]),
        // The next one, c, has a referrer.
        (2, &["b"]),
        (3, &["b", "c", "s"]),
        (4, &["b", "c", "d", "s"]),
        (5, &["a", "b", "c", "d", "s"]),
    ] {
        sample.max_tags = max_tags;
        assert_eq!(going(&sample), expected, "{max_tags}");
    }
    sample.max_tags = 3;
    assert_eq!(sample.shown()[0], "a stays: beyond the limit");
    assert_eq!(sample.going_images(), [1, 2, 4]);
}

#[test]
fn times_in_the_future_are_now_and_none_overflows() {
    let mut sample = sample();
    sample.recorded_since = Some(200 * DAY);
    sample.rules[0].keep = Some(Keep {
        newest: Some(1),
        pulled_within: Some(Duration::MAX),
        pushed_within: Some(DAY),
    });
    sample.tag("future", DAY);
    sample.tag("now", Duration::ZERO);
    sample.tags[0].pushed = Some(UnixSeconds::from(Timestamp::MAX));
    let shown = sample.decisions();
    let reasons = |at: usize| &shown[at].reasons;
    assert_eq!(reasons(0).first(), Some(&Reason::Newest { rank: 1, of: 1 }));
    assert_eq!(reasons(0), reasons(1));
    sample.rules[0].ttl = Some(Duration::MAX);
    sample.rules[0].keep = None;
    sample.min_age = Duration::MAX;
    assert_eq!(sample.decisions()[0].until, None);
    sample.rules[0].ttl = Some(Duration::from_secs(u64::MAX / 4));
    sample.min_age = DAY;
    assert_eq!(sample.decisions()[0].until, Some(Timestamp::MAX));
    for (time, seconds) in [
        (Timestamp::MIN, 1),
        (Timestamp::MAX, u32::MAX),
        (Timestamp::UNIX_EPOCH, 1),
    ] {
        assert_eq!(UnixSeconds::from(time).seconds(), seconds);
    }
    assert_eq!(time(u64::MAX), Timestamp::MAX);
}

#[test]
fn manifests_that_somebody_needs_stay() {
    let mut sample = sample();
    let shared = sample.image(90 * DAY);
    let alone = sample.image(90 * DAY);
    let young = sample.image(HOUR);
    let top = sample.index(&[shared, alone, young], 90 * DAY);
    // No tag leads to it.
    let untagged = sample.index(&[shared], 90 * DAY);
    sample.min_age = DAY;
    sample.tag_of("app", top, 90 * DAY);
    assert_eq!(sample.shown(), ["app goes: nothing"]);
    assert_eq!(sample.going_images(), [top, alone]);
    sample.images[top].subject = Some(ImageIndex(u32::try_from(untagged).unwrap()));
    assert!(sample.going_images().is_empty());
}

#[test]
fn bytes_come_free_once_and_only_if_nothing_else_has_them() {
    let mut sample = sample();
    sample.rules[0].keep = Some(newest(1));
    for (tag, age) in [("a", 3), ("b", 2), ("c", 1)] {
        sample.tag(tag, age * DAY);
    }
    let content = |key, size| ContentSize { key, size };
    sample.images[0].content = [content(1, 10), content(2, 200), content(9, 1)].into();
    sample.images[1].content = [
        content(1, 10),
        content(3, 3_000),
        content(9, 1),
        content(9, 1),
    ]
    .into();
    sample.images[2].content = [content(1, 10), content(4, 40_000)].into();
    assert_eq!(sample.bytes(), 3_201);
}

#[test]
fn circles_and_deep_nesting_end() {
    let mut sample = sample();
    let count = 50_000;
    for at in 0..count {
        let image = sample.image(90 * DAY);
        let next = u32::try_from((at + 1) % count).unwrap();
        sample.images[image].children = [ImageIndex(next)].into();
    }
    sample.images[count - 1].pulled = Some(at(DAY));
    sample.recorded_since = Some(200 * DAY);
    sample.tag_of("app", 0, 90 * DAY);
    assert_eq!(sample.going_images(), Vec::from_iter(0..count));
    sample.rules[0].keep = Some(pulled_within(2 * DAY));
    assert_eq!(sample.shown(), ["app stays until 1d: pulled 1d/2d"]);
}
