//! Repository names as clients know them, and as the registry behind moorgate does. Both ways lead
//! back to where they began, so that a repository has one name on either side and access rules hold
//! for all of its content.

mod text;

use super::call::{Call, RepositoryCall};
use super::name::RepositoryName;
pub(crate) use text::with_client_names;

/// One rule: names that begin with `prefix` begin with `to` at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Empty, or whole components with a slash at the end.
    prefix: Box<str>,
    to: Box<str>,
    /// What joins the components after `to`, for registries with a fixed number of levels.
    separator: Option<Box<str>>,
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRuleError {
    #[error("`prefix` must end with a slash, so that it names whole components")]
    PrefixWithinComponent,
    #[error("`prefix` is not the beginning of a repository name")]
    InvalidPrefix,
    #[error("`to` is not the beginning of a repository name")]
    InvalidTarget,
    #[error("`flatten` must be `.`, `_`, `__`, or one or more `-`")]
    InvalidSeparator,
    /// Two names of clients could lead to one at the registry.
    #[error(
        "names of this rule and of the rule with the prefix `{0}` could meet at the registry: one `to` is the beginning of the other"
    )]
    Overlap(String),
    /// No name could reach it.
    #[error("no name reaches this rule: the prefix `{0}` comes before it")]
    Unreachable(String),
}

/// Why a repository cannot exist at the registry. The messages are for the client; they say nothing
/// of the names there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmappedName {
    #[error("this registry has no repository of this name: no rule for names covers it")]
    NoRule,
    /// It would be the name of another repository as well.
    #[error(
        "this registry cannot have a repository of this name: a component of it contains `{0}`, \
         which joins components there"
    )]
    Separator(Box<str>),
    #[error(
        "this registry cannot have a repository of this name: it is longer there than the {} \
         characters of a repository name",
        RepositoryName::MAX_BYTES
    )]
    TooLong,
}

impl NameRule {
    /// Errors: what is not a part of repository names.
    pub fn new(prefix: &str, to: &str, separator: Option<&str>) -> Result<Self, NameRuleError> {
        if !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(NameRuleError::PrefixWithinComponent);
        }
        if !is_beginning(prefix) {
            return Err(NameRuleError::InvalidPrefix);
        }
        if !is_beginning(to) {
            return Err(NameRuleError::InvalidTarget);
        }
        let is_separator = |text: &str| {
            matches!(text, "." | "_" | "__")
                || (!text.is_empty() && text.bytes().all(|b| b == b'-'))
        };
        if separator.is_some_and(|text| !is_separator(text)) {
            return Err(NameRuleError::InvalidSeparator);
        }
        Ok(Self {
            prefix: prefix.into(),
            to: to.into(),
            separator: separator.map(Into::into),
        })
    }

    /// The name at the registry of what follows the prefix.
    fn mapped(&self, rest: &str) -> Result<RepositoryName, UnmappedName> {
        let name = match &self.separator {
            None => format!("{}{rest}", self.to),
            Some(separator) if rest.contains(&**separator) => {
                return Err(UnmappedName::Separator(separator.clone()));
            }
            Some(separator) => format!("{}{}", self.to, rest.replace('/', separator)),
        };
        // Beginnings and separators are parts of names, so that only the length can be wrong.
        RepositoryName::parse(&name).map_err(|_| UnmappedName::TooLong)
    }

    /// What followed the prefix of a name at the registry.
    fn unmapped(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(&*self.to)?;
        let rest = match &self.separator {
            None => rest.to_owned(),
            Some(separator) => rest.split(&**separator).collect::<Vec<_>>().join("/"),
        };
        (!rest.is_empty()).then(|| format!("{}{rest}", self.prefix))
    }
}

/// Whether a name can begin so: with it and one more letter there is a whole name.
fn is_beginning(text: &str) -> bool {
    RepositoryName::parse(&format!("{text}a")).is_ok()
}

/// The rules of one registry. Without any, names are the same on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    rules: Vec<NameRule>,
}

