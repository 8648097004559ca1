//! Watches the calls of uploads to upstreams for failures that repeat.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::failed_uploads::cause::{FailedStep, UploadFault};
use super::failed_uploads::{FailedUpload, FailedUploads};
use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::host::HostName;
use crate::request::body::ResponseBody;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route};

/// A call that is a part of an upload to an upstream.
pub(super) struct WatchedUpload {
    domain: HostName,
    call: Arc<Call>,
}

impl WatchedUpload {
    /// `None` for other calls.
    pub(super) fn of(route: &Route) -> Option<Self> {
        let call = route.shared_call()?;
        step(call)?;
        let Destination::Upstream(_) = route.destination() else {
            return None;
        };
        Some(Self {
            domain: route.site().host.domain.clone(),
            call: call.clone(),
        })
    }

    /// The answer, unless it is one too many of its kind.
    pub(super) fn answer(
        &self,
        uploads: &FailedUploads,
        answer: Result<Response<ResponseBody>, Rejection>,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let (fault, answer) = match answer {
            // By the status alone: the head does not wait for the body, in which the code is.
            Ok(response) if is_failure(response.status()) => {
                (Some(UploadFault::Response(response.status())), Ok(response))
            }
            Ok(response) => {
                if response.status() == StatusCode::CREATED {
                    self.succeeded(uploads);
                }
                (None, Ok(response))
            }
            Err(rejection) => {
                let fault = match rejection.upstream_error() {
                    Some(error) => UploadFault::of_error(error),
                    None => rejection.unknown_upload().map(UploadFault::Response),
                };
                (fault, Err(rejection))
            }
        };
        match fault.and_then(|fault| self.failed(uploads, fault)) {
            Some(stopped) => Err(stopped),
            None => answer,
        }
    }

    fn succeeded(&self, uploads: &FailedUploads) {
        // A blob that is mounted says nothing about uploads.
        if step(&self.call) == Some(FailedStep::Mount) {
            return;
        }
        if let Some(repository) = self.call.repository() {
            uploads.succeeded(&self.domain, repository);
        }
    }

    fn failed(&self, uploads: &FailedUploads, fault: UploadFault) -> Option<Rejection> {
        let message = uploads.failed(FailedUpload {
            domain: self.domain.clone(),
            repository: self.call.repository()?.clone(),
            step: step(&self.call)?,
            fault,
        })?;
        Some(Rejection::repeated_upload_failure(message))
    }
}

/// The step of an upload; `None` for other calls.
fn step(call: &Call) -> Option<FailedStep> {
    match call.operation()? {
        RepositoryCall::UploadStart { .. } => Some(FailedStep::Start),
        RepositoryCall::Mount { .. } => Some(FailedStep::Mount),
        RepositoryCall::Upload { step, .. } => match step {
            UploadStep::Chunk => Some(FailedStep::Chunk),
            UploadStep::Commit { .. } => Some(FailedStep::Commit),
            UploadStep::Status { .. } | UploadStep::Cancel => None,
        },
        _ => None,
    }
}

/// Whether the registry fails, and not the client, nor its rights.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE
        )
}
