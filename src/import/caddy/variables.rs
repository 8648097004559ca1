//! The environment variables of a Caddyfile: `{$NAME}` and, by version, `{%NAME%}` or
//! `{$NAME:default}`. Those that are not set are reported, since Caddy takes them for empty.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::position::{Character, SourcePosition};

/// The environment in which Caddy ran.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, String>,
    unset: BTreeMap<String, SourcePosition>,
}

impl Variables {
    pub(crate) fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            values: values.into_iter().collect(),
            unset: BTreeMap::new(),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The names without a value that occurred, each with its first place.
    pub(super) fn unset(&self) -> impl Iterator<Item = (&String, &SourcePosition)> {
        self.unset.iter()
    }

    /// Forgets what was missing, before a second reading.
    pub(super) fn forget_unset(&mut self) {
        self.unset.clear();
    }

    /// The value of a variable; empty, and reported, if it is not set.
    fn resolve(&mut self, name: &str, at: SourcePosition) -> String {
        match self.values.get(name) {
            Some(value) => value.clone(),
            None => {
                self.unset.entry(name.to_owned()).or_insert(at);
                String::new()
            }
        }
    }

    /// Version 2: in the whole text, with defaults.
    pub(super) fn expand_text(&mut self, input: &[Character], file: &Arc<Path>) -> Vec<Character> {
        let mut output = Vec::with_capacity(input.len());
        let mut rest = input;
        while let Some((first, others)) = rest.split_first() {
            let closing = (first.c == '{' && others.first().is_some_and(|c| c.c == '$'))
                .then(|| others.iter().take(MAX_REFERENCE).position(|c| c.c == '}'))
                .flatten();
            let Some(closing) = closing.filter(|closing| *closing > 1) else {
                output.push(*first);
                rest = others;
                continue;
            };
            let inner = others.get(1..closing).unwrap_or_default();
            let inner: String = inner.iter().map(|c| c.c).collect();
            let value = match inner.split_once(':') {
                Some((name, default)) => self.value(name).unwrap_or(default).to_owned(),
                None => {
                    let at = SourcePosition {
                        file: Arc::clone(file),
                        line: first.line,
                        column: first.column,
                    };
                    self.resolve(&inner, at)
                }
            };
            output.extend(value.chars().map(|c| Character { c, ..*first }));
            rest = others.get(closing + 1..).unwrap_or_default();
        }
        output
    }

    /// Version 1: in each token, `{$NAME}` and `{%NAME%}`.
    pub(super) fn expand_token(&mut self, text: &str, at: &SourcePosition) -> String {
        let mut text = text.to_owned();
        for (open, close) in [("{$", "}"), ("{%", "%}")] {
            let mut output = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once(open) {
                output.push_str(before);
                let Some((name, after)) = after.split_once(close) else {
                    output.push_str(open);
                    rest = after;
                    continue;
                };
                output.push_str(&self.resolve(name, at.clone()));
                rest = after;
            }
            output.push_str(rest);
            text = output;
        }
        text
    }

    /// Version 2, at run time: `{env.NAME}`. The placeholder remains where there is no value.
    pub(super) fn expand_placeholders(&mut self, text: &str, at: &SourcePosition) -> String {
        let mut output = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{env.") {
            output.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                output.push_str("{env.");
                rest = after;
                continue;
            };
            output.push_str(&self.resolve(name, at.clone()));
            rest = after;
        }
        output.push_str(rest);
        output
    }
}

/// In characters, of `{$NAME:default}`. Bounds the search for the closing brace.
const MAX_REFERENCE: usize = 4096;
