//! What a granted request is bound to: vocabulary of authorize and of everything that answers.

use super::rejection::Rejection;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// The obligations that come with a grant. What answers a request matches them exhaustively, so
/// that a new one does not compile until it is handled.
#[derive(Debug)]
pub(crate) enum Obligations {
    /// None: the request is answered as it was made.
    Plain,
    /// The response must look as if this repository did not exist: the call is about another one
    /// that does not.
    Hidden(RepositoryName),
    /// A blob upload takes the place of a mount.
    Unmounted,
    /// The repositories that the user may not see are left out.
    Filtered,
    /// Each of these tags may only be written as it says.
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
