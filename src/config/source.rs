//! The text of a configuration file: positions in it, and excerpts without secrets.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema;

/// A range of a file, in bytes.
pub(super) type Span = Range<usize>;

/// A configuration file in memory.
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

/// The lines around a span, with secrets replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// Whole lines.
    pub(super) text: String,
    /// The number of the first line, from 1.
    pub(super) first_line: usize,
    /// The span within `text`.
    pub(super) span: Span,
}

impl Source {
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let text = io::read_to_string(open_regular(path)?)?;
        Ok(Self::new(path.to_owned(), text))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Resolves a path written in this file: relative paths start at the directory of the file.
    pub(super) fn beside(&self, written: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(written)
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// The span of the value under a path of keys, or of the innermost table on the way that exists.
    pub(super) fn find(&self, keys: &[String]) -> Option<Span> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut table = document.get_ref();
        let mut found = None;
        for key in keys {
            let Some(value) = table.get(key.as_str()) else {
                break;
            };
            found = Some(value.span());
            let DeValue::Table(inner) = value.get_ref() else {
                break;
            };
            table = inner;
        }
        found
    }

    /// The lines that a span touches, without secrets. Of a file that is too broken to tell what a
    /// secret is, the first one, and of that only what certainly is none. `None` for a span outside
    /// of the text.
    pub(super) fn excerpt(&self, span: &Span) -> Option<Excerpt> {
        let Range { start, end } = self.lines_around(span)?;
        let (first_line, _) = self.position(start);
        let Ok(document) = DeTable::parse(&self.text) else {
            return Some(masked(
                self.text.get(start..end)?,
                first_line,
                span.start - start..span.end - start,
            ));
        };
        let hidden = hidden_values(document.get_ref());
        let mut excerpt = Excerpt {
            text: String::new(),
            first_line,
            span: 0..0,
        };
        let mut at = start;
        let mut place = ExcerptSpan {
            wanted: span,
            start: None,
            end: None,
        };
        for value in hidden
            .iter()
            .filter(|value| value.start < end && value.end > start)
        {
            let value = value.start.max(start)..value.end.min(end);
            place.copied(at..value.start, excerpt.text.len());
            excerpt.text.push_str(self.text.get(at..value.start)?);
            place.replaced(&value, excerpt.text.len());
            excerpt.text.push('…');
            excerpt
                .text
                .extend(self.text.get(value.clone())?.matches('\n'));
            at = value.end;
        }
        place.copied(at..end, excerpt.text.len());
        excerpt.text.push_str(self.text.get(at..end)?);
        excerpt.span = place.span(excerpt.text.len());
        Some(excerpt)
    }

    /// The whole lines that a span touches, without the end of the last line. `None` for a span
    /// outside the text or within a character.
    fn lines_around(&self, span: &Span) -> Option<Span> {
        let before = self.text.get(..span.start)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let after = self.text.get(span.end..)?;
        let rest = after.split('\n').next().unwrap_or_default();
        let rest = rest.strip_suffix('\r').unwrap_or(rest);
        Some(start..span.end + rest.len())
    }
}

impl fmt::Debug for Source {
    /// Leaves the text out, since it may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.path).finish()
    }
}

/// Opens a regular file and refuses others: a named pipe would block until it has a writer.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    File::open(path)
}

/// Maps a span of the file to the excerpt, whose bytes shift wherever a value is replaced.
struct ExcerptSpan<'a> {
    wanted: &'a Span,
    start: Option<usize>,
    end: Option<usize>,
}

impl ExcerptSpan<'_> {
    /// The bytes of `range` are copied to the excerpt at `to`.
    fn copied(&mut self, range: Span, to: usize) {
        let within = |at: usize| {
            (range.start..=range.end)
                .contains(&at)
                .then(|| to + at - range.start)
        };
        self.start = self.start.or_else(|| within(self.wanted.start));
        self.end = self.end.or_else(|| within(self.wanted.end));
    }

    /// The bytes of `value` are replaced by an ellipsis in the excerpt at `to`.
    fn replaced(&mut self, value: &Span, to: usize) {
        if self.start.is_none() && value.contains(&self.wanted.start) {
            self.start = Some(to);
        }
        if self.end.is_none() && value.contains(&self.wanted.end) {
            self.end = Some(to + '…'.len_utf8());
        }
    }

    fn span(&self, length: usize) -> Span {
        let start = self.start.unwrap_or(0);
        start..self.end.unwrap_or(length).max(start)
    }
}

