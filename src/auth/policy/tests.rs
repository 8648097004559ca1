use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn rule(
    line: usize,
    allow: &str,
    users: &[&str],
    repositories: &[&str],
    actions: &[Action],
) -> AccessRule {
    let selector = |text: &&str| match *text {
        "@authenticated" => Selector::Authenticated,
        "@anonymous" => Selector::Anonymous,
        text => match text.strip_prefix('@') {
            Some(name) => Selector::Group {
                name: name.into(),
                members: group(name),
            },
            None => Selector::Name(Pattern::new(text)),
        },
    };
    AccessRule {
        deny: allow == "deny",
        users: users.iter().map(selector).collect(),
        repositories: repositories
            .iter()
            .map(|text| RepositoryPattern::parse(text).unwrap())
            .collect(),
        tags: None,
        actions: actions.iter().copied().collect(),
        networks: None,
        conditions: TagConditions::default(),
        location: RuleLocation {
            file: "ci.toml".into(),
            line,
        },
    }
}

fn group(name: &str) -> Arc<[Box<str>]> {
    match name {
        "devs" => ["alice", "bob"].map(Into::into).into(),
        _ => [].into(),
    }
}

fn tags(mut rule: AccessRule, tags: &[&str]) -> AccessRule {
    rule.tags = Some(tags.iter().map(|tag| Pattern::new(tag)).collect());
    rule
}

fn policy(rules: Vec<AccessRule>) -> Policy {
    let settings = AccessSettings {
        rules,
        ..AccessSettings::default()
    };
    Policy::new(
        &settings,
        [Action::Pull, Action::List].into_iter().collect(),
    )
}

fn by(user: &str) -> Principal<'_> {
    Principal {
        user: (!user.is_empty()).then_some(user),
        client: "10.0.0.7".parse().unwrap(),
    }
}

/// The line that decides, negative if it says no, 0 if there is none.
fn line(policy: &Policy, user: &str, action: Action, name: &str) -> isize {
    let (name, tag) = name
        .split_once(':')
        .map_or((name, None), |(name, tag)| (name, Some(tag)));
    let decision = policy.decide(by(user), action, name, tag);
    let line = decision.rule.map_or(0, |place| place.line.cast_signed());
    if decision.allowed { line } else { -line }
}

use Action::{Catalog, DeleteManifest, DeleteTag, List, MountFrom, Overwrite, Pull, Push};

#[test]
fn without_a_rule_every_user_may_do_everything() {
    let open = policy(vec![]);
    for action in Action::ALL {
        assert_eq!(
            open.decide(by("alice"), action, "a", None),
            Decision {
                allowed: true,
                rule: None
            }
        );
        let anonymous = open.decide(by(""), action, "a", None);
        // A mount also pushes elsewhere, which is decided by another rule.
        assert_eq!(
            anonymous.allowed,
            matches!(action, Pull | List | MountFrom),
            "{action}"
        );
    }
}

#[test]
fn with_a_rule_nothing_else_is_allowed_and_the_first_rule_decides() {
    let some = policy(vec![
        rule(1, "allow", &["ci-*"], &["base/**"], &[Pull, Push]),
        rule(2, "allow", &["ci-bot"], &["base/app"], &[Pull]),
        rule(3, "allow", &["@devs"], &["**"], &[Pull]),
    ]);
    assert_eq!(line(&some, "ci-bot", Pull, "base/app"), 1);
    assert_eq!(line(&some, "ci-bot", List, "base/app"), 0);
    assert_eq!(line(&some, "alice", Pull, "x"), 3);
    assert_eq!(line(&some, "alice", Push, "x"), 0);
    assert_eq!(line(&some, "carol", Pull, "x"), 0);
    assert!(!some.decide(by("carol"), Pull, "x", None).allowed);
    assert!(some.sees(by("ci-x"), "base/a") && !some.sees(by("ci-x"), "a"));
}

#[test]
fn a_deny_beats_every_allow_in_any_order() {
    let some = policy(vec![
        rule(1, "allow", &["alice"], &["**"], &Action::ALL),
        rule(2, "deny", &["*"], &["base/**"], &[Overwrite]),
        rule(3, "allow", &["@authenticated"], &["base/**"], &[Overwrite]),
    ]);
    assert_eq!(line(&some, "alice", Overwrite, "base/app:v1"), -2);
    assert_eq!(line(&some, "alice", Overwrite, "other:v1"), 1);
    assert_eq!(line(&some, "bob", Overwrite, "base/app:v1"), -2);
}

