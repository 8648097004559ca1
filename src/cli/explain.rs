//! `moorgate explain USER ACTION REPO[:TAG]`: explains whether a user or the members of a group may
//! do something, and which rule decides.

mod answer;
mod query;
mod subject;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

pub use self::answer::{AccessExplanation, AccessVerdict};
use self::query::AccessQuery;
use self::subject::ExplainSubject;
use crate::auth::UsersFile;
use crate::auth::htpasswd::{Htpasswd, Skipped};
use crate::auth::policy::{Policy, Principal};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::VirtualHost;
use crate::registry::action::{Action, Actions};
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
    /// End with status 1 unless everything that is asked is allowed in each domain that is printed.
    #[arg(long)]
    pub exit_code: bool,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuestion<'a> {
    /// The name of a user, `@GROUP`, `@authenticated` or `@anonymous`.
    pub user: &'a str,
    /// Each of them is answered by itself.
    pub actions: Actions,
    /// A repository, or a repository and a tag.
    pub target: &'a str,
}

/// Prints the decisions of each domain about a user or group, an action, and a repository or tag.
/// Returns whether all of them allow it.
pub fn run(
    snapshot: &Snapshot,
    question: AccessQuestion<'_>,
    options: &ExplainOptions,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let answers = answers(snapshot, question, options)?;
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &answers)?;
        writeln!(out)?;
    } else {
        for answer in &answers {
            writeln!(out, "{}", answer.text(question.target))?;
        }
    }
    Ok(answers.iter().all(AccessExplanation::is_allowed))
}

/// The decision of each domain about each action.
pub fn answers(
    snapshot: &Snapshot,
    question: AccessQuestion<'_>,
    options: &ExplainOptions,
) -> anyhow::Result<Vec<AccessExplanation>> {
    let (repository, tag) = repository_and_tag(question.target)?;
    let subject = ExplainSubject::parse(question.user)?;
    let hosts = hosts(snapshot, options.domain.as_deref())?;
    subject.ensure_exists(&hosts)?;
    let mut answers = Vec::new();
    for host in hosts {
        let domain = DomainQuestion {
            host,
            policy: Policy::new(&host.access, host.auth.anonymous.actions()),
            users: UsersFile::open(&host.auth.htpasswd)?.current(),
            client: options.client.to_canonical(),
            actions: question.actions,
            repository: repository.as_str(),
            tag: tag.as_ref().map(Tag::as_str),
        };
        let of_action = |action| domain.explanation(&subject, action);
        answers.extend(question.actions.iter().map(of_action));
    }
    Ok(answers)
}

/// The question as it is put to one domain.
struct DomainQuestion<'a> {
    host: &'a VirtualHost,
    policy: Policy,
    users: Arc<Htpasswd>,
    client: IpAddr,
    actions: Actions,
    repository: &'a str,
    tag: Option<&'a str>,
}

impl DomainQuestion<'_> {
    fn explanation(&self, subject: &ExplainSubject, action: Action) -> AccessExplanation {
        let (verdict, notes, members) = match subject {
            ExplainSubject::Anonymous => self.of_one(None, action),
            ExplainSubject::User(user) => self.of_one(Some(user.as_str()), action),
            ExplainSubject::Group(_) | ExplainSubject::Authenticated => {
                self.of_group(subject, action)
            }
        };
        AccessExplanation {
            domain: self.host.domain.to_string(),
            action: action.to_string(),
            verdict,
            open: self.policy.is_open(),
            caveats: notes,
            members,
        }
    }

    /// The decision about a user, or about clients without a login.
    fn of_one(&self, user: Option<&str>, action: Action) -> Explained {
        let query = self.query(&self.policy, user, action);
        let verdict = self.verdict(user, &query);
        let caveats = if verdict.known {
            query.caveats()
        } else {
            Vec::new()
        };
        (verdict, caveats, None)
    }

    /// The decision about whoever is in a group and named by no rule besides, and those about its
    /// members.
    fn of_group(&self, subject: &ExplainSubject, action: Action) -> Explained {
        let name = subject.to_string();
        let Some(members) = subject.members(self.host, &self.users) else {
            let verdict = AccessVerdict {
                user: name,
                known: false,
                allowed: false,
                rule: None,
                groups: Vec::new(),
                reason: "there is no such group in this domain".to_owned(),
            };
            return (verdict, Vec::new(), Some(Vec::new()));
        };
        let rules = subject.rules_of_members(&self.host.access);
        let policy = Policy::new(&rules, self.host.auth.anonymous.actions());
        // The name is no repository's, so that a `${user}` is nobody's.
        let query = self.query(&policy, Some(&name), action);
        let members: Vec<_> = members
            .iter()
            .map(|member| {
                self.verdict(
                    Some(member),
                    &self.query(&self.policy, Some(member), action),
                )
            })
            .collect();
        let known = members.iter().any(|member| member.known);
        let verdict = AccessVerdict {
            user: name.clone(),
            known,
            allowed: known && query.decision().allowed,
            rule: query.decision().rule.map(ToString::to_string),
            groups: Vec::new(),
            reason: if known {
                query.reason()
            } else {
                "the htpasswd file has none of its members".to_owned()
            },
        };
        let caveats = if known { query.caveats() } else { Vec::new() };
        (verdict, caveats, Some(members))
    }

    fn query<'q>(
        &'q self,
        policy: &'q Policy,
        user: Option<&'q str>,
        action: Action,
    ) -> AccessQuery<'q> {
        AccessQuery {
            policy,
            host: self.host,
            principal: Principal {
                user,
                client: self.client,
            },
            action,
            all_actions: self.actions,
            repository: self.repository,
            tag: self.tag,
        }
    }

    fn verdict(&self, user: Option<&str>, query: &AccessQuery<'_>) -> AccessVerdict {
        let decision = query.decision();
        let known = user.is_none_or(|user| self.users.has(user));
        AccessVerdict {
            user: user.unwrap_or(subject::ANONYMOUS).to_owned(),
            known,
            allowed: known && decision.allowed,
            rule: decision.rule.map(ToString::to_string),
            groups: query.groups(),
            reason: match user.filter(|_| !known) {
                None => query.reason(),
                Some(user) => no_login(&self.users, user, &self.host.auth.htpasswd),
            },
        }
    }
}

/// A verdict with its caveats, and those of the members of a group.
type Explained = (AccessVerdict, Vec<String>, Option<Vec<AccessVerdict>>);

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

#[cfg(test)]
mod tests;
