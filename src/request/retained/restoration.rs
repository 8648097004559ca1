//! Puts manifests back at an upstream, and finds out what an image lacks there.

use std::collections::BTreeSet;

use super::calls::{RepositoryCalls, failed};
use super::facts::ManifestReferences;
use super::lanes::in_lanes;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::request::answer::detached::run_detached;
use crate::retention::registry::{RegistryError, Restored, SavedManifest};
use crate::store::is_digest_of;

/// Something that has to be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needed {
    Manifest(Digest),
    Blob(Digest),
}

/// Of one image. Each takes a request.
const MAX_NEEDED: usize = 100_000;

/// Puts a manifest back, and its tags as far as they are free. `registry`: for the lock.
pub(super) async fn restore(
    calls: &RepositoryCalls,
    registry: &str,
    manifest: &SavedManifest,
    tags: &[Tag],
) -> Result<Restored, RegistryError> {
    let SavedManifest { digest, bytes, .. } = manifest;
    if !is_digest_of(digest, bytes) {
        return Err(failed(
            digest.as_str(),
            "the saved bytes are not those of this digest",
        ));
    }
    let locks = &calls.gateway.tag_locks;
    let guards = locks.lock(registry, &calls.name, tags.iter()).await;
    let guards = guards.map_err(|_| RegistryError::Locked)?;
    let references = ManifestReferences::parse(bytes).unwrap_or_default();
    if let Some(missing) = first_missing(calls, needed(&references)).await? {
        return Err(RegistryError::Missing(missing));
    }
    let mut restored = Restored::default();
    let mut free = Vec::new();
    for tag in tags {
        match calls.digest_of(tag).await? {
            None => free.push(tag.clone()),
            Some(now) if now == *digest => restored.tags.push(tag.clone()),
            Some(_) => restored.taken.push(tag.clone()),
        }
    }
    let (calls, manifest) = (calls.clone(), manifest.clone());
    let write = async move {
        if !calls.has_manifest(&manifest.digest).await? {
            calls.put(manifest.digest.as_str(), &manifest).await?;
        }
        for tag in &free {
            calls.put(tag.as_str(), &manifest).await?;
        }
        Ok::<_, RegistryError>(free)
    };
    // A tag must not be written after somebody else has taken it.
    let written = run_detached(guards, write).await?;
    restored.tags.extend(written);
    Ok(restored)
}

/// The first thing that a tag's image lacks, of manifests and blobs.
pub(super) async fn missing_of(
    calls: &RepositoryCalls,
    tag: &Tag,
) -> Result<Option<Digest>, RegistryError> {
    let Some(digest) = calls.digest_of(tag).await? else {
        return Ok(None);
    };
    let mut waiting = vec![digest.clone()];
    let mut seen = BTreeSet::new();
    let mut blobs = BTreeSet::new();
    while let Some(of) = waiting.pop() {
        let Some(manifest) = calls.manifest(&of).await? else {
            let is_gone = of == digest && calls.digest_of(tag).await?.is_none();
            return Ok((!is_gone).then_some(of));
        };
        let references = ManifestReferences::parse(&manifest.bytes).unwrap_or_default();
        let children = references.children.iter().map(|child| &child.digest);
        waiting.extend(
            children
                .filter(|child| seen.insert((*child).clone()))
                .cloned(),
        );
        blobs.extend(needed_blobs(&references));
        if seen.len() + blobs.len() > MAX_NEEDED {
            let why = format!("the image needs more than {MAX_NEEDED} manifests and blobs");
            return Err(failed(tag.as_str(), why));
        }
    }
    first_missing(calls, blobs).await
}

/// What a manifest needs itself.
fn needed(references: &ManifestReferences) -> BTreeSet<Needed> {
    let children = references.children.iter();
    let children = children.map(|child| Needed::Manifest(child.digest.clone()));
    needed_blobs(references).chain(children).collect()
}

fn needed_blobs(references: &ManifestReferences) -> impl Iterator<Item = Needed> {
    let blobs = references.blobs.iter().filter(|blob| !blob.is_foreign);
    blobs.map(|blob| Needed::Blob(blob.digest.clone()))
}

/// The first that is not there, a few at a time.
async fn first_missing(
    calls: &RepositoryCalls,
    needed: BTreeSet<Needed>,
) -> Result<Option<Digest>, RegistryError> {
    let find = |needed: Needed| async move {
        let (is_there, digest) = match needed {
            Needed::Manifest(digest) => (calls.has_manifest(&digest).await?, digest),
            Needed::Blob(digest) => (calls.has_blob(&digest).await?, digest),
        };
        Ok::<_, RegistryError>((!is_there).then_some(digest))
    };
    let found = in_lanes(needed.into_iter().collect(), find).await?;
    Ok(found.into_iter().flatten().next())
}
