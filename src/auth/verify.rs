//! Verifies user names and passwords, at the cost of one bcrypt hash for each password.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use tokio::sync::watch;
use tokio::time::Instant;

use super::basic::Credentials;
use super::credential_tag::CredentialTag;
use super::htpasswd::{Claim, Htpasswd};
use super::lockout::{Admission, Lockout, LockoutStatus, LoginAttempt, TooManyFailures};
pub(crate) use super::lockout::{KnownFailures, RecordFields};
pub(crate) use super::password_cache::KnownPassword;
use super::password_cache::{CacheState, PasswordCache};
use super::password_queue::{Check, Full, PasswordQueue, Ticket, Verdict};
use super::{BcryptHash, BcryptKey, KnownUser};
use crate::config::snapshot::FailureBudgets;
use crate::crypto::{NoRandomness, TagKey, random_secret};
use crate::observe::resource_use::ResourceUse;

/// Checks passwords for all domains of the process.
///
/// An unknown user and a wrong password take the same check of the same cost through the same queue,
/// so that neither the time nor the cache reveals which users exist.
pub struct Verifier {
    /// The secret under which passwords are remembered, for a successor of the process.
    secret: LoginSecret,
    key: Arc<TagKey>,
    queue: Arc<PasswordQueue>,
    /// Logins that found the queue full.
    refused: AtomicU64,
}

type LoginSecret = Zeroizing<[u8; 32]>;

/// What one process passes to its successor, so that no login costs a hash again and no failure is
/// forgotten. The passwords themselves are not in it.
pub(crate) struct KnownLogins {
    pub(crate) secret: LoginSecret,
    pub(crate) passwords: Vec<KnownPassword>,
    pub(crate) failures: KnownFailures,
}

impl KnownLogins {
    /// Nothing is known yet.
    fn none() -> Result<Self, NoRandomness> {
        Ok(Self {
            secret: random_secret()?,
            passwords: Vec::new(),
            failures: KnownFailures::default(),
        })
    }
}

/// The limits of a [`Verifier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierSettings {
    /// How long a password counts as verified. Default 1 h. A changed entry ends it at once.
    pub lifetime: Duration,
    /// The maximum number of cached pairs of user and password. Default 10,000.
    pub remembered: usize,
    /// The number of threads that compute hashes, at least one. Default: one less than the
    /// processors.
    pub threads: usize,
    /// The maximum number of checks that wait. Default 64: 3 to 6 s for one thread at cost 10.
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

/// One attempt to log in with a password.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub domain: &'a str,
    /// The users of the domain.
    pub users: &'a Htpasswd,
    pub credentials: &'a Credentials,
    pub client: IpAddr,
    /// The number of failures after which a client or user is locked out.
    pub budgets: &'a FailureBudgets,
}

/// The result of [`Verifier::admit`].
pub enum LoginAdmission {
    /// The cache has the password as verified.
    Remembered(KnownUser),
    /// The password has to be checked.
    Pending(Box<PendingLogin>),
}

/// A login whose password may be checked. Only [`Verifier::admit`] makes one, so that no hash
/// escapes the failure budgets.
pub struct PendingLogin {
    user: Option<KnownUser>,
    /// As the client wrote it.
    name: Box<str>,
    check: Check,
}

/// The user name of a login. For the log alone: no response tells whether the user exists.
#[derive(Debug)]
pub(crate) struct ClaimedName {
    pub(crate) name: Box<str>,
    pub(crate) exists: bool,
}

impl Login<'_> {
    pub(crate) fn claimed_name(&self) -> ClaimedName {
        let name = self.credentials.user();
        ClaimedName {
            name: name.into(),
            exists: self.users.claim(name).user.is_some(),
        }
    }
}

