//! A domain while the task runs: where it stands, what is wanted of it, and what is said about it.

use std::time::{Duration, SystemTime};

use super::state::{Outcome, State};
use crate::certs::inspect::CertificateFacts;
use crate::certs::renewal::{Life, Urgency, urgency};
use crate::certs::served::report::{AcmeStatus, Attempts};
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;

/// A domain that asks a CA.
pub(super) struct Domain {
    pub(super) host: SharedVirtualHost,
    pub(super) state: State,
    pub(super) status: AcmeStatus,
    /// Whether a step is being taken.
    pub(super) running: bool,
    /// Whether that step was decided on by what holds no more.
    outdated: bool,
    /// Whether the configuration wants something else since the last step began.
    changed: bool,
    /// Whether somebody has asked for a certificate since the last step began.
    pub(super) forced: bool,
    /// Whether somebody has, and has not been served yet.
    pub(super) wished: bool,
    attempts: Attempts,
    /// What was last said about the end of its certificate.
    urgency: Urgency,
    /// When.
    said: SystemTime,
}

/// Why a step is taken, beside that it is time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spur {
    /// Somebody has asked for a certificate: it is ordered, whether due or not.
    pub(super) forced: bool,
    /// The configuration has changed: what has failed before may work now.
    pub(super) changed: bool,
}

impl Domain {
    pub(super) fn new(host: SharedVirtualHost) -> Self {
        let (state, status, attempts) = (State::New, AcmeStatus::default(), Attempts::default());
        let (running, outdated, changed, forced, wished) = (false, false, false, false, false);
        let (urgency, said) = (Urgency::Calm, SystemTime::UNIX_EPOCH);
        Self {
            host,
            state,
            status,
            running,
            outdated,
            changed,
            forced,
            wished,
            attempts,
            urgency,
            said,
        }
    }

    /// What was decided may be wrong now: it is decided again, after the step that is being taken.
    pub(super) fn look_anew(&mut self) {
        self.state = State::New;
        self.outdated = self.running;
    }

    /// The configuration wants something else.
    pub(super) fn change(&mut self) {
        self.changed = true;
        self.look_anew();
    }

    /// Before a step.
    pub(super) fn begin(&mut self) -> Spur {
        self.running = true;
        self.wished |= std::mem::take(&mut self.forced);
        Spur {
            forced: self.wished,
            changed: std::mem::take(&mut self.changed),
        }
    }

    /// After it.
    pub(super) fn end(&mut self, state: State) {
        self.running = false;
        self.state = if std::mem::take(&mut self.outdated) {
            State::New
        } else {
            state
        };
    }

    /// After a step.
    pub(super) fn count(&mut self, outcome: Option<Outcome>) {
        let Attempts {
            issued,
            failed,
            postponed,
        } = &mut self.attempts;
        match outcome {
            // Whoever has asked meanwhile has what was asked for.
            Some(Outcome::Issued) => {
                (*issued, self.wished, self.forced) = (*issued + 1, false, false)
            }
            Some(Outcome::Failed) => (*failed, self.wished) = (*failed + 1, false),
            // A wish that had to wait is still one.
            Some(Outcome::Postponed) => *postponed += 1,
            None => {}
        }
    }

    pub(super) fn shown(&self) -> AcmeStatus {
        let state = if self.running {
            "being looked after".to_owned()
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
    pub(super) fn warn(&mut self, held: Option<CertificateFacts>, now: SystemTime) {
        let life = held.map(|facts| Life {
            not_before: facts.not_before,
            not_after: facts.not_after,
        });
        let urgency = life.map_or(Urgency::Calm, |life| urgency(life, now));
        let is_again = urgency == Urgency::Expired && !(self.said..self.said + DAY).contains(&now);
        if is_again || urgency != std::mem::replace(&mut self.urgency, urgency) {
            self.said = now;
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

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
