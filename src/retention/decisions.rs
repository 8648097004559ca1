//! Which tags and manifests of a repository go: referrers with their subjects, and no more tags than
//! a run may take away.

use fixedbitset::FixedBitSet;

use super::facts::TagRole;
use super::graph::{Given, indexes};
use super::inventory::{ImageIndex, ImageRecord};
use super::newest::Newness;
use super::reason::{Reason, TagOutcome};
use super::rules::{AppliedRules, time};
use crate::registry::digest::Digest;

/// The decisions about all tags and manifests of a repository.
#[derive(Debug)]
pub(super) struct Decisions<'a> {
    pub(super) rules: AppliedRules<'a>,
    /// The tags that go.
    pub(super) tags: FixedBitSet,
    /// The manifests that stay.
    pub(super) staying: FixedBitSet,
    /// The first rule of the tags that lead to an image, and for the referrers of that; see
    /// [`FirstRule`].
    origins: Vec<u32>,
}

/// What to choose from: which of the tags that no reason holds go.
struct Choice<'r, 'a> {
    rules: &'r AppliedRules<'a>,
    /// The images that stay whatever is chosen.
    roots: Vec<ImageIndex>,
    /// Of images, those pushed first at the start.
    images: Vec<u32>,
    referrers: Vec<u32>,
}

/// Some of the tags go.
struct Chosen {
    tags: FixedBitSet,
    staying: FixedBitSet,
}

impl<'a> Decisions<'a> {
    /// At most `max_tags` tags go: those that were pushed first, and a subject always with its
    /// referrers.
    pub(super) fn new(rules: AppliedRules<'a>, max_tags: usize) -> Self {
        let origins = origins(&rules);
        let Chosen { tags, staying } = Choice::new(&rules, &origins).within(max_tags);
        Self {
            rules,
            tags,
            staying,
            origins,
        }
    }

    pub(super) fn of_tag(&self, tag: usize) -> Option<TagOutcome> {
        let facts = self.rules.facts.tags.get(tag)?;
        let own = self.rules.own_reasons(tag);
        let subject = match facts.role {
            TagRole::Referrer(subject) => Some(subject),
            TagRole::Image | TagRole::Orphan => None,
        };
        let rule = facts.rule.map(|rule| rule as usize);
        let expiry = self.rules.facts.expiry(tag).filter(|_| subject.is_none());
        let expires = expiry.map(|expiry| time(expiry.at));
        if self.tags.contains(tag) {
            let (reason, rule) = match (own.expired, subject) {
                (_, Some(subject)) => {
                    let digest = self.digest(subject)?;
                    let origin = self.origins.get(subject.at());
                    let rule = origin.and_then(|origin| FirstRule::rule(*origin));
                    (Reason::WithSubject { digest }, rule)
                }
                (Some(expired), None) => {
                    let (at, label) = (time(expired.at), expired.label);
                    (Reason::Expired { at, label }, rule)
                }
                (None, None) => (Reason::NoReasonToStay, rule),
            };
            return Some(TagOutcome {
                stays: false,
                reasons: vec![reason],
                rule,
                until: None,
                expires,
            });
        }
        let mut until = own.until();
        let mut reasons = own.reasons;
        if let Some(subject) = subject.filter(|subject| self.staying.contains(subject.at())) {
            let digest = self.digest(subject)?;
            reasons.push(Reason::OfKeptImage { digest });
            until = None;
        }
        if reasons.is_empty() {
            reasons.push(Reason::BeyondLimit);
            until = None;
        }
        Some(TagOutcome {
            stays: true,
            reasons,
            rule,
            until,
            expires,
        })
    }

    fn digest(&self, image: ImageIndex) -> Option<Digest> {
        let image = self.rules.inventory().images.get(image.at());
        image.map(|image| image.digest.clone())
    }

    /// The manifests that go.
    pub(super) fn going_images(&self) -> impl Iterator<Item = ImageIndex> {
        let goes = |image: &ImageIndex| !self.staying.contains(image.at());
        indexes(self.rules.inventory().images.len()).filter(goes)
    }
}

impl<'r, 'a> Choice<'r, 'a> {
    fn new(rules: &'r AppliedRules<'a>, origins: &[u32]) -> Self {
        let mut choice = Self {
            rules,
            roots: own_roots(rules, origins),
            images: Vec::new(),
            referrers: Vec::new(),
        };
        let facts = &rules.facts;
        for ((at, tag), record) in (0..).zip(&facts.tags).zip(&rules.inventory().tags) {
            if !rules.own_reasons(at as usize).reasons.is_empty() {
                choice.roots.push(record.image);
                continue;
            }
            match tag.role {
                TagRole::Image | TagRole::Orphan => choice.images.push(at),
                TagRole::Referrer(_) => choice.referrers.push(at),
            }
        }
        // By name among equals, as the inventory is.
        let newness = |at: &u32| Newness::of(facts, *at as usize);
        choice.images.sort_by_cached_key(newness);
        choice
    }

