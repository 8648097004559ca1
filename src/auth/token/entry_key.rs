//! The tag of a user's entry in the htpasswd file. A token has it as a claim, so that the token ends
//! with the entry.

use crate::auth::UserName;
use crate::auth::htpasswd::Htpasswd;
use crate::crypto::{TagKey, keyed_tag_text};

/// The key of these tags. It is stored with the signing keys.
pub(crate) struct EntryKey(TagKey);

impl EntryKey {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(TagKey::new(key))
    }

    /// The tag of a user's entry. It differs for another password, domain or user, and does not reveal
    /// the entry.
    pub(crate) fn tag(&self, domain: &str, user: &UserName, users: &Htpasswd) -> String {
        let entry = users.claim(user.as_str()).hash.to_bytes();
        let fields = [domain.as_bytes(), user.as_str().as_bytes(), &entry];
        keyed_tag_text(&self.0, &fields)
    }
}
