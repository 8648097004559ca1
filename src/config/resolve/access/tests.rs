use std::path::PathBuf;

use super::*;
use crate::config::network::Network;
use crate::config::problem::Colour;
use crate::config::raw;

const TOP: &str = "domain = 'ci.example.com'\n";
const REST: &str = "[tls]\ninternal = true\n[upstream]\nurl = 'http://registry:5000'\n[auth]\nhtpasswd = 'ci.htpasswd'\n";

fn source(path: &str, text: String) -> Arc<Source> {
    Arc::new(Source::new(
        PathBuf::from(format!("/etc/moorgate/{path}")),
        text,
    ))
}

/// The rules of domain files, each with its groups, beside rules of moorgate.toml.
fn resolve_all(
    main: &str,
    domains: &[(&str, Option<&str>)],
) -> (Vec<Option<AccessSettings>>, Problems) {
    let mut problems = Problems::default();
    let directory = Path::new("/etc/moorgate");
    let main = source("moorgate.toml", format!("# shared\n{main}"));
    let main = MainFile {
        raw: raw::main(&main, &mut problems),
        source: main,
        bindings: Vec::new(),
        groups: None,
    };
    let files = ["ci", "cache", "third"].into_iter().zip(domains);
    let files = files.map(|(name, (text, groups))| {
        let source_of_domain = source(&format!("conf.d/{name}.toml"), (*text).to_owned());
        DomainFile {
            raw: raw::domain(&source_of_domain, &mut problems).expect("its syntax is right"),
            source: source_of_domain,
            groups: groups.map(|text| source("groups", text.to_owned())),
        }
    });
    let files: Vec<_> = files.collect();
    let proxies = ["10.0.0.0/8", "192.0.2.1"].map(|text| Network::parse(text).expect(text));
    let proxies = proxies.into_iter().collect();
    let shared = shared(&main, directory, &mut problems);
    let all = files
        .iter()
        .map(|file| settings(file, directory, &shared, &proxies, &mut problems))
        .collect();
    warn_about_shared(
        &main,
        &files.iter().collect::<Vec<_>>(),
        &shared,
        &proxies,
        &mut problems,
    );
    problems.sort();
    (all, problems)
}

/// A domain file with these rules.
fn domain(top: &str, rest: &str) -> String {
    format!("{TOP}{top}{REST}{rest}")
}

fn resolve(top: &str, rest: &str, groups: Option<&str>) -> (Option<AccessSettings>, Problems) {
    let (mut all, problems) = resolve_all("", &[(&domain(top, rest), groups)]);
    (all.pop().expect("one domain"), problems)
}

fn rules(rest: &str) -> Vec<AccessRule> {
    let (settings, problems) = resolve("", rest, None);
    assert!(problems.is_empty(), "{problems}");
    settings.expect("rules").rules
}

fn said(top: &str, rest: &str, groups: Option<&str>) -> String {
    resolve(top, rest, groups).1.render(Colour::Never)
}

#[test]
fn a_rule_is_what_it_says() {
    let rules = rules(
        "[groups]\ndevs = ['alice', 'bob']\n[[access]]\nusers = ['ci-*', '@devs', '@authenticated', '@anonymous']\n\
         repositories = ['base/**', '${user}/*']\nactions = ['pull', 'push']\n[[access]]\ndeny = true\nusers = ['*']\n\
         repositories = ['**']\ntags = ['v*']\nactions = ['push', 'delete-manifest']\nnetworks = ['172.16.0.0/12', '::1', '::ffff:192.0.2.0/120']\n",
    );
    let [allow, deny] = rules.as_slice() else {
        panic!("{rules:?}")
    };
    assert_eq!(
        allow
            .users
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
        "ci-* @devs @authenticated @anonymous"
    );
    assert!(
        matches!(&allow.users[1], Selector::Group { members, .. } if **members == ["alice".into(), "bob".into()])
    );
    assert_eq!(
        allow.actions.iter().map(|a| a.as_str()).collect::<Vec<_>>(),
        ["pull", "push"]
    );
    assert_eq!(
        (allow.deny, &allow.tags, &allow.networks),
        (false, &None, &None)
    );
    assert_eq!(allow.location.to_string(), "conf.d/ci.toml:10");
    assert_eq!((deny.deny, deny.location.line), (true, 14));
    assert!(
        deny.actions
            .iter()
            .map(|a| a.as_str())
            .eq(["push", "delete-manifest"])
    );
    let networks: Vec<_> = deny
        .networks
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        networks,
        ["172.16.0.0/12", "::1/128", "192.0.2.0/24"],
        "an address of IPv4 is no other in IPv6"
    );
}

