use std::path::Path;
use std::time::Duration;

use super::super::tests::{messages, rendered, valid, with};
use super::*;
use crate::config::retention::HoursOfDay;
use crate::config::values::{DAY, GIB};
use crate::registry::product::Product;

const HOUR: Duration = Duration::from_hours(1);
const STORE: &str = "[upstream]\ndirectory = 'ci'\n";

fn of_store(more: &str) -> String {
    with("upstream", &format!("{STORE}{more}"))
}

fn problems(more: &str) -> Vec<String> {
    messages("", &[&of_store(more)])
}

/// Of a rule for all repositories with these keys.
fn problems_of_rule(more: &str) -> Vec<String> {
    problems(&format!("[[retention]]\nrepositories = ['**']\n{more}"))
}

#[test]
fn rules_and_settings_are_read_whole() {
    let text = of_store(
        "[[retention]]
        repositories = ['cache/**', 'inbox']
        tags = ['r*']
        protect = ['latest', 'v*.*.*']
        keep = { newest = 5, pulled_within = '30d', pushed_within = '7d' }
        ttl = '90d'
        per = { regex = '^(.*)-[0-9]+$' }
        expiry_label = 'lives-for'
        [[retention]]
        repositories = ['**']
        expiry_label = 'none'
        [retention_settings]
        every = 'never'
        hours = '22:30-5:00'
        max_tags = 10
        max_share = '100%'
        min_age = '1h'
        dry_run = true
        in_use = ['in-use.txt', 'https://deploy.example.com/images']",
    );
    let snapshot = valid("", &[&text]);
    let settings = snapshot.domains[0].retention.as_ref().expect("retention");
    let [first, second] = settings.rules.as_slice() else {
        panic!("{settings:?}");
    };
    let texts = |patterns: &[Pattern]| -> Vec<String> {
        patterns.iter().map(|tag| tag.as_str().to_owned()).collect()
    };
    assert_eq!(first.repositories[1].as_str(), "inbox");
    assert_eq!(texts(&first.tags), ["r*"]);
    assert_eq!(texts(&first.protect), ["latest", "v*.*.*"]);
    let keep = Keep {
        newest: Some(5),
        pulled_within: Some(30 * DAY),
        pushed_within: Some(7 * DAY),
    };
    assert_eq!((first.keep, first.ttl), (Some(keep), Some(90 * DAY)));
    let Grouping::Expression(expression) = &first.per else {
        panic!("{:?}", first.per);
    };
    assert_eq!(&expression.captures("main-7").expect("a match")[1], "main");
    assert_eq!(first.expiry_label.as_deref(), Some("lives-for"));
    assert_eq!(first.location.to_string(), "conf.d/a.toml:8");

    assert_eq!(texts(&second.tags), ["*"]);
    assert!(second.protect.is_empty() && matches!(second.per, Grouping::Repository));
    assert_eq!((second.keep, second.ttl), (None, None));
    assert_eq!(second.expiry_label, None);

    let runs = &settings.runs;
    let hours = HoursOfDay {
        from: 1350,
        to: 300,
    };
    assert_eq!((runs.every, runs.hours), (None, Some(hours)));
    assert_eq!((runs.max_tags, runs.max_share), (10, 100));
    assert_eq!((runs.min_age, runs.dry_run), (HOUR, Some(true)));
    let [InUseSource::File(file), InUseSource::Url(url)] = runs.in_use.as_slice() else {
        panic!("{:?}", runs.in_use);
    };
    assert_eq!(file, Path::new("conf.d/in-use.txt"));
    assert_eq!(url.to_string(), "https://deploy.example.com/images");
}

#[test]
fn a_short_rule_gets_the_defaults() {
    let snapshot = valid("", &[&of_store("[[retention]]\nrepositories = ['**']")]);
    let settings = snapshot.domains[0].retention.as_ref().expect("retention");
    let label = settings.rules[0].expiry_label.as_deref();
    assert_eq!(label, Some("quay.expires-after"));
    let runs = &settings.runs;
    assert_eq!((runs.every, runs.hours), (Some(DAY), None));
    assert_eq!((runs.max_tags, runs.max_share), (1_000, 50));
    assert_eq!((runs.min_age, runs.dry_run), (DAY, None));
    assert!(runs.in_use.is_empty());
    let none = valid("", &[&of_store("")]);
    assert!(none.domains[0].retention.is_none() && none.domains[0].quotas.is_empty());
}

