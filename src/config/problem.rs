//! What is wrong with the configuration: where, why, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::{Excerpt, Source, Span};

/// A configuration with an error is refused, one with warnings is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemSeverity {
    Error,
    Warning,
}

/// Whether diagnostics carry terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// Escape sequences, for a terminal.
    Always,
}

/// One problem of the configuration. Its text never contains a secret.
#[derive(Clone, Debug)]
pub struct Problem {
    severity: ProblemSeverity,
    place: ProblemLocation,
    message: String,
    help: String,
}

#[derive(Clone, Debug)]
enum ProblemLocation {
    File(PathBuf),
    Key { file: PathBuf, keys: Vec<String> },
    Span { source: Arc<Source>, span: Span },
    Bytes { file: PathBuf, span: Span },
}

impl Problem {
    /// An error of a file as a whole.
    pub fn in_file(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(
            ProblemLocation::File(file.to_owned()),
            message.into(),
            help.into(),
        )
    }

    /// An error at the value of a key, such as `["auth", "htpasswd"]`, for the layers above. The
    /// file is read again when the problem is rendered; if the key is gone, only the file is named.
    pub fn at_key(
        file: &Path,
        keys: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let keys = keys.iter().map(ToString::to_string).collect();
        Self::new(
            ProblemLocation::Key {
                file: file.to_owned(),
                keys,
            },
            message.into(),
            help.into(),
        )
    }

    /// An error at a byte range of a file, for the layers above. The file is read again when the
    /// problem is rendered.
    pub fn at_place(
        file: &Path,
        place: &std::ops::Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let place = ProblemLocation::Bytes {
            file: file.to_owned(),
            span: place.clone(),
        };
        Self::new(place, message.into(), help.into())
    }

    /// An error at a byte range of a file that is in memory.
    pub(super) fn at(
        source: &Arc<Source>,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let place = ProblemLocation::Span {
            source: Arc::clone(source),
            span: span.clone(),
        };
        Self::new(place, message.into(), help.into())
    }

    fn new(place: ProblemLocation, message: String, help: String) -> Self {
        let (message, help) = (without_controls(&message), without_controls(&help));
        Self {
            severity: ProblemSeverity::Error,
            place,
            message,
            help,
        }
    }

    /// The same problem as a warning.
    #[must_use]
    pub fn warning(self) -> Self {
        Self {
            severity: ProblemSeverity::Warning,
            ..self
        }
    }

    pub fn severity(&self) -> ProblemSeverity {
        self.severity
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// The path of the file, as it was given.
    pub fn file(&self) -> &Path {
        match &self.place {
            ProblemLocation::File(file)
            | ProblemLocation::Key { file, .. }
            | ProblemLocation::Bytes { file, .. } => file,
            ProblemLocation::Span { source, .. } => source.path(),
        }
    }

    /// Line and column, both from 1, unless the problem concerns the file as a whole.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.located()
            .map(|(source, span)| source.position(span.start))
    }

    /// The problem as text, without a line break at the end.
    pub fn render(&self, colour: Colour) -> String {
        let level = match self.severity {
            ProblemSeverity::Error => Level::ERROR,
            ProblemSeverity::Warning => Level::WARNING,
        };
        let path = self.file().to_string_lossy().into_owned();
        let title = Group::with_title(level.primary_title(&self.message));
        let located = self.located();
        let excerpt = located
            .as_ref()
            .and_then(|(source, span)| source.excerpt(span));
        let group = match (&located, &excerpt) {
            (_, Some(excerpt)) => title.element(snippet(excerpt).path(path)),
            (Some((source, span)), None) => {
                let (line, column) = source.position(span.start);
                title.element(Origin::path(path).line(line).char_column(column))
            }
            (None, None) => title.element(Origin::path(path)),
        };
        let renderer = match colour {
            Colour::Never => Renderer::plain(),
            Colour::Always => Renderer::styled(),
        };
        renderer.render(&[group.element(Level::HELP.message(&self.help))])
    }

    fn located(&self) -> Option<(Arc<Source>, Span)> {
        match &self.place {
            ProblemLocation::File(_) => None,
            ProblemLocation::Span { source, span } => Some((Arc::clone(source), span.clone())),
            ProblemLocation::Bytes { file, span } => {
                Some((Arc::new(Source::read(file).ok()?), span.clone()))
            }
            ProblemLocation::Key { file, keys } => {
                let source = Source::read(file).ok()?;
                let span = source.find(keys)?;
                Some((Arc::new(source), span))
            }
        }
    }
}