#[test]
fn tags_restrict_writes_to_tags_alone() {
    let some = policy(vec![
        tags(
            rule(
                1,
                "allow",
                &["*"],
                &["${user}/**"],
                &[Push, Overwrite, Pull, DeleteManifest],
            ),
            &["release"],
        ),
        rule(2, "allow", &["alice"], &["base/**"], &Action::ALL),
        tags(
            rule(3, "deny", &["*"], &["base/**"], &Action::ALL),
            &["release", "v*"],
        ),
    ]);
    assert_eq!(line(&some, "bob", Push, "bob/app:release"), 1);
    assert_eq!(line(&some, "bob", Push, "bob/app:v1"), 0);
    assert_eq!(
        line(&some, "bob", Push, "bob/app"),
        1,
        "a blob, or a manifest by digest"
    );
    assert_eq!(line(&some, "bob", Push, "alice/app:release"), 0);
    assert_eq!(line(&some, "bob", Pull, "bob/app"), 1);
    assert_eq!(
        line(&some, "bob", DeleteManifest, "bob/app"),
        0,
        "it might have other tags"
    );
    for action in [Push, Overwrite, DeleteTag] {
        assert_eq!(line(&some, "alice", action, "base/app:v1"), -3);
        assert_eq!(line(&some, "alice", action, "base/app:latest"), 2);
    }
    for action in [Pull, List, Catalog, MountFrom, Push] {
        assert_eq!(line(&some, "alice", action, "base/app"), 2);
    }
    assert_eq!(
        line(&some, "alice", DeleteManifest, "base/app"),
        -3,
        "it might have one of these tags"
    );
}

#[test]
fn rules_for_anonymous_allow_users_and_deny_anonymous_alone() {
    let some = policy(vec![
        rule(1, "allow", &["@anonymous"], &["public/**"], &Action::ALL),
        rule(2, "deny", &["@anonymous"], &["public/secret"], &[Pull]),
        rule(3, "allow", &["*"], &["all/**"], &[Pull]),
    ]);
    assert_eq!(line(&some, "", Pull, "public/a"), 1);
    assert_eq!(line(&some, "alice", Pull, "public/a"), 1);
    assert_eq!(line(&some, "", Pull, "public/secret"), -2);
    assert_eq!(line(&some, "alice", Pull, "public/secret"), 1);
    assert_eq!(line(&some, "", Push, "public/a"), 0);
    assert!(!some.decide(by(""), Push, "public/a", None).allowed);
    assert_eq!(line(&some, "", Pull, "all/a"), 0, "a star is a user's name");
}

#[test]
fn a_mount_reads_as_a_pull_does() {
    let some = policy(vec![
        rule(1, "allow", &["alice"], &["a", "b"], &[Pull]),
        rule(2, "allow", &["alice"], &["c", "d", "e"], &[MountFrom]),
        rule(3, "deny", &["alice"], &["b"], &[MountFrom]),
        rule(4, "deny", &["alice"], &["d"], &[Pull]),
    ]);
    let lines = ["a", "b", "c", "d", "x"].map(|name| line(&some, "alice", MountFrom, name));
    assert_eq!(lines, [1, -3, 2, -4, 0]);
    assert_eq!(
        line(&some, "alice", Pull, "c"),
        0,
        "to mount is not to pull"
    );
}

#[test]
fn networks_are_those_of_the_client() {
    let mut office = rule(1, "allow", &["*"], &["**"], &[Pull]);
    office.networks = Some(vec![
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ]);
    let some = policy(vec![office]);
    for (client, allowed) in [
        ("10.1.2.3", true),
        ("11.0.0.1", false),
        ("2001:db8::1", true),
        ("::1", false),
    ] {
        let principal = Principal {
            user: Some("alice"),
            client: client.parse().unwrap(),
        };
        assert_eq!(
            some.decide(principal, Pull, "a", None).allowed,
            allowed,
            "{client}"
        );
        assert_eq!(some.summary(principal).is_some(), allowed);
    }
}

