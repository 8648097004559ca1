//! What a write expects of the tags that it goes to: held against the index under the repository's
//! lock, so that it is so whoever else writes, in this process or another one.

use super::error::StoreError;
use super::hash::Algorithm;
use super::index::Index;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;

/// What is expected of a tag. Of one of which nothing is said anything may be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It is not there, or leads to the manifest that is written.
    New(Tag),
    /// It is there.
    There(Tag),
}

impl Expected {
    /// Errors: `TagUnexpected`, if it is otherwise.
    pub(super) fn check(&self, index: &Index, manifest: &[u8]) -> Result<(), StoreError> {
        let present = |tag| {
            index
                .tag(tag)
                .filter(|digest| index.manifest(digest).is_some())
        };
        let (tag, is_so) = match self {
            Self::New(tag) => (
                tag,
                present(tag).is_none_or(|digest| is_of(digest, manifest)),
            ),
            Self::There(tag) => (tag, present(tag).is_some()),
        };
        if is_so {
            Ok(())
        } else {
            Err(StoreError::TagUnexpected(tag.clone()))
        }
    }
}

fn is_of(digest: &Digest, manifest: &[u8]) -> bool {
    Algorithm::of(digest).is_ok_and(|algorithm| algorithm.digest(manifest) == *digest)
}
