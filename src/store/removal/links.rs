//! Which manifests list or refer to which. That never changes, so that it is read before a
//! repository is locked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::RemovalRequest;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::RepositoryIndex;
use crate::store::inventory::{ManifestReader, RepositoryContents};
use crate::store::manifest;

/// The links of the manifests that may go, and of all that may list others.
#[derive(Debug, Default)]
pub(super) struct KnownLinks(HashMap<Digest, ManifestLinks>);

/// The manifests that a manifest lists, and the one that it refers to.
#[derive(Clone, Debug, Default)]
pub(super) struct ManifestLinks {
    pub(super) children: Vec<Digest>,
    pub(super) subject: Option<Digest>,
}

/// The manifests that one job reads.
const MANIFESTS_PER_JOB: usize = 512;

/// Reads the links of all that a request needs to know, as far as the repository has it now.
pub(super) async fn read_all(
    store: &Arc<Store>,
    name: &RepositoryName,
    request: &RemovalRequest,
) -> Result<KnownLinks, StoreError> {
    let digests = request.manifests.iter();
    let doomed: HashSet<Digest> = digests.map(|removal| removal.digest.clone()).collect();
    let repository = name.clone();
    let list = move |store: &Store| {
        let contents = RepositoryContents::read_cached(store, &repository)?;
        let manifests = contents.iter().flat_map(RepositoryContents::manifests);
        let needed = manifests.filter(|(digest, media_type, _)| {
            doomed.contains(*digest) || manifest::may_have_entries(media_type)
        });
        let needed = needed.map(|(digest, media_type, _)| (digest.clone(), media_type.clone()));
        Ok(needed.collect::<Vec<_>>())
    };
    let mut waiting = store.run_read(list).await?;
    let mut known = KnownLinks::default();
    while !waiting.is_empty() {
        let repository = name.clone();
        let read = move |store: &Store| {
            let reader = ManifestReader::new(store, &repository);
            let rest = waiting.len().saturating_sub(MANIFESTS_PER_JOB);
            for (digest, media_type) in waiting.split_off(rest) {
                known.read(&reader, &digest, &media_type)?;
            }
            Ok((waiting, known))
        };
        (waiting, known) = store.run_read(read).await?;
    }
    Ok(known)
}

impl KnownLinks {
    pub(super) fn of(&self, digest: &Digest) -> Option<&ManifestLinks> {
        self.0.get(digest)
    }

    /// Reads those of what was pushed since.
    pub(super) fn read_new(
        &mut self,
        store: &Store,
        name: &RepositoryName,
        request: &RemovalRequest,
        index: &RepositoryIndex,
    ) -> Result<(), StoreError> {
        let doomed = request.manifests.iter();
        let doomed: HashSet<&Digest> = doomed.map(|removal| &removal.digest).collect();
        let reader = ManifestReader::new(store, name);
        for (digest, entry) in index.manifests() {
            let media_type = &entry.media_type;
            let is_needed = doomed.contains(digest) || manifest::may_have_entries(media_type);
            if is_needed && self.of(digest).is_none() {
                self.read(&reader, digest, media_type)?;
            }
        }
        Ok(())
    }

    /// Errors: `Damaged` if the manifest cannot be read and may list others.
    fn read(
        &mut self,
        reader: &ManifestReader,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        let document = reader.document(digest, media_type)?.unwrap_or_default();
        let children = document.manifests.into_iter();
        let links = ManifestLinks {
            children: children.map(|child| child.digest).collect(),
            subject: document.subject,
        };
        self.0.insert(digest.clone(), links);
        Ok(())
    }

    /// A manifest and all that it lists, directly or not.
    pub(super) fn all_below<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = &'a Digest> {
        let mut seen = HashSet::from([digest]);
        let mut pending = vec![digest];
        std::iter::from_fn(move || {
            let next = pending.pop()?;
            let children = self.of(next).map(|links| &links.children);
            let children = children.into_iter().flatten();
            pending.extend(children.filter(|child| seen.insert(child)));
            Some(next)
        })
    }

    /// The last use of each manifest that the plan knew: its own, or that of a tag above it or of
    /// what it refers to.
    pub(super) fn last_known_uses<'a>(
        &'a self,
        request: &'a RemovalRequest,
    ) -> HashMap<&'a Digest, Option<Timestamp>> {
        let RemovalRequest { tags, manifests } = request;
        let mut known: HashMap<&Digest, Option<Timestamp>> = HashMap::new();
        for removal in tags {
            let last = removal.pushed.max(removal.pulled);
            for digest in self.all_below(&removal.digest) {
                let known = known.entry(digest).or_default();
                *known = last.max(*known);
            }
        }
        for removal in manifests {
            let subject = self
                .of(&removal.digest)
                .and_then(|links| links.subject.as_ref());
            let of_subject = subject.and_then(|subject| known.get(subject).copied().flatten());
            let known = known.entry(&removal.digest).or_default();
            *known = removal.pulled.max(of_subject).max(*known);
        }
        known
    }
}
