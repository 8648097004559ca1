//! What `moorgate explain` says is what a request gets, and the log names the rule that refused.

use moorgate::internal::cli::{AccessQuestion, AccessVerdict, ExplainOptions, answers};
use moorgate::internal::registry::{Action, Actions};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::fixture::{AccessFixture, Kind, Login, allow};
use crate::harness::{log_lines, settle};
use crate::store::client::Client;
use crate::store::image::{Image, MANIFEST, sha256};

const REPOSITORIES: [&str; 3] = ["base/app", "alice/app", "bob/app"];

/// A rule as it is written.
fn any_rule() -> impl Strategy<Value = String> {
    let actions: Vec<_> = Action::ALL
        .iter()
        .map(|action| format!("'{action}'"))
        .collect();
    (
        proptest::bool::weighted(0.3),
        prop::sample::select(vec!["'alice'", "'@devs'", "'b*', 'x'", "'*'", "'@authenticated'", "'@anonymous'"]),
        prop::sample::select(vec!["'**'", "'base/*'", "'${user}/**'", "'*/app'", "'bob/app', 'base/app'"]),
        prop::sample::subsequence(actions, 1..4),
        prop::option::weighted(0.3, prop::sample::select(vec!["'v*'", "'new'", "'*'"])),
        prop::option::weighted(0.2, prop::sample::select(vec!["'10.0.0.0/8'", "'127.0.0.0/8'"])),
    )
        .prop_map(|(deny, users, repositories, actions, tags, networks)| {
            let key = |name: &str, value: Option<&str>| {
                value.map_or(String::new(), |value| format!("{name} = [{value}]\n"))
            };
            format!(
                "[[access]]\ndeny = {deny}\nusers = [{users}]\nrepositories = [{repositories}]\nactions = [{}]\n{}{}",
                actions.join(", "),
                key("tags", tags),
                key("networks", networks)
            )
        })
}

/// What is asked, and as what: a repository, with the tag if the action is about one.
fn what(action: Action, repository: &str) -> String {
    match action {
        Action::Push => format!("{repository}:new"),
        Action::Overwrite => format!("{repository}:v1"),
        Action::DeleteTag => format!("{repository}:away"),
        _ => repository.to_owned(),
    }
}

/// Whether the request of an action succeeds.
async fn is_done(
    client: &mut Client,
    action: Action,
    repository: &str,
    images: &[Image; 2],
) -> bool {
    let [image, other] = images;
    let at = |rest: &str| format!("/v2/{repository}/{rest}");
    let kind = [("content-type", MANIFEST)];
    let done = |status: u16| (200..300).contains(&status);
    match action {
        Action::Pull => done(client.get(&at("manifests/v1")).await.status),
        Action::List => done(client.get(&at("tags/list")).await.status),
        Action::Push => done(
            client
                .ask_with("PUT", &at("manifests/new"), &kind, image.manifest.clone())
                .await
                .status,
        ),
        Action::Overwrite => done(
            client
                .ask_with("PUT", &at("manifests/v1"), &kind, other.manifest.clone())
                .await
                .status,
        ),
        Action::DeleteTag => done(client.ask("DELETE", &at("manifests/away")).await.status),
        Action::DeleteManifest => done(
            client
                .ask("DELETE", &at(&format!("manifests/{}", image.digest())))
                .await
                .status,
        ),
        Action::Catalog => {
            let catalog = client.get("/v2/_catalog").await;
            done(catalog.status)
                && catalog.json()["repositories"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|name| name == repository)
        }
        Action::MountFrom => {
            let blob = sha256(&image.config);
            let target = format!("/v2/mounted/app/blobs/uploads/?mount={blob}&from={repository}");
            client.ask("POST", &target).await.status == 201
        }
    }
}

/// What `explain` says of a question, and what its request is refused by in the log, if it is.
struct Said {
    answer: AccessVerdict,
    refused_by: String,
}

fn said(fixture: &AccessFixture, user: &str, action: Action, repository: &str) -> Said {
    let loaded = moorgate::internal::config::load(fixture.gateway.directory.path()).unwrap();
    let options = ExplainOptions {
        domain: None,
        client: "127.0.0.1".parse().unwrap(),
        json: false,
        exit_code: false,
    };
    let asked = |action, what: &str| {
        let question = AccessQuestion {
            user,
            actions: Actions::from(action),
            target: what,
        };
        answers(&loaded.snapshot, question, &options)
            .unwrap()
            .remove(0)
            .verdict
    };
    let rule = |answer: &AccessVerdict| answer.rule.clone().unwrap_or_else(|| "none".to_owned());
    let answer = asked(action, &what(action, repository));
    // Who may neither make nor move a tag is told that it may not be made.
    let push = asked(Action::Push, &what(Action::Overwrite, repository));
    let refused_by = if action == Action::Overwrite && !push.allowed {
        rule(&push)
    } else {
        rule(&answer)
    };
    Said { answer, refused_by }
}

