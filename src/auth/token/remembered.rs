//! Tokens whose signature was verified, so that each costs one verification and not one for each
//! request.

use std::sync::Arc;

use dashmap::DashMap;

use super::claims::{Access, Claims};
use crate::crypto::{TagKey, keyed_tag};

/// What a verified token says, in the form in which every request needs it.
pub(super) struct Known {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) user: String,
    pub(super) entry: String,
    pub(super) begins: u64,
    pub(super) expires: u64,
    pub(super) access: Arc<Access>,
}

impl Known {
    pub(super) fn of(claims: Claims) -> Self {
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
        let access = Arc::new(Access::of_entries(&access));
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

/// Verified tokens under a keyed hash: a table of the process's memory holds none of them.
pub(super) struct Remembered {
    key: TagKey,
    known: DashMap<[u8; 32], Arc<Known>>,
}

impl Remembered {
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

    pub(super) fn look(&self, tag: &[u8; 32]) -> Option<Arc<Known>> {
        self.known.get(tag).map(|known| known.clone())
    }

    /// Remembers a verified token of so many bytes.
    pub(super) fn insert(&self, tag: [u8; 32], bytes: usize, known: Known, now: u64) -> Arc<Known> {
        let known = Arc::new(known);
        if bytes > LONGEST {
            return known;
        }
        if self.known.len() >= MOST {
            self.known.retain(|_, known| known.expires > now);
        }
        if self.known.len() >= MOST {
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

/// With the longest tokens, about 10 MiB in all.
const MOST: usize = 4096;
/// Longer ones are for many repositories, and verified each time.
const LONGEST: usize = 2048;
