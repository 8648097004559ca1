//! Tokens whose signature was verified, so that a token costs one verification and not one for each
//! request.

use std::sync::Arc;

use super::CLOCK_MARGIN;
use super::access_lists::ListId;
use super::claims::{Claims, TokenAccess};
use crate::auth::cache::{BoundedCache, Expiring};
use crate::auth::credential_tag::CredentialTag;
use crate::crypto::TagKey;

/// The claims of a verified token, in the form that requests use.
pub(super) struct CachedToken {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) user: String,
    pub(super) entry: String,
    pub(super) begins: u64,
    /// The first second in which it is refused: after its `exp` and the margin.
    pub(super) refused_from: u64,
    pub(super) access: CachedAccess,
}

/// The access of a token.
pub(super) enum CachedAccess {
    InToken(Arc<TokenAccess>),
    /// In the list with this id: lists have a bound on their memory, tokens one on their number.
    InList(ListId),
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
            access_list,
            entry,
        } = claims;
        let list = access_list.as_deref().and_then(ListId::parse);
        let access = match list {
            Some(id) => CachedAccess::InList(id),
            None => CachedAccess::InToken(Arc::new(TokenAccess::from_entries(&access))),
        };
        Self {
            issuer: iss,
            audience: aud,
            user: sub,
            entry,
            begins: nbf,
            refused_from: exp.saturating_add(CLOCK_MARGIN),
            access,
        }
    }
}

impl Expiring for Arc<CachedToken> {
    /// Seconds since 1970.
    type Time = u64;

    fn expires(&self) -> u64 {
        self.refused_from
    }
}

/// Verified tokens.
pub(super) struct TokenCache {
    key: TagKey,
    tokens: BoundedCache<Arc<CachedToken>>,
}

impl TokenCache {
    /// `None` if the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            key: TagKey::random().ok()?,
            tokens: BoundedCache::new(MAX_TOKENS, EVICTED_TOKENS),
        })
    }

    pub(super) fn tag(&self, token: &str) -> CredentialTag {
        CredentialTag::from_token(&self.key, token)
    }

    pub(super) fn get(&self, tag: &CredentialTag) -> Option<Arc<CachedToken>> {
        self.tokens.get(tag)
    }

    /// Stores a verified token of `bytes` bytes, unless it is too long.
    pub(super) fn insert(
        &self,
        tag: CredentialTag,
        bytes: usize,
        token: CachedToken,
        now: u64,
    ) -> Arc<CachedToken> {
        let token = Arc::new(token);
        if bytes <= MAX_TOKEN_BYTES {
            self.tokens.insert(tag, token.clone(), now);
        }
        token
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn clear(&self) {
        self.tokens.clear();
    }
}

/// With tokens of the maximum size, about 10 MiB in all.
const MAX_TOKENS: usize = 4096;
/// Where anonymous clients get tokens, one client may fill the cache on a thread that serves
/// requests: at this number, each of its tokens costs the comparison of eight others.
const EVICTED_TOKENS: usize = MAX_TOKENS / 8;
/// Longer tokens are for some dozens of repositories, and are verified each time.
const MAX_TOKEN_BYTES: usize = 2048;
