//! Patterns of names: what a user, a tag or a repository has to be called for a rule to be about
//! it.

mod covers;
pub mod literals;

/// A text in which `*` stands for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// A pattern of repository names: components joined by `/`. In a component `*` stands for any
/// characters of that level and `${user}` for the name of who asks; `**` as a component stands for
/// any levels, at the end for at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepositoryPattern {
    text: Box<str>,
    components: Box<[Component]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Component {
    /// This one.
    Literal(Box<str>),
    /// One of any name: `*`.
    Any,
    /// Any number of any name, none included.
    Many,
    /// One made of these.
    Glob(Box<[GlobToken]>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum GlobToken {
    Text(Box<str>),
    Star,
    User,
}

/// Why a text is not a pattern of repository names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing there, or nothing between two slashes.
    #[error("has an empty level")]
    EmptyLevel,
    /// `a**`
    #[error("has `**` beside other characters")]
    StarsInLevel,
    /// `${group}`, or a dollar sign alone.
    #[error("has a `$` that is not that of `${{user}}`")]
    Variable,
    /// No repository could have such a name.
    #[error("has a character that is in no repository name")]
    Character,
    /// Longer than any repository name.
    #[error("is longer than 255 bytes")]
    TooLong,
}

impl Pattern {
    /// Any text is a pattern; one without a star is itself alone.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one text that it matches, if it has no star.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// Whether it matches every text.
    pub fn is_any(&self) -> bool {
        self.0.bytes().all(|b| b == b'*') && !self.0.is_empty()
    }

    /// Whether a text is like this.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        matches_list(
            pattern,
            text,
            |token| *token == b'*',
            |token, byte| token == byte,
        )
    }
}

impl RepositoryPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > 255 {
            return Err(InvalidPattern::TooLong);
        }
        let mut components = text
            .split('/')
            .map(component)
            .collect::<Result<Vec<_>, _>>()?;
        if components.last() == Some(&Component::Many) {
            components.insert(components.len() - 1, Component::Any);
        }
        Ok(Self {
            text: text.into(),
            components: components.into(),
        })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern with the name of a user filled in, for people.
    pub fn for_user(&self, user: Option<&str>) -> String {
        self.text.replace(USER, user.unwrap_or(USER))
    }

    /// Whether it says `${user}`.
    pub fn names_user(&self) -> bool {
        self.text.contains(USER)
    }

    /// Whether every repository is like this.
    pub fn is_any(&self) -> bool {
        self.components
            .iter()
            .filter(|component| **component == Component::Any)
            .count()
            <= 1
            && self.components.contains(&Component::Many)
            && self
                .components
                .iter()
                .all(|c| matches!(c, Component::Any | Component::Many))
    }

    /// Whether a repository is like this, for a user; `${user}` is nobody's name for anonymous. A
    /// user's name is one level: one with a slash in it is never there.
    pub fn matches(&self, repository: &str, user: Option<&str>) -> bool {
        // Names have at most 128 levels, nearly all have fewer than eight.
        let mut inline = [""; 8];
        let count = repository.bytes().filter(|b| *b == b'/').count() + 1;
        let mut allocated = Vec::new();
        let levels: &mut [&str] = match inline.get_mut(..count) {
            Some(levels) => levels,
            None => {
                allocated.resize(count, "");
                &mut allocated
            }
        };
        levels
            .iter_mut()
            .zip(repository.split('/'))
            .for_each(|(level, text)| *level = text);
        let is_many = |component: &Component| *component == Component::Many;
        matches_list(&self.components, levels, is_many, |component, level| {
            component.matches(level, user)
        })
    }
}

impl Component {
    fn matches(&self, level: &str, user: Option<&str>) -> bool {
        match self {
            Self::Literal(text) => **text == *level,
            Self::Any | Self::Many => true,
            Self::Glob(tokens) => match_glob(tokens, level, user),
        }
    }
}

/// Tries each place for the first star, and no more for the others than are needed: a star takes as
/// little as lets the next token follow, and the last token has to end the level.
fn match_glob(tokens: &[GlobToken], level: &str, user: Option<&str>) -> bool {
    let (mut rest, mut loose) = (level, false);
    for (at, token) in tokens.iter().enumerate() {
        let text = match token {
            GlobToken::Star => {
                loose = true;
                continue;
            }
            GlobToken::Text(text) => text,
            GlobToken::User => match user.filter(|user| !user.contains('/')) {
                Some(user) => user,
                None => return false,
            },
        };
        let is_last = at + 1 == tokens.len();
        let found = match (loose, is_last) {
            (true, true) => return rest.ends_with(text),
            (true, false) => rest.split_once(text).map(|(_, after)| after),
            (false, _) => rest.strip_prefix(text),
        };
        let Some(after) = found else { return false };
        (rest, loose) = (after, false);
    }
    loose || rest.is_empty()
}

/// Whether a list is like a pattern in which some tokens stand for any number of entries. Going
/// back to the last of those alone is enough, so that it takes at most as many steps as the product
/// of the lengths.
fn matches_list<P, T>(
    pattern: &[P],
    list: &[T],
    is_many: impl Fn(&P) -> bool,
    matches: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(entry) = list.get(t) {
        match pattern.get(p) {
            Some(token) if is_many(token) => {
                back = Some((p, t));
                p += 1;
            }
            Some(token) if matches(token, entry) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((many, taken)) = back else {
                    return false;
                };
                back = Some((many, taken + 1));
                (p, t) = (many + 1, taken + 1);
            }
        }
    }
    pattern.iter().skip(p).all(is_many)
}

fn component(text: &str) -> Result<Component, InvalidPattern> {
    match text {
        "" => return Err(InvalidPattern::EmptyLevel),
        "*" => return Ok(Component::Any),
        "**" => return Ok(Component::Many),
        _ if text.contains("**") => return Err(InvalidPattern::StarsInLevel),
        _ => {}
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(USER) {
            tokens.push(GlobToken::User);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            tokens.push(GlobToken::Star);
            rest = after;
        } else if first == '$' {
            return Err(InvalidPattern::Variable);
        } else {
            let (plain, after) = rest.split_at(rest.find(['*', '$']).unwrap_or(rest.len()));
            if !plain
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            {
                return Err(InvalidPattern::Character);
            }
            tokens.push(GlobToken::Text(plain.into()));
            rest = after;
        }
    }
    Ok(match <[GlobToken; 1]>::try_from(tokens) {
        Ok([GlobToken::Text(text)]) => Component::Literal(text),
        Ok(tokens) => Component::Glob(tokens.into()),
        Err(tokens) => Component::Glob(tokens.into()),
    })
}

/// What stands for the name of who asks.
const USER: &str = "${user}";

#[cfg(test)]
mod tests;
