//! The validated access rules of a domain, with their groups resolved.
//! [`auth::policy`](crate::auth::policy) applies them to requests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::registry::action::Actions;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// The access rules of a virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Those of `moorgate.toml`, if it inherits them, before its own, each in the order of the file.
    /// Without rules, every user may do everything.
    pub rules: Vec<AccessRule>,
    /// The members of the groups that its rules may name, by the name of the group without the `@`.
    pub groups: BTreeMap<Box<str>, Arc<[Box<str>]>>,
    /// Whether the rules and groups of `moorgate.toml` hold for it.
    pub inherits: bool,
    /// What its own file says of users.
    pub written: WrittenUsers,
}

/// What the rules and groups of one file say of users, to be compared with htpasswd files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenUsers {
    /// All user names in rules and groups.
    pub references: Vec<UserReference>,
    /// Repositories with `${user}` in allow rules.
    pub repositories: Vec<PerUserRepository>,
}

/// One `[[access]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Whether the rule denies rather than allows.
    pub deny: bool,
    /// The users, at least one.
    pub users: Vec<Selector>,
    /// The repositories, at least one.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags, at least one; `None`: all.
    pub tags: Option<Vec<Pattern>>,
    /// The actions that are allowed or denied.
    pub actions: Actions,
    /// The client networks, at least one; `None`: any.
    pub networks: Option<Vec<IpNet>>,
    pub location: RuleLocation,
}

/// Selects the users of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Users of this name; `*` in it stands for any characters.
    Name(Pattern),
    /// `@NAME` with its members.
    Group {
        /// Without the `@`.
        name: Box<str>,
        /// User names.
        members: Arc<[Box<str>]>,
    },
    /// `@authenticated`: every user.
    Authenticated,
    /// `@anonymous`: clients without a login. Users are allowed whatever these are allowed.
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
    /// The pattern that contains it.
    pub repository: RepositoryPattern,
    /// The users of the rule.
    pub users: Vec<Selector>,
    pub file: PathBuf,
    /// Its position in the file, in bytes.
    pub span: Range<usize>,
}

/// The location of a rule in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLocation {
    /// Relative to the configuration directory if the file is below it.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for RuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A user name in a rule or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserReference {
    /// The user name, or a pattern of user names.
    pub name: Pattern,
    pub file: PathBuf,
    /// Its position in the file, in bytes.
    pub span: Range<usize>,
}
