use proptest::prelude::*;

use super::*;

fn matches(pattern: &str, repository: &str) -> bool {
    RepositoryPattern::parse(pattern).unwrap().matches(repository, Some("alice"))
}

#[test]
fn one_star_is_one_level_and_two_are_any() {
    for (pattern, yes, no) in [
        ("base/app", vec!["base/app"], vec!["base", "base/app/x", "base/ap", "base/apps"]),
        ("tools/*", vec!["tools/a"], vec!["tools", "tools/a/b", "other/a"]),
        ("base/**", vec!["base/a", "base/a/b/c"], vec!["base", "based/a", "x/base/a"]),
        ("**", vec!["a", "a/b", "a/b/c/d/e/f/g/h/i/j"], vec![]),
        ("**/app", vec!["app", "a/app", "a/b/app"], vec!["app/a", "apps"]),
        ("a/**/z", vec!["a/z", "a/b/z", "a/z/z"], vec!["a", "a/b", "z"]),
        ("*", vec!["a"], vec!["a/b"]),
        ("app-*", vec!["app-", "app-1"], vec!["app", "app-1/x"]),
        ("*-x-*", vec!["a-x-b", "-x-", "a-x-x-b"], vec!["a-b"]),
        ("${user}/**", vec!["alice/a", "alice/a/b"], vec!["alice", "bob/a", "alicex/a"]),
        ("team-${user}-*/x", vec!["team-alice-1/x"], vec!["team-alice/x", "team-bob-1/x"]),
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

#[test]
fn the_prefix_is_of_whole_levels() {
    for (pattern, prefix) in
        [("base/app", "base/app"), ("base/app-*", "base"), ("base/**", "base"), ("**", ""), ("${user}/a", "")]
    {
        assert_eq!(RepositoryPattern::parse(pattern).unwrap().prefix(), prefix);
    }
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
    assert!(Pattern::new("*").is_any() && !Pattern::new("a*").is_any() && !Pattern::new("").is_any());
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
            let prefix = parsed.prefix();
            let below = name.strip_prefix(prefix);
            prop_assert!(below.is_some_and(|b| prefix.is_empty() || b.is_empty() || b.starts_with('/')));
        }
    }

    #[test]
    fn texts_match_as_levels_do(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        let expected = naive_level(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), expected);
    }

    #[test]
    fn nothing_panics(pattern in ".{0,20}", name in ".{0,20}", user in ".{0,5}") {
        if let Ok(pattern) = RepositoryPattern::parse(&pattern) {
            pattern.matches(&name, Some(&user));
            pattern.prefix();
        }
        Pattern::new(&pattern).matches(&name);
    }
}
