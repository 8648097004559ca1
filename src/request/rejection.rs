//! Why a request is refused: status, code, message, and whether the connection may go on
//! afterwards. [`respond`](super::respond) makes the response of it.

mod token;

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

use super::site::Site;
use crate::config::access::RuleLocation;
use crate::registry::call::CallError;
use crate::registry::error_code::ErrorCode;
use crate::store::StoreError;
use crate::upstream::UpstreamError;
use crate::upstream::request_body::UploadFailure;
pub(crate) use token::OauthError;

/// Why a request gets no answer from behind, and what its client is told.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(super) status: ErrorStatus,
    pub(super) code: ErrorCode,
    error_source: ErrorSource,
    pub(super) message: Cow<'static, str>,
    pub(super) extra: Extra,
    /// Whether nothing that follows on an HTTP/1.1 connection is to be read as a request.
    close: bool,
    /// Whether the body has been read to its end.
    after_body: bool,
    /// The access rule that refused it, for the log alone.
    rule: Option<Box<str>>,
    /// OAuth's word for it, where a token was asked for.
    pub(super) oauth: Option<OauthError>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// A status of 400 or above. Only this module makes one, so that nothing else on the line can
/// refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorStatus(StatusCode);

impl From<ErrorStatus> for StatusCode {
    fn from(ErrorStatus(status): ErrorStatus) -> Self {
        status
    }
}

/// Whose fault it is: decides how loudly it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorSource {
    Client,
    Upstream,
    Store,
}

/// Headers of a refusal, and what decides about them.
#[derive(Debug)]
pub(super) enum Extra {
    None,
    Challenge(HeaderValue),
    /// The token is not sufficient: the challenge with this error code is still to be made.
    BearerError(&'static str),
    Allow(&'static str),
    RetryAfter(u16),
    /// How far an upload is, for a client that has to continue there.
    UploadProgress(Box<UploadProgress>),
    ContentRange(HeaderValue),
}

#[derive(Debug)]
pub(super) struct UploadProgress {
    pub(super) location: HeaderValue,
    pub(super) range: HeaderValue,
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
            rule: None,
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

    /// A request that cannot be understood in one way only.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    }

    /// Another protocol is asked for. A client that hopes for the best has sent bytes of it
    /// already.
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

    /// Nobody serves this host. The words are the same for each, so that none can be guessed.
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

    /// There is nothing to see outside `/v2/`.
    pub(crate) fn no_page() -> Self {
        let message = "this is a container registry: use it with docker login, push and pull";
        Self::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message)
    }

    pub(crate) fn unauthorized(site: &Site, message: &'static str) -> Self {
        let challenge = Extra::Challenge(site.challenge.clone());
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message).with(challenge)
    }

    pub(crate) fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// Notes the access rule that refused it; `None`: there is none that allows it.
    pub(crate) fn decided_by(mut self, rule: Option<&RuleLocation>) -> Self {
        self.rule = Some(rule.map_or_else(|| "none".into(), |place| place.to_string().into()));
        self
    }

    /// The access rule that refused it.
    pub(crate) fn take_rule(&mut self) -> Option<Box<str>> {
        self.rule.take()
    }

    /// The upstream does not tell what has to be known before it may be asked for the rest.
    pub(crate) fn upstream_inconclusive() -> Self {
        let message = "the registry behind does not tell what this depends on: try again";
        Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
    }

    /// More passwords wait to be checked than can be checked soon.
    pub(crate) fn overloaded() -> Self {
        Self::busy("too many passwords are being checked: try again in a moment")
    }

    /// No memory for another manifest.
    pub(crate) fn too_many_manifests() -> Self {
        Self::busy("too many manifests are being pushed: try again in a moment")
    }

    /// Another write of the same tag does not end.
    pub(crate) fn tag_locked() -> Self {
        Self::busy("another push to this tag has not ended yet: try again in a moment")
    }

    fn store_is_busy(error: StoreError) -> Self {
        Self::busy(format!("{error}: try again in a moment")).caused_by(error)
    }

