//! Splits a Caddyfile into tokens. Version 1 has comments inside words and escapes only `\"`;
//! version 2 adds back-quotes, heredocs, and lines that continue after a backslash.

use std::path::Path;
use std::sync::Arc;

use super::position::{Character, SourcePosition, characters};
use super::variables::Variables;

/// Whose grammar and directives a Caddyfile has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaddyVersion {
    V1,
    V2,
}

/// A word of a Caddyfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CaddyToken {
    pub(super) text: String,
    /// Written in quotes or as a heredoc: a brace is no brace then.
    pub(super) is_quoted: bool,
    /// The first of its line.
    pub(super) begins_line: bool,
    pub(super) at: SourcePosition,
}

/// Why a text is no Caddyfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub(crate) struct SyntaxError {
    pub(crate) at: SourcePosition,
    pub(crate) message: String,
}

impl SyntaxError {
    pub(super) fn new(at: &SourcePosition, message: impl Into<String>) -> Self {
        Self {
            at: at.clone(),
            message: message.into(),
        }
    }
}

/// The tokens of a file, with the values of its environment variables.
pub(super) fn lex(
    text: &str,
    file: &Arc<Path>,
    version: CaddyVersion,
    variables: &mut Variables,
) -> Result<Vec<CaddyToken>, SyntaxError> {
    let written = characters(text);
    let input = match version {
        // Before it is split: a value with spaces becomes several tokens.
        CaddyVersion::V2 => variables.expand_text(&written, file),
        CaddyVersion::V1 => written,
    };
    let mut tokens = Lexer::new(&input, file, version).tokens()?;
    if version == CaddyVersion::V1 {
        for token in &mut tokens {
            token.text = variables.expand_token(&token.text, &token.at);
        }
    }
    Ok(tokens)
}

struct Lexer<'a> {
    input: &'a [Character],
    next: usize,
    file: &'a Arc<Path>,
    version: CaddyVersion,
    /// Whether a line has begun since the last token.
    is_new_line: bool,
}

impl<'a> Lexer<'a> {
    fn new(input: &'a [Character], file: &'a Arc<Path>, version: CaddyVersion) -> Self {
        Self {
            input,
            next: 0,
            file,
            version,
            is_new_line: true,
        }
    }

    fn tokens(mut self) -> Result<Vec<CaddyToken>, SyntaxError> {
        let mut tokens = Vec::new();
        while let Some(start) = self.skip_space() {
            let begins_line = std::mem::take(&mut self.is_new_line);
            let (text, is_quoted) = self.token(start)?;
            // An unfinished continuation at the end of a file has no text.
            if !text.is_empty() || is_quoted {
                tokens.push(CaddyToken {
                    text,
                    is_quoted,
                    begins_line,
                    at: self.position(start),
                });
            }
        }
        Ok(tokens)
    }

    fn peek(&self) -> Option<char> {
        self.ahead(0)
    }

    fn ahead(&self, by: usize) -> Option<char> {
        self.input.get(self.next + by).map(|character| character.c)
    }

    fn position(&self, of: Character) -> SourcePosition {
        SourcePosition {
            file: Arc::clone(self.file),
            line: of.line,
            column: of.column,
        }
    }

