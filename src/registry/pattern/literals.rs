//! The literal parts of a pattern, between its stars. Every matching text contains them; an index
//! finds patterns by them.

use super::{Component, GlobToken, Pattern, RepositoryPattern};

/// A part without a star.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    /// Not empty.
    pub text: Box<str>,
    /// Where a matching text has it.
    pub at: LiteralPosition,
}

/// The position of a literal in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralPosition {
    /// It is the whole text.
    Whole,
    /// The text begins with it.
    Start,
    /// The text ends with it.
    End,
    /// Anywhere.
    Inside,
}

impl Pattern {
    /// The literals that every matching text has.
    pub fn literals(&self) -> Vec<Literal> {
        let mut parts = LiteralParts::default();
        for (at, text) in self.0.split('*').enumerate() {
            if at > 0 {
                parts.star();
            }
            parts.push(text);
        }
        parts.all()
    }
}

impl RepositoryPattern {
    /// The literals that every matching name has, whoever the user is. Levels with `**` between
    /// them may share their slash: `a/**/b` has `a/` and `/b`.
    pub fn literals(&self) -> Vec<Literal> {
        let mut parts = LiteralParts::default();
        let is_level = |component: &Component| *component != Component::Many;
        for (at, component) in self.components.iter().enumerate() {
            let (before, after) = self.components.split_at(at);
            let is_below = before.iter().any(is_level);
            match component {
                Component::Many => {
                    if is_below && after.iter().any(is_level) {
                        parts.push("/");
                    }
                    parts.star();
                    continue;
                }
                Component::Literal(_) | Component::Any | Component::Glob(_) if is_below => {
                    parts.push("/")
                }
                Component::Literal(_) | Component::Any | Component::Glob(_) => {}
            }
            match component {
                Component::Literal(text) => parts.push(text),
                Component::Any | Component::Many => parts.star(),
                Component::Glob(tokens) => tokens.iter().for_each(|token| match token {
                    GlobToken::Text(text) => parts.push(text),
                    GlobToken::Star | GlobToken::User => parts.star(),
                }),
            }
        }
        parts.all()
    }
}

/// Collects texts and stars in their order.
#[derive(Default)]
struct LiteralParts {
    done: Vec<Literal>,
    open: String,
    /// Whether a star was added.
    loose: bool,
}

impl LiteralParts {
    fn push(&mut self, text: &str) {
        self.open.push_str(text);
    }

    fn star(&mut self) {
        let at = if self.loose {
            LiteralPosition::Inside
        } else {
            LiteralPosition::Start
        };
        self.loose = true;
        self.close(at);
    }

    fn close(&mut self, at: LiteralPosition) {
        if !self.open.is_empty() {
            self.done.push(Literal {
                text: std::mem::take(&mut self.open).into(),
                at,
            });
        }
    }

    fn all(mut self) -> Vec<Literal> {
        let at = if self.loose {
            LiteralPosition::End
        } else {
            LiteralPosition::Whole
        };
        self.close(at);
        self.done
    }
}
