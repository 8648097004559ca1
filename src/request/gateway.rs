//! What all requests of the process share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::answer::manifest_budget::ManifestBudget;
use super::answer::tag_locks::TagLocks;
use super::site::Sites;
use crate::auth::verify::Verifier;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Traffic;

/// The state that all requests of the process share.
pub(crate) struct Gateway {
    /// The configuration in force, with its live parts. A request loads it once.
    pub(crate) sites: ArcSwap<Sites>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) access_log: Arc<AccessLog>,
    /// Counters of the requests that found no domain.
    pub(crate) unlocated_traffic: Arc<Traffic>,
    pub(crate) tag_locks: TagLocks,
    pub(crate) manifest_budget: ManifestBudget,
}
