//! Why an upstream gave no response: the cause in words for people, what remedies it, and whose
//! fault it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::destination::RefusedDestination;
use super::first_bytes::OtherProtocol;
use super::health::FailureReason;
use super::login::error::LoginError;
use super::message_length::InvalidLength;
use crate::certs::library_error::{described, with_sources};

/// Why an upstream gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The TCP or TLS connection failed.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] ConnectError),
    /// A redirect leads to an address to which none is followed.
    #[error("the redirect of the registry is not followed")]
    RefusedDestination(#[source] RefusedDestination),
    /// moorgate has no credentials that the registry accepts.
    #[error("moorgate's own login at the upstream registry failed")]
    Login(#[source] Arc<LoginError>),
    /// moorgate has no descriptor left.
    #[error("moorgate has too many open files and connections for one to the upstream")]
    NoDescriptor(#[source] io::Error),
    /// There are as many connections to it as there may be, and none became free in time.
    #[error("all connections to the upstream are in use")]
    TooManyConnections,
    /// The connection took longer than `upstream_connect`.
    #[error("the upstream did not complete a connection in time")]
    ConnectTimedOut,
    /// The last connections failed, and one is being tried just now.
    #[error("the upstream could not be reached a moment ago")]
    CircuitOpen,
    /// The replica was taken out of service before its response.
    #[error("the replica was taken out of service before its response")]
    Ejected,
    /// The replica with the upload session is out of service.
    #[error("the replica with this upload is out of service")]
    ReplicaEjected { retry_after: Duration },
    /// There is no such replica any more.
    #[error("the replica with this upload is no longer configured")]
    ReplicaGone,
    /// The upstream made no progress for longer than its timeout.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The connection ended before the end of the response head. `may_expect_tls`: without a byte,
    /// as TLS servers do that get a request in plain HTTP.
    #[error("the upstream closed the connection before its response")]
    Closed { may_expect_tls: bool },
    /// The upstream speaks another protocol.
    #[error("the upstream sent no response")]
    OtherProtocol(#[source] OtherProtocol),
    /// The response head is larger than what is read of one.
    #[error("the upstream sent a response head of more than 64 KiB or 128 lines")]
    HeadTooLarge,
    /// Interim responses came without end.
    #[error("the upstream sent 512 KiB without the head of its response")]
    HeadMissing,
    /// The response head is not valid HTTP/1.
    #[error("the upstream sent a response head that is not valid")]
    Malformed(#[source] hyper::Error),
    /// The response has no clear length.
    #[error("the upstream sent a Content-Length or Transfer-Encoding that is not valid")]
    InvalidLength(#[source] InvalidLength),
    /// The upstream sent 101, which no request asks for.
    #[error("the upstream switched protocols unasked")]
    ProtocolSwitched,
    /// The client sent no more of its body for longer than its timeout.
    #[error("the client stopped sending")]
    ClientStalled,
    /// The client's body ended before its length.
    #[error("the client's body ended early")]
    ClientCut,
    /// The client's body exceeds the domain's limit.
    #[error("the client's body is too large")]
    TooLarge,
}

/// Why there is no connection to an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("its name cannot be looked up: {0}")]
    Lookup(String),
    #[error("its name has no address")]
    NoAddress,
    #[error("the connection was refused")]
    Refused,
    #[error("the connection failed")]
    Failed(#[source] io::Error),
    /// It answers the handshake in HTTP.
    #[error("the server answers in plain HTTP")]
    PlainHttp,
    #[error("the server closed the connection in the TLS handshake")]
    ClosedInHandshake,
    /// With a text for people.
    #[error(transparent)]
    Tls(io::Error),
    #[error("the address is none to which redirects are followed")]
    RefusedDestination(#[source] RefusedDestination),
}

impl From<ConnectError> for UpstreamError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::RefusedDestination(refused) => Self::RefusedDestination(refused),
            ConnectError::Failed(error) if is_out_of_descriptors(&error) => {
                Self::NoDescriptor(error)
            }
            error => Self::Unreachable(error),
        }
    }
}

impl UpstreamError {
    /// What of the upstream fails; `None` where the fault is the client's or moorgate's own.
    pub(crate) fn reason(&self) -> Option<FailureReason> {
        Some(match self {
            Self::Unreachable(error) => error.reason(),
            Self::Login(error) => error.reason(),
            Self::ConnectTimedOut => FailureReason::ConnectTimeout,
            Self::TimedOut => FailureReason::Timeout,
            Self::Closed { may_expect_tls: _ } => FailureReason::Closed,
            Self::OtherProtocol(_)
            | Self::HeadMissing
            | Self::HeadTooLarge
            | Self::Malformed(_)
            | Self::InvalidLength(_)
            | Self::ProtocolSwitched => FailureReason::Protocol,
            Self::RefusedDestination(_)
            | Self::NoDescriptor(_)
            | Self::CircuitOpen
            | Self::Ejected
            | Self::ReplicaEjected { .. }
            | Self::ReplicaGone
            | Self::TooManyConnections
            | Self::ClientStalled
            | Self::ClientCut
            | Self::TooLarge => return None,
        })
    }

    /// Whether it only repeats what an upstream's health has told.
    pub(crate) fn is_repeated(&self) -> bool {
        matches!(
            self,
            Self::CircuitOpen | Self::Ejected | Self::ReplicaEjected { .. }
        )
    }

    /// Whether another replica may answer.
    pub(super) fn is_of_upstream(&self) -> bool {
        self.reason().is_some() || self.is_repeated()
    }

    /// What remedies it, unless the error itself says so.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable(error) => return error.remedy(),
            Self::NoDescriptor(_) => "raise the limit of open files (LimitNOFILE in systemd)",
            Self::TooManyConnections => "raise `limits.upstream_connections`",
            Self::ConnectTimedOut => {
                "check the host and port in its `url` and the firewalls between, or raise `upstream_connect`"
            }
            Self::TimedOut => {
                "see the upstream's own log; if it needs longer, raise `upstream_head` or `upstream_commit`"
            }
            Self::Closed {
                may_expect_tls: true,
            } => "see the upstream's own log; if it speaks TLS, write https:// in its `url`",
            Self::Closed {
                may_expect_tls: false,
            } => "see the upstream's own log",
            Self::OtherProtocol(protocol) => protocol.remedy(),
            Self::HeadMissing
            | Self::HeadTooLarge
            | Self::Malformed(_)
            | Self::InvalidLength(_)
            | Self::ProtocolSwitched => "see the upstream's own log, and what stands before it",
            Self::RefusedDestination(_)
            | Self::Login(_)
            | Self::CircuitOpen
            | Self::Ejected
            | Self::ReplicaEjected { .. }
            | Self::ReplicaGone
            | Self::ClientStalled
            | Self::ClientCut
            | Self::TooLarge => return None,
        })
    }

    /// The cause with all its sources, and the remedy.
    pub(crate) fn explained(&self) -> String {
        let cause = with_sources(self);
        match self.remedy() {
            Some(remedy) => format!("{cause}: {remedy}"),
            None => cause,
        }
    }
}

