//! Records which tags a write moves, where rules ask for the ages of tags.

use std::sync::Arc;

use crate::journal::Journal;
use crate::registry::call::Call;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::route::Route;

/// The tags that a write moves. Where rules ask for the ages of tags, they are recorded by the write
/// itself, while they are locked: to push the same manifest again does not make a tag younger, nor
/// does a push of which nobody knows whether it has succeeded.
pub(super) struct MovedTags {
    journal: Option<Arc<Journal>>,
    repository: Option<RepositoryName>,
}

impl MovedTags {
    pub(super) fn new(route: &Route) -> Self {
        let site = route.site();
        let journal = site.journal.clone();
        Self {
            journal: journal.filter(|_| site.policy.limits_ages()),
            // As clients know it.
            repository: route.call().and_then(Call::repository).cloned(),
        }
    }

    pub(super) fn record(self, tags: &[Tag], digest: &Digest) {
        if let (Some(journal), Some(repository)) = (self.journal, self.repository) {
            journal.pushed(&repository, tags, Some(digest));
        }
    }
}
