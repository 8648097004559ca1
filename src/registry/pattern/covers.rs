//! Whether one pattern is about everything that another one is about, and whether there is such a
//! name at all.

use super::{Component, Pattern, Piece, RepositoryPattern, USER, matches_list};
use crate::registry::name::RepositoryName;

impl Pattern {
    /// Whether it matches every text that another one matches. A star of the other one is taken by
    /// a star alone.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl RepositoryPattern {
    /// Whether it matches, for every user, what another one matches. A no may be wrong where that
    /// takes more than comparing them level by level.
    pub fn covers(&self, other: &Self) -> bool {
        let is_many = |component: &Component| *component == Component::Many;
        let forms = |pattern: &Self| [pattern.components.to_vec(), turned(&pattern.components)];
        let others = forms(other);
        forms(self).iter().any(|own| {
            others
                .iter()
                .any(|other| matches_list(own, other, is_many, Component::covers))
        })
    }

    /// Whether there can be a repository of such a name, for this user if one is given.
    pub fn is_possible(&self, user: Option<&str>) -> bool {
        // What a star stands for is between others what a letter is, and nothing makes up for what
        // is wrong beside it.
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

/// The same pattern where it ends with any levels, at least one: the one last instead of first.
fn turned(components: &[Component]) -> Vec<Component> {
    let mut turned = components.to_vec();
    if let [.., one @ Component::Any, many @ Component::Many] = turned.as_mut_slice() {
        std::mem::swap(one, many);
    }
    turned
}

impl Component {
    fn covers(&self, other: &Self) -> bool {
        if *other == Self::Many {
            return false;
        }
        matches_list(
            &self.signs(),
            &other.signs(),
            |sign| *sign == Sign::Star,
            |own, other| own == other,
        )
    }

    fn signs(&self) -> Vec<Sign> {
        match self {
            Self::Literal(text) => text.bytes().map(Sign::Byte).collect(),
            Self::Any | Self::Many => vec![Sign::Star],
            Self::Pieces(pieces) => pieces.iter().flat_map(Piece::signs).collect(),
        }
    }
}

impl Piece {
    fn signs(&self) -> Vec<Sign> {
        match self {
            Self::Text(text) => text.bytes().map(Sign::Byte).collect(),
            Self::Star => vec![Sign::Star],
            Self::User => vec![Sign::User],
        }
    }
}

/// One sign of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Byte(u8),
    Star,
    User,
}