fn snippet(excerpt: &Excerpt) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let place = AnnotationKind::Primary.span(excerpt.span.clone());
    Snippet::source(excerpt.text.as_str())
        .line_start(excerpt.first_line)
        .annotation(place)
}

/// Escapes control characters: a key or a value in a message must not control the terminal.
fn without_controls(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// All problems of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether the configuration must be refused.
    pub fn has_errors(&self) -> bool {
        self.count(ProblemSeverity::Error) > 0
    }

    pub fn count(&self, severity: ProblemSeverity) -> usize {
        self.0
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// All problems as text, separated by empty lines.
    pub fn render(&self, colour: Colour) -> String {
        let problems: Vec<_> = self
            .0
            .iter()
            .map(|problem| problem.render(colour))
            .collect();
        problems.join("\n\n")
    }

    /// Sorts by file, then by position in the file.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by_cached_key(|problem| {
            let start = match &problem.place {
                ProblemLocation::File(_) | ProblemLocation::Key { .. } => 0,
                ProblemLocation::Span { span, .. } | ProblemLocation::Bytes { span, .. } => {
                    span.start
                }
            };
            (problem.file().to_owned(), start)
        });
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.0.extend(problems);
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Self(problems.into_iter().collect())
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Colour::Never))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, span: Span) -> Problem {
        let source = Arc::new(Source::new(
            PathBuf::from("conf.d/ci.toml"),
            text.to_owned(),
        ));
        Problem::at(&source, &span, "`realm` is odd", "write another")
    }

    #[test]
    fn a_problem_shows_its_line_and_what_to_write() {
        let text = problem("[auth]\nrealm = \"a\"\n", 15..18)
            .warning()
            .render(Colour::Never);
        insta::assert_snapshot!(text, @r#"
        warning: `realm` is odd
         --> conf.d/ci.toml:2:9
          |
        2 | realm = "a"
          |         ^^^
          |
          = help: write another
        "#);
    }

    #[test]
    fn a_problem_of_a_broken_file_names_the_position_alone() {
        let text = problem("password = s3cret\n", 11..17).render(Colour::Never);
        insta::assert_snapshot!(text, @r"
        error: `realm` is odd
         --> conf.d/ci.toml:1:12
          |
        1 | password = …
          |            ^
          |
          = help: write another
        ");
    }

    #[test]
    fn a_key_is_looked_up_when_the_problem_is_shown() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("ci.toml");
        let problem = Problem::at_key(
            &file,
            &["upstream", "password"],
            "`password` is refused",
            "ask for another",
        );
        let shown = || {
            problem
                .render(Colour::Never)
                .replace(&*directory.path().to_string_lossy(), "DIR")
        };
        assert_eq!(problem.position(), None);
        insta::assert_snapshot!(shown(), @r"
        error: `password` is refused
        --> DIR/ci.toml
         = help: ask for another
        ");
        std::fs::write(&file, "[upstream]\npassword = \"s3cret\"\n").expect("written");
        assert_eq!(problem.position(), Some((2, 12)));
        insta::assert_snapshot!(shown(), @r"
        error: `password` is refused
         --> DIR/ci.toml:2:12
          |
        2 | password = …
          |            ^
          |
          = help: ask for another
        ");
    }

    #[test]
    fn colours_come_only_from_us() {
        let problem = Problem::in_file(Path::new("a"), "unknown key `\u{1b}[31m`", "\u{7}");
        assert!(!problem.render(Colour::Never).contains(['\u{1b}', '\u{7}']));
        assert!(problem.render(Colour::Always).contains('\u{1b}'));
    }

    #[test]
    fn problems_are_in_the_order_of_files_and_places() {
        let mut problems = Problems::default();
        problems.push(problem("a = 1\n", 4..5));
        problems.push(problem("a = 1\n", 0..1).warning());
        problems.push(Problem::in_file(Path::new("conf.d/a.toml"), "first", ""));
        problems.sort();
        let order: Vec<_> = problems
            .iter()
            .map(|problem| (problem.file().to_owned(), problem.position()))
            .collect();
        assert_eq!(order[0].0, Path::new("conf.d/a.toml"));
        assert_eq!(order[1].1, Some((1, 1)));
        assert_eq!(order[2].1, Some((1, 5)));
        assert_eq!(
            (
                problems.count(ProblemSeverity::Error),
                problems.count(ProblemSeverity::Warning)
            ),
            (2, 1)
        );
    }
}
