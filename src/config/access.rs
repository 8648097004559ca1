//! The validated access rules of a domain, with their groups resolved.
//! [`auth::policy`](crate::auth::policy) applies them to requests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::registry::action::{Action, Actions};
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

/// An age as it is written in the settings.
pub(crate) fn age_text(age: Duration) -> String {
    let seconds = age.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("min", 60)] {
        if seconds >= length && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    if age.subsec_millis() == 0 {
        return format!("{seconds}s");
    }
    format!("{}ms", age.as_millis())
}

impl AccessSettings {
    /// Whether a rule allows something by the age of a tag.
    pub fn limits_ages(&self) -> bool {
        let limits = |rule: &AccessRule| rule.conditions.immutable_after.is_some();
        self.rules.iter().any(limits)
    }
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
    pub conditions: TagConditions,
    pub location: RuleLocation,
}

/// What an allow of writes to tags depends on. Only allow rules have any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagConditions {
    /// A tag may only be set to a manifest that another repository has which matches one of these;
    /// `None`: to any manifest.
    pub from: Option<Vec<RepositoryPattern>>,
    /// How long after the last push that moved it a tag may be overwritten or deleted; `None`: for
    /// ever.
    pub immutable_after: Option<Duration>,
}

impl TagConditions {
    /// Those that bind an action; none for actions on anything but tags.
    pub fn of_action(&self, action: Action) -> (Option<&[RepositoryPattern]>, Option<Duration>) {
        let sets = matches!(action, Action::Push | Action::Overwrite);
        let changes = matches!(action, Action::Overwrite | Action::DeleteTag);
        (
            self.from.as_deref().filter(|_| sets),
            self.immutable_after.filter(|_| changes),
        )
    }

    pub fn is_none(&self) -> bool {
        self.from.is_none() && self.immutable_after.is_none()
    }
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
