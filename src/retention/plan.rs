//! What becomes of each tag and manifest of a repository, and why.

use jiff::Timestamp;

use super::decisions::Decisions;
use super::facts::Facts;
use super::in_use::InUse;
use super::inventory::{ImageIndex, Inventory, UnixSeconds};
use super::removal;
use super::rules::{AppliedRules, time};
use crate::config::retention::RetentionSettings;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;

pub(crate) use super::reason::{Reason, TagOutcome};

/// The plan for a repository. What is said of a tag is put together when it is read, so that a plan
/// for 100,000 tags needs little memory beside the inventory.
#[derive(Debug)]
pub(crate) struct RepositoryPlan<'a> {
    decisions: Decisions<'a>,
    /// How many tags go.
    pub(crate) going: usize,
    /// The manifests that go with the tags, in the order in which they may go: an index before what
    /// it lists, and a subject before its referrers.
    pub(crate) manifests: Vec<PlannedManifest>,
    /// What comes free, in bytes, where the sizes are known.
    pub(crate) bytes: u64,
}

/// Plans what becomes of a repository, of whose tags at most `max_tags` go: those that were pushed
/// first. A run passes what it may still take away.
pub(crate) fn plan_repository<'a>(
    inventory: &'a Inventory,
    settings: &'a RetentionSettings,
    in_use: &'a InUse,
    now: Timestamp,
    max_tags: usize,
) -> RepositoryPlan<'a> {
    let rules = AppliedRules::new(Facts::new(inventory, settings, in_use, now));
    let decisions = Decisions::new(rules, max_tags);
    let going = removal::in_order(&decisions);
    let planned = |image: &ImageIndex| {
        let image = inventory.images.get(image.at())?;
        Some(PlannedManifest {
            digest: image.digest.clone(),
            pulled: image.pulled.map(UnixSeconds::timestamp),
        })
    };
    let mut manifests = Vec::with_capacity(going.len());
    manifests.extend(going.iter().filter_map(planned));
    RepositoryPlan {
        going: decisions.tags.count_ones(..),
        manifests,
        bytes: removal::freed_bytes(&decisions, &going),
        decisions,
    }
}

impl RepositoryPlan<'_> {
    /// All tags, in the order of their names.
    pub(crate) fn tags(&self) -> impl Iterator<Item = PlannedTag> {
        (0..self.inventory().tags.len()).filter_map(|at| self.at(at))
    }

    /// What becomes of one tag.
    pub(crate) fn tag(&self, tag: &Tag) -> Option<PlannedTag> {
        let tags = &self.inventory().tags;
        let found = tags.binary_search_by(|record| record.tag.cmp(tag));
        self.at(found.ok()?)
    }

    fn inventory(&self) -> &Inventory {
        self.decisions.rules.inventory()
    }

    fn at(&self, at: usize) -> Option<PlannedTag> {
        let record = self.inventory().tags.get(at)?;
        let image = self.inventory().images.get(record.image.at())?;
        let pulled = self.decisions.rules.facts.tag_pulled(record);
        Some(PlannedTag {
            tag: record.tag.clone(),
            digest: image.digest.clone(),
            decision: self.decisions.of_tag(at)?,
            pushed: record.pushed.map(UnixSeconds::timestamp),
            pulled: pulled.map(|pulled| time(pulled.into())),
        })
    }
}

/// What becomes of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedTag {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) decision: TagOutcome,
    pub(crate) pushed: Option<Timestamp>,
    /// The last pull of the tag, of its manifest, or of anything below that.
    pub(crate) pulled: Option<Timestamp>,
}

/// A manifest that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedManifest {
    pub(crate) digest: Digest,
    /// The last pull that is known: a later one saves it.
    pub(crate) pulled: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
