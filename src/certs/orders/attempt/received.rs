//! A certificate that a CA has issued: put in force if it is better than what is served, or else
//! kept below `state` until it may be, or another one is issued.

use std::io;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::{CaAttempt, CertificateAttempt};
use crate::certs::inspect::Rfc3339;
use crate::certs::orders::attempt_error::{AttemptError, Wait};
use crate::certs::orders::clock::ClockReading;
use crate::certs::orders::issued::{self, IssuedCertificate, IssuedDefect};
use crate::certs::orders::local_error::LocalError;
use crate::certs::orders::order_error::{DefectiveCertificate, OrderError};
use crate::certs::state::ledger::Event;
use crate::certs::state::storage::{DomainRecord, UnusedCertificate};
use crate::state_file::run_blocking;

/// A certificate as it was downloaded, with the key of its order.
pub(super) struct ReceivedCertificate<'a> {
    pub(super) attempt: &'a CertificateAttempt<'a>,
    pub(super) at: &'a CaAttempt<'a>,
    pub(super) key: SecretString,
    /// PEM, leaf first.
    pub(super) chain: String,
}

impl ReceivedCertificate<'_> {
    /// Stores the certificate, in force or not. One with a defect is an error in both cases, so that
    /// the next order waits: the CA has counted a certificate. The order is removed afterwards, so
    /// that a full disk loses neither.
    pub(super) async fn take(
        self,
        ca_time: Option<SystemTime>,
        record: &mut DomainRecord,
    ) -> Result<(), AttemptError> {
        let context = self.attempt.context;
        let now = ClockReading {
            ours: context.now(),
            of_the_ca: ca_time,
        };
        let names = &self.attempt.request.names;
        let issued = issued::examine(self.key.expose_secret(), &self.chain, names, now.ours)
            .map_err(OrderError::from)?;
        let served = context.certificates.issued(&self.attempt.host.domain);
        let served = served.map(|served| served.certificate.facts);
        let is_used = issued.is_better_than(served.as_ref(), now);
        let clock = now.difference();
        if let Some(clock) = clock {
            tracing::warn!(ca = %self.at.ca.directory, "{clock}");
        }
        let Some(defect) = issued.defect.clone() else {
            self.put_in_force().await?;
            record.serial = Some(issued.facts.serial);
            record.profile = self.at.profile.map(str::to_owned);
            return self
                .attempt
                .record_event(self.at, |key| Event::Issued(key.request()))
                .await;
        };
        if is_used {
            self.put_in_force().await?;
            record.serial = Some(issued.facts.serial);
            record.profile = self.at.profile.map(str::to_owned);
            self.attempt.refresh().await;
        } else {
            self.store_unused(&issued, &defect, record).await?;
        }
        let error = DefectiveCertificate {
            defect,
            clock,
            is_used,
        };
        Err(OrderError::from(error).into())
    }

    async fn put_in_force(&self) -> Result<(), LocalError> {
        let (storage, ca) = (self.attempt.context.storage.clone(), self.at.key.ca.clone());
        let domain = self.attempt.host.domain.clone();
        let (key, chain) = (self.key.clone(), self.chain.clone());
        let written = run_blocking(move || {
            storage.write_certificate(&ca, &domain, key.expose_secret(), &chain)
        });
        written.await.map_err(LocalError::StoreCertificate)
    }

    /// Keeps the certificate in place of the one that was kept before, unless only that one may be
    /// put in force later.
    async fn store_unused(
        &self,
        issued: &IssuedCertificate,
        defect: &IssuedDefect,
        record: &mut DomainRecord,
    ) -> Result<(), LocalError> {
        let usable_from = match defect {
            IssuedDefect::NotYetValid(at) => Some(*at),
            _ => None,
        };
        let before = record.unused.take();
        if usable_from.is_none()
            && let Some(before) = before
                .as_ref()
                .filter(|before| before.usable_from.is_some() && is_for(self.attempt, before))
        {
            record.unused = Some(before.clone());
            return Ok(());
        }
        let (storage, ca) = (self.attempt.context.storage.clone(), self.at.key.ca.clone());
        let domain = self.attempt.host.domain.clone();
        let (key, chain) = (self.key.clone(), self.chain.clone());
        record.unused = Some(UnusedCertificate {
            ca: ca.clone(),
            names: self.at.key.names.clone(),
            serial: issued.facts.serial.clone(),
            profile: self.at.profile.map(str::to_owned),
            not_after: issued.facts.not_after,
            usable_from,
            reason: defect.to_string(),
        });
        let written = run_blocking(move || {
            if let Some(before) = before.filter(|before| before.ca != ca) {
                storage.remove_unused(&before.ca, &domain)?;
            }
            storage.write_unused(&ca, &domain, key.expose_secret(), &chain)
        });
        written.await.map_err(LocalError::StoreCertificate)
    }
}

