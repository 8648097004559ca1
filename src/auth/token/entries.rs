//! What stands in a token for the user's entry in the htpasswd file, so that the token ends with
//! the entry.

use std::io;
use std::path::Path;

use super::keys::{self, KeysError};
use crate::auth::UserName;
use crate::auth::htpasswd::Htpasswd;
use crate::crypto::{TagKey, keyed_tag_text};

/// Makes what stands for users' entries, under a key that is kept with those of the tokens.
pub struct Entries(TagKey);

impl Entries {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(TagKey::new(key))
    }

    /// Reads the key below a state directory, if there is one, and makes nothing. For commands.
    pub fn read(state: &Path) -> Result<Option<Self>, KeysError> {
        match keys::read(state) {
            Ok(keys) => Ok(Some(keys.entries)),
            Err(KeysError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Stands for a user's entry: another one for another password, domain or user. Nobody can tell
    /// the entry by it.
    pub fn of(&self, domain: &str, user: &UserName, users: &Htpasswd) -> String {
        let entry = users.claim(user.as_str()).hash.to_bytes();
        let fields = [domain.as_bytes(), user.as_str().as_bytes(), &entry];
        keyed_tag_text(&self.0, &fields)
    }
}
