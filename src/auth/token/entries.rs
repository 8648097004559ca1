//! What stands in a token for the user's entry in the htpasswd file, so that the token ends with
//! the entry.

use std::io;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::{self, KeysError};
use crate::auth::UserName;
use crate::auth::htpasswd::Htpasswd;

/// Makes what stands for users' entries, under a key that is kept with those of the tokens.
pub struct Entries(hmac::Key);

impl Entries {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
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
        let mut context = hmac::Context::with_key(&self.0);
        let entry = users.claim(user.as_str()).hash.to_bytes();
        for field in [domain.as_bytes(), user.as_str().as_bytes(), &entry] {
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field);
        }
        URL_SAFE_NO_PAD.encode(context.sign().as_ref().get(..16).unwrap_or_default())
    }
}
