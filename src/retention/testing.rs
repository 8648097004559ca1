//! A registry in memory, to run retention at. It fails at a step that a test names, and lets others
//! write in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::inventory::{ContentSize, ImageIndex, ImageRecord, Inventory, TagRecord};
use super::registry::{
    DoomedManifest, DoomedTag, RegistryError, Removal, Removed, Restored, RetainedRegistry,
    SavedManifest,
};
use crate::crypto::sha256_hex;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// What happens before a step: another client writes, for instance.
type StepHook = Box<dyn FnMut(u64, &mut PlayedContent) + Send>;

/// The registry.
#[derive(Default)]
pub(crate) struct PlayedRegistry {
    state: Mutex<PlayedState>,
}

#[derive(Default)]
struct PlayedState {
    content: PlayedContent,
    /// The steps that were taken since the last call of `fail_at`.
    steps: u64,
    fail_at: Option<u64>,
    /// Whether it removes what is needed.
    forgets_references: bool,
    hook: Option<StepHook>,
}

/// What it stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlayedContent {
    pub(crate) repositories: BTreeMap<RepositoryName, PlayedRepository>,
    pub(crate) recorded_since: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlayedRepository {
    pub(crate) tags: BTreeMap<Tag, PlayedTag>,
    pub(crate) manifests: BTreeMap<Digest, PlayedManifest>,
    /// Those that are there.
    pub(crate) blobs: BTreeSet<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlayedTag {
    pub(crate) digest: Digest,
    pub(crate) pushed: Option<Timestamp>,
    pub(crate) pulled: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlayedManifest {
    pub(crate) bytes: Bytes,
    pub(crate) children: Vec<Digest>,
    pub(crate) subject: Option<Digest>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) pushed: Option<Timestamp>,
    pub(crate) pulled: Option<Timestamp>,
}

pub(crate) fn repository_name(name: &str) -> RepositoryName {
    RepositoryName::parse(name).expect("a repository")
}

pub(crate) fn tag_name(name: &str) -> Tag {
    Tag::parse(name).expect("a tag")
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::parse(&format!("sha256:{}", sha256_hex(bytes))).expect("a digest")
}

impl PlayedRepository {
    /// An image with one blob of its own.
    pub(crate) fn push_image(&mut self, name: &str, at: Timestamp) -> Digest {
        let blob = digest_of(name.as_bytes());
        self.blobs.insert(blob.clone());
        let text = json!({ "config": { "digest": blob.to_string(), "size": name.len() } });
        let manifest = PlayedManifest {
            bytes: Bytes::from(text.to_string()),
            children: Vec::new(),
            subject: None,
            blobs: vec![blob],
            pushed: Some(at),
            pulled: None,
        };
        self.push(manifest)
    }

    /// An index of manifests, or a referrer of one.
    pub(crate) fn push_index(
        &mut self,
        children: &[Digest],
        subject: Option<&Digest>,
        at: Timestamp,
    ) -> Digest {
        let listed = children
            .iter()
            .map(|one| json!({ "digest": one.to_string() }));
        let mut text = json!({ "manifests": listed.collect::<Vec<_>>() });
        if let Some(subject) = subject {
            text["subject"] = json!({ "digest": subject.to_string() });
        }
        let manifest = PlayedManifest {
            bytes: Bytes::from(text.to_string()),
            children: children.to_vec(),
            subject: subject.cloned(),
            blobs: Vec::new(),
            pushed: Some(at),
            pulled: None,
        };
        self.push(manifest)
    }

    fn push(&mut self, manifest: PlayedManifest) -> Digest {
        let digest = digest_of(&manifest.bytes);
        self.manifests.insert(digest.clone(), manifest);
        digest
    }

    pub(crate) fn tag(&mut self, tag: &str, digest: &Digest, at: Timestamp) {
        let tagged = PlayedTag {
            digest: digest.clone(),
            pushed: Some(at),
            pulled: None,
        };
        self.tags.insert(tag_name(tag), tagged);
    }

    /// The first thing that a manifest lacks.
    pub(crate) fn missing(&self, digest: &Digest) -> Option<Digest> {
        let Some(manifest) = self.manifests.get(digest) else {
            return Some(digest.clone());
        };
        let blob = manifest
            .blobs
            .iter()
            .find(|blob| !self.blobs.contains(blob));
        blob.cloned().or_else(|| {
            manifest
                .children
                .iter()
                .find_map(|child| self.missing(child))
        })
    }

    /// Whether something that stays needs a manifest.
    fn is_needed(&self, digest: &Digest) -> bool {
        let tagged = self.tags.values().any(|tag| tag.digest == *digest);
        let subject = self
            .manifests
            .get(digest)
            .and_then(|one| one.subject.as_ref());
        let listed = self
            .manifests
            .values()
            .any(|one| one.children.contains(digest));
        tagged || listed || subject.is_some_and(|subject| self.manifests.contains_key(subject))
    }

    fn inventory(&self, repository: &RepositoryName, since: Option<Timestamp>) -> Inventory {
        let digests: Vec<_> = self.manifests.keys().collect();
        let place = |digest: &Digest| {
            let at = digests.binary_search(&digest).ok()?;
            Some(ImageIndex(u32::try_from(at).expect("few")))
        };
        let images = self.manifests.iter().map(|(digest, one)| ImageRecord {
            digest: digest.clone(),
            children: one.children.iter().filter_map(place).collect(),
            subject: one.subject.as_ref().and_then(place),
            pushed: one.pushed.map(Into::into),
            pulled: one.pulled.map(Into::into),
            expires_after: None,
            created: None,
            content: one.blobs.iter().map(content).collect(),
        });
        let tags = self.tags.iter().filter_map(|(tag, one)| {
            Some(TagRecord {
                tag: tag.clone(),
                image: place(&one.digest)?,
                pushed: one.pushed.map(Into::into),
                pulled: one.pulled.map(Into::into),
            })
        });
        Inventory {
            repository: repository.clone(),
            tags: tags.collect(),
            images: images.collect(),
            recorded_since: since,
            expiry_label: None,
        }
    }
}

fn content(blob: &Digest) -> ContentSize {
    let key = u64::from_str_radix(&blob.encoded()[..16], 16).expect("hexadecimal");
    ContentSize { key, size: 1000 }
}

impl PlayedRegistry {
    pub(crate) fn new(content: PlayedContent) -> Self {
        let state = PlayedState {
            content,
            ..PlayedState::default()
        };
        Self {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, PlayedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn content(&self) -> PlayedContent {
        self.state().content.clone()
    }

    /// Changes what is there, as another client does.
    pub(crate) fn change(&self, change: impl FnOnce(&mut PlayedContent)) {
        change(&mut self.state().content);
    }

    /// Each step from the `step`th on fails, counted from now, as after the death of the process.
    pub(crate) fn fail_at(&self, step: Option<u64>) {
        let mut state = self.state();
        state.steps = 0;
        state.fail_at = step;
    }

    /// Whether a step has failed.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state();
        state.fail_at.is_some_and(|step| state.steps >= step)
    }

    /// Removes from now on what something else needs, as simple registries do.
    pub(crate) fn forget_references(&self) {
        self.state().forgets_references = true;
    }

    pub(crate) fn before_steps(&self, hook: impl FnMut(u64, &mut PlayedContent) + Send + 'static) {
        self.state().hook = Some(Box::new(hook));
    }
}

impl PlayedState {
    fn step(&mut self) -> Result<&mut PlayedContent, RegistryError> {
        self.steps += 1;
        if let Some(hook) = &mut self.hook {
            hook(self.steps, &mut self.content);
        }
        if self.fail_at.is_some_and(|step| self.steps >= step) {
            return Err(RegistryError::Failed("it answered 500".to_owned()));
        }
        Ok(&mut self.content)
    }

    fn repository(
        &mut self,
        repository: &RepositoryName,
    ) -> Result<&mut PlayedRepository, RegistryError> {
        Ok(self
            .step()?
            .repositories
            .entry(repository.clone())
            .or_default())
    }

    fn remove_tag(
        &mut self,
        repository: &RepositoryName,
        doomed: &DoomedTag,
        removed: &mut Removed,
    ) -> Result<(), RegistryError> {
        let own = self.repository(repository)?;
        let DoomedTag {
            tag,
            digest,
            pushed,
            pulled,
        } = doomed;
        let Some(now) = own.tags.get(tag) else {
            removed.tags.push(tag.clone());
            return Ok(());
        };
        // To the second, as inventories have it.
        let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        let is_used = second(now.pushed) > second(*pushed) || second(now.pulled) > second(*pulled);
        if now.digest != *digest || is_used {
            removed.changed.push(format!("{tag} was used"));
            return Ok(());
        }
        own.tags.remove(tag);
        removed.tags.push(tag.clone());
        Ok(())
    }

    fn remove_manifest(
        &mut self,
        repository: &RepositoryName,
        doomed: &DoomedManifest,
        removed: &mut Removed,
    ) -> Result<(), RegistryError> {
        let may_break = self.forgets_references;
        let own = self.repository(repository)?;
        let DoomedManifest { digest, pulled: _ } = doomed;
        if own.is_needed(digest) && !may_break {
            removed.changed.push(format!("{digest} is needed"));
        } else {
            own.manifests.remove(digest);
            removed.manifests.push(digest.clone());
        }
        Ok(())
    }
}

impl RetainedRegistry for PlayedRegistry {
    async fn repositories(&self) -> Result<Vec<RepositoryName>, RegistryError> {
        let mut state = self.state();
        Ok(state.step()?.repositories.keys().cloned().collect())
    }

    async fn inventory(&self, repository: &RepositoryName) -> Result<Inventory, RegistryError> {
        let mut state = self.state();
        let since = state.content.recorded_since;
        Ok(state.repository(repository)?.inventory(repository, since))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<SavedManifest>, RegistryError> {
        let mut state = self.state();
        let found = state.repository(repository)?.manifests.get(digest);
        Ok(found.map(|manifest| SavedManifest {
            digest: digest.clone(),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            bytes: manifest.bytes.clone(),
        }))
    }

    async fn remove(
        &self,
        repository: &RepositoryName,
        removal: &Removal,
    ) -> Result<Removed, RegistryError> {
        let mut removed = Removed::default();
        // Each has a step and a lock of its own: others write in between.
        for tag in &removal.tags {
            self.state().remove_tag(repository, tag, &mut removed)?;
            tokio::task::yield_now().await;
        }
        for manifest in &removal.manifests {
            self.state()
                .remove_manifest(repository, manifest, &mut removed)?;
            tokio::task::yield_now().await;
        }
        Ok(removed)
    }

    async fn restore(
        &self,
        repository: &RepositoryName,
        manifest: &SavedManifest,
        tags: &[Tag],
    ) -> Result<Restored, RegistryError> {
        let mut state = self.state();
        let own = state.repository(repository)?;
        let parsed = parse(&manifest.bytes);
        let lost = parsed.blobs.iter().find(|blob| !own.blobs.contains(blob));
        let lost = lost.or_else(|| {
            parsed
                .children
                .iter()
                .find(|d| !own.manifests.contains_key(d))
        });
        if let Some(lost) = lost {
            return Err(RegistryError::Missing(lost.clone()));
        }
        assert_eq!(digest_of(&manifest.bytes), manifest.digest);
        own.manifests
            .entry(manifest.digest.clone())
            .or_insert(parsed);
        let mut restored = Restored::default();
        for tag in tags {
            match own.tags.get(tag) {
                Some(now) if now.digest != manifest.digest => restored.taken.push(tag.clone()),
                Some(_) => restored.tags.push(tag.clone()),
                None => {
                    let tagged = PlayedTag {
                        digest: manifest.digest.clone(),
                        pushed: None,
                        pulled: None,
                    };
                    own.tags.insert(tag.clone(), tagged);
                    restored.tags.push(tag.clone());
                }
            }
        }
        Ok(restored)
    }

    async fn missing_of(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, RegistryError> {
        let mut state = self.state();
        let own = state.repository(repository)?;
        Ok(own.tags.get(tag).and_then(|now| own.missing(&now.digest)))
    }
}

fn parse(bytes: &Bytes) -> PlayedManifest {
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
    let digest = |value: &serde_json::Value| {
        let text = value["digest"].as_str()?;
        Some(Digest::parse(text).expect("a digest"))
    };
    let children = value["manifests"].as_array().into_iter().flatten();
    PlayedManifest {
        bytes: bytes.clone(),
        children: children.filter_map(digest).collect(),
        subject: digest(&value["subject"]),
        blobs: digest(&value["config"]).into_iter().collect(),
        pushed: None,
        pulled: None,
    }
}

impl fmt::Debug for PlayedRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlayedRegistry")
    }
}
