//! The suspected cause of a run of failed uploads, from what the registry answers at which step.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::upstream::error::UpstreamError;

/// A step of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::request::answer) enum FailedStep {
    Start,
    Mount,
    Chunk,
    Commit,
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::request::answer) enum UploadFault {
    Response(StatusCode),
    Closed,
    TimedOut,
}

impl fmt::Display for FailedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start | Self::Mount => "POST",
            Self::Chunk => "PATCH",
            Self::Commit => "PUT",
        })
    }
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(status) => write!(f, "status {}", status.as_u16()),
            Self::Closed => f.write_str("connection closed"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl UploadFault {
    /// `None` for what is no fault of a registry that answers: it may be started anew, and clients
    /// do right to try again.
    pub(in crate::request::answer) fn of_error(error: &UpstreamError) -> Option<Self> {
        match error {
            UpstreamError::Closed { .. } => Some(Self::Closed),
            UpstreamError::TimedOut => Some(Self::TimedOut),
            _ => None,
        }
    }

    /// How long such failures go on before clients are told to stop. A registry that is started anew
    /// looks like some of them for a while, through which clients that try again come.
    pub(in crate::request::answer) fn min_duration(self) -> Duration {
        match self {
            Self::Closed => RESTART,
            Self::Response(status) if matches!(status.as_u16(), 502..=504) => RESTART,
            Self::Response(_) | Self::TimedOut => LASTING,
        }
    }

    /// The suspected cause, in the words of those who can mend it.
    pub(in crate::request::answer) fn cause(self, step: FailedStep) -> &'static str {
        match (self, step) {
            (Self::Closed, _) => CLOSED,
            (Self::TimedOut, _) => TIMED_OUT,
            (Self::Response(status), step) => match (status.as_u16(), step) {
                (502..=504, _) => BETWEEN,
                (404, FailedStep::Start | FailedStep::Mount) => NO_REGISTRY,
                (404, _) => LOST_UPLOAD,
                (416, _) => LOST_BYTES,
                (_, FailedStep::Commit) => COMMIT,
                (_, FailedStep::Start | FailedStep::Mount | FailedStep::Chunk) => STORAGE,
            },
        }
    }
}

const LASTING: Duration = Duration::from_secs(30);
/// Longer than Docker tries one layer.
const RESTART: Duration = Duration::from_mins(2);

const LOST_UPLOAD: &str = "the registry has lost the state of an upload that it began itself: it has several replicas that do \
     not share http.secret and storage, without a balancer that keeps an upload at one of them, or \
     S3-compatible storage (MinIO) that does not list at once what was written";
const LOST_BYTES: &str = "the registry does not find all bytes of the upload: replicas on a shared file system that caches, \
     or S3-compatible storage (MinIO) that does not list at once what was written";
const COMMIT: &str = "the registry cannot finish the upload in its storage: an S3-compatible storage (MinIO) that does \
     not complete or copy multipart uploads as S3 does, or does not list at once what was written, or \
     no room";
const STORAGE: &str = "the registry cannot write to its storage: no room, no right, or an S3-compatible storage (MinIO) \
     that refuses its multipart uploads";
const CLOSED: &str = "the registry ends the connection: its process crashes or is killed, or a proxy in front of it has \
     a limit of size or time";
const TIMED_OUT: &str = "the storage of the registry needs longer to finish an upload than upstream_head and upstream_commit \
     in [timeouts] allow";
const BETWEEN: &str = "a proxy between moorgate and the registry gives up: the registry crashes or is overloaded, or needs \
     longer than the proxy waits to finish an upload";
const NO_REGISTRY: &str = "the repository or what should contain it does not exist at the registry, or `url` in [upstream] \
     does not lead to one";