/// The spans of all values that must not be shown, in order.
fn hidden_values(document: &DeTable<'_>) -> Vec<Span> {
    let mut hidden = Vec::new();
    hide_in_table("", document, &mut hidden);
    hidden.sort_by_key(|span| span.start);
    hidden
}

fn hide_in_table(name: &str, table: &DeTable<'_>, hidden: &mut Vec<Span>) {
    for (key, value) in table {
        let shown = schema::may_be_shown(name, key.get_ref());
        hide_value(key.get_ref(), value, !shown, hidden);
    }
}

fn hide_value(key: &str, value: &Spanned<DeValue<'_>>, hide: bool, hidden: &mut Vec<Span>) {
    match value.get_ref() {
        DeValue::Table(table) => hide_in_table(key, table, hidden),
        DeValue::Array(values) => values
            .iter()
            .for_each(|value| hide_value(key, value, hide, hidden)),
        // A URL may contain a user and a password before its `@`.
        DeValue::String(text) if matches!(key, "url" | "in_use") && text.contains('@') => {
            hidden.push(value.span());
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {
            if hide {
                hidden.push(value.span());
            }
        }
    }
}

/// The first of these lines of a file with a syntax error, without what may be a secret. `wanted`
/// is the place within the lines: the caret keeps its column, even where nothing is shown.
fn masked(lines: &str, first_line: usize, wanted: Span) -> Excerpt {
    let line = lines.split('\n').next().unwrap_or_default();
    let shown = harmless_length(line);
    let mut text = line[..shown].to_owned();
    let (mut start, mut end) = (wanted.start.min(shown), wanted.end.min(shown));
    if shown < line.len() {
        text.push('…');
        let column = line
            .get(..wanted.start)
            .map_or(0, |before| before.chars().count());
        let missing = column.saturating_sub(text.chars().count());
        text.extend(std::iter::repeat_n(' ', missing));
        if wanted.start > shown {
            text.push(' ');
            start = text.len() - 1;
        }
        if wanted.start >= shown || wanted.end > shown {
            end = text.len();
        }
    }
    Excerpt {
        text,
        first_line,
        span: start..end.max(start),
    }
}

/// How much of a line of a file with a syntax error certainly holds no secret: all of it for the
/// header of a table, and for a known key with a simple value; up to the value after a known key
/// that may be secret.
fn harmless_length(line: &str) -> usize {
    let Some((key, value)) = line.split_once('=') else {
        let is_header = line.trim_start().starts_with('[') && !line.contains(['"', '\'', '#']);
        let is_all = is_header || line.trim().is_empty() || schema::is_key(line.trim());
        return if is_all { line.len() } else { 0 };
    };
    if schema::may_be_shown_anywhere(key.trim())
        && !value.contains(['{', '@'])
        && !value.contains("passw")
    {
        return line.len();
    }
    if !schema::is_key(key.trim()) {
        return 0;
    }
    let space = value.len() - value.trim_start().len();
    key.len() + 1 + space
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(PathBuf::from("conf.d/ci.toml"), text.to_owned())
    }

    /// The excerpt around `word`, the place marked with angle brackets.
    fn excerpt(text: &str, word: &str) -> Option<String> {
        let start = text.find(word).expect("the word");
        let mut excerpt = source(text).excerpt(&(start..start + word.len()))?;
        excerpt.text.insert(excerpt.span.end, '>');
        excerpt.text.insert(excerpt.span.start, '<');
        Some(excerpt.text)
    }

    #[test]
    fn secrets_are_never_in_an_excerpt() {
        let cases = [
            ("password = \"s3cret\"", "password", "<password> = …"),
            ("password = \"s3cret\"", "\"s3cret\"", "password = <…>"),
            ("password = \"s3cret\"", "3cr", "password = <…>"),
            ("pasword = \"s3cret\"", "pasword", "<pasword> = …"),
            (
                "upstream = { password = \"s3cret\", foo = 1 } # é",
                "foo",
                "upstream = { password = …, <foo> = … } # é",
            ),
            (
                "upstream = { password = \"s3cret\", foo = 1 } # é",
                "é",
                "upstream = { password = …, foo = … } # <é>",
            ),
            (
                "password = [\"s3cret\"]",
                "[\"s3cret\"]",
                "password = <[…]>",
            ),
            (
                "password = { env = \"NAME\" }",
                "env",
                "password = { <env> = \"NAME\" }",
            ),
            (
                "password = { key = \"s3cret\" }",
                "key",
                "password = { <key> = … }",
            ),
            ("x = 1\npassword = 12345\ny = 1", "12345", "password = <…>"),
            ("[upstream]\nkey = \"s3cret\"", "key", "<key> = …"),
            (
                "upstream.url = \"http://a:s3cret@b\"",
                "url",
                "upstream.<url> = …",
            ),
            (
                "upstream.url = \"http://b\"\r\n",
                "\"http://b\"",
                "upstream.url = <\"http://b\">",
            ),
            ("\u{feff}domain = 1\n", "1", "\u{feff}domain = <1>"),
            (
                "password = \"\"\"\ns3cret\n\"\"\"",
                "password",
                "<password> = …",
            ),
            (
                "upstream = { url = \"a\",\n  password = 's3cret' }",
                "{ url = \"a\",\n  password = 's3cret' }",
                "upstream = <{ url = \"a\",\n  password = … }>",
            ),
        ];
        for (text, word, shown) in cases {
            let got = excerpt(text, word);
            assert_eq!(got.as_deref(), Some(shown), "{text}");
        }
    }

    #[test]
    fn a_file_that_does_not_parse_shows_only_what_is_surely_harmless() {
        assert_eq!(
            excerpt("domain = a.b", "a.b").as_deref(),
            Some("domain = <a.b>")
        );
        assert_eq!(
            excerpt("[upstream\n", "[upstream").as_deref(),
            Some("<[upstream>")
        );
        let cases = [
            ("password = s3cret", "s3cret"),
            ("pasword = s3cret", "s3cret"),
            ("upstream = { pasword = s3cret", "s3cret"),
            ("password = \"\"\"\ns3cret\\q\n", "s3cret"),
            ("url = http://me:s3cret@host", "s3cret"),
            ("[upstream] password = s3cret", "s3cret"),
            ("pass/word = s3cret", "pass"),
        ];
        let shown = cases.map(|(text, at)| excerpt(text, at).expect(text));
        insta::assert_snapshot!(shown.join("\n"), @r"
        password = <…>
        …         < >
        upstream = …           < >
        <…>
        url = …         < >
        …                     < >
        <…>
        ");
        for (text, at, shown) in [
            ("domain\n", 6, "domain"),
            ("domain = \n", 9, "domain = "),
            ("realm = 'CI\n", 12, ""),
            ("password = \n", 11, "password = "),
            ("domain = 'a'\n[tls", 17, "[tls"),
        ] {
            let got = source(text).excerpt(&(at..at)).map(|excerpt| excerpt.text);
            assert_eq!(got.as_deref(), Some(shown), "{text}");
        }
    }

    #[test]
    fn keys_are_found_and_positions_counted_in_characters() {
        let source = source("realm = 'é'\n[auth]\nhtpasswd = 'a'\n");
        let find = |keys: &[&str]| {
            let span = source.find(&keys.iter().map(ToString::to_string).collect::<Vec<_>>())?;
            source.text.get(span)
        };
        assert_eq!(find(&["auth", "htpasswd"]), Some("'a'"));
        assert_eq!(find(&["auth", "realm"]), Some("[auth]"));
        assert_eq!(find(&["tls"]), None);
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(12), (1, 12));
        assert_eq!(source.position(13), (2, 1));
        assert_eq!(source.position(10_000), (4, 1));
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_place_panics(text in "[a-z=\"\\[\\]{}\n é@:'\\\\]{0,60}", start in 0_usize..70, length in 0_usize..10) {
            let source = source(&text);
            source.position(start);
            if let Some(excerpt) = source.excerpt(&(start..start + length)) {
                proptest::prop_assert!(excerpt.text.get(excerpt.span).is_some());
            }
        }

        #[test]
        fn a_password_is_never_shown(word in "[A-Z]{8}", start in 0_usize..80, length in 0_usize..80) {
            let source = source(&format!("listen = [':1']\nupstream = {{ password = '{word}', url = 'é' }}\nstate = 'x'\n"));
            if let Some(excerpt) = source.excerpt(&(start..start + length)) {
                proptest::prop_assert!(!excerpt.text.contains(&word));
            }
        }
    }
}
