//! Scopes of the token protocol: `repository:base/app:pull,push` (distribution specification,
//! "Token Scope Documentation").

use std::fmt;

use super::action::Action;
use super::name::RepositoryName;

/// A requested or granted scope: a resource and actions on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `repository`, `registry`, or an unknown type.
    pub resource_type: Box<str>,
    /// The class in parentheses after the type: `repository(plugin)`. It has no meaning here.
    pub class: Option<Box<str>>,
    /// The name of the resource. It may begin with a host and a port.
    pub name: Box<str>,
    /// The names of the actions, possibly repeated.
    pub actions: Vec<Box<str>>,
}

/// The text is not a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is written TYPE:NAME:ACTION[,ACTION]")]
pub struct InvalidScope;

impl Scope {
    /// Parses a scope. A name may contain colons: the type ends at the first colon, and the actions
    /// begin after the last.
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        let (kind, rest) = text.split_once(':').ok_or(InvalidScope)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(InvalidScope)?;
        let (resource_type, class) = match kind.strip_suffix(')') {
            Some(kind) => kind
                .split_once('(')
                .map(|(kind, class)| (kind, Some(class)))
                .ok_or(InvalidScope)?,
            None => (kind, None),
        };
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_action = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'*')
        };
        let of_name = |b: u8| b.is_ascii_alphanumeric() || b"._-/:".contains(&b);
        let actions: Vec<_> = if actions.is_empty() {
            Vec::new()
        } else {
            actions.split(',').collect()
        };
        let valid = is_word(resource_type)
            && class.is_none_or(is_word)
            && !name.is_empty()
            && name.bytes().all(of_name)
            && actions.iter().all(|action| is_action(action));
        if !valid {
            return Err(InvalidScope);
        }
        Ok(Self {
            resource_type: resource_type.into(),
            class: class.map(Into::into),
            name: name.into(),
            actions: actions.into_iter().map(Into::into).collect(),
        })
    }

    /// The resource of this registry, if the scope names one.
    pub fn resource(&self) -> Option<Resource> {
        match &*self.resource_type {
            "repository" => RepositoryName::parse(&self.name)
                .ok()
                .map(Resource::Repository),
            "registry" if &*self.name == CATALOG => Some(Resource::Catalog),
            _ => None,
        }
    }

    /// The rights that the actions name. `*` stands for all rights; unknown actions are ignored.
    pub fn rights(&self) -> Rights {
        let named = self.actions.iter().filter_map(|word| match &**word {
            "*" => Some(Rights::ALL),
            word => Right::ALL
                .into_iter()
                .find(|right| right.as_str() == word)
                .map(Rights::from),
        });
        named.fold(Rights::NONE, Rights::and)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource_type)?;
        if let Some(class) = &self.class {
            write!(f, "({class})")?;
        }
        write!(f, ":{}:{}", self.name, self.actions.join(","))
    }
}

/// What a right applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The list of all repositories, whose only right is `*`.
    Catalog,
    /// A repository.
    Repository(RepositoryName),
}

impl Resource {
    /// The type and the name, as in a scope and in the `access` claim of a token.
    pub fn type_and_name(&self) -> (&'static str, &str) {
        match self {
            Self::Catalog => ("registry", CATALOG),
            Self::Repository(name) => ("repository", name.as_str()),
        }
    }

    /// Parses the type and the name of a token's `access` claim.
    pub fn from_type_and_name(resource_type: &str, name: &str) -> Option<Self> {
        let (resource_type, name) = (resource_type.into(), name.into());
        Scope {
            resource_type,
            class: None,
            name,
            actions: Vec::new(),
        }
        .resource()
    }

    /// The scope of these rights to the resource, as text.
    pub fn scope(&self, rights: Rights) -> String {
        let (resource_type, name) = self.type_and_name();
        format!("{resource_type}:{name}:{}", self.actions(rights).join(","))
    }

    /// The names of these rights to the resource.
    pub fn actions(&self, rights: Rights) -> Vec<&'static str> {
        match self {
            Self::Catalog if rights == Rights::NONE => Vec::new(),
            Self::Catalog => vec!["*"],
            Self::Repository(_) => rights.iter().map(Right::as_str).collect(),
        }
    }
}

