//! Counts wrong passwords by client address and by user, and locks out those over their budget.
//!
//! Pure: the time is an argument, and only calls of this module count anything. The tables have a
//! fixed size, however many addresses and names are tried.

mod quota;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::snapshot::FailureBudgets;
use crate::crypto::TagKey;
use quota::LogQuota;
pub(crate) use quota::Logged;
pub(crate) use table::RecordFields;
use table::{KeyHasher, LockoutKey, Millis, Table};

/// The wrong passwords that still count.
///
/// There are three budgets, each a number of tries that are restored evenly over the window:
/// - of an *address* (IPv6: its /64), for all tries from there; and of a *network*, the /48 of IPv6
///   that one customer may have as a whole, sixteen times the budget of an address: otherwise its
///   65,536 /64s would have a budget each;
/// - of a *user* of a domain, for tries under the name from addresses that the user never logged in
///   from. While it is used up, each such address has a single try instead of its own budget. This
///   slows down guessing from many addresses and lets no attacker lock out a user: an address
///   without failures is always admitted;
/// - of a user *at an address* that the user has logged in from, in place of both, so that neither
///   an attacker who guesses at the name nor others behind the same address (NAT) use up the user's
///   tries.
///
/// A try that was wrong from this address a short time ago is known to be wrong: it costs no hash
/// and is not counted again. containerd repeats a wrong password five times in a row, and a
/// forgotten job for ever. A right password resets no budget: otherwise the owner of one account
/// could guess at others without end.
pub(crate) struct Lockout {
    keys: KeyHasher,
    start: Instant,
    addresses: Table,
    networks: Table,
    users: Table,
    /// Has pairs with a right password only, so that clients without credentials cannot fill it.
    pairs: Table,
    quota: LogQuota,
    refused: [AtomicU64; LimitKind::ALL.len()],
    repeated: AtomicU64,
    failed: AtomicU64,
}

/// The keys of one attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoginAttempt {
    address: LockoutKey,
    /// The /48; `None` for IPv4.
    network: Option<LockoutKey>,
    user: LockoutKey,
    /// The tag of domain, user, password and entry: equal for a repeated try only.
    tag: u64,
}

/// Whether a password may be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may be checked, those of clients with few failures first.
    Admitted {
        /// The failures that still count.
        failures: u32,
    },
    /// The same password was wrong a short time ago.
    KnownWrong,
    /// The budget is used up.
    Refused(TooManyFailures),
}

/// Too many passwords were wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong passwords")]
pub struct TooManyFailures {
    /// The time until the next try is admitted.
    pub retry_after: Duration,
    /// The budget that is used up.
    pub limit: LimitKind,
    /// Whether the log gets a line.
    pub logged: Logged,
}

/// The budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Of an address.
    Address,
    /// Of a /48 of IPv6.
    Network,
    /// Of a user, for addresses that the user never logged in from.
    User,
    /// Of a user at an address that the user has logged in from.
    UserAtAddress,
}

impl LimitKind {
    pub const ALL: [Self; 4] = [
        Self::Address,
        Self::Network,
        Self::User,
        Self::UserAtAddress,
    ];

    /// The name in the log and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Network => "network",
            Self::User => "user",
            Self::UserAtAddress => "user at address",
        }
    }
}

/// The counters, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutStatus {
    /// Logins refused since the start, without a hash, by the budget that was used up.
    pub refused: [(LimitKind, u64); LimitKind::ALL.len()],
    /// Wrong passwords counted since the start.
    pub failed: u64,
    /// Passwords since the start that were known to be wrong, without a hash.
    pub repeated: u64,
    /// Addresses with failures that still count.
    pub addresses: usize,
    /// Users, real or not, with failures that still count.
    pub users: usize,
    /// The memory of the tables in bytes.
    pub bytes: usize,
}

/// The failures that one process passes to its successor.
#[derive(Default)]
pub(crate) struct KnownFailures {
    /// The time since the origin of the clock of the tables.
    pub(crate) clock: Duration,
    /// Of the addresses, networks, users and pairs.
    pub(crate) tables: [Vec<RecordFields>; 4],
}

impl Lockout {
    /// Empty tables under a secret of their own.
    #[cfg(test)]
    pub(crate) fn random(now: Instant) -> Self {
        Self::new(Arc::new(TagKey::random().expect("randomness")), now)
    }

