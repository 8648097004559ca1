//! Registrations of accounts that have failed. All domains use one account: what prevents it is not
//! tried again for each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Plan;
use crate::certs::acme::AcmeError;
use crate::certs::state::paths::CaId;

/// The last failed registration at each CA.
#[derive(Default)]
pub(super) struct FailedRegistrations(Mutex<HashMap<CaId, FailedRegistration>>);

struct FailedRegistration {
    at: Instant,
    /// The configuration with which it failed: another one may be right.
    plan: Arc<Plan>,
    error: Arc<AcmeError>,
}

impl FailedRegistrations {
    /// The error of a registration that has just failed with this configuration.
    pub(super) fn recent(&self, ca: &CaId, plan: &Arc<Plan>) -> Option<Arc<AcmeError>> {
        let all = self.lock();
        let failed = all.get(ca)?;
        let is_recent = failed.at.elapsed() < RECENT;
        (is_recent && Arc::ptr_eq(&failed.plan, plan)).then(|| failed.error.clone())
    }

    pub(super) fn add(&self, ca: CaId, plan: Arc<Plan>, error: Arc<AcmeError>) {
        let mut all = self.lock();
        // The CAs of the present configuration are few; others are forgotten.
        all.retain(|_, failed| Arc::ptr_eq(&failed.plan, &plan));
        let at = Instant::now();
        all.insert(ca, FailedRegistration { at, plan, error });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CaId, FailedRegistration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shorter than any backoff, so that the next attempt of a domain that has failed is a real one.
const RECENT: Duration = Duration::from_secs(30);
