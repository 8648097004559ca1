//! Quotas: how many bytes the repositories of an area may hold together. What counts is what the
//! disk has, each content of an area once, and what uploads have announced. It is known in memory,
//! kept up to date by the events of all processes (`changes`), and read again from the disk before a
//! push is refused, and now and then: there is no counter that a crash could falsify.

mod areas;
mod changes;
mod event;
pub(super) mod excess;
pub(super) mod reservation;
mod scan;
mod state;
mod usage;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::error::StoreError;
use super::lanes::{DiskJob, Lane};
use super::layout::StoreLayout;
use crate::config::retention::QuotaSettings;
use crate::registry::name::RepositoryName;
use areas::QuotaTables;
use changes::SharedChanges;
use event::{AreaEvent, ProcessId, PublicationId};
use excess::QuotaExcess;
use scan::{BlobSizes, DirectoryStamps, KnownContent, ScannedRepository};
use state::{QuotaState, Settlement};
use usage::{ContentUsage, NewContent, UploadGrowth};

pub(crate) use usage::AreaUse;

/// The quotas of a store.
#[derive(Debug)]
pub(super) struct AreaQuotas {
    layout: StoreLayout,
    tables: ArcSwap<QuotaTables>,
    state: Mutex<QuotaState>,
    /// Locked while the disk is read.
    scanning: Mutex<()>,
    /// The number of times that reading the disk has begun.
    scans: AtomicU64,
    /// The number of the next reservation or publication.
    numbers: AtomicU64,
    /// Ends of reservations and publications that are not in the state yet.
    settlements: Mutex<Vec<Settlement>>,
    /// For work that waits for the locks of quotas, and for nothing else.
    lane: Lane,
    /// What the areas held at the last maintenance.
    report: ArcSwap<Vec<AreaUse>>,
}

/// The answer to a wish for space, if the areas are known well enough for one.
type QuotaDecision<T> = Result<Result<T, QuotaExcess>, ScanNeeded>;

/// The disk must be read first.
#[derive(Debug)]
struct ScanNeeded;

