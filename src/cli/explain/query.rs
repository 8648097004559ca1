//! A query to the access rules of one domain, with the reason of the decision and its caveats.

use std::net::IpAddr;
use std::time::Duration;

use crate::auth::policy::{Decision, Policy, Principal};
use crate::config::access::{AccessRule, Selector, age_text};
use crate::config::vhost::VirtualHost;
use crate::registry::action::{Action, Actions};
use crate::registry::pattern::RepositoryPattern;

/// A principal, an action and a repository of one domain.
#[derive(Clone, Copy)]
pub(super) struct AccessQuery<'a> {
    pub(super) policy: &'a Policy,
    pub(super) host: &'a VirtualHost,
    pub(super) principal: Principal<'a>,
    pub(super) action: Action,
    /// All actions that are asked about: what is said of one of them needs no caveat at another.
    pub(super) all_actions: Actions,
    pub(super) repository: &'a str,
    pub(super) tag: Option<&'a str>,
}

impl<'a> AccessQuery<'a> {
    pub(super) fn decision(&self) -> Decision<'a> {
        self.policy
            .decide(self.principal, self.action, self.repository, self.tag)
    }

    /// The reason of the decision.
    pub(super) fn reason(&self) -> String {
        let decision = self.decision();
        let anonymous = self.host.auth.anonymous.actions();
        let may_read = self.action == Action::MountFrom && anonymous.has(Action::Pull);
        match decision.rule {
            Some(rule) => match self.groups().as_slice() {
                [] => format!("by the rule at {rule}"),
                groups => format!(
                    "by the rule at {rule}, as a member of {}",
                    groups.join(" and ")
                ),
            },
            None if self.principal.user.is_none() && !anonymous.has(self.action) && !may_read => {
                if anonymous.is_empty() {
                    "without a login nothing is allowed here, whatever the rules say".to_owned()
                } else {
                    "without a login only reading is allowed here, whatever the rules say"
                        .to_owned()
                }
            }
            None if self.policy.is_open() && decision.allowed && self.principal.user.is_none() => {
                "there are no access rules, so everything can be read without a login".to_owned()
            }
            None if self.policy.is_open() && decision.allowed => {
                "there are no access rules, so every user may do everything".to_owned()
            }
            None => "no rule allows it".to_owned(),
        }
    }

    /// The groups because of which the deciding rule is about the user; none if it is anyway.
    pub(super) fn groups(&self) -> Vec<String> {
        let Some((rule, user)) = self.rule().zip(self.principal.user) else {
            return Vec::new();
        };
        let mut groups = Vec::new();
        for selector in &rule.users {
            match selector {
                Selector::Group { name, members } => {
                    if members.iter().any(|member| **member == *user) {
                        groups.push(format!("@{name}"));
                    }
                }
                Selector::Name(pattern) if !pattern.matches(user) => {}
                Selector::Anonymous if rule.deny => {}
                Selector::Name(_) | Selector::Authenticated | Selector::Anonymous => {
                    return Vec::new();
                }
            }
        }
        groups
    }

    /// The deciding rule, as it is written.
    fn rule(&self) -> Option<&'a AccessRule> {
        let location = self.decision().rule?;
        let mut rules = self.host.access.rules.iter();
        rules.find(|rule| rule.location == *location)
    }

    /// Circumstances in which the decision differs.
    pub(super) fn caveats(&self) -> Vec<String> {
        [
            self.head_requests(),
            self.only_some_tags(),
            self.other_state_of_the_tag(),
            self.other_addresses(),
        ]
        .into_iter()
        .chain(self.conditions())
        .flatten()
        .collect()
    }

    /// What the rules demand that allow it, if none allows it without.
    fn conditions(&self) -> Vec<Option<String>> {
        let Some(tag) = self.tag else {
            let rule = self.rule().filter(|_| self.action.is_of_tag());
            let bound = rule.map(|rule| rule.conditions.of_action(self.action));
            let text = bound.and_then(|(from, age)| self.condition(from, age));
            let digest = match self.action {
                Action::Push => "; blobs, and manifests by digest, have no condition",
                _ => "",
            };
            return vec![text.map(|text| format!("{text}{digest}"))];
        };
        let decided = self
            .policy
            .decide_tag(self.principal, self.action, self.repository, tag);
        let texts = decided.conditions.iter().filter_map(|condition| {
            let text = self.condition(condition.from, condition.immutable_after)?;
            Some((text, condition.rule))
        });
        let mut texts: Vec<_> = texts.collect();
        texts.dedup();
        let is_one = texts.len() == 1;
        let lines = texts.into_iter().map(|(text, rule)| {
            Some(if is_one {
                text
            } else {
                format!("by the rule at {rule} {text}")
            })
        });
        lines.collect()
    }

    fn condition(
        &self,
        from: Option<&[RepositoryPattern]>,
        immutable_after: Option<Duration>,
    ) -> Option<String> {
        let user = self.principal.user;
        let source = from.map(|from| {
            let from: Vec<_> = from.iter().map(|from| from.for_user(user)).collect();
            let user = user.unwrap_or("the client");
            format!(
                "only to a manifest that another repository has where {user} may see it: {}",
                from.join(" or ")
            )
        });
        let age = immutable_after.map(|age| {
            format!(
                "only within {} after the push that set the tag",
                age_text(age)
            )
        });
        let texts: Vec<_> = source.into_iter().chain(age).collect();
        (!texts.is_empty()).then(|| texts.join(", and "))
    }

    /// A principal that may push may send HEAD requests, unless a rule denies `pull`.
    fn head_requests(&self) -> Option<String> {
        let decision = self.decision();
        let push = Self {
            action: Action::Push,
            ..*self
        };
        let helps = self.action == Action::Pull && !decision.allowed && !decision.is_denied();
        (helps && push.decision().allowed).then(|| {
            format!(
                "HEAD requests, which clients send before a push, are allowed with `push`: {}",
                push.reason()
            )
        })
    }

    /// Without a tag in the question, a rule with `tags` decides about its tags alone.
    fn only_some_tags(&self) -> Option<String> {
        let tags = self.rule()?.tags.as_ref().filter(|_| self.tag.is_none())?;
        let tags: Vec<_> = tags
            .iter()
            .map(|tag| format!("`{}`", tag.as_str()))
            .collect();
        let is_of_tags = matches!(
            self.action,
            Action::Push | Action::Overwrite | Action::DeleteTag
        );
        is_of_tags.then(|| {
            format!(
                "this concerns only the tags {}; ask with a tag for others",
                tags.join(", ")
            )
        })
    }

    /// A write to a tag needs `push` or `overwrite`, depending on whether the tag exists.
    fn other_state_of_the_tag(&self) -> Option<String> {
        self.tag?;
        let (other, when) = match self.action {
            Action::Push => (Action::Overwrite, "if the tag exists with other content"),
            Action::Overwrite => (Action::Push, "if the tag does not exist yet"),
            _ => return None,
        };
        if self.all_actions.has(other) {
            return None;
        }
        let alternative = Self {
            action: other,
            ..*self
        };
        let (this, that) = (self.decision(), alternative.decision());
        let verb = if that.allowed {
            "allowed"
        } else {
            "not allowed"
        };
        (this.allowed != that.allowed).then(|| {
            format!(
                "{when}, this is `{other}`, which is {verb}: {}",
                alternative.reason()
            )
        })
    }

    /// An address from which the decision differs.
    fn other_addresses(&self) -> Option<String> {
        let of = |client: IpAddr| Self {
            principal: Principal {
                client,
                ..self.principal
            },
            ..*self
        };
        let allowed = self.decision().allowed;
        let other = self
            .policy
            .representative_addresses()
            .into_iter()
            .map(of)
            .find(|other| other.decision().allowed != allowed)?;
        let verb = if allowed { "not allowed" } else { "allowed" };
        let (here, there) = (self.principal.client, other.principal.client);
        Some(format!(
            "this applies to {here}: from {there}, among others, it is {verb}: {}",
            other.reason()
        ))
    }
}
