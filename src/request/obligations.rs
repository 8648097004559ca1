//! The obligations that come with a grant: set by authorize, fulfilled by what answers.

use std::time::Duration;

use super::rejection::Rejection;
use crate::auth::policy::TagCondition;
use crate::config::access::RuleLocation;
use crate::registry::name::RepositoryName;
use crate::registry::pattern::RepositoryPattern;
use crate::registry::reference::Tag;

/// The obligations that come with a grant. What answers a request matches them exhaustively, so
/// that a new one does not compile until it is handled.
#[derive(Debug)]
pub(crate) enum Obligations {
    /// None: the request is answered unchanged.
    Plain,
    /// The response must look as if this repository did not exist: the call names a placeholder
    /// that does not.
    Hidden(RepositoryName),
    /// A blob upload replaces a mount.
    Unmounted,
    /// The repositories that the user may not see are left out.
    Filtered,
    /// The conditions for writing these tags.
    TagWrites(Vec<TagObligation>),
    /// The conditions for deleting a tag, any of which suffices.
    TagDeletion(Tag, Vec<WriteCondition>),
}

/// A tag that is to be written.
#[derive(Debug)]
pub(crate) struct TagObligation {
    pub(crate) tag: Tag,
    pub(crate) create: TagPermission,
    pub(crate) overwrite: TagPermission,
}

/// Whether a tag may be created, or moved.
#[derive(Debug)]
pub(crate) enum TagPermission {
    Granted,
    Denied(Rejection),
    /// If any of these conditions is met.
    If(Vec<WriteCondition>),
}

impl TagPermission {
    pub(crate) fn is_granted(&self) -> bool {
        matches!(self, Self::Granted)
    }
}

/// What a rule demands before it allows to write or delete a tag. All of it must hold.
#[derive(Clone, Debug)]
pub(crate) struct WriteCondition {
    pub(crate) source: Option<SourceCondition>,
    /// The last push that moved the tag is not longer ago.
    pub(crate) immutable_after: Option<Duration>,
    pub(crate) rule: RuleLocation,
}

/// Another repository that matches `from` has the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceCondition {
    pub(crate) from: Box<[RepositoryPattern]>,
    /// The pattern by which the rule is about the repository that is written.
    pub(crate) repository: RepositoryPattern,
}

impl WriteCondition {
    pub(crate) fn new(condition: &TagCondition<'_>) -> Self {
        let TagCondition {
            from,
            repository,
            immutable_after,
            rule,
        } = *condition;
        Self {
            source: from.map(|from| SourceCondition {
                from: from.into(),
                repository: repository.clone(),
            }),
            immutable_after,
            rule: rule.clone(),
        }
    }
}

/// A tag, and which writes of it are allowed.
#[derive(Debug)]
pub(crate) struct AllowedWrite {
    pub(crate) tag: Tag,
    pub(crate) allowed: TagWrite,
}

/// Which writes of a tag are allowed. The rejection is for any other.
#[derive(Debug)]
pub(crate) enum TagWrite {
    Any,
    CreateOnly(Rejection),
    OverwriteOnly(Rejection),
    /// Only that of the manifest to which it leads already.
    SameOnly(Rejection),
}
