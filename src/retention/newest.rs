//! Ranks the tags of each group by their pushes.

use super::facts::{Facts, TagRole};
use super::grouping::GroupKey;
use crate::config::retention::RetentionRule;

/// How new a tag is. Pushes that are known are newer than the others, which the builds of their
/// images order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Newness {
    Built(u32),
    /// Neither its push nor its build is known: no older than any other of these.
    Unknown,
    Pushed(u32),
}

/// A tag that is ranked.
struct RankedTag<'t> {
    group: GroupKey<'t>,
    newness: Newness,
    at: u32,
}

impl Newness {
    pub(super) fn of(facts: &Facts<'_>, tag: usize) -> Self {
        let Some(record) = facts.inventory.tags.get(tag) else {
            return Self::Unknown;
        };
        match (facts.pushed(record.pushed), facts.created(record.image)) {
            (Some(pushed), _) => Self::Pushed(pushed),
            (None, Some(created)) => Self::Built(created),
            (None, None) => Self::Unknown,
        }
    }
}

/// For each tag, how many of its group are newer for certain, and itself. 0: it has no rank. Tags
/// that `protect` names, that have expired, and that are of referrers are not counted, so that as
/// many others stay as the rule says.
pub(super) fn ranks(facts: &Facts<'_>) -> Vec<u32> {
    let mut ranks = vec![0; facts.tags.len()];
    for (rule, at) in facts.settings.rules.iter().zip(0..) {
        if rule.keep.is_some_and(|kept| kept.newest.is_some()) {
            rank(&mut ranks, ranked_tags(facts, rule, at));
        }
    }
    ranks
}

fn ranked_tags<'a>(facts: &Facts<'a>, rule: &RetentionRule, rule_at: u32) -> Vec<RankedTag<'a>> {
    let tags = (0..)
        .zip(facts.tags.iter().zip(&facts.inventory.tags))
        .filter(|(_, (tag, _))| tag.rule == Some(rule_at))
        .filter_map(|(at, (tag, record))| {
            let name = record.tag.as_str();
            let group = match tag.role {
                TagRole::Image => GroupKey::of(name, &rule.per),
                TagRole::Orphan => GroupKey::Orphans,
                TagRole::Referrer(_) => return None,
            };
            let is_protected = rule.protect.iter().any(|pattern| pattern.matches(name));
            let index = at as usize;
            let counts = !is_protected && !facts.is_expired(index);
            counts.then(|| RankedTag {
                group,
                newness: Newness::of(facts, index),
                at,
            })
        });
    // Grown by doubling it would take twice as much.
    let mut ranked = Vec::with_capacity(facts.tags.len());
    ranked.extend(tags);
    ranked.sort_unstable_by(|a, b| a.group.cmp(&b.group).then(b.newness.cmp(&a.newness)));
    ranked
}

/// Those that are equal have the rank of the first of them.
fn rank(ranks: &mut [u32], tags: Vec<RankedTag<'_>>) {
    for group in tags.chunk_by(|a, b| a.group == b.group) {
        let (mut newer, mut unknown) = (1, 0);
        for equal in group.chunk_by(|a, b| a.newness == b.newness) {
            let count = u32::try_from(equal.len()).unwrap_or(u32::MAX);
            for tag in equal {
                if let Some(rank) = ranks.get_mut(tag.at as usize) {
                    *rank = newer - unknown;
                }
            }
            if let Some(Newness::Unknown) = equal.first().map(|tag| tag.newness) {
                unknown = count;
            }
            newer += count;
        }
    }
}
