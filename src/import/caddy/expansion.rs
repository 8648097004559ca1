//! Replaces imports by what they name: files, patterns of files, and snippets with arguments. What
//! remains are the global options and the sites.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, Volumes};
use super::lexer::{CaddyToken, CaddyVersion, SyntaxError, lex};
use super::parser::{Statement, parse};
use super::position::SourcePosition;
use super::variables::Variables;

/// A Caddyfile without imports.
#[derive(Debug, Default)]
pub(super) struct ExpandedFile {
    /// The global options of version 2.
    pub(super) options: Vec<Statement>,
    pub(super) sites: Vec<SiteBlock>,
    /// All files that were read, in order.
    pub(super) files: Vec<Arc<Path>>,
    /// Imports that match no file, which Caddy only logs.
    pub(super) empty_imports: Vec<Statement>,
}

/// Addresses and the directives that apply to them.
#[derive(Debug)]
pub(super) struct SiteBlock {
    pub(super) addresses: Vec<CaddyToken>,
    pub(super) directives: Vec<Statement>,
    pub(super) at: SourcePosition,
}

/// What reading depends on.
pub(super) struct ReadContext<'a> {
    pub(super) version: CaddyVersion,
    pub(super) variables: &'a mut Variables,
    pub(super) volumes: &'a Volumes,
    /// Whether other files may be read.
    pub(super) follows_imports: bool,
}

/// Reads a Caddyfile and everything that it imports.
pub(super) fn read(file: &Path, context: ReadContext<'_>) -> Result<ExpandedFile, SyntaxError> {
    let mut expansion = Expansion::new(context);
    let statements = expansion.file(file, None)?;
    expansion.sites(statements)?;
    Ok(expansion.result)
}

/// The same for a text that no file has.
pub(super) fn of_text(text: &str, context: ReadContext<'_>) -> Result<ExpandedFile, SyntaxError> {
    let file: Arc<Path> = Path::new("Caddyfile").into();
    let statements = parse(&lex(text, &file, context.version, context.variables)?)?;
    let mut expansion = Expansion::new(context);
    expansion.sites(statements)?;
    Ok(expansion.result)
}

struct Expansion<'a> {
    context: ReadContext<'a>,
    snippets: HashMap<String, Vec<Statement>>,
    /// How many more statements may be made: bounds imports that multiply.
    remaining: usize,
    result: ExpandedFile,
}

/// What an import passes on.
#[derive(Clone, Copy, Default)]
struct Passed<'a> {
    arguments: &'a [CaddyToken],
    block: &'a [Statement],
    depth: usize,
}

impl<'a> Expansion<'a> {
    fn new(context: ReadContext<'a>) -> Self {
        Self {
            context,
            snippets: HashMap::new(),
            remaining: MAX_STATEMENTS,
            result: ExpandedFile::default(),
        }
    }

    /// The statements of a file as written.
    fn file(
        &mut self,
        path: &Path,
        from: Option<&Statement>,
    ) -> Result<Vec<Statement>, SyntaxError> {
        let file: Arc<Path> = path.into();
        let start = SourcePosition {
            file: Arc::clone(&file),
            line: 1,
            column: 1,
        };
        let text = files::read(path).map_err(|error| {
            let at = from.map_or(&start, |statement| &statement.at);
            SyntaxError::new(at, format!("{} cannot be read: {error}", path.display()))
        })?;
        if !self.result.files.contains(&file) {
            self.result.files.push(Arc::clone(&file));
        }
        let context = &mut self.context;
        parse(&lex(&text, &file, context.version, context.variables)?)
    }

    /// Sorts the outermost statements into options, snippets and sites.
    fn sites(&mut self, statements: Vec<Statement>) -> Result<(), SyntaxError> {
        let mut statements = self.outermost(statements, 0)?.into_iter();
        while let Some(statement) = statements.next() {
            let Statement { tokens, block, at } = statement;
            let is_first = self.result.sites.is_empty() && self.result.options.is_empty();
            let directives = match &block {
                Some(block) if tokens.is_empty() && is_first && !is_of_site(block) => {
                    self.result.options = self.expand(block, Passed::default())?;
                    continue;
                }
                Some(block) => self.expand(block, Passed::default())?,
                // The only site of a file needs no braces.
                None => {
                    let rest: Vec<_> = statements.by_ref().collect();
                    self.expand(&rest, Passed::default())?
                }
            };
            self.result.sites.push(SiteBlock {
                addresses: tokens,
                directives,
                at,
            });
        }
        Ok(())
    }

