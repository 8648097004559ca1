//! `moorgate explain` of groups, and of all actions at once.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Domain, Setup, cli};

const SHARED: &str = "[groups]\nrelease = ['alice', 'bob', 'dora']\n\
    [[access]]\nusers = ['@release']\nrepositories = ['base/*']\nactions = ['push', 'pull']\n";
const OWN: &str = "[groups]\nops = ['carol']\nidle = ['erin']\n\
    [[access]]\ndeny = true\nusers = ['bob']\nrepositories = ['**']\nactions = ['push']\n\
    [[access]]\nusers = ['@ops', 'carol']\nrepositories = ['**']\nactions = ['all']\n\
    [[access]]\nusers = ['@ops', '@release']\nrepositories = ['tools']\nactions = ['pull']\ntags = ['v*']\n\
    [[access]]\nusers = ['*']\nrepositories = ['${user}/**']\nactions = ['pull']\n";

fn setup() -> tempfile::TempDir {
    let with = |domain: Domain, users: &[&str]| {
        let users = users.iter();
        users.fold(domain, |domain, user| domain.user(user, "secret"))
    };
    let directory = tempfile::tempdir().unwrap();
    Setup::new()
        .domain(with(
            Domain::store("a.test", "a").tables(OWN),
            &["bob", "carol"],
        ))
        .domain(with(
            Domain::store("b.test", "b").top("inherit = false"),
            &["bob"],
        ))
        .main(SHARED)
        .write(directory.path());
    directory
}

/// What the command prints and says, and how it ends.
async fn explain(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let all = [&["explain"], arguments].concat();
    let (status, printed, said) = cli(directory, &all).await;
    (status.unwrap(), printed + &said)
}

#[tokio::test]
async fn explain_of_a_group_says_what_its_members_may() {
    let directory = setup();
    let said = async |arguments: &[&str]| explain(directory.path(), arguments).await.1;
    insta::assert_snapshot!(said(&["@release", "push", "base/app:v1"]).await, @r"
    a.test: @release may push base/app:v1: by the rule at moorgate.toml:9
      if the tag exists with other content, this is `overwrite`, which is not allowed: no rule allows it
      this holds for alice
      bob may not: by the rule at conf.d/a.test.toml:14
      not in the htpasswd file: dora
    b.test: @release may not push base/app:v1: there is no such group in this domain
    ");
    insta::assert_snapshot!(said(&["@release", "pull", "alice/app", "--domain", "a.test"]).await, @r"
    a.test: @release may not pull alice/app: no rule allows it
      this holds for bob
      alice may: by the rule at conf.d/a.test.toml:28
      not in the htpasswd file: dora
    ");
    insta::assert_snapshot!(said(&["@idle", "pull", "base/app", "--domain", "a.test"]).await, @r"
    a.test: @idle may not pull base/app: the htpasswd file has none of its members
      not in the htpasswd file: erin
    ");
    insta::assert_snapshot!(said(&["@authenticated", "pull", "base/app"]).await, @r"
    a.test: @authenticated may not pull base/app: no rule allows it
      alice may: by the rule at moorgate.toml:9, as a member of @release
      bob may: by the rule at moorgate.toml:9, as a member of @release
      carol may: by the rule at conf.d/a.test.toml:19
    b.test: @authenticated may pull base/app: there are no access rules, so every user may do everything
      this holds for alice and bob
    ");
    insta::assert_snapshot!(said(&["@nobody", "pull", "base/app"]).await, @"moorgate: there is no group @nobody; there are: @idle, @ops, @release");
    insta::assert_snapshot!(said(&["@nobody", "pull", "base/app", "--domain", "b.test"]).await, @"moorgate: there is no group @nobody, nor any other");
}

#[tokio::test]
async fn explain_names_the_group_by_which_a_rule_is_about_a_user() {
    let directory = setup();
    let said = async |user: &str, what: &str| {
        let (_, said) = explain(
            directory.path(),
            &[user, "pull", what, "--domain", "a.test"],
        )
        .await;
        said
    };
    insta::assert_snapshot!(said("alice", "base/app").await, @"a.test: alice may pull base/app: by the rule at moorgate.toml:9, as a member of @release");
    insta::assert_snapshot!(said("alice", "tools").await, @"a.test: alice may pull tools: by the rule at conf.d/a.test.toml:23, as a member of @release");
    // By name as well.
    insta::assert_snapshot!(said("carol", "tools").await, @"a.test: carol may pull tools: by the rule at conf.d/a.test.toml:19");
    let arguments = ["alice", "pull", "base/app", "--domain", "a.test", "--json"];
    let (_, printed) = explain(directory.path(), &arguments).await;
    let answers: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answers[0]["groups"], serde_json::json!(["@release"]));
}

#[tokio::test]
async fn explain_of_all_actions_has_a_line_for_each() {
    let directory = setup();
    let (_, said) = explain(
        directory.path(),
        &["alice", "all", "base/app:v1", "--domain", "a.test"],
    )
    .await;
    insta::assert_snapshot!(said, @r"
    a.test: alice may pull base/app:v1: by the rule at moorgate.toml:9, as a member of @release
    a.test: alice may push base/app:v1: by the rule at moorgate.toml:9, as a member of @release
    a.test: alice may not overwrite base/app:v1: no rule allows it
    a.test: alice may not delete-tag base/app:v1: no rule allows it
    a.test: alice may not delete-manifest base/app:v1: no rule allows it
    a.test: alice may not list base/app:v1: no rule allows it
    a.test: alice may not catalog base/app:v1: no rule allows it
    a.test: alice may mount-from base/app:v1: by the rule at moorgate.toml:9, as a member of @release
    ");
    let ends = async |user: &str, domain: &str| {
        let arguments = [user, "all", "base/app", "--domain", domain, "--exit-code"];
        explain(directory.path(), &arguments).await.0
    };
    assert_eq!(ends("alice", "a.test").await, 1, "some of them");
    assert_eq!(ends("carol", "a.test").await, 0);
    assert_eq!(ends("alice", "b.test").await, 0);
}

#[tokio::test]
async fn a_group_may_only_what_all_of_its_members_may_who_can_log_in() {
    let directory = setup();
    let ends = async |user: &str, action: &str| {
        let arguments = [
            user,
            action,
            "base/app",
            "--domain",
            "a.test",
            "--exit-code",
        ];
        explain(directory.path(), &arguments).await.0
    };
    // dora has no login, and bob may not push.
    assert_eq!(ends("@release", "pull").await, 0);
    assert_eq!(ends("@release", "push").await, 1);
    assert_eq!(ends("@ops", "all").await, 0);
    assert_eq!(ends("@idle", "pull").await, 1);
    let arguments = ["@release", "all", "base/app", "--json"];
    let (_, printed) = explain(directory.path(), &arguments).await;
    let answers: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 16, "{printed}");
    let push = &answers[1];
    assert_eq!(
        (&push["action"], &push["user"]),
        (&"push".into(), &"@release".into())
    );
    let members = push["members"].as_array().unwrap().iter();
    let members: Vec<_> = members
        .map(|one| {
            (
                one["user"].as_str().unwrap(),
                one["known"] == true,
                one["allowed"] == true,
            )
        })
        .collect();
    assert_eq!(
        members,
        [
            ("alice", true, true),
            ("bob", true, false),
            ("dora", false, false)
        ]
    );
}
