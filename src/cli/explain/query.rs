//! A question to the rules of one domain: why it is answered so, and what else a request would
//! meet.

use std::net::IpAddr;

use crate::auth::policy::{Decision, Policy, Principal};
use crate::config::vhost::VirtualHost;
use crate::registry::action::Action;

/// Who asks for what, and where.
#[derive(Clone, Copy)]
pub(super) struct AccessQuery<'a> {
    pub(super) policy: &'a Policy,
    pub(super) host: &'a VirtualHost,
    pub(super) principal: Principal<'a>,
    pub(super) action: Action,
    pub(super) repository: &'a str,
    pub(super) tag: Option<&'a str>,
}

impl<'a> AccessQuery<'a> {
    pub(super) fn decision(&self) -> Decision<'a> {
        self.policy
            .decide(self.principal, self.action, self.repository, self.tag)
    }

    /// Why the decision is what it is.
    pub(super) fn reason(&self) -> String {
        let decision = self.decision();
        let strangers = self.host.auth.anonymous.actions();
        let may_read = self.action == Action::MountFrom && strangers.has(Action::Pull);
        match decision.rule {
            Some(rule) => format!("by the rule at {rule}"),
            None if self.principal.user.is_none() && !strangers.has(self.action) && !may_read => {
                if strangers.is_empty() {
                    "without a login nothing is allowed here, whatever the rules say".to_owned()
                } else {
                    "without a login there is only reading here, whatever the rules say".to_owned()
                }
            }
            None if self.policy.is_open() && decision.allowed && self.principal.user.is_none() => {
                "there is no access rule, so that all may be read without a login".to_owned()
            }
            None if self.policy.is_open() && decision.allowed => {
                "there is no access rule, so that every user may do everything".to_owned()
            }
            None => "no rule allows it".to_owned(),
        }
    }

    /// What the decision alone does not say.
    pub(super) fn caveats(&self) -> Vec<String> {
        [self.head(), self.of_the_tag(), self.elsewhere()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whoever may push may look with HEAD, where nothing denies to pull.
    fn head(&self) -> Option<String> {
        let decision = self.decision();
        let push = Self {
            action: Action::Push,
            ..*self
        };
        let helps = self.action == Action::Pull && !decision.allowed && !decision.is_denied();
        (helps && push.decision().allowed).then(|| {
            format!(
                "HEAD alone, as clients ask around a push, is allowed with `push`: {}",
                push.reason()
            )
        })
    }

    /// A write to a tag is one right or the other, as the tag is there or not.
    fn of_the_tag(&self) -> Option<String> {
        self.tag?;
        let (other, when) = match self.action {
            Action::Push => (
                Action::Overwrite,
                "if the tag is there already with something else",
            ),
            Action::Overwrite => (Action::Push, "if the tag is not there yet"),
            _ => return None,
        };
        let asked = Self {
            action: other,
            ..*self
        };
        let (this, that) = (self.decision(), asked.decision());
        let verb = if that.allowed {
            "allowed"
        } else {
            "not allowed"
        };
        (this.allowed != that.allowed)
            .then(|| format!("{when}, it is `{other}`, and {verb}: {}", asked.reason()))
    }

    /// An address from which it is otherwise.
    fn elsewhere(&self) -> Option<String> {
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
            .find(|asked| asked.decision().allowed != allowed)?;
        let verb = if allowed { "not allowed" } else { "allowed" };
        let (here, there) = (self.principal.client, other.principal.client);
        Some(format!(
            "this is from {here}: from {there}, as from some others, it is {verb}: {}",
            other.reason()
        ))
    }
}
