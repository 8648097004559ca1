//! The groups of tags among which the newest are counted.

use crate::config::retention::Grouping;

/// Tags with equal keys are a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey<'t> {
    /// The tags that have the text by which the rule groups.
    Text(&'t str),
    /// All others together.
    Rest,
    /// Tags of referrers whose subject has gone: they are never counted with images.
    Orphans,
}

impl<'t> GroupKey<'t> {
    /// The group of a tag.
    pub(super) fn of(tag: &'t str, per: &Grouping) -> Self {
        let text = match per {
            Grouping::Repository => None,
            Grouping::PrefixBeforeLastDash => tag.rsplit_once('-').map(|(prefix, _)| prefix),
            Grouping::SemverLine => semver_line(tag),
            Grouping::Expression(expression) => expression
                .captures(tag)
                .and_then(|captures| captures.get(1))
                .map(|group| group.as_str()),
        };
        text.map_or(Self::Rest, Self::Text)
    }
}

/// `1.4` of `1.4.0`, `v1.4.1` and `1.4.2-rc.1`, if the tag is a version of Semantic Versioning 2.0.0.
/// Tags cannot have the `+` before build metadata: Helm and others write `_`.
fn semver_line(tag: &str) -> Option<&str> {
    let version = tag.strip_prefix('v').unwrap_or(tag);
    let (numbers, build) = match version.split_once(['_', '+']) {
        Some((version, build)) => (version, Some(build)),
        None => (version, None),
    };
    let (numbers, pre_release) = match numbers.split_once('-') {
        Some((numbers, pre_release)) => (numbers, Some(pre_release)),
        None => (numbers, None),
    };
    let is_identifier = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !text.is_empty() && text.bytes().all(is_part)
    };
    let are_identifiers =
        |part: Option<&str>| part.is_none_or(|part| part.split('.').all(is_identifier));
    let is_number = |text: &str| {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits && (text == "0" || !text.starts_with('0'))
    };
    let is_version = numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && are_identifiers(pre_release)
        && are_identifiers(build);
    let (line, _patch) = numbers.rsplit_once('.').filter(|_| is_version)?;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expression(text: &str) -> Grouping {
        Grouping::Expression(regex_lite::Regex::new(text).unwrap())
    }

    #[test]
    fn prefixes_end_at_the_last_dash() {
        for (tag, expected) in [
            ("main-123", GroupKey::Text("main")),
            ("feature-x-7", GroupKey::Text("feature-x")),
            ("main-", GroupKey::Text("main")),
            ("latest", GroupKey::Rest),
            ("1.0", GroupKey::Rest),
        ] {
            let group = GroupKey::of(tag, &Grouping::PrefixBeforeLastDash);
            assert_eq!(group, expected, "{tag}");
            assert_eq!(GroupKey::of(tag, &Grouping::Repository), GroupKey::Rest);
        }
    }

    #[test]
    fn lines_of_versions_are_major_and_minor() {
        for (tag, expected) in [
            ("1.4.0", Some("1.4")),
            ("v1.4.1", Some("1.4")),
            ("1.4.2-rc.1", Some("1.4")),
            ("1.4.2-alpine", Some("1.4")),
            ("1.4.2-rc.1_build.5", Some("1.4")),
            ("1.4.2_5", Some("1.4")),
            ("1.4.2-a-b", Some("1.4")),
            ("10.20.30", Some("10.20")),
            ("0.0.0", Some("0.0")),
            ("99999999999999999999.1.0", Some("99999999999999999999.1")),
            ("1.4", None),
            ("1", None),
            ("v1", None),
            ("1.4.0.1", None),
            ("01.4.0", None),
            ("1.04.0", None),
            ("1.4.x", None),
            ("1.4.0-", None),
            ("1.4.0-rc..1", None),
            ("1.4.0_", None),
            ("vv1.4.0", None),
            ("release-1.4.0", None),
            ("latest", None),
        ] {
            let expected = expected.map_or(GroupKey::Rest, GroupKey::Text);
            assert_eq!(GroupKey::of(tag, &Grouping::SemverLine), expected, "{tag}");
        }
    }

    #[test]
    fn expressions_group_by_their_first_group() {
        let numbered = expression("^(.*)-[0-9]+$");
        for (tag, expected) in [
            ("main-1", GroupKey::Text("main")),
            ("a-b-22", GroupKey::Text("a-b")),
            ("main-x", GroupKey::Rest),
            ("latest", GroupKey::Rest),
        ] {
            assert_eq!(GroupKey::of(tag, &numbered), expected, "{tag}");
        }
        // The group may be in a part that did not match, or match nothing.
        assert_eq!(GroupKey::of("b", &expression("(a)|b")), GroupKey::Rest);
        assert_eq!(GroupKey::of("b", &expression("(a*)b")), GroupKey::Text(""));
    }

    proptest! {
        #[test]
        fn versions_of_a_line_are_a_group(
            line in "(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})",
            patch in 0u32..99,
            end in "(-[a-z][0-9a-z]{0,2}(\\.[a-z][0-9a-z]{0,2}){0,2})?(_[0-9a-z]{1,3})?",
        ) {
            for v in ["", "v"] {
                let tag = format!("{v}{line}.{patch}{end}");
                prop_assert_eq!(GroupKey::of(&tag, &Grouping::SemverLine), GroupKey::Text(&line));
            }
        }
    }
}
