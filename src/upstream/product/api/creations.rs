//! What was created by an API, so that callers that find at the same time that it is missing create
//! it once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ApiError;
use crate::keyed_lock::KeyedLock;

/// The creations by one API.
pub(super) struct Creations {
    locks: KeyedLock<String>,
    /// When names were created, so that who waited for it does not do it again.
    created: Mutex<HashMap<String, Instant>>,
}

impl Creations {
    pub(super) fn new() -> Self {
        Self {
            locks: KeyedLock::new(),
            created: Mutex::default(),
        }
    }

    /// Makes something once. `since`: when the caller began to ask for it.
    pub(super) async fn once(
        &self,
        name: &str,
        since: Instant,
        create: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let guard = self.locks.write(name.to_owned(), CREATION_TIMEOUT).await;
        let _guard = guard.map_err(|_| ApiError::TimedOut)?;
        if self.was_created(name, since) {
            return Ok(());
        }
        let created = tokio::time::timeout(CREATION_TIMEOUT, create).await;
        created.map_err(|_| ApiError::TimedOut)??;
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        if created.len() >= MAX_CREATED {
            created.clear();
        }
        created.insert(name.to_owned(), Instant::now());
        Ok(())
    }

    fn was_created(&self, name: &str, since: Instant) -> bool {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.get(name).is_some_and(|&when| when >= since)
    }
}

/// Google's creations take up to half a minute.
const CREATION_TIMEOUT: Duration = Duration::from_secs(90);
/// The names whose creation is remembered.
const MAX_CREATED: usize = 1024;
