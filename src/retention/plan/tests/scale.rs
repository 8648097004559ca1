//! A repository of 100,000 tags, each with an image of its own.

use std::time::Instant;

use super::sample::{DAY, Sample, sample};
use crate::config::retention::{Grouping, Keep};
use crate::retention::inventory::ContentSize;
use crate::retention::plan::plan_repository;

fn large(count: usize) -> Sample {
    let mut sample = sample();
    sample.recorded_since = Some(365 * DAY);
    for at in 0..count {
        let age = u32::try_from(at % 300).unwrap() * DAY;
        sample.tag(&format!("branch-{}-{at}", at % 1_000), age);
        let key = |part: usize| (at * 4 + part) as u64;
        let own = [0, 1, 2].map(|part| ContentSize {
            key: key(part),
            size: 1 << 20,
        });
        let base = ContentSize {
            key: u64::MAX,
            size: 1 << 24,
        };
        let [config, layer, manifest] = own;
        sample.images[at].content = [config, layer, manifest, base].into();
    }
    sample.rules[0].per = Grouping::PrefixBeforeLastDash;
    sample.rules[0].keep = Some(Keep {
        newest: Some(5),
        pulled_within: Some(30 * DAY),
        pushed_within: Some(7 * DAY),
    });
    sample
}

/// Far more than a release build needs, which takes 0.1 s on two cores.
#[test]
fn a_hundred_thousand_tags_are_planned_in_no_time() {
    let sample = large(100_000);
    let (inventory, settings) = (sample.inventory(), sample.settings());
    for max_tags in [usize::MAX, 1_000] {
        let begin = Instant::now();
        let plan = plan_repository(&inventory, &settings, &sample.in_use, sample.now, max_tags);
        let lines: usize = plan.tags().map(|tag| tag.decision.reasons.len()).sum();
        let took = begin.elapsed();
        assert!(lines >= 100_000 && plan.going > 900 && plan.going <= max_tags);
        assert!(plan.bytes >= plan.going as u64 * (3 << 20));
        println!("{} of 100,000 tags go: {} ms", plan.going, took.as_millis());
        assert!(took.as_secs() < 20, "{took:?}");
    }
}
