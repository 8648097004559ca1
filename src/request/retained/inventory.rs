//! The inventory of a repository at an upstream: all tags with their manifests, what these list, and
//! their referrers, joined with what the journal knows of their use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::calls::RepositoryCalls;
use super::facts::ManifestFacts;
use super::lanes::in_lanes;
use crate::journal::RepositoryHistory;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::expiry::whole_seconds;
use crate::retention::inventory::{ImageIndex, ImageRecord, Inventory, TagRecord, UnixSeconds};
use crate::retention::registry::RegistryError;

/// What is known beside the registry.
pub(super) struct KnownUse {
    /// As clients know it.
    pub(super) repository: RepositoryName,
    pub(super) history: RepositoryHistory,
    pub(super) recorded_since: Option<Timestamp>,
    /// The label that says how long an image may live.
    pub(super) expiry_label: Option<Box<str>>,
}

/// The tags of a repository and the manifests that they lead to.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) tags: BTreeMap<Tag, Digest>,
    manifests: BTreeMap<Digest, Arc<ManifestFacts>>,
}

/// Which manifests are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that the tags need.
    Needed,
    /// Also their referrers, and what these refer to.
    WithReferrers,
}

/// Of one repository. Each takes a request.
const MAX_MANIFESTS: usize = 1_000_000;

impl Contents {
    /// Reads all tags, and what they lead to.
    pub(super) async fn read(
        calls: &RepositoryCalls,
        extent: Extent,
    ) -> Result<Self, RegistryError> {
        let mut contents = Self::default();
        let tags = calls.tags().await?;
        contents.add(calls, tags, extent).await?;
        Ok(contents)
    }

    /// Adds tags, or where they lead now, and what they lead to. One that has gone is left out.
    pub(super) async fn add(
        &mut self,
        calls: &RepositoryCalls,
        tags: BTreeSet<Tag>,
        extent: Extent,
    ) -> Result<(), RegistryError> {
        for tag in &tags {
            self.tags.remove(tag);
        }
        let resolved = resolved(calls, tags).await?;
        let mut waiting = Waiting::default();
        for (tag, digest) in resolved {
            if extent == Extent::WithReferrers {
                waiting.unsure.extend(tag.subject());
            }
            waiting.sure.insert(digest.clone());
            self.tags.insert(tag, digest);
        }
        while waiting.is_left(&self.manifests) {
            let found = self.read_waiting(calls, &mut waiting, extent).await?;
            for (digest, found) in found {
                let Some((facts, referrers)) = found else {
                    waiting.missing.insert(digest);
                    continue;
                };
                waiting.sure.extend(facts.children.iter().cloned());
                if extent == Extent::WithReferrers {
                    waiting.unsure.extend(facts.subject.clone());
                    waiting.sure.extend(referrers);
                }
                self.manifests.insert(digest, facts);
            }
            if self.manifests.len() > MAX_MANIFESTS {
                return Err(too_large());
            }
        }
        Ok(())
    }

    /// Reads the manifests that wait, with their referrers.
    async fn read_waiting(
        &self,
        calls: &RepositoryCalls,
        waiting: &mut Waiting,
        extent: Extent,
    ) -> Result<Vec<ManifestWithReferrers>, RegistryError> {
        let sure = std::mem::take(&mut waiting.sure);
        let unsure = std::mem::take(&mut waiting.unsure);
        let unsure = unsure.into_iter().filter(|digest| !sure.contains(digest));
        let unsure: Vec<_> = unsure.map(|digest| (digest, false)).collect();
        let all = sure.into_iter().map(|digest| (digest, true)).chain(unsure);
        let is_new = |(digest, _): &(Digest, bool)| {
            !self.manifests.contains_key(digest) && !waiting.missing.contains(digest)
        };
        let read = |(digest, is_there): (Digest, bool)| async move {
            if !is_there && !calls.has_manifest(&digest).await? {
                return Ok((digest, None));
            }
            let Some(facts) = calls.facts(&digest).await? else {
                return Ok((digest, None));
            };
            let referrers = match extent {
                Extent::Needed => Vec::new(),
                Extent::WithReferrers => calls.referrers(&digest).await?,
            };
            Ok::<_, RegistryError>((digest, Some((facts, referrers))))
        };
        in_lanes(all.filter(is_new).collect(), read).await
    }

