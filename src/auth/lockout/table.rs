//! A table of failures with a fixed size: a keyed hash chooses the set of a record, and a full set
//! evicts a record in a way that no attacker gains by.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::crypto::{TagKey, keyed_tag};

/// Hashes addresses and users to keys, under a secret of the process and of its successors, so that
/// nobody can choose which others share a set.
pub(super) struct KeyHasher(Arc<TagKey>);

/// The hash of an address, a network, a user, or an address and a user together. Zero marks a free
/// record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LockoutKey(pub(super) u64);

impl KeyHasher {
    pub(super) fn new(key: Arc<TagKey>) -> Self {
        Self(key)
    }

    /// The key of an IPv4 address, or of the /64 of an IPv6 address, the least that one customer has.
    pub(super) fn address(&self, address: IpAddr) -> LockoutKey {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.key(b"IPv4", &v4.octets(), b""),
            IpAddr::V6(v6) => self.key(b"IPv6 /64", &upper(u128::from(v6)).to_be_bytes(), b""),
        }
    }

    /// The key of the /48 of an IPv6 address, the most that one customer has. `None` for IPv4.
    pub(super) fn network(&self, address: IpAddr) -> Option<LockoutKey> {
        match address.to_canonical() {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => {
                let network = upper(u128::from(v6)) >> 16;
                Some(self.key(b"IPv6 /48", &network.to_be_bytes(), b""))
            }
        }
    }

    /// The key of a user name at a domain, whether the user exists or not.
    pub(super) fn user(&self, domain: &str, user: &str) -> LockoutKey {
        self.key(b"user", domain.as_bytes(), user.as_bytes())
    }

    /// Three fields: tags of credentials, under the same secret, have another number.
    fn key(&self, kind: &[u8], first: &[u8], second: &[u8]) -> LockoutKey {
        let [a, b, c, d, e, f, g, h, ..] = keyed_tag(&self.0, &[kind, first, second]);
        LockoutKey(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
    }
}

impl LockoutKey {
    /// The key of two keys together, which are uniformly distributed.
    pub(super) fn and(self, other: Self) -> Self {
        Self((self.0 ^ other.0.rotate_left(32)).max(1))
    }
}

/// A time in milliseconds since the table was made, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(u64);

impl Millis {
    pub(super) fn after(start: Duration) -> Self {
        Self(u64::try_from(start.as_millis()).unwrap_or(u64::MAX - 1) + 1)
    }

    pub(super) fn since(self, other: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(other.0))
    }

    fn plus(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// The failures of an address, network or user, or of a user at an address that the user has logged
/// in from (a pair).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FailureRecord {
    key: u64,
    /// The time until which its failures count.
    pub(super) until: Millis,
    /// The tags of the last wrong tries whose failures still count.
    wrong: [u64; 3],
    /// The upper halves of the keys of a pair.
    of: [u32; 2],
    /// The time of its last log line in seconds; 0 for none.
    logged: u32,
    /// The time of the last login of a pair in seconds; 0 for all others.
    right: u32,
}

impl FailureRecord {
    /// Whether the same try was wrong a short time ago.
    pub(super) fn is_repeat(&self, tag: u64) -> bool {
        self.wrong.contains(&tag)
    }

    pub(super) fn is(&self, key: LockoutKey) -> bool {
        self.key == key.0
    }

    /// Whether the key is a part of this pair. One of four thousand million other keys matches, too.
    pub(super) fn belongs_to(&self, key: LockoutKey) -> bool {
        self.of.contains(&half(key))
    }

