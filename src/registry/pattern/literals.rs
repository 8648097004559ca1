//! What every text that is like a pattern has in it: the parts of the pattern between its stars, by
//! which patterns are looked up.

use super::{Component, GlobToken, Pattern, RepositoryPattern};

/// A part without a star.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    /// Not empty.
    pub text: Box<str>,
    /// Where it has to be.
    pub at: LiteralPosition,
}

/// Where in a text a part of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralPosition {
    /// It is all of it.
    Whole,
    /// The text begins with it.
    Start,
    /// The text ends with it.
    End,
    /// Anywhere.
    Inside,
}

impl Pattern {
    /// What every text that it matches has.
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
    /// What every name that it matches has, whoever asks. Levels between which there may be others
    /// share the slash if there are none: `a/**/b` has `a/` and `/b`.
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

/// Texts and stars, as they come.
#[derive(Default)]
struct LiteralParts {
    done: Vec<Literal>,
    open: String,
    /// Whether there was a star.
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