    /// Joined with their use.
    pub(super) fn into_inventory(self, known: KnownUse) -> Inventory {
        let Self { tags, manifests } = self;
        let KnownUse {
            repository,
            history,
            recorded_since,
            expiry_label,
        } = known;
        let digests = manifests.keys().zip(0..);
        let places: HashMap<&Digest, ImageIndex> = digests
            .map(|(digest, place)| (digest, ImageIndex(place)))
            .collect();
        let place = |digest: &Digest| places.get(digest).copied();
        let images = manifests.iter().map(|(digest, facts)| {
            let used = history.manifests.get(digest).copied().unwrap_or_default();
            let life = expiry_label.as_deref();
            let life = life.and_then(|label| facts.config.life(label));
            ImageRecord {
                digest: digest.clone(),
                children: facts.children.iter().filter_map(place).collect(),
                subject: facts.subject.as_ref().and_then(place),
                pushed: used.pushed.map(UnixSeconds::from),
                pulled: used.pulled.map(UnixSeconds::from),
                expires_after: life.and_then(whole_seconds),
                created: facts.config.created.map(UnixSeconds::from),
                content: facts.content.clone(),
            }
        });
        let tags = tags.iter().filter_map(|(tag, digest)| {
            let used = history.tags.get(tag).copied().unwrap_or_default();
            Some(TagRecord {
                tag: tag.clone(),
                image: place(digest)?,
                pushed: used.pushed.map(UnixSeconds::from),
                pulled: used.pulled.map(UnixSeconds::from),
            })
        });
        Inventory {
            repository,
            tags: tags.collect(),
            images: images.collect(),
            recorded_since,
            expiry_label,
        }
    }

    /// All manifests that the tags need: those that they lead to, and what these list.
    pub(super) fn needed(&self) -> BTreeSet<&Digest> {
        let mut needed = BTreeSet::new();
        let mut waiting: Vec<&Digest> = self.tags.values().collect();
        while let Some(digest) = waiting.pop() {
            if needed.insert(digest)
                && let Some(facts) = self.manifests.get(digest)
            {
                waiting.extend(&facts.children);
            }
        }
        needed
    }
}

/// A manifest that was looked for, with its referrers.
type ManifestWithReferrers = (Digest, Option<(Arc<ManifestFacts>, Vec<Digest>)>);

/// Manifests that are still to be read.
#[derive(Default)]
struct Waiting {
    /// Tags lead to them, or indexes list them.
    sure: BTreeSet<Digest>,
    /// Referrers name them, so that they need not be there. What is known of them may come from
    /// another repository.
    unsure: BTreeSet<Digest>,
    missing: BTreeSet<Digest>,
}

impl Waiting {
    fn is_left(&self, read: &BTreeMap<Digest, Arc<ManifestFacts>>) -> bool {
        let mut all = self.sure.iter().chain(&self.unsure);
        all.any(|digest| !read.contains_key(digest) && !self.missing.contains(digest))
    }
}

fn too_large() -> RegistryError {
    RegistryError::Unsupported(format!(
        "the repository has more than {MAX_MANIFESTS} manifests"
    ))
}

/// The manifests to which tags lead. What has gone meanwhile is left out.
pub(super) async fn resolved(
    calls: &RepositoryCalls,
    tags: BTreeSet<Tag>,
) -> Result<BTreeMap<Tag, Digest>, RegistryError> {
    let resolve = |tag: Tag| async move {
        let digest = calls.digest_of(&tag).await?;
        Ok::<_, RegistryError>(digest.map(|digest| (tag, digest)))
    };
    let found = in_lanes(tags.into_iter().collect(), resolve).await?;
    Ok(found.into_iter().flatten().collect())
}
