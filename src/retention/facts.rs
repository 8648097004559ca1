//! What is known of each tag before a rule is applied: the rule that decides, the image whose
//! referrer it is, and the uses of all that it leads to.

use std::time::Duration;

use jiff::Timestamp;

use super::graph::{ImageGraph, indexes};
use super::in_use::InUse;
use super::inventory::{ImageIndex, ImageRecord, Inventory, TagRecord, UnixSeconds};
use crate::config::retention::{RetentionRule, RetentionSettings};
use crate::registry::reference::Tag;

/// All that decisions about a repository depend on.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) settings: &'a RetentionSettings,
    pub(super) in_use: &'a InUse,
    /// Times in seconds; what is said to be later counts as now.
    pub(super) now: u32,
    pub(super) recorded_since: Option<u32>,
    pub(super) graph: ImageGraph<'a>,
    /// In the order of the inventory.
    pub(super) tags: Vec<TagFacts>,
    uses: ImageUses,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct TagFacts {
    /// As an index of the settings.
    pub(super) rule: Option<u32>,
    pub(super) role: TagRole,
}

/// What a tag is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagRole {
    Image,
    /// A referrer of this image.
    Referrer(ImageIndex),
    /// A referrer of an image that the repository does not have, or a tag that looks like one.
    Orphan,
}

/// When an image expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) at: u64,
    /// Whether its label says so, not the rule.
    pub(super) label: bool,
}

/// For each image, of itself and all that it lists. 0 is none.
#[derive(Debug)]
struct ImageUses {
    pulled: Vec<u32>,
    created: Vec<u32>,
    /// How long its label lets it live.
    lives: Vec<u32>,
    /// The place of the source that names it, from 1.
    in_use: Vec<u32>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        settings: &'a RetentionSettings,
        in_use: &'a InUse,
        now: Timestamp,
    ) -> Self {
        let now = UnixSeconds::from(now).seconds();
        let tags = tag_facts(inventory, settings);
        let referrers: Vec<_> = (tags.iter().zip(&inventory.tags))
            .filter_map(|(facts, record)| match facts.role {
                TagRole::Referrer(subject) => Some((subject, record.image)),
                TagRole::Image | TagRole::Orphan => None,
            })
            .collect();
        let graph = ImageGraph::new(inventory, &referrers);
        let since = inventory.recorded_since.map(UnixSeconds::from);
        Self {
            uses: ImageUses::new(inventory, in_use, &graph, now),
            inventory,
            settings,
            in_use,
            now,
            recorded_since: since.map(|since| since.seconds().min(now)),
            graph,
            tags,
        }
    }

    pub(super) fn rule(&self, tag: usize) -> Option<&'a RetentionRule> {
        let rule = self.tags.get(tag)?.rule?;
        self.settings.rules.get(rule as usize)
    }

    /// The last pull of an image, or of anything that it lists.
    pub(super) fn pulled(&self, image: ImageIndex) -> Option<u32> {
        nonzero_at(&self.uses.pulled, image)
    }

    /// The last pull of a tag, by its name or of what it leads to.
    pub(super) fn tag_pulled(&self, tag: &TagRecord) -> Option<u32> {
        let by_name = tag.pulled.map(|pulled| pulled.seconds().min(self.now));
        by_name.max(self.pulled(tag.image))
    }

    /// A push that is known.
    pub(super) fn pushed(&self, pushed: Option<UnixSeconds>) -> Option<u32> {
        pushed.map(|pushed| pushed.seconds().min(self.now))
    }

    /// The time from which the age of a push counts: one that was not seen was before recording
    /// began. `None`: not known.
    pub(super) fn counted_push(&self, pushed: Option<UnixSeconds>) -> Option<u32> {
        self.pushed(pushed).or(self.recorded_since)
    }

    pub(super) fn created(&self, image: ImageIndex) -> Option<u32> {
        nonzero_at(&self.uses.created, image)
    }

    /// The source that names an image by its digest, or anything that it lists.
    pub(super) fn used_by(&self, image: ImageIndex) -> Option<&'a str> {
        let at = nonzero_at(&self.uses.in_use, image)?;
        Some(self.in_use.source(super::in_use::SourceIndex(at - 1)))
    }

    /// When a tag expires: by the earlier of its rule's `ttl` and its label, counted from its push.
    pub(super) fn expiry(&self, tag: usize) -> Option<Expiry> {
        let rule = self.rule(tag)?;
        let record = self.inventory.tags.get(tag)?;
        let from = self.counted_push(record.pushed)?;
        let reads_label =
            rule.expiry_label.is_some() && rule.expiry_label == self.inventory.expiry_label;
        let lives = nonzero_at(&self.uses.lives, record.image).filter(|_| reads_label);
        let (life, label) = match (rule.ttl.map(|ttl| ttl.as_secs()), lives.map(u64::from)) {
            (Some(ttl), Some(label)) if label < ttl => (label, true),
            (Some(ttl), _) => (ttl, false),
            (None, Some(label)) => (label, true),
            (None, None) => return None,
        };
        Some(Expiry {
            at: u64::from(from).saturating_add(life),
            label,
        })
    }

    pub(super) fn is_expired(&self, tag: usize) -> bool {
        let expiry = self.expiry(tag);
        expiry.is_some_and(|expiry| expiry.at <= self.now.into())
    }

    /// Whether so much time has not yet passed since then.
    pub(super) fn is_within(&self, time: u32, within: Duration) -> bool {
        end_of(time, within) > self.now.into()
    }
}

