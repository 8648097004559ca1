//! What this process knows of areas, and what it has not shared with others yet.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use super::changes::SharedChanges;
use super::event::{AreaEvent, ProcessId, PublicationId};
use super::usage::ContentUsage;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;

#[derive(Debug, Default)]
pub(super) struct QuotaState {
    /// `None` until a quota needs it.
    pub(super) changes: Option<SharedChanges>,
    pub(super) usage: ContentUsage,
    /// The last reservation of each upload that is being received.
    pub(super) receiving: HashMap<UploadId, u64>,
    /// Events of this process that others do not know of, because the file could not be locked.
    unshared: Vec<AreaEvent>,
    /// When the disk was read last. `None`: it must be read before anything is decided.
    pub(super) read_at: Option<Instant>,
}

/// The end of a reservation or publication.
#[derive(Debug)]
pub(super) enum Settlement {
    Upload {
        /// The number of the reservation.
        number: u64,
        repository: RepositoryName,
        id: UploadId,
        bytes: u64,
    },
    Publication {
        id: PublicationId,
        is_stored: bool,
    },
}

impl QuotaState {
    pub(super) fn record(&mut self, event: AreaEvent) {
        self.usage.apply(&event);
        self.unshared.push(event);
    }

    /// Whether a later request than that of a reservation adds to an upload.
    pub(super) fn is_superseded(&self, id: &UploadId, number: u64) -> bool {
        self.receiving.get(id).is_some_and(|last| *last > number)
    }

    pub(super) fn settle(&mut self, settlement: Settlement, process: &ProcessId) {
        match settlement {
            Settlement::Upload {
                number,
                repository,
                id,
                bytes,
            } => {
                // It was published, never reserved anything, or another request goes on with it.
                if self.receiving.get(&id) != Some(&number) {
                    return;
                }
                self.receiving.remove(&id);
                self.record(AreaEvent::Upload {
                    process: process.clone(),
                    repository,
                    id,
                    bytes,
                    is_receiving: false,
                });
            }
            Settlement::Publication { id, is_stored } => self.record(AreaEvent::Ended {
                publication: id,
                is_stored,
            }),
        }
    }

    /// Runs work with the changes of other processes, and shares the events that it adds.
    ///
    /// Errors: `TimedOut` after `deadline`; those of the disk. What the work has done stays.
    pub(super) fn share<T>(
        &mut self,
        changes: &mut SharedChanges,
        deadline: Instant,
        work: impl FnOnce(&mut QuotaState, &ProcessId) -> T,
    ) -> io::Result<T> {
        let process = changes.process().clone();
        let (mut locked, foreign) = changes.lock(deadline)?;
        if foreign.are_all {
            // What others have published since then is known only to the disk.
            self.read_at = None;
            self.usage.forget_others(&process);
        }
        foreign
            .events
            .iter()
            .for_each(|event| self.usage.apply(event));
        if foreign.are_all {
            let own = self.usage.events();
            let own = own.into_iter().filter(|event| *event.process() == process);
            self.unshared.extend(own);
        }
        let done = work(self, &process);
        locked.add(&self.unshared)?;
        self.unshared.clear();
        if let Err(error) = locked.shorten(|| self.usage.events()) {
            tracing::debug!(%error, "file of changes not shortened");
        }
        Ok(done)
    }
}
