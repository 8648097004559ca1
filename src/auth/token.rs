//! Tokens of the Docker token protocol: issued for a password, and verified in its place.
//!
//! A token has its user and the granted scopes as an upper bound: the access rules and the user's
//! password entry are checked again with every request.

mod access_lists;
mod cache;
mod claims;
mod entry_key;
mod keys;

pub(crate) mod refresh;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};

use super::htpasswd::Htpasswd;
use super::{KnownUser, UserName};
use crate::crypto;
use crate::state_file::{FileChange, FileWatch};
use access_lists::{AccessList, AccessLists};
use cache::{CachedAccess, CachedToken, TokenCache};
pub use claims::TokenAccess;
use claims::{Claims, seconds};
pub(crate) use entry_key::EntryKey;
use keys::{ALGORITHM, Keys};
pub(crate) use keys::{KeysError, read_entry_key};
use refresh::{FileError, RefreshTokens};

/// Issues and verifies tokens for all domains of the process.
pub struct Tokens {
    state: PathBuf,
    keys: ArcSwap<Keys>,
    refresh_tokens: Arc<RefreshTokens>,
    access_lists: Arc<AccessLists>,
    cache: TokenCache,
    keys_watch: Mutex<FileWatch>,
    validation: Validation,
}

/// Why tokens cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Refresh(#[from] FileError),
}

/// The domain and user of a token.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    pub domain: &'a str,
    /// The user and the tag of its entry; `None` for a token without a login.
    pub user: Option<(&'a UserName, &'a str)>,
}

/// A verified token.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The user; `None` for a token without a login.
    pub user: Option<KnownUser>,
    /// The granted access.
    pub access: Arc<TokenAccess>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It was not signed with a key of this registry, or for another domain.
    #[error("the token is not one of this registry")]
    Foreign,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    /// Its access is in a list that is not kept any more, or not known to this process.
    #[error("what the token was given for is not known any more")]
    ListUnknown,
    /// The user was deleted or has another password.
    #[error("the user of the token was deleted, or has another password")]
    UserChanged,
}

/// The token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("a token cannot be signed: {0}")]
pub struct SigningFailed(jsonwebtoken::errors::Error);

impl Tokens {
    /// Reads keys and refresh tokens below the state directory, and generates missing keys. Blocks.
    pub fn open(state: &Path, now: SystemTime) -> Result<Self, TokensError> {
        let mut validation = Validation::new(ALGORITHM);
        // `verify` checks all claims, with the time that it is given.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let path = keys::path(state);
        let mut keys_watch = FileWatch::of_replaced_files();
        keys_watch.poll([&path]);
        let keys = Keys::open(state, now)?;
        keys_watch.settle([&path]);
        Ok(Self {
            state: state.to_owned(),
            keys: ArcSwap::from_pointee(keys),
            refresh_tokens: Arc::new(RefreshTokens::open(state)?),
            access_lists: Arc::new(AccessLists::new(state)),
            cache: TokenCache::new().ok_or(KeysError::NoRandomness)?,
            keys_watch: Mutex::new(keys_watch),
            validation,
        })
    }

    /// Whether [`Self::open`] can use the files that are there. Creates nothing.
    pub(crate) fn check(state: &Path) -> Result<(), TokensError> {
        keys::read_entry_key(state)?;
        RefreshTokens::open(state)?;
        Ok(())
    }

    pub fn refresh_tokens(&self) -> &Arc<RefreshTokens> {
        &self.refresh_tokens
    }

