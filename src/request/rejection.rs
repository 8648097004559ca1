//! Why a request is refused: status, code, message, and whether the connection may go on
//! afterwards. [`respond`](super::respond) makes the response of it.

pub(crate) mod product;
mod refusal;
mod token;
mod unusable;

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

use super::site::Site;
use crate::auth::verify::{ClaimedName, VerifyError};
use crate::config::access::RuleLocation;
use crate::journal::JournalError;
use crate::registry::call::{Call, CallError};
use crate::registry::error_code::ErrorCode;
use crate::registry::name_map::UnmappedName;
use crate::store::StoreError;
use crate::upstream::error::UpstreamError;
use crate::upstream::product::api::ApiError;
use crate::upstream::request_body::UploadFailure;
pub(crate) use product::UpstreamRefusal;
pub(crate) use refusal::{Refusal, RefusalReason};
pub(crate) use token::OauthError;
pub(crate) use unusable::UpstreamLoginError;

/// Why a request is refused, and what the response says.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(super) status: ErrorStatus,
    pub(super) code: ErrorCode,
    error_source: ErrorSource,
    pub(super) message: Cow<'static, str>,
    pub(super) extra: Extra,
    /// Whether an HTTP/1.1 connection must not be reused.
    close: bool,
    /// Whether the body has been read to its end.
    after_body: bool,
    /// Logged, never sent.
    refusal: Option<Box<Refusal>>,
    /// The OAuth error code, at the token endpoint.
    pub(super) oauth: Option<OauthError>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The upstream of a domain leads back to the domain.
#[derive(Debug, thiserror::Error)]
#[error(
    "the request came back to the domain that forwarded it: \
     its administrator has to write the registry's own address in [upstream] url"
)]
struct RequestLoop;

/// A status of 400 or above. Only this module makes one, so that no other module refuses requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorStatus(StatusCode);

impl From<ErrorStatus> for StatusCode {
    fn from(ErrorStatus(status): ErrorStatus) -> Self {
        status
    }
}

/// The side that caused the error, which decides the log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorSource {
    Client,
    Upstream,
    /// The same where the upstream's health is logged.
    WatchedUpstream,
    Store,
}

/// A header that only some rejections have.
#[derive(Debug)]
pub(super) enum Extra {
    None,
    Challenge(HeaderValue),
    /// The token is not sufficient: [`bearer`](super::bearer) adds the challenge with this error
    /// code.
    BearerError(&'static str),
    Allow(&'static str),
    RetryAfter(u16),
    /// The bytes of an upload that have arrived, so that the client can continue.
    UploadProgress(Box<UploadProgress>),
    ContentRange(HeaderValue),
}

#[derive(Debug)]
pub(super) struct UploadProgress {
    pub(super) location: HeaderValue,
    pub(super) range: HeaderValue,
}

impl From<ApiError> for Rejection {
    fn from(error: ApiError) -> Self {
        product::api_failed(error)
    }
}

impl Rejection {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let error_source = if status.is_server_error() {
            ErrorSource::Upstream
        } else {
            ErrorSource::Client
        };
        Self {
            status: ErrorStatus(status),
            code,
            error_source,
            message: message.into(),
            extra: Extra::None,
            close: false,
            after_body: false,
            refusal: None,
            oauth: None,
            source: None,
        }
    }

    fn with(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The request is malformed or ambiguous.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    }

    /// The request asks for another protocol, and the client may already have sent bytes of it.
    pub(crate) fn not_implemented(message: &'static str) -> Self {
        let mut rejection = Self::new(StatusCode::NOT_IMPLEMENTED, ErrorCode::Unsupported, message);
        rejection.close = true;
        rejection
    }

    pub(crate) fn target_too_long() -> Self {
        Self::new(
            StatusCode::URI_TOO_LONG,
            ErrorCode::Unsupported,
            "the request target is too long",
        )
    }

    pub(crate) fn head_too_large() -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(
            status,
            ErrorCode::Unsupported,
            "the request has too many header lines",
        )
    }

