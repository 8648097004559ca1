//! Reads and writes the ACME files below `state`: accounts, certificates, pending orders and the
//! record of each domain, at the paths of `paths`. Blocks on the file system.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::certs::inspect::Rfc3339;
use crate::certs::names::NameSet;
use crate::certs::preflight::backoff::PreflightBackoff;
use crate::certs::preflight::lost_state_guard::UnconfirmedOrder;
use crate::certs::state::ledger::OrderRequest;
use crate::certs::state::paths::{CaId, StatePaths, StoredAccount, lock, try_lock};
use crate::certs::state::pending_order::OpenOrder;
use crate::config::acme::{CertifiedName, ChallengeKind};
use crate::registry::host::HostName;
use crate::state_file::{Access, FileLock, atomic_write, private_directory};

/// The ACME files of a state directory.
#[derive(Clone, Debug)]
pub struct Storage {
    state: StatePaths,
}

/// An account and its private key, PKCS#8 in PEM.
#[derive(Clone)]
pub struct Account {
    pub stored: StoredAccount,
    pub key: String,
}

/// What is stored about a domain across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The challenge that succeeded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<ChallengeKind>,
    /// The challenges that have failed since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_challenges: Vec<ChallengeKind>,
    /// The latest renewal information of the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<RenewalAdvice>,
    /// The serial number of the certificate that was last ordered. A certificate with another
    /// serial number was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The profile of that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The digest of the settings with which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_settings: Option<String>,
    /// The certificate that was issued and is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<UnusedCertificate>,
    /// The findings of the checks before the last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Why the first order waits for the administrator, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<UnconfirmedOrder>,
    /// How long orders have been postponed because of findings, for each CA.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) postponed: BTreeMap<CaId, PreflightBackoff>,
}

/// A certificate that a CA has issued and that is not put in force. There is at most one for each
/// domain; its file is at [`CaPaths::unused`](super::paths::CaPaths::unused).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedCertificate {
    pub ca: CaId,
    pub names: NameSet,
    pub serial: String,
    /// The profile that it was ordered with.
    pub profile: Option<String>,
    pub not_after: SystemTime,
    /// When it may be put in force; `None`: never.
    pub usable_from: Option<SystemTime>,
    /// Why it is not in force.
    pub reason: String,
}

/// The renewal information of a CA about a certificate (RFC 9773).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalAdvice {
    /// The serial number of the certificate.
    pub serial: String,
    /// The suggested window, from and to.
    #[serde(default)]
    pub window: Option<(SystemTime, SystemTime)>,
    /// The URL of the CA's page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// When to fetch it again.
    pub ask_again: SystemTime,
    /// Consecutive failed fetches.
    #[serde(default)]
    pub failures: u32,
}

/// A TXT record that was set in response to a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Txt {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl fmt::Display for UnusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ca,
            names,
            serial,
            not_after,
            reason,
            ..
        } = self;
        let end = Rfc3339(*not_after);
        write!(
            f,
            "the certificate {serial} of {ca} for {names} until {end}: {reason}"
        )
    }
}

impl UnusedCertificate {
    /// Whether its time has come.
    pub(crate) fn is_usable(&self, now: SystemTime) -> bool {
        self.usable_from.is_some_and(|at| at <= now)
    }
}

impl DomainRecord {
    /// Removes what was recorded of a failure with other settings than those with this digest.
    /// Returns whether there was any.
    pub(crate) fn forget_failure_of_others(&mut self, digest: &str) -> bool {
        let is_outdated = self.failed_settings.as_ref().is_some_and(|of| of != digest);
        if is_outdated {
            (self.error, self.failed_settings) = (None, None);
            self.findings.clear();
        }
        is_outdated
    }

    /// The allowed challenges, the most promising first: what worked last, then those that did not
    /// fail. Results at the CA count for more than our own finding that a challenge is `unfit`.
    pub fn ranked(&self, allowed: &[ChallengeKind], unfit: &[ChallengeKind]) -> Vec<ChallengeKind> {
        let mut kinds = allowed.to_vec();
        kinds.sort_by_key(|kind| {
            let worked = self.challenge == Some(*kind);
            (
                self.failed_challenges.contains(kind),
                !worked,
                unfit.contains(kind),
            )
        });
        kinds
    }

    /// Records that these challenges validated all names.
    pub fn record_success(&mut self, kinds: &[ChallengeKind]) {
        self.challenge = kinds.first().copied().or(self.challenge);
        self.failed_challenges.clear();
    }

    /// Records failed challenges. Once all allowed ones have failed, all may be tried again.
    pub fn record_failure(&mut self, kinds: &[ChallengeKind], allowed: &[ChallengeKind]) {
        let new = kinds
            .iter()
            .filter(|kind| !self.failed_challenges.contains(kind));
        self.failed_challenges
            .extend(new.copied().collect::<Vec<_>>());
        if allowed
            .iter()
            .all(|kind| self.failed_challenges.contains(kind))
        {
            self.failed_challenges.clear();
            self.failed_challenges
                .extend(kinds.iter().filter(|_| allowed.len() > 1));
        }
    }
}