#[test]
fn the_places_cover_every_network_and_its_complement() {
    let mut wide = rule(1, "allow", &["*"], &["**"], &[Pull]);
    wide.networks = Some(vec![
        "10.0.0.0/8".parse().unwrap(),
        "ff00::/8".parse().unwrap(),
    ]);
    let mut narrow = rule(2, "deny", &["*"], &["**"], &[Pull]);
    narrow.networks = Some(vec![
        "10.0.0.0/9".parse().unwrap(),
        "255.255.255.0/24".parse().unwrap(),
    ]);
    let places = policy(vec![wide, narrow])
        .representative_addresses()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(
        places,
        "10.0.0.0 10.128.0.0 255.255.255.0 10.0.0.0 11.0.0.0 ff00:: 0.0.0.0 ::"
    );
}

#[test]
fn pages_need_the_right_to_see_everything() {
    let some = policy(vec![
        rule(1, "allow", &["alice"], &["**"], &[Pull, Catalog]),
        rule(2, "allow", &["bob"], &["base/**"], &Action::ALL),
        rule(3, "allow", &["carol"], &["**"], &Action::ALL),
        rule(4, "deny", &["carol"], &["base/**"], &[Pull]),
    ]);
    let sees = |user| some.sees_everything(by(user)).allowed;
    assert!(sees("alice") && !sees("bob") && !sees("carol") && !sees(""));
    assert!(policy(vec![]).sees_everything(by("bob")).allowed);
}

#[test]
fn a_summary_is_one_line() {
    let some = policy(vec![
        tags(
            rule(1, "allow", &["*"], &["${user}/**"], &[Push, Overwrite]),
            &["release", "v*"],
        ),
        rule(
            2,
            "allow",
            &["@devs"],
            &["base/**", "tools/*"],
            &[Pull, List, Catalog],
        ),
        rule(3, "deny", &["alice"], &["x"], &[Pull]),
        rule(4, "allow", &["@anonymous"], &["public"], &[Push, Pull]),
        rule(5, "allow", &["root"], &["**"], &Action::ALL),
    ]);
    insta::assert_snapshot!(some.summary(by("alice")).unwrap(), @"push and overwrite alice/** (tags release or v*); pull, list and catalog base/** and tools/*; pull and push public");
    insta::assert_snapshot!(some.summary(by("")).unwrap(), @"pull public");
    insta::assert_snapshot!(some.summary(by("root")).unwrap(), @"push and overwrite root/** (tags release or v*); pull and push public; do everything in **");
    assert_eq!(
        policy(vec![rule(1, "allow", &["bob"], &["a"], &[Pull])]).summary(by("alice")),
        None
    );
}

/// Each a thousand rules of one kind.
fn thousands() -> Vec<(&'static str, Policy)> {
    let networked = |mut rule: AccessRule, network: String| {
        rule.networks = Some(vec![network.parse().unwrap()]);
        rule
    };
    let each = |make: &dyn Fn(usize) -> AccessRule| policy((0..1000).map(make).collect());
    let of = |n: usize, users: &str, name: &str| {
        rule(n, ["deny", "allow"][n % 2], &[users], &[name], &Action::ALL)
    };
    vec![
        ("names", each(&|n| of(n, "*", &format!("base/app{n}")))),
        (
            "prefixes",
            each(&|n| of(n, "*", &format!("base/team{n}/**"))),
        ),
        (
            "ends of a level",
            each(&|n| of(n, "*", &format!("*-{n}/**"))),
        ),
        (
            "beginnings of a level",
            each(&|n| of(n, "*", &format!("n{n}-*/**"))),
        ),
        (
            "insides of a level",
            each(&|n| of(n, "*", &format!("*x{n}y*"))),
        ),
        ("last levels", each(&|n| of(n, "*", &format!("**/app{n}")))),
        (
            "levels between",
            each(&|n| of(n, "*", &format!("base/*/app{n}/**"))),
        ),
        (
            "below everybody's own",
            each(&|n| of(n, "*", &format!("${{user}}/app{n}/**"))),
        ),
        (
            "tags",
            each(&|n| tags(of(n, "*", "**"), &[&format!("v{n}.*")])),
        ),
        ("users", each(&|n| of(n, &format!("user{n}"), "**"))),
        (
            "patterns of users",
            each(&|n| of(n, &format!("ci-{n}-*"), "**")),
        ),
        (
            "networks",
            each(&|n| networked(of(n, "*", "**"), format!("10.{}.{}.0/24", n % 4, n / 4))),
        ),
        (
            "a list of names",
            policy(vec![{
                let mut one = of(0, "*", "x");
                one.repositories = (0..1000)
                    .map(|n| RepositoryPattern::parse(&format!("*/app{n}")).unwrap())
                    .collect();
                one
            }]),
        ),
    ]
}

