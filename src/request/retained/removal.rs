//! Takes tags and manifests of a repository away, each only if it is as it was planned: looked up
//! again under the lock that writes through moorgate take. The deletion of a manifest takes all tags
//! that lead to it. So it is looked up where all tags lead before the first one, and with the whole
//! repository locked, where those do that are new or were pushed since.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant};

use super::calls::{RepositoryCalls, failed};
use super::inventory::{Contents, Extent, KnownUse};
use super::{LastContents, RetainedUpstream};
use crate::config::upstream::Untag;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::request::answer::detached::run_detached;
use crate::request::answer::own_deletion::{DeletionError, OwnDeletion};
use crate::request::answer::swap::Swap;
use crate::retention::inventory::UnixSeconds;
use crate::retention::registry::{DoomedManifest, DoomedTag, RegistryError, Removal, Removed};

/// The work at one repository.
pub(super) struct RepositoryRemoval<'a> {
    pub(super) upstream: &'a RetainedUpstream,
    pub(super) calls: &'a RepositoryCalls,
    pub(super) deletion: OwnDeletion,
    pub(super) setting: Option<Untag>,
    pub(super) known: KnownUse,
    /// When that was read.
    pub(super) known_since: Instant,
    pub(super) removed: Removed,
}

/// Manifests that are deleted under one lock: writers wait for so many deletions at most.
const MANIFESTS_PER_LOCK: usize = 10;
/// No further one is deleted under a lock that was taken so long ago: pushes wait for it.
const LOCKED_AT_ONCE: Duration = Duration::from_secs(2);
/// How long it is believed where tags lead that were not pushed through moorgate meanwhile. Whoever
/// else moves a tag that is there to a manifest that goes, within this time, loses the tag.
const CONTENTS_LIFE: Duration = Duration::from_mins(2);
/// In a repository whose tags take long to be looked up, they are believed so many times as long.
const CONTENTS_LIFE_FACTOR: u32 = 4;
/// How long the journal of the repository as a whole is believed; that of a tag is read each time.
const HISTORY_LIFE: Duration = Duration::from_secs(10);
/// The journal's times are shorter than this before the pushes that they are of.
const JOURNAL_PRECISION: SignedDuration = SignedDuration::from_mins(2);