#[test]
fn groups_may_stand_in_a_file() {
    let rule = "[[access]]\nusers = ['@devs', '@ops']\nrepositories = ['**']\nactions = ['pull']\n";
    let file = "# people\ndevs: alice  bob\r\n\nops:carol\n";
    let (settings, problems) = resolve("groups_file = '../groups'\n", rule, Some(file));
    assert!(problems.is_empty(), "{problems}");
    let settings = settings.expect("rules");
    let members = |at: usize| match &settings.rules[0].users[at] {
        Selector::Group { members, .. } => members.join(" "),
        other => panic!("{other}"),
    };
    assert_eq!(
        (members(0), members(1)),
        ("alice bob".to_owned(), "carol".to_owned())
    );
    let named: Vec<_> = settings
        .written
        .references
        .iter()
        .map(|n| (n.name.as_str(), &file[n.span.clone()]))
        .collect();
    assert_eq!(
        named,
        [("alice", "alice"), ("bob", "bob"), ("carol", "carol")]
    );
    let bad = "devs alice\nopS!: bob\nx: a\nx: b\ny: @z *\n";
    insta::assert_snapshot!(said("groups_file = '../groups'\n", rule, Some(bad)), @r"
    error: this line is not a group
     --> /etc/moorgate/groups:1:1
      |
    1 | …
      | ^
      |
      = help: write a line like `devs: alice bob`

    error: `opS!` is not the name of a group
     --> /etc/moorgate/groups:2:1
      |
    2 | …
      | ^
      |
      = help: call it anything but `authenticated` and `anonymous`, with letters, digits, `.`, `_` and `-`

    error: the group `x` is defined twice
     --> /etc/moorgate/groups:4:1
      |
    4 | …
      | ^
      |
      = help: write all of its users on one line

    error: `@z` in the group `y` is not a user name
     --> /etc/moorgate/groups:5:4
      |
    5 | …   
      |    ^
      |
      = help: write the names of users in the htpasswd file

    error: `*` in the group `y` is not a user name
     --> /etc/moorgate/groups:5:7
      |
    5 | …      
      |       ^
      |
      = help: write the names of users in the htpasswd file
    ");
}

#[test]
fn all_problems_of_rules_are_noted() {
    let rest = "[groups]\ndevs = ['alice', 'a*']\n'a b' = []\n[[access]]\nusers = ['@dev']\nrepositories = ['Base/**', 'a**']\n\
        actions = ['pul']\n[[access]]\nusers = []\nactions = ['pull']\ntags = []\nnetworks = ['10.0.0.1/8', 'x', '::/64']\n\
        acton = 'x'\n";
    insta::assert_snapshot!(said("", rest, None), @r#"
    error: `groups.devs` has a pattern in it
     --> /etc/moorgate/conf.d/ci.toml:9:18
      |
    9 | devs = ['alice', 'a*']
      |                  ^^^^
      |
      = help: write the names of users; `*` is for `users` in [[access]]

    error: `groups.a b` is not the name of a group
      --> /etc/moorgate/conf.d/ci.toml:10:1
       |
    10 | 'a b' = []
       | ^^^^^
       |
       = help: call it anything but `authenticated` and `anonymous`, with letters, digits, `.`, `_` and `-`

    error: `access.users` names the unknown group `@dev`
      --> /etc/moorgate/conf.d/ci.toml:12:10
       |
    12 | users = ['@dev']
       |          ^^^^^^
       |
       = help: there are `@devs`

    error: `access.repositories` has a character that is in no repository name
      --> /etc/moorgate/conf.d/ci.toml:13:17
       |
    13 | repositories = ['Base/**', 'a**']
       |                 ^^^^^^^^^
       |
       = help: names are of lower-case letters, digits, `.`, `_` and `-`; no tag and no host is in them

    error: `access.repositories` has `**` beside other characters
      --> /etc/moorgate/conf.d/ci.toml:13:28
       |
    13 | repositories = ['Base/**', 'a**']
       |                            ^^^^^
       |
       = help: `**` stands for whole levels: write "base/**"

    error: `access.actions` is not a known value
      --> /etc/moorgate/conf.d/ci.toml:14:12
       |
    14 | actions = ['pul']
       |            ^^^^^
       |
       = help: write "pull" or "push" or "overwrite" or "delete-tag" or "delete-manifest" or "list" or "catalog" or "mount-from" or "all"

    error: `access.repositories` is missing in this rule
      --> /etc/moorgate/conf.d/ci.toml:15:1
       |
    15 | [[access]]
       | ^^^^^^^^^^
       |
       = help: write repositories = ["base/**"], or ["**"] for all

    error: `access.users` is empty: the rule could never match
      --> /etc/moorgate/conf.d/ci.toml:16:9
       |
    16 | users = []
       |         ^^
       |
       = help: write users = ["alice", "@devs"], or ["*"] for every user

    error: `access.tags` is empty: the rule could never match
      --> /etc/moorgate/conf.d/ci.toml:18:8
       |
    18 | tags = []
       |        ^^
       |
       = help: write tags, or leave the key out for all tags

    error: `access.networks` is an address within a network
      --> /etc/moorgate/conf.d/ci.toml:19:13
       |
    19 | networks = ['10.0.0.1/8', 'x', '::/64']
       |             ^^^^^^^^^^^^
       |
       = help: write "10.0.0.0/8"

    error: `access.networks` is not a network
      --> /etc/moorgate/conf.d/ci.toml:19:27
       |
    19 | networks = ['10.0.0.1/8', 'x', '::/64']
       |                           ^^^
       |
       = help: write a network like "10.0.0.0/8" or "2001:db8::/32", or an address

    error: `access.networks` has the addresses of IPv4 in it, written as IPv6, and others
      --> /etc/moorgate/conf.d/ci.toml:19:32
       |
    19 | networks = ['10.0.0.1/8', 'x', '::/64']
       |                                ^^^^^^^
       |
       = help: clients with an address of IPv4 have just that: write "0.0.0.0/0" for all of them, "::/0" for the others

    error: unknown key `acton` in [access]
      --> /etc/moorgate/conf.d/ci.toml:20:1
       |
    20 | acton = …
       | ^^^^^
       |
       = help: known here: `deny`, `users`, `repositories`, `tags`, `actions`, `networks`, `from`, `immutable_after`
    "#);
    insta::assert_snapshot!(said("", "[access]\nusers = ['a']\n", None), @r"
    error: `access` must be an array of tables, not a table
     --> /etc/moorgate/conf.d/ci.toml:8:1
      |
    8 | [access]
      | ^^^^^^^^
      |
      = help: write [[access]] on a line of its own, and its keys below
    ");
}

#[test]
fn what_cannot_be_meant_is_warned_of() {
    let rest = "[groups]\nnone = []\n\
        [[access]]\nusers = ['@none']\nrepositories = ['**']\nactions = ['pull']\n\
        [[access]]\ndeny = true\nusers = ['@anonymous']\nrepositories = ['**']\nactions = ['pull']\n\
        [[access]]\ndeny = true\nusers = ['*']\nrepositories = ['**']\ntags = ['v1']\nactions = ['pull']\n\
        [[access]]\nusers = ['alice']\nrepositories = ['base/**']\ntags = ['v*']\nactions = ['push', 'pull']\n\
        [[access]]\nusers = ['alice']\nrepositories = ['old/**']\ntags = ['v*']\nactions = ['delete-tag', 'delete-manifest']\n\
        [[access]]\ndeny = true\nusers = ['@authenticated']\nrepositories = ['**']\nactions = ['delete-tag', 'delete-manifest']\n";
    insta::assert_snapshot!(said("", rest, None), @r#"
    warning: the group `none` has no members
     --> /etc/moorgate/conf.d/ci.toml:9:1
      |
    9 | none = []
      | ^^^^
      |
      = help: write its users, or leave it out

    warning: this rule can never match: its groups have no members
      --> /etc/moorgate/conf.d/ci.toml:10:1
       |
    10 | [[access]]
       | ^^^^^^^^^^
       |
       = help: write the users of the group

    warning: this rule can never match: without a login nothing is allowed here anyway
      --> /etc/moorgate/conf.d/ci.toml:14:1
       |
    14 | [[access]]
       | ^^^^^^^^^^
       |
       = help: leave it out, or write anonymous = "pull" in [auth]

    warning: this rule can never match: none of its actions is about a tag
      --> /etc/moorgate/conf.d/ci.toml:19:1
       |
    19 | [[access]]
       | ^^^^^^^^^^
       |
       = help: leave `tags` out to deny it for the whole repository

    warning: a rule with `tags` allows, for the whole repository, `pull`
      --> /etc/moorgate/conf.d/ci.toml:28:8
       |
    28 | tags = ['v*']
       |        ^^^^^^
       |
       = help: tags restrict writes only, since a pull by digest has no tag: write a rule of its own for them

    warning: this rule can never match: line 35 denies all of it
      --> /etc/moorgate/conf.d/ci.toml:30:1
       |
    30 | [[access]]
       | ^^^^^^^^^^
       |
       = help: leave one of the two out: a deny beats every allow

    warning: a rule with `tags` never allows `delete-manifest`, which takes all tags of a manifest
      --> /etc/moorgate/conf.d/ci.toml:33:8
       |
    33 | tags = ['v*']
       |        ^^^^^^
       |
       = help: write a rule without `tags` for it
    "#);
    insta::assert_snapshot!(said("", "anonymous = 'pull'\n[[access]]\nusers = ['a']\nrepositories = ['**']\nactions = ['all']\n", None), @r#"
    warning: `auth.anonymous` is "pull", and no rule allows `@anonymous` to pull anything
     --> /etc/moorgate/conf.d/ci.toml:8:13
      |
    8 | anonymous = 'pull'
      |             ^^^^^^
      |
      = help: write a rule with users = ["@anonymous"] and actions = ["pull"]

    warning: without a login, the classic Docker engine cannot pull from here
     --> /etc/moorgate/conf.d/ci.toml:8:13
      |
    8 | anonymous = 'pull'
      |             ^^^^^^
      |
      = help: it wants a password wherever one is asked for; containerd and Docker with its image store, podman, buildah, skopeo and crane pull without one. With mode = "token" in [auth] all of them do
    "#);
    assert_eq!(
        said("", "mode = 'token'\nanonymous = 'pull'\n", None),
        "",
        "all of them do"
    );
    let misspelt = said(
        "",
        "mode = 'tokn'\ntoken_lifetime = '9min'\nanonymous = 'pull'\n",
        None,
    );
    assert_eq!(misspelt.matches("error: ").count(), 1, "{misspelt}");
    assert!(!misspelt.contains("warning: "), "{misspelt}");
}

/// The messages alone.
fn warned(rest: &str) -> String {
    resolve("", rest, None)
        .1
        .iter()
        .map(|problem| format!("{}\n", problem.message()))
        .collect()
}

#[test]
fn a_deny_with_wider_patterns_covers_an_allow() {
    let rules = |deny: &str, allow: &str| {
        warned(&format!(
            "[groups]\ndevs = ['alice', 'bob']\n[[access]]\ndeny = true\n{deny}\n[[access]]\n{allow}\n"
        ))
    };
    let of = |users: &str, repositories: &str, more: &str| {
        format!("users = [{users}]\nrepositories = [{repositories}]\nactions = ['pull']\n{more}")
    };
    for (deny, allow) in [
        (of("'*'", "'base/**'", ""), of("'alice'", "'base/app'", "")),
        (
            of("'*'", "'base/**'", ""),
            of(
                "'@devs', '@authenticated'",
                "'base/*/x-*', 'base/${user}'",
                "",
            ),
        ),
        (
            of("'a*'", "'*/app', 'b'", ""),
            of("'alice', 'al*'", "'base/app'", ""),
        ),
        (of("'@devs'", "'**'", ""), of("'alice'", "'**'", "")),
        (of("'alice', 'b*'", "'**'", ""), of("'@devs'", "'**'", "")),
        (
            of("'*'", "'**'", "networks = ['192.168.0.0/16']"),
            of("'alice'", "'a'", "networks = ['192.168.1.0/24']"),
        ),
    ] {
        let said = rules(&deny, &allow);
        assert_eq!(
            said, "this rule can never match: line 10 denies all of it\n",
            "{deny}{allow}"
        );
    }
    for (deny, allow) in [
        (of("'*'", "'base/*'", ""), of("'alice'", "'base/**'", "")),
        (of("'alice'", "'**'", ""), of("'@devs'", "'**'", "")),
        (of("'@devs'", "'**'", ""), of("'*'", "'**'", "")),
        (of("'*'", "'**'", ""), of("'@anonymous'", "'**'", "")),
        (
            of("'*'", "'**'", "networks = ['192.168.0.0/16']"),
            of("'alice'", "'a'", ""),
        ),
    ] {
        assert_eq!(rules(&deny, &allow), "", "{deny}{allow}");
    }
}

#[test]
fn what_no_request_can_be_about_is_warned_of() {
    let rest = "[[access]]\nusers = ['alice']\nrepositories = ['base/.app', 'ok', '-x', 'a..b/**', '_*']\n\
        actions = ['pull']\nnetworks = ['10.1.0.0/16', '192.0.2.0/24']\n\
        [[access]]\nusers = ['alice']\nrepositories = ['keep']\nactions = ['push', 'delete-tag']\n";
    insta::assert_snapshot!(said("", rest, None), @r"
    warning: no repository name can match `base/.app`
      --> /etc/moorgate/conf.d/ci.toml:10:17
       |
    10 | repositories = ['base/.app', 'ok', '-x', 'a..b/**', '_*']
       |                 ^^^^^^^^^^^
       |
       = help: the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: no repository name can match `-x`
      --> /etc/moorgate/conf.d/ci.toml:10:36
       |
    10 | repositories = ['base/.app', 'ok', '-x', 'a..b/**', '_*']
       |                                    ^^^^
       |
       = help: the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: no repository name can match `a..b/**`
      --> /etc/moorgate/conf.d/ci.toml:10:42
       |
    10 | repositories = ['base/.app', 'ok', '-x', 'a..b/**', '_*']
       |                                          ^^^^^^^^^
       |
       = help: the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: no repository name can match `_*`
      --> /etc/moorgate/conf.d/ci.toml:10:53
       |
    10 | repositories = ['base/.app', 'ok', '-x', 'a..b/**', '_*']
       |                                                     ^^^^
       |
       = help: the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: clients in `10.0.0.0/8` can claim any address, also of `10.1.0.0/16`: it is in `trusted_proxies`
      --> /etc/moorgate/conf.d/ci.toml:12:13
       |
    12 | networks = ['10.1.0.0/16', '192.0.2.0/24']
       |             ^^^^^^^^^^^^^
       |
       = help: name the proxies alone in `trusted_proxies` of moorgate.toml, without their neighbours

    warning: `push` and `delete-tag` together move tags, also without `overwrite`: away first, then pushed anew
      --> /etc/moorgate/conf.d/ci.toml:16:11
       |
    16 | actions = ['push', 'delete-tag']
       |           ^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: add `overwrite` if tags may move; if not, give `delete-tag` to others, or deny it for some tags
    ");
}

#[test]
fn tags_that_a_deny_keeps_are_not_moved_by_a_way_round() {
    let allow = |actions: &str| {
        format!("[[access]]\nusers = ['alice']\nrepositories = ['keep']\nactions = [{actions}]\n")
    };
    let deny = "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['**']\ntags = ['v*']\nactions = ['delete-tag']\n";
    assert_eq!(warned(&(allow("'push', 'delete-tag'") + deny)), "");
    for actions in [
        "'push', 'delete-tag', 'overwrite'",
        "'all'",
        "'push'",
        "'delete-tag'",
    ] {
        assert_eq!(warned(&allow(actions)), "", "{actions}");
    }
}

/// What is said of rules of moorgate.toml, beside those of domains.
fn said_of_shared(main: &str, domains: &[&str]) -> String {
    let domains: Vec<_> = domains.iter().map(|text| (*text, None)).collect();
    resolve_all(main, &domains).1.render(Colour::Never)
}

const SHARED: &str = "[groups]\ndevs = ['alice', 'bob']\n[[access]]\nusers = ['@devs']\nrepositories = ['**']\nactions = ['pull']\n";

#[test]
fn rules_of_the_main_file_hold_for_domains_that_do_not_refuse_them() {
    let own = "[[access]]\nusers = ['@devs', 'ci']\nrepositories = ['ci/**']\nactions = ['push']\n";
    let files = [
        domain("", own),
        domain("inherit = true\n", ""),
        domain("inherit = false\n", ""),
    ];
    let files: Vec<_> = files.iter().map(|text| (text.as_str(), None)).collect();
    let (all, problems) = resolve_all(SHARED, &files);
    assert!(problems.is_empty(), "{problems}");
    let all: Vec<_> = all.into_iter().map(|one| one.expect("rules")).collect();
    let places = all.iter().map(|settings| {
        let rules = settings.rules.iter();
        rules
            .map(|rule| rule.location.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    });
    assert_eq!(
        places.collect::<Vec<_>>(),
        ["moorgate.toml:4 conf.d/ci.toml:8", "moorgate.toml:4", ""]
    );
    assert_eq!(
        all.iter()
            .map(|settings| settings.inherits)
            .collect::<Vec<_>>(),
        [true, true, false]
    );
    let groups = all.iter().map(|settings| {
        let groups = settings.groups.iter();
        groups
            .map(|(name, members)| format!("{name}: {}", members.join(" ")))
            .collect::<String>()
    });
    assert_eq!(
        groups.collect::<Vec<_>>(),
        ["devs: alice bob", "devs: alice bob", ""]
    );
    let written = &all[0].written.references;
    let written: Vec<_> = written.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(
        written,
        ["ci"],
        "those of moorgate.toml are no words of this file"
    );
}

#[test]
fn what_is_wrong_between_both_files_is_said_where_it_is_written() {
    let own = "[groups]\ndevs = ['carol']\n[[access]]\nusers = ['@ops']\nrepositories = ['**']\nactions = ['pull']\n";
    insta::assert_snapshot!(said_of_shared(SHARED, &[&domain("", own)]), @r"
    error: the group `devs` is at /etc/moorgate/moorgate.toml:3 as well
     --> /etc/moorgate/conf.d/ci.toml:9:1
      |
    9 | devs = ['carol']
      | ^^^^
      |
      = help: give it another name: both files' groups hold for this domain, unless it says `inherit = false`

    error: `access.users` names the unknown group `@ops`
      --> /etc/moorgate/conf.d/ci.toml:11:10
       |
    11 | users = ['@ops']
       |          ^^^^^^
       |
       = help: there are `@devs`
    ");
    insta::assert_snapshot!(said_of_shared("", &[&domain("inherit = true\n", "")]), @r"
    error: `inherit` is true, and moorgate.toml has no [[access]]
     --> /etc/moorgate/conf.d/ci.toml:2:11
      |
    2 | inherit = true
      |           ^^^^
      |
      = help: write rules there, or leave `inherit` out: what moorgate.toml says holds anyway
    ");
    insta::assert_snapshot!(said_of_shared("[groups]\ndevs = ['alice']\n", &[&domain("inherit = true\n", "")]), @r"
    error: `inherit` is true, and moorgate.toml has no [[access]]
     --> /etc/moorgate/conf.d/ci.toml:2:11
      |
    2 | inherit = true
      |           ^^^^
      |
      = help: write rules there, or leave `inherit` out: what moorgate.toml says holds anyway
    ");
    // The error is in moorgate.toml alone: no domain is blamed for what is not known.
    let broken = SHARED.replace("'pull'", "'pul'");
    let uses = "[[access]]\nusers = ['@devs']\nrepositories = ['**']\nactions = ['pull']\n";
    insta::assert_snapshot!(said_of_shared(&broken, &[&domain("inherit = true\n", uses)]), @r#"
    error: `access.actions` is not a known value
     --> /etc/moorgate/moorgate.toml:7:12
      |
    7 | actions = ['pul']
      |            ^^^^^
      |
      = help: write "pull" or "push" or "overwrite" or "delete-tag" or "delete-manifest" or "list" or "catalog" or "mount-from" or "all"
    "#);
    // What a domain refuses is not there, neither rules nor groups.
    insta::assert_snapshot!(said_of_shared(SHARED, &[&domain("inherit = false\n", uses), &domain("", "")]), @r#"
    error: `access.users` names the unknown group `@devs`
      --> /etc/moorgate/conf.d/ci.toml:10:10
       |
    10 | users = ['@devs']
       |          ^^^^^^^
       |
       = help: write the group in [groups], as devs = ["alice", "bob"]
    "#);
}

#[test]
fn warnings_about_shared_rules_are_for_the_domains_that_have_them() {
    let deny =
        "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/**']\nactions = ['all']\n";
    let useless = "[[access]]\nusers = ['ci']\nrepositories = ['base/app']\nactions = ['push']\n";
    // The deny is in the other file.
    insta::assert_snapshot!(said_of_shared(&format!("{SHARED}{deny}"), &[&domain("", useless)]), @r"
    warning: this rule can never match: the rule at moorgate.toml:8 denies all of it
     --> /etc/moorgate/conf.d/ci.toml:8:1
      |
    8 | [[access]]
      | ^^^^^^^^^^
      |
      = help: leave one of the two out: a deny beats every allow
    ");
    // A domain may deny what the others allow.
    assert_eq!(
        said_of_shared(&format!("{SHARED}{useless}"), &[&domain("", deny)]),
        ""
    );
    insta::assert_snapshot!(said_of_shared(deny, &[&domain("", ""), &domain("inherit = false\n", ""), &domain("", deny)]), @r#"
    warning: all rules of `ci.example.com` deny, so nothing is allowed there
     --> /etc/moorgate/conf.d/third.toml:8:1
      |
    8 | [[access]]
      | ^^^^^^^^^^
      |
      = help: write a rule that allows the rest, such as users = ["*"], repositories = ["**"], actions = ["all"]

    warning: all rules of `ci.example.com` deny, so nothing is allowed there
     --> /etc/moorgate/moorgate.toml:2:1
      |
    2 | [[access]]
      | ^^^^^^^^^^
      |
      = help: write a rule that allows the rest, such as users = ["*"], repositories = ["**"], actions = ["all"]
    "#);
    insta::assert_snapshot!(said_of_shared(SHARED, &[&domain("inherit = false\n", "")]), @r"
    warning: no domain inherits what moorgate.toml says of access
     --> /etc/moorgate/moorgate.toml:4:1
      |
    4 | [[access]]
      | ^^^^^^^^^^
      |
      = help: each domain file says `inherit = false`: leave it out where this is to hold
    ");
    // Whether a rule about `@anonymous` can match, is a question of each domain.
    let anonymous = "[[access]]\ndeny = true\nusers = ['@anonymous']\nrepositories = ['**']\nactions = ['pull']\n";
    let main = format!("{SHARED}{anonymous}");
    let pull = domain("", "anonymous = 'pull'\n");
    let said = said_of_shared(&main, &[&domain("", ""), &pull]);
    assert!(
        !said.contains("without a login nothing is allowed"),
        "{said}"
    );
    assert!(
        said.contains("no rule allows `@anonymous` to pull"),
        "{said}"
    );
    let said = said_of_shared(
        &main,
        &[
            &domain("", ""),
            &pull.replace(TOP, &format!("{TOP}inherit = false\n")),
        ],
    );
    assert!(
        said.contains("without a login nothing is allowed"),
        "{said}"
    );
    assert!(
        !said.contains("no rule allows `@anonymous` to pull"),
        "{said}"
    );
}

#[test]
fn conditions_are_what_they_say() {
    let [rule] = <[_; 1]>::try_from(rules(
        "[[access]]\nusers = ['alice']\nrepositories = ['release/**']\nactions = ['push', 'overwrite']\n\
         from = 'ci/**'\nimmutable_after = '7d'\n",
    ))
    .expect("one rule");
    let from = rule.conditions.from.as_deref().expect("sources");
    assert_eq!(from[0].as_str(), "ci/**");
    let week = std::time::Duration::from_secs(7 * 86_400);
    assert_eq!(rule.conditions.immutable_after, Some(week));
}

#[test]
fn conditions_are_for_rules_that_allow_what_they_bind() {
    let cases: &[(&str, &str)] = &[
        ("actions = ['push']\nfrom = ['ci/app', 'ci/${user}']", ""),
        (
            "actions = ['push']\nfrom = []",
            "`access.from` is empty: the rule could never match\n",
        ),
        (
            "actions = ['push']\nfrom = 7",
            "`access.from` must be a list, not an integer\n",
        ),
        (
            "actions = ['push']\nfrom = 'CI'",
            "`access.from` has a character that is in no repository name\n",
        ),
        (
            "actions = ['pull', 'delete-tag']\nfrom = 'ci/app'",
            "`access.from` has no effect without `push` or `overwrite` in `actions`\n",
        ),
        (
            "deny = true\nactions = ['push']\nfrom = 'ci/app'",
            "`access.from` is for rules that allow, and this one denies\n",
        ),
        (
            "actions = ['push']\nfrom = 'ci-/app'",
            "no repository name can match `ci-/app`\n",
        ),
        (
            "actions = ['delete-tag']\nimmutable_after = '0s'",
            "`access.immutable_after` is zero\n",
        ),
        (
            "actions = ['push']\nimmutable_after = '7d'",
            "`access.immutable_after` has no effect without `overwrite` or `delete-tag` in `actions`\n",
        ),
        (
            "deny = true\nactions = ['overwrite']\nimmutable_after = '7d'",
            "`access.immutable_after` is for rules that allow, and this one denies\n",
        ),
        (
            "actions = ['all']\nimmutable_after = '7d'",
            "a rule with `immutable_after` cannot allow `delete-manifest`: it deletes a manifest with all its tags, however old they are\n",
        ),
    ];
    for (keys, expected) in cases {
        let rule = format!("[[access]]\nusers = ['alice']\nrepositories = ['release/*']\n{keys}\n");
        assert_eq!(warned(&rule), *expected, "{keys}");
    }
}

#[test]
fn behind_a_url_a_source_must_follow_from_the_name() {
    let rule = |repositories: &str, from: &str| {
        format!(
            "[[access]]\nusers = ['alice']\nrepositories = ['{repositories}']\nactions = ['push']\nfrom = '{from}'\n"
        )
    };
    let cases = [
        ("release/**", "ci/**", true),
        ("release/**", "ci/app", true),
        ("*/release/*", "*/ci/*", true),
        ("release/**", "ci/*", false),
        ("release/app", "ci/*", false),
        ("a*b*", "c*d*", false),
    ];
    for (repositories, from, is_clear) in cases {
        let expected = format!(
            "`access.from` does not say which repository of `{from}` belongs to one of `{repositories}`\n"
        );
        let expected = if is_clear { "" } else { &expected };
        assert_eq!(warned(&rule(repositories, from)), expected);
    }
    let unclear = rule("release/**", "ci/*");
    let in_store = domain("", &unclear).replace("url = 'http://registry:5000'", "directory = 'ci'");
    assert_eq!(resolve_all("", &[(&in_store, None)]).1.iter().count(), 0);
    let shared = said_of_shared(&unclear, &[&domain("", "")]);
    assert!(
        shared.contains("belongs to one of `release/**`, in the rule at moorgate.toml:2"),
        "{shared}"
    );
}

#[test]
fn conditions_that_another_rule_makes_void_are_warned_of() {
    let rule = |users: &str, repositories: &str, rest: &str| {
        format!("[[access]]\nusers = ['{users}']\nrepositories = ['{repositories}']\n{rest}\n")
    };
    let promotion = rule(
        "alice",
        "release/app",
        "actions = ['push']\nfrom = 'ci/app'",
    );
    let aging = rule(
        "alice",
        "release/app",
        "actions = ['overwrite']\nimmutable_after = '7d'",
    );
    let of = |key: &str| {
        format!(
            "`access.{key}` does not hold for these users: line 13 allows them more without it\n"
        )
    };
    let cases = [
        (
            &promotion,
            rule("*", "**", "actions = ['pull', 'push']"),
            of("from"),
        ),
        (
            &promotion,
            rule("*", "**", "actions = ['pull', 'delete-tag']"),
            String::new(),
        ),
        (
            &promotion,
            rule("bob", "**", "actions = ['push']"),
            String::new(),
        ),
        (
            &promotion,
            rule("*", "ci/**", "actions = ['push']"),
            String::new(),
        ),
        (
            &promotion,
            rule("*", "**", "actions = ['push']\ntags = ['dev']"),
            String::new(),
        ),
        (
            &aging,
            rule("*", "**", "actions = ['delete-manifest']"),
            of("immutable_after"),
        ),
        (&aging, rule("*", "**", "actions = ['push']"), String::new()),
    ];
    for (condition, other, expected) in cases {
        assert_eq!(warned(&format!("{condition}{other}")), expected, "{other}");
    }
}
