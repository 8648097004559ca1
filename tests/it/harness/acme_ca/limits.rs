//! The limits that Let's Encrypt publishes, enforced by the played CA: token buckets, by its own
//! clock.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, SystemTime};

/// So many at once, and one more each so often.
#[derive(Clone, Copy)]
struct Rate {
    most: u32,
    refill: Duration,
}

const fn rate(most: u32, refill_minutes: u64) -> Rate {
    Rate {
        most,
        refill: Duration::from_secs(60 * refill_minutes),
    }
}

// https://letsencrypt.org/docs/rate-limits/
const ACCOUNTS: Rate = rate(10, 18);
const ORDERS: Rate = Rate {
    most: 300,
    refill: Duration::from_secs(36),
};
const FAILURES: Rate = rate(5, 12);
const IN_A_ROW: Rate = rate(1152, 24 * 60);
const DUPLICATES: Rate = rate(5, 34 * 60);
const DOMAIN: Rate = rate(50, 202);

struct Bucket {
    level: f64,
    at: SystemTime,
}

/// The buckets of one limit, one for each whom it concerns.
struct Buckets<K> {
    rate: Rate,
    all: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            all: HashMap::new(),
        }
    }

    fn level(&mut self, key: K, now: SystemTime) -> &mut f64 {
        let most = f64::from(self.rate.most);
        let bucket = self.all.entry(key).or_insert(Bucket {
            level: most,
            at: now,
        });
        let passed = now.duration_since(bucket.at).unwrap_or_default();
        bucket.level = (bucket.level + passed.div_duration_f64(self.rate.refill)).min(most);
        bucket.at = now.max(bucket.at);
        &mut bucket.level
    }

    fn is_empty(&mut self, key: K, now: SystemTime) -> bool {
        *self.level(key, now) < 1.0
    }

    fn take(&mut self, key: K, now: SystemTime) {
        *self.level(key, now) -= 1.0;
    }
}

/// What has been used up.
pub struct Limits {
    accounts: Buckets<()>,
    orders: Buckets<String>,
    failures: Buckets<(String, String)>,
    in_a_row: Buckets<(String, String)>,
    duplicates: Buckets<Vec<String>>,
    domains: Buckets<String>,
    /// The sets of names that were certified before: another certificate for one is a renewal.
    known: HashSet<Vec<String>>,
    /// What was refused, in words.
    pub refused: Vec<String>,
}

impl Limits {
    pub fn new() -> Self {
        Self {
            accounts: Buckets::new(ACCOUNTS),
            orders: Buckets::new(ORDERS),
            failures: Buckets::new(FAILURES),
            in_a_row: Buckets::new(IN_A_ROW),
            duplicates: Buckets::new(DUPLICATES),
            domains: Buckets::new(DOMAIN),
            known: HashSet::new(),
            refused: Vec::new(),
        }
    }

    /// Whether one more account may be made, which counts at once.
    pub fn account(&mut self, now: SystemTime) -> Result<(), &'static str> {
        if self.accounts.is_empty((), now) {
            return self.refuse("too many new registrations", "");
        }
        self.accounts.take((), now);
        Ok(())
    }

    /// Whether an order may be placed. `exempt`: it replaces a certificate (RFC 9773 §5).
    pub fn order(
        &mut self,
        account: &str,
        names: &[String],
        exempt: bool,
        now: SystemTime,
    ) -> Result<(), &'static str> {
        for name in names {
            let of = || (account.to_owned(), name.clone());
            if self.failures.is_empty(of(), now) {
                return self.refuse("too many failed authorizations", name);
            }
            if self.in_a_row.is_empty(of(), now) {
                return self.refuse("paused", name);
            }
        }
        if exempt {
            return Ok(());
        }
        if self.orders.is_empty(account.to_owned(), now) {
            return self.refuse("too many new orders", account);
        }
        if self.duplicates.is_empty(set(names), now) {
            return self.refuse(
                "too many certificates already issued for this exact set",
                &names.join(" "),
            );
        }
        for domain in self.counted_domains(names) {
            if self.domains.is_empty(domain.clone(), now) {
                return self.refuse("too many certificates already issued for", &domain);
            }
        }
        self.orders.take(account.to_owned(), now);
        Ok(())
    }

    /// A validation has failed.
    pub fn failed(&mut self, account: &str, name: &str, now: SystemTime) {
        let of = || (account.to_owned(), name.to_owned());
        self.failures.take(of(), now);
        self.in_a_row.take(of(), now);
    }

    /// A certificate was issued.
    pub fn issued(&mut self, account: &str, names: &[String], exempt: bool, now: SystemTime) {
        for name in names {
            self.in_a_row
                .all
                .remove(&(account.to_owned(), name.clone()));
        }
        if !exempt {
            self.duplicates.take(set(names), now);
            for domain in self.counted_domains(names) {
                self.domains.take(domain, now);
            }
        }
        self.known.insert(set(names));
    }

    /// None for a renewal.
    fn counted_domains(&self, names: &[String]) -> Vec<String> {
        if self.known.contains(&set(names)) {
            return Vec::new();
        }
        let mut all: Vec<String> = names.iter().map(|name| registered(name)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn refuse(&mut self, words: &'static str, of: &str) -> Result<(), &'static str> {
        self.refused.push(format!("{words} {of}"));
        Err(words)
    }
}

fn set(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// The last two labels: the tests use no others.
fn registered(name: &str) -> String {
    let mut labels = name.rsplitn(3, '.');
    let (top, second) = (labels.next().unwrap(), labels.next().unwrap_or_default());
    format!("{second}.{top}")
}