impl AreaQuotas {
    pub(super) fn new(layout: StoreLayout) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            layout,
            tables: ArcSwap::default(),
            state: Mutex::default(),
            scanning: Mutex::default(),
            scans: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            settlements: Mutex::default(),
            lane: Lane::start("store-quota")?,
            report: ArcSwap::default(),
        }))
    }

    /// Replaces the quotas. Pushes that have reserved their space may end.
    pub(super) fn set(&self, tables: &[QuotaSettings]) {
        if self.tables.load().is_of(tables) {
            return;
        }
        let mut state = self.state();
        state.usage.set_tables(QuotaTables::new(tables.to_vec()));
        state.read_at = None;
        self.tables
            .store(Arc::new(QuotaTables::new(tables.to_vec())));
        self.report.store(Arc::new(state.usage.report()));
    }

    /// Whether a quota applies to a repository.
    fn apply_to(&self, name: &RepositoryName) -> bool {
        let tables = self.tables.load();
        !tables.is_empty() && tables.cover(name)
    }

    /// What the areas held at the last maintenance, the fullest first.
    pub(super) fn report(&self) -> Arc<Vec<AreaUse>> {
        self.report.load_full()
    }

    /// Reads the disk, and shares what could not be shared before. Blocks on the disk and on locks.
    pub(super) fn maintain(&self) -> Result<(), StoreError> {
        if self.tables.load().is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + LOCK_TIMEOUT;
        self.rescan(deadline)?;
        let state = self.state();
        self.report.store(Arc::new(state.usage.report()));
        match &state.changes {
            Some(changes) => Ok(changes.remove_remains()?),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, QuotaState> {
        // A panic leaves at worst a wrong count, which the next scan corrects.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves space for an upload, and returns the bytes that it may have. `number`: that of the
    /// reservation.
    fn reserve(
        &self,
        growth: &UploadGrowth,
        number: u64,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        self.decide(deadline, |state, process| {
            if state.is_superseded(&growth.id, number) {
                return Ok(Err(StoreError::Superseded));
            }
            let bytes = state.usage.grant(growth)?;
            state.receiving.insert(growth.id.clone(), number);
            let event = AreaEvent::Upload {
                process: process.clone(),
                repository: growth.repository.clone(),
                id: growth.id.clone(),
                bytes,
                is_receiving: true,
            };
            state.record(event);
            Ok(Ok(bytes))
        })?
    }

    /// Counts content that is about to be published, in place of its upload and of the reservation
    /// of this number.
    fn begin_publication(
        &self,
        new: &NewContent,
        reservation: Option<u64>,
        deadline: Instant,
    ) -> Result<PublicationId, StoreError> {
        let number = self.next_number();
        self.decide(deadline, |state, process| {
            state.usage.check_content(new)?;
            let publication = PublicationId {
                process: process.clone(),
                number,
            };
            if let Some((id, reservation)) = new.upload.as_ref().zip(reservation)
                && !state.is_superseded(id, reservation)
            {
                state.receiving.remove(id);
            }
            let event = AreaEvent::Publishing {
                publication: publication.clone(),
                repository: new.repository.clone(),
                digest: new.digest.clone(),
                size: new.size,
                upload: new.upload.clone(),
            };
            state.record(event);
            Ok(publication)
        })
    }

    /// Decides by what is known. Nothing is refused before the disk was read, where deletions show.
    fn decide<T>(
        &self,
        deadline: Instant,
        decision: impl Fn(&mut QuotaState, &ProcessId) -> Result<T, QuotaExcess>,
    ) -> Result<T, StoreError> {
        let attempt = || self.decide_once(deadline, &decision);
        match attempt()? {
            Ok(Ok(decided)) => return Ok(decided),
            Ok(Err(_)) | Err(ScanNeeded) => self.rescan(deadline)?,
        }
        // Another process may replace the file of changes at any time.
        for _ in 0..MAX_RESCANS {
            match attempt()? {
                Ok(decided) => {
                    return decided.map_err(|excess| StoreError::OverQuota(Box::new(excess)));
                }
                Err(ScanNeeded) => self.rescan(deadline)?,
            }
        }
        Err(StoreError::Locked)
    }

    fn decide_once<T>(
        &self,
        deadline: Instant,
        decision: &impl Fn(&mut QuotaState, &ProcessId) -> Result<T, QuotaExcess>,
    ) -> Result<QuotaDecision<T>, StoreError> {
        self.with_changes(deadline, |state, process| {
            let is_recent = |at: Instant| at.elapsed() < RESCAN_INTERVAL;
            if state.read_at.is_some_and(is_recent) {
                Ok(decision(state, process))
            } else {
                Err(ScanNeeded)
            }
        })
    }

    /// Records the end of a reservation or publication, as soon as the disk lets it. Returns the job
    /// that does. `None`: whoever comes next does it.
    fn settle(self: &Arc<Self>, settlement: Settlement) -> Option<DiskJob<()>> {
        self.settlements().push(settlement);
        let quotas = self.clone();
        let job = self.lane.start_job(move || {
            quotas.share_settlements();
            Ok(())
        });
        job.inspect_err(|error| tracing::debug!(%error, "end of a reservation deferred"))
            .ok()
    }

    /// Records the end of a reservation or publication. Blocks for at most [`SETTLEMENT_TIMEOUT`].
    fn settle_now(&self, settlement: Settlement) {
        self.settlements().push(settlement);
        self.share_settlements();
    }

    fn share_settlements(&self) {
        let deadline = Instant::now() + SETTLEMENT_TIMEOUT;
        // Whoever comes next does it.
        if let Err(error) = self.with_changes(deadline, |_, _| ()) {
            tracing::debug!(%error, "end of a reservation deferred");
        }
    }

    fn settlements(&self) -> MutexGuard<'_, Vec<Settlement>> {
        let settlements = self.settlements.lock();
        settlements.unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work with the changes of other processes, and shares the events that it adds.
    ///
    /// Errors: `Locked` after `deadline`; those of the disk.
    fn with_changes<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&mut QuotaState, &ProcessId) -> T,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        let mut changes = match state.changes.take() {
            Some(changes) => changes,
            None => SharedChanges::join(self.layout.quotas())?,
        };
        for settlement in std::mem::take(&mut *self.settlements()) {
            state.settle(settlement, changes.process());
        }
        let done = state.share(&mut changes, deadline, work);
        state.changes = Some(changes);
        done.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => StoreError::Locked,
            _ => error.into(),
        })
    }

    /// Reads the disk, unless another caller began to after this one came.
    fn rescan(&self, deadline: Instant) -> Result<(), StoreError> {
        let begun = self.scans.load(Ordering::Acquire);
        let _one = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.scans.load(Ordering::Acquire) > begun {
            return Ok(());
        }
        self.scans.fetch_add(1, Ordering::AcqRel);
        let read_at = Instant::now();
        let processes = self.with_changes(deadline, |state, _| {
            state.usage.begin_scan();
            state.usage.processes()
        })?;
        // First the processes: what one has published before it died is on the disk.
        let dead = self.dead_among(processes)?;
        let tables = self.tables.load();
        let scanned = scan::scan(&self.layout, self, &|name| tables.cover(name));
        let scanned = scanned.map_err(|error| self.layout.explain(error.into()))?;
        self.with_changes(deadline, |state, _| {
            state.usage.end_scan(scanned, &dead);
            state.read_at = Some(read_at);
        })
    }

    fn dead_among(&self, processes: HashSet<ProcessId>) -> io::Result<HashSet<ProcessId>> {
        let state = self.state();
        let mut dead = HashSet::new();
        for process in processes {
            if let Some(changes) = &state.changes
                && changes.is_dead(&process)?
            {
                dead.insert(process);
            }
        }
        Ok(dead)
    }
}