    /// No site serves this host. The message is the same for all, so that it reveals none.
    pub(crate) fn unknown_host() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NameUnknown,
            "no registry of this name is served here",
        )
    }

    /// The connection was made for another host.
    pub(crate) fn misdirected() -> Self {
        let message = "this connection was made for another host: use a new one";
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            ErrorCode::Unsupported,
            message,
        )
    }

    pub(crate) fn bad_call(error: CallError) -> Self {
        let extra = match &error {
            CallError::MethodNotAllowed { allow } => Extra::Allow(allow),
            _ => Extra::None,
        };
        let status = match &error {
            CallError::Unknown
            | CallError::V1
            | CallError::ManifestUnknown
            | CallError::UploadUnknown => StatusCode::NOT_FOUND,
            CallError::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            CallError::BadPath
            | CallError::NameInvalid
            | CallError::DigestInvalid
            | CallError::TagInvalid
            | CallError::BadQuery(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string()).with(extra)
    }

    /// The repository cannot exist at the registry. 400 for what would create it, so that a push ends
    /// with the reason; everything else is about something that does not exist.
    pub(crate) fn unmapped_name(error: &UnmappedName, call: &Call) -> Self {
        let is_push = call.is_upload() || call.is_manifest_write();
        let (status, code) = if is_push {
            (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid)
        } else {
            (StatusCode::NOT_FOUND, ErrorCode::NameUnknown)
        };
        Self::new(status, code, error.to_string())
    }

    /// The site has no pages outside `/v2/`.
    pub(crate) fn no_page() -> Self {
        let message = "this is a container registry: use it with docker login, push and pull";
        Self::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message)
    }

    /// There are no credentials, or, with another reason, not the right ones.
    pub(crate) fn unauthorized(site: &Site, message: &'static str) -> Self {
        let challenge = Extra::Challenge(site.challenge.clone());
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
            .with(challenge)
            .because(RefusalReason::NoCredentials)
    }

    pub(crate) fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message).because(RefusalReason::Denied)
    }

    /// Sets the reason.
    pub(crate) fn because(mut self, reason: RefusalReason) -> Self {
        self.refusal.get_or_insert_default().reason = Some(reason);
        self
    }

    /// Sets the name and the reason of a login that failed.
    pub(crate) fn of_login(mut self, error: &VerifyError, claimed: ClaimedName) -> Self {
        let reason = match error {
            VerifyError::WrongPassword if claimed.exists => RefusalReason::WrongCredentials,
            VerifyError::WrongPassword => RefusalReason::UnknownUser,
            VerifyError::Refused(_) => RefusalReason::TooManyFailures,
            VerifyError::Overloaded => return self,
        };
        self.refusal.get_or_insert_default().tried = Some(claimed.name);
        self.because(reason)
    }

    /// What the access log says of it.
    pub(crate) fn take_refusal(&mut self) -> Option<Box<Refusal>> {
        self.refusal.take()
    }

    /// Sets the access rule that refused it; `None`: no rule allows it.
    pub(crate) fn decided_by(mut self, rule: Option<&RuleLocation>) -> Self {
        self.refusal.get_or_insert_default().rule =
            Some(rule.map_or_else(|| "none".into(), |place| place.to_string().into()));
        self
    }

    /// The upstream did not answer the question on which the decision about the request depends.
    pub(crate) fn upstream_inconclusive() -> Self {
        let message = "the upstream registry did not say whether the tag exists: try again";
        Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
    }

    /// The password queue is full.
    pub(crate) fn overloaded() -> Self {
        Self::busy("too many passwords are being checked: try again in a moment")
    }

    /// The memory budget for manifests is used up.
    pub(crate) fn too_many_manifests() -> Self {
        Self::busy("too many manifests are being pushed: try again in a moment")
    }

    /// The user, or the address of an anonymous client, has too many requests in flight.
    pub(crate) fn too_many_requests() -> Self {
        Self::too_many("too many requests at once: try again when some of them have ended")
            .because(RefusalReason::TooManyRequests)
    }

    /// The same of requests with a body.
    pub(crate) fn too_many_running_uploads() -> Self {
        Self::too_many("too many uploads at once: try again when some of them have ended")
            .because(RefusalReason::TooManyUploads)
    }

    fn too_many(message: &'static str) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            message,
        )
        .with(Extra::RetryAfter(5))
    }

    /// A manifest arrives so slowly that it would take memory from others for too long.
    pub(crate) fn manifest_too_slow(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::SizeInvalid,
            format!("the manifest did not arrive within {seconds} s of its first byte"),
        )
    }

    /// The lock of a tag was not released in time.
    pub(crate) fn tag_locked() -> Self {
        Self::busy("another push to this tag has not ended yet: try again in a moment")
    }

    fn store_is_busy(error: StoreError) -> Self {
        Self::busy(format!("{error}: try again in a moment")).caused_by(error)
    }

    fn over_quota(error: &StoreError) -> Self {
        // Clients repeat a push after other statuses that would fit.
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, error.to_string())
            .because(RefusalReason::OverQuota)
    }

    fn too_many_uploads(error: StoreError) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            error.to_string(),
        )
        .with(Extra::RetryAfter(60))
    }

    /// Logged where the limit is.
    fn upstream_busy() -> Self {
        Self::busy("all connections to the upstream registry are in use: try again in a moment")
    }

    fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        let mut rejection = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        );
        rejection.error_source = ErrorSource::Client;
        rejection.with(Extra::RetryAfter(5))
    }

    /// Too many wrong passwords, from this address or for this user. Does not reveal whether the
    /// user exists.
    pub(crate) fn too_many_failures(retry_after: Duration) -> Self {
        let seconds = retry_seconds(retry_after);
        let message = format!(
            "too many wrong passwords: try again in {seconds} s with the right one, or ask the administrator for \
             `moorgate unlock`"
        );
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            message,
        )
        .with(Extra::RetryAfter(seconds))
    }

    pub(crate) fn body_too_large(limit: u64) -> Self {
        let message = format!("the body is larger than the {limit} bytes that are accepted here");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::SizeInvalid,
            message,
        )
    }

    pub(crate) fn bad_target() -> Self {
        Self::bad_request("the request target is not valid")
    }

    /// The request has been forwarded by its own domain before.
    pub(crate) fn loop_detected() -> Self {
        let error = RequestLoop;
        Self::new(
            StatusCode::LOOP_DETECTED,
            ErrorCode::Unavailable,
            error.to_string(),
        )
        .caused_by(error)
    }

    /// The pages of a list together took longer than one response may.
    pub(crate) fn pages_timed_out() -> Self {
        Self::unwatched_upstream(UpstreamError::TimedOut, 0)
    }

    /// The upstream gave no response. `limit`: the maximum size of the request body, for the
    /// message.
    pub(crate) fn upstream(error: UpstreamError, limit: u64) -> Self {
        let is_watched = error.reason().is_some() || error.is_repeated();
        let mut rejection = Self::unwatched_upstream(error, limit);
        if is_watched {
            rejection.error_source = ErrorSource::WatchedUpstream;
        }
        rejection
    }

    fn unwatched_upstream(error: UpstreamError, limit: u64) -> Self {
        let unavailable =
            |status, message: &'static str| Self::new(status, ErrorCode::Unavailable, message);
        let bad_gateway = |message| unavailable(StatusCode::BAD_GATEWAY, message);
        let rejection = match &error {
            UpstreamError::Unreachable(_)
            | UpstreamError::NoDescriptor(_)
            | UpstreamError::CircuitOpen
            | UpstreamError::Ejected
            | UpstreamError::ConnectTimedOut => {
                Self::unreachable("the upstream registry cannot be reached: try again", 5)
            }
            UpstreamError::ReplicaEjected { retry_after } => Self::unreachable(
                "the server of the registry that has this upload is out of service: begin the upload again",
                retry_seconds(*retry_after),
            ),
            UpstreamError::ReplicaGone => Self::bad_call(CallError::UploadUnknown),
            UpstreamError::TooManyConnections => Self::upstream_busy(),
            UpstreamError::Login(error) => Self::login_failed(error),
            UpstreamError::RefusedDestination(_) => bad_gateway(
                "the upstream registry redirects to an address to which moorgate does not follow: \
                 its administrator finds it in the log, and may name its host in [upstream] follow_hosts",
            ),
            UpstreamError::InvalidLength(_) => bad_gateway(
                "the upstream registry sent a Content-Length or Transfer-Encoding that is not valid",
            ),
            UpstreamError::TimedOut => unavailable(
                StatusCode::GATEWAY_TIMEOUT,
                "the upstream registry did not answer in time: try again",
            ),
            UpstreamError::Closed { .. } => {
                bad_gateway("the upstream registry closed the connection: try again")
            }
            UpstreamError::OtherProtocol(_)
            | UpstreamError::HeadMissing
            | UpstreamError::HeadTooLarge
            | UpstreamError::Malformed(_)
            | UpstreamError::ProtocolSwitched => bad_gateway(
                "the upstream registry sent no valid response: its administrator finds the cause in the log",
            ),
            UpstreamError::ClientStalled => {
                let text = "the request body stopped coming";
                Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::SizeInvalid, text)
            }
            UpstreamError::ClientCut => {
                let text = "the request body ended early";
                Self::new(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, text)
            }
            UpstreamError::TooLarge => return Self::body_too_large(limit),
        };
        rejection.caused_by(error)
    }

    fn unreachable(message: &'static str, retry_after: u16) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        )
        .with(Extra::RetryAfter(retry_after))
    }

    /// moorgate's own registry failed. `limit`: the maximum size of the request body.
    pub(crate) fn store(error: StoreError, limit: u64, failure: Option<UploadFailure>) -> Self {
        if failure == Some(UploadFailure::TooLarge) {
            return Self::body_too_large(limit);
        }
        let (status, code) = match &error {
            StoreError::RepositoryUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            StoreError::BlobUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
            StoreError::ManifestUnknown => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            StoreError::UploadUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
            StoreError::DigestMismatch | StoreError::DigestUnsupported => {
                (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
            }
            StoreError::OutOfOrder { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid)
            }
            StoreError::BadRange | StoreError::BodyCut => {
                (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid)
            }
            StoreError::BodyStalled => (StatusCode::REQUEST_TIMEOUT, ErrorCode::SizeInvalid),
            StoreError::Superseded => (StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid),
            StoreError::PreconditionFailed(_) => (StatusCode::CONFLICT, ErrorCode::Denied),
            StoreError::BlobInUse(_) | StoreError::ManifestInUse(_) => {
                (StatusCode::FORBIDDEN, ErrorCode::Denied)
            }
            StoreError::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
            StoreError::Missing(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown),
            StoreError::Locked | StoreError::Overloaded => return Self::store_is_busy(error),
            StoreError::SpoolFull => return Self::busy(error.to_string()),
            StoreError::OverQuota(_) => return Self::over_quota(&error),
            StoreError::TooManyUploads => return Self::too_many_uploads(error),
            // The store reports each damaged file once.
            StoreError::Damaged(_) | StoreError::IndexDamaged(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown)
            }
            StoreError::Full(_) | StoreError::Io(_) | StoreError::StorageMissing => {
                let unavailable = StatusCode::SERVICE_UNAVAILABLE;
                let failed = Self::store_fails(unavailable, ErrorCode::Unavailable, error);
                return failed.with(Extra::RetryAfter(30));
            }
            // No later attempt succeeds by itself.
            StoreError::Linked(_) => {
                let internal = StatusCode::INTERNAL_SERVER_ERROR;
                return Self::store_fails(internal, ErrorCode::Unknown, error);
            }
        };
        Self::new(status, code, error.to_string())
    }

    /// When tags were pushed cannot be read.
    pub(crate) fn journal(error: JournalError) -> Self {
        let message = "when this tag was pushed cannot be read: its administrator has to look after it; try again later";
        let mut rejection = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        );
        rejection.error_source = ErrorSource::Store;
        rejection.with(Extra::RetryAfter(30)).caused_by(error)
    }

    fn store_fails(status: StatusCode, code: ErrorCode, error: StoreError) -> Self {
        let message = format!("{error}: its administrator has to look after it; try again later");
        let mut rejection = Self::new(status, code, message);
        rejection.error_source = ErrorSource::Store;
        rejection.caused_by(error)
    }

    /// A chunk does not continue the upload. The response says how many bytes there are.
    pub(crate) fn with_upload_progress(self, location: HeaderValue, range: HeaderValue) -> Self {
        self.with(Extra::UploadProgress(Box::new(UploadProgress {
            location,
            range,
        })))
    }

    /// The requested range lies after the end of the content (RFC 9110 §15.5.17).
    pub(crate) fn range_not_satisfiable(content_range: HeaderValue) -> Self {
        let message = "the content ends before the requested range";
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::RangeInvalid,
            message,
        )
        .with(Extra::ContentRange(content_range))
    }

    /// Logs errors of upstreams and stores. Errors of clients are in the access log.
    pub(crate) fn log(&self, domain: Option<&str>) {
        let Some(source) = &self.source else { return };
        let error = &**source as &dyn Error;
        let domain = domain.unwrap_or_default();
        let status = StatusCode::from(self.status).as_u16();
        match self.error_source {
            ErrorSource::Upstream => {
                tracing::warn!(domain, status, error, "upstream request failed")
            }
            ErrorSource::WatchedUpstream => {
                tracing::debug!(domain, status, error, "upstream request failed")
            }
            ErrorSource::Store => tracing::error!(domain, status, error, "store request failed"),
            ErrorSource::Client => {
                tracing::debug!(domain, status, error, "request not completed")
            }
        }
    }

    /// Whether the registry cannot do at all what was wanted.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.status.0 == StatusCode::METHOD_NOT_ALLOWED
    }

    /// Whether it is not there, or these credentials have no right to it.
    pub(crate) fn is_client_error(&self) -> bool {
        self.status.0.is_client_error()
    }

    /// Whether the registry does it for nobody, or not for these credentials.
    pub(crate) fn is_denied(&self) -> bool {
        self.status.0 == StatusCode::FORBIDDEN
    }

    /// Why, for people who get no response.
    pub(crate) fn explained(&self) -> String {
        let mut text = match &self.source {
            Some(source) => source.to_string(),
            None => self.message.to_string(),
        };
        let mut cause = self.source.as_ref().and_then(|source| source.source());
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// The same rejection after the request body has been read to its end.
    pub(crate) fn after_body(mut self) -> Self {
        self.after_body = true;
        self
    }

    /// Whether an HTTP/1.1 connection must be closed after this response.
    pub(super) fn closes_connection(&self, had_body: bool) -> bool {
        self.close || (had_body && !self.after_body)
    }
}

/// In whole seconds, for `Retry-After`.
fn retry_seconds(after: Duration) -> u16 {
    let seconds = after.as_millis().div_ceil(1000);
    u16::try_from(seconds.max(1)).unwrap_or(u16::MAX)
}