/// What the log has to say of a request: whose it is, whether it is refused and by which rule;
/// `None` where the rule is another question.
type Line = (String, Option<(bool, String)>);

/// The lines of requests that are not root's and no preparation.
fn of_asker(lines: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let field = |line: &str, name: &str| {
        let at = line.split_once(&format!(" {name}="))?.1;
        Some(at.split(' ').next()?.to_owned())
    };
    lines
        .filter(|line| !matches!(field(line, "call").as_deref(), Some("token")))
        .map(|line| {
            (
                field(&line, "user").unwrap().replace('-', "@anonymous"),
                field(&line, "rule"),
            )
        })
        .filter(|(user, _)| user != "root")
        .collect()
}

/// Makes what the questions are about, as root, who may do everything at that time.
async fn prepared(fixture: &AccessFixture, login: Login, repository: &str, images: &[Image; 2]) {
    fixture.rules("").await;
    let mut root = fixture.login(login, "root", &[repository]).await;
    root.push(repository, "v1", &images[0]).await;
    root.push(repository, "other", &images[1]).await;
    root.push_manifest(repository, "away", &images[0].manifest)
        .await
        .is(201);
    root.ask("DELETE", &format!("/v2/{repository}/manifests/new"))
        .await;
}

async fn compared(kind: Kind, login: Login, rounds: usize) {
    const EXTRA: &str =
        "[[access]]\nusers = ['*']\nrepositories = ['mounted/app']\nactions = ['push']\n";
    let mode = if login == Login::Token {
        "mode = 'token'\n"
    } else {
        ""
    };
    let auth = format!("anonymous = 'pull'\n{mode}[groups]\ndevs = ['alice', 'carol']");
    let fixture = AccessFixture::with(kind, "", move |domain| domain.auth(&auth)).await;
    let (lines, writer) = log_lines(&fixture.gateway);
    let images = [Image::small(1), Image::small(2)];
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let any = (
        prop::collection::vec(any_rule(), 1..5),
        prop::sample::select(vec!["alice", "bob", "carol", "@anonymous"]),
        prop::sample::select(REPOSITORIES.to_vec()),
    );
    let mut allowed = 0;
    let mut expected: Vec<Line> = Vec::new();
    for round in 0..rounds {
        let (rules, user, repository) = any.new_tree(&mut runner).unwrap().current();
        let rules = format!("{}{EXTRA}", rules.concat());
        for action in Action::ALL {
            // Afresh, as root: a deny of all users would be one of root too.
            prepared(&fixture, login, repository, &images).await;
            fixture.rules(&rules).await;
            let Said { answer, refused_by } = said(&fixture, user, action, repository);
            let mut client = fixture
                .login(login, user, &[repository, "mounted/app"])
                .await;
            let done = is_done(&mut client, action, repository, &images).await;
            // In `alice/app` nothing is mounted: the right to push there is another question.
            let push = said(&fixture, user, Action::Push, "mounted/app").answer;
            if action != Action::MountFrom || push.allowed {
                let context = format!(
                    "{login:?}, round {round}: {user} {action} {repository}: {answer:?}\n{rules}"
                );
                assert_eq!(done, answer.allowed, "{context}");
            }
            allowed += usize::from(done);
            // What is mounted becomes an upload instead, and from the catalog it is left out.
            let refusing = !matches!(action, Action::MountFrom | Action::Catalog);
            expected.push((user.to_owned(), refusing.then_some((!done, refused_by))));
        }
    }
    let asked = 8 * rounds;
    assert!(
        (asked / 8..asked * 7 / 8).contains(&allowed),
        "{allowed} of {asked} were allowed"
    );
    fixture.gateway.stop().await;
    fixture.gateway.app.access_log().close();
    writer.join().unwrap();
    let found = of_asker(lines.try_iter());
    assert_eq!(found.len(), expected.len());
    for (number, ((user, rule), (principal, expected))) in
        found.into_iter().zip(expected).enumerate()
    {
        assert_eq!(user, principal, "line {number}");
        let Some((is_refused, refused_by)) = expected else {
            continue;
        };
        assert_eq!(
            rule,
            is_refused.then_some(refused_by),
            "{login:?}, line {number} of {principal}"
        );
    }
}

#[tokio::test]
async fn explain_agrees_with_requests() {
    compared(Kind::Store, Login::Password, 30).await;
    compared(Kind::Upstream, Login::Password, 12).await;
}