impl RepositoryRemoval<'_> {
    /// Takes tags and manifests away: a subject before the tags of its referrers, and each tag
    /// before its manifest.
    pub(super) async fn run(&mut self, removal: &Removal) -> Result<(), RegistryError> {
        let order = RemovalSteps::new(removal);
        for doomed in order.images {
            let image_goes = order.going.contains(&doomed.digest);
            Box::pin(self.tag(doomed, image_goes)).await?;
        }
        for step in order.steps {
            let needed = match step.tags.is_empty() {
                true => HashSet::new(),
                false => self.needed().await?,
            };
            for doomed in step.tags {
                // It stays with its subject, which may have been used since the plan.
                let subject = doomed.tag.subject();
                if subject.is_some_and(|subject| needed.contains(&subject)) {
                    let tag = &doomed.tag;
                    self.leave(format!("{tag}: a tag leads to its subject since the plan"));
                    continue;
                }
                let image_goes = order.going.contains(&doomed.digest);
                Box::pin(self.tag(doomed, image_goes)).await?;
            }
            self.manifests(&step.manifests).await?;
        }
        Ok(())
    }

    /// What tags lead to now.
    async fn needed(&self) -> Result<HashSet<Digest>, RegistryError> {
        let mut contents = self.contents().await?;
        self.update(&mut contents).await?;
        let needed = contents.contents.needed().into_iter().cloned().collect();
        *self.last_contents() = Some(contents);
        Ok(needed)
    }

    /// `image_goes`: whether its manifest is to go as well.
    async fn tag(&mut self, doomed: &DoomedTag, image_goes: bool) -> Result<(), RegistryError> {
        let DoomedTag { tag, digest, .. } = doomed;
        let registry = self.upstream.site.host.registry.to_string();
        let locks = &self.upstream.gateway.tag_locks;
        let tags = [tag].into_iter();
        let guards = locks.lock(&registry, &self.calls.name, tags).await;
        let guards = guards.map_err(|_| RegistryError::Locked)?;
        match self.calls.digest_of(tag).await? {
            None => {
                self.removed.tags.push(tag.clone());
                return Ok(());
            }
            Some(now) if now != *digest => {
                self.leave(format!("{tag} leads to another manifest since the plan"));
                return Ok(());
            }
            Some(_) => {}
        }
        if let Some(how) = self.used_since(doomed).await? {
            self.leave(format!("{tag} was {how} since the plan"));
            return Ok(());
        }
        let untagging = Untagging {
            deletion: self.deletion.clone(),
            tag: tag.clone(),
            setting: self.way(image_goes),
        };
        let Err(error) = Box::pin(run_detached(guards, untagging.run())).await else {
            self.removed.tags.push(tag.clone());
            return Ok(());
        };
        if let Some(why) = error.left_by_product() {
            self.leave(format!("{tag}: {why}"));
            return Ok(());
        }
        // An answer may be lost, or an error come with what was done all the same.
        match self.calls.digest_of(tag).await {
            Ok(None) => self.removed.tags.push(tag.clone()),
            Ok(Some(_)) | Err(_) => return Err(error.at(tag.as_str())),
        }
        Ok(())
    }

    /// How the tag is deleted. Where a product deletes a manifest with its last tag, and the manifest
    /// stays, another one takes the tag first.
    fn way(&self, image_goes: bool) -> Option<Untag> {
        let capabilities = self.deletion.api.dialect.capabilities();
        match self.setting {
            None if capabilities.image_goes_with_last_tag && !image_goes => Some(Untag::Swap),
            setting => setting,
        }
    }

    /// What became of a tag since the plan, or of what it leads to.
    async fn used_since(
        &mut self,
        doomed: &DoomedTag,
    ) -> Result<Option<&'static str>, RegistryError> {
        let DoomedTag { tag, digest, .. } = doomed;
        self.refresh_history().await?;
        let of_tag = self
            .upstream
            .use_of_tag(&self.known.repository, tag)
            .await?;
        if is_later(of_tag.pushed, doomed.pushed) {
            return Ok(Some("pushed"));
        }
        let mut waiting = vec![digest.clone()];
        let mut seen = BTreeSet::new();
        let mut pulled = of_tag.pulled;
        while let Some(digest) = waiting.pop() {
            pulled = pulled.max(self.pulled(&digest));
            let facts = self.calls.facts(&digest).await?;
            for child in facts.iter().flat_map(|facts| &facts.children) {
                if seen.insert(child.clone()) {
                    waiting.push(child.clone());
                }
            }
        }
        Ok(is_later(pulled, doomed.pulled).then_some("pulled"))
    }

    fn pulled(&self, digest: &Digest) -> Option<Timestamp> {
        self.known.history.manifests.get(digest)?.pulled
    }

    async fn refresh_history(&mut self) -> Result<(), RegistryError> {
        if self.known_since.elapsed() > HISTORY_LIFE {
            self.known_since = Instant::now();
            self.known = self.upstream.known_use(&self.known.repository).await?;
        }
        Ok(())
    }

    async fn manifests(&mut self, doomed: &[&DoomedManifest]) -> Result<(), RegistryError> {
        let registry = self.upstream.site.host.registry.to_string();
        let mut waiting = doomed.iter();
        while !waiting.as_slice().is_empty() {
            let mut contents = self.contents().await?;
            let locks = &self.upstream.gateway.tag_locks;
            let guard = locks.lock_repository(&registry, &self.calls.name).await;
            let guard = Arc::new(guard.map_err(|_| RegistryError::Locked)?);
            let locked = Instant::now();
            self.known_since = locked;
            self.known = self.upstream.known_use(&self.known.repository).await?;
            self.update(&mut contents).await?;
            for doomed in waiting.by_ref().take(MANIFESTS_PER_LOCK) {
                match self.needed_again(&contents.contents, doomed) {
                    Some(why) => self.leave(format!("{}: {why}", doomed.digest)),
                    None => self.manifest(&doomed.digest, guard.clone()).await?,
                }
                if locked.elapsed() > LOCKED_AT_ONCE {
                    break;
                }
            }
            *self.last_contents() = Some(contents);
        }
        Ok(())
    }

    fn last_contents(&self) -> std::sync::MutexGuard<'_, Option<LastContents>> {
        let last = self.upstream.last_contents.lock();
        last.unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the tags lead, as it was found a short time ago, or now.
    async fn contents(&self) -> Result<LastContents, RegistryError> {
        let last = self.last_contents().take();
        let is_believed =
            |last: &LastContents| last.name == self.calls.name && Instant::now() < last.expires;
        if let Some(last) = last.filter(is_believed) {
            return Ok(last);
        }
        let (begun, since) = (Instant::now(), Timestamp::now());
        let contents = Contents::read(self.calls, Extent::Needed).await?;
        let life = CONTENTS_LIFE.max(begun.elapsed() * CONTENTS_LIFE_FACTOR);
        Ok(LastContents {
            name: self.calls.name.clone(),
            contents,
            since,
            expires: begun + life,
        })
    }

    /// Looks up the tags that are new, or that were pushed through moorgate.
    async fn update(&self, last: &mut LastContents) -> Result<(), RegistryError> {
        let mut tags = self.calls.tags().await?;
        last.contents.tags.retain(|tag, _| tags.contains(tag));
        let since = last.since.saturating_sub(JOURNAL_PRECISION);
        let since = since.map_err(|error| failed("the clock", error))?;
        let history = &self.known.history;
        tags.retain(|tag| {
            let pushed = history.tags.get(tag).and_then(|used| used.pushed);
            !last.contents.tags.contains_key(tag) || pushed.is_some_and(|at| at >= since)
        });
        last.contents.add(self.calls, tags, Extent::Needed).await
    }

    /// Why a manifest stays after all.
    fn needed_again(&self, contents: &Contents, doomed: &DoomedManifest) -> Option<&'static str> {
        let DoomedManifest { digest, pulled } = doomed;
        let needed = contents.needed();
        if needed.contains(digest) {
            return Some("a tag leads to it since the plan");
        }
        let used = self.known.history.manifests.get(digest).copied();
        let used = used.unwrap_or_default();
        if is_later(used.pulled, *pulled) {
            return Some("it was pulled since the plan");
        }
        let settings = self.upstream.site.host.retention.as_ref();
        let min_age = settings.map_or(Duration::ZERO, |settings| settings.runs.min_age);
        let is_young = |pushed: Timestamp| {
            let age = Timestamp::now().duration_since(pushed);
            age.unsigned_abs() < min_age
        };
        if used.pushed.is_some_and(is_young) {
            return Some("it was pushed since the plan");
        }
        let facts = self.upstream.gateway.known_manifests.get(digest);
        let subject = facts.and_then(|facts| facts.subject.clone());
        let is_needed = subject.is_some_and(|subject| needed.contains(&subject));
        is_needed.then_some("a tag leads to its subject since the plan")
    }

    async fn manifest(
        &mut self,
        digest: &Digest,
        guard: impl Send + 'static,
    ) -> Result<(), RegistryError> {
        let (deletion, of) = (self.deletion.clone(), digest.clone());
        let deleted = run_detached(guard, async move { deletion.manifest(&of).await }).await;
        let Err(error) = deleted else {
            self.removed.manifests.push(digest.clone());
            return Ok(());
        };
        if let Some(why) = error.left_by_product() {
            self.leave(format!("{digest}: {why}"));
            return Ok(());
        }
        match self.calls.has_manifest(digest).await {
            Ok(false) => self.removed.manifests.push(digest.clone()),
            Ok(true) | Err(_) => return Err(error.at(digest.as_str())),
        }
        Ok(())
    }

    fn leave(&mut self, why: String) {
        self.removed.changed.push(why);
    }
}

