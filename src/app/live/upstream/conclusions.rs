//! What the answers of an upstream say of what moorgate may do there.

use http::StatusCode;

use super::{AbilityFinding, UpstreamInspector, UpstreamReply};
use crate::app::live::answer::{is_without_route, message};
use crate::app::live::report::{AbilityReport, CredentialReport, UpstreamReport};
use crate::config::problem::Problem;
use crate::config::upstream::UpstreamAuthorization;
use crate::registry::action::Action;
use crate::upstream::login::error::LoginError;
use crate::upstream::product::ability::{self, Ability, Possibility};

impl UpstreamInspector<'_> {
    /// What it means that the upstream has not done what was asked.
    pub(super) fn refusal(&self, ability: Ability, reply: &UpstreamReply) -> AbilityFinding {
        match reply {
            UpstreamReply::Answer { status, body, .. } => {
                let message = message(body).unwrap_or_else(|| status.to_string());
                match *status {
                    StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                        self.denied(ability, &message)
                    }
                    status if is_without_route(status) => AbilityFinding::Absent(message),
                    _ => AbilityFinding::Open(message),
                }
            }
            UpstreamReply::Refused(error) => match &**error {
                LoginError::Refused { .. }
                | LoginError::NoRight { .. }
                | LoginError::ExchangeRefused { .. } => self.denied(ability, "it is refused"),
                other => AbilityFinding::Open(other.to_string()),
            },
            UpstreamReply::None((cause, _)) => AbilityFinding::Open(cause.clone()),
        }
    }

    /// The lack of a right. Products with a list of actions name the one that it lacks.
    pub(super) fn denied(&self, ability: Ability, why: &str) -> AbilityFinding {
        let (product, _) = self.backend.product.get();
        let usual = || ability::right(product, ability).map(str::to_owned);
        let right = ability::named_right(why).map(str::to_owned).or_else(usual);
        let probed = self.repository.as_ref();
        match probed.filter(|probed| !probed.is_certain) {
            Some(probed) if ability != Ability::Catalog => AbilityFinding::Open(format!(
                "{why}, or there is no repository {}",
                probed.outside
            )),
            _ => AbilityFinding::Denied {
                right,
                why: why.to_owned(),
            },
        }
    }

    pub(super) fn open(&self, ability: Ability, why: &str) -> AbilityFinding {
        let (product, _) = self.backend.product.get();
        AbilityFinding::Open(match ability::right(product, ability) {
            Some(right) => format!("{why}; it takes {right}"),
            None => why.to_owned(),
        })
    }

    /// What an answer says counts, unless another one has denied it.
    pub(super) fn find(&mut self, ability: Ability, finding: AbilityFinding) {
        let is_denied = matches!(
            self.findings.get(&ability),
            Some(AbilityFinding::Denied { .. })
        );
        if !is_denied {
            self.findings.insert(ability, finding);
        }
    }

    pub(super) fn report(mut self) -> (UpstreamReport, Vec<Problem>) {
        let abilities = Ability::ALL.map(|ability| self.ability(ability));
        let credential = CredentialReport::new(&self.backend.credential);
        for found in &abilities {
            if let Some(right) = &found.missing_right
                && self.is_wanted(found.ability)
            {
                let what = described(found.ability);
                let of = self.repository.as_ref();
                let of = of.map(|probed| format!(" in {}", probed.outside));
                let message = format!(
                    "{}: {} may not {what}{}",
                    self.settings.url,
                    credential.name,
                    of.unwrap_or_default()
                );
                self.warn(&["upstream"], message, &format!("give it {right}"));
            }
        }
        let (product, known_by) = self.backend.product.get();
        let report = UpstreamReport {
            domain: self.host.domain.clone(),
            url: self.settings.url.clone(),
            product,
            known_by,
            credential,
            api_credential_expires: self.api_credential_expires,
            repository: self.repository.map(|probed| probed.outside),
            abilities: abilities.into(),
            limits: self.limits,
        };
        (report, self.problems)
    }

    /// What is known of an ability, by the product and by what it has answered.
    fn ability(&self, ability: Ability) -> AbilityReport {
        let known = self.known(ability);
        let report = |possibility, is_probed, why: String| AbilityReport {
            ability,
            possibility,
            is_probed,
            why,
            missing_right: None,
        };
        let known_why = || known.why.to_owned();
        if known.possibility == Possibility::No {
            return report(Possibility::No, false, known_why());
        }
        match self.findings.get(&ability) {
            Some(AbilityFinding::Seen) => report(Possibility::Yes, true, String::new()),
            Some(AbilityFinding::Granted(why)) => {
                let whys = [*why, known.why].into_iter();
                let whys: Vec<_> = whys.filter(|why| !why.is_empty()).collect();
                report(known.possibility, !why.is_empty(), whys.join(", "))
            }
            Some(AbilityFinding::Denied { right, why }) => AbilityReport {
                missing_right: right.clone(),
                ..report(Possibility::No, true, why.clone())
            },
            Some(AbilityFinding::Absent(why)) => report(Possibility::No, true, why.clone()),
            Some(AbilityFinding::Open(why)) => report(Possibility::Unknown, false, why.clone()),
            None if self.needs_repository(ability) => {
                let why = "name a repository with --repository".to_owned();
                report(Possibility::Unknown, false, why)
            }
            None => report(known.possibility, false, known_why()),
        }
    }

    /// Whether only a repository shows it.
    fn needs_repository(&self, ability: Ability) -> bool {
        let is_own = matches!(self.settings.authorization, UpstreamAuthorization::Login(_));
        let is_by_right = matches!(
            ability,
            Ability::Pull | Ability::Push | Ability::Untag | Ability::Delete | Ability::List
        );
        self.repository.is_none() && is_own && is_by_right
    }

    /// Whether the access rules let somebody do it. Nobody misses a list that only administrators get.
    fn is_wanted(&self, ability: Ability) -> bool {
        let action = match ability {
            Ability::Pull | Ability::Referrers => Action::Pull,
            Ability::Push | Ability::Create | Ability::Mounts | Ability::Chunks => Action::Push,
            Ability::Untag => Action::DeleteTag,
            Ability::Delete => Action::DeleteManifest,
            Ability::List => Action::List,
            Ability::Catalog => return self.known(ability).why.is_empty(),
        };
        let rules = &self.host.access.rules;
        let mut allows = rules.iter().filter(|rule| !rule.deny);
        rules.is_empty() || allows.any(|rule| rule.actions.has(action))
    }
}

/// As the end of "may not …".
fn described(ability: Ability) -> &'static str {
    match ability {
        Ability::Pull => "pull",
        Ability::Push => "push",
        Ability::Create => "create repositories",
        Ability::Untag => "delete tags",
        Ability::Delete => "delete manifests",
        Ability::List => "list tags",
        Ability::Catalog => "list repositories",
        Ability::Referrers => "list referrers",
        Ability::Mounts => "mount blobs",
        Ability::Chunks => "upload in chunks",
    }
}