/// Puts the kept certificate in force if its time has come and it is better than what is served.
/// Otherwise it is removed then. Returns whether it was put in force; `None`: there is none whose
/// time has come.
pub(super) async fn use_unused(
    attempt: &CertificateAttempt<'_>,
    record: &mut DomainRecord,
) -> Result<Option<bool>, LocalError> {
    let context = attempt.context;
    let now = context.now();
    let Some(unused) = record.unused.take_if(|unused| unused.is_usable(now)) else {
        return Ok(None);
    };
    let served = context.certificates.issued(&attempt.host.domain);
    let served = served.map(|served| served.certificate.facts.not_after);
    let names = attempt.request.names.clone();
    let is_wanted = is_for(attempt, &unused) && served.is_none_or(|end| end < unused.not_after);
    let (storage, domain, ca) = (
        context.storage.clone(),
        attempt.host.domain.clone(),
        unused.ca.clone(),
    );
    let used = run_blocking(move || {
        let is_used = is_wanted
            && match storage.read_unused(&ca, &domain) {
                Ok(text) => {
                    let pem = text.expose_secret();
                    let is_good = issued::examine(pem, pem, &names, now)
                        .is_ok_and(|issued| issued.defect.is_none());
                    if is_good {
                        storage.use_unused(&ca, &domain, &text)?;
                    }
                    is_good
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
        storage.remove_unused(&ca, &domain)?;
        Ok(is_used)
    });
    let is_used = used.await.map_err(LocalError::StoreCertificate)?;
    if is_used {
        tracing::info!(domain = %attempt.host.domain, serial = unused.serial, "certificate that was issued earlier has become valid");
        record.serial = Some(unused.serial);
        record.profile = unused.profile;
        attempt.reset_backoff().await?;
    }
    (record.error, record.failed_settings) = (None, None);
    context.store_record(&attempt.host.domain, record).await?;
    attempt.refresh().await;
    Ok(Some(is_used))
}

/// The time until the kept certificate may be put in force, if what is served lasts until then:
/// another one from the same CA would begin no earlier.
pub(super) fn wait_for_unused(
    attempt: &CertificateAttempt<'_>,
    record: &DomainRecord,
) -> Option<Wait> {
    if attempt.requested {
        return None;
    }
    let now = attempt.context.now();
    let wait = usable_later(attempt, record, now)?;
    let served = attempt.context.certificates.issued(&attempt.host.domain)?;
    let facts = served.certificate.facts;
    (facts.is_valid(now) && wait.until < facts.not_after).then_some(wait)
}

/// The time until the kept certificate may be put in force.
pub(super) fn usable_later(
    attempt: &CertificateAttempt<'_>,
    record: &DomainRecord,
    now: SystemTime,
) -> Option<Wait> {
    let unused = record.unused.as_ref()?;
    let until = unused.usable_from.filter(|at| now < *at)?;
    is_for(attempt, unused).then(|| Wait {
        until,
        why: format!(
            "the certificate that the CA has issued is not valid before {}",
            Rfc3339(until)
        ),
    })
}

fn is_for(attempt: &CertificateAttempt<'_>, unused: &UnusedCertificate) -> bool {
    unused.names == attempt.names()
}
