//! What holds for all repositories: 10,000 random ones.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::model::{Model, hours};
use super::random::model;
use super::sample::{Sample, at, digest, now};
use crate::retention::inventory::UnixSeconds;
use crate::retention::plan::{PlannedTag, Reason, TagOutcome};

/// The tags and images that go, in their order.
fn going(sample: &Sample) -> (BTreeSet<String>, Vec<usize>) {
    let tags = sample.planned(|plan| {
        let tags: BTreeSet<_> = plan
            .tags()
            .filter(|tag| !tag.decision.stays)
            .map(|tag| tag.tag.to_string())
            .collect();
        assert_eq!(plan.going, tags.len());
        tags
    });
    (tags, sample.going_images())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn plans_agree_with_the_naive_model(model in model()) {
        let mut sample = model.sample();
        let (expected, images) = model.staying();
        let (tags, order) = going(&sample);
        for tag in &model.tags {
            prop_assert_eq!(!tags.contains(&tag.name), expected.contains(&tag.name), "{}", tag.name);
        }
        let set: BTreeSet<_> = order.iter().copied().collect();
        prop_assert_eq!(set.len(), order.len());
        prop_assert_eq!(&set, &(0..model.images.len()).filter(|i| !images.contains(i)).collect());
        // Twice the same.
        prop_assert_eq!(going(&sample), (tags.clone(), order.clone()));
        check_limit(&model, &mut sample, &tags)?;
    }

    #[test]
    fn what_stays_is_whole_and_nothing_goes_that_is_used(model in model()) {
        let mut sample = model.sample();
        sample.max_tags = model.max_tags;
        let (tags, order) = going(&sample);
        prop_assert!(tags.len() <= model.max_tags);
        let gone: BTreeSet<_> = order.iter().copied().collect();
        for tag in model.tags.iter().filter(|tag| !tags.contains(&tag.name)) {
            prop_assert!(model.needed(&[tag.image]).is_disjoint(&gone));
        }
        for tag in model.tags.iter().filter(|tag| tags.contains(&tag.name)) {
            prop_assert!(!model.is_young(tag) && !model.is_in_use(tag) && !model.is_protected(tag));
        }
        for image in (0..model.images.len()).filter(|image| !gone.contains(image)) {
            prop_assert!(model.needed(&[image]).is_disjoint(&gone), "of image {image}");
        }
        for image in &gone {
            prop_assert!(!model.image_stays_by_itself(*image));
        }
        check_order(&model, &order)?;
        // The same again: nothing more goes, but referrers that lose their place among the newest
        // to others whose subjects have just gone.
        let mut rest = model.without(&tags, &gone);
        rest.max_tags = if model.max_tags == usize::MAX { usize::MAX } else { 0 };
        let (more, _) = going(&rest);
        prop_assert!(more.iter().all(|name| name.starts_with("sha256-")), "{more:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_tag_stays_until_the_time_that_is_said(model in model()) {
        let mut sample = model.sample();
        // What is later than now is later still when it comes.
        let past = |time: &mut Option<UnixSeconds>| *time = time.map(|time| time.min(at(hours(0))));
        sample.tags.iter_mut().for_each(|tag| past(&mut tag.pushed));
        sample.images.iter_mut().for_each(|image| past(&mut image.pushed));
        let named = |sample: &Sample| -> Vec<(String, TagOutcome)> {
            let named = |tag: PlannedTag| (tag.tag.to_string(), tag.decision);
            sample.planned(|plan| plan.tags().map(named).collect())
        };
        for (name, decision) in named(&sample) {
            let Some(until) = decision.until else { continue };
            prop_assert!(decision.stays && until > now());
            let at = |sample: &Sample| named(sample).into_iter().find(|(tag, _)| *tag == name).unwrap().1;
            sample.now = until - Duration::from_secs(1);
            prop_assert!(at(&sample).stays, "{name} before {until}");
            sample.now = until;
            let then = named(&sample);
            let of_name = then.iter().find(|(tag, _)| *tag == name).unwrap();
            prop_assert!(
                !of_name.1.stays || model.is_of_rank(of_name, &then),
                "{name} {until} {then:?}"
            );
            sample.now = now();
        }
    }
}

impl Model {
    /// Whether a tag stays for its rank alone, which others gave up when they went, or for that of a
    /// tag of the image that it refers to.
    fn is_of_rank(
        &self,
        (name, outcome): &(String, TagOutcome),
        all: &[(String, TagOutcome)],
    ) -> bool {
        // Two may refer to each other.
        let others: Vec<_> = all.iter().filter(|(tag, _)| tag != name).cloned().collect();
        outcome.reasons.iter().all(|reason| match reason {
            Reason::Newest { .. } => true,
            Reason::OfKeptImage { digest: kept } => others.iter().any(|other| {
                let tag = self.tags.iter().find(|tag| tag.name == other.0);
                let is_subject = tag.is_some_and(|tag| digest(tag.image) == *kept);
                is_subject && other.1.stays && self.is_of_rank(other, &others)
            }),
            _ => false,
        })
    }
}

/// A limit takes a part of what goes without one, and all that it may.
fn check_limit(
    model: &Model,
    sample: &mut Sample,
    all: &BTreeSet<String>,
) -> Result<(), TestCaseError> {
    sample.max_tags = model.max_tags;
    let (some, _) = going(sample);
    prop_assert!(some.is_subset(all));
    prop_assert!(some.len() <= model.max_tags);
    prop_assert!(model.max_tags < all.len() || some == *all);
    let is_referrer = |name: &&String| name.starts_with("sha256-");
    if !all.iter().any(|name| is_referrer(&name)) {
        prop_assert_eq!(some.len(), all.len().min(model.max_tags));
    }
    let tag = |name: &String| model.tags.iter().find(|tag| tag.name == *name).unwrap();
    for (gone, left) in some
        .iter()
        .flat_map(|gone| all.difference(&some).map(move |left| (gone, left)))
    {
        let is_image = |name: &String| model.subject(tag(name)).is_none();
        if is_image(gone) && is_image(left) {
            prop_assert!(
                !model.is_newer(tag(gone), tag(left)),
                "{gone} before {left}"
            );
        }
    }
    Ok(())
}

/// An index before what it lists, and a subject before its referrers, unless they are in a circle.
fn check_order(model: &Model, order: &[usize]) -> Result<(), TestCaseError> {
    let place = |image: usize| order.iter().position(|at| *at == image);
    let has_circle = |image: &usize| {
        let children = &model.images[*image].children;
        children
            .iter()
            .any(|child| model.below(*child).contains(image))
    };
    if order.iter().any(has_circle) {
        return Ok(());
    }
    let is_in_circle = |a: usize, b: usize| model.needed(&[b]).contains(&a);
    let circular = order.iter().any(|a| {
        let mut referrers = model.referrers(*a).into_iter();
        referrers.any(|b| is_in_circle(*a, b))
    });
    for (at, image) in order.iter().enumerate() {
        for child in &model.images[*image].children {
            prop_assert!(
                place(*child).is_none_or(|child| child > at),
                "{image} lists {child}"
            );
        }
        for referrer in model.referrers(*image) {
            let after = place(referrer).is_none_or(|place| place > at);
            prop_assert!(after || circular, "{referrer} refers to {image}");
        }
    }
    Ok(())
}
