//! The message for a user who may not do something: one sentence, with what they may do instead.

use crate::auth::policy::{Decision, Principal};
use crate::config::access::RuleLocation;
use crate::registry::action::Action;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::rejection::Rejection;
use crate::request::site::Site;

/// A denied action.
pub(super) struct Denial<'a> {
    pub(super) site: &'a Site,
    pub(super) principal: Principal<'a>,
    pub(super) action: Action,
    pub(super) repository: Option<&'a RepositoryName>,
    pub(super) tag: Option<&'a Tag>,
}

impl Denial<'_> {
    /// The rejection. The rule is logged, never sent.
    pub(super) fn by(&self, decision: Decision<'_>) -> Rejection {
        let rejection = match self.principal.user {
            // A login might help.
            None => Rejection::unauthorized(self.site, "log in to use this registry"),
            Some(user) => Rejection::denied(self.sentence(user, decision.is_denied())),
        };
        rejection.decided_by(decision.rule)
    }

    /// The summary lists what rules allow, which alone would contradict a rule that denies.
    fn sentence(&self, user: &str, is_denied: bool) -> String {
        let repository = self
            .repository
            .map(RepositoryName::as_str)
            .unwrap_or_default();
        let what = match (self.action, self.tag) {
            (Action::Pull, _) => format!("pull {repository}"),
            (Action::Push, None) => format!("push to {repository}"),
            (Action::Push, Some(tag)) => format!("push {repository}:{tag}"),
            (Action::Overwrite, tag) => {
                let tag = tag.map(Tag::as_str).unwrap_or_default();
                format!("overwrite {repository}:{tag}, which is there already")
            }
            (Action::DeleteTag, tag) => {
                format!(
                    "delete {repository}:{}",
                    tag.map(Tag::as_str).unwrap_or_default()
                )
            }
            (Action::DeleteManifest, _) => format!("delete from {repository} by digest"),
            (Action::List, _) => format!("list the tags of {repository}"),
            (Action::Catalog, _) => "list the repositories".to_owned(),
            (Action::MountFrom, _) => format!("mount from {repository}"),
        };
        match (self.site.policy.summary(self.principal), is_denied) {
            (Some(summary), false) => format!("{user} may not {what}, but may: {summary}"),
            (Some(summary), true) => {
                format!(
                    "{user} may not {what}: a rule forbids it. Where none does, {user} may: {summary}"
                )
            }
            (None, false) => format!("{user} may not {what}: no rule allows {user} anything here"),
            (None, true) => format!("{user} may not {what}: a rule forbids it"),
        }
    }
}

/// A rule as the log names it.
pub(super) fn named(rule: Option<&RuleLocation>) -> Box<str> {
    rule.map_or_else(|| "none".into(), |place| place.to_string().into())
}