impl PendingLogin {
    pub(crate) fn claimed_name(&self) -> ClaimedName {
        ClaimedName {
            name: self.name.clone(),
            exists: self.user.is_some(),
        }
    }
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is no such user, or the password is another.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Too many passwords were wrong: this one was not checked.
    #[error(transparent)]
    Refused(#[from] TooManyFailures),
    /// Too many passwords wait to be checked, or this check panicked. The client may try again.
    #[error("too many passwords are being checked")]
    Overloaded,
}

/// Why a verifier cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    #[error("the system has no randomness for the key of verified passwords")]
    NoRandomness,
    #[error("cannot start a thread that checks passwords: {0}")]
    NoThread(std::io::Error),
}

/// The counters of a verifier, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierStatus {
    /// Checks that ran since the start.
    pub hashed: u64,
    /// Checks that wait.
    pub waiting: usize,
    /// Pairs in the cache.
    pub remembered: usize,
}

impl Verifier {
    /// Starts the threads of a verifier. They end when it is dropped.
    pub fn new(settings: VerifierSettings) -> Result<Self, VerifierError> {
        let nothing = KnownLogins::none().map_err(|_| VerifierError::NoRandomness)?;
        Self::resume(settings, nothing)
    }

    /// The same with what a predecessor of the process knows.
    #[expect(
        clippy::disallowed_methods,
        reason = "the threads that hash end with their queue"
    )]
    pub(crate) fn resume(
        settings: VerifierSettings,
        known: KnownLogins,
    ) -> Result<Self, VerifierError> {
        let VerifierSettings {
            lifetime,
            remembered,
            threads,
            waiting,
        } = settings;
        let KnownLogins {
            secret,
            passwords,
            failures,
        } = known;
        let key = Arc::new(TagKey::new(&*secret));
        let now = Instant::now();
        let cache = PasswordCache::new(lifetime, remembered);
        cache.restore(&passwords, now);
        let lockout = Lockout::restored(key.clone(), &failures, now);
        let queue = Arc::new(PasswordQueue::new(cache, lockout, waiting));
        // An early return drops the verifier and so ends the threads that were started.
        let verifier = Self {
            secret,
            key,
            queue,
            refused: AtomicU64::new(0),
        };
        for _ in 0..threads.max(1) {
            let queue = verifier.queue.clone();
            thread::Builder::new()
                .name("password".to_owned())
                .spawn(move || {
                    yield_to_traffic();
                    queue.work(check);
                })
                .map_err(VerifierError::NoThread)?;
        }
        Ok(verifier)
    }

    /// What a successor of the process has to know.
    pub(crate) fn known(&self) -> KnownLogins {
        let now = Instant::now();
        KnownLogins {
            secret: self.secret.clone(),
            passwords: self.queue.cache.known(now),
            failures: self.queue.lockout.known(now),
        }
    }

    /// The use of the queue of checks that wait.
    pub(crate) fn waiting(&self) -> ResourceUse {
        let (waiting, bound) = (self.queue.waiting(), self.queue.bound());
        let refused = self.refused.load(Ordering::Relaxed);
        ResourceUse::new("passwords_waiting", waiting, bound).refused(refused)
    }

    /// Changes how many checks may wait.
    pub(crate) fn set_max_waiting(&self, max: usize) {
        self.queue.set_bound(max);
    }

    /// Whether a login needs a check and is admitted to one. Never waits and never hashes.
    ///
    /// A cached password, also a stale one, passes whatever failures its address and user have.
    /// Errors: too many passwords were wrong, or the same one was wrong a short time ago.
    pub fn admit(&self, login: &Login<'_>) -> Result<LoginAdmission, VerifyError> {
        let Login {
            domain,
            users,
            credentials,
            client,
            budgets,
        } = *login;
        let claim = users.claim(credentials.user());
        let Claim { hash, highest, .. } = claim;
        let tag = CredentialTag::from_password(&self.key, domain, credentials, hash);
        let requested_at = Instant::now();
        let cached = self.queue.cache.get(&tag, requested_at);
        if cached == CacheState::Fresh
            && let Some(user) = claim.known()
        {
            return Ok(LoginAdmission::Remembered(user));
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
            user: claim.known(),
            name: credentials.user().into(),
            check,
        })))
    }

    /// The user, if the password is right. Waits for the hash. Dropping the future before the hash
    /// has begun cancels it.
    pub async fn verify(&self, pending: PendingLogin) -> Result<KnownUser, VerifyError> {
        let PendingLogin { user, check, .. } = pending;
        let (attempt, budgets, requested_at) = (check.attempt, check.budgets, check.requested_at);
        let lockout = &self.queue.lockout;
        let wait = async |mut flight: watch::Receiver<Option<Verdict>>| {
            flight
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|verdict| *verdict)
        };
        let verdict = match self.queue.enter(check) {
            Ok(Ticket::Verified) => Some(Verdict::Right),
            Ok(Ticket::Waiting(flight)) => wait(flight).await,
            Ok(Ticket::Joined(flight)) => {
                let verdict = wait(flight).await;
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
            // The decoy belongs to no user, even if a password matches it.
            (Some(Verdict::Right), None) | (Some(Verdict::Wrong), _) => {
                Err(VerifyError::WrongPassword)
            }
            (Some(Verdict::Refused), _) => {
                Err(match lockout.admit(&attempt, &budgets, requested_at) {
                    Admission::Refused(refused) => refused.into(),
                    // The budget of the request that entered the check was used up, not this one's.
                    Admission::Admitted { .. } | Admission::KnownWrong => VerifyError::Overloaded,
                })
            }
            (None, _) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let limit = self.queue.bound();
                tracing::warn!(limit, "password checks refused: too many wait");
                Err(VerifyError::Overloaded)
            }
        }
    }

    /// Whether an unknown secret that is not a password, such as a refresh token, may be searched
    /// for: the failures of its address count.
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

    /// Counts a wrong secret that is not a password, for the client's address alone, and once if it
    /// is repeated. Returns the error for the client.
    pub fn wrong_secret(
        &self,
        domain: &str,
        secret: &str,
        client: IpAddr,
        budgets: &FailureBudgets,
    ) -> VerifyError {
        // Other requests of the address may have used up its budget meanwhile.
        if let Err(error) = self.admit_secret(domain, secret, client, budgets) {
            return error;
        }
        let attempt = self.attempt_of_secret(domain, secret, client);
        self.queue.lockout.failed(&attempt, budgets, Instant::now());
        VerifyError::WrongPassword
    }

    fn attempt_of_secret(&self, domain: &str, secret: &str, client: IpAddr) -> LoginAttempt {
        let tag = CredentialTag::from_secret(&self.key, domain, secret).short();
        // The address takes the place of a user, whose budget others could use up; no domain has an
        // empty name.
        self.queue
            .lockout
            .attempt(client, "", &client.to_string(), tag)
    }

    pub fn status(&self) -> VerifierStatus {
        let queue = &self.queue;
        VerifierStatus {
            hashed: queue.hashed(),
            waiting: queue.waiting(),
            remembered: queue.cache.len(),
        }
    }

    pub fn lockout_status(&self) -> LockoutStatus {
        self.queue.lockout.status(Instant::now())
    }

    pub(crate) fn lockout(&self) -> &Lockout {
        &self.queue.lockout
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Runs one check. A wrong password costs as much as the most expensive entry of the file, so that
/// its time does not distinguish a user with a cheaper entry from an unknown one. The check runs to
/// its end even if the client has gone: the waiting time of the next check would reveal the
/// difference.
fn check(check: &Check) -> Verdict {
    if check.hash.matches(&check.key) {
        return Verdict::Right;
    }
    for cost in check.hash.cost().missing_to(check.highest) {
        black_box(BcryptHash::decoy(cost).matches(&check.key));
    }
    Verdict::Wrong
}

/// Lowers the priority of this thread below that of the threads that move bytes. On Linux each
/// thread has its own nice value.
fn yield_to_traffic() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "password check thread could not be given a lower priority");
    }
}

/// About a tenth of the weight of a normal thread: hashing proceeds slowly under load and never
/// stops.
const NICE: i32 = 10;

#[cfg(test)]
mod tests;
