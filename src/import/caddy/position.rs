//! Places in files, and the characters of a text with theirs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a file, line and column from 1, the column in characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourcePosition {
    pub(crate) file: Arc<Path>,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl fmt::Debug for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A character and where it was written. Those of a variable's value are all at the variable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Character {
    pub(super) c: char,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The characters of a text with their positions, without a byte order mark.
pub(super) fn characters(text: &str) -> Vec<Character> {
    let (mut line, mut column) = (1, 0);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let positioned = text.chars().map(|c| {
        column += 1;
        let character = Character { c, line, column };
        if c == '\n' {
            line += 1;
            column = 0;
        }
        character
    });
    positioned.collect()
}
