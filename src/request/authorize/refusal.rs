//! What somebody is told who may not do something: one sentence, with what they may do instead.

use crate::auth::policy::{Asker, Decision};
use crate::config::access::Place;
use crate::registry::action::Action;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::reject::Rejection;
use crate::request::site::Site;

/// What is refused, and to whom.
pub(super) struct Refused<'a> {
    pub(super) site: &'a Site,
    pub(super) asker: Asker<'a>,
    pub(super) action: Action,
    pub(super) repository: Option<&'a RepositoryName>,
    pub(super) tag: Option<&'a Tag>,
}

impl Refused<'_> {
    /// The answer to it. The rule is for the log alone.
    pub(super) fn by(&self, decision: Decision<'_>) -> Rejection {
        let rejection = match self.asker.user {
            // Whoever logs in may be allowed to.
            None => Rejection::unauthorized(self.site, "log in to use this registry"),
            Some(user) => Rejection::denied(self.sentence(user)),
        };
        rejection.decided_by(decision.rule)
    }

    fn sentence(&self, user: &str) -> String {
        let repository = self.repository.map(RepositoryName::as_str).unwrap_or_default();
        let what = match (self.action, self.tag) {
            (Action::Pull, _) => format!("pull {repository}"),
            (Action::Push, None) => format!("push to {repository}"),
            (Action::Push, Some(tag)) => format!("push {repository}:{tag}"),
            (Action::Overwrite, tag) => {
                let tag = tag.map(Tag::as_str).unwrap_or_default();
                format!("overwrite {repository}:{tag}, which is there already")
            }
            (Action::DeleteTag, tag) => {
                format!("delete {repository}:{}", tag.map(Tag::as_str).unwrap_or_default())
            }
            (Action::DeleteManifest, _) => format!("delete from {repository} by digest"),
            (Action::List, _) => format!("list the tags of {repository}"),
            (Action::Catalog, _) => "list the repositories".to_owned(),
            (Action::MountFrom, _) => format!("mount from {repository}"),
        };
        match self.site.policy.summary(self.asker) {
            Some(summary) => format!("{user} may not {what}, but may: {summary}"),
            None => format!("{user} may not {what}: no rule allows {user} anything here"),
        }
    }
}

/// A rule as the log names it.
pub(super) fn named(rule: Option<&Place>) -> Box<str> {
    rule.map_or_else(|| "none".into(), |place| place.to_string().into())
}
