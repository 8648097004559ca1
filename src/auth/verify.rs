//! Whether a user name and a password are right, at the price of one bcrypt per password.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::basic::Credentials;
use super::credential_tag::CredentialTag;
use super::htpasswd::{Claim, Htpasswd};
use super::lockout::{Admission, Lockout, LockoutStatus, LoginAttempt, TooManyFailures};
use super::password_cache::{CacheState, PasswordCache};
use super::password_queue::{Check, Full, PasswordQueue, Ticket, Verdict};
use super::{BcryptHash, BcryptKey, UserName};
use crate::config::snapshot::FailureBudgets;
use crate::crypto::TagKey;

/// Checks passwords for all domains of the process.
///
/// Neither time, nor waiting in line, nor what is remembered tells an unknown user from a wrong
/// password: both are one check of the same length that goes the same way.
pub struct Verifier {
    key: TagKey,
    queue: Arc<PasswordQueue>,
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

/// Somebody who shows a password.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The domain that the request is for.
    pub domain: &'a str,
    /// Its users.
    pub users: &'a Htpasswd,
    /// What is shown.
    pub credentials: &'a Credentials,
    /// From where.
    pub client: IpAddr,
    /// How much may have been wrong before.
    pub budgets: &'a FailureBudgets,
}

/// What is known of a login without a hash.
pub enum LoginAdmission {
    /// This very password was verified not long ago.
    Remembered(UserName),
    /// It may be checked.
    Pending(Box<PendingLogin>),
}

