//! Rows by the patterns of a text: each pattern is indexed by its rarest literal, and an automaton
//! finds the literals of all patterns in one pass over a text.

use aho_corasick::AhoCorasick;
use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;

use super::rows::Rows;
use crate::registry::pattern::literals::{Literal, LiteralPosition};

/// Rows by patterns.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// By patterns without a wildcard.
    whole: FxHashMap<Box<str>, Rows>,
    /// Rows of patterns without a literal.
    any: Rows,
    /// Rows that are not indexed yet, with their literals.
    waiting: Vec<(usize, Vec<Literal>)>,
    literals: Vec<Places>,
    /// Finds `literals` by their index; `None` where there are none.
    automaton: Option<AhoCorasick>,
}

/// The rows of a literal, by its position in the text.
#[derive(Debug, Default)]
struct Places {
    start: Rows,
    end: Rows,
    inside: Rows,
}

impl Texts {
    /// Adds the last row so far, or the next one, with the literals of its pattern.
    pub(super) fn add(&mut self, row: usize, literals: Vec<Literal>) {
        match literals.as_slice() {
            [] => self.any.add(row),
            [
                Literal {
                    text,
                    at: LiteralPosition::Whole,
                },
            ] => self.add_whole(row, text),
            _ => self.waiting.push((row, literals)),
        }
    }

    pub(super) fn add_whole(&mut self, row: usize, text: &str) {
        // `entry` would copy the key; members of a group are nearly always there already.
        match self.whole.get_mut(text) {
            Some(rows) => rows.add(row),
            None => self.whole.entry(text.into()).or_default().add(row),
        }
    }

    /// Indexes the rows that were added.
    pub(super) fn finish(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut uses: FxHashMap<&Literal, usize> = FxHashMap::default();
        for literal in waiting.iter().flat_map(|(_, literals)| literals) {
            *uses.entry(literal).or_default() += 1;
        }
        let mut texts: Vec<&str> = Vec::new();
        let mut numbers: FxHashMap<&str, usize> = FxHashMap::default();
        for (row, literals) in &waiting {
            let rarest = literals.iter().min_by_key(|literal| {
                (
                    uses.get(literal),
                    literal.at == LiteralPosition::Inside,
                    std::cmp::Reverse(literal.text.len()),
                )
            });
            let Some(Literal { text, at }) = rarest else {
                continue;
            };
            let text: &str = text;
            let number = *numbers.entry(text).or_insert_with(|| {
                texts.push(text);
                self.literals.push(Places::default());
                texts.len() - 1
            });
            let Some(places) = self.literals.get_mut(number) else {
                continue;
            };
            match at {
                LiteralPosition::Start => places.start.add(*row),
                LiteralPosition::End => places.end.add(*row),
                LiteralPosition::Whole | LiteralPosition::Inside => places.inside.add(*row),
            }
        }
        if texts.is_empty() {
            return;
        }
        match AhoCorasick::new(&texts) {
            Ok(automaton) => self.automaton = Some(automaton),
            // More than 2 GiB of patterns: all of them are compared.
            Err(_) => waiting.iter().for_each(|(row, _)| self.any.add(*row)),
        }
    }

    /// Adds the rows whose pattern can match a text to `to`, and those of a pattern without a wildcard
    /// to `whole`, if it is given.
    pub(super) fn find(&self, text: &str, to: &mut FixedBitSet, whole: Option<&mut FixedBitSet>) {
        self.any.add_to(to);
        if let Some(rows) = self.whole.get(text) {
            match whole {
                Some(whole) => rows.add_to(whole),
                None => rows.add_to(to),
            }
        }
        let Some(automaton) = &self.automaton else {
            return;
        };
        for found in automaton.find_overlapping_iter(text) {
            let Some(places) = self.literals.get(found.pattern().as_usize()) else {
                continue;
            };
            places.inside.add_to(to);
            if found.start() == 0 {
                places.start.add_to(to);
            }
            if found.end() == text.len() {
                places.end.add_to(to);
            }
        }
    }
}
