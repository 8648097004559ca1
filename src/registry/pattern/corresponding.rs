//! The repository of one pattern that corresponds to a repository of another: what the wildcards of
//! the one matched, put in the place of those of the other.

use super::{RepositoryPattern, USER};
use crate::registry::name::RepositoryName;

/// A wildcard as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wildcard {
    /// `*`, within a level.
    Star,
    /// `**`, any levels.
    Many,
}

/// Two patterns of which one says where to find what belongs to a repository of the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correspondence<'p> {
    /// The pattern of the repositories.
    pub(crate) of: &'p RepositoryPattern,
    /// That of what corresponds to them.
    pub(crate) to: &'p RepositoryPattern,
}

impl Correspondence<'_> {
    /// Whether each repository has one that corresponds to it: both patterns have the same wildcards
    /// in the same order, and it is clear what each of them matched. A pattern without wildcards
    /// corresponds to all.
    pub(crate) fn is_clear(self) -> bool {
        let text = self.of.as_str();
        let is_clear = text
            .split('/')
            .all(|level| level == "**" || level.matches('*').count() <= 1)
            && wildcards(text).filter(|w| *w == Wildcard::Many).count() <= 1;
        self.to.is_literal() || is_clear && wildcards(text).eq(wildcards(self.to.as_str()))
    }

    /// The repository that corresponds to `name`, for a user. `None`: the name does not match, or
    /// there is no such name.
    pub(crate) fn name(self, name: &RepositoryName, user: Option<&str>) -> Option<RepositoryName> {
        if !self.is_clear() {
            return None;
        }
        let matched = if self.to.is_literal() {
            Matched::default()
        } else {
            Matched::of(&filled(self.of, user)?, name.as_str())?
        };
        let mut stars = matched.stars.into_iter();
        let mut levels = Vec::new();
        for level in filled(self.to, user)?.split('/') {
            if level == "**" {
                levels.extend(matched.levels.iter().cloned());
            } else if level.contains('*') {
                levels.push(level.replacen('*', &stars.next()?, 1));
            } else {
                levels.push(level.to_owned());
            }
        }
        RepositoryName::parse(&levels.join("/")).ok()
    }
}

fn wildcards(text: &str) -> impl Iterator<Item = Wildcard> {
    text.split('/').flat_map(|level| {
        let (wildcard, count) = match level {
            "**" => (Wildcard::Many, 1),
            level => (Wildcard::Star, level.matches('*').count()),
        };
        std::iter::repeat_n(wildcard, count)
    })
}

/// The text with the user's name. `None`: there is none, or it is not that of one level.
fn filled(pattern: &RepositoryPattern, user: Option<&str>) -> Option<String> {
    if !pattern.names_user() {
        return Some(pattern.as_str().to_owned());
    }
    let user = user.filter(|user| !user.contains(['/', '*', '$']))?;
    Some(pattern.as_str().replace(USER, user))
}

/// What wildcards matched.
#[derive(Debug, Default)]
struct Matched {
    stars: Vec<String>,
    /// By the only `**`.
    levels: Vec<String>,
}

impl Matched {
    /// What the wildcards of a pattern, which is clear, match of a name.
    fn of(pattern: &str, name: &str) -> Option<Self> {
        let pattern: Vec<_> = pattern.split('/').collect();
        let name: Vec<_> = name.split('/').collect();
        let mut matched = Self::default();
        let Some(many) = pattern.iter().position(|level| *level == "**") else {
            return matched.add_levels(&pattern, &name).then_some(matched);
        };
        let (before, after) = (pattern.get(..many)?, pattern.get(many + 1..)?);
        let after_at = name.len().checked_sub(after.len())?;
        let levels = name.get(many..after_at)?;
        // At the end of a pattern at least one.
        if after.is_empty() && levels.is_empty() {
            return None;
        }
        matched.levels = levels.iter().map(ToString::to_string).collect();
        let is_match = matched.add_levels(before, name.get(..many)?)
            && matched.add_levels(after, name.get(after_at..)?);
        is_match.then_some(matched)
    }

    /// Whether levels match. Adds what the stars match; a level has one at most.
    fn add_levels(&mut self, pattern: &[&str], levels: &[&str]) -> bool {
        pattern.len() == levels.len()
            && pattern
                .iter()
                .zip(levels)
                .all(|(pattern, level)| self.add_level(pattern, level))
    }

    fn add_level(&mut self, pattern: &str, level: &str) -> bool {
        let Some((start, end)) = pattern.split_once('*') else {
            return pattern == level;
        };
        let rest = level.strip_prefix(start);
        let Some(star) = rest.and_then(|rest| rest.strip_suffix(end)) else {
            return false;
        };
        self.stars.push(star.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> RepositoryPattern {
        RepositoryPattern::parse(text).unwrap()
    }

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[test]
    fn what_wildcards_match_is_put_in_the_place_of_others() {
        let cases = [
            ("release/**", "release/app", "ci/**", Some("ci/app")),
            ("release/**", "release/a/b", "ci/**", Some("ci/a/b")),
            ("release/**", "release", "ci/**", None),
            ("release/*", "release/app", "*/ci", Some("app/ci")),
            ("release/*", "release/a/b", "ci/*", None),
            ("r-*/x", "r-app/x", "ci/*-x", Some("ci/app-x")),
            ("*/release/**", "t/release/a/b", "*/ci/**", Some("t/ci/a/b")),
            ("**/release", "a/b/release", "**/ci", Some("a/b/ci")),
            ("**/release", "release", "**/ci", Some("ci")),
            ("release/**", "other/app", "ci/**", None),
            ("release/**", "other/app", "ci/app", Some("ci/app")),
            (
                "home/${user}/*",
                "home/eve/x",
                "ci/${user}/*",
                Some("ci/eve/x"),
            ),
            ("home/${user}/*", "home/bob/x", "ci/${user}/*", None),
            ("**", "app", "ci/${user}", Some("ci/eve")),
            // Not the same wildcards, or it is not clear what they match.
            ("release/**", "release/app", "ci/*", None),
            ("*/release", "t/release", "ci/*/*", None),
            ("a*b*", "axby", "c*d*", None),
            ("**/r/**", "a/r/b", "**/c/**", None),
            // No name: a level cannot end in a dash.
            ("release/*", "release/app", "ci/*-", None),
        ];
        for (own, repository, other, expected) in cases {
            let (of, to) = (pattern(own), pattern(other));
            let both = Correspondence { of: &of, to: &to };
            let found = both.name(&name(repository), Some("eve"));
            let found = found.as_ref().map(RepositoryName::as_str);
            assert_eq!(found, expected, "{own} {repository} {other}");
        }
        let (of, to) = (pattern("**"), pattern("ci/${user}"));
        let of_users = Correspondence { of: &of, to: &to }.name(&name("app"), None);
        assert_eq!(of_users, None);
    }

    proptest! {
        #[test]
        fn the_way_back_leads_to_the_same_repository(
            repository in "[a-c]{1,2}(/[a-c]{1,2}){0,4}",
            own in "([a-c]|[a-c]?\\*|\\*\\*)(/([a-c]|\\*[a-c]?|\\*\\*)){0,3}",
        ) {
            let (own, repository) = (pattern(&own), name(&repository));
            let matches = own.matches(repository.as_str(), None);
            let itself = Correspondence { of: &own, to: &own };
            if itself.is_clear() {
                let found = itself.name(&repository, None);
                if own.is_literal() {
                    prop_assert!(found.is_some());
                } else {
                    prop_assert_eq!(found.as_ref(), matches.then_some(&repository));
                }
            }
        }
    }
}
