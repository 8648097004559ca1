//! Tokens whose signature was verified, so that each costs one verification and not one for each
//! request.

use std::sync::Arc;

use dashmap::DashMap;

use super::claims::{Claims, TokenAccess};
use crate::crypto::{TagKey, keyed_tag};

/// The claims of a verified token, in the form that requests use.
pub(super) struct CachedToken {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) user: String,
    pub(super) entry: String,
    pub(super) begins: u64,
    pub(super) expires: u64,
    pub(super) access: Arc<TokenAccess>,
}

impl CachedToken {
    pub(super) fn from_claims(claims: Claims) -> Self {
        let Claims {
            iss,
            sub,
            aud,
            exp,
            nbf,
            iat: _,
            jti: _,
            access,
            entry,
        } = claims;
        let access = Arc::new(TokenAccess::of_entries(&access));
        Self {
            issuer: iss,
            audience: aud,
            user: sub,
            entry,
            begins: nbf,
            expires: exp,
            access,
        }
    }
}

/// Verified tokens by their keyed hash. The tokens themselves are not kept in memory.
pub(super) struct TokenCache {
    key: TagKey,
    known: DashMap<[u8; 32], Arc<CachedToken>>,
}

impl TokenCache {
    /// `None` if the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        let key = TagKey::random().ok()?;
        Some(Self {
            key,
            known: DashMap::new(),
        })
    }

    pub(super) fn tag(&self, token: &str) -> [u8; 32] {
        keyed_tag(&self.key, &[token.as_bytes()])
    }

    pub(super) fn get(&self, tag: &[u8; 32]) -> Option<Arc<CachedToken>> {
        self.known.get(tag).map(|known| known.clone())
    }

    /// Remembers a verified token of so many bytes.
    pub(super) fn insert(
        &self,
        tag: [u8; 32],
        bytes: usize,
        known: CachedToken,
        now: u64,
    ) -> Arc<CachedToken> {
        let known = Arc::new(known);
        if bytes > MAX_TOKEN_BYTES {
            return known;
        }
        if self.known.len() >= MAX_TOKENS {
            self.known.retain(|_, known| known.expires > now);
        }
        if self.known.len() >= MAX_TOKENS {
            // Where anybody gets a token, somebody may ask for many. Each of the others is verified
            // once more.
            self.known.clear();
        }
        self.known.insert(tag, known.clone());
        known
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    pub(super) fn clear(&self) {
        self.known.clear();
    }
}

/// With tokens of the maximum size, about 10 MiB in all.
const MAX_TOKENS: usize = 4096;
/// Longer tokens are for many repositories, and are verified each time.
const MAX_TOKEN_BYTES: usize = 2048;
