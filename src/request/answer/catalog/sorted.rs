//! A page of names that come in any order.

use std::collections::BTreeSet;

use crate::registry::call::{Pagination, QueryText};
use crate::registry::name::RepositoryName;
use crate::request::answer::paging;
use crate::store::Page;

/// The first names after the last one of the previous page, of those that have come so far.
pub(crate) struct SortedPage {
    limit: usize,
    last: Option<Box<str>>,
    /// One more than the page has, which tells whether there is another page.
    names: BTreeSet<RepositoryName>,
}

impl SortedPage {
    pub(crate) fn new(pagination: &Pagination) -> Self {
        Self {
            limit: paging::page_limit(pagination),
            last: pagination
                .last
                .as_ref()
                .map(|last| QueryText::as_str(last).into()),
            names: BTreeSet::new(),
        }
    }

    pub(crate) fn add(&mut self, names: impl Iterator<Item = RepositoryName>) {
        let last = self.last.as_deref();
        for name in names.filter(|name| last.is_none_or(|last| name.as_str() > last)) {
            self.names.insert(name);
            if self.names.len() > self.limit + 1 {
                self.names.pop_last();
            }
        }
    }

    pub(crate) fn into_page(self) -> Page {
        let has_more = self.names.len() > self.limit;
        let names = self.names.into_iter().take(self.limit);
        Page {
            entries: names.map(|name| name.to_string()).collect(),
            has_more,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_have_every_name_once_and_in_order(
            names in prop::collection::btree_set("[a-c]([-./]?[a-c]){0,3}", 0..30),
            n in 1..8u32,
            page_of_registry in 1..8usize,
        ) {
            let names = names.iter().filter_map(|name| RepositoryName::parse(name).ok());
            let mut names: Vec<_> = names.collect();
            names.reverse();
            let mut all = Vec::new();
            let mut last = None;
            loop {
                let pagination = Pagination { n: Some(n), last };
                let mut page = SortedPage::new(&pagination);
                for names in names.chunks(page_of_registry) {
                    page.add(names.iter().cloned());
                }
                let Page { entries, has_more } = page.into_page();
                prop_assert!(entries.len() == 1.max(n as usize) || !has_more);
                last = entries.last().and_then(|last| QueryText::parse(last));
                all.extend(entries);
                if !has_more {
                    break;
                }
            }
            names.sort();
            let names: Vec<_> = names.iter().map(RepositoryName::to_string).collect();
            prop_assert_eq!(all, names);
        }
    }
}
