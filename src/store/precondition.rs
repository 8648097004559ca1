//! Conditions of a write on its tags. They are checked against the index under the repository's
//! lock, so that they hold against other writers of this and other processes.

use super::error::StoreError;
use super::hash::is_digest_of;
use super::index::RepositoryIndex;
use crate::registry::reference::Tag;

/// A condition on a tag. A tag without one may be written in any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// The tag does not exist, or points at the manifest that is written.
    Absent(Tag),
    /// The tag exists.
    Present(Tag),
    /// The tag points at the manifest that is written.
    Same(Tag),
}

impl Precondition {
    /// Errors: `PreconditionFailed`.
    pub(super) fn check(&self, index: &RepositoryIndex, manifest: &[u8]) -> Result<(), StoreError> {
        let target = |tag| {
            index
                .tag(tag)
                .filter(|digest| index.manifest(digest).is_some())
        };
        let (tag, is_met) = match self {
            Self::Absent(tag) => {
                let is_met = target(tag).is_none_or(|digest| is_digest_of(digest, manifest));
                (tag, is_met)
            }
            Self::Present(tag) => (tag, target(tag).is_some()),
            Self::Same(tag) => {
                let is_met = target(tag).is_some_and(|digest| is_digest_of(digest, manifest));
                (tag, is_met)
            }
        };
        if is_met {
            Ok(())
        } else {
            Err(StoreError::PreconditionFailed(tag.clone()))
        }
    }
}
