//! The repositories for which retention was made.

use super::sample::{DAY, HOUR, at, sample};
use crate::config::retention::{Grouping, Keep};
use crate::registry::pattern::Pattern;

/// `docker-cache`: release builds that nobody pulls after a week.
#[test]
fn a_cache_loses_the_builds_that_nobody_pulls() {
    let mut sample = sample();
    sample.recorded_since = Some(100 * DAY);
    sample.min_age = DAY;
    sample.rules[0].protect = vec![Pattern::new("latest"), Pattern::new("v*.*.*")];
    sample.rules[0].per = Grouping::PrefixBeforeLastDash;
    sample.rules[0].keep = Some(Keep {
        newest: Some(2),
        pulled_within: Some(30 * DAY),
        pushed_within: Some(7 * DAY),
    });
    for (tag, age, pulled) in [
        ("latest", 60, None),
        ("main-1", 60, Some(53)),
        ("main-2", 50, Some(2)),
        ("main-3", 40, Some(33)),
        ("main-4", 39, Some(32)),
        ("old-branch-1", 90, Some(83)),
        ("v1.0.0", 90, None),
        ("work-1", 6, None),
        ("work-2", 5, None),
        ("work-3", 0, None),
    ] {
        // An index, one of whose images is pulled by its digest.
        let child = sample.image(age * DAY);
        sample.images[child].pulled = pulled.map(|ago: u32| at(ago * DAY));
        let index = sample.index(&[child], age * DAY);
        sample.tag_of(tag, index, age * DAY);
    }
    let shown = [
        "latest stays: protected latest",
        "main-1 goes: nothing",
        "main-2 stays until 28d: pulled 2d/30d",
        "main-3 stays: newest 2/2",
        "main-4 stays: newest 1/2",
        "old-branch-1 stays: newest 1/2",
        "v1.0.0 stays: protected v*.*.*",
        "work-1 stays until 1d: pushed 6d/7d",
        "work-2 stays: newest 2/2, pushed 5d/7d",
        "work-3 stays: young 0h, newest 1/2, pushed 0h/7d",
    ];
    assert_eq!(sample.shown(), shown);
    assert_eq!(sample.going_images(), [3, 2]);
}

/// `docker-ci`: base images stay for years while anybody uses them, or a cluster names them.
#[test]
fn a_ci_registry_has_its_base_images_for_years() {
    let mut sample = sample();
    sample.recorded_since = Some(1_200 * DAY);
    sample.rules[0].keep = Some(Keep {
        pulled_within: Some(730 * DAY),
        ..Keep::default()
    });
    for (tag, pulled) in [("base-7", 1_100), ("base-8", 700), ("base-9", 1_100)] {
        sample.tag(tag, 1_150 * DAY);
        sample.images.last_mut().unwrap().pulled = Some(at(pulled * DAY));
    }
    sample.use_elsewhere("# from kubectl\nr.example.com/app:base-9\n");
    let shown = [
        "base-7 goes: nothing",
        "base-8 stays until 30d: pulled 700d/730d",
        "base-9 stays: in use",
    ];
    assert_eq!(sample.shown(), shown);
    // A year after recording began, nobody knows yet.
    sample.recorded_since = Some(365 * DAY);
    assert_eq!(
        sample.shown()[0],
        "base-7 stays until 365d: unknown pull 730d"
    );
}

/// An inbox of customers: emptied a day after each push, whether it was taken over or not.
#[test]
fn an_inbox_is_emptied() {
    let mut sample = sample();
    sample.min_age = HOUR;
    sample.rules[0].keep = None;
    sample.rules[0].ttl = Some(DAY);
    for (tag, age) in [("a", 2 * DAY), ("b", 23 * HOUR)] {
        sample.tag(tag, age);
        sample.images.last_mut().unwrap().pulled = Some(at(HOUR));
    }
    let shown = ["a goes: expired -1d", "b stays until 1h: not expired 1h"];
    assert_eq!(sample.shown(), shown);
    assert_eq!(sample.going_images(), [0]);
}