    /// Empty tables under a secret. `now` is the origin of their clock.
    fn new(key: Arc<TagKey>, now: Instant) -> Self {
        Self {
            keys: KeyHasher::new(key),
            start: now,
            addresses: Table::new(ADDRESSES),
            networks: Table::new(NETWORKS),
            users: Table::new(USERS),
            pairs: Table::new(PAIRS),
            quota: LogQuota::default(),
            refused: [const { AtomicU64::new(0) }; LimitKind::ALL.len()],
            repeated: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The tables of a predecessor that had the same secret.
    pub(crate) fn restored(key: Arc<TagKey>, known: &KnownFailures, now: Instant) -> Self {
        // The clock of a machine is older than any process.
        let start = now.checked_sub(known.clock).unwrap_or(now);
        let lockout = Self::new(key, start);
        for (table, records) in lockout.tables().into_iter().zip(&known.tables) {
            table.restore(records);
        }
        lockout
    }

    /// All failures that still count, and the pairs that are known.
    pub(crate) fn known(&self, now: Instant) -> KnownFailures {
        let millis = self.millis(now);
        KnownFailures {
            clock: now.saturating_duration_since(self.start),
            tables: self.tables().map(|table| table.records(millis)),
        }
    }

    /// The keys of an attempt. `tag` is equal for the same domain, user, password and entry only.
    pub(super) fn attempt(
        &self,
        client: IpAddr,
        domain: &str,
        user: &str,
        tag: u64,
    ) -> LoginAttempt {
        // Zero is an unused slot of a record.
        let (address, network) = (self.keys.address(client), self.keys.network(client));
        LoginAttempt {
            address,
            network,
            user: self.keys.user(domain, user),
            tag: tag.max(1),
        }
    }

    /// Whether a password may be checked. Counts refusals and decides which of them are logged.
    pub(super) fn admit(
        &self,
        attempt: &LoginAttempt,
        budgets: &FailureBudgets,
        now: Instant,
    ) -> Admission {
        let mut admission = self.evaluate(attempt, budgets, now);
        match &mut admission {
            Admission::Admitted { .. } => {}
            Admission::KnownWrong => drop(self.repeated.fetch_add(1, Ordering::Relaxed)),
            Admission::Refused(refused) => {
                self.refused_by(refused.limit)
                    .fetch_add(1, Ordering::Relaxed);
                let now = self.millis(now);
                let is_due = match refused.limit {
                    LimitKind::Address => self.addresses.log(attempt.address, now),
                    LimitKind::Network => attempt
                        .network
                        .is_some_and(|key| self.networks.log(key, now)),
                    LimitKind::User => self.users.log(attempt.user, now),
                    LimitKind::UserAtAddress => self.pairs.log(attempt.pair(), now),
                };
                refused.logged = if is_due {
                    self.quota.admit(now)
                } else {
                    Logged::No
                };
            }
        }
        admission
    }

    /// Whether a password may be checked. Counts nothing.
    pub(super) fn evaluate(
        &self,
        attempt: &LoginAttempt,
        budgets: &FailureBudgets,
        now: Instant,
    ) -> Admission {
        let now = self.millis(now);
        let Budgets {
            address,
            network,
            user,
        } = Budgets::from_settings(budgets);
        let (record, budget, refused) = match self.pairs.get(attempt.pair(), now) {
            Some(pair) => (
                pair,
                user,
                user.refuses(pair.until, now, LimitKind::UserAtAddress),
            ),
            None => {
                let own = self.addresses.get(attempt.address, now).unwrap_or_default();
                let all = self.users.get(attempt.user, now).unwrap_or_default();
                let refused = address.refuses(own.until, now, LimitKind::Address);
                // Until either the user's budget or the record of the address admits it again.
                let strict = user
                    .refuses(all.until, now, LimitKind::User)
                    .and_then(|of_user| {
                        let alone = address.single().refuses(own.until, now, LimitKind::User)?;
                        Some(if alone.retry_after < of_user.retry_after {
                            alone
                        } else {
                            of_user
                        })
                    });
                let net = attempt
                    .network
                    .and_then(|key| self.networks.get(key, now))
                    .unwrap_or_default();
                let of_network = || network.refuses(net.until, now, LimitKind::Network);
                (own, address, refused.or_else(of_network).or(strict))
            }
        };
        match refused {
            Some(refused) => Admission::Refused(refused),
            None if record.is_repeat(attempt.tag) => Admission::KnownWrong,
            None => Admission::Admitted {
                failures: budget.outstanding(record.until, now),
            },
        }
    }

    /// Counts a wrong password.
    pub(super) fn failed(&self, attempt: &LoginAttempt, budgets: &FailureBudgets, now: Instant) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let now = self.millis(now);
        let Budgets {
            address,
            network,
            user,
        } = Budgets::from_settings(budgets);
        if self
            .pairs
            .charge_known(attempt.pair(), attempt.tag, user.each, now)
        {
            return;
        }
        self.addresses
            .charge(attempt.address, attempt.tag, address.each, now);
        if let Some(key) = attempt.network {
            self.networks.charge(key, attempt.tag, network.each, now);
        }
        self.users.charge(attempt.user, attempt.tag, user.each, now);
    }

    /// Records that a user has logged in from an address.
    pub(super) fn succeeded(&self, attempt: &LoginAttempt, now: Instant) {
        self.pairs.know(
            attempt.pair(),
            [attempt.address, attempt.user],
            self.millis(now),
        );
    }

    /// Resets the failures of an address, of its network, and of users at the address. Returns
    /// whether any counted.
    pub(crate) fn unlock_address(&self, client: IpAddr, now: Instant) -> bool {
        let (key, now) = (self.keys.address(client), self.millis(now));
        let own = self.addresses.reset(now, |record| record.is(key));
        let network = self.keys.network(client);
        let around = network.is_some_and(|key| self.networks.reset(now, |record| record.is(key)));
        let pairs = self.pairs.reset(now, |record| record.belongs_to(key));
        own || around || pairs
    }

    /// Resets the failures of a user. Returns whether any counted.
    pub(crate) fn unlock_user(&self, domain: &str, user: &str, now: Instant) -> bool {
        let (key, now) = (self.keys.user(domain, user), self.millis(now));
        let own = self.users.reset(now, |record| record.is(key));
        let pairs = self.pairs.reset(now, |record| record.belongs_to(key));
        own || pairs
    }

    /// Resets all failures.
    pub(crate) fn unlock_all(&self, now: Instant) {
        let now = self.millis(now);
        for table in self.tables() {
            table.reset(now, |_| true);
        }
    }

    pub(crate) fn status(&self, now: Instant) -> LockoutStatus {
        let now = self.millis(now);
        LockoutStatus {
            refused: LimitKind::ALL
                .map(|limit| (limit, self.refused_by(limit).load(Ordering::Relaxed))),
            failed: self.failed.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            addresses: self.addresses.active_entries(now),
            users: self.users.active_entries(now),
            bytes: self.tables().map(Table::bytes).iter().sum(),
        }
    }

    fn tables(&self) -> [&Table; 4] {
        [&self.addresses, &self.networks, &self.users, &self.pairs]
    }

    fn refused_by(&self, limit: LimitKind) -> &AtomicU64 {
        let [address, network, user, pair] = &self.refused;
        match limit {
            LimitKind::Address => address,
            LimitKind::Network => network,
            LimitKind::User => user,
            LimitKind::UserAtAddress => pair,
        }
    }

    fn millis(&self, now: Instant) -> Millis {
        Millis::after(now.saturating_duration_since(self.start))
    }
}

impl LoginAttempt {
    /// The key of the client address.
    pub(super) fn address(&self) -> u64 {
        self.address.0
    }