    /// Signs a token. It is accepted for [`CLOCK_MARGIN`] longer than its lifetime.
    pub fn issue(
        &self,
        bearer: Bearer<'_>,
        access: &TokenAccess,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, SigningFailed> {
        let keys = self.keys.load();
        let key = keys.signing(now);
        let Bearer { domain, user } = bearer;
        let (sub, entry) = user.map_or_else(Default::default, |(user, entry)| {
            (user.to_string(), entry.to_owned())
        });
        let iat = seconds(now);
        let exp = iat.saturating_add(lifetime.as_secs());
        let (entries, access_list) = match AccessList::of_long(bearer, access) {
            Some(list) => {
                let id = list.id.to_string();
                self.access_lists.remember(list, exp);
                (Vec::new(), Some(id))
            }
            None => (access.to_entries(), None),
        };
        let claims = Claims {
            iss: domain.to_owned(),
            sub,
            aud: domain.to_owned(),
            exp,
            nbf: iat.saturating_sub(CLOCK_MARGIN),
            iat,
            jti: random_id(),
            access: entries,
            access_list,
            entry,
        };
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(key.id.clone());
        encode(&header, &claims, &key.signing).map_err(SigningFailed)
    }

    /// Verifies a token at a domain with these users. Costs one signature for a new token, and a hash
    /// for a cached one.
    pub fn verify(
        &self,
        token: &str,
        domain: &str,
        users: &Htpasswd,
        now: SystemTime,
    ) -> Result<Verified, InvalidToken> {
        let tag = self.cache.tag(token);
        let known = match self.cache.get(&tag) {
            Some(known) => known,
            None => {
                let claims = self.read(token).ok_or(InvalidToken::Foreign)?;
                self.cache.insert(
                    tag,
                    token.len(),
                    CachedToken::from_claims(claims),
                    seconds(now),
                )
            }
        };
        if known.issuer != domain || known.audience != domain {
            return Err(InvalidToken::Foreign);
        }
        let now = seconds(now);
        if now >= known.refused_from {
            return Err(InvalidToken::Expired);
        }
        if now < known.begins {
            return Err(InvalidToken::Early);
        }
        let claim = users.claim(&known.user);
        let user = match claim.user {
            _ if known.user.is_empty() => None,
            Some(user) if self.entry_tag(domain, user, users) == known.entry => claim.known(),
            Some(_) | None => return Err(InvalidToken::UserChanged),
        };
        let access = match &known.access {
            CachedAccess::InToken(access) => access.clone(),
            CachedAccess::InList(id) => {
                let list = self.access_lists.get(id, user.is_some());
                list.ok_or(InvalidToken::ListUnknown)?
            }
        };
        Ok(Verified { user, access })
    }

    /// Writes the list of a token that is to be issued, if it has one and a user: so that a restart
    /// does not lose it, and the other processes with the same state directory find it.
    pub async fn write_list(&self, bearer: Bearer<'_>, access: &TokenAccess, now: SystemTime) {
        if bearer.user.is_some()
            && let Some(list) = AccessList::of_long(bearer, access)
        {
            self.access_lists.write(list, now).await;
        }
    }

    /// Reads the list of a token that [`Self::verify`] has refused as [`InvalidToken::ListUnknown`].
    pub async fn read_list(&self, token: &str) {
        let Some(known) = self.cache.get(&self.cache.tag(token)) else {
            return;
        };
        if let CachedAccess::InList(id) = known.access
            && !known.user.is_empty()
        {
            self.access_lists
                .read(id, &known.issuer, &known.user, known.refused_from)
                .await;
        }
    }

    /// The claims of a token that was signed with a key of this registry and [`ALGORITHM`].
    fn read(&self, token: &str) -> Option<Claims> {
        let header = decode_header(token).ok()?;
        // `crit` lists extensions that must be understood (RFC 7515 §4.1.11): none is supported.
        if header.alg != ALGORITHM || header.crit.is_some() {
            return None;
        }
        let keys = self.keys.load();
        let key = keys.find(&header.kid?)?;
        Some(
            decode::<Claims>(token, &key.verifying, &self.validation)
                .ok()?
                .claims,
        )
    }

    /// The tag of a user's entry, see [`EntryKey::tag`].
    pub fn entry_tag(&self, domain: &str, user: &UserName, users: &Htpasswd) -> String {
        self.keys.load().entry_key.tag(domain, user, users)
    }

    /// The public keys, as a JSON web key set (RFC 7517 §5).
    pub fn public_keys(&self) -> String {
        format!(
            "{}\n",
            serde_json::json!({ "keys": self.keys.load().public() })
        )
    }

    /// Exchanges changes with the other processes through the files, and generates the next key when
    /// it is due. Blocks.
    pub fn refresh(&self, now: SystemTime) {
        self.refresh_keys(now);
        self.refresh_tokens.refresh(now);
    }

    fn refresh_keys(&self, now: SystemTime) {
        let path = keys::path(&self.state);
        let mut watch = self
            .keys_watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let change = watch.poll([&path]);
        if change == FileChange::None && !self.keys.load().needs_rotation(now) {
            return;
        }
        match Keys::open(&self.state, now) {
            Ok(keys) => {
                // If this process has just written the file, it reads it once more.
                watch.settle([&path]);
                watch.problem_ended();
                let before = self.keys.swap(Arc::new(keys));
                if !before.same_as(&self.keys.load()) {
                    self.cache.clear();
                    tracing::info!("token signing keys re-read");
                }
            }
            Err(error) => {
                watch.problem_began(error.to_string());
                tracing::error!(%error, "token signing keys cannot be re-read, keeping the old ones");
            }
        }
    }
}

fn random_id() -> String {
    // Only identifies the token: no check depends on it.
    URL_SAFE_NO_PAD.encode(crypto::random::<16>().unwrap_or_default())
}

/// How long before its first and after its last second a token is accepted, in seconds. A client
/// counts from the moment at which it reads the answer, and the last request that it begins in time
/// has its way here before it: the moment of the end is never the same one for both. The clocks of
/// two processes that share their keys differ, too, and a clock is corrected.
const CLOCK_MARGIN: u64 = 60;

#[cfg(test)]
mod tests;
