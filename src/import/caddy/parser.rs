//! Turns tokens into statements: a line of tokens, and a block of statements in braces.

use super::lexer::{CaddyToken, SyntaxError};
use super::position::SourcePosition;

/// A directive, a subdirective, a site, a snippet or the global options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Empty only for the global options.
    pub(super) tokens: Vec<CaddyToken>,
    pub(super) block: Option<Vec<Statement>>,
    pub(super) at: SourcePosition,
}

impl Statement {
    /// The first token.
    pub(super) fn name(&self) -> &str {
        self.argument(0).unwrap_or_default()
    }

    /// The token at an index, the name being at 0.
    pub(super) fn argument(&self, index: usize) -> Option<&str> {
        self.tokens.get(index).map(|token| token.text.as_str())
    }

    /// The tokens after the name.
    pub(super) fn arguments(&self) -> Vec<&str> {
        let arguments = self.tokens.iter().skip(1);
        arguments.map(|token| token.text.as_str()).collect()
    }

    /// The statements in braces, if any.
    pub(super) fn children(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// The statements of a file.
pub(super) fn parse(tokens: &[CaddyToken]) -> Result<Vec<Statement>, SyntaxError> {
    let mut parser = Parser { tokens, next: 0 };
    let statements = parser.statements(0)?;
    match parser.peek() {
        Some(token) => Err(SyntaxError::new(
            &token.at,
            "this brace closes nothing: no block is open here",
        )),
        None => Ok(statements),
    }
}

struct Parser<'a> {
    tokens: &'a [CaddyToken],
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a CaddyToken> {
        self.tokens.get(self.next)
    }

    fn is_brace(&self, brace: &str) -> bool {
        self.peek().is_some_and(|token| is_brace(token, brace))
    }

    /// Statements up to a closing brace or the end.
    fn statements(&mut self, depth: usize) -> Result<Vec<Statement>, SyntaxError> {
        let mut statements = Vec::new();
        while let Some(first) = self.peek().filter(|token| !is_brace(token, "}")) {
            if depth > MAX_DEPTH {
                return Err(SyntaxError::new(
                    &first.at,
                    "the blocks are nested too deeply",
                ));
            }
            let tokens = self.line(depth == 0);
            let block = if self.is_brace("{") {
                Some(self.block(depth)?)
            } else {
                None
            };
            statements.push(Statement {
                tokens,
                block,
                at: first.at.clone(),
            });
        }
        Ok(statements)
    }

    /// The tokens of a line before a brace. The addresses of a site go on after a comma.
    fn line(&mut self, is_outermost: bool) -> Vec<CaddyToken> {
        let mut line: Vec<CaddyToken> = Vec::new();
        while let Some(token) = self.peek() {
            let goes_on = is_outermost && line.last().is_some_and(|last| last.text.ends_with(','));
            let ends = token.begins_line && !line.is_empty() && !goes_on;
            if ends || is_brace(token, "{") || is_brace(token, "}") {
                break;
            }
            line.push(token.clone());
            self.next += 1;
        }
        line
    }

    fn block(&mut self, depth: usize) -> Result<Vec<Statement>, SyntaxError> {
        let opening = self.peek().map(|token| token.at.clone());
        self.next += 1;
        let statements = self.statements(depth + 1)?;
        if !self.is_brace("}") {
            let at = opening.as_ref().or(self.tokens.last().map(|last| &last.at));
            return at.map_or(Ok(Vec::new()), |at| {
                Err(SyntaxError::new(at, "this brace is never closed"))
            });
        }
        self.next += 1;
        Ok(statements)
    }
}

fn is_brace(token: &CaddyToken, brace: &str) -> bool {
    token.text == brace && !token.is_quoted
}

/// Bounds the recursion. Real files have five levels.
const MAX_DEPTH: usize = 32;
