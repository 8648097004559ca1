//! A registry as retention uses it: moorgate's own, or one behind a domain.

use std::future::Future;

use bytes::Bytes;
use jiff::Timestamp;

use super::inventory::Inventory;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// What retention does at a registry. Nothing of it counts as a pull.
pub(crate) trait RetainedRegistry: Send + Sync {
    /// The names of its repositories, as clients know them, in order.
    fn repositories(
        &self,
    ) -> impl Future<Output = Result<Vec<RepositoryName>, RegistryError>> + Send;

    /// All tags and manifests of a repository with their use. A repository that has gone is empty.
    fn inventory(
        &self,
        repository: &RepositoryName,
    ) -> impl Future<Output = Result<Inventory, RegistryError>> + Send;

    /// A manifest by its digest, to be put back later. `None`: there is none.
    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> impl Future<Output = Result<Option<SavedManifest>, RegistryError>> + Send;

    /// Takes tags and manifests away, in this order, each only if it is as it was planned: looked at
    /// again under the lock for writes to the repository. What has gone already is done.
    ///
    /// Errors: the first answer that was not expected ends it; what was removed by then stays so.
    fn remove(
        &self,
        repository: &RepositoryName,
        removal: &Removal,
    ) -> impl Future<Output = Result<Removed, RegistryError>> + Send;

    /// Puts a manifest back, and the tags that nobody has set to another one since.
    ///
    /// Errors: `Missing` if what it references has gone.
    fn restore(
        &self,
        repository: &RepositoryName,
        manifest: &SavedManifest,
        tags: &[Tag],
    ) -> impl Future<Output = Result<Restored, RegistryError>> + Send;

    /// The first thing that a tag's image lacks: its manifest, or anything below it. `None`: it is
    /// whole, or the tag has gone meanwhile.
    fn missing_of(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> impl Future<Output = Result<Option<Digest>, RegistryError>> + Send;
}

/// A manifest as it was pushed, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

/// What is to be taken away from a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) tags: Vec<DoomedTag>,
    /// In the order in which they may go.
    pub(crate) manifests: Vec<DoomedManifest>,
}

/// A tag to take away, as it was when that was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DoomedTag {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    /// Its last push and pull at that time; a later one saves it.
    pub(crate) pushed: Option<Timestamp>,
    pub(crate) pulled: Option<Timestamp>,
}

/// A manifest to take away: nothing that stays needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DoomedManifest {
    pub(crate) digest: Digest,
    /// Its last pull when that was planned; a later one saves it.
    pub(crate) pulled: Option<Timestamp>,
}

/// What was taken away, with what had gone already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) tags: Vec<Tag>,
    pub(crate) manifests: Vec<Digest>,
    /// What was left because it was used or changed since the plan, or is needed again.
    pub(crate) changed: Vec<String>,
}

/// What was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) tags: Vec<Tag>,
    /// Tags that lead to another manifest now.
    pub(crate) taken: Vec<Tag>,
}

/// Why a registry did not do what retention asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// Something that a manifest references has gone.
    #[error("{0} is missing")]
    Missing(Digest),
    /// The lock of a repository was not released in time.
    #[error("the repository is locked by another writer")]
    Locked,
    /// It cannot do this at all.
    #[error("the registry cannot do this: {0}")]
    Unsupported(String),
    /// It answered what was not expected, or did not answer.
    #[error("{0}")]
    Failed(String),
}
