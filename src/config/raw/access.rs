//! The access rules of a file: `[[access]]`, and its groups in `[groups]` or `groups_file`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::table::TableReader;
use super::{List, Setting};
use crate::config::values::access::{self as values, RawSelector};
use crate::registry::action::Actions;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// The rules and groups of a file as written.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawRules {
    pub(in crate::config) groups: Setting<Vec<RawGroup>>,
    pub(in crate::config) groups_file: Setting<PathBuf>,
    pub(in crate::config) access: List<RawAccess>,
}

impl RawRules {
    /// Those of a file that cannot be read: they count as invalid rather than absent.
    pub(in crate::config) fn unknown() -> Self {
        Self {
            groups: Setting::Invalid,
            groups_file: Setting::Invalid,
            access: Setting::Invalid,
        }
    }
}

/// An access rule as written.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawAccess {
    pub(in crate::config) deny: Setting<bool>,
    pub(in crate::config) users: List<RawSelector>,
    pub(in crate::config) repositories: List<RepositoryPattern>,
    pub(in crate::config) tags: List<Pattern>,
    pub(in crate::config) actions: List<Actions>,
    pub(in crate::config) networks: List<IpNet>,
    pub(in crate::config) from: List<RepositoryPattern>,
    pub(in crate::config) immutable_after: Setting<Duration>,
}

/// A group as written.
#[derive(Clone, Debug)]
pub(in crate::config) struct RawGroup {
    pub(in crate::config) name: Spanned<String>,
    pub(in crate::config) members: List<Pattern>,
}

pub(super) fn rules(top: &mut TableReader<'_>) -> RawRules {
    RawRules {
        groups: groups(top),
        groups_file: top.value("groups_file", crate::config::values::path),
        access: top.tables("access", rule),
    }
}

fn rule(table: &mut TableReader<'_>) -> RawAccess {
    RawAccess {
        deny: table.value("deny", super::values::flag),
        users: table.list("users", values::selector),
        repositories: table.list("repositories", values::repository_pattern),
        tags: table.list("tags", values::tag_pattern),
        actions: table.list("actions", values::actions),
        networks: table.list("networks", values::network),
        from: table.one_or_list("from", values::repository_pattern),
        immutable_after: table.value("immutable_after", |value| {
            super::values::duration(value, 3650 * super::values::DAY)
        }),
    }
}

/// Reads `[groups]`, whose keys are the names of groups.
fn groups(top: &mut TableReader<'_>) -> Setting<Vec<RawGroup>> {
    top.free("groups", |table, name| {
        let members = table.any_list(name.get_ref(), values::user);
        match values::group_name(name.get_ref()) {
            Ok(text) => Some(RawGroup {
                name: Spanned::new(name.span(), text),
                members,
            }),
            Err(error) => {
                table.report(
                    &name.span(),
                    format!("`groups.{}` {error}", name.get_ref()),
                    error.help,
                );
                None
            }
        }
    })
}