/// The rank of the rule that decides, without the index.
fn walked(policy: &Policy, question: &Question<'_>) -> Option<usize> {
    let user = question.principal.user;
    policy.rules.iter().position(|rule| {
        rule.is_of(user)
            && rule.is_about(question, false)
            && rule
                .repositories
                .iter()
                .any(|pattern| pattern.matches(question.repository, user))
    })
}

#[test]
fn of_a_thousand_rules_a_few_are_compared() {
    for (kind, policy) in thousands() {
        for (action, tag) in [
            (Pull, None),
            (Push, Some("v7.1")),
            (Overwrite, Some("latest")),
            (DeleteTag, Some("v999.2")),
        ] {
            for user in ["alice", "user77", "ci-77-x"] {
                for repository in [
                    "base/app7",
                    "base/team77/x/app7/y",
                    "a-77/app",
                    "n7-a/b",
                    "ax77yb",
                    "alice/app7/x",
                ] {
                    let question = Question {
                        principal: by(user),
                        action,
                        repository,
                        tag,
                    };
                    let candidates: Vec<_> = policy.index.candidates(&question).collect();
                    let first = candidates
                        .iter()
                        .position(|found| policy.is_met(*found, &question));
                    let compared = first.map_or(candidates.len(), |at| at + 1);
                    assert!(
                        compared <= 8,
                        "{compared} of {kind}: {user} {action} {repository} {tag:?}"
                    );
                    let decision = policy.decide_alone(by(user), action, repository, tag);
                    assert_eq!(
                        decision,
                        policy.decided(walked(&policy, &question)),
                        "{kind}"
                    );
                }
            }
        }
    }
}

prop_compose! {
    fn any_rule()(
        deny in proptest::bool::weighted(0.3),
        users in prop::collection::vec(
            prop::sample::select(vec!["alice", "bob", "a*", "*b", "*li*", "*", "@devs", "@none", "@authenticated", "@anonymous"]), 1..3),
        repositories in prop::collection::vec(
            prop::sample::select(vec![
                "**", "a", "a/*", "a/**", "${user}/**", "a/b", "*/b", "a/b*", "**/b", "*-b", "a-*", "*a*", "*-b/**", "a-*/**",
                "a/**/b", "*/*-${user}",
            ]), 1..3),
        actions in prop::sample::subsequence(Action::ALL.to_vec(), 1..4),
        tag in prop::option::of(prop::sample::select(vec!["v1", "v*", "*", "*1", "*t*"])),
        network in prop::option::of(prop::sample::select(vec!["10.0.0.0/8", "10.0.0.7/32", "11.0.0.0/8", "::/0"])),
        line in 1_usize..100,
    ) -> AccessRule {
        let mut made = rule(line, if deny { "deny" } else { "allow" }, &users, &repositories, &actions);
        made.tags = tag.map(|tag| vec![Pattern::new(tag)]);
        made.networks = network.map(|network| vec![network.parse().unwrap()]);
        made
    }
}

