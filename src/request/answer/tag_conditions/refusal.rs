//! The message for a write to a tag whose conditions are not met.

use crate::config::access::age_text;
use crate::registry::action::Action;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::obligations::WriteCondition;
use crate::request::rejection::Rejection;

/// A write to a tag that no rule allows as things are.
pub(super) struct RefusedWrite<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) action: Action,
    pub(super) repository: &'a RepositoryName,
    pub(super) tag: &'a Tag,
    /// At least one.
    pub(super) conditions: &'a [WriteCondition],
    pub(super) is_age_known: bool,
}

impl RefusedWrite<'_> {
    pub(super) fn rejection(&self) -> Rejection {
        let Self {
            user,
            action,
            repository,
            tag,
            conditions,
            is_age_known: _,
        } = self;
        let verb = match action {
            Action::Overwrite => "overwrite",
            Action::DeleteTag => "delete",
            Action::Push
            | Action::Pull
            | Action::DeleteManifest
            | Action::List
            | Action::Catalog
            | Action::MountFrom => "push",
        };
        let mut reasons: Vec<_> = conditions.iter().map(|one| self.reason(one)).collect();
        reasons.dedup();
        let user = user.unwrap_or("a client without a login");
        let message = format!(
            "{user} may not {verb} {repository}:{tag}: {}",
            reasons.join("; or: ")
        );
        let rule = conditions.first().map(|condition| &condition.rule);
        Rejection::denied(message).decided_by(rule)
    }

    fn reason(&self, condition: &WriteCondition) -> String {
        let source = condition.source.as_ref().map(|source| {
            let from: Vec<_> = source
                .from
                .iter()
                .map(|from| from.for_user(self.user))
                .collect();
            format!(
                "its tag is only set to a manifest that another repository has, of {}, and that the user may see there",
                from.join(" or ")
            )
        });
        let age = condition.immutable_after.map(|limit| {
            let limit = age_text(limit);
            if self.is_age_known {
                format!("a tag is immutable {limit} after its push")
            } else {
                format!(
                    "a tag is immutable {limit} after its push, and when this one was pushed is not recorded"
                )
            }
        });
        let reasons: Vec<_> = source.into_iter().chain(age).collect();
        reasons.join(", and ")
    }
}
