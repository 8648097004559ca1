//! Which areas a repository is in: each `[[quota]]` table has one, or one for each value of
//! `${user}`.

use crate::config::retention::QuotaSettings;
use crate::registry::name::RepositoryName;

/// An area whose repositories have one quota together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AreaKey {
    /// The position of its table.
    table: usize,
    /// The value of `${user}`, if the table has that.
    user: Option<Box<str>>,
}

/// The quotas of a store.
#[derive(Debug, Default)]
pub(super) struct QuotaTables(Vec<QuotaSettings>);

impl QuotaTables {
    pub(super) fn new(tables: Vec<QuotaSettings>) -> Self {
        Self(tables)
    }

    pub(super) fn is_of(&self, tables: &[QuotaSettings]) -> bool {
        self.0 == tables
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The areas that a repository is in: at most one of each table. All their quotas apply.
    pub(super) fn areas_of(&self, name: &RepositoryName) -> Vec<AreaKey> {
        let name = name.as_str();
        let tables = self.0.iter().enumerate();
        let found = tables.filter_map(|(table, quota)| {
            let user = quota.repositories.iter().find_map(|pattern| {
                if pattern.names_user() {
                    pattern.user_in(name).map(|user| Some(user.into()))
                } else {
                    pattern.matches(name, None).then_some(None)
                }
            })?;
            Some(AreaKey { table, user })
        });
        found.collect()
    }

    /// Whether a repository is in an area.
    pub(super) fn cover(&self, name: &RepositoryName) -> bool {
        !self.areas_of(name).is_empty()
    }

    /// The bytes that an area may hold.
    pub(super) fn size(&self, area: &AreaKey) -> u64 {
        self.0.get(area.table).map_or(u64::MAX, |quota| quota.size)
    }

    /// Where the quota of an area is written, `FILE:LINE`.
    pub(super) fn rule(&self, area: &AreaKey) -> String {
        let quota = self.0.get(area.table);
        quota.map_or_else(String::new, |quota| quota.location.to_string())
    }

    /// The patterns of an area, with its user.
    pub(super) fn title(&self, area: &AreaKey) -> String {
        let quota = self.0.get(area.table);
        let patterns = quota.into_iter().flat_map(|quota| &quota.repositories);
        let patterns: Vec<_> = patterns
            .map(|pattern| pattern.for_user(area.user.as_deref()))
            .collect();
        patterns.join(", ")
    }

    /// The areas that exist without any repository.
    pub(super) fn fixed(&self) -> impl Iterator<Item = AreaKey> {
        let tables = self.0.iter().enumerate();
        let fixed = tables.filter(|(_, quota)| !quota.repositories.iter().any(|p| p.names_user()));
        fixed.map(|(table, _)| AreaKey { table, user: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{name, table};
    use super::*;

    #[test]
    fn each_user_has_an_area_and_each_table_its_own() {
        let tables = QuotaTables::new(vec![
            table(&["${user}/**", "ci/${user}-*"], 10),
            table(&["**"], 100),
        ]);
        let titles = |of: &str| -> Vec<(String, u64)> {
            let areas = tables.areas_of(&name(of));
            areas
                .iter()
                .map(|area| (tables.title(area), tables.size(area)))
                .collect()
        };
        let all = ("**".to_owned(), 100);
        assert_eq!(titles("app"), std::slice::from_ref(&all));
        let alice = ("alice/**, ci/alice-*".to_owned(), 10);
        assert_eq!(titles("alice/app"), [alice.clone(), all.clone()]);
        assert_eq!(titles("alice/b/c"), [alice, all]);
        assert_ne!(
            tables.areas_of(&name("alice/app")),
            tables.areas_of(&name("bob/app"))
        );
        assert_eq!(tables.fixed().count(), 1);
    }
}
