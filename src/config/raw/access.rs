//! The tables of access rules: `[[access]]` and `[groups]`.

use ipnet::IpNet;
use toml::Spanned;

use super::table::TableReader;
use super::{List, Setting};
use crate::config::values::access::{self as values, RawSelector};
use crate::registry::action::Actions;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// An access rule as written.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawAccess {
    pub(in crate::config) deny: Setting<bool>,
    pub(in crate::config) users: List<RawSelector>,
    pub(in crate::config) repositories: List<RepositoryPattern>,
    pub(in crate::config) tags: List<Pattern>,
    pub(in crate::config) actions: List<Actions>,
    pub(in crate::config) networks: List<IpNet>,
}

/// A group as written.
#[derive(Clone, Debug)]
pub(in crate::config) struct RawGroup {
    pub(in crate::config) name: Spanned<String>,
    pub(in crate::config) members: List<Pattern>,
}

pub(super) fn rule(table: &mut TableReader<'_>) -> RawAccess {
    RawAccess {
        deny: table.value("deny", super::values::flag),
        users: table.list("users", values::selector),
        repositories: table.list("repositories", values::repository_pattern),
        tags: table.list("tags", values::tag_pattern),
        actions: table.list("actions", values::actions),
        networks: table.list("networks", values::network),
    }
}

/// Reads `[groups]`, whose keys are the names of groups.
pub(super) fn groups(top: &mut TableReader<'_>) -> Setting<Vec<RawGroup>> {
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