impl NameMap {
    /// The first rule whose prefix matches decides.
    ///
    /// Errors: the index of a rule, and what is wrong with it beside those before it.
    pub fn new(rules: Vec<NameRule>) -> Result<Self, (usize, NameRuleError)> {
        for (index, rule) in rules.iter().enumerate() {
            for before in &rules[..index] {
                if rule.prefix.starts_with(&*before.prefix) {
                    let error = NameRuleError::Unreachable(before.prefix.to_string());
                    return Err((index, error));
                }
                if rule.to.starts_with(&*before.to) || before.to.starts_with(&*rule.to) {
                    let error = NameRuleError::Overlap(before.prefix.to_string());
                    return Err((index, error));
                }
            }
        }
        Ok(Self { rules })
    }

    /// Whether names are the same on both sides.
    pub fn is_identity(&self) -> bool {
        self.rules.is_empty()
    }

    /// The name at the registry.
    pub fn to_registry(&self, name: &RepositoryName) -> Result<RepositoryName, UnmappedName> {
        if self.is_identity() {
            return Ok(name.clone());
        }
        let rule = self.rule_of(name.as_str()).ok_or(UnmappedName::NoRule)?;
        rule.mapped(&name.as_str()[rule.prefix.len()..])
    }

    /// A call with the names at the registry. A mount whose source cannot exist there is an ordinary
    /// upload, and so is one without a source: the registry would look for the blob in repositories
    /// that clients cannot name.
    pub fn to_registry_call(&self, call: &Call) -> Result<Call, UnmappedName> {
        let Call::Repository { name, operation } = call else {
            return Ok(call.clone());
        };
        let operation = match operation {
            RepositoryCall::Mount { digest, from } => {
                let from = from.as_ref().and_then(|from| self.to_registry(from).ok());
                match from {
                    Some(from) => RepositoryCall::Mount {
                        digest: digest.clone(),
                        from: Some(from),
                    },
                    None => RepositoryCall::UploadStart { digest: None },
                }
            }
            other => other.clone(),
        };
        let name = self.to_registry(name)?;
        Ok(Call::Repository { name, operation })
    }

    /// The name that clients know; `None` for a repository that they cannot name.
    pub fn to_client(&self, name: &str) -> Option<RepositoryName> {
        if self.is_identity() {
            return RepositoryName::parse(name).ok();
        }
        let candidates = self.rules.iter().filter_map(|rule| rule.unmapped(name));
        candidates
            .filter_map(|candidate| RepositoryName::parse(&candidate).ok())
            .find(|candidate| {
                self.to_registry(candidate)
                    .is_ok_and(|mapped| mapped.as_str() == name)
            })
    }

