//! The tags and manifests of a repository, and what is known of their use: small, because a
//! repository may have a hundred thousand of each.

use std::num::NonZeroU32;

use jiff::Timestamp;

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// The tags and manifests of a repository at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    pub(crate) repository: RepositoryName,
    /// In the order of their names.
    pub(crate) tags: Vec<TagRecord>,
    /// All that the tags lead to, what these list and what refers to them; also, where the
    /// repository has it, the subject that a tag such as `sha256-HEX.sig` names. Manifests that no
    /// tag leads to stay, and with them what they list.
    pub(crate) images: Vec<ImageRecord>,
    /// Since when every push and pull has been recorded; `None`: they are not recorded.
    pub(crate) recorded_since: Option<Timestamp>,
    /// The label that [`ImageRecord::expires_after`] was read from, which
    /// [`expiry::label_of`](super::expiry::label_of) gives. Rules with another one read no label.
    pub(crate) expiry_label: Option<Box<str>>,
}

/// The place of an image in [`Inventory::images`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageIndex(pub(crate) u32);

/// A tag, and when it was used by its name.
#[derive(Clone, Debug)]
pub(crate) struct TagRecord {
    pub(crate) tag: Tag,
    pub(crate) image: ImageIndex,
    /// When it was last pushed; `None`: before pushes were recorded.
    pub(crate) pushed: Option<UnixSeconds>,
    pub(crate) pulled: Option<UnixSeconds>,
}

/// A manifest: an image, an index of images, or another artifact.
#[derive(Clone, Debug)]
pub(crate) struct ImageRecord {
    pub(crate) digest: Digest,
    /// The manifests that it lists and that the repository has.
    pub(crate) children: Box<[ImageIndex]>,
    /// The manifest that its `subject` names, if the repository has it. Tags such as
    /// `sha256-HEX.sig` need not be followed for it: the rules do that.
    pub(crate) subject: Option<ImageIndex>,
    /// When it was last pushed; `None`: before pushes were recorded.
    pub(crate) pushed: Option<UnixSeconds>,
    /// When it was last pulled itself, by its digest or by a tag.
    pub(crate) pulled: Option<UnixSeconds>,
    /// How many seconds it may live after its push, as its label says, which
    /// [`super::expiry`] reads. `None` for an index that has no annotation of that name: the rules
    /// look at what it lists.
    pub(crate) expires_after: Option<NonZeroU32>,
    /// When it was built, as its configuration says: orders images of which no push is known. `None`
    /// for an index.
    pub(crate) created: Option<UnixSeconds>,
    /// What comes free with it is counted from these: its own bytes, and its blobs with their sizes.
    /// Empty where they are not known.
    pub(crate) content: Box<[ContentSize]>,
}

/// A blob or manifest that an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContentSize {
    /// The first eight bytes of the digest: enough to count.
    pub(crate) key: u64,
    pub(crate) size: u64,
}

/// A time in whole seconds, in four bytes also where there may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnixSeconds(NonZeroU32);

impl ImageIndex {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

impl UnixSeconds {
    /// The seconds since the beginning of 1970.
    pub(crate) fn seconds(self) -> u32 {
        self.0.get()
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from_second(self.seconds().into()).unwrap_or(Timestamp::MAX)
    }
}

impl From<Timestamp> for UnixSeconds {
    /// Parts of a second are left away. Times before 1970, as reproducible builds have them, become
    /// its first second, times after 2105 the last one that there is.
    fn from(time: Timestamp) -> Self {
        let seconds = u32::try_from(time.as_second().max(1)).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN))
    }
}