impl ImageUses {
    fn new(inventory: &Inventory, in_use: &InUse, graph: &ImageGraph<'_>, now: u32) -> Self {
        let lifted = |own: &dyn Fn(&ImageRecord) -> u32| {
            let own: Vec<_> = inventory.images.iter().map(own).collect();
            graph.lift(&own)
        };
        let time =
            |time: Option<UnixSeconds>| time.map_or(0, |time: UnixSeconds| time.seconds().min(now));
        let in_use = in_use.of(&inventory.repository);
        Self {
            pulled: lifted(&|image| time(image.pulled)),
            created: lifted(&|image| time(image.created)),
            lives: lives(inventory, graph),
            in_use: if in_use.is_empty() {
                Vec::new()
            } else {
                lifted(&|image| {
                    in_use
                        .digest(&image.digest)
                        .map_or(0, |source| source.0 + 1)
                })
            },
        }
    }
}

/// How long each image may live by a label. An index expires with the last of the images that it
/// lists, if each of them does: one that is not known to be built by anybody, as the attestations of
/// BuildKit, is none.
fn lives(inventory: &Inventory, graph: &ImageGraph<'_>) -> Vec<u32> {
    let own = |image: &ImageRecord| image.expires_after.map_or(0, |life| life.get());
    let own: Vec<_> = inventory.images.iter().map(own).collect();
    if own.iter().all(|life| *life == 0) {
        return Vec::new();
    }
    let is_endless = |image: &ImageRecord| {
        let endless = image.expires_after.is_none() && image.created.is_some();
        u32::from(endless)
    };
    let endless: Vec<_> = inventory.images.iter().map(is_endless).collect();
    let endless = graph.lift(&endless);
    let lifted = graph.lift(&own);
    own.iter()
        .zip(lifted.iter().zip(endless))
        .map(|(own, (lifted, endless))| match (*own, endless) {
            (0, 0) => *lifted,
            (own, _) => own,
        })
        .collect()
}

fn tag_facts(inventory: &Inventory, settings: &RetentionSettings) -> Vec<TagFacts> {
    let repository = inventory.repository.as_str();
    let rules: Vec<_> = (0..)
        .zip(&settings.rules)
        .filter(|(_, rule)| {
            let mut patterns = rule.repositories.iter();
            patterns.any(|pattern| pattern.matches(repository, None))
        })
        .collect();
    let digests = DigestIndex::new(inventory);
    let facts = |record: &TagRecord| {
        let tag = record.tag.as_str();
        let mut rules = rules.iter();
        let rule = rules.find(|(_, rule)| rule.tags.iter().any(|pattern| pattern.matches(tag)));
        TagFacts {
            rule: rule.map(|(at, _)| *at),
            role: digests.role(record),
        }
    };
    inventory.tags.iter().map(facts).collect()
}

/// The images in the order of their digests, if any tag looks like one of a referrer.
struct DigestIndex<'a> {
    inventory: &'a Inventory,
    sorted: Vec<ImageIndex>,
}

impl<'a> DigestIndex<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        let mut tags = inventory.tags.iter();
        let mut sorted: Vec<_> = if tags.any(|record| subject_prefix(&record.tag).is_some()) {
            indexes(inventory.images.len()).collect()
        } else {
            Vec::new()
        };
        let digest = |at: &ImageIndex| inventory.images.get(at.at()).map(|image| &image.digest);
        sorted.sort_unstable_by_key(digest);
        Self { inventory, sorted }
    }

    fn role(&self, record: &TagRecord) -> TagRole {
        let Some(prefix) = subject_prefix(&record.tag) else {
            return TagRole::Image;
        };
        let digest = |at: ImageIndex| {
            let image = self.inventory.images.get(at.at());
            image.map_or("", |image| image.digest.as_str())
        };
        let at = self.sorted.partition_point(|at| digest(*at) < &*prefix);
        match self.sorted.get(at) {
            // A tag that names its own image.
            Some(subject) if *subject == record.image => TagRole::Image,
            Some(subject) if digest(*subject).starts_with(&prefix) => TagRole::Referrer(*subject),
            _ => TagRole::Orphan,
        }
    }
}

/// The beginning of the digest of the manifest whose referrers have this tag: `sha256-HEX`, also with
/// `.sig`, `.att`, `.sbom` or another end (distribution specification, "Referrers Tag Schema", which
/// cuts longer digests after 64 characters, and cosign).
fn subject_prefix(tag: &Tag) -> Option<String> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let encoded = rest.split('.').next().unwrap_or_default();
    let is_hexadecimal = encoded.len() == 64
        && encoded
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_subject = is_hexadecimal && ["sha256", "sha512"].contains(&algorithm);
    is_subject.then(|| format!("{algorithm}:{encoded}"))
}

fn nonzero_at(values: &[u32], image: ImageIndex) -> Option<u32> {
    values.get(image.at()).copied().filter(|value| *value > 0)
}

/// When a time span is over.
pub(super) fn end_of(time: u32, span: Duration) -> u64 {
    u64::from(time).saturating_add(span.as_secs())
}