#[test]
fn rules_must_say_what_they_are_for() {
    let cases: &[(&str, &[&str])] = &[
        (
            "[[retention]]",
            &["`retention.repositories` is missing in this rule"],
        ),
        (
            "[[retention]]\nrepositories = []",
            &["`retention.repositories` is empty: the rule could never match"],
        ),
        (
            "[[retention]]\nrepositories = ['${user}/**']",
            &["`retention.repositories` has `${user}`, and a run is no user's"],
        ),
        (
            "[retention_settings]\nmax_tags = 5",
            &["`[retention_settings]` has no effect without a [[retention]] rule"],
        ),
        // What is wrong with the rules is told alone.
        (
            "[retention]\n[retention_settings]",
            &["`retention` must be an array of tables, not a table"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), *expected, "{text}");
    }
}

#[test]
fn values_of_rules_are_checked() {
    let cases: &[(&str, &[&str])] = &[
        (
            "tags = []",
            &["`retention.tags` is empty: the rule could never match"],
        ),
        ("protect = []", &["`retention.protect` is empty"]),
        ("protect = ['a b']", &["`retention.protect` is not a tag"]),
        (
            "keep = {}",
            &["`retention.keep` names nothing that keeps a tag"],
        ),
        (
            "keep = 5",
            &["`retention.keep` must be a table, not an integer"],
        ),
        (
            "keep = { newest = 0 }",
            &["`retention.keep.newest` is out of bounds"],
        ),
        (
            "keep = { pulled_within = '0d' }",
            &["`retention.keep.pulled_within` is zero"],
        ),
        (
            "keep = { pushed_within = 7 }",
            &["`retention.keep.pushed_within` must be a string in quotes, not an integer"],
        ),
        (
            "keep = { newst = 5, newest = 5 }",
            &["unknown key `newst` in [retention.keep]"],
        ),
        ("ttl = '0s'", &["`retention.ttl` is zero"]),
        (
            "expiry_label = ''",
            &["`retention.expiry_label` is not the name of a label"],
        ),
        ("per = 'prefix'", &["`retention.per` is not a known value"]),
        (
            "per = 7",
            &["`retention.per` must be a string in quotes, not an integer"],
        ),
        (
            "per = {}",
            &["`retention.per` is not a table of `regex` alone"],
        ),
        (
            "per = { regx = '(a)' }",
            &["`retention.per` has the unknown key `regx`"],
        ),
        (
            "per = { regex = '(a' }",
            &["`retention.per` is not a regular expression: found open group without closing ')'"],
        ),
        (
            "per = { regex = '^a$' }",
            &["`retention.per` has no group: nothing says which tags belong together"],
        ),
        (
            "per = { regex = '^(?:a)$' }",
            &["`retention.per` has no group: nothing says which tags belong together"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems_of_rule(text), *expected, "{text}");
    }
    let long = format!("per = {{ regex = '({})' }}", "a".repeat(300));
    assert_eq!(problems_of_rule(&long), ["`retention.per` is too long"]);
}

#[test]
fn values_of_settings_are_checked() {
    let hours = "`retention_settings.hours` are not hours of the day";
    let cases: &[(&str, &[&str])] = &[
        ("every = '0s'", &["`retention_settings.every` is zero"]),
        (
            "every = '30s'",
            &["`retention_settings.every` is too short"],
        ),
        ("hours = '25:00-1:00'", &[hours]),
        ("hours = '1:60-2:00'", &[hours]),
        ("hours = '1-5'", &[hours]),
        ("hours = '+1:00-5:00'", &[hours]),
        ("hours = '24:00-5:00'", &[hours]),
        ("hours = '23:00-24:01'", &[hours]),
        ("hours = '23:00-24:00'", &[]),
        (
            "hours = '05:00-5:00'",
            &["`retention_settings.hours` begin and end at the same time"],
        ),
        (
            "hours = '00:00-24:00'",
            &["`retention_settings.hours` begin and end at the same time"],
        ),
        (
            "max_tags = 0",
            &["`retention_settings.max_tags` is out of bounds"],
        ),
        (
            "max_share = '0%'",
            &["`retention_settings.max_share` is out of bounds"],
        ),
        (
            "max_share = '101%'",
            &["`retention_settings.max_share` is out of bounds"],
        ),
        (
            "max_share = '50'",
            &["`retention_settings.max_share` is not a share in percent"],
        ),
        (
            "max_share = '-5%'",
            &["`retention_settings.max_share` is not a share in percent"],
        ),
        ("max_share = '1 %'", &[]),
        ("min_age = '0s'", &["`retention_settings.min_age` is zero"]),
        (
            "in_use = ['https://u:p@example.com/list']",
            &["`retention_settings.in_use` holds credentials"],
        ),
        (
            "in_use = ['']",
            &["`retention_settings.in_use` is not a path"],
        ),
        (
            "in_use = ['ftp://example.com/list']",
            &["`retention_settings.in_use` does not begin with http:// or https://"],
        ),
        (
            "houres = '1:00-2:00'",
            &["unknown key `houres` in [retention_settings]"],
        ),
    ];
    for (text, expected) in cases {
        let text = format!("[[retention]]\nrepositories = ['**']\n[retention_settings]\n{text}");
        assert_eq!(problems(&text), *expected, "{text}");
    }
}

#[test]
fn a_problem_shows_its_line_and_never_a_password() {
    let text = "[[retention]]\nrepositories = ['**']\nper = { regex = '^a' }\n\
                [retention_settings]\nin_use = ['https://u:p4ss@example.com/list']";
    insta::assert_snapshot!(rendered("", &[&of_store(text)]), @r#"
    error: `retention.per` has no group: nothing says which tags belong together
      --> conf.d/a.toml:10:7
       |
    10 | per = { regex = '^a' }
       |       ^^^^^^^^^^^^^^^^
       |
       = help: write one with a group for what tags have in common, such as { regex = "^(.*)-[0-9]+$" }

    error: `retention_settings.in_use` holds credentials
      --> conf.d/a.toml:12:11
       |
    12 | in_use = […]
       |           ^
       |
       = help: lists of images are fetched without a login: write the URL without one, or a file that somebody else fetches
    "#);
}

#[test]
fn rules_that_are_hardly_intended_are_warned_of() {
    let cases: &[(&str, &[&str])] = &[
        (
            "ttl = '1h'",
            &[
                "warning: `retention.ttl` is shorter than `min_age`: nothing is taken away before that",
            ],
        ),
        ("ttl = '24h'", &[]),
        ("ttl = '1h'\n[retention_settings]\nmin_age = '30min'", &[]),
        (
            "per = 'semver-line'\nkeep = { pulled_within = '3d' }",
            &["warning: `retention.per` has no effect without `keep = { newest = … }`"],
        ),
        ("per = 'semver-line'\nkeep = { newest = 3 }", &[]),
        (
            "tags = ['v*']\nprotect = ['v*']",
            &["warning: `retention.protect` covers all tags of the rule: it takes none away"],
        ),
        ("tags = ['v*']\nprotect = ['v1*']", &[]),
        (
            "[[retention]]\nrepositories = ['a/**']\ntags = ['v*']",
            &["warning: this rule can never match: the one at line 8 matches all of it before"],
        ),
        (
            "tags = ['v*']\n[[retention]]\nrepositories = ['a/**']\ntags = ['v1.*']",
            &["warning: this rule can never match: the one at line 8 matches all of it before"],
        ),
        ("tags = ['v*']\n[[retention]]\nrepositories = ['a/**']", &[]),
        (
            "tags = ['v*']\n[[retention]]\nrepositories = ['a-/**']",
            &["warning: no repository name can match `a-/**`"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems_of_rule(text), *expected, "{text}");
    }
}

#[test]
fn two_cleaners_must_not_fight() {
    let rule = "[[retention]]\nrepositories = ['**']\n";
    let fights = |product: &str, cleanup: &str| {
        vec![format!(
            "warning: the product \"{product}\" may delete by {cleanup}, and two cleaners must not fight: \
             scheduled runs only report"
        )]
    };
    let of = |upstream: &str, more: &str| {
        let domain = with("upstream", &format!("[upstream]\n{upstream}\n{rule}{more}"));
        messages("", &[&domain])
    };
    for product in Product::ALL {
        let name = product.as_str();
        let upstream = format!("url = 'https://r.example.com'\nproduct = '{name}'");
        let expected = match product.cleanup() {
            Some(cleanup) => fights(name, cleanup),
            None => Vec::new(),
        };
        assert_eq!(of(&upstream, ""), expected);
        for decided in ["dry_run = true", "dry_run = false"] {
            let settings = format!("[retention_settings]\n{decided}");
            assert_eq!(of(&upstream, &settings), [""; 0]);
        }
    }
    assert_eq!(
        of("url = 'https://quay.io'", ""),
        fights("quay", "auto-prune policies")
    );
    assert_eq!(of("url = 'https://r.example.com'", ""), [""; 0]);
    assert_eq!(
        of("url = 'https://r.example.com'\nauthorization = 'pass'", ""),
        [
            "[[retention]] does not work with `upstream.authorization` \"pass\": moorgate has no login of its own there"
        ]
    );
}

#[test]
fn runs_only_report_where_the_product_deletes_by_itself() {
    let mut runs = RetentionRuns::default();
    assert!(!runs.is_dry_run(None));
    assert!(!runs.is_dry_run(Some(Product::Distribution)));
    assert!(runs.is_dry_run(Some(Product::Harbor)));
    runs.dry_run = Some(false);
    assert!(!runs.is_dry_run(Some(Product::Harbor)));
    runs.dry_run = Some(true);
    assert!(runs.is_dry_run(None));
}

#[test]
fn quotas_are_read_and_checked() {
    let text = of_store(
        "[[quota]]\nrepositories = ['${user}/**', 'home/${user}-x']\nsize = '20 GiB'\n\
         [[quota]]\nrepositories = ['**']\nsize = 5",
    );
    let snapshot = valid("", &[&text]);
    let [first, second] = snapshot.domains[0].quotas.as_slice() else {
        panic!("two quotas");
    };
    assert_eq!(first.size, 20 * GIB);
    assert_eq!(second.size, 5);
    assert_eq!(second.location.to_string(), "conf.d/a.toml:11");

    let open = "`${user}` in `quota.repositories` leaves open which user's a repository is";
    let cases: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "`quota.repositories` is missing in this rule",
                "`quota.size` is missing",
            ],
        ),
        (
            "repositories = []\nsize = 5",
            &["`quota.repositories` is empty: the rule could never match"],
        ),
        (
            "repositories = ['**']\nsize = 0",
            &["`quota.size` is too small"],
        ),
        (
            "repositories = ['**']\nsize = '5 XB'",
            &["`quota.size` is not a size"],
        ),
        (
            "repositories = ['${user}/**', 'a']\nsize = 5",
            &["`quota.repositories` has `${user}` in some patterns only"],
        ),
        ("repositories = ['${user}-*/**']\nsize = 5", &[open]),
        ("repositories = ['*${user}/**']\nsize = 5", &[open]),
        ("repositories = ['**/${user}']\nsize = 5", &[open]),
        ("repositories = ['${user}/${user}']\nsize = 5", &[open]),
        ("repositories = ['*/${user}/*']\nsize = 5", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(&format!("[[quota]]\n{text}")), *expected, "{text}");
    }
    let upstream = with("", "[[quota]]\nrepositories = ['**']\nsize = 5");
    assert_eq!(
        messages("", &[&upstream]),
        ["[[quota]] is for a `directory`, and this registry is at a `url`"]
    );
}
