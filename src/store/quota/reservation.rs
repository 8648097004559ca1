//! Space that a request has reserved, until it ends: by an upload while its body arrives, and by
//! content while it is published. Dropping one gives back what was not used, a moment later: where
//! somebody gets an answer, the end is shared before it, so that no other process refuses the next
//! push for what has ended.

use std::sync::Arc;
use std::time::Instant;

use super::event::PublicationId;
use super::state::Settlement;
use super::usage::{NewContent, UploadGrowth};
use super::{AreaQuotas, LOCK_TIMEOUT};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::store::error::StoreError;

/// Space for what a request adds to an upload.
#[derive(Debug)]
pub(in crate::store) struct UploadReservation {
    quotas: Arc<AreaQuotas>,
    repository: RepositoryName,
    id: UploadId,
    /// Tells it from the reservations of earlier and later requests for the same upload.
    number: u64,
    /// The bytes that the upload may have.
    granted: u64,
    /// The bytes that it has, or that are being written.
    written: u64,
    has_ended: bool,
}

/// Content that is being published.
#[derive(Debug)]
pub(in crate::store) struct Publication {
    quotas: Arc<AreaQuotas>,
    id: PublicationId,
    has_ended: bool,
}

/// Content that is to be published in a repository.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PublishedContent<'a> {
    pub(in crate::store) repository: &'a RepositoryName,
    pub(in crate::store) digest: &'a Digest,
    pub(in crate::store) size: u64,
    /// The upload that it comes from.
    pub(in crate::store) upload: Option<&'a UploadId>,
}

impl UploadReservation {
    /// For an upload of this length. `None`: no quota applies.
    pub(in crate::store) fn new(
        quotas: &Arc<AreaQuotas>,
        repository: &RepositoryName,
        id: &UploadId,
        length: u64,
    ) -> Option<Self> {
        quotas.apply_to(repository).then(|| Self {
            quotas: quotas.clone(),
            repository: repository.clone(),
            id: id.clone(),
            number: quotas.next_number(),
            granted: length,
            written: length,
            has_ended: false,
        })
    }

    /// Ends it, and waits until other processes can know.
    pub(in crate::store) async fn end(mut self) {
        self.has_ended = true;
        if let Some(mut shared) = self.quotas.settle(self.settlement()) {
            // What failed is done by whoever comes next.
            let _ = shared.end().await;
        }
    }

    fn settlement(&self) -> Settlement {
        Settlement::Upload {
            number: self.number,
            repository: self.repository.clone(),
            id: self.id.clone(),
            bytes: self.written,
        }
    }

    /// Reserves space for a body. `None`: its length is not known.
    ///
    /// Errors: `OverQuota`, and then the reservation is gone; `Locked` after [`LOCK_TIMEOUT`].
    pub(in crate::store) async fn for_body(self, bytes: Option<u64>) -> Result<Self, StoreError> {
        let least = self.granted.saturating_add(bytes.unwrap_or_default());
        if least == self.granted {
            return Ok(self);
        }
        self.reserve(least, least).await
    }

    /// Reserves space for a part that is written next.
    ///
    /// Errors: as of [`Self::for_body`].
    pub(in crate::store) async fn for_part(mut self, bytes: usize) -> Result<Self, StoreError> {
        let least = self.written.saturating_add(bytes as u64);
        if least > self.granted {
            self = self
                .reserve(least, least.saturating_add(BYTES_AHEAD))
                .await?;
        }
        self.written = least;
        Ok(self)
    }

    /// The job owns the reservation, so that the end of a request that does not wait for it comes
    /// after it.
    async fn reserve(mut self, least: u64, wanted: u64) -> Result<Self, StoreError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let quotas = self.quotas.clone();
        let job = quotas.lane.run(move || {
            let growth = UploadGrowth {
                repository: self.repository.clone(),
                id: self.id.clone(),
                least,
                wanted,
            };
            self.granted = self.quotas.reserve(&growth, self.number, deadline)?;
            Ok(self)
        });
        let reserved = tokio::time::timeout(LOCK_TIMEOUT, job).await;
        reserved.map_err(|_| StoreError::Locked)?
    }
}

impl Drop for UploadReservation {
    fn drop(&mut self) {
        if !self.has_ended {
            drop(self.quotas.settle(self.settlement()));
        }
    }
}

impl Publication {
    /// Counts content that is about to be published, in place of its upload. `None`: no quota
    /// applies.
    ///
    /// Errors: as of [`UploadReservation::for_body`].
    pub(in crate::store) async fn begin(
        quotas: &Arc<AreaQuotas>,
        content: PublishedContent<'_>,
        reservation: Option<UploadReservation>,
    ) -> Result<Option<Self>, StoreError> {
        if !quotas.apply_to(content.repository) {
            return Ok(None);
        }
        let new = NewContent {
            repository: content.repository.clone(),
            digest: content.digest.clone(),
            size: content.size,
            upload: content.upload.cloned(),
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let owned = quotas.clone();
        let job = quotas.lane.run(move || {
            let number = reservation.as_ref().map(|reservation| reservation.number);
            let id = owned.begin_publication(&new, number, deadline)?;
            Ok(Self {
                quotas: owned,
                id,
                has_ended: false,
            })
        });
        let begun = tokio::time::timeout(LOCK_TIMEOUT, job).await;
        begun.map_err(|_| StoreError::Locked)?.map(Some)
    }

    /// Ends it: the content is in the repository. Blocks until other processes can know.
    pub(in crate::store) fn stored(mut self) {
        self.has_ended = true;
        self.quotas.settle_now(self.settlement(true));
    }

    fn settlement(&self, is_stored: bool) -> Settlement {
        Settlement::Publication {
            id: self.id.clone(),
            is_stored,
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if !self.has_ended {
            drop(self.quotas.settle(self.settlement(false)));
        }
    }
}

/// What an upload of unknown length reserves in advance, where there is plenty of space.
const BYTES_AHEAD: u64 = 16 << 20;
