//! Rules and groups of `moorgate.toml` hold for all domains that do not refuse them.

use moorgate::internal::app::StartError;
use moorgate::internal::config::Colour;

use crate::harness::{Domain, Events, Gateway, Setup, cli, log_lines, settle};
use crate::store::client::{Client, Endpoint};
use crate::store::image::Image;

const RULES: &str = "[groups]\ndevs = ['alice', 'bob']\n\
    [[access]]\nusers = ['@devs']\nrepositories = ['**']\nactions = ['pull', 'list']\n\
    [[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
    [[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/secret']\nactions = ['pull']\n";

/// The same rules where `[admin]` stands before them.
const LINES: [&str; 3] = ["moorgate.toml:9", "moorgate.toml:13", "moorgate.toml:17"];

fn domain(name: &str) -> Domain {
    let domain = Domain::store(name, name.split('.').next().unwrap());
    domain.user("root", "secret")
}

/// `plain.test` says nothing of access, `own.test` has a rule, and `open.test` refuses what
/// moorgate.toml says.
fn setup(rules: &str) -> Setup {
    let own =
        "[[access]]\nusers = ['@devs']\nrepositories = ['base/**']\nactions = ['push', 'pull']\n";
    Setup::new()
        .domain(domain("plain.test"))
        .domain(domain("own.test").tables(own))
        .domain(domain("open.test").top("inherit = false"))
        .main(rules)
}

fn client(gateway: &Gateway, host: &str, user: &str) -> Client {
    let endpoint = Endpoint {
        host: host.to_owned(),
        ..Endpoint::new(gateway, "http/1.1")
    };
    endpoint.client().of(user)
}

/// The status of a push of a tag.
async fn push(gateway: &Gateway, host: &str, user: &str) -> u16 {
    let mut client = client(gateway, host, user);
    let answer = client.ask("POST", "/v2/base/app/blobs/uploads/").await;
    answer.status
}

#[tokio::test]
async fn rules_of_moorgate_toml_hold_for_each_domain_that_does_not_refuse_them() {
    let gateway = setup(RULES).start().await;
    let (lines, writer) = log_lines(&gateway);
    let image = Image::small(1);
    for host in ["plain.test", "own.test", "open.test"] {
        let mut root = client(&gateway, host, "root");
        root.push("base/app", "v1", &image).await;
        root.push("base/secret", "v1", &image).await;
        let mut alice = client(&gateway, host, "alice");
        alice.check("base/app", "v1", &image).await;
    }
    // A deny of moorgate.toml beats what the domain allows, whose own rules allow more.
    let mut statuses = Vec::new();
    for host in ["plain.test", "own.test", "open.test"] {
        let mut alice = client(&gateway, host, "alice");
        let secret = alice.get("/v2/base/secret/manifests/v1").await.status;
        statuses.push((push(&gateway, host, "alice").await, secret));
    }
    assert_eq!(statuses, [(403, 403), (202, 403), (202, 200)]);
    settle().await;
    gateway.stop().await;
    gateway.app.access_log().close();
    writer.join().unwrap();
    let refused = lines.try_iter().filter_map(|line| {
        let (_, rule) = line.split_once(" rule=")?;
        Some(rule.split(' ').next()?.to_owned())
    });
    // The first requests for blobs of `base/secret` are HEAD, which a push allows.
    assert_eq!(refused.collect::<Vec<_>>(), [LINES[2], "none", LINES[2]]);
}

#[tokio::test]
async fn rules_of_moorgate_toml_hold_for_tokens_and_without_a_login() {
    let public =
        "[[access]]\nusers = ['@anonymous']\nrepositories = ['public/**']\nactions = ['pull']\n";
    let pulls = "anonymous = 'pull'";
    let setup = Setup::new()
        .domain(domain("ci.test").auth("mode = 'token'"))
        .domain(domain("pull.test").auth(pulls))
        .domain(domain("open.test").auth(pulls).top("inherit = false"))
        .main(&format!("{RULES}{public}"));
    let gateway = setup.start().await;
    let mut alice = client(&gateway, "ci.test", "alice");
    let scopes = "/token?service=ci.test&scope=repository:base/app:pull,push";
    let token = alice.get(scopes).await.is(200).json();
    let token = token["token"].as_str().unwrap().to_owned();
    let mut bearer = client(&gateway, "ci.test", "alice").bearing(&token);
    let pulled = bearer.get("/v2/base/app/manifests/v1").await.is(404).json();
    assert_eq!(pulled["errors"][0]["code"], "NAME_UNKNOWN", "{pulled}");
    let pushed = bearer.ask("POST", "/v2/base/app/blobs/uploads/").await;
    pushed.refused(403, "DENIED");

    let image = Image::small(1);
    let mut pulled = Vec::new();
    for host in ["pull.test", "open.test"] {
        let mut root = client(&gateway, host, "root");
        let mut anonymous = client(&gateway, host, "root").anonymous();
        for repository in ["public/app", "base/app"] {
            root.push(repository, "v1", &image).await;
            let manifest = format!("/v2/{repository}/manifests/v1");
            pulled.push(anonymous.get(&manifest).await.status);
        }
    }
    assert_eq!(pulled, [200, 401, 200, 200]);
}

#[tokio::test]
async fn a_reload_applies_moorgate_toml_to_all_domains_or_to_none() {
    let gateway = setup(RULES).start().await;
    let all = async |user: &str| {
        let mut statuses = Vec::new();
        for host in ["plain.test", "open.test"] {
            statuses.push(push(&gateway, host, user).await);
        }
        statuses
    };
    assert_eq!(all("alice").await, [403, 202]);

    let group = RULES.replace("devs", "people");
    setup(&group).write(gateway.directory.path());
    let Err(StartError::Configuration(problems)) = gateway.app.reload().await else {
        panic!("own.test names a group that has gone")
    };
    let problems = problems.render(Colour::Never);
    assert!(problems.contains("conf.d/own.test.toml"), "{problems}");
    assert_eq!(all("alice").await, [403, 202]);

    let wider = RULES.replace("'list'", "'push'");
    setup(&wider).write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
    assert_eq!(all("alice").await, [202, 202]);
}

#[tokio::test]
async fn a_domain_that_asks_for_rules_is_not_opened_when_moorgate_toml_has_none() {
    let asking = domain("asking.test").top("inherit = true");
    let gateway = Setup::new()
        .domain(asking)
        .domain(domain("plain.test"))
        .main(RULES)
        .start()
        .await;
    let main = gateway.path("moorgate.toml");
    let rules = std::fs::read_to_string(&main).unwrap();
    let events = Events::kept();
    std::fs::write(&main, rules.replace(RULES, "")).unwrap();
    assert!(gateway.app.reload().await.is_err());
    assert_eq!(push(&gateway, "asking.test", "alice").await, 403);
    // Of others it is said that they are open now.
    std::fs::remove_file(gateway.path("conf.d/asking.test.toml")).unwrap();
    gateway.app.reload().await.unwrap();
    assert_eq!(push(&gateway, "plain.test", "alice").await, 202);
    let opened = events.with("no access rules any more");
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert!(opened[0].contains("domain=\"plain.test\""), "{opened:?}");
}

/// What `check` warns of.
async fn warnings(setup: &Setup) -> String {
    let directory = tempfile::tempdir().unwrap();
    setup.write(directory.path());
    let (status, _, said) = cli(directory.path(), &["check"]).await;
    assert_eq!(status, Some(0), "{said}");
    said
}

#[tokio::test]
async fn users_in_rules_of_moorgate_toml_are_warned_of_if_no_domain_has_them() {
    let rules = "[groups]\ndevs = ['alice', 'alcie']\n[[access]]\nusers = ['@devs', 'ci', 'rob', 'Ann', 'Bob']\n\
        repositories = ['${user}/**']\nactions = ['pull']\n";
    let named = |name: &str, user: &str| Domain::store(name, user).user(user, "secret");
    let setup = Setup::new()
        .domain(named("a.test", "ci"))
        .domain(named("b.test", "bob").user("Ann", "secret"))
        .domain(named("c.test", "rob").top("inherit = false"))
        .main(&format!("{rules}[[access]]\nusers = ['*']\nrepositories = ['in/${{user}}']\nactions = ['push']\n"));
    insta::assert_snapshot!(warnings(&setup).await, @r"
    warning: no user of any domain is called `alcie`
     --> DIR/moorgate.toml:8:18
      |
    8 | devs = ['alice', 'alcie']
      |                  ^^^^^^^
      |
      = help: correct the name, or add the user to a domain with `moorgate htpasswd FILE USER`

    warning: no user of any domain is called `rob`
      --> DIR/moorgate.toml:10:25
       |
    10 | users = ['@devs', 'ci', 'rob', 'Ann', 'Bob']
       |                         ^^^^^
       |
       = help: correct the name, or add the user to a domain with `moorgate htpasswd FILE USER`

    warning: no user of any domain is called `Bob`
      --> DIR/moorgate.toml:10:39
       |
    10 | users = ['@devs', 'ci', 'rob', 'Ann', 'Bob']
       |                                       ^^^^^
       |
       = help: correct the name, or add the user to a domain with `moorgate htpasswd FILE USER`

    warning: `${user}/**` can be no repository of `Ann` of b.test
      --> DIR/moorgate.toml:11:17
       |
    11 | repositories = ['${user}/**']
       |                 ^^^^^^^^^^^^
       |
       = help: a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    warning: `in/${user}` can be no repository of `Ann` of b.test
      --> DIR/moorgate.toml:15:17
       |
    15 | repositories = ['in/${user}']
       |                 ^^^^^^^^^^^^
       |
       = help: a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, `_`, `__` or dashes between them

    5 warnings
    ");
}

#[tokio::test]
async fn explain_names_the_rule_of_moorgate_toml() {
    let directory = tempfile::tempdir().unwrap();
    setup(RULES).write(directory.path());
    let (_, said, _) = cli(directory.path(), &["explain", "root", "push", "base/app"]).await;
    insta::assert_snapshot!(said, @r"
    open.test: root may push base/app: there are no access rules, so every user may do everything
    own.test: root may push base/app: by the rule at moorgate.toml:13
    plain.test: root may push base/app: by the rule at moorgate.toml:13
    ");
}
