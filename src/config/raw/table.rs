//! Reads the keys of a table and reports their problems.

use std::borrow::Cow;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{List, Setting};
use crate::config::problem::{Problem, Problems};
use crate::config::schema::{self, FileKind};
use crate::config::source::{Source, Span};
use crate::config::values::InvalidValue;

/// One table. Its unknown keys are reported when it is opened.
pub(super) struct TableReader<'a> {
    source: &'a Arc<Source>,
    kind: FileKind,
    /// Empty at the top.
    name: &'static str,
    entries: &'a DeTable<'a>,
    problems: &'a mut Problems,
}

impl<'a> TableReader<'a> {
    /// The top level of a file.
    pub(super) fn top(
        source: &'a Arc<Source>,
        kind: FileKind,
        entries: &'a DeTable<'a>,
        problems: &'a mut Problems,
    ) -> Self {
        Self::open(Self {
            source,
            kind,
            name: "",
            entries,
            problems,
        })
    }

    fn open(mut self) -> Self {
        for key in self.entries.keys() {
            let name = key.get_ref();
            if !schema::knows(self.kind, self.name, name) {
                let help = schema::help_for_unknown(self.kind, self.name, name);
                let place = if self.name.is_empty() {
                    String::new()
                } else {
                    format!(" in [{}]", self.name)
                };
                self.report(&key.span(), format!("unknown key `{name}`{place}"), help);
            }
        }
        self
    }

    /// Reads one value.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, InvalidValue>,
    ) -> Setting<T> {
        let Some(value) = self.find(key) else {
            return Setting::Absent;
        };
        match read(value.get_ref()) {
            Ok(read) => Setting::Given(read, value.span()),
            Err(error) => self.invalid(key, &value.span(), error),
        }
    }

    /// Reads a list of values. Invalid elements are reported and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, InvalidValue>,
    ) -> List<T> {
        self.check_known(key);
        self.any_list(key, read)
    }

    /// As [`Self::list`], but a single value needs no brackets.
    pub(super) fn one_or_list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, InvalidValue>,
    ) -> List<T> {
        match self.find(key).map(|value| value.get_ref()) {
            Some(DeValue::String(_)) => match self.value(key, read) {
                Setting::Given(value, span) => {
                    Setting::Given(vec![Spanned::new(span.clone(), value)], span)
                }
                Setting::Invalid => Setting::Invalid,
                Setting::Absent => Setting::Absent,
            },
            Some(_) | None => self.any_list(key, read),
        }
    }

    /// Like [`Self::list`] for a key outside the schema.
    pub(super) fn any_list<T>(
        &mut self,
        key: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, InvalidValue>,
    ) -> List<T> {
        let Some(value) = self.entries.get(key) else {
            return Setting::Absent;
        };
        let DeValue::Array(elements) = value.get_ref() else {
            let error = InvalidValue::wrong_type("a list", value.get_ref(), "write [\"…\", \"…\"]");
            return self.invalid(key, &value.span(), error);
        };
        let mut list = Vec::new();
        for element in elements {
            match read(element.get_ref()) {
                Ok(read) => list.push(Spanned::new(element.span(), read)),
                Err(error) => {
                    let _: Setting<T> = self.invalid(key, &element.span(), error);
                }
            }
        }
        if list.is_empty() && !elements.is_empty() {
            return Setting::Invalid;
        }
        Setting::Given(list, value.span())
    }

    /// Reads each key of a table with arbitrary keys.
    pub(super) fn free<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut TableReader<'_>, &Spanned<Cow<'_, str>>) -> Option<T>,
    ) -> Setting<Vec<T>> {
        self.nested(key, key, |mut table| {
            let keys = table.entries.keys();
            keys.filter_map(|key| read(&mut table, key)).collect()
        })
    }

    /// Reads a table within the top level.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut TableReader<'_>) -> T,
    ) -> Setting<T> {
        self.nested(key, key, |table| read(&mut table.open()))
    }

    /// Reads a table within this one; `name` is its whole name.
    pub(super) fn inner<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        read: impl FnOnce(&mut TableReader<'_>) -> T,
    ) -> Setting<T> {
        self.nested(key, name, |table| read(&mut table.open()))
    }

    fn nested<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        read: impl FnOnce(TableReader<'_>) -> T,
    ) -> Setting<T> {
        let Some(value) = self.find(key) else {
            return Setting::Absent;
        };
        let DeValue::Table(entries) = value.get_ref() else {
            let help = format!("write [{name}] on a line of its own, and its keys below");
            let error = InvalidValue::wrong_type("a table", value.get_ref(), &help);
            return self.invalid(key, &value.span(), error);
        };
        Setting::Given(read(self.within(name, entries)), value.span())
    }

    /// Reads an array of tables, `[[key]]`, within the top level.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut TableReader<'_>) -> T,
    ) -> List<T> {
        self.inner_list(key, key, read)
    }

    /// Reads an array of tables within this one; `name` is its whole name.
    pub(super) fn inner_list<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        read: impl Fn(&mut TableReader<'_>) -> T,
    ) -> List<T> {
        let Some(value) = self.find(key) else {
            return Setting::Absent;
        };
        let help = format!("write [[{name}]] on a line of its own, and its keys below");
        let DeValue::Array(elements) = value.get_ref() else {
            let error = InvalidValue::wrong_type("an array of tables", value.get_ref(), &help);
            return self.invalid(key, &value.span(), error);
        };
        let mut list = Vec::new();
        for element in elements {
            let DeValue::Table(entries) = element.get_ref() else {
                let error =
                    InvalidValue::wrong_type("an array of tables", element.get_ref(), &help);
                return self.invalid(key, &element.span(), error);
            };
            let mut table = self.within(name, entries).open();
            list.push(Spanned::new(element.span(), read(&mut table)));
        }
        Setting::Given(list, value.span())
    }

    /// The reader of a table within this one.
    fn within<'b>(&'b mut self, name: &'static str, entries: &'b DeTable<'b>) -> TableReader<'b> {
        TableReader {
            source: self.source,
            kind: self.kind,
            name,
            entries,
            problems: self.problems,
        }
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.check_known(key);
        self.entries.get(key)
    }

    fn check_known(&self, key: &'static str) {
        debug_assert!(
            schema::knows(self.kind, self.name, key),
            "{key} of {:?} is not in the schema",
            self.name
        );
    }

    fn invalid<T>(&mut self, key: &str, span: &Span, error: InvalidValue) -> Setting<T> {
        let dot = if self.name.is_empty() { "" } else { "." };
        self.report(
            span,
            format!("`{}{dot}{key}` {error}", self.name),
            error.help,
        );
        Setting::Invalid
    }

    /// Adds an error at a position of this file.
    pub(super) fn report(&mut self, span: &Span, message: String, help: String) {
        self.problems
            .push(Problem::at(self.source, span, message, help));
    }
}
