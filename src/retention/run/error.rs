//! Why a run ended.

use std::io;
use std::path::PathBuf;

use super::plan_id::PlanId;
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::registry::RegistryError;

/// Why a run ended before it was finished. What it had done by then stays done, and the same command
/// continues it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(
        "another run of retention for {0} is under way, perhaps in another process: try again when \
         it has ended"
    )]
    Busy(HostName),
    #[error("the repositories cannot be listed")]
    Repositories(#[source] RegistryError),
    #[error("at {repository}")]
    Registry {
        repository: RepositoryName,
        #[source]
        source: RegistryError,
    },
    /// A kept image lacks what the run took away.
    #[error(
        "{repository}:{tag} stays and lacks {digest}, which this run took away: `moorgate retention \
         undo {plan}` puts it back; please report this"
    )]
    TookTooMuch {
        repository: RepositoryName,
        tag: Tag,
        digest: Digest,
        plan: PlanId,
    },
    #[error("the list of images in use at {list} cannot be read, so nothing is taken away")]
    InUse {
        list: String,
        #[source]
        source: ListError,
    },
    #[error("moorgate is ending: the same command continues after the next start")]
    Stopped,
    #[error(
        "there is no plan {id} of {domain}: plans are in {directory} for 30 days; `moorgate retention \
         plan {domain}` makes one",
        directory = .directory.display()
    )]
    UnknownPlan {
        id: PlanId,
        domain: HostName,
        directory: PathBuf,
    },
    #[error("the plan {id} is one for {of}, not for {domain}")]
    OtherDomain {
        id: PlanId,
        of: String,
        domain: HostName,
    },
    #[error(
        "the plan {id} was made for the registry at {of}, and that of {domain} is at {now} now: make \
         a new plan"
    )]
    OtherRegistry {
        id: PlanId,
        of: String,
        domain: HostName,
        now: String,
    },
    #[error(
        "the plan {0} is more than 7 days old, and what is in use may have changed: make a new plan"
    )]
    TooOld(PlanId),
    #[error(
        "{goes} of {tags} tags would go, and max_share allows {max_share} %: read the plan {id}, and \
         apply it with --beyond-limits if it is right"
    )]
    BeyondShare {
        id: PlanId,
        goes: u64,
        tags: u64,
        max_share: u8,
    },
    #[error("{path}, line {line}, is damaged: make a new plan", path = .path.display())]
    DamagedPlan { path: PathBuf, line: usize },
    #[error("nothing was saved for the plan {0}: it was never applied, or more than 30 days ago")]
    NothingSaved(PlanId),
    #[error("{path} cannot be used", path = .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// For `map_err`: an error of the file system at a path.
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn at(repository: &RepositoryName) -> impl FnOnce(RegistryError) -> Self {
        let repository = repository.clone();
        move |source| Self::Registry { repository, source }
    }
}

/// Why a list of images in use cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("{0}")]
    Http(String),
    #[error("it is larger than 16 MiB")]
    TooLarge,
    #[error("it did not come within {0} s")]
    TimedOut(u64),
    #[error("it is no text in UTF-8")]
    NotText,
    #[error("{0}")]
    Invalid(String),
}
