//! Writes a request body to the file of an upload.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body::Body;

use super::file::Batch;
use super::upload_syncs::bytes_per_sync;
use super::{BodyTimeouts, FileGuard, UploadSession, Uploads};
use crate::registry::upload_id::UploadId;
use crate::store::error::StoreError;
use crate::store::lanes::{DiskJob, Lanes};
use crate::store::quota::reservation::UploadReservation;

/// Bytes of a body that one disk job hashes and writes. Meanwhile the next batch is read, so that
/// an upload has up to twice as much in memory.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// Writes a body to the file in batches, and reads the next batch meanwhile.
pub(super) struct BodyWriter<'a> {
    pub(super) lanes: &'a Lanes,
    pub(super) session: &'a Arc<UploadSession>,
    pub(super) uploads: &'a Uploads,
    pub(super) id: &'a UploadId,
    pub(super) _receiving: ReceivingCount<'a>,
    pub(super) file: Option<FileGuard>,
    /// Returns the batch: memory that another thread frees is not soon reused by this one.
    pub(super) writing: Option<DiskJob<(FileGuard, Batch)>>,
    /// `None`: no quota applies.
    pub(super) reservation: Option<UploadReservation>,
}

impl BodyWriter<'_> {
    pub(super) async fn read<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
        timeouts: BodyTimeouts,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut limit = timeouts.first_byte;
        let ended = loop {
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            match tokio::time::timeout(limit, frame).await {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    batch.push(data);
                }
                Ok(Some(Err(_))) => break Err(StoreError::BodyCut),
                Err(_) => break Err(StoreError::BodyStalled),
            }
            limit = timeouts.stall;
            if batch.bytes >= BATCH_BYTES {
                self.write(std::mem::take(&mut batch)).await?;
            }
        };
        if batch.bytes > 0 {
            self.write(batch).await?;
        }
        ended
    }

    /// Waits for the previous batch, then starts to write this one.
    async fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        if let Some(reservation) = self.reservation.take() {
            self.reservation = Some(reservation.for_part(batch.bytes).await?);
        }
        let Some(mut file) = self.finish().await? else {
            return Err(StoreError::Superseded);
        };
        let path = self.session.path.clone();
        let piece = bytes_per_sync(self.uploads.receiving.load(Ordering::Relaxed));
        if let Err(error) = file.syncs.next(&self.lanes.sync, &path, piece).await {
            if matches!(error, StoreError::Io(_)) {
                self.uploads.discard(self.id, self.session);
            }
            return Err(error);
        }
        let write = move || file.add(&path, &batch).map(|()| (file, batch));
        self.writing = Some(self.lanes.write.start_job(write)?);
        Ok(())
    }

    /// Waits for the current write. `None`: an earlier write failed.
    pub(super) async fn finish(&mut self) -> Result<Option<FileGuard>, StoreError> {
        match self.writing.as_mut() {
            // Cancel-safe: the job stays in `self` until it has ended.
            Some(writing) => {
                let written = writing.end().await;
                self.writing = None;
                written.map(|(file, _)| Some(file))
            }
            None => Ok(self.file.take()),
        }
    }
}

/// Counts a body while it is received.
pub(super) struct ReceivingCount<'a>(&'a AtomicUsize);

impl<'a> ReceivingCount<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for ReceivingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
