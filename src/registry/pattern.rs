//! Patterns of the names of users, tags and repositories, by which rules select them.

pub(crate) mod corresponding;
mod covers;
pub(crate) mod literals;

/// A pattern in which `*` matches any number of characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// A pattern of repository names: components joined by `/`. In a component `*` matches any number
/// of characters and `${user}` the name of the user; the component `**` matches any number of
/// levels, at the end of a pattern at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepositoryPattern {
    text: Box<str>,
    components: Box<[Component]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Component {
    /// Exactly this level.
    Literal(Box<str>),
    /// `*`: any one level.
    Any,
    /// `**`: any number of levels.
    Many,
    /// A level with stars or the user in it.
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
    /// The text is empty, or two slashes have nothing between them.
    #[error("has an empty level")]
    EmptyLevel,
    /// `a**`
    #[error("has `**` beside other characters")]
    StarsInLevel,
    /// `${group}`, or a dollar sign alone.
    #[error("has a `$` that is not that of `${{user}}`")]
    Variable,
    /// No repository name has this character.
    #[error("has a character that is in no repository name")]
    Character,
    /// Longer than any repository name.
    #[error("is longer than 255 bytes")]
    TooLong,
}

impl Pattern {
    /// Any text is a pattern; one without a star matches only itself.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only text that it matches, if it has no star.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// Whether it matches every text.
    pub fn is_any(&self) -> bool {
        self.0.bytes().all(|b| b == b'*') && !self.0.is_empty()
    }

    /// Whether a text matches.
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
    /// Parses a pattern.
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

    /// The pattern with the name of a user filled in, for messages.
    pub fn for_user(&self, user: Option<&str>) -> String {
        self.text.replace(USER, user.unwrap_or(USER))
    }

    /// Whether it contains `${user}`.
    pub fn names_user(&self) -> bool {
        self.text.contains(USER)
    }

    /// The value of `${user}` with which a repository matches. `None` also for patterns of which a
    /// name does not say where the user stands in it: those with a star beside `${user}`.
    pub fn user_in<'a>(&self, repository: &'a str) -> Option<&'a str> {
        let (before, after) = self.components.iter().find_map(around_user)?;
        let candidates = repository.split('/').filter_map(|level| {
            let user = level.strip_prefix(before)?.strip_suffix(after)?;
            (!user.is_empty()).then_some(user)
        });
        let mut matching = candidates.filter(|user| self.matches(repository, Some(user)));
        matching.next()
    }

    /// Whether it matches only one repository, for a user at least.
    pub fn is_literal(&self) -> bool {
        !self.text.contains('*')
    }

    /// Whether it matches every repository.
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

    /// The only name that it matches, if there is one.
    pub fn only_name(&self) -> Option<&str> {
        let is_literal = |component: &Component| matches!(component, Component::Literal(_));
        self.components
            .iter()
            .all(is_literal)
            .then_some(&*self.text)
    }

    /// The first level of all names that it matches, if that is one and more levels follow.
    pub fn first_level(&self) -> Option<&str> {
        match &*self.components {
            [Component::Literal(first), _, ..] => Some(first),
            _ => None,
        }
    }

    /// Whether a repository matches for a user. `${user}` matches nothing for anonymous clients,
    /// nor for a user whose name contains a slash: a component is one level.
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

/// What stands before and after `${user}` in its level, if that is plain text.
fn around_user(component: &Component) -> Option<(&str, &str)> {
    let Component::Glob(tokens) = component else {
        return None;
    };
    match &**tokens {
        [GlobToken::User] => Some(("", "")),
        [GlobToken::Text(before), GlobToken::User] => Some((before, "")),
        [GlobToken::User, GlobToken::Text(after)] => Some(("", after)),
        [
            GlobToken::Text(before),
            GlobToken::User,
            GlobToken::Text(after),
        ] => Some((before, after)),
        _ => None,
    }
}

/// Greedy without backtracking: a star takes as few characters as let the next token match, and the
/// last token must end the level.
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

/// Whether a list matches a pattern in which some tokens match any number of entries. It suffices
/// to backtrack to the last of those, so that the number of steps is at most the product of the
/// lengths.
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

/// The variable for the name of the user.
const USER: &str = "${user}";

#[cfg(test)]
mod tests;