    /// For a successor of the process.
    fn to_fields(self) -> RecordFields {
        let Self {
            key,
            until,
            wrong: [first, second, third],
            of: [address, user],
            logged,
            right,
        } = self;
        let pair = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower);
        let (of, times) = (pair(address, user), pair(logged, right));
        [key, until.0, first, second, third, of, times]
    }

    fn from_fields(fields: RecordFields) -> Self {
        let [key, until, first, second, third, of, times] = fields;
        let parts = |pair: u64| {
            let lower = u32::try_from(pair & u64::from(u32::MAX)).unwrap_or_default();
            [u32::try_from(pair >> 32).unwrap_or_default(), lower]
        };
        let [logged, right] = parts(times);
        Self {
            key,
            until: Millis(until),
            wrong: [first, second, third],
            of: parts(of),
            logged,
            right,
        }
    }

    fn charge(&mut self, tag: u64, each: Duration, now: Millis) {
        if self.until <= now {
            self.wrong = [0; 3];
        }
        if self.is_repeat(tag) {
            return;
        }
        self.until = self.until.max(now).plus(each);
        self.wrong.rotate_right(1);
        self.wrong[0] = tag;
    }
}

/// A record as a process passes it to its successor: the key, until when its failures count, three
/// tags, the halves of the keys of a pair, and the times of its last log line and login.
pub(crate) type RecordFields = [u64; 7];

fn half(key: LockoutKey) -> u32 {
    u32::try_from(key.0 >> 32).unwrap_or_default()
}

fn upper(address: u128) -> u64 {
    u64::try_from(address >> 64).unwrap_or_default()
}

/// Sets of records, a few hundred of them under each lock. A shard allocates with its first record.
pub(super) struct Table {
    shards: Box<[Mutex<Vec<FailureRecord>>]>,
    sets: usize,
}