    /// Skips space, comments and continued line ends; the first character of the next token.
    fn skip_space(&mut self) -> Option<Character> {
        loop {
            let character = *self.input.get(self.next)?;
            match character.c {
                '\n' => self.is_new_line = true,
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next += 1;
                    }
                    continue;
                }
                '\\' if self.continuation().is_some() => {
                    self.next += self.continuation().unwrap_or(1);
                    continue;
                }
                c if c.is_whitespace() => {}
                _ => return Some(character),
            }
            self.next += 1;
        }
    }

    /// The length of a backslash at the end of a line with the line end.
    fn continuation(&self) -> Option<usize> {
        if self.version == CaddyVersion::V1 {
            return None;
        }
        match (self.ahead(1), self.ahead(2)) {
            (Some('\n'), _) => Some(2),
            (Some('\r'), Some('\n')) => Some(3),
            _ => None,
        }
    }

    fn token(&mut self, start: Character) -> Result<(String, bool), SyntaxError> {
        match (self.version, start.c) {
            (_, '"') => Ok((self.quoted(), true)),
            (CaddyVersion::V2, '`') => Ok((self.back_quoted(), true)),
            (CaddyVersion::V2, '<') => match self.heredoc(start)? {
                Some(text) => Ok((text, true)),
                None => Ok((self.word(), false)),
            },
            _ => Ok((self.word(), false)),
        }
    }

    /// Up to the closing quote, or the end of the file.
    fn quoted(&mut self) -> String {
        let mut text = String::new();
        self.next += 1;
        while let Some(c) = self.peek() {
            self.next += 1;
            match c {
                '"' => break,
                '\\' => {
                    let escaped = self.peek();
                    if escaped != Some('"') {
                        text.push('\\');
                    }
                    text.extend(escaped);
                    self.next += usize::from(escaped.is_some());
                }
                c => text.push(c),
            }
        }
        text
    }

    fn back_quoted(&mut self) -> String {
        let rest = self.input.get(self.next + 1..).unwrap_or_default();
        let text: String = rest.iter().map(|c| c.c).take_while(|c| *c != '`').collect();
        self.next += text.chars().count() + 2;
        text
    }

    fn word(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            match c {
                '#' if self.version == CaddyVersion::V1 => break,
                '\\' if self.continuation().is_some() => break,
                '\\' if self.version == CaddyVersion::V2 => {
                    let escaped = self.ahead(1);
                    if text.is_empty() && matches!(escaped, Some('"' | '`' | '<')) {
                        // Escapes the beginning of a quoted token.
                        text.extend(escaped);
                        self.next += 1;
                    } else {
                        text.push(c);
                    }
                }
                '\r' => {}
                c if c.is_whitespace() => break,
                c => text.push(c),
            }
            self.next += 1;
        }
        text
    }

    /// `<<MARKER`, lines, and the marker again; its indentation is removed from all lines. `None` if
    /// this is an ordinary word.
    fn heredoc(&mut self, start: Character) -> Result<Option<String>, SyntaxError> {
        let rest = self.input.get(self.next..).unwrap_or_default();
        let opening: String = rest
            .iter()
            .map(|c| c.c)
            .take_while(|c| *c != '\n')
            .collect();
        let Some(marker) = opening.trim_end_matches('\r').strip_prefix("<<") else {
            return Ok(None);
        };
        let is_known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if marker.is_empty() || marker.contains(' ') {
            return Ok(None);
        }
        if !marker.chars().all(is_known) {
            let message = "the marker of a heredoc has letters, digits, `_` and `-` only";
            return Err(SyntaxError::new(&self.position(start), message));
        }
        let body: String = rest
            .iter()
            .skip(opening.chars().count() + 1)
            .map(|character| character.c)
            .filter(|c| *c != '\r')
            .collect();
        let Some((text, _)) = body.split_once(marker) else {
            let message = format!("the heredoc has no `{marker}` at its end");
            return Err(SyntaxError::new(&self.position(start), message));
        };
        let text = text.to_owned();
        self.skip_heredoc(opening.chars().count() + 1, &text, marker);
        without_indentation(&text).map(Some).ok_or_else(|| {
            let message = "a line of the heredoc is indented less than the marker at its end";
            SyntaxError::new(&self.position(start), message)
        })
    }

    fn skip_heredoc(&mut self, opening: usize, text: &str, marker: &str) {
        self.next += opening;
        let mut remaining = text.chars().count() + marker.chars().count();
        while remaining > 0 {
            remaining -= usize::from(self.peek() != Some('\r'));
            self.next += 1;
        }
    }
}

/// The lines of a heredoc without the indentation of the last one; `None` if one has less.
fn without_indentation(text: &str) -> Option<String> {
    let (lines, indentation) = text.rsplit_once('\n').unwrap_or(("", text));
    if !indentation.trim().is_empty() {
        return None;
    }
    let lines = lines.split('\n').map(|line| {
        let bare = line.trim().is_empty().then_some("");
        line.strip_prefix(indentation).or(bare)
    });
    let lines: Option<Vec<_>> = lines.collect();
    Some(lines?.join("\n"))
}
