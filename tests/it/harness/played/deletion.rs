//! Deletion by the registry API of a player.

use super::answer::PlayedAnswer;
use super::registry::is_digest;
use super::{DeletionGuard, Played, Refused, RegistryDeletion};

impl Played {
    pub fn delete_manifest(&mut self, name: &str, reference: &str) -> PlayedAnswer {
        let deletion = if is_digest(reference) {
            self.switches.digest_deletion
        } else {
            self.switches.tag_deletion
        };
        match deletion {
            RegistryDeletion::NoRoute => return PlayedAnswer::no_page(),
            RegistryDeletion::Refused(refused) => {
                return PlayedAnswer::refused(refused, name, reference);
            }
            RegistryDeletion::Done => {}
        }
        let known = self.contents.repository(name);
        if known.and_then(|known| known.resolve(reference)).is_none() {
            return PlayedAnswer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        }
        if is_digest(reference) {
            if let Some(refused) = self.guarded(name, reference) {
                return PlayedAnswer::refused(refused, name, reference);
            }
            self.contents.make_repository(name).remove(reference);
        } else {
            if self.is_immutable(name, reference) {
                return PlayedAnswer::refused(self.switches.immutable_tag, name, reference);
            }
            self.contents.make_repository(name).tags.remove(reference);
        }
        PlayedAnswer::new(202)
    }

    /// What keeps a manifest from deletion.
    pub fn guarded(&self, name: &str, digest: &str) -> Option<Refused> {
        let repository = self.contents.repository(name)?;
        let is_tagged = || !repository.tags_of(digest).is_empty();
        let is_referenced = || repository.is_referenced(digest);
        match self.switches.deletion_guard {
            DeletionGuard::None => None,
            DeletionGuard::Tagged(refused) => is_tagged().then_some(refused),
            DeletionGuard::Referenced(refused) => is_referenced().then_some(refused),
            DeletionGuard::TaggedOrReferenced(refused) => {
                (is_tagged() || is_referenced()).then_some(refused)
            }
        }
    }
}
