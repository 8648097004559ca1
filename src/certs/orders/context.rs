//! What all attempts share: storage, the certificates that are served, the configuration, the
//! ledger and the clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use super::SystemClock;
use super::local_error::LocalError;
use super::plan::Plan;
use super::registrations::FailedRegistrations;
use crate::certs::served::manager::{Certificates, Issued};
use crate::certs::served::stored;
use crate::certs::state::ledger::Ledger;
use crate::certs::state::ledger::file::{Clock, LedgerFile};
use crate::certs::state::storage::{DomainRecord, Storage};
use crate::config::acme::AcmeRequest;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// The shared state of steps and attempts.
pub(super) struct OrderContext {
    pub(super) storage: Storage,
    pub(super) certificates: Arc<Certificates>,
    pub(super) plan: ArcSwap<Plan>,
    /// Opened by the first access.
    ledger: Mutex<Option<LedgerFile>>,
    /// The ledger as of the last access.
    pub(super) last_ledger: ArcSwapOption<Ledger>,
    pub(super) failed_registrations: FailedRegistrations,
    pub(super) system_clock: SystemClock,
    started: Instant,
    /// How long to wait for the lock of an account.
    pub(super) account_lock_timeout: Duration,
}

impl OrderContext {
    pub(super) fn new(
        certificates: Arc<Certificates>,
        snapshot: &Snapshot,
        system_clock: SystemClock,
    ) -> Self {
        Self {
            storage: Storage::below(certificates.state()),
            certificates,
            plan: ArcSwap::from_pointee(Plan::from_snapshot(snapshot)),
            ledger: Mutex::default(),
            last_ledger: ArcSwapOption::empty(),
            failed_registrations: FailedRegistrations::default(),
            system_clock,
            started: Instant::now(),
            account_lock_timeout: ACCOUNT_LOCK_TIMEOUT,
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.system_clock)()
    }

    pub(super) fn clock(&self) -> Clock {
        Clock {
            now: self.now(),
            steady: self.started.elapsed(),
        }
    }

    /// Reads or changes the ledger on a blocking thread. After an error nothing may be requested that
    /// counts for a limit of the CA.
    pub(super) async fn ledger<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger, SystemTime) -> R + Send + 'static,
    ) -> Result<R, LocalError> {
        let context = self.clone();
        let clock = self.clock();
        run_blocking(move || {
            let mut opened = context
                .ledger
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let file = match opened.as_mut() {
                Some(file) => file,
                None => {
                    let (file, damaged) = LedgerFile::open(context.storage.state(), clock)?;
                    if let Some(damaged) = damaged {
                        tracing::error!("{damaged}");
                    }
                    opened.insert(file)
                }
            };
            let (result, written) = file.update(clock, change);
            context.last_ledger.store(Some(file.ledger().clone()));
            written?;
            Ok(result)
        })
        .await
    }

    /// The certificate of the domain, if it has exactly the names of the request.
    pub(super) fn issued_for_names(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
    ) -> Option<Issued> {
        let issued = self.certificates.issued(&host.domain)?;
        stored::is_for(&issued.certificate.facts, request).then_some(issued)
    }

    /// The serial number of the domain's certificate.
    pub(super) fn serial(&self, domain: &HostName) -> Option<String> {
        self.certificates
            .issued(domain)
            .map(|issued| issued.certificate.facts.serial)
    }

    pub(super) async fn load_record(&self, domain: &HostName) -> Result<DomainRecord, LocalError> {
        let (storage, domain) = (self.storage.clone(), domain.clone());
        Ok(run_blocking(move || storage.record(&domain)).await?)
    }

    pub(super) async fn store_record(
        &self,
        domain: &HostName,
        record: &DomainRecord,
    ) -> Result<(), LocalError> {
        let (storage, domain, record) = (self.storage.clone(), domain.clone(), record.clone());
        Ok(run_blocking(move || storage.write_record(&domain, &record)).await?)
    }
}

/// An account is locked for as long as requests to create or change it take.
const ACCOUNT_LOCK_TIMEOUT: Duration = Duration::from_mins(2);