    /// Imports and snippets outside of all sites. A snippet is known from its definition on.
    fn outermost(
        &mut self,
        statements: Vec<Statement>,
        depth: usize,
    ) -> Result<Vec<Statement>, SyntaxError> {
        let mut outermost = Vec::new();
        let mut is_in_site = false;
        for statement in statements {
            self.count(&statement)?;
            let name = statement.name();
            let snippet = name.strip_prefix('(').and_then(|n| n.strip_suffix(')'));
            match (snippet, &statement.block) {
                (Some(snippet), Some(block)) if statement.tokens.len() == 1 => {
                    self.snippets.insert(snippet.to_owned(), block.clone());
                }
                _ if name == "import" && !is_in_site => {
                    let imported = self.imported(&statement, Passed::default(), depth)?;
                    outermost.extend(self.outermost(imported, depth + 1)?);
                }
                (_, block) => {
                    is_in_site |= block.is_none();
                    outermost.push(statement);
                }
            }
        }
        Ok(outermost)
    }

    /// Refuses imports that multiply.
    fn count(&mut self, statement: &Statement) -> Result<(), SyntaxError> {
        self.remaining = self.remaining.checked_sub(1).ok_or_else(|| {
            SyntaxError::new(&statement.at, "the imports make more than 100,000 lines")
        })?;
        Ok(())
    }

    /// Statements with the arguments of the import that led to them, and with their own imports
    /// replaced.
    fn expand(
        &mut self,
        statements: &[Statement],
        passed: Passed<'_>,
    ) -> Result<Vec<Statement>, SyntaxError> {
        let mut expanded = Vec::new();
        for statement in statements {
            self.count(statement)?;
            if let Some(block) = block_of(statement, passed) {
                expanded.extend(block);
                continue;
            }
            let tokens = substituted(&statement.tokens, passed.arguments);
            let block = match &statement.block {
                Some(block) => Some(self.expand(block, passed)?),
                None => None,
            };
            let statement = Statement {
                tokens,
                block,
                at: statement.at.clone(),
            };
            if statement.name() == "import" {
                let imported = self.imported(&statement, passed, passed.depth)?;
                let arguments = statement.tokens.get(2..).unwrap_or_default();
                let inner = Passed {
                    arguments,
                    block: statement.children(),
                    depth: passed.depth + 1,
                };
                expanded.extend(self.expand(&imported, inner)?);
            } else {
                expanded.push(statement);
            }
        }
        Ok(expanded)
    }

    /// What an import names, as written there. Outside of all sites, with the arguments in place.
    fn imported(
        &mut self,
        import: &Statement,
        passed: Passed<'_>,
        depth: usize,
    ) -> Result<Vec<Statement>, SyntaxError> {
        let error = |message: String| SyntaxError::new(&import.at, message);
        if depth > MAX_IMPORTS {
            return Err(error("the imports lead back to themselves".to_owned()));
        }
        let is_v1 = self.context.version == CaddyVersion::V1;
        let Some(name) = import.argument(1) else {
            return Err(error("`import` names nothing".to_owned()));
        };
        if is_v1 && import.tokens.len() > 2 {
            return Err(error("`import` of version 1 takes one argument".to_owned()));
        }
        let statements = match self.snippets.get(name) {
            Some(snippet) => snippet.clone(),
            None if self.context.follows_imports => self.imported_files(import, name)?,
            None => return Err(error("no such snippet is known here".to_owned())),
        };
        let is_outermost = passed.depth == 0 && passed.arguments.is_empty();
        let arguments = import.tokens.get(2..).unwrap_or_default();
        if is_outermost && !arguments.is_empty() {
            return Ok(substituted_all(&statements, arguments));
        }
        Ok(statements)
    }

