//! Whom a question is about: a user, the members of a group, or clients without a login.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::auth::UserName;
use crate::auth::htpasswd::Htpasswd;
use crate::config::access::{AccessRule, AccessSettings, Selector};
use crate::config::vhost::VirtualHost;

pub(super) const ANONYMOUS: &str = "@anonymous";

/// Whom a question is about, written as in the `users` of a rule.
pub(super) enum ExplainSubject {
    Anonymous,
    User(UserName),
    /// A group, by its name without the `@`.
    Group(String),
    /// Every user.
    Authenticated,
}

impl fmt::Display for ExplainSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::User(user) => f.write_str(user.as_str()),
            Self::Group(name) => write!(f, "@{name}"),
            Self::Authenticated => f.write_str("@authenticated"),
        }
    }
}

impl ExplainSubject {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            ANONYMOUS => Self::Anonymous,
            "@authenticated" | "*" => Self::Authenticated,
            text => match text.strip_prefix('@') {
                Some(group) => Self::Group(group.to_owned()),
                None => {
                    Self::User(UserName::new(text).with_context(|| format!("`{text}` is no user"))?)
                }
            },
        })
    }

    /// An error for a group that no domain has.
    pub(super) fn ensure_exists(&self, hosts: &[&VirtualHost]) -> anyhow::Result<()> {
        let Self::Group(group) = self else {
            return Ok(());
        };
        if hosts
            .iter()
            .any(|host| host.access.groups.contains_key(group.as_str()))
        {
            return Ok(());
        }
        let names = hosts.iter().flat_map(|host| host.access.groups.keys());
        let names: std::collections::BTreeSet<_> = names.map(|name| format!("@{name}")).collect();
        if names.is_empty() {
            bail!("there is no group @{group}, nor any other");
        }
        let names: Vec<_> = names.into_iter().collect();
        bail!(
            "there is no group @{group}; there are: {}",
            names.join(", ")
        )
    }

    /// The members of a group in a domain; `None` if it has no such group.
    pub(super) fn members(&self, host: &VirtualHost, users: &Htpasswd) -> Option<Vec<String>> {
        match self {
            Self::Group(name) => {
                let members = host.access.groups.get(name.as_str())?;
                Some(members.iter().map(ToString::to_string).collect())
            }
            Self::Authenticated => {
                let mut names: Vec<_> =
                    users.names().map(|user| user.as_str().to_owned()).collect();
                names.sort();
                Some(names)
            }
            Self::User(_) | Self::Anonymous => None,
        }
    }

    /// The rules as they are for a user with the name of the group, who is a member of it and
    /// otherwise named by no rule. A rule that is about others stays, and matches nobody: without any
    /// rule, all would be allowed.
    pub(super) fn rules_of_members(&self, settings: &AccessSettings) -> AccessSettings {
        let rules = settings.rules.iter().map(|rule| {
            let users = rule
                .users
                .iter()
                .filter_map(|selector| self.of_member(selector));
            AccessRule {
                users: users.collect(),
                ..rule.clone()
            }
        });
        AccessSettings {
            rules: rules.collect(),
            ..settings.clone()
        }
    }

    fn of_member(&self, selector: &Selector) -> Option<Selector> {
        match (selector, self) {
            (Selector::Authenticated | Selector::Anonymous, _) => Some(selector.clone()),
            (Selector::Name(pattern), _) => pattern.is_any().then_some(Selector::Authenticated),
            (Selector::Group { name, .. }, Self::Group(group)) if **name == **group => {
                Some(Selector::Group {
                    name: name.clone(),
                    members: Arc::from([self.to_string().into_boxed_str()]),
                })
            }
            (Selector::Group { .. }, _) => None,
        }
    }
}