impl Table {
    /// A table of `records` records, a power of two above 512.
    pub(super) fn new(records: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            sets: (records / SHARDS / WAYS).max(1),
        }
    }

    /// The records that say something at `now`.
    pub(super) fn records(&self, now: Millis) -> Vec<RecordFields> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let records = lock(shard);
            let known = records
                .iter()
                .filter(|record| record.key != 0 && (record.until > now || record.right != 0));
            all.extend(known.map(|record| record.to_fields()));
        }
        all
    }

    /// Adds the records of a predecessor to an empty table. It has the same sets, so that they fit.
    pub(super) fn restore(&self, records: &[RecordFields]) {
        for record in records
            .iter()
            .map(|fields| FailureRecord::from_fields(*fields))
            .filter(|record| record.key != 0)
        {
            let key = LockoutKey(record.key);
            let mut shard = self.shard(key);
            if let Some(place) = self.place(&mut shard, key, |record| record.until) {
                *place = record;
            }
        }
    }

    /// The record of a key whose failures still count, or of a pair that is known.
    pub(super) fn get(&self, key: LockoutKey, now: Millis) -> Option<FailureRecord> {
        let shard = self.shard(key);
        let set = shard.get(self.range(key))?;
        let found = set.iter().find(|record| record.key == key.0)?;
        (found.until > now || found.right != 0).then(|| match found.until > now {
            true => *found,
            // The wrong passfields of then are checked again.
            false => FailureRecord {
                wrong: [0; 3],
                ..*found
            },
        })
    }

    /// Counts a failure.
    ///
    /// In a full table the record that would expire first is replaced, and its failures are charged
    /// to the new one (the space-saving algorithm of Metwally, Agrawal and El Abbadi): a key that
    /// was evicted is charged as much when it fails again. Filling the table makes it stricter and
    /// cannot erase a failure.
    pub(super) fn charge(&self, key: LockoutKey, tag: u64, each: Duration, now: Millis) {
        let mut shard = self.shard(key);
        if let Some(record) = self.place(&mut shard, key, |record| record.until.max(now)) {
            if record.key != key.0 {
                *record = FailureRecord {
                    key: key.0,
                    until: record.until,
                    ..FailureRecord::default()
                };
            }
            record.charge(tag, each, now);
        }
    }

    /// Counts a failure of a pair that is known; false for any other.
    pub(super) fn charge_known(
        &self,
        key: LockoutKey,
        tag: u64,
        each: Duration,
        now: Millis,
    ) -> bool {
        let mut shard = self.shard(key);
        let known = shard
            .get_mut(self.range(key))
            .and_then(|set| set.iter_mut().find(|r| r.key == key.0));
        known.is_some_and(|record| {
            record.charge(tag, each, now);
            true
        })
    }

    /// Records a login of a pair. A full set evicts the pair whose last login is the oldest.
    pub(super) fn know(&self, key: LockoutKey, of: [LockoutKey; 2], now: Millis) {
        let mut shard = self.shard(key);
        if let Some(record) = self.place(&mut shard, key, |record| Millis(u64::from(record.right)))
        {
            if record.key != key.0 {
                *record = FailureRecord {
                    key: key.0,
                    of: of.map(half),
                    ..FailureRecord::default()
                };
            }
            record.right = seconds(now);
        }
    }

    /// Whether a log line about a key is due: at most one in a minute.
    pub(super) fn log(&self, key: LockoutKey, now: Millis) -> bool {
        let mut shard = self.shard(key);
        let found = shard
            .get_mut(self.range(key))
            .and_then(|set| set.iter_mut().find(|r| r.key == key.0));
        let Some(record) = found else { return false };
        let due = record.logged == 0 || seconds(now).saturating_sub(record.logged) >= 60;
        if due {
            record.logged = seconds(now);
        }
        due
    }

    /// Resets the failures of the selected entries. Returns whether there were any that counted.
    pub(super) fn reset(&self, now: Millis, is_selected: impl Fn(&FailureRecord) -> bool) -> bool {
        let mut found = false;
        for shard in &self.shards {
            for record in lock(shard)
                .iter_mut()
                .filter(|record| record.key != 0 && is_selected(record))
            {
                found |= record.until > now;
                *record = FailureRecord {
                    until: Millis::default(),
                    wrong: [0; 3],
                    ..*record
                };
            }
        }
        found
    }

    /// The number of entries whose failures still count.
    pub(super) fn active_entries(&self, now: Millis) -> usize {
        let active_entries = |shard| {
            lock(shard)
                .iter()
                .filter(|record| record.until > now)
                .count()
        };
        self.shards.iter().map(active_entries).sum()
    }

    /// The allocated memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let records: usize = self.shards.iter().map(|shard| lock(shard).capacity()).sum();
        records * size_of::<FailureRecord>()
    }

    /// The record of a key: its own, a free one, or the first by `order`, which is evicted.
    fn place<'s, O: Ord>(
        &self,
        shard: &'s mut Vec<FailureRecord>,
        key: LockoutKey,
        order: impl Fn(&FailureRecord) -> O,
    ) -> Option<&'s mut FailureRecord> {
        if shard.is_empty() {
            shard.resize(self.sets * WAYS, FailureRecord::default());
        }
        let set = shard.get_mut(self.range(key))?;
        let own = set.iter().position(|record| record.key == key.0);
        let at = own.or_else(|| set.iter().position(|record| record.key == 0));
        let first = || {
            set.iter()
                .enumerate()
                .min_by_key(|(_, record)| order(record))
                .map(|(at, _)| at)
        };
        let at = at.or_else(first)?;
        set.get_mut(at)
    }

    fn shard(&self, key: LockoutKey) -> MutexGuard<'_, Vec<FailureRecord>> {
        lock(
            self.shards
                .get(index(key) % SHARDS)
                .expect("below the number of shards"),
        )
    }

    /// The range of the set of a key in its shard.
    fn range(&self, key: LockoutKey) -> std::ops::Range<usize> {
        let set = (index(key) / SHARDS) % self.sets;
        set * WAYS..(set + 1) * WAYS
    }
}

/// Nothing under the lock panics.
fn lock(shard: &Mutex<Vec<FailureRecord>>) -> MutexGuard<'_, Vec<FailureRecord>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(key: LockoutKey) -> usize {
    usize::try_from(key.0 >> 8).unwrap_or_default()
}

/// Never 0.
fn seconds(time: Millis) -> u32 {
    u32::try_from(time.0 / 1000)
        .unwrap_or(u32::MAX - 60)
        .saturating_add(1)
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);

const SHARDS: usize = 64;
/// Records of a set. With eight, sets overflow only when the table is nearly full.
const WAYS: usize = 8;
