//! Access rules as a domain file says them, checked and with their groups filled in. What they come
//! to for a request is for [`auth::policy`](crate::auth::policy) to say.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::registry::action::Actions;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// Who may do what in a virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// In the order of the file. None at all: every user may do everything.
    pub rules: Vec<AccessRule>,
    /// Every name that rules and groups have, and where, to be held against the htpasswd.
    pub user_references: Vec<UserReference>,
    /// Every repository of an allow that is each user's own, to be held against the names of users.
    pub per_user_repositories: Vec<PerUserRepository>,
}

/// One `[[access]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Whether it takes rights away instead of giving them.
    pub deny: bool,
    /// Whom it is about, at least one.
    pub users: Vec<Selector>,
    /// Which repositories, at least one.
    pub repositories: Vec<RepositoryPattern>,
    /// Which tags, at least one; `None`: all.
    pub tags: Option<Vec<Pattern>>,
    /// What they may do, or not.
    pub actions: Actions,
    /// From where, at least one; `None`: from anywhere.
    pub networks: Option<Vec<IpNet>>,
    /// Where it is written.
    pub location: RuleLocation,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Users of this name; `*` in it stands for any characters.
    Name(Pattern),
    /// `@NAME`, and who is in it.
    Group {
        /// Without the `@`.
        name: Box<str>,
        /// Names of users.
        members: Arc<[Box<str>]>,
    },
    /// `@authenticated`: every user.
    Authenticated,
    /// `@anonymous`: those who are not logged in; what they are allowed, users are too.
    Anonymous,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => f.write_str(pattern.as_str()),
            Self::Group { name, .. } => write!(f, "@{name}"),
            Self::Authenticated => f.write_str("@authenticated"),
            Self::Anonymous => f.write_str("@anonymous"),
        }
    }
}

/// A `${user}` in a rule that allows something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerUserRepository {
    /// The pattern that has it.
    pub repository: RepositoryPattern,
    /// Whom the rule is about.
    pub users: Vec<Selector>,
    /// The file in which it stands.
    pub file: PathBuf,
    /// Its place in the file, in bytes.
    pub span: Range<usize>,
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLocation {
    /// Relative to the configuration directory, where it is below it.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for RuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A user's name in a rule or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserReference {
    /// The name, or a pattern of names.
    pub name: Pattern,
    /// The file in which it stands.
    pub file: PathBuf,
    /// Its place in the file, in bytes.
    pub span: Range<usize>,
}