    fn pair(&self) -> LockoutKey {
        self.address.and(self.user)
    }
}

/// The budgets of the settings, in the unit of the tables.
struct Budgets {
    address: Budget,
    network: Budget,
    user: Budget,
}

impl Budgets {
    fn from_settings(settings: &FailureBudgets) -> Self {
        let FailureBudgets {
            address,
            user,
            window,
        } = *settings;
        let network = address.saturating_mul(ADDRESSES_OF_NETWORK);
        let [address, network, user] =
            [address, network, user].map(|tries| Budget::new(tries, window));
        Self {
            address,
            network,
            user,
        }
    }
}

/// A number of tries that are restored one by one. A record has the time until which its failures
/// count: each failure moves it by `each`.
#[derive(Clone, Copy, Debug)]
struct Budget {
    each: Duration,
    tries: u32,
}

impl Budget {
    fn new(tries: u32, window: Duration) -> Self {
        let tries = tries.max(1);
        // The clock of the tables has milliseconds.
        Self {
            each: (window / tries).max(Duration::from_millis(1)),
            tries,
        }
    }

    /// A budget of one try; the next is admitted when no failure counts any more.
    fn single(self) -> Self {
        Self { tries: 1, ..self }
    }

    /// The refusal, if there is no try left.
    fn refuses(self, until: Millis, now: Millis, limit: LimitKind) -> Option<TooManyFailures> {
        let retry_after = until
            .since(now)
            .saturating_sub(self.each * (self.tries - 1));
        (!retry_after.is_zero()).then_some(TooManyFailures {
            retry_after,
            limit,
            logged: Logged::No,
        })
    }

    /// The number of failures that still count.
    fn outstanding(self, until: Millis, now: Millis) -> u32 {
        u32::try_from(until.since(now).as_millis().div_ceil(self.each.as_millis()))
            .unwrap_or(u32::MAX)
    }
}

/// The budget of a /48 of IPv6, in budgets of an address.
const ADDRESSES_OF_NETWORK: u32 = 16;

/// Numbers of records, of 56 bytes each: 5.7 MiB in all when every table is full.
const ADDRESSES: usize = 1 << 16;
const NETWORKS: usize = 1 << 13;
const USERS: usize = 1 << 14;
const PAIRS: usize = 1 << 14;

#[cfg(test)]
mod tests;