/// What a store holds.
#[derive(Debug)]
pub(crate) struct StoreUse {
    /// The areas with quotas, the fullest first.
    pub(crate) areas: Vec<AreaUse>,
    /// The repositories without a quota, by name, and their bytes: each content once in each.
    pub(crate) others: BTreeMap<RepositoryName, u64>,
}

/// Reads from the disk what a store holds, without what running uploads have announced. Needs only
/// the right to read, and changes nothing.
pub(super) fn measure(layout: &StoreLayout, quotas: &[QuotaSettings]) -> io::Result<StoreUse> {
    let mut usage = ContentUsage::default();
    usage.set_tables(QuotaTables::new(quotas.to_vec()));
    usage.begin_scan();
    let scanned = scan::scan(layout, &usage, &|name| usage.covers(name))?;
    let others = scan::scan(layout, &usage, &|name| !usage.covers(name))?;
    usage.end_scan(scanned, &HashSet::new());
    let others = others.repositories.into_iter();
    let others = others.filter_map(|(name, repository)| match repository {
        ScannedRepository::Read { blobs, .. } => Some((name, blobs.values().sum())),
        ScannedRepository::Unchanged => None,
    });
    Ok(StoreUse {
        areas: usage.report(),
        others: others.collect(),
    })
}

impl KnownContent for AreaQuotas {
    fn stamps(&self, name: &RepositoryName) -> Option<DirectoryStamps> {
        self.state().usage.stamps(name)
    }

    fn sizes(&self, name: &RepositoryName) -> BlobSizes {
        self.state().usage.sizes(name)
    }
}

impl Drop for AreaQuotas {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = state.changes.as_ref().map(SharedChanges::leave) {
            tracing::debug!(%error, "quota file of this process not removed");
        }
    }
}

/// How long a push waits for the locks of quotas, which are held for less than a millisecond, and for
/// the disk to be read.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for what nobody waits for.
const SETTLEMENT_TIMEOUT: Duration = Duration::from_millis(100);
/// How long changes that other tools make may stay unknown.
const RESCAN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_RESCANS: usize = 3;

#[cfg(test)]
mod tests;