    fn too_many_uploads(error: StoreError) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            error.to_string(),
        )
        .with(Extra::RetryAfter(60))
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

    /// Too many passwords were wrong, here or under this name. Whether the name exists is not told.
    pub(crate) fn too_many_failures(retry_after: Duration) -> Self {
        let seconds = retry_after
            .as_millis()
            .div_ceil(1000)
            .clamp(1, u128::from(u16::MAX));
        let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
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

    /// The upstream refused what moorgate sent as its own credentials.
    pub(crate) fn upstream_unauthorized() -> Self {
        let message = "the registry behind refused this proxy's own credentials: \
                       its administrator has to set [upstream] username and password";
        Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
    }

    /// The upstream sent a `Location` that must not reach a client.
    pub(crate) fn upstream_bad_location() -> Self {
        let message = "the registry behind answered with a Location that cannot be trusted";
        Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
    }

    /// The registry redirected moorgate round in circles.
    pub(crate) fn too_many_redirects() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            ErrorCode::Unavailable,
            "the registry's storage redirects without end",
        )
    }

    /// No answer from the upstream. `limit` is the largest body, for its own words.
    pub(crate) fn upstream(error: UpstreamError, limit: u64) -> Self {
        let unavailable =
            |status, message: &'static str| Self::new(status, ErrorCode::Unavailable, message);
        let rejection = match &error {
            UpstreamError::Unreachable(_) | UpstreamError::ConnectTimedOut => unavailable(
                StatusCode::SERVICE_UNAVAILABLE,
                "the registry behind cannot be reached: try again",
            )
            .with(Extra::RetryAfter(5)),
            UpstreamError::TimedOut => unavailable(
                StatusCode::GATEWAY_TIMEOUT,
                "the registry behind did not answer in time: try again",
            ),
            UpstreamError::Broken(_) | UpstreamError::ProtocolSwitched => unavailable(
                StatusCode::BAD_GATEWAY,
                "the registry behind broke off its answer: try again",
            ),
            UpstreamError::ClientStalled => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::SizeInvalid,
                "the request body stopped coming",
            ),
            UpstreamError::ClientCut => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::SizeInvalid,
                "the request body ended early",
            ),
            UpstreamError::TooLarge => return Self::body_too_large(limit),
        };
        rejection.caused_by(error)
    }

    /// moorgate's own registry cannot do it. `limit` is the largest body.
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
            StoreError::TooManyUploads => return Self::too_many_uploads(error),
            StoreError::Full(_) | StoreError::Io(_) => return Self::store_fails(error),
        };
        Self::new(status, code, error.to_string())
    }

    fn store_fails(error: StoreError) -> Self {
        let message = format!("{error}: its administrator has to look after it; try again later");
        let mut rejection = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        );
        rejection.error_source = ErrorSource::Store;
        rejection.with(Extra::RetryAfter(30)).caused_by(error)
    }

    /// Tells a client whose chunk does not fit where the upload stands.
    pub(crate) fn with_upload_progress(self, location: HeaderValue, range: HeaderValue) -> Self {
        self.with(Extra::UploadProgress(Box::new(UploadProgress {
            location,
            range,
        })))
    }

    /// No byte of the content is within the range that is asked for.
    pub(crate) fn range_not_satisfiable(content_range: HeaderValue) -> Self {
        let message = "the content ends before the range that is asked for";
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::RangeInvalid,
            message,
        )
        .with(Extra::ContentRange(content_range))
    }

    /// Writes what somebody has to look after to the log; clients' mistakes are in the access log.
    pub(crate) fn log(&self, domain: Option<&str>) {
        let Some(source) = &self.source else { return };
        let error = &**source as &dyn Error;
        let domain = domain.unwrap_or_default();
        let status = StatusCode::from(self.status).as_u16();
        match self.error_source {
            ErrorSource::Upstream => {
                tracing::warn!(domain, status, error, "no answer from the upstream")
            }
            ErrorSource::Store => tracing::error!(domain, status, error, "the store failed"),
            ErrorSource::Client => {
                tracing::debug!(domain, status, error, "the request was not completed")
            }
        }
    }

    /// This refusal, where the request's body has been read to its end.
    pub(crate) fn after_body(mut self) -> Self {
        self.after_body = true;
        self
    }

    /// Whether an HTTP/1.1 connection cannot carry another request after this one, which had a body
    /// or not.
    pub(super) fn closes_connection(&self, had_body: bool) -> bool {
        self.close || (had_body && !self.after_body)
    }
}
