//! Names of the registry in its messages.

use std::borrow::Cow;

use crate::registry::name::RepositoryName;

/// A text of the registry with the names that clients know; `None` if it has none of these names.
/// Each pair is a name of the registry and the one that clients know. A name counts where it is not
/// a part of a longer word, also in a path.
pub(crate) fn with_client_names(
    text: &str,
    names: &[(RepositoryName, RepositoryName)],
) -> Option<String> {
    // The longer name first: the other may be its beginning.
    let mut names: Vec<_> = names
        .iter()
        .filter(|(inside, client)| inside != client)
        .collect();
    names.sort_by_key(|(inside, _)| std::cmp::Reverse(inside.as_str().len()));
    let mut replaced = String::new();
    let mut rest = text;
    let mut before = None;
    while !rest.is_empty() {
        let found = names
            .iter()
            .find(|(inside, _)| is_name_at(before, rest, inside.as_str()));
        let (from, to) = match found {
            Some((inside, client)) => (inside.as_str().len(), Cow::from(client.as_str())),
            None => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                (length, Cow::from(rest.get(..length)?))
            }
        };
        replaced.push_str(&to);
        before = rest.get(..from)?.chars().next_back();
        rest = rest.get(from..)?;
    }
    (replaced != text).then_some(replaced)
}

fn is_name_at(before: Option<char>, rest: &str, name: &str) -> bool {
    let Some(after) = rest.strip_prefix(name) else {
        return false;
    };
    let is_inner = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let mut after = after.chars();
    let is_end = match after.next() {
        // The end of a sentence.
        Some('.') => !after.next().is_some_and(is_inner),
        next => !next.is_some_and(is_inner),
    };
    is_end && !before.is_some_and(|c| is_inner(c) || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_where_they_stand_alone() {
        let name = |text: &str| RepositoryName::parse(text).expect(text);
        let names = [
            (name("acme/ci-a"), name("ci/a")),
            (name("acme/ci-a/b"), name("ci/a--b")),
            (name("same"), name("same")),
        ];
        for (text, replaced) in [
            ("acme/ci-a", Some("ci/a")),
            ("unknown: acme/ci-a.", Some("unknown: ci/a.")),
            (
                "'acme/ci-a:v1@x' and /v2/acme/ci-a/b/tags",
                Some("'ci/a:v1@x' and /v2/ci/a--b/tags"),
            ),
            ("host.test/acme/ci-a/blobs", Some("host.test/ci/a/blobs")),
            ("\u{e9} acme/ci-a\u{2019}s", Some("\u{e9} ci/a\u{2019}s")),
            ("acme/ci-a-b acme/ci-a.b acme/ci-ab", None),
            ("xacme/ci-a -acme/ci-a .acme/ci-a", None),
            ("same", None),
            ("", None),
        ] {
            assert_eq!(
                with_client_names(text, &names).as_deref(),
                replaced,
                "{text}"
            );
        }
    }
}
