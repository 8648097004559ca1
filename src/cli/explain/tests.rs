use super::*;

fn said(arguments: (&str, &str, &str), options: &ExplainOptions) -> String {
    let directory = tempfile::tempdir().expect("directory");
    let folder = directory.path().join("conf.d");
    std::fs::create_dir(&folder).expect("conf.d");
    let rest = "[tls]\ninternal = true\n[auth]\nhtpasswd = 'users'\n[upstream]\nurl = 'http://registry:5000'\n";
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    std::fs::write(
        folder.join("users"),
        format!("alice:{hash}\nbob:$apr1$x$y\n"),
    )
    .expect("htpasswd");
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['base/**']\nactions = ['pull', 'push']\n\
        networks = ['127.0.0.0/8']\n[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['**']\n\
        tags = ['v*']\nactions = ['push']\n[[access]]\nusers = ['alice']\nrepositories = ['in/**']\n\
        actions = ['push']\n";
    std::fs::write(
        folder.join("a.toml"),
        format!("domain = 'a.test'\n{rest}{rules}"),
    )
    .expect("a");
    let open = rest.replace("[upstream]", "anonymous = 'pull'\n[upstream]");
    std::fs::write(folder.join("b.toml"), format!("domain = 'b.test'\n{open}")).expect("b");
    let loaded = crate::config::load(directory.path()).expect("valid");
    let (user, action, target) = arguments;
    let mut out = Vec::new();
    let question = AccessQuestion {
        user,
        actions: action.parse().expect("an action"),
        target,
    };
    match run(&loaded.snapshot, question, options, &mut out) {
        Ok(_) => String::from_utf8(out).expect("text"),
        Err(error) => format!("{error:#}"),
    }
}

fn options(domain: Option<&str>) -> ExplainOptions {
    ExplainOptions {
        domain: domain.map(str::to_owned),
        client: Ipv4Addr::LOCALHOST.into(),
        json: false,
        exit_code: false,
    }
}

#[test]
fn the_deciding_rule_is_named_for_each_domain() {
    let all = options(None);
    insta::assert_snapshot!(said(("alice", "push", "base/app:latest"), &all), @r"
    a.test: alice may push base/app:latest: by the rule at conf.d/a.toml:8
      if the tag exists with other content, this is `overwrite`, which is not allowed: no rule allows it
      this applies to 127.0.0.1: from 128.0.0.0, among others, it is not allowed: no rule allows it
    b.test: alice may push base/app:latest: there are no access rules, so every user may do everything
    ");
    insta::assert_snapshot!(said(("alice", "push", "base/app:v1"), &options(Some("a.test"))), @"a.test: alice may not push base/app:v1: by the rule at conf.d/a.toml:13");
    insta::assert_snapshot!(said(("@anonymous", "pull", "base/app"), &all), @r"
    a.test: @anonymous may not pull base/app: without a login nothing is allowed here, whatever the rules say
    b.test: @anonymous may pull base/app: there are no access rules, so everything can be read without a login
    ");
    insta::assert_snapshot!(said(("@anonymous", "push", "base/app"), &options(Some("b.test"))), @"b.test: @anonymous may not push base/app: without a login only reading is allowed here, whatever the rules say");
    insta::assert_snapshot!(said(("alice", "overwrite", "base/app:latest"), &options(Some("a.test"))), @r"
    a.test: alice may not overwrite base/app:latest: no rule allows it
      if the tag does not exist yet, this is `push`, which is allowed: by the rule at conf.d/a.toml:8
    ");
    insta::assert_snapshot!(said(("alice", "pull", "in/app"), &options(Some("a.test"))), @r"
    a.test: alice may not pull in/app: no rule allows it
      HEAD requests, which clients send before a push, are allowed with `push`: by the rule at conf.d/a.toml:19
    ");
    let elsewhere = ExplainOptions {
        client: "::ffff:10.0.0.1".parse().expect("an address"),
        ..options(Some("a.test"))
    };
    insta::assert_snapshot!(said(("alice", "pull", "base/app"), &elsewhere), @r"
    a.test: alice may not pull base/app: no rule allows it
      this applies to 10.0.0.1: from 127.0.0.0, among others, it is allowed: by the rule at conf.d/a.toml:8
    ");
    insta::assert_snapshot!(said(("nobody", "pull", "base/app"), &all), @r"
    a.test: nobody may not pull base/app: the htpasswd file has no such user
    b.test: nobody may not pull base/app: the htpasswd file has no such user
    ");
    let said_of_bob = said(("bob", "pull", "base/app"), &options(Some("a.test")));
    let cause =
        "`bob` has an MD5 password ($apr1$), only bcrypt is accepted: run `moorgate htpasswd ";
    assert!(
        said_of_bob
            .starts_with("a.test: bob may not pull base/app: nobody can log in so: line 2 of "),
        "{said_of_bob}"
    );
    assert!(said_of_bob.contains(cause), "{said_of_bob}");
    let json = ExplainOptions {
        json: true,
        ..options(Some("a.test"))
    };
    insta::assert_snapshot!(said(("alice", "pull", "base/app"), &json), @r#"
    [
      {
        "domain": "a.test",
        "action": "pull",
        "user": "alice",
        "known": true,
        "allowed": true,
        "rule": "conf.d/a.toml:8",
        "groups": [],
        "reason": "by the rule at conf.d/a.toml:8",
        "open": false,
        "notes": [
          "this applies to 127.0.0.1: from 128.0.0.0, among others, it is not allowed: no rule allows it"
        ]
      }
    ]
    "#);
}

#[test]
fn what_cannot_be_explained_says_why() {
    let none = options(Some("c.test"));
    insta::assert_snapshot!(said(("alice", "pull", "a"), &none), @"there is no domain c.test; there are: a.test, b.test");
    insta::assert_snapshot!(said(("alice", "pull", "a.test:443/a"), &options(None)), @"`a.test:443/a` has no valid tag: the tag is not valid");
    insta::assert_snapshot!(said(("a:b", "pull", "a"), &options(None)), @"`a:b` is no user: the user name has a colon");
}
