//! A domain while the task runs: where it stands, what is wanted of it, and what is said about it.

use std::time::SystemTime;

use super::state::{Outcome, State};
use crate::certs::inspect::CertificateFacts;
use crate::certs::renewal::{Life, Urgency, urgency};
use crate::certs::report::{AcmeStatus, Attempts};
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;

/// A domain that asks a CA.
pub(super) struct Domain {
    pub(super) host: SharedVirtualHost,
    pub(super) state: State,
    pub(super) status: AcmeStatus,
    /// Whether a step is being taken.
    pub(super) running: bool,
    /// Whether somebody has asked for a certificate since the last step began.
    pub(super) forced: bool,
    /// Whether somebody has, and has not been served yet.
    pub(super) wished: bool,
    attempts: Attempts,
    /// What was last said about the end of its certificate.
    urgency: Urgency,
}

impl Domain {
    pub(super) fn new(host: SharedVirtualHost) -> Self {
        let (state, status, attempts) = (State::New, AcmeStatus::default(), Attempts::default());
        let (running, forced, wished) = (false, false, false);
        Self { host, state, status, running, forced, wished, attempts, urgency: Urgency::Calm }
    }

    /// After a step.
    pub(super) fn count(&mut self, outcome: Option<Outcome>) {
        let Attempts { issued, failed, postponed } = &mut self.attempts;
        match outcome {
            // Whoever has asked meanwhile has what was asked for.
            Some(Outcome::Issued) => (*issued, self.wished, self.forced) = (*issued + 1, false, false),
            Some(Outcome::Failed) => (*failed, self.wished) = (*failed + 1, false),
            // A wish that had to wait is still one.
            Some(Outcome::Postponed) => *postponed += 1,
            None => {}
        }
    }

    pub(super) fn shown(&self) -> AcmeStatus {
        let state = if self.running { "being looked after".to_owned() } else { self.state.to_string() };
        let (next_attempt, attempts) = (self.state.next(), self.attempts);
        AcmeStatus { state, next_attempt, attempts, ..self.status.clone() }
    }

    /// Says how near the end of its certificate is, when that changes.
    pub(super) fn warn(&mut self, held: Option<CertificateFacts>, now: SystemTime) {
        let life = held.map(|facts| Life { not_before: facts.not_before, not_after: facts.not_after });
        let urgency = life.map_or(Urgency::Calm, |life| urgency(life, now));
        if urgency != std::mem::replace(&mut self.urgency, urgency) {
            say(&self.host.domain, urgency, self.status.error.as_deref());
        }
    }
}

/// Louder, the nearer the end.
fn say(domain: &HostName, urgency: Urgency, error: Option<&str>) {
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