type QuestionParts = (&'static str, Action, &'static str, Option<&'static str>);

fn any_question() -> impl Strategy<Value = QuestionParts> {
    (
        prop::sample::select(vec!["alice", "bob", "carol", ""]),
        prop::sample::select(Action::ALL.to_vec()),
        prop::sample::select(vec![
            "a",
            "a/b",
            "a/b/c",
            "alice/b",
            "bob",
            "b",
            "a-b",
            "a-b/b",
            "b/a-alice",
        ]),
        prop::option::of(prop::sample::select(vec!["v1", "latest"])),
    )
}

fn allows(rules: &[AccessRule], (user, action, name, tag): QuestionParts) -> bool {
    policy(rules.to_vec())
        .decide(by(user), action, name, tag)
        .allowed
}

proptest! {
    #[test]
    fn removing_an_allow_never_grants(rules in prop::collection::vec(any_rule(), 2..6), at in 0_usize..6, question in any_question()) {
        let mut fewer = rules.clone();
        if let Some(position) = rules.iter().position(|rule| !rule.deny).map(|first| first.max(at % rules.len()))
            && !fewer[position].deny
        {
            fewer.remove(position);
            // The last rule of all is not a right more or less: without any, the file says nothing.
            prop_assume!(!fewer.is_empty());
            prop_assert!(!allows(&fewer, question) || allows(&rules, question));
        }
    }

    #[test]
    fn adding_a_deny_never_grants(rules in prop::collection::vec(any_rule(), 0..5), deny in any_rule(), at in 0_usize..6, question in any_question()) {
        let mut more = rules.clone();
        more.insert(at.min(rules.len()), AccessRule { deny: true, ..deny });
        prop_assert!(!allows(&more, question) || allows(&rules, question));
    }

    #[test]
    fn a_group_is_its_members(rules in prop::collection::vec(any_rule(), 1..5), question in any_question()) {
        let listed = |rule: &AccessRule| {
            let users = rule.users.iter().flat_map(|selector| match selector {
                Selector::Group { members, .. } => {
                    members.iter().map(|name| Selector::Name(Pattern::new(name))).collect()
                }
                other => vec![other.clone()],
            });
            AccessRule { users: users.collect(), ..rule.clone() }
        };
        let spelt: Vec<_> = rules.iter().map(listed).collect();
        let (user, action, name, tag) = question;
        let [by_group, by_name] = [policy(rules), policy(spelt)];
        prop_assert_eq!(by_group.decide(by(user), action, name, tag), by_name.decide(by(user), action, name, tag));
    }

    /// What the index finds is what a walk over all rules finds.
    #[test]
    fn the_index_leaves_nothing_out(rules in prop::collection::vec(any_rule(), 1..12), question in any_question()) {
        let some = policy(rules);
        let (user, action, repository, tag) = question;
        let principal = by(user);
        let question = Question { principal, action, repository, tag };
        if principal.user.is_some() || some.anonymous.has(action) {
            prop_assert_eq!(some.decide_alone(principal, action, repository, tag), some.decided(walked(&some, &question)));
        }
    }

    #[test]
    fn whoever_sees_everything_is_allowed_everywhere(rules in prop::collection::vec(any_rule(), 1..6), question in any_question()) {
        let some = policy(rules);
        let (user, _, repository, _) = question;
        if some.sees_everything(by(user)).allowed {
            for action in [Pull, Catalog] {
                prop_assert!(some.decide(by(user), action, repository, None).allowed);
            }
        }
    }
}

fn with_conditions(mut rule: AccessRule, from: &[&str], days: Option<u64>) -> AccessRule {
    let patterns = from
        .iter()
        .map(|text| RepositoryPattern::parse(text).unwrap());
    rule.conditions = TagConditions {
        from: (!from.is_empty()).then(|| patterns.collect()),
        immutable_after: days.map(|days| Duration::from_secs(days * 86_400)),
    };
    rule
}

/// The decision about `release/app:v1` of alice, and the lines of the rules that make conditions.
fn decided(rules: Vec<AccessRule>, action: Action) -> (bool, Vec<usize>) {
    let policy = policy(rules);
    let decided = policy.decide_tag(by("alice"), action, "release/app", "v1");
    let plain = policy.decide(by("alice"), action, "release/app", Some("v1"));
    assert_eq!(decided.decision.allowed, plain.allowed);
    let lines = decided.conditions.iter().map(|one| one.rule.line);
    (decided.decision.allowed, lines.collect())
}

#[test]
fn an_allow_without_conditions_beats_those_with_them_and_a_deny_beats_all() {
    let actions = [Push, Overwrite, DeleteTag];
    let of = |line| rule(line, "allow", &["alice"], &["release/*"], &actions);
    let from = || with_conditions(of(1), &["ci/*"], None);
    let aging = || with_conditions(of(2), &[], Some(7));
    let both = || with_conditions(of(3), &["ci/*"], Some(7));
    let plain = || of(4);
    let deny = || rule(5, "deny", &["alice"], &["**"], &actions);
    let of_tag = |tag| tags(of(6), &[tag]);
    for (rules, action, expected) in [
        (vec![from()], Push, (true, vec![1])),
        (vec![from()], Overwrite, (true, vec![1])),
        (vec![from()], DeleteTag, (true, vec![])),
        (vec![aging()], Push, (true, vec![])),
        (vec![aging()], Overwrite, (true, vec![2])),
        (vec![aging()], DeleteTag, (true, vec![2])),
        (vec![both()], Push, (true, vec![3])),
        (vec![from(), aging()], Overwrite, (true, vec![1, 2])),
        (vec![from(), aging()], Push, (true, vec![])),
        (vec![both(), plain()], Overwrite, (true, vec![])),
        (vec![plain(), both()], Overwrite, (true, vec![])),
        (vec![both(), of_tag("v1")], Overwrite, (true, vec![])),
        (vec![both(), of_tag("v2")], Overwrite, (true, vec![3])),
        (vec![from(), plain(), deny()], Push, (false, vec![])),
        (vec![from(), deny()], Push, (false, vec![])),
    ] {
        assert_eq!(
            decided(rules.clone(), action),
            expected,
            "{action} {rules:?}"
        );
    }
    let without_tag = policy(vec![both()]);
    let blob = without_tag.decide(by("alice"), Push, "release/app", None);
    assert!(blob.allowed);
}

/// A deny of pulls is one of mounts, whoever asks.
#[test]
fn a_mount_is_decided_as_without_a_tag() {
    let rules = policy(vec![
        rule(1, "deny", &["alice"], &["a"], &[Pull]),
        rule(2, "allow", &["alice"], &["**"], &[MountFrom]),
    ]);
    let of = |repository| {
        let decided = rules.decide_tag(by("alice"), MountFrom, repository, "v1");
        (decided.decision.allowed, decided.conditions.len())
    };
    assert_eq!(of("a"), (false, 0));
    assert_eq!(of("b"), (true, 0));
}

#[test]
fn pages_are_not_changed_under_conditions() {
    let of = |rule| policy(vec![rule]).changes_everything(by("alice")).allowed;
    let all = || rule(1, "allow", &["alice"], &["**"], &Action::ALL);
    assert!(of(all()));
    assert!(!of(with_conditions(all(), &["ci/*"], None)));
}

proptest! {
    /// A rule with conditions never allows more than the same one without.
    #[test]
    fn conditions_take_away_only(
        rules in prop::collection::vec((any_rule(), any::<bool>(), any::<bool>()), 1..8),
        question in any_question(),
    ) {
        let (user, action, repository, tag) = question;
        let tag = tag.unwrap_or("v1");
        let plain: Vec<_> = rules.iter().map(|(rule, ..)| rule.clone()).collect();
        let bound = |(rule, from, aging): &(AccessRule, bool, bool)| {
            let from: &[&str] = if *from && !rule.deny { &["ci/**"] } else { &[] };
            with_conditions(rule.clone(), from, (*aging && !rule.deny).then_some(7))
        };
        let without = policy(plain.clone());
        let with = policy(rules.iter().map(bound).collect());
        let decided = with.decide_tag(by(user), action, repository, tag);
        let expected = without.decide_tag(by(user), action, repository, tag);
        prop_assert_eq!(decided.decision.allowed, expected.decision.allowed);
        prop_assert!(expected.conditions.is_empty());
        let plainly = without.decide(by(user), action, repository, Some(tag));
        prop_assert_eq!(expected.decision.allowed, plainly.allowed);
        // Without conditions only if a rule without them allows it alone.
        if decided.decision.allowed && decided.conditions.is_empty() {
            let free: Vec<_> = rules
                .iter()
                .map(bound)
                .filter(|rule| {
                    let (from, after) = rule.conditions.of_action(action);
                    rule.deny || from.is_none() && after.is_none()
                })
                .collect();
            prop_assert!(policy(free).decide(by(user), action, repository, Some(tag)).allowed);
        }
    }
}