    /// The beginning of a name by which its rule is chosen; empty where there is none.
    pub fn prefix_of<'n>(&self, name: &'n RepositoryName) -> &'n str {
        let rule = self.rule_of(name.as_str());
        rule.map_or("", |rule| &name.as_str()[..rule.prefix.len()])
    }

    /// The first component of the names of each rule at the registry; `None` where it may be any.
    pub fn namespaces(&self) -> impl Iterator<Item = Option<&str>> {
        self.rules.iter().map(|rule| {
            let (namespace, _) = rule.to.split_once('/')?;
            Some(namespace)
        })
    }

    fn rule_of(&self, name: &str) -> Option<&NameRule> {
        self.rules
            .iter()
            .find(|rule| name.starts_with(&*rule.prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).expect(text)
    }

    fn rule(prefix: &str, to: &str, separator: Option<&str>) -> NameRule {
        NameRule::new(prefix, to, separator).expect("a rule")
    }

    fn map(rules: &[(&str, &str, Option<&str>)]) -> NameMap {
        let rules = rules
            .iter()
            .map(|(prefix, to, separator)| rule(prefix, to, *separator));
        NameMap::new(rules.collect()).expect("a map")
    }

    #[test]
    fn names_lead_there_and_back() {
        let map = map(&[
            ("ci/", "acme/ci-", Some("--")),
            ("library/", "mirror/", None),
        ]);
        for (outside, inside) in [
            ("ci/app", Ok("acme/ci-app")),
            ("ci/a/b/c", Ok("acme/ci-a--b--c")),
            ("ci/a-b/c", Ok("acme/ci-a-b--c")),
            // It could also be a/b.
            ("ci/a--b", Err(UnmappedName::Separator("--".into()))),
            ("ci/a---b", Err(UnmappedName::Separator("--".into()))),
            ("library/alpine", Ok("mirror/alpine")),
            ("library/a/b", Ok("mirror/a/b")),
            ("library", Err(UnmappedName::NoRule)),
            (
                &format!("ci/{}", "a".repeat(248)),
                Err(UnmappedName::TooLong),
            ),
        ] {
            let mapped = map.to_registry(&name(outside));
            assert_eq!(mapped, inside.map(name), "{outside}");
            if let Ok(inside) = mapped {
                let back = map.to_client(inside.as_str());
                assert_eq!(back, Some(name(outside)), "{inside}");
            }
        }
        assert_eq!(map.to_client("elsewhere/app"), None);
        assert_eq!(map.to_client("mirror"), None);
        assert_eq!(
            NameMap::default().to_registry(&name("a/b")),
            Ok(name("a/b"))
        );
    }

    #[test]
    fn a_rule_says_in_which_namespace_its_names_are() {
        let map = map(&[
            ("ci/", "acme/ci-", Some("--")),
            ("base/", "mirror/a/", None),
            ("x/", "open", None),
        ]);
        let namespaces: Vec<_> = map.namespaces().collect();
        assert_eq!(namespaces, [Some("acme"), Some("mirror"), None]);
    }

    #[test]
    fn rules_whose_names_could_meet_are_refused() {
        let overlap = |rules: [NameRule; 2]| NameMap::new(rules.to_vec()).expect_err("refused");
        assert_eq!(
            overlap([rule("ci/", "acme/ci-", None), rule("", "acme/", None)]),
            (1, NameRuleError::Overlap("ci/".to_owned()))
        );
        assert_eq!(
            overlap([rule("", "acme/", None), rule("ci/", "other/", None)]),
            (1, NameRuleError::Unreachable(String::new()))
        );
    }

    #[test]
    fn what_is_no_beginning_of_a_name_is_refused() {
        for (prefix, to, separator, error) in [
            ("ci", "acme/", None, NameRuleError::PrefixWithinComponent),
            ("/", "acme/", None, NameRuleError::InvalidPrefix),
            ("Ci/", "acme/", None, NameRuleError::InvalidPrefix),
            ("ci/", "/acme/", None, NameRuleError::InvalidTarget),
            ("ci/", "Acme/", None, NameRuleError::InvalidTarget),
            ("ci/", "acme/", Some(""), NameRuleError::InvalidSeparator),
            ("ci/", "acme/", Some("/"), NameRuleError::InvalidSeparator),
            ("ci/", "acme/", Some("..."), NameRuleError::InvalidSeparator),
        ] {
            assert_eq!(
                NameRule::new(prefix, to, separator),
                Err(error),
                "{prefix} {to}"
            );
        }
    }

    #[test]
    fn calls_have_the_names_of_the_registry() {
        let map = map(&[("ci/", "acme/ci-", Some("--"))]);
        let uploads = |query: &str| {
            let path = "/v2/ci/a/b/blobs/uploads/";
            let call = Call::parse(&http::Method::POST, path, Some(query)).expect("a call");
            map.to_registry_call(&call).map(|call| call.print().1)
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        let at = "/v2/acme/ci-a--b/blobs/uploads/";
        for (query, target) in [
            (String::new(), at.to_owned()),
            (
                format!("mount={digest}&from=ci/c/d"),
                format!("{at}?mount={digest}&from=acme/ci-c--d"),
            ),
            (format!("mount={digest}&from=ci/c--d"), at.to_owned()),
            (format!("mount={digest}&from=acme/ci-c"), at.to_owned()),
            (format!("mount={digest}"), at.to_owned()),
        ] {
            assert_eq!(uploads(&query), Ok(target), "{query}");
        }
    }

    proptest! {
        #[test]
        fn two_names_never_become_one(
            a in "[ab](/?[-_.]{0,2}[ab]){0,5}",
            b in "[ab](/?[-_.]{0,2}[ab]){0,5}",
            separator in prop::option::of(prop::sample::select(vec![".", "_", "__", "-", "--", "---"])),
        ) {
            let map = map(&[("a/", "x/a-", separator), ("b/", "y/", separator), ("", "z", separator)]);
            let names = [a, b].map(|text| RepositoryName::parse(&text).ok());
            if let [Some(a), Some(b)] = names
                && let Ok(inside) = map.to_registry(&a)
            {
                prop_assert_eq!(map.to_client(inside.as_str()), Some(a.clone()));
                if a != b {
                    prop_assert_ne!(Ok(inside), map.to_registry(&b));
                }
            }
        }
    }
}