#[tokio::test]
async fn explain_agrees_with_requests_with_tokens() {
    compared(Kind::Store, Login::Token, 20).await;
    compared(Kind::UpstreamHttp2, Login::Token, 8).await;
}

#[tokio::test]
async fn the_log_line_of_a_refusal_names_the_rule() {
    let deny = "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/secret']\nactions = ['pull', 'list']\n";
    let fixture = AccessFixture::new(
        Kind::Store,
        &format!("{}{deny}", allow("base/**", "'pull'")),
    )
    .await;
    let (lines, writer) = log_lines(&fixture.gateway);
    let mut alice = fixture.client("alice");
    alice.get("/v2/base/app/manifests/v1").await.is(404);
    alice.get("/v2/base/secret/manifests/v1").await.is(404);
    alice.get("/v2/other/manifests/v1").await.is(404);
    alice
        .ask("POST", "/v2/base/app/blobs/uploads/")
        .await
        .is(403);
    settle().await;
    drop(alice);
    fixture.gateway.stop().await;
    fixture.gateway.app.access_log().close();
    writer.join().unwrap();
    let text = std::fs::read_to_string(fixture.gateway.path("conf.d/ci.test.toml")).unwrap();
    let deny = text.lines().position(|line| line == "deny = true").unwrap();
    let rule = |line: String| line.split_once(" end=complete").unwrap().1.to_owned();
    let rules: Vec<_> = lines.try_iter().map(rule).collect();
    // Lines count from 1, and the rule begins a line above.
    let named = format!(" rule=conf.d/ci.test.toml:{deny}");
    assert_eq!(
        rules,
        ["", &named, " rule=none", " rule=none reason=denied"]
    );
}

#[tokio::test]
async fn a_refusal_says_when_a_rule_forbids_it() {
    let deny = "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/**']\ntags = ['v*']\n\
        actions = ['overwrite']\n[[access]]\ndeny = true\nusers = ['bob']\nrepositories = ['**']\nactions = ['push']\n";
    let fixture = AccessFixture::new(Kind::Store, &format!("{}{deny}", allow("**", "'all'"))).await;
    let [image, other] = [Image::small(1), Image::small(2)];
    let mut alice = fixture.client("alice");
    alice.push("base/app", "v1", &image).await;
    alice.push("base/app", "other", &other).await;
    let refused = alice.push_manifest("base/app", "v1", &other.manifest).await;
    insta::assert_snapshot!(refused.refused(403, "DENIED"), @"alice may not overwrite base/app:v1, which is there already: a rule forbids it. Where none does, alice may: do everything in **");
    let refused = fixture
        .client("bob")
        .ask("POST", "/v2/base/app/blobs/uploads/")
        .await;
    insta::assert_snapshot!(refused.refused(403, "DENIED"), @"bob may not push to base/app: a rule forbids it");
}

#[tokio::test]
async fn conditions_are_explained() {
    let rules = allow("release/**", "'push', 'overwrite'")
        + "from = 'ci/**'\n"
        + &allow("release/**", "'overwrite', 'delete-tag'")
        + "immutable_after = '7d'\n";
    let fixture = AccessFixture::new(Kind::Store, &rules).await;
    let directory = fixture.gateway.directory.path();
    let snapshot = moorgate::internal::config::load(directory)
        .unwrap()
        .snapshot;
    let said = |action: Action, target: &str| {
        let question = AccessQuestion {
            user: "alice",
            actions: Actions::from(action),
            target,
        };
        let options = ExplainOptions {
            domain: None,
            client: "127.0.0.1".parse().unwrap(),
            json: false,
            exit_code: false,
        };
        let [answer] = <[_; 1]>::try_from(answers(&snapshot, question, &options).unwrap()).unwrap();
        assert!(answer.verdict.allowed);
        answer.caveats
    };
    let from = "only to a manifest that another repository has where alice may see it: ci/**";
    let age = "only within 7d after the push that set the tag";
    assert_eq!(said(Action::Push, "release/app:v1"), [from]);
    assert_eq!(said(Action::DeleteTag, "release/app:v1"), [age]);
    let both = said(Action::Overwrite, "release/app:v1");
    let [first, second] = both.as_slice() else {
        panic!("{both:?}");
    };
    assert!(first.starts_with("by the rule at conf.d/ci.test.toml:") && first.ends_with(from));
    assert!(second.starts_with("by the rule at conf.d/ci.test.toml:") && second.ends_with(age));
    let without_tag = said(Action::Push, "release/app");
    assert_eq!(
        without_tag,
        [format!(
            "{from}; blobs, and manifests by digest, have no condition"
        )]
    );
}
