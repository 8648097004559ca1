//! Which part of a registry's requests the path of a directive is about.

use crate::registry::pattern::RepositoryPattern;

/// The part of `/v2/` that a path covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegistryScope {
    /// Everything.
    Whole,
    /// Repositories, by patterns.
    Repositories(Vec<String>),
    /// The list of repositories.
    Catalog,
    /// Nothing below `/v2/`.
    Outside,
    /// Some requests that no access rule can name.
    Unknown,
}

/// A path of version 1: any path that begins with it, in any case.
pub(super) fn of_prefix(path: &str) -> RegistryScope {
    let path = path.to_lowercase();
    if "/v2/".starts_with(&path) {
        return RegistryScope::Whole;
    }
    match path.strip_prefix("/v2/") {
        Some(rest) => repositories(rest),
        None => RegistryScope::Outside,
    }
}

/// A pattern of version 2: the path itself, or one with `*` at its end or beginning.
pub(super) fn of_pattern(pattern: &str) -> RegistryScope {
    let pattern = pattern.to_lowercase();
    let Some(prefix) = pattern.strip_suffix('*') else {
        return match pattern.strip_prefix("/v2/") {
            Some("_catalog") => RegistryScope::Catalog,
            Some(_) => RegistryScope::Unknown,
            None if pattern.contains('*') => RegistryScope::Unknown,
            None => RegistryScope::Outside,
        };
    };
    if prefix.contains('*') {
        return RegistryScope::Unknown;
    }
    if "/v2/".starts_with(prefix) {
        return RegistryScope::Whole;
    }
    match prefix.strip_prefix("/v2/") {
        Some(rest) => repositories(rest),
        None => RegistryScope::Outside,
    }
}

/// The repositories whose paths begin so: `a/` is `a` and all below it, `a` also `ab`.
fn repositories(prefix: &str) -> RegistryScope {
    if prefix.starts_with("_catalog") {
        return RegistryScope::Catalog;
    }
    let patterns = match prefix.strip_suffix('/') {
        Some(name) => vec![name.to_owned(), format!("{name}/**")],
        None => vec![format!("{prefix}*"), format!("{prefix}*/**")],
    };
    // A path may go on after the name: `a/manifests/` is no repository.
    let words = ["manifests", "blobs", "tags", "referrers"];
    let is_name = !prefix
        .split('/')
        .any(|component| words.contains(&component));
    let last = prefix.rsplit_once('/').map(|(_, last)| last);
    let may_be_name =
        last.is_none_or(|last| last.is_empty() || !words.iter().any(|word| word.starts_with(last)));
    let may_be_catalog = "_catalog".starts_with(prefix);
    let are_valid = patterns
        .iter()
        .all(|pattern| RepositoryPattern::parse(pattern).is_ok());
    if is_name && may_be_name && !may_be_catalog && are_valid && !prefix.contains(['*', '$']) {
        RegistryScope::Repositories(patterns)
    } else {
        RegistryScope::Unknown
    }
}