/// A right that a token grants in a repository: coarser than an [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Read.
    Pull,
    /// Upload blobs and write manifests.
    Push,
    /// Delete.
    Delete,
}

impl Right {
    /// All rights, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// The name of the right in a scope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The actions of access rules that need the right. A user who may do one of them is granted
    /// the right; the rules decide again on each request.
    pub fn actions(self) -> &'static [Action] {
        match self {
            Self::Pull => &[Action::Pull, Action::List, Action::MountFrom],
            Self::Push => &[Action::Push, Action::Overwrite],
            Self::Delete => &[Action::DeleteTag, Action::DeleteManifest],
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(0b111);

    /// Whether the set has a right.
    pub fn has(self, right: Right) -> bool {
        self.0 & Self::from(right).0 != 0
    }

    /// The union of two sets.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The rights, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl From<Right> for Rights {
    fn from(right: Right) -> Self {
        Self(1 << right as u8)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights
            .into_iter()
            .fold(Self::NONE, |all, right| all.and(right.into()))
    }
}

const CATALOG: &str = "catalog";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).expect(text)
    }

    #[test]
    fn the_forms_of_the_specification_are_read() {
        let plain = scope("repository:samalba/my-app:pull,push");
        assert_eq!(
            (&*plain.resource_type, &*plain.name),
            ("repository", "samalba/my-app")
        );
        assert_eq!(
            plain.rights(),
            [Right::Pull, Right::Push].into_iter().collect()
        );
        assert_eq!(
            plain.resource(),
            Resource::from_type_and_name("repository", "samalba/my-app")
        );
        let port = scope("repository:localhost:5000/app:pull");
        assert_eq!(
            (&*port.name, port.resource()),
            ("localhost:5000/app", None),
            "no repository of ours"
        );
        let class = scope("repository(plugin):a/b:*");
        assert_eq!(
            (class.class.as_deref(), class.rights()),
            (Some("plugin"), Rights::ALL)
        );
        assert_eq!(
            class.resource(),
            scope("repository:a/b:").resource(),
            "a class changes nothing"
        );
        assert_eq!(
            scope("registry:catalog:*").resource(),
            Some(Resource::Catalog)
        );
        assert_eq!(scope("registry:other:*").resource(), None);
        assert_eq!(scope("space:a:pull").resource(), None);
        assert_eq!(scope("repository:a:").rights(), Rights::NONE);
        assert_eq!(
            scope("repository:a:fly,pull,pull").rights(),
            Right::Pull.into()
        );
        assert_eq!(
            scope("repository:A:pull").resource(),
            None,
            "no name of a repository"
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":",
            "::",
            "repository",
            "repository:a",
            "repository::pull",
            ":a:pull",
            "repository:a:pull,",
            "repository:a:,pull",
            "repository:a:Pull",
            "repository:a b:pull",
            "repository:a:pull push",
            "repository():a:pull",
            "repository(a:b:pull",
            "repository)a(:b:pull",
            "re pository:a:pull",
            "repository:a\u{e4}:pull",
            "repository:a\":pull",
            "repository:a:pull\n",
        ] {
            assert_eq!(Scope::parse(text), Err(InvalidScope), "{text:?}");
        }
    }

    #[test]
    fn every_action_of_the_rules_but_the_catalog_belongs_to_one_right() {
        for action in Action::ALL {
            let rights = Right::ALL
                .into_iter()
                .filter(|right| right.actions().contains(&action))
                .count();
            assert_eq!(rights, usize::from(action != Action::Catalog), "{action}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_it_was(
            text in "[a-z0-9]{1,8}(\\([a-z0-9]{1,5}\\))?:([a-z.-]{1,8}(:[0-9]{1,4})?/)?[a-z0-9/_-]{1,12}:([a-z*]{1,5}(,[a-z*]{1,5}){0,3})?"
        ) {
            prop_assert_eq!(scope(&text).to_string(), text);
        }

        #[test]
        fn nothing_panics_and_what_passes_is_the_same_again(text in "\\PC{0,40}|[a-z:(),*/]{0,20}") {
            if let Ok(read) = Scope::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
                let _ = (read.resource(), read.rights());
            }
        }
    }
}