/// The order in which tags and manifests go.
struct RemovalSteps<'a> {
    /// The tags of images.
    images: Vec<&'a DoomedTag>,
    steps: Vec<RemovalStep<'a>>,
    /// All manifests that go.
    going: HashSet<&'a Digest>,
}

/// Tags of referrers, and the manifests that go afterwards.
#[derive(Default)]
struct RemovalStep<'a> {
    tags: Vec<&'a DoomedTag>,
    manifests: Vec<&'a DoomedManifest>,
}

impl<'a> RemovalSteps<'a> {
    fn new(removal: &'a Removal) -> Self {
        let is_of_referrer = |doomed: &&DoomedTag| {
            let subject = doomed.tag.subject();
            subject.is_some_and(|subject| subject != doomed.digest)
        };
        let (referrers, images): (Vec<_>, Vec<_>) = removal.tags.iter().partition(is_of_referrer);
        let mut tags_of: HashMap<&Digest, Vec<&DoomedTag>> = HashMap::new();
        for doomed in referrers {
            tags_of.entry(&doomed.digest).or_default().push(doomed);
        }
        let mut steps = vec![RemovalStep::default()];
        // Each lookup of where the tags lead is for a whole step.
        for doomed in &removal.manifests {
            let tags = tags_of.remove(&doomed.digest).unwrap_or_default();
            let is_subject = |manifest: &&DoomedManifest| {
                let mut subjects = tags.iter().filter_map(|doomed| doomed.tag.subject());
                subjects.any(|subject| subject == manifest.digest)
            };
            match steps.last_mut() {
                Some(step) if !step.manifests.iter().any(is_subject) => {
                    step.tags.extend(tags);
                    step.manifests.push(doomed);
                }
                _ => steps.push(RemovalStep {
                    tags,
                    manifests: vec![doomed],
                }),
            }
        }
        // Those whose manifest stays, by another tag.
        let tags: Vec<_> = removal
            .tags
            .iter()
            .filter(|doomed| tags_of.contains_key(&doomed.digest))
            .filter(is_of_referrer)
            .collect();
        steps.push(RemovalStep {
            tags,
            manifests: Vec::new(),
        });
        Self {
            images,
            steps,
            going: removal.manifests.iter().map(|m| &m.digest).collect(),
        }
    }
}

/// Whether something was used after what the plan knows, which has whole seconds.
fn is_later(now: Option<Timestamp>, planned: Option<Timestamp>) -> bool {
    now.map(UnixSeconds::from) > planned.map(UnixSeconds::from)
}

/// The deletion of one tag, which goes on when nobody waits for it any more.
struct Untagging {
    deletion: OwnDeletion,
    tag: Tag,
    setting: Option<Untag>,
}

impl Untagging {
    async fn run(self) -> Result<(), DeletionError> {
        let Self {
            deletion,
            tag,
            setting,
        } = self;
        if deletion.tag(&tag, setting).await?.is_none() {
            let swap = Swap { deletion, tag };
            swap.run().await?;
        }
        Ok(())
    }
}