    fn imported_files(
        &mut self,
        import: &Statement,
        name: &str,
    ) -> Result<Vec<Statement>, SyntaxError> {
        let token = import.tokens.get(1).unwrap_or(&import.tokens[0]);
        let directory = token.at.file.parent().unwrap_or(Path::new(""));
        let pattern: PathBuf = directory.join(name);
        let is_pattern = name.contains(['*', '?', '[']);
        let found = if is_pattern {
            self.context.volumes.matching(&pattern)
        } else {
            Ok(vec![self.context.volumes.on_host(&pattern)])
        };
        let found = found.map_err(|error| {
            let message = format!("{} cannot be read: {error}", pattern.display());
            SyntaxError::new(&import.at, message)
        })?;
        if found.is_empty() {
            self.result.empty_imports.push(import.clone());
        }
        let mut statements = Vec::new();
        for path in found {
            statements.extend(self.file(&path, Some(import))?);
        }
        Ok(statements)
    }
}

/// Whether a block without addresses has directives of a site: then a variable was empty.
fn is_of_site(block: &[Statement]) -> bool {
    let names = [
        "tls",
        "proxy",
        "reverse_proxy",
        "basicauth",
        "basic_auth",
        "header",
        "gzip",
    ];
    block
        .iter()
        .any(|statement| names.contains(&statement.name()))
}

/// The block that an import passes, where a snippet says `{block}` or `{blocks.NAME}`.
fn block_of(statement: &Statement, passed: Passed<'_>) -> Option<Vec<Statement>> {
    let ([token], None) = (statement.tokens.as_slice(), &statement.block) else {
        return None;
    };
    if token.text == "{block}" {
        return Some(passed.block.to_vec());
    }
    let name = token.text.strip_prefix("{blocks.")?.strip_suffix('}')?;
    let named = passed.block.iter().find(|child| child.name() == name);
    Some(
        named
            .map(|named| named.children().to_vec())
            .unwrap_or_default(),
    )
}

fn substituted_all(statements: &[Statement], arguments: &[CaddyToken]) -> Vec<Statement> {
    let substituted = statements.iter().map(|statement| Statement {
        tokens: substituted(&statement.tokens, arguments),
        block: statement
            .block
            .as_ref()
            .map(|block| substituted_all(block, arguments)),
        at: statement.at.clone(),
    });
    substituted.collect()
}

/// Tokens with `{args[0]}`, `{args.0}` and `{args[1:]}` replaced.
fn substituted(tokens: &[CaddyToken], arguments: &[CaddyToken]) -> Vec<CaddyToken> {
    if arguments.is_empty() {
        return tokens.to_vec();
    }
    let mut result = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let Some(range) = range(&token.text, arguments.len()) {
            let range = arguments.get(range).unwrap_or_default();
            result.extend(range.iter().map(|argument| CaddyToken {
                at: token.at.clone(),
                ..argument.clone()
            }));
            continue;
        }
        if !token.text.contains("{args") {
            result.push(token.clone());
            continue;
        }
        let mut text = token.text.clone();
        for (index, argument) in arguments.iter().enumerate() {
            for form in [format!("{{args[{index}]}}"), format!("{{args.{index}}}")] {
                if text.contains(&form) && text.len() < MAX_TOKEN {
                    text = text.replace(&form, &argument.text);
                }
            }
        }
        result.push(CaddyToken {
            text,
            ..token.clone()
        });
    }
    result
}

/// The range of `{args[:]}`, `{args[1:]}` or `{args[:2]}`.
fn range(text: &str, count: usize) -> Option<std::ops::Range<usize>> {
    let inner = text.strip_prefix("{args[")?.strip_suffix("]}")?;
    let (from, to) = inner.split_once(':')?;
    let bound = |text: &str, default| match text {
        "" => Some(default),
        text => text.parse().ok(),
    };
    Some(bound(from, 0)?..bound(to, count)?)
}

/// Bounds imports that import each other.
const MAX_IMPORTS: usize = 20;
/// Bounds imports that multiply each other.
const MAX_STATEMENTS: usize = 100_000;
/// In bytes, before an argument is put in.
const MAX_TOKEN: usize = 64 << 10;
