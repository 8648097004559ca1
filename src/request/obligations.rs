//! The obligations that come with a grant: set by authorize, fulfilled by what answers.

use super::rejection::Rejection;
use crate::registry::name::RepositoryName;
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
}

/// A tag that is to be written.
#[derive(Debug)]
pub(crate) struct TagObligation {
    pub(crate) tag: Tag,
    pub(crate) allowed: TagWrite,
}

/// Which writes of a tag are allowed. The rejection is for any other.
#[derive(Debug)]
pub(crate) enum TagWrite {
    Any,
    CreateOnly(Rejection),
    OverwriteOnly(Rejection),
}
