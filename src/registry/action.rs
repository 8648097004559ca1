//! Actions: what access rules allow and deny. Each call of the protocol needs one or more actions.

use std::fmt;

/// An action of a user on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read manifests, blobs and referrers.
    Pull,
    /// Upload blobs, write manifests, and create tags.
    Push,
    /// Move an existing tag to another manifest.
    Overwrite,
    /// Delete a tag.
    DeleteTag,
    /// Delete a manifest with all its tags, or a blob.
    DeleteManifest,
    /// List the tags of a repository.
    List,
    /// See the repository in the catalog.
    Catalog,
    /// Mount its blobs into another repository.
    MountFrom,
}

impl Action {
    /// All actions, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::Pull,
        Self::Push,
        Self::Overwrite,
        Self::DeleteTag,
        Self::DeleteManifest,
        Self::List,
        Self::Catalog,
        Self::MountFrom,
    ];

    /// The name of the action in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Overwrite => "overwrite",
            Self::DeleteTag => "delete-tag",
            Self::DeleteManifest => "delete-manifest",
            Self::List => "list",
            Self::Catalog => "catalog",
            Self::MountFrom => "mount-from",
        }
    }

    /// Parses the name of an action.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// Whether it writes or deletes a tag, so that the `tags` of a rule apply to it.
    pub fn is_of_tag(self) -> bool {
        matches!(self, Self::Push | Self::Overwrite | Self::DeleteTag)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    /// Every action.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether the set has an action.
    pub fn has(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether the set has all of these actions.
    pub fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The union of two sets.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The actions, in the order of [`Action::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .into_iter()
            .filter(move |action| self.has(*action))
    }
}

/// The text is neither an action nor `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not one of pull, push, overwrite, delete-tag, delete-manifest, list, catalog, mount-from and all"
)]
pub struct InvalidAction;

impl std::str::FromStr for Actions {
    type Err = InvalidAction;

    /// One action, or `all`.
    fn from_str(text: &str) -> Result<Self, InvalidAction> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        Action::parse(text).map(Self::from).ok_or(InvalidAction)
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(action.bit())
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions
            .into_iter()
            .fold(Self::default(), |all, action| all.and(action.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_read_as_it_is_written_and_has_its_own_place() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
            assert_eq!(Actions::from(action).iter().collect::<Vec<_>>(), [action]);
        }
        assert_eq!(Action::parse("Pull"), None);
        assert_eq!(Action::ALL.into_iter().collect::<Actions>(), Actions::ALL);
        assert!(
            Actions::ALL.has_all(Action::Pull.into())
                && !Actions::from(Action::Pull).has_all(Actions::ALL)
        );
    }
}
