//! Drives retention at an upstream step by step, for tests: what is planned is what the test names,
//! and what happens between the steps is up to it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::RetainedUpstream;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::inventory::{ImageIndex, Inventory, UnixSeconds};
use crate::retention::registry::{
    DoomedManifest, DoomedTag, RegistryError, Removal, RetainedRegistry, SavedManifest,
};

/// The registry behind a domain. All errors are what people would read.
pub struct RetainedDriver(RetainedUpstream);

/// What is to be taken away from a repository, as it was when that was planned.
pub struct PlannedRemoval {
    repository: RepositoryName,
    removal: Removal,
}

/// A manifest that can be put back.
pub struct ManifestCopy {
    repository: RepositoryName,
    manifest: SavedManifest,
}

impl RetainedDriver {
    pub(crate) fn new(upstream: RetainedUpstream) -> Self {
        Self(upstream)
    }

    pub async fn repositories(&self) -> Result<Vec<String>, String> {
        let names = self.0.repositories().await.map_err(text)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// The tags with their digests, and the manifests with their children, subjects and lives.
    pub async fn inventory(&self, repository: &str) -> Result<Value, String> {
        let inventory = self.0.inventory(&name(repository)?).await.map_err(text)?;
        let image = |index: ImageIndex| inventory.images[index.at()].digest.as_str();
        let tags = inventory.tags.iter();
        let tags = tags.map(|tag| (tag.tag.to_string(), json!(image(tag.image))));
        let images = inventory.images.iter().map(|of| {
            let children: Vec<_> = of.children.iter().map(|child| image(*child)).collect();
            let about = json!({
                "children": children,
                "subject": of.subject.map(image),
                "lives": of.expires_after,
                "created": of.created.map(UnixSeconds::seconds),
                "bytes": of.content.iter().map(|content| content.size).sum::<u64>(),
            });
            (of.digest.to_string(), about)
        });
        Ok(json!({
            "tags": tags.collect::<serde_json::Map<_, _>>(),
            "images": images.collect::<serde_json::Map<_, _>>(),
            "recorded": inventory.recorded_since.is_some(),
        }))
    }

    /// Plans that these go, by what the inventory says now.
    pub async fn plan(
        &self,
        repository: &str,
        tags: &[&str],
        manifests: &[&str],
    ) -> Result<PlannedRemoval, String> {
        let repository = name(repository)?;
        let inventory = self.0.inventory(&repository).await.map_err(text)?;
        let mut removal = Removal::default();
        for tag in tags {
            let found = inventory.tags.iter().find(|of| of.tag.as_str() == *tag);
            let found = found.ok_or_else(|| format!("no tag {tag}"))?;
            removal.tags.push(DoomedTag {
                tag: Tag::parse(tag).map_err(|error| error.to_string())?,
                digest: inventory.images[found.image.at()].digest.clone(),
                pushed: found.pushed.map(UnixSeconds::timestamp),
                pulled: lifted(&inventory, found.image)
                    .max(found.pulled)
                    .map(UnixSeconds::timestamp),
            });
        }
        for digest in manifests {
            let found = inventory.images.iter();
            let mut found = found.filter(|of| of.digest.as_str() == *digest);
            removal.manifests.push(DoomedManifest {
                digest: Digest::parse(digest).map_err(|error| error.to_string())?,
                pulled: found
                    .next()
                    .and_then(|of| of.pulled.map(UnixSeconds::timestamp)),
            });
        }
        Ok(PlannedRemoval {
            repository,
            removal,
        })
    }

    /// What was taken away, and what was left.
    pub async fn remove(&self, plan: &PlannedRemoval) -> Result<Value, String> {
        let removed = Box::pin(self.0.remove(&plan.repository, &plan.removal)).await;
        let removed = removed.map_err(text)?;
        let tags: Vec<_> = removed.tags.iter().map(Tag::as_str).collect();
        let manifests: Vec<_> = removed.manifests.iter().map(Digest::as_str).collect();
        Ok(json!({ "tags": tags, "manifests": manifests, "left": removed.changed }))
    }

    pub async fn save(&self, repository: &str, digest: &str) -> Result<ManifestCopy, String> {
        let repository = name(repository)?;
        let digest = Digest::parse(digest).map_err(|error| error.to_string())?;
        let manifest = self.0.manifest(&repository, &digest).await.map_err(text)?;
        let manifest = manifest.ok_or("there is no such manifest")?;
        Ok(ManifestCopy {
            repository,
            manifest,
        })
    }

    /// The tags that were set, and those that are another manifest's now.
    pub async fn restore(&self, copy: &ManifestCopy, tags: &[&str]) -> Result<Value, String> {
        let tags: Vec<_> = tags.iter().filter_map(|tag| Tag::parse(tag).ok()).collect();
        let restored = self.0.restore(&copy.repository, &copy.manifest, &tags);
        let restored = restored.await.map_err(text)?;
        let list = |tags: &[Tag]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
        Ok(json!({ "set": list(&restored.tags), "taken": list(&restored.taken) }))
    }

    pub async fn missing_of(&self, repository: &str, tag: &str) -> Result<Option<String>, String> {
        let tag = Tag::parse(tag).map_err(|error| error.to_string())?;
        let missing = self.0.missing_of(&name(repository)?, &tag).await;
        let missing = missing.map_err(text)?;
        Ok(missing.map(|digest| digest.to_string()))
    }
}

/// The last pull of a manifest, or of one below it.
fn lifted(inventory: &Inventory, of: ImageIndex) -> Option<UnixSeconds> {
    let (mut waiting, mut seen) = (vec![of], BTreeSet::new());
    let mut pulled = None;
    while let Some(of) = waiting.pop() {
        let image = &inventory.images[of.at()];
        pulled = pulled.max(image.pulled);
        let children = image.children.iter().copied();
        waiting.extend(children.filter(|child| seen.insert(*child)));
    }
    pulled
}

fn name(repository: &str) -> Result<RepositoryName, String> {
    RepositoryName::parse(repository).map_err(|error| error.to_string())
}

fn text(error: RegistryError) -> String {
    error.to_string()
}