    /// As many as may go. If more referrers alone would go, nothing does: they have lost their
    /// subjects to somebody else.
    fn within(&self, max_tags: usize) -> Chosen {
        let is_within = |chosen: &Chosen| chosen.tags.count_ones(..) <= max_tags;
        let all = self.first(self.images.len());
        if is_within(&all) {
            return all;
        }
        // More referrers go with more images.
        let (mut most, mut above) = (None, self.images.len().min(max_tags.saturating_add(1)));
        let mut from = 0;
        while from < above {
            let middle = from.midpoint(above);
            let chosen = self.first(middle);
            if is_within(&chosen) {
                most = Some(chosen);
                from = middle + 1;
            } else {
                above = middle;
            }
        }
        most.unwrap_or_else(|| self.none())
    }

    /// The first so many of the images go.
    fn first(&self, count: usize) -> Chosen {
        let records = &self.rules.inventory().tags;
        let image = |at: &u32| records.get(*at as usize).map(|record| record.image);
        let (going, others) = self.images.split_at(count.min(self.images.len()));
        let others = others.iter().filter_map(image);
        let graph = &self.rules.facts.graph;
        let staying = graph.needed(self.roots.iter().copied().chain(others));
        let subject_goes = |at: &u32| match self.rules.facts.tags.get(*at as usize) {
            Some(tag) => match tag.role {
                TagRole::Referrer(subject) => !staying.contains(subject.at()),
                TagRole::Image | TagRole::Orphan => false,
            },
            None => false,
        };
        let mut tags = FixedBitSet::with_capacity(records.len());
        let referrers = self.referrers.iter().filter(|at| subject_goes(at));
        tags.extend(going.iter().chain(referrers).map(|at| *at as usize));
        Chosen { tags, staying }
    }

    fn none(&self) -> Chosen {
        let inventory = self.rules.inventory();
        let tagged = inventory.tags.iter().map(|record| record.image);
        let roots = self.roots.iter().copied().chain(tagged);
        Chosen {
            tags: FixedBitSet::with_capacity(inventory.tags.len()),
            staying: self.rules.facts.graph.needed(roots),
        }
    }
}

/// For each image, the first rule of the tags that lead to it or to what it is a referrer of.
fn origins(rules: &AppliedRules<'_>) -> Vec<u32> {
    let tags = rules.facts.tags.iter().zip(&rules.inventory().tags);
    let given = tags.map(|(tag, record)| Given {
        value: FirstRule::value(tag.rule),
        to: record.image,
    });
    rules.facts.graph.lower(given.collect())
}

/// The images that stay although no tag needs them: those that no tag leads to, that are in use
/// elsewhere, that are young, and that were pulled within the time of their rule, as far as that is
/// known.
fn own_roots(rules: &AppliedRules<'_>, origins: &[u32]) -> Vec<ImageIndex> {
    let facts = &rules.facts;
    let tags = facts.tags.iter().zip(&rules.inventory().tags);
    let windows = (0..).zip(tags).filter_map(|(at, (_, record))| {
        let window = facts.rule(at)?.keep?.pulled_within?;
        Some(Given {
            value: u32::try_from(window.as_secs()).unwrap_or(u32::MAX),
            to: record.image,
        })
    });
    let windows = facts.graph.lower(windows.collect());
    let min_age = facts.settings.runs.min_age;
    let is_young = |image: &ImageRecord| match facts.counted_push(image.pushed) {
        Some(pushed) => facts.is_within(pushed, min_age),
        None => !min_age.is_zero(),
    };
    let is_pulled = |at: ImageIndex, window: u32| {
        let window = std::time::Duration::from_secs(window.into());
        let within = |time: u32| facts.is_within(time, window);
        let is_known = facts.recorded_since.is_some_and(|since| !within(since));
        !window.is_zero() && (!is_known || facts.pulled(at).is_some_and(within))
    };
    let images = &rules.inventory().images;
    let values = origins.iter().zip(windows);
    indexes(images.len())
        .zip(images.iter().zip(values))
        .filter(|(at, (image, (origin, window)))| {
            **origin == 0
                || facts.used_by(*at).is_some()
                || is_young(image)
                || is_pulled(*at, *window)
        })
        .map(|(at, _)| at)
        .collect()
}

/// Where an image comes from, as a number of which the largest counts: 0 is from no tag, 1 from tags
/// that no rule matches.
struct FirstRule;

impl FirstRule {
    fn value(rule: Option<u32>) -> u32 {
        rule.map_or(1, |rule| u32::MAX - rule.min(u32::MAX - 2))
    }

    fn rule(value: u32) -> Option<usize> {
        (value > 1).then(|| (u32::MAX - value) as usize)
    }
}
