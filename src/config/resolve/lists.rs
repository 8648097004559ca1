//! The lists of a rule, none of which may be empty.

use std::sync::Arc;

use toml::Spanned;

use crate::config::problem::{Problem, Problems};
use crate::config::raw::{List, Setting};
use crate::config::source::{Source, Span};

/// Reads the lists of one rule.
pub(super) struct ListReader<'a> {
    pub(super) source: &'a Arc<Source>,
    /// The table of the rule, such as `access`.
    pub(super) table: &'static str,
    /// Where the rule is.
    pub(super) rule: &'a Span,
    pub(super) problems: &'a mut Problems,
}

impl ListReader<'_> {
    /// A list that each rule must have.
    pub(super) fn required<T: Clone>(
        &mut self,
        key: &str,
        list: &List<T>,
        help: &str,
    ) -> Option<Vec<Spanned<T>>> {
        match list {
            Setting::Absent => {
                let message = format!("`{}.{key}` is missing in this rule", self.table);
                self.report(self.rule, message, help);
                None
            }
            Setting::Invalid => None,
            Setting::Given(entries, span) if entries.is_empty() => {
                let message = format!(
                    "`{}.{key}` is empty: the rule could never match",
                    self.table
                );
                self.report(span, message, help);
                None
            }
            Setting::Given(entries, _) => Some(entries.clone()),
        }
    }

    /// `Some(None)` if the list is absent.
    pub(super) fn optional<T: Clone>(
        &mut self,
        key: &str,
        list: &List<T>,
        help: &str,
    ) -> Option<Option<Vec<Spanned<T>>>> {
        if list.is_absent() {
            Some(None)
        } else {
            self.required(key, list, help).map(Some)
        }
    }

    /// Adds an error of the rule.
    pub(super) fn report(&mut self, span: &Span, message: impl Into<String>, help: &str) {
        self.problems
            .push(Problem::at(self.source, span, message, help));
    }
}

/// The values of a list without their positions.
pub(super) fn plain<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(Spanned::into_inner).collect()
}