impl Storage {
    /// Uses a state directory. Creates nothing.
    pub fn below(state: &Path) -> Self {
        Self {
            state: StatePaths::new(state),
        }
    }

    /// The path of a domain's key and chain from a CA, in this order in one file.
    pub fn certificate(&self, ca: &CaId, domain: &HostName) -> PathBuf {
        self.state.ca(ca).certificate(domain.as_str())
    }

    /// The directory of responses to challenges, shared by all processes with this state directory.
    pub fn challenges(&self) -> PathBuf {
        self.state.root().join(CHALLENGES)
    }

    /// The paths.
    pub fn state(&self) -> &StatePaths {
        &self.state
    }

    /// Creates the directories, and fails if the state directory is not writable.
    pub fn prepare(&self, ca: &CaId) -> io::Result<()> {
        for part in [CHALLENGES, DOMAINS] {
            private_directory(&self.state.root().join(part))?;
        }
        self.remove_old_challenges();
        self.state.ca(ca).make_directories()
    }

    /// Removes the responses to challenges of processes that were killed.
    fn remove_old_challenges(&self) {
        let Ok(entries) = std::fs::read_dir(self.challenges()) else {
            return;
        };
        for entry in entries.flatten() {
            let changed = entry.metadata().and_then(|data| data.modified()).ok();
            if changed
                .and_then(|at| at.elapsed().ok())
                .is_some_and(|age| age > MAX_CHALLENGE_AGE)
            {
                // A remaining file does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Replaces the certificate of a domain. The chain is PEM, leaf first; the key belongs to the
    /// leaf.
    pub fn write_certificate(
        &self,
        ca: &CaId,
        domain: &HostName,
        key: &str,
        chain: &str,
    ) -> io::Result<()> {
        write(
            &self.certificate(ca, domain),
            key_and_chain(key, chain).as_bytes(),
        )
    }

    /// Stores a certificate that is not put in force, in place of an earlier one of the CA.
    pub fn write_unused(
        &self,
        ca: &CaId,
        domain: &HostName,
        key: &str,
        chain: &str,
    ) -> io::Result<()> {
        let path = self.state.ca(ca).unused(domain.as_str());
        path.parent().map_or(Ok(()), private_directory)?;
        write(&path, key_and_chain(key, chain).as_bytes())
    }

    /// The key and the chain of a certificate that is not in force, in one text.
    pub fn read_unused(&self, ca: &CaId, domain: &HostName) -> io::Result<SecretString> {
        std::fs::read_to_string(self.state.ca(ca).unused(domain.as_str())).map(SecretString::from)
    }

    /// Puts that text in force.
    pub fn use_unused(&self, ca: &CaId, domain: &HostName, text: &SecretString) -> io::Result<()> {
        write(
            &self.certificate(ca, domain),
            text.expose_secret().as_bytes(),
        )
    }

    /// Removes a certificate that is not in force, if it exists.
    pub fn remove_unused(&self, ca: &CaId, domain: &HostName) -> io::Result<()> {
        remove_if_exists(&self.state.ca(ca).unused(domain.as_str()))
    }

    /// Reads the record of a domain. Without a file, the record is empty.
    pub fn record(&self, domain: &HostName) -> io::Result<DomainRecord> {
        Ok(read(&self.record_path(domain))?.unwrap_or_default())
    }

    /// Replaces the record of a domain.
    pub fn write_record(&self, domain: &HostName, record: &DomainRecord) -> io::Result<()> {
        private_directory(&self.state.root().join(DOMAINS))?;
        write(
            &self.record_path(domain),
            &serde_json::to_vec_pretty(record)?,
        )
    }

    /// Reads the account at a CA. `None` unless both of its files exist.
    pub fn account(&self, ca: &CaId) -> io::Result<Option<Account>> {
        let paths = self.state.ca(ca);
        let Some(stored) = read::<StoredAccount>(&paths.account())? else {
            return Ok(None);
        };
        match std::fs::read_to_string(paths.account_key()) {
            Ok(key) => Ok(Some(Account { stored, key })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the account at its CA: the key first, so that an account never exists without its
    /// key.
    pub fn write_account(&self, account: &Account) -> io::Result<()> {
        let paths = self.state.ca(&account.stored.directory);
        paths.make_directories()?;
        write(&paths.account_key(), account.key.as_bytes())?;
        write(
            &paths.account(),
            &serde_json::to_vec_pretty(&account.stored)?,
        )
    }

    /// The pending order of a domain that serves `request`, with the key of its certificate. An
    /// order that cannot be resumed is logged and removed.
    pub fn order(
        &self,
        domain: &HostName,
        request: &OrderRequest<'_>,
        now: SystemTime,
    ) -> io::Result<Option<(OpenOrder, SecretString)>> {
        let files = self.state.ca(request.ca);
        match OpenOrder::find(&files, domain.as_str(), request, now) {
            // A process was killed after it had stored the certificate: the order would only yield
            // the same one again.
            Ok(Some((_, key))) if self.has_certificate_for(request.ca, domain, &key) => {
                OpenOrder::remove(&files, domain.as_str())?;
                Ok(None)
            }
            Ok(found) => Ok(found),
            Err(lost) => {
                tracing::warn!(%domain, %lost, "stored order cannot be resumed, discarding it");
                OpenOrder::remove(&files, domain.as_str())?;
                Ok(None)
            }
        }
    }

    fn has_certificate_for(&self, ca: &CaId, domain: &HostName, key: &SecretString) -> bool {
        let kept = std::fs::read_to_string(self.certificate(ca, domain)).unwrap_or_default();
        kept.starts_with(key.expose_secret().trim_end())
    }

    /// Stores an order and the key of its certificate. Call it before the order is used.
    pub fn write_order(&self, domain: &HostName, order: &OpenOrder, key: &str) -> io::Result<()> {
        order.store(&self.state.ca(&order.ca), domain.as_str(), key)
    }

    /// Removes an order that has ended.
    pub fn remove_order(&self, ca: &CaId, domain: &HostName) -> io::Result<()> {
        OpenOrder::remove(&self.state.ca(ca), domain.as_str())
    }

    /// Locks the orders of a domain. `None`: another process holds the lock.
    pub(crate) fn try_lock(&self, domain: &HostName) -> io::Result<Option<FileLock>> {
        try_lock(&self.state.order_lock(domain.as_str()))
    }

    /// Locks the account of a CA for a change. Blocks for up to `limit`. `None`: another process
    /// holds the lock.
    pub(crate) fn lock_account(&self, ca: &CaId, limit: Duration) -> io::Result<Option<FileLock>> {
        match lock(&self.state.ca(ca).account().with_extension("lock"), limit) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the TXT records that are set for the challenges of a domain, possibly by a process
    /// that was killed.
    pub(crate) fn texts(&self, domain: &HostName) -> io::Result<Vec<Txt>> {
        Ok(read(&self.texts_path(domain))?.unwrap_or_default())
    }

    /// Replaces the list of TXT records. An empty list removes the file.
    pub(crate) fn write_texts(&self, domain: &HostName, all: &[Txt]) -> io::Result<()> {
        let path = self.texts_path(domain);
        if all.is_empty() {
            return remove_if_exists(&path);
        }
        private_directory(&self.state.root().join(TEXTS))?;
        write(&path, &serde_json::to_vec_pretty(all)?)
    }

    fn texts_path(&self, domain: &HostName) -> PathBuf {
        self.state.root().join(TEXTS).join(format!("{domain}.json"))
    }

    fn record_path(&self, domain: &HostName) -> PathBuf {
        self.state
            .root()
            .join(DOMAINS)
            .join(format!("{domain}.json"))
    }
}

fn key_and_chain(key: &str, chain: &str) -> String {
    format!("{}\n{}\n", key.trim_end(), chain.trim_end())
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    atomic_write(path, content, Access::Private)
}

/// Reads a JSON file; `None` if it does not exist. A damaged file is logged, renamed, and counts as
/// missing.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let aside = path.with_extension("damaged");
            tracing::error!(path = %path.display(), %error, aside = %aside.display(), "ACME state file is damaged, renaming it");
            std::fs::rename(path, aside)?;
            Ok(None)
        }
    }
}

/// The names of a certificate, sorted for comparison.
pub(crate) fn sorted(names: &[CertifiedName]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// Longer than any order takes.
const MAX_CHALLENGE_AGE: Duration = Duration::from_hours(24);
const CHALLENGES: &str = "challenges";
const DOMAINS: &str = "domains";
const TEXTS: &str = "texts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ca_has_seen_ranks_before_what_we_have_seen() {
        use ChallengeKind::{Http01, TlsAlpn01};
        let all = [TlsAlpn01, Http01];
        let record = |challenge, failed: &[ChallengeKind]| DomainRecord {
            challenge,
            failed_challenges: failed.to_vec(),
            ..DomainRecord::default()
        };
        assert_eq!(record(None, &[]).ranked(&all, &[]), [TlsAlpn01, Http01]);
        assert_eq!(
            record(None, &[]).ranked(&all, &[TlsAlpn01]),
            [Http01, TlsAlpn01]
        );
        assert_eq!(
            record(Some(TlsAlpn01), &[]).ranked(&all, &[TlsAlpn01]),
            [TlsAlpn01, Http01]
        );
        assert_eq!(
            record(None, &[Http01]).ranked(&all, &[TlsAlpn01]),
            [TlsAlpn01, Http01]
        );
    }
}
