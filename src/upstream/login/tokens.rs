//! The tokens of one credential at one registry, by what they allow.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::time::Instant;

use super::scope::TokenScope;
use super::token::TokenSlot;
use crate::upstream::product::TokenNeed;

/// The tokens of one credential.
#[derive(Debug, Default)]
pub(super) struct UpstreamTokens {
    /// That without a scope, and the only one where tokens have none.
    registry: Arc<TokenSlot>,
    catalog: Arc<TokenSlot>,
    /// By the name of the repository; of mounts, by both names with a space between.
    repositories: DashMap<Box<str>, RepositoryTokens>,
}

#[derive(Debug, Default)]
struct RepositoryTokens {
    read: Arc<TokenSlot>,
    write: Arc<TokenSlot>,
    delete: Arc<TokenSlot>,
}

impl UpstreamTokens {
    /// The slot of the token for a scope.
    pub(super) fn slot(&self, scope: TokenScope<'_>) -> Arc<TokenSlot> {
        match scope {
            TokenScope::Registry => self.registry.clone(),
            TokenScope::Catalog => self.catalog.clone(),
            TokenScope::Repository {
                name,
                need,
                from: None,
            } => self.repository(name, need),
            TokenScope::Repository {
                name,
                need,
                from: Some(from),
            } => self.repository(&format!("{name} {from}"), need),
        }
    }

    /// When the token that lives longest ends; `None` without any.
    pub(super) fn expires(&self) -> Option<Instant> {
        let own = [&self.registry, &self.catalog].map(|slot| slot.current());
        let of_repositories = self.repositories.iter().flat_map(|tokens| {
            let slots = tokens.all().map(|slot| slot.current());
            slots.into_iter()
        });
        let all = own.into_iter().chain(of_repositories).flatten();
        all.map(|token| token.expires).max()
    }

    fn repository(&self, key: &str, need: TokenNeed) -> Arc<TokenSlot> {
        if let Some(tokens) = self.repositories.get(key) {
            return tokens.slot(need).clone();
        }
        if self.repositories.len() >= MAX_REPOSITORIES {
            self.evict();
        }
        let tokens = self.repositories.entry(key.into()).or_default();
        tokens.slot(need).clone()
    }

    /// Removes the repositories without a valid token, or all but a half of them.
    #[cold]
    fn evict(&self) {
        let now = Instant::now();
        self.repositories.retain(|_, tokens| tokens.is_in_use(now));
        let left = self.repositories.len();
        if left < MAX_REPOSITORIES {
            return;
        }
        let mut surplus = left - MAX_REPOSITORIES / 2;
        self.repositories.retain(|_, _| {
            let is_kept = surplus == 0;
            surplus = surplus.saturating_sub(1);
            is_kept
        });
    }

    /// Lets the next request exchange again whatever has failed.
    pub(super) fn forget_failures(&self) {
        self.registry.forget_failure();
        self.catalog.forget_failure();
        for tokens in &self.repositories {
            for slot in tokens.all() {
                slot.forget_failure();
            }
        }
    }
}

impl RepositoryTokens {
    fn slot(&self, need: TokenNeed) -> &Arc<TokenSlot> {
        match need {
            TokenNeed::Read => &self.read,
            TokenNeed::Write => &self.write,
            TokenNeed::Delete => &self.delete,
        }
    }

    fn all(&self) -> [&Arc<TokenSlot>; 3] {
        [&self.read, &self.write, &self.delete]
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.all().iter().any(|slot| slot.is_in_use(now))
    }
}

/// Of each, some kilobytes of tokens: 16 MiB at most for one registry.
const MAX_REPOSITORIES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_repositories_is_bounded() {
        let tokens = UpstreamTokens::default();
        for number in 0..3 * MAX_REPOSITORIES {
            let name = format!("a{number}");
            let scope = TokenScope::Repository {
                name: &name,
                need: TokenNeed::Read,
                from: None,
            };
            tokens.slot(scope);
            assert!(tokens.repositories.len() <= MAX_REPOSITORIES);
        }
    }

    #[test]
    fn each_scope_has_its_own_slot() {
        let tokens = UpstreamTokens::default();
        let of = |name, need, from| tokens.slot(TokenScope::Repository { name, need, from });
        let read = of("a", TokenNeed::Read, None);
        assert!(Arc::ptr_eq(&read, &of("a", TokenNeed::Read, None)));
        for other in [
            of("a", TokenNeed::Write, None),
            of("a", TokenNeed::Delete, None),
            of("b", TokenNeed::Read, None),
            of("a", TokenNeed::Read, Some("b")),
            tokens.slot(TokenScope::Registry),
            tokens.slot(TokenScope::Catalog),
        ] {
            assert!(!Arc::ptr_eq(&read, &other));
        }
    }
}
