use proptest::prelude::*;

use super::literals::{Literal, LiteralPosition};
use super::*;

fn matches(pattern: &str, repository: &str) -> bool {
    RepositoryPattern::parse(pattern)
        .unwrap()
        .matches(repository, Some("alice"))
}

#[test]
fn one_star_is_one_level_and_two_are_any() {
    for (pattern, yes, no) in [
        (
            "base/app",
            vec!["base/app"],
            vec!["base", "base/app/x", "base/ap", "base/apps"],
        ),
        (
            "tools/*",
            vec!["tools/a"],
            vec!["tools", "tools/a/b", "other/a"],
        ),
        (
            "base/**",
            vec!["base/a", "base/a/b/c"],
            vec!["base", "based/a", "x/base/a"],
        ),
        ("**", vec!["a", "a/b", "a/b/c/d/e/f/g/h/i/j"], vec![]),
        (
            "**/app",
            vec!["app", "a/app", "a/b/app"],
            vec!["app/a", "apps"],
        ),
        (
            "a/**/z",
            vec!["a/z", "a/b/z", "a/z/z"],
            vec!["a", "a/b", "z"],
        ),
        ("*", vec!["a"], vec!["a/b"]),
        ("app-*", vec!["app-", "app-1"], vec!["app", "app-1/x"]),
        ("*-x-*", vec!["a-x-b", "-x-", "a-x-x-b"], vec!["a-b"]),
        (
            "${user}/**",
            vec!["alice/a", "alice/a/b"],
            vec!["alice", "bob/a", "alicex/a"],
        ),
        (
            "team-${user}-*/x",
            vec!["team-alice-1/x"],
            vec!["team-alice/x", "team-bob-1/x"],
        ),
    ] {
        for name in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for name in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}

#[test]
fn a_user_is_one_level_and_never_a_pattern() {
    let own = RepositoryPattern::parse("${user}/**").unwrap();
    assert!(own.matches("alice/a", Some("alice")));
    for user in [None, Some("*"), Some("**"), Some("base/app"), Some("")] {
        assert!(!own.matches("base/app/x", user), "{user:?}");
    }
}

#[test]
fn what_is_no_pattern_says_why() {
    for (text, why) in [
        ("", InvalidPattern::EmptyLevel),
        ("a//b", InvalidPattern::EmptyLevel),
        ("/a", InvalidPattern::EmptyLevel),
        ("a/b**", InvalidPattern::StarsInLevel),
        ("${group}/a", InvalidPattern::Variable),
        ("a$", InvalidPattern::Variable),
        ("Base/**", InvalidPattern::Character),
        ("a:b", InvalidPattern::Character),
    ] {
        assert_eq!(RepositoryPattern::parse(text), Err(why), "{text}");
    }
}

/// The parts as `^a` at the start, `a$` at the end, `^a$` for all of it.
fn parts(literals: Vec<Literal>) -> String {
    let shown = literals.into_iter().map(|Literal { text, at }| match at {
        LiteralPosition::Whole => format!("^{text}$"),
        LiteralPosition::Start => format!("^{text}"),
        LiteralPosition::End => format!("{text}$"),
        LiteralPosition::Inside => text.into(),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn literals_are_what_stands_between_stars() {
    for (pattern, expected) in [
        ("base/app", "^base/app$"),
        ("base/app-*", "^base/app-"),
        ("base/**", "^base/"),
        ("**", ""),
        ("**/**", ""),
        ("**/app", "app$"),
        ("*-x/**", "-x/"),
        ("a/**/z", "^a/ /z$"),
        ("a/**/b-*/**", "^a/ /b- /"),
        ("*/b", "/b$"),
        ("${user}/x-${user}", "/x-"),
    ] {
        assert_eq!(
            parts(RepositoryPattern::parse(pattern).unwrap().literals()),
            expected,
            "{pattern}"
        );
    }
    for (pattern, expected) in [
        ("v1", "^v1$"),
        ("v*-rc*", "^v -rc"),
        ("*a*b", "a b$"),
        ("*", ""),
        ("", ""),
    ] {
        assert_eq!(
            parts(Pattern::new(pattern).literals()),
            expected,
            "{pattern}"
        );
    }
}

#[test]
fn what_every_repository_is_like() {
    assert!(RepositoryPattern::parse("**").unwrap().is_any());
    assert!(RepositoryPattern::parse("**/**").unwrap().is_any());
    for some in ["*", "*/**", "a/**", "**/a"] {
        assert!(!RepositoryPattern::parse(some).unwrap().is_any(), "{some}");
    }
}

#[test]
fn stars_in_a_text_are_any_characters() {
    for (pattern, yes, no) in [
        ("v*", vec!["v", "v1.2"], vec!["av", ""]),
        ("*", vec!["", "a"], vec![]),
        ("release", vec!["release"], vec!["release1", "Release"]),
        ("*-*-rc", vec!["a-b-rc", "--rc"], vec!["a-rc"]),
    ] {
        let pattern = Pattern::new(pattern);
        assert!(yes.iter().all(|text| pattern.matches(text)), "{pattern:?}");
        assert!(!no.iter().any(|text| pattern.matches(text)), "{pattern:?}");
    }
    assert!(
        Pattern::new("*").is_any() && !Pattern::new("a*").is_any() && !Pattern::new("").is_any()
    );
}

/// What the patterns mean, said in the most naive way.
fn naive(pattern: &[&str], levels: &[&str]) -> bool {
    match pattern.split_first() {
        None => levels.is_empty(),
        Some((&"**", [])) => !levels.is_empty(),
        Some((&"**", rest)) => (0..=levels.len()).any(|n| naive(rest, &levels[n..])),
        Some((first, rest)) => levels.split_first().is_some_and(|(level, others)| {
            naive_level(first.as_bytes(), level.as_bytes()) && naive(rest, others)
        }),
    }
}

fn naive_level(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|n| naive_level(rest, &text[n..])),
        Some((byte, rest)) => text.first() == Some(byte) && naive_level(rest, &text[1..]),
    }
}

fn is_in(Literal { text, at }: &Literal, whole: &str) -> bool {
    match at {
        LiteralPosition::Whole => **text == *whole,
        LiteralPosition::Start => whole.starts_with(&**text),
        LiteralPosition::End => whole.ends_with(&**text),
        LiteralPosition::Inside => whole.contains(&**text),
    }
}

#[test]
fn wider_patterns_cover_narrower_ones() {
    for (wide, narrow, expected) in [
        ("**", "base/app", true),
        ("base/**", "base/app", true),
        ("base/**", "base/*/x-*", true),
        ("base/**", "base/**/x", true),
        ("base/**", "base/x/**", true),
        ("base/**", "base", false),
        ("base/app", "base/**", false),
        ("*/app-*", "base/app-1*", true),
        ("*/app-*", "base/app*", false),
        ("**/app", "app", true),
        ("*", "**", false),
        ("*/**", "**", false),
        ("${user}/**", "${user}/a", true),
        ("${user}/**", "*/a", false),
        ("*/a", "${user}/a", true),
        ("a*", "${user}", false),
    ] {
        let [wide, narrow] = [wide, narrow].map(|text| RepositoryPattern::parse(text).unwrap());
        assert_eq!(wide.covers(&narrow), expected, "{wide:?} {narrow:?}");
    }
}

#[test]
fn some_patterns_are_of_no_name() {
    let possible = |text: &str, user| RepositoryPattern::parse(text).unwrap().is_possible(user);
    for text in [
        "base/.app",
        "-x",
        "a..b",
        "a.-b/**",
        "*/_*",
        "*-",
        "-${user}/a",
    ] {
        assert!(!possible(text, None), "{text}");
    }
    for text in ["a__b", "a--*", "*.x", "**", "${user}-*/**"] {
        assert!(possible(text, None), "{text}");
    }
    for user in ["Alice", "ci@example.com", "a/b", "a..b", "-a", "a*", ""] {
        assert!(!possible("${user}/**", Some(user)), "{user}");
    }
    assert!(
        possible("${user}/**", Some("ci-bot"))
            && possible("a${user}", Some("-x"))
            && possible("a", Some("A"))
    );
}

proptest! {
    #[test]
    fn patterns_mean_what_they_say(
        pattern in r"(\*\*|[ab*]{1,4})(/(\*\*|[ab*]{1,4})){0,3}",
        name in "[ab]{1,4}(/[ab]{1,3}){0,4}",
    ) {
        let Ok(parsed) = RepositoryPattern::parse(&pattern) else { return Ok(()) };
        let levels: Vec<_> = name.split('/').collect();
        prop_assert_eq!(parsed.matches(&name, None), naive(&pattern.split('/').collect::<Vec<_>>(), &levels));
        if parsed.matches(&name, None) {
            prop_assert!(parsed.literals().iter().all(|literal| is_in(literal, &name)), "{:?}", parsed.literals());
        }
    }

    #[test]
    fn a_pattern_that_covers_another_matches_all_that_it_matches(
        wide in r"(\*\*|\$\{user\}|[ab*]{1,3})(/(\*\*|\$\{user\}|[ab*]{1,3})){0,3}",
        narrow in r"(\*\*|\$\{user\}|[ab*]{1,3})(/(\*\*|\$\{user\}|[ab*]{1,3})){0,3}",
        names in prop::collection::vec("[ab]{1,3}(/[ab]{1,2}){0,4}", 20),
        user in "[ab]{1,2}",
    ) {
        let (Ok(wide), Ok(narrow)) = (RepositoryPattern::parse(&wide), RepositoryPattern::parse(&narrow)) else {
            return Ok(());
        };
        prop_assert!(narrow.covers(&narrow));
        for user in [Some(&*user), None] {
            let mut narrow_ones = names.iter().filter(|name| narrow.matches(name, user));
            prop_assert!(!wide.covers(&narrow) || narrow_ones.all(|name| wide.matches(name, user)));
        }
    }

    #[test]
    fn a_text_that_covers_another_matches_all_that_it_matches(
        wide in "[ab*]{0,4}", narrow in "[ab*]{0,4}", text in "[ab]{0,6}"
    ) {
        let (wide, narrow) = (Pattern::new(&wide), Pattern::new(&narrow));
        prop_assert!(!wide.covers(&narrow) || !narrow.matches(&text) || wide.matches(&text));
    }

    #[test]
    fn what_matches_a_name_is_possible(
        pattern in r"(\*\*|\$\{user\}|[ab*._-]{1,4})(/(\*\*|\$\{user\}|[ab*._-]{1,4})){0,2}",
        name in "[ab]{1,2}([._-][ab]{1,2}){0,2}(/[ab]{1,2}([._-][ab]{1,2}){0,1}){0,2}",
        user in "[ab._-]{1,3}",
    ) {
        let Ok(pattern) = RepositoryPattern::parse(&pattern) else { return Ok(()) };
        if pattern.matches(&name, Some(&user)) {
            prop_assert!(pattern.is_possible(Some(&user)) && pattern.is_possible(None), "{:?} {:?}", pattern, name);
        }
    }

    #[test]
    fn texts_match_as_levels_do(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        let expected = naive_level(pattern.as_bytes(), text.as_bytes());
        let pattern = Pattern::new(&pattern);
        prop_assert_eq!(pattern.matches(&text), expected);
        prop_assert!(!expected || pattern.literals().iter().all(|literal| is_in(literal, &text)));
    }

    #[test]
    fn nothing_panics(pattern in ".{0,20}", name in ".{0,20}", user in ".{0,5}") {
        if let Ok(pattern) = RepositoryPattern::parse(&pattern) {
            prop_assert_eq!(&RepositoryPattern::parse(pattern.as_str()), &Ok(pattern.clone()));
            pattern.matches(&name, Some(&user));
            pattern.is_possible(Some(&user));
            pattern.literals();
        }
        Pattern::new(&pattern).matches(&name);
        Pattern::new(&pattern).literals();
    }
}

proptest! {
    #[test]
    fn a_name_tells_the_user_that_it_matches(
        before in "[a-z]{0,3}",
        after in "(-[a-z]{1,2})?",
        user in "[a-z0-9]{1,4}",
        parents in prop::collection::vec("[a-z]{1,3}", 0..3),
        rest in "[a-z]{1,3}(/[a-z]{1,3}){0,2}",
        other in "[a-z/]{1,8}",
    ) {
        let parents: String = parents.iter().map(|level| format!("{level}/")).collect();
        let pattern = RepositoryPattern::parse(&format!("{parents}{before}${{user}}{after}/**")).unwrap();
        let name = format!("{parents}{before}{user}{after}/{rest}");
        prop_assert_eq!(pattern.user_in(&name), Some(&*user));
        if let Some(found) = pattern.user_in(&other) {
            prop_assert!(pattern.matches(&other, Some(found)));
        }
    }
}

#[test]
fn a_pattern_with_a_star_beside_the_user_tells_none() {
    let user_in = |pattern: &str, name| {
        let pattern = RepositoryPattern::parse(pattern).unwrap();
        pattern.user_in(name).map(str::to_owned)
    };
    assert_eq!(user_in("*-${user}/**", "a-b-c/app"), None);
    assert_eq!(user_in("**", "alice/app"), None);
    assert_eq!(
        user_in("${user}/${user}-*", "alice/alice-app"),
        Some("alice".to_owned())
    );
    assert_eq!(user_in("${user}/${user}-*", "alice/bob-app"), None);
}
