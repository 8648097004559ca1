//! A domain while the task runs: where it stands, what is wanted of it, and what is logged_at about
//! it.

use std::time::{Duration, SystemTime};

use super::domain_state::{AttemptOutcome, DomainState};
use crate::certs::inspect::CertificateFacts;
use crate::certs::renewal::{Life, Urgency, urgency};
use crate::certs::served::report::{AcmeStatus, Attempts};
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;

/// A domain that asks a CA.
pub(super) struct ManagedDomain {
    pub(super) host: SharedVirtualHost,
    pub(super) state: DomainState,
    pub(super) status: AcmeStatus,
    /// Whether a step is being taken.
    pub(super) running: bool,
    /// Whether that step was decided on by what holds no more.
    outdated: bool,
    /// Whether the configuration wants something else since the last step began.
    changed: bool,
    /// Whether somebody has asked for a certificate since the last step began.
    pub(super) requested: bool,
    /// Whether somebody has, and has not been served yet.
    pub(super) renew_requested: bool,
    attempts: Attempts,
    /// What was last logged_at about the end of its certificate.
    urgency: Urgency,
    /// When.
    logged_at: SystemTime,
}

/// Why a step is taken, beside that it is time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trigger {
    /// Somebody has asked for a certificate: it is ordered, whether due or not.
    pub(super) requested: bool,
    /// The configuration has changed: what has failed before may work now.
    pub(super) changed: bool,
}

impl ManagedDomain {
    pub(super) fn new(host: SharedVirtualHost) -> Self {
        let (state, status, attempts) =
            (DomainState::New, AcmeStatus::default(), Attempts::default());
        let (running, outdated, changed, requested, renew_requested) =
            (false, false, false, false, false);
        let (urgency, logged_at) = (Urgency::Calm, SystemTime::UNIX_EPOCH);
        Self {
            host,
            state,
            status,
            running,
            outdated,
            changed,
            requested,
            renew_requested,
            attempts,
            urgency,
            logged_at,
        }
    }

    /// What was decided may be wrong now: it is decided again, after the step that is being taken.
    pub(super) fn reevaluate(&mut self) {
        self.state = DomainState::New;
        self.outdated = self.running;
    }

    /// The configuration wants something else.
    pub(super) fn change(&mut self) {
        self.changed = true;
        self.reevaluate();
    }

    /// Before a step.
    pub(super) fn begin(&mut self) -> Trigger {
        self.running = true;
        self.renew_requested |= std::mem::take(&mut self.requested);
        Trigger {
            requested: self.renew_requested,
            changed: std::mem::take(&mut self.changed),
        }
    }

    /// After it.
    pub(super) fn end(&mut self, state: DomainState) {
        self.running = false;
        self.state = if std::mem::take(&mut self.outdated) {
            DomainState::New
        } else {
            state
        };
    }

    /// After a step.
    pub(super) fn count_outcome(&mut self, outcome: Option<AttemptOutcome>) {
        let Attempts {
            issued,
            failed,
            postponed,
        } = &mut self.attempts;
        match outcome {
            // Whoever has asked meanwhile has what was asked for.
            Some(AttemptOutcome::Issued) => {
                (*issued, self.renew_requested, self.requested) = (*issued + 1, false, false)
            }
            Some(AttemptOutcome::Failed) => (*failed, self.renew_requested) = (*failed + 1, false),
            // A wish that had to wait is still one.
            Some(AttemptOutcome::Postponed) => *postponed += 1,
            None => {}
        }
    }

    pub(super) fn report(&self) -> AcmeStatus {
        let state = if self.running {
            "being checked".to_owned()
        } else {
            self.state.to_string()
        };
        let (next_attempt, attempts) = (self.state.next(), self.attempts);
        AcmeStatus {
            state,
            next_attempt,
            attempts,
            ..self.status.clone()
        }
    }

    /// Says how near the end of its certificate is, when that changes, and each day when it is
    /// over.
    pub(super) fn warn_of_expiry(&mut self, held: Option<CertificateFacts>, now: SystemTime) {
        let life = held.map(|facts| Life {
            not_before: facts.not_before,
            not_after: facts.not_after,
        });
        let urgency = life.map_or(Urgency::Calm, |life| urgency(life, now));
        let is_again =
            urgency == Urgency::Expired && !(self.logged_at..self.logged_at + DAY).contains(&now);
        if is_again || urgency != std::mem::replace(&mut self.urgency, urgency) {
            self.logged_at = now;
            log_urgency(&self.host.domain, urgency, self.status.error.as_deref());
        }
    }
}

/// Louder, the nearer the end.
fn log_urgency(domain: &HostName, urgency: Urgency, error: Option<&str>) {
    let error = error.unwrap_or("none yet");
    match urgency {
        Urgency::Calm => {}
        Urgency::Notice => {
            tracing::warn!(%domain, error, "less than a fifth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Warning => {
            tracing::warn!(%domain, error, "less than a tenth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Alarm => {
            tracing::error!(%domain, error, "less than a twentieth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Expired => {
            tracing::error!(%domain, error, "the certificate has expired and is served all the same")
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
