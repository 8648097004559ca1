//! Whether a user name and a password are right, at the price of one bcrypt per password.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::basic::Credentials;
use super::cache::{Memory, Remembered, TagKey};
use super::gate::{Check, Full, Gate, Ticket, Verdict};
use super::htpasswd::{Claim, Htpasswd};
use super::{BcryptHash, BcryptKey, UserName};

/// Checks passwords for all domains of the process.
///
/// Neither time, nor waiting in line, nor what is remembered tells an unknown user from a wrong password:
/// both are one check of the same length that goes the same way.
pub struct Verifier {
    key: TagKey,
    gate: Arc<Gate>,
}

/// How much is remembered and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierSettings {
    /// For how long a password counts as verified. Default 1 h. A changed entry ends it at once.
    pub lifetime: Duration,
    /// How many pairs of user and password are remembered. Default 10 000.
    pub remembered: usize,
    /// How many threads compute hashes, at least one. Default: one less than the processors.
    pub threads: usize,
    /// How many checks may wait. Default 64: 3 to 6 s for one thread at bcrypt's cost 10.
    pub waiting: usize,
}

impl Default for VerifierSettings {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            lifetime: Duration::from_secs(3600),
            remembered: 10_000,
            threads: processors.saturating_sub(1).max(1),
            waiting: 64,
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No such user, or another password.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Too many passwords wait to be checked, or this check broke off: nothing is known, try again.
    #[error("too many passwords are being checked")]
    Overloaded,
}

/// Why there can be no verifier.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The system gives no random key.
    #[error("the system has no randomness for the key of verified passwords")]
    NoRandomness,
    /// The system gives no thread.
    #[error("cannot start a thread that checks passwords: {0}")]
    NoThread(#[from] std::io::Error),
}

/// What a verifier has done, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierStatus {
    /// Checks done since the start.
    pub hashed: u64,
    /// Checks in line.
    pub waiting: usize,
    /// Pairs remembered.
    pub remembered: usize,
}

impl Verifier {
    /// A verifier with its threads, which end when it is dropped.
    pub fn new(settings: VerifierSettings) -> Result<Self, VerifierError> {
        let VerifierSettings { lifetime, remembered, threads, waiting } = settings;
        let key = TagKey::random().map_err(|_| VerifierError::NoRandomness)?;
        let gate = Arc::new(Gate::new(Remembered::new(lifetime, remembered), waiting));
        // From here on, an early return drops the verifier and so ends the threads that were started.
        let verifier = Self { key, gate };
        for _ in 0..threads.max(1) {
            let gate = verifier.gate.clone();
            thread::Builder::new().name("password".to_owned()).spawn(move || {
                yield_to_traffic();
                gate.work(check);
            })?;
        }
        Ok(verifier)
    }

    /// The user, if this very password was verified not long ago. Never waits.
    pub fn remembered(&self, domain: &str, users: &Htpasswd, credentials: &Credentials) -> Option<UserName> {
        let claim = users.claim(credentials.user());
        let tag = self.key.tag(domain, credentials, claim.hash);
        match self.gate.remembered.look(&tag, Instant::now()) {
            Memory::Fresh => claim.user.cloned(),
            Memory::Stale | Memory::Nothing => None,
        }
    }

    /// The user, if the password is right. Waits for a hash unless it is remembered; whoever stops waiting
    /// (drops the future) before the hash began has it dropped too.
    pub async fn verify(
        &self,
        domain: &str,
        users: &Htpasswd,
        credentials: &Credentials,
    ) -> Result<UserName, VerifyError> {
        let Claim { user, hash, highest } = users.claim(credentials.user());
        let tag = self.key.tag(domain, credentials, hash);
        let key = BcryptKey::new(credentials.password());
        let check = Check { tag, key, hash: *hash, highest, asked: Instant::now() };
        let verdict = match self.gate.enter(check) {
            Ok(Ticket::Remembered) => Some(Verdict::Right),
            Ok(Ticket::Waiting(mut verdict)) => verdict.wait_for(Option::is_some).await.ok().and_then(|v| *v),
            Err(Full) => None,
        };
        match (verdict, user) {
            (Some(Verdict::Right), Some(user)) => Ok(user.clone()),
            // A password that fits the decoy is still no user's.
            (Some(Verdict::Right), None) | (Some(Verdict::Wrong), _) => Err(VerifyError::WrongPassword),
            (None, _) => Err(VerifyError::Overloaded),
        }
    }

    /// What it has done so far.
    pub fn status(&self) -> VerifierStatus {
        let gate = &self.gate;
        VerifierStatus { hashed: gate.hashed(), waiting: gate.waiting(), remembered: gate.remembered.len() }
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// The work of one check. A wrong password costs what the file's dearest entry costs, so that a user whose
/// own entry is cheaper is not told from one that does not exist; a right one tells that by itself. It is
/// done to the end even if the client has gone, or the next in line could see from its own waiting which it was.
fn check(check: &Check) -> Verdict {
    if check.hash.matches(&check.key) {
        return Verdict::Right;
    }
    for cost in check.hash.cost().missing_to(check.highest) {
        black_box(BcryptHash::decoy(cost).matches(&check.key));
    }
    Verdict::Wrong
}

/// Hashing takes what the threads that move bytes leave over: on Linux, a nice value is a thread's own.
fn yield_to_traffic() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "password checks run at the same priority as traffic");
    }
}

/// About a tenth of the weight of a normal thread: little while traffic needs the processor, and never nothing.
const NICE: i32 = 10;

#[cfg(test)]
mod tests;
