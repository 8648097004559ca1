//! What `moorgate check` says of names: those that the htpasswd file lacks, and those that it has
//! in vain.

use crate::harness::{Domain, Setup, cli};

/// What the command warns of.
async fn warnings(domain: Domain) -> String {
    let directory = tempfile::tempdir().unwrap();
    Setup::new().domain(domain).write(directory.path());
    let (status, _, said) = cli(directory.path(), &["check"]).await;
    assert_eq!(status, Some(0), "{said}");
    said
}

fn domain(users: &[&str], rules: &str) -> Domain {
    let domain = Domain::new("ci.test", "http://127.0.0.1:1").tables(rules);
    users
        .iter()
        .fold(domain, |domain, user| domain.user(user, "secret"))
}

#[tokio::test]
async fn users_that_no_htpasswd_has_are_warned_of() {
    let rules = "[groups]\ndevs = ['alice', 'alcie']\n[[access]]\nusers = ['@devs', 'bob', 'rob', 'b*', 'c*']\n\
        repositories = ['**']\nactions = ['pull']\n";
    insta::assert_snapshot!(warnings(domain(&["bob"], rules)).await, @r#"
    warning: no user in the htpasswd file is called `alcie`
      --> DIR/conf.d/ci.test.toml:12:18
       |
    12 | devs = ['alice', 'alcie']
       |                  ^^^^^^^
       |
       = help: correct the name, or add the user with `moorgate htpasswd FILE USER`

    warning: no user in the htpasswd file is called `rob`
      --> DIR/conf.d/ci.test.toml:14:26
       |
    14 | users = ['@devs', 'bob', 'rob', 'b*', 'c*']
       |                          ^^^^^
       |
       = help: correct the name, or add the user with `moorgate htpasswd FILE USER`

    warning: no user in the htpasswd file is called `c*`
      --> DIR/conf.d/ci.test.toml:14:39
       |
    14 | users = ['@devs', 'bob', 'rob', 'b*', 'c*']
       |                                       ^^^^
       |
       = help: correct the name, or add the user with `moorgate htpasswd FILE USER`

    3 warnings
    "#);
}

#[tokio::test]
async fn users_who_can_have_no_repository_of_their_own_are_warned_of() {
    let rules = "[groups]\ndevs = ['Alice']\n\
        [[access]]\nusers = ['Alice']\nrepositories = ['${user}/**']\nactions = ['push']\n\
        [[access]]\nusers = ['*']\nrepositories = ['x', 'in/${user}']\nactions = ['push']\n\
        [[access]]\nusers = ['@devs']\nrepositories = ['a${user}']\nactions = ['push']\n\
        [[access]]\nusers = ['bob']\nrepositories = ['${user}/**']\nactions = ['push']\n\
        [[access]]\ndeny = true\nusers = ['Alice']\nrepositories = ['${user}/secret']\nactions = ['push']\n";
    let users = ["Alice", "bob", "ci@example.com", "a/b", "x..y", "-z"];
    insta::assert_snapshot!(warnings(domain(&users, rules)).await, @r#"
    warning: `${user}/**` can be no repository of `Alice`
      --> DIR/conf.d/ci.test.toml:15:17
       |
    15 | repositories = ['${user}/**']
       |                 ^^^^^^^^^^^^
       |
       = help: a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: `in/${user}` can be no repository of `-z`, `Alice`, `a/b`, `ci@example.com` and 1 more
      --> DIR/conf.d/ci.test.toml:19:22
       |
    19 | repositories = ['x', 'in/${user}']
       |                      ^^^^^^^^^^^^
       |
       = help: a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: `a${user}` can be no repository of `Alice`
      --> DIR/conf.d/ci.test.toml:23:17
       |
    23 | repositories = ['a${user}']
       |                 ^^^^^^^^^^
       |
       = help: a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    3 warnings
    "#);
}

#[tokio::test]
async fn explain_ends_as_it_answers_if_it_is_told_to() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['a']\nactions = ['push']\ntags = ['release']\n";
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(domain(&[], rules));
    setup.write(directory.path());
    let ends = async |user: &str, what: &str, options: &[&str]| {
        let arguments = [&["explain", user, "push", what], options].concat();
        let (status, printed, _) = cli(directory.path(), &arguments).await;
        (status.unwrap(), printed)
    };
    let (status, printed) = ends("alice", "a:release", &["--exit-code"]).await;
    assert_eq!(status, 0, "{printed}");
    for (what, options, expected) in [
        ("a:other", &["--exit-code"][..], 1),
        ("a:other", &["--exit-code", "--json"], 1),
        ("a:other", &[], 0),
    ] {
        let (status, printed) = ends("alice", what, options).await;
        assert_eq!(status, expected, "{printed}");
    }
    assert_eq!(ends("nobody", "a:release", &["--exit-code"]).await.0, 1);
    let (_, printed) = ends("alice", "a", &[]).await;
    let caveat = "\n  this concerns only the tags `release`; ask with a tag for others\n";
    assert!(printed.ends_with(caveat), "{printed}");
}
