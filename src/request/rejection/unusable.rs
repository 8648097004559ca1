//! Rejections because of what an upstream responded: the client cannot use it, and can do nothing
//! about it.

use http::StatusCode;

use super::{ErrorSource, Extra, Rejection};
use crate::registry::call::Call;
use crate::registry::error_code::ErrorCode;
use crate::upstream::error::UpstreamError;
use crate::upstream::login::error::LoginError;

/// The upstream refused a login, and no other login of the client would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamLoginError {
    #[error(
        "the upstream registry refused this proxy's own credentials: \
         its administrator has to set [upstream] username and password"
    )]
    NoCredentials,
    #[error(
        "this registry wants tokens: its administrator has to set [upstream] username and password, \
         with which moorgate gets them"
    )]
    WantsTokens,
    #[error(
        "this registry wants tokens, which moorgate gets only with a username and password in \
         [upstream]; it did not accept the password of this user"
    )]
    WantsTokensNotClients,
}

/// The upstream sent a response that no client can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum UnusableResponse {
    #[error("the upstream registry sent a Location that is not valid")]
    BadLocation,
    #[error(
        "the upstream registry gave an upload address of {0} characters, which is too long to be \
         passed on"
    )]
    LongLocation(usize),
    #[error("the upstream registry redirects this request to an address outside the protocol")]
    UnusableRedirect,
    #[error("the upstream registry or its storage redirects too often")]
    TooManyRedirects,
    #[error("the storage of the upstream registry refused the address that the registry gave")]
    StorageUnauthorized,
}

impl Rejection {
    /// The upstream refused a login that is not the client's, or that no client can have.
    pub(crate) fn upstream_unauthorized(error: UpstreamLoginError) -> Self {
        let mut rejection = Self::bad_gateway(error);
        rejection.error_source = ErrorSource::WatchedUpstream;
        rejection
    }

    /// The upstream gave no response to a call, as [`Self::upstream`].
    pub(crate) fn upstream_call(error: UpstreamError, limit: u64, call: Option<&Call>) -> Self {
        let has_no_right = matches!(&error, UpstreamError::Login(login)
            if matches!(**login, LoginError::NoRight { .. }));
        let mut rejection = Self::upstream(error, limit);
        if has_no_right && matches!(call, Some(Call::Catalog { .. })) {
            rejection.message = "the upstream registry does not show its list of repositories to \
                                 this proxy: it may be for administrators there"
                .into();
        }
        rejection
    }

    /// moorgate has no credentials that the upstream accepts.
    pub(super) fn login_failed(error: &LoginError) -> Self {
        let unavailable =
            |status, message: &'static str| Self::new(status, ErrorCode::Unavailable, message);
        if let LoginError::NoRight { .. } = error {
            let message = "the upstream registry gives this proxy no right to this repository, or \
                           has none of this name";
            return Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message);
        }
        if let LoginError::NoRepository { .. } = error {
            let message = "the upstream registry has no repository of this name, or gives this \
                           proxy no right to it";
            return Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message);
        }
        if let LoginError::Unavailable {
            status: StatusCode::TOO_MANY_REQUESTS,
            ..
        } = error
        {
            let message = "the upstream registry takes no more logins for now: try again later";
            return Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                ErrorCode::TooManyRequests,
                message,
            )
            .with(Extra::RetryAfter(10));
        }
        if error.is_transient() {
            let message = match error {
                LoginError::NoChallenge { .. } => {
                    "the upstream registry does not answer /v2/ at the moment: try again"
                }
                _ => "this proxy cannot log in at the upstream registry at the moment: try again",
            };
            return unavailable(StatusCode::SERVICE_UNAVAILABLE, message)
                .with(Extra::RetryAfter(5));
        }
        unavailable(
            StatusCode::BAD_GATEWAY,
            "the upstream registry does not accept this proxy's own login: \
             its administrator finds the cause in the log, and corrects [upstream]",
        )
    }

    /// The storage to which the upstream redirects gave no response. Its health is not kept: the
    /// registry may name another one with each redirect.
    pub(crate) fn storage(error: UpstreamError) -> Self {
        let message = match &error {
            UpstreamError::Unreachable(_)
            | UpstreamError::CircuitOpen
            | UpstreamError::ConnectTimedOut => {
                "the storage of the upstream registry cannot be reached: try again"
            }
            UpstreamError::TimedOut => {
                "the storage of the upstream registry did not answer in time: try again"
            }
            UpstreamError::Closed { .. } => {
                "the storage of the upstream registry closed the connection: try again"
            }
            UpstreamError::RefusedDestination(_)
            | UpstreamError::Login(_)
            | UpstreamError::NoDescriptor(_)
            | UpstreamError::TooManyConnections
            | UpstreamError::OtherProtocol(_)
            | UpstreamError::HeadMissing
            | UpstreamError::HeadTooLarge
            | UpstreamError::Malformed(_)
            | UpstreamError::InvalidLength(_)
            | UpstreamError::ProtocolSwitched
            | UpstreamError::Ejected
            | UpstreamError::ReplicaEjected { .. }
            | UpstreamError::ReplicaGone
            | UpstreamError::ClientStalled
            | UpstreamError::ClientCut
            | UpstreamError::TooLarge => return Self::unwatched_upstream(error, 0),
        };
        let mut rejection = Self::unwatched_upstream(error, 0);
        rejection.message = message.into();
        rejection
    }

    /// An upload has failed too often for the client to try it again. Docker ends a push at this code
    /// alone, of those that do not speak of rights.
    pub(crate) fn repeated_upload_failure(message: String) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, ErrorCode::TooManyRequests, message).with(Extra::RetryAfter(60))
    }

    /// What the upstream did instead of a response, if that is the cause.
    pub(crate) fn upstream_error(&self) -> Option<&UpstreamError> {
        self.source.as_ref()?.downcast_ref()
    }

    /// The status, if there is no such upload.
    pub(crate) fn unknown_upload(&self) -> Option<StatusCode> {
        let is_unknown = self.code == ErrorCode::BlobUploadUnknown;
        is_unknown.then_some(self.status.into())
    }

    /// The upstream sent a `Location` that must not reach a client.
    pub(crate) fn upstream_bad_location() -> Self {
        Self::bad_gateway(UnusableResponse::BadLocation)
    }

    /// The upstream sent an address of so many characters, for which no target has room.
    pub(crate) fn upstream_long_location(length: usize) -> Self {
        Self::bad_gateway(UnusableResponse::LongLocation(length))
    }

    /// The upstream redirects a request that moorgate cannot send again.
    pub(crate) fn upstream_unusable_redirect() -> Self {
        Self::bad_gateway(UnusableResponse::UnusableRedirect)
    }

    /// The upstream redirected more often than moorgate follows.
    pub(crate) fn too_many_redirects() -> Self {
        Self::bad_gateway(UnusableResponse::TooManyRedirects)
    }

    /// The storage asks for credentials, which nobody has.
    pub(crate) fn storage_unauthorized() -> Self {
        Self::bad_gateway(UnusableResponse::StorageUnauthorized)
    }

    pub(super) fn bad_gateway(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let message = error.to_string();
        Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message).caused_by(error)
    }
}
