//! Whether a pattern matches everything that another one matches, and whether it can match at all.

use super::{Component, GlobToken, Pattern, RepositoryPattern, USER, matches_list};
use crate::registry::name::RepositoryName;

impl Pattern {
    /// Whether it matches every text that another one matches. Only a star covers a star.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl RepositoryPattern {
    /// Whether it matches, for every user, what another one matches. `false` may be wrong: patterns
    /// are only compared level by level.
    pub fn covers(&self, other: &Self) -> bool {
        let is_many = |component: &Component| *component == Component::Many;
        let forms = |pattern: &Self| {
            [
                pattern.components.to_vec(),
                many_before_any(&pattern.components),
            ]
        };
        let others = forms(other);
        forms(self).iter().any(|own| {
            others
                .iter()
                .any(|other| matches_list(own, other, is_many, Component::covers))
        })
    }

    /// Whether a repository name can match, for this user if one is given.
    pub fn is_possible(&self, user: Option<&str>) -> bool {
        // A letter is as good as any match of a star: no match makes an invalid neighbour valid.
        const ANY: &str = "a";
        let user = user.unwrap_or(ANY);
        let name = self
            .text
            .replace("**", ANY)
            .replace('*', ANY)
            .replace(USER, user);
        !user.contains('/') && RepositoryName::parse(&name).is_ok()
    }
}

/// The same pattern with a final `*/**` written as `**/*`.
fn many_before_any(components: &[Component]) -> Vec<Component> {
    let mut many_before_any = components.to_vec();
    if let [.., one @ Component::Any, many @ Component::Many] = many_before_any.as_mut_slice() {
        std::mem::swap(one, many);
    }
    many_before_any
}

impl Component {
    fn covers(&self, other: &Self) -> bool {
        if *other == Self::Many {
            return false;
        }
        matches_list(
            &self.symbols(),
            &other.symbols(),
            |symbol| *symbol == GlobSymbol::Star,
            |own, other| own == other,
        )
    }

    fn symbols(&self) -> Vec<GlobSymbol> {
        match self {
            Self::Literal(text) => text.bytes().map(GlobSymbol::Byte).collect(),
            Self::Any | Self::Many => vec![GlobSymbol::Star],
            Self::Glob(tokens) => tokens.iter().flat_map(GlobToken::symbols).collect(),
        }
    }
}

impl GlobToken {
    fn symbols(&self) -> Vec<GlobSymbol> {
        match self {
            Self::Text(text) => text.bytes().map(GlobSymbol::Byte).collect(),
            Self::Star => vec![GlobSymbol::Star],
            Self::User => vec![GlobSymbol::User],
        }
    }
}

/// A byte, star or variable of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GlobSymbol {
    Byte(u8),
    Star,
    User,
}