impl ConnectError {
    /// The error of a name lookup. The library's text begins with what is said already.
    pub(super) fn of_lookup(error: &io::Error) -> Self {
        let text = error.to_string();
        let cause = text.strip_prefix("failed to lookup address information: ");
        Self::Lookup(cause.unwrap_or(&text).to_owned())
    }

    /// The error of a TLS handshake. `is_http`: the server's first bytes are those of HTTP.
    pub(super) fn of_handshake(error: io::Error, is_http: bool) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            _ if is_http => Self::PlainHttp,
            BrokenPipe | ConnectionReset | UnexpectedEof => Self::ClosedInHandshake,
            _ => Self::Tls(described(error)),
        }
    }

    pub(super) fn of_tcp(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Failed(error),
        }
    }

    fn reason(&self) -> FailureReason {
        match self {
            Self::Lookup(_) | Self::NoAddress => FailureReason::Lookup,
            Self::Refused => FailureReason::Refused,
            Self::Failed(error) if error.kind() == io::ErrorKind::TimedOut => {
                FailureReason::ConnectTimeout
            }
            Self::Failed(_) | Self::RefusedDestination(_) => FailureReason::Unreachable,
            Self::PlainHttp => FailureReason::Protocol,
            Self::ClosedInHandshake | Self::Tls(_) => FailureReason::Tls,
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Lookup(_) | Self::NoAddress => {
                "correct the name in its `url`, or the DNS of this machine"
            }
            Self::Refused => "start the server there, or correct host and port in its `url`",
            Self::Failed(_) => {
                "check the host and port in its `url`, and routes and firewalls between"
            }
            Self::PlainHttp => "write http:// in its `url`, or give it TLS",
            Self::ClosedInHandshake => {
                "see the server's own log; if it speaks plain HTTP, write http:// in its `url`"
            }
            Self::Tls(_) | Self::RefusedDestination(_) => return None,
        })
    }
}

/// Whether no file or socket can be opened, in this process or on this machine.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .map(|errno| Some(errno.raw_os_error()))
        .contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_upstreams_fault() {
        use rustix::io::Errno;
        for errno in [Errno::MFILE, Errno::NFILE] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let error = UpstreamError::from(ConnectError::of_tcp(error));
            assert_eq!(error.reason(), None);
            assert!(error.explained().ends_with("(LimitNOFILE in systemd)"));
        }
        let error = io::Error::from_raw_os_error(Errno::HOSTUNREACH.raw_os_error());
        let error = UpstreamError::from(ConnectError::of_tcp(error));
        assert_eq!(error.reason(), Some(FailureReason::Unreachable));
        let error = UpstreamError::Unreachable(ConnectError::of_tcp(
            io::ErrorKind::ConnectionRefused.into(),
        ));
        assert_eq!(
            error.explained(),
            "the upstream cannot be reached: the connection was refused: start the server there, or \
             correct host and port in its `url`"
        );
    }
}
