//! `moorgate explain USER ACTION REPO[:TAG]`: explains whether an action is allowed, and which rule
//! decides.

mod query;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;

use self::query::AccessQuery;
use crate::auth::htpasswd::{Htpasswd, Skipped};
use crate::auth::policy::{Policy, Principal};
use crate::auth::{UserName, UsersFile};
use crate::config::access::RuleLocation;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::VirtualHost;
use crate::registry::action::Action;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// Options of `moorgate explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainOptions {
    /// Only this domain; all domains by default.
    #[arg(long)]
    pub domain: Option<String>,
    /// The client's address, for rules with `networks`; a further line is printed if the answer
    /// differs elsewhere.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub client: IpAddr,
    /// Print a JSON array instead.
    #[arg(long)]
    pub json: bool,
    /// End with status 1 if a domain that is printed does not allow it.
    #[arg(long)]
    pub exit_code: bool,
}

/// The decision of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessExplanation {
    pub domain: String,
    /// Whether the htpasswd file contains the user; others cannot log in.
    pub known: bool,
    pub allowed: bool,
    /// The deciding rule, `FILE:LINE`; `None` if no rule matches.
    pub rule: Option<String>,
    /// Whether the domain has no rule at all.
    pub open: bool,
    /// The reason as text.
    pub reason: String,
    /// Circumstances in which the decision differs.
    #[serde(rename = "notes")]
    pub caveats: Vec<String>,
}

/// What a user wants to do.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuestion<'a> {
    /// The name, or `@anonymous`.
    pub user: &'a str,
    pub action: Action,
    /// A repository, or a repository and a tag.
    pub target: &'a str,
}

/// Prints the decision of each domain about a user, an action, and a repository or tag. Returns
/// whether all of them allow it.
pub fn run(
    snapshot: &Snapshot,
    question: AccessQuestion<'_>,
    options: &ExplainOptions,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let answers = answers(snapshot, question, options)?;
    let all_allow = answers.iter().all(|answer| answer.allowed);
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &answers)?;
        writeln!(out)?;
        return Ok(all_allow);
    }
    for answer in answers {
        writeln!(out, "{}", line(&answer, question))?;
    }
    Ok(all_allow)
}

/// The decision of each domain.
pub fn answers(
    snapshot: &Snapshot,
    question: AccessQuestion<'_>,
    options: &ExplainOptions,
) -> anyhow::Result<Vec<AccessExplanation>> {
    let AccessQuestion {
        user,
        action,
        target,
    } = question;
    let (repository, tag) = repository_and_tag(target)?;
    let user = match user {
        "@anonymous" => None,
        user => Some(UserName::new(user).with_context(|| format!("`{user}` is no user"))?),
    };
    let principal = Principal {
        user: user.as_ref().map(UserName::as_str),
        client: options.client.to_canonical(),
    };
    let hosts = hosts(snapshot, options.domain.as_deref())?;
    let answer = |host: &VirtualHost| {
        let policy = Policy::new(&host.access, host.auth.anonymous.actions());
        let tag = tag.as_ref().map(Tag::as_str);
        let query = AccessQuery {
            policy: &policy,
            host,
            principal,
            action,
            repository: repository.as_str(),
            tag,
        };
        let decision = query.decision();
        let users = UsersFile::open(&host.auth.htpasswd)?;
        let known = principal.user.is_none_or(|user| users.current().has(user));
        Ok(AccessExplanation {
            domain: host.domain.to_string(),
            known,
            allowed: known && decision.allowed,
            rule: decision.rule.map(RuleLocation::to_string),
            open: policy.is_open(),
            reason: match principal.user.filter(|_| !known) {
                None => query.reason(),
                Some(user) => no_login(&users.current(), user, &host.auth.htpasswd),
            },
            caveats: if known { query.caveats() } else { Vec::new() },
        })
    };
    hosts.into_iter().map(answer).collect()
}

/// Why a user cannot log in.
fn no_login(users: &Htpasswd, user: &str, file: &Path) -> String {
    let is_users = |line: &&Skipped| line.user.as_ref().is_some_and(|name| name.as_str() == user);
    let Some(line) = users.skipped().iter().find(is_users) else {
        return "the htpasswd file has no such user".to_owned();
    };
    let file = file.display().to_string();
    let remedy = line.remedy(&file).map(|remedy| format!(": {remedy}"));
    let (number, cause) = (line.line, line.cause());
    format!(
        "nobody can log in so: line {number} of {file}: {cause}{}",
        remedy.unwrap_or_default()
    )
}

fn repository_and_tag(target: &str) -> anyhow::Result<(RepositoryName, Option<Tag>)> {
    let (repository, tag) = target
        .split_once(':')
        .map_or((target, None), |(name, tag)| (name, Some(tag)));
    let repository = RepositoryName::parse(repository).with_context(|| {
        format!("`{repository}` is not a repository: write it without the domain")
    })?;
    let tag = tag
        .map(Tag::parse)
        .transpose()
        .with_context(|| format!("`{target}` has no valid tag"))?;
    Ok((repository, tag))
}

fn hosts<'a>(snapshot: &'a Snapshot, domain: Option<&str>) -> anyhow::Result<Vec<&'a VirtualHost>> {
    let named = |host: &&VirtualHost| domain.is_none_or(|domain| host.domain.as_str() == domain);
    let hosts: Vec<_> = snapshot
        .domains
        .iter()
        .map(|host| &**host)
        .filter(named)
        .collect();
    if hosts.is_empty() {
        let known: Vec<_> = snapshot
            .domains
            .iter()
            .map(|host| host.domain.as_str())
            .collect();
        bail!(
            "there is no domain {}; there are: {}",
            domain.unwrap_or_default(),
            known.join(", ")
        );
    }
    Ok(hosts)
}

fn line(answer: &AccessExplanation, question: AccessQuestion<'_>) -> String {
    let AccessQuestion {
        user,
        action,
        target,
    } = question;
    let AccessExplanation {
        domain,
        known: _,
        allowed,
        rule: _,
        open: _,
        reason,
        caveats,
    } = answer;
    let verb = if *allowed { "may" } else { "may not" };
    let caveats: String = caveats
        .iter()
        .map(|caveat| format!("\n  {caveat}"))
        .collect();
    format!("{domain}: {user} {verb} {action} {target}: {reason}{caveats}")
}

#[cfg(test)]
mod tests {
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
            action: Action::parse(action).expect("an action"),
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
            "known": true,
            "allowed": true,
            "rule": "conf.d/a.toml:8",
            "open": false,
            "reason": "by the rule at conf.d/a.toml:8",
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
}
