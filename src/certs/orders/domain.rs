//! A domain whose certificate comes from a CA, while the task runs: its state, what was requested for
//! it, and what was last logged about it.

use std::time::{Duration, SystemTime};

use super::domain_state::{AttemptOutcome, DomainState};
use crate::certs::inspect::CertificateFacts;
use crate::certs::renewal::{Urgency, Validity, urgency};
use crate::certs::served::report::{AcmeStatus, Attempts};
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;

/// A domain whose certificate comes from a CA.
pub(super) struct ScheduledDomain {
    pub(super) host: SharedVirtualHost,
    pub(super) status: AcmeStatus,
    activity: DomainActivity,
    renewal: RenewalRequest,
    /// Whether the configuration of its certificate has changed since the last step began.
    config_changed: bool,
    attempts: Attempts,
    /// The urgency that was last logged, and when.
    urgency: Urgency,
    logged_at: SystemTime,
}

/// Whether a step of the domain runs.
enum DomainActivity {
    Idle(DomainState),
    /// `before` is the state from which the step began; `None`: what the step was decided by no
    /// longer holds, and its result does not count as a state.
    Running {
        before: Option<DomainState>,
    },
}

/// A request of the administrator to renew the certificate, due or not.
#[derive(PartialEq, Eq)]
enum RenewalRequest {
    None,
    /// No step has begun since.
    New {
        /// The serial number of the certificate in force then.
        served: Option<String>,
    },
    /// Steps order for it until one issues or fails. Postponed ones leave it.
    Started,
}

/// Why a step is taken, besides being due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trigger {
    /// A renewal was requested: the certificate is ordered, due or not.
    pub(super) requested: bool,
    /// The configuration has changed: what has failed before may work now.
    pub(super) changed: bool,
}

impl ScheduledDomain {
    pub(super) fn new(host: SharedVirtualHost) -> Self {
        Self {
            host,
            status: AcmeStatus::default(),
            activity: DomainActivity::Idle(DomainState::New),
            renewal: RenewalRequest::None,
            config_changed: false,
            attempts: Attempts::default(),
            urgency: Urgency::Calm,
            logged_at: SystemTime::UNIX_EPOCH,
        }
    }

    /// Discards what was decided. A step that runs is followed by another one.
    pub(super) fn reevaluate(&mut self) {
        self.activity = match self.activity {
            DomainActivity::Idle(_) => DomainActivity::Idle(DomainState::New),
            DomainActivity::Running { .. } => DomainActivity::Running { before: None },
        };
    }

    /// Applies another configuration of the certificate.
    pub(super) fn change(&mut self) {
        self.config_changed = true;
        self.reevaluate();
    }

    /// Requests the renewal, due or not, of the certificate with this serial number.
    pub(super) fn request_renewal(&mut self, served: Option<String>) {
        self.renewal = RenewalRequest::New { served };
    }

    /// When the next step begins, unless one runs.
    pub(super) fn next_step(&self) -> Option<SystemTime> {
        match &self.activity {
            DomainActivity::Running { .. } => None,
            DomainActivity::Idle(_) if matches!(self.renewal, RenewalRequest::New { .. }) => {
                Some(SystemTime::UNIX_EPOCH)
            }
            DomainActivity::Idle(state) => Some(state.due()),
        }
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) -> Trigger {
        if let DomainActivity::Idle(state) = &self.activity {
            let before = Some(state.clone());
            self.activity = DomainActivity::Running { before };
        }
        if matches!(self.renewal, RenewalRequest::New { .. }) {
            self.renewal = RenewalRequest::Started;
        }
        Trigger {
            requested: self.renewal == RenewalRequest::Started,
            changed: std::mem::take(&mut self.config_changed),
        }
    }

    /// Ends a step, after which the certificate with the serial number `served` is in force.
    pub(super) fn end(
        &mut self,
        state: DomainState,
        outcome: Option<AttemptOutcome>,
        served: Option<String>,
    ) {
        self.count(outcome, served);
        let is_outdated = matches!(self.activity, DomainActivity::Running { before: None });
        self.activity = DomainActivity::Idle(if is_outdated { DomainState::New } else { state });
    }

    fn count(&mut self, outcome: Option<AttemptOutcome>, served: Option<String>) {
        match outcome {
            Some(AttemptOutcome::Issued) => {
                self.attempts.issued += 1;
                // A request that came during the step is met as well, unless what was issued was in
                // force already: it is that certificate then that is to be renewed.
                if served.is_none() || self.renewal != (RenewalRequest::New { served }) {
                    self.renewal = RenewalRequest::None;
                }
            }
            Some(AttemptOutcome::Failed) => {
                self.attempts.failed += 1;
                if self.renewal == RenewalRequest::Started {
                    self.renewal = RenewalRequest::None;
                }
            }
            Some(AttemptOutcome::Postponed) => self.attempts.postponed += 1,
            None => {}
        }
    }

    pub(super) fn report(&self) -> AcmeStatus {
        let (state, known) = match &self.activity {
            DomainActivity::Idle(state) => (state.to_string(), Some(state)),
            DomainActivity::Running { before } => ("being checked".to_owned(), before.as_ref()),
        };
        AcmeStatus {
            state,
            next_attempt: known.and_then(DomainState::next),
            attempts: self.attempts,
            ..self.status.clone()
        }
    }

    /// Logs how close the certificate is to its end: when that changes, and once a day after it has
    /// expired.
    pub(super) fn warn_of_expiry(&mut self, served: Option<CertificateFacts>, now: SystemTime) {
        let life = served.map(|facts| Validity {
            not_before: facts.not_before,
            not_after: facts.not_after,
        });
        let urgency = life.map_or(Urgency::Calm, |life| urgency(life, now));
        let is_again = urgency == Urgency::Expired
            && !(self.logged_at..self.logged_at + EXPIRED_LOG_INTERVAL).contains(&now);
        if is_again || urgency != std::mem::replace(&mut self.urgency, urgency) {
            self.logged_at = now;
            log_urgency(&self.host.domain, urgency, self.status.error.as_deref());
        }
    }
}

fn log_urgency(domain: &HostName, urgency: Urgency, error: Option<&str>) {
    let error = error.unwrap_or("none yet");
    match urgency {
        Urgency::Calm => {}
        Urgency::Notice => {
            tracing::warn!(%domain, error, "certificate not renewed, less than a fifth of its lifetime left")
        }
        Urgency::Warning => {
            tracing::warn!(%domain, error, "certificate not renewed, less than a tenth of its lifetime left")
        }
        Urgency::Alarm => {
            tracing::error!(%domain, error, "certificate not renewed, less than a twentieth of its lifetime left")
        }
        Urgency::Expired => {
            tracing::error!(%domain, error, "certificate has expired and is served nevertheless")
        }
    }
}

const EXPIRED_LOG_INTERVAL: Duration = Duration::from_hours(24);
