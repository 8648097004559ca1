//! Counts what clients pull and push in the journal of their domain, once the answer is known.
//! Requests of moorgate itself do not come this way, and count as nothing.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};

use crate::journal::Journal;
use crate::registry::call::{Call, Read, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::reference::Reference;
use crate::request::body::ResponseBody;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::obligations::Obligations;
use crate::request::rejection::Rejection;
use crate::request::route::Route;

/// A request that counts if it succeeds.
pub(super) struct RecordedUse {
    journal: Arc<Journal>,
    call: Arc<Call>,
    /// Whether pushes of tags count. Where rules ask for the ages of tags, they are recorded where
    /// they are written, if they moved: see [`MovedTags`](super::moved_tags::MovedTags).
    counts_tags: bool,
    is_answered: bool,
}

impl RecordedUse {
    /// `None`: the request counts as nothing, whatever its answer is.
    pub(super) fn of(route: &Route) -> Option<Self> {
        let journal = route.site().journal.as_ref()?;
        if let Obligations::Hidden(_) = route.obligations() {
            return None;
        }
        let call = route.shared_call()?;
        let counts = match call.operation()? {
            RepositoryCall::ManifestRead { reference, read } => match (reference, read) {
                // Clients resolve a tag with HEAD, and get the manifest by its digest.
                (Reference::Tag(_), Read::Get | Read::Head) => true,
                (Reference::Digest(_), Read::Get) => true,
                // Asks whether it must be pushed.
                (Reference::Digest(_), Read::Head) => false,
            },
            RepositoryCall::ManifestWrite { .. } => true,
            RepositoryCall::TagsList { .. }
            | RepositoryCall::ManifestDelete { .. }
            | RepositoryCall::BlobRead { .. }
            | RepositoryCall::BlobDelete { .. }
            | RepositoryCall::UploadStart { .. }
            | RepositoryCall::Mount { .. }
            | RepositoryCall::Upload { .. }
            | RepositoryCall::Referrers { .. } => false,
        };
        counts.then(|| Self {
            journal: journal.clone(),
            call: call.clone(),
            counts_tags: !route.site().policy.limits_ages(),
            is_answered: false,
        })
    }

    /// Counts the request by its answer.
    pub(super) fn answered(mut self, answer: &Result<Response<ResponseBody>, Rejection>) {
        self.is_answered = true;
        match answer {
            // A redirect of a pull leads to the manifest.
            Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => {
                self.count(Some(answer.headers()));
            }
            Ok(answer) => self.failed(answer.status()),
            Err(rejection) => self.failed(rejection.status.into()),
        }
    }

    fn failed(&self, status: StatusCode) {
        // What went wrong behind a gateway may have been the answer alone.
        if status.is_server_error() && self.call.is_manifest_write() {
            self.count(None);
        }
    }

    /// `answer`: the headers of the answer, if there is one.
    fn count(&self, answer: Option<&HeaderMap>) {
        let Call::Repository { name, operation } = &*self.call else {
            return;
        };
        match operation {
            RepositoryCall::ManifestRead { reference, .. } => match reference {
                Reference::Tag(tag) => {
                    let digest = answer.and_then(digest);
                    self.journal.pulled(name, Some(tag), digest.as_ref());
                }
                Reference::Digest(digest) => self.journal.pulled(name, None, Some(digest)),
            },
            RepositoryCall::ManifestWrite { reference, tags } => match reference {
                Reference::Tag(tag) => {
                    let digest = answer.and_then(digest);
                    let tag = self.counts_tags.then_some(tag);
                    self.journal.pushed(name, tag, digest.as_ref());
                }
                Reference::Digest(digest) => {
                    let tags = tags.iter().filter(|_| self.counts_tags);
                    self.journal.pushed(name, tags, Some(digest));
                }
            },
            RepositoryCall::TagsList { .. }
            | RepositoryCall::ManifestDelete { .. }
            | RepositoryCall::BlobRead { .. }
            | RepositoryCall::BlobDelete { .. }
            | RepositoryCall::UploadStart { .. }
            | RepositoryCall::Mount { .. }
            | RepositoryCall::Upload { .. }
            | RepositoryCall::Referrers { .. } => {}
        }
    }
}

impl Drop for RecordedUse {
    /// The client has left before the answer: a push of it may take effect all the same.
    fn drop(&mut self) {
        if !self.is_answered && self.call.is_manifest_write() {
            self.count(None);
        }
    }
}

/// Where a tag leads by the answer. Registries should say so in a header of its own, and must say it
/// in the `Location` of a push.
fn digest(answer: &HeaderMap) -> Option<Digest> {
    let named = answer
        .get(CONTENT_DIGEST)
        .and_then(|digest| digest.to_str().ok());
    if let Some(named) = named {
        return Digest::parse(named).ok();
    }
    let location = answer.get(header::LOCATION)?.to_str().ok()?;
    let (_, digest) = location.rsplit_once("/manifests/")?;
    Digest::parse(digest).ok()
}