/// A login that may be checked: there is no other way to a hash.
pub struct PendingLogin {
    user: Option<UserName>,
    check: Check,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No such user, or another password.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Too many passwords were wrong: this one was not looked at.
    #[error(transparent)]
    Refused(#[from] TooManyFailures),
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
    #[expect(
        clippy::disallowed_methods,
        reason = "the threads that hash; end with their queue"
    )]
    pub fn new(settings: VerifierSettings) -> Result<Self, VerifierError> {
        let VerifierSettings {
            lifetime,
            remembered,
            threads,
            waiting,
        } = settings;
        let key = TagKey::random().map_err(|_| VerifierError::NoRandomness)?;
        let lockout = Lockout::new(Instant::now());
        let queue = Arc::new(PasswordQueue::new(
            PasswordCache::new(lifetime, remembered),
            lockout,
            waiting,
        ));
        // From here on, an early return drops the verifier and so ends the threads that were
        // started.
        let verifier = Self { key, queue };
        for _ in 0..threads.max(1) {
            let queue = verifier.queue.clone();
            thread::Builder::new()
                .name("password".to_owned())
                .spawn(move || {
                    yield_to_traffic();
                    queue.work(check);
                })?;
        }
        Ok(verifier)
    }

    /// Whether a login needs a check, and may have one. Never waits, and costs no hash.
    ///
    /// A password that is remembered, also one that has to be verified again, passes whatever its
    /// address or its user's name were used for. Errors: too many were wrong, or this very one was
    /// a moment ago.
    pub fn admit(&self, login: &Login<'_>) -> Result<LoginAdmission, VerifyError> {
        let Login {
            domain,
            users,
            credentials,
            client,
            budgets,
        } = *login;
        let Claim {
            user,
            hash,
            highest,
        } = users.claim(credentials.user());
        let tag = CredentialTag::from_password(&self.key, domain, credentials, hash);
        let requested_at = Instant::now();
        let cached = self.queue.cache.get(&tag, requested_at);
        if let (CacheState::Fresh, Some(user)) = (cached, user) {
            return Ok(LoginAdmission::Remembered(user.clone()));
        }
        let attempt = self
            .queue
            .lockout
            .attempt(client, domain, credentials.user(), tag.short());
        let rank = match cached {
            CacheState::Fresh | CacheState::Stale => 0,
            CacheState::Miss => match self.queue.lockout.admit(&attempt, budgets, requested_at) {
                Admission::Admitted { failures } => failures,
                Admission::KnownWrong => return Err(VerifyError::WrongPassword),
                Admission::Refused(refused) => return Err(refused.into()),
            },
        };
        let key = BcryptKey::new(credentials.password());
        let check = Check {
            tag,
            key,
            hash: *hash,
            highest,
            requested_at,
            attempt,
            budgets: *budgets,
            rank,
        };
        Ok(LoginAdmission::Pending(Box::new(PendingLogin {
            user: user.cloned(),
            check,
        })))
    }

    /// The user, if the password is right. Waits for a hash; whoever stops waiting (drops the
    /// future) before the hash began has it dropped too.
    pub async fn verify(&self, pending: PendingLogin) -> Result<UserName, VerifyError> {
        let PendingLogin { user, check } = pending;
        let (attempt, budgets, requested_at) = (check.attempt, check.budgets, check.requested_at);
        let lockout = &self.queue.lockout;
        let landed = async |mut flight: watch::Receiver<Option<Verdict>>| {
            flight
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|verdict| *verdict)
        };
        let verdict = match self.queue.enter(check) {
            Ok(Ticket::Verified) => Some(Verdict::Right),
            Ok(Ticket::Waiting(flight)) => landed(flight).await,
            Ok(Ticket::Joined(flight)) => {
                let verdict = landed(flight).await;
                match verdict {
                    Some(Verdict::Right) => lockout.succeeded(&attempt, requested_at),
                    Some(Verdict::Wrong) => lockout.failed(&attempt, &budgets, requested_at),
                    Some(Verdict::Refused) | None => {}
                }
                verdict
            }
            Err(Full) => None,
        };
        match (verdict, user) {
            (Some(Verdict::Right), Some(user)) => Ok(user),
            // A password that fits the decoy is still no user's.
            (Some(Verdict::Right), None) | (Some(Verdict::Wrong), _) => {
                Err(VerifyError::WrongPassword)
            }
            (Some(Verdict::Refused), _) => {
                Err(match lockout.admit(&attempt, &budgets, requested_at) {
                    Admission::Refused(refused) => refused.into(),
                    // It was the budget of whoever brought the check.
                    Admission::Admitted { .. } | Admission::KnownWrong => VerifyError::Overloaded,
                })
            }
            (None, _) => Err(VerifyError::Overloaded),
        }
    }

    /// Whether a secret that is not a password, such as a refresh token, may be looked for: it is
    /// not known here.
    pub fn admit_secret(
        &self,
        domain: &str,
        secret: &str,
        client: IpAddr,
        budgets: &FailureBudgets,
    ) -> Result<(), VerifyError> {
        let attempt = self.attempt_of_secret(domain, secret, client);
        match self.queue.lockout.admit(&attempt, budgets, Instant::now()) {
            Admission::Refused(refused) => Err(refused.into()),
            Admission::KnownWrong => Err(VerifyError::WrongPassword),
            Admission::Admitted { .. } => Ok(()),
        }
    }

    /// Counts a secret that is not a password and was wrong. It counts for the client's address
    /// alone, and once if it comes again. What to answer.
    pub fn wrong_secret(
        &self,
        domain: &str,
        secret: &str,
        client: IpAddr,
        budgets: &FailureBudgets,
    ) -> VerifyError {
        // Others from there may have used up what was left.
        if let Err(error) = self.admit_secret(domain, secret, client, budgets) {
            return error;
        }
        let attempt = self.attempt_of_secret(domain, secret, client);
        self.queue.lockout.failed(&attempt, budgets, Instant::now());
        VerifyError::WrongPassword
    }

    fn attempt_of_secret(&self, domain: &str, secret: &str, client: IpAddr) -> LoginAttempt {
        let tag = CredentialTag::from_secret(&self.key, domain, secret).short();
        // No domain is called so: in place of a user's name, whose budget others would use up, the
        // address.
        self.queue
            .lockout
            .attempt(client, "", &client.to_string(), tag)
    }

    /// What it has done so far.
    pub fn status(&self) -> VerifierStatus {
        let queue = &self.queue;
        VerifierStatus {
            hashed: queue.hashed(),
            waiting: queue.waiting(),
            remembered: queue.cache.len(),
        }
    }

    /// What was refused so far.
    pub fn lockout_status(&self) -> LockoutStatus {
        self.queue.lockout.status(Instant::now())
    }

    /// The budgets, to give them back.
    pub(crate) fn lockout(&self) -> &Lockout {
        &self.queue.lockout
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The work of one check. A wrong password costs what the file's dearest entry costs, so that a
/// user whose own entry is cheaper is not told from one that does not exist; a right one tells that
/// by itself. It is done to the end even if the client has gone, or the next in line could see from
/// its own waiting which it was.
fn check(check: &Check) -> Verdict {
    if check.hash.matches(&check.key) {
        return Verdict::Right;
    }
    for cost in check.hash.cost().missing_to(check.highest) {
        black_box(BcryptHash::decoy(cost).matches(&check.key));
    }
    Verdict::Wrong
}

/// Hashing takes what the threads that move bytes leave over: on Linux, a nice value is a thread's
/// own.
fn yield_to_traffic() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "password checks run at the same priority as traffic");
    }
}

/// About a tenth of the weight of a normal thread: little while traffic needs the processor, and
/// never nothing.
const NICE: i32 = 10;

#[cfg(test)]
mod tests;
