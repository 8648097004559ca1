//! A model of Let's Encrypt that enforces its published limits: token buckets, by true time.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::super::limits::registered_domain;
use super::{DAY, HOUR, MINUTE};
use crate::certs::names::NameSet;
use crate::certs::renewal::{AriWindow, Validity};

/// A bucket as Let's Encrypt describes it: so many at once, and one more each so often.
pub(super) struct Bucket {
    most: f64,
    refill: Duration,
    level: f64,
    at: SystemTime,
}

impl Bucket {
    pub(super) fn new(most: u32, refill: Duration, at: SystemTime) -> Self {
        Self {
            most: f64::from(most),
            refill,
            level: f64::from(most),
            at,
        }
    }

    pub(super) fn fill(&mut self, now: SystemTime) {
        let refilled = now
            .duration_since(self.at)
            .expect("time passes")
            .div_duration_f64(self.refill);
        (self.level, self.at) = ((self.level + refilled).min(self.most), now);
    }

    pub(super) fn has(&mut self, now: SystemTime) -> bool {
        self.fill(now);
        self.level >= 1.0
    }

    pub(super) fn take(&mut self, now: SystemTime) {
        self.fill(now);
        self.level -= 1.0;
    }
}

/// The CA. It knows the true time.
pub(super) struct ModelCa {
    pub(super) lifetime: Duration,
    pub(super) has_ari: bool,
    pub(super) begun: SystemTime,
    pub(super) outage: Range<SystemTime>,
    pub(super) orders: Bucket,
    pub(super) failures: HashMap<String, Bucket>,
    pub(super) in_a_row: HashMap<String, Bucket>,
    pub(super) duplicates: HashMap<NameSet, Bucket>,
    pub(super) domains: HashMap<String, Bucket>,
    pub(super) replaced: Vec<u64>,
    pub(super) serial: u64,
    /// Orders that it would have refused for a limit.
    pub(super) refused: Vec<&'static str>,
}

#[derive(Clone, Copy)]
pub(super) struct SimulatedCertificate {
    pub(super) serial: u64,
    pub(super) life: Validity,
}

impl ModelCa {
    pub(super) fn new(
        lifetime: Duration,
        has_ari: bool,
        begun: SystemTime,
        outage: Range<SystemTime>,
    ) -> Self {
        Self {
            lifetime,
            has_ari,
            begun,
            outage,
            orders: Bucket::new(300, Duration::from_secs(36), begun),
            failures: HashMap::new(),
            in_a_row: HashMap::new(),
            duplicates: HashMap::new(),
            domains: HashMap::new(),
            replaced: Vec::new(),
            serial: 0,
            refused: Vec::new(),
        }
    }

    pub(super) fn is_down(&self, now: SystemTime) -> bool {
        self.outage.contains(&now)
    }

    pub(super) fn new_order(&mut self, names: &NameSet, replaces: Option<u64>, now: SystemTime) {
        let begun = self.begun;
        let exempt = replaces.is_some_and(|serial| !self.replaced.contains(&serial));
        if !exempt {
            if !self.orders.has(now) {
                self.refused.push("orders");
            }
            self.orders.take(now);
            let is_renewal = self.duplicates.contains_key(names);
            let same = self.duplicates.entry(names.clone());
            if !same
                .or_insert_with(|| Bucket::new(5, 34 * HOUR, begun))
                .has(now)
            {
                self.refused.push("duplicates");
            }
            for name in names.iter().filter(|_| !is_renewal) {
                let domain = self.domains.entry(registered_domain(name).into_owned());
                if !domain
                    .or_insert_with(|| Bucket::new(50, 202 * MINUTE, begun))
                    .has(now)
                {
                    self.refused.push("domain");
                }
            }
        }
        for name in names.iter() {
            let failures = self.failures.entry(name.into());
            if !failures
                .or_insert_with(|| Bucket::new(5, 12 * MINUTE, begun))
                .has(now)
            {
                self.refused.push("failures");
            }
            let in_a_row = self.in_a_row.entry(name.into());
            if !in_a_row
                .or_insert_with(|| Bucket::new(1152, DAY, begun))
                .has(now)
            {
                self.refused.push("paused");
            }
        }
    }

    pub(super) fn validation_failed(&mut self, names: &NameSet, now: SystemTime) {
        for name in names.iter() {
            self.failures.get_mut(name).expect("ordered").take(now);
            self.in_a_row.get_mut(name).expect("ordered").take(now);
        }
    }

    pub(super) fn issue(
        &mut self,
        names: &NameSet,
        replaces: Option<u64>,
        now: SystemTime,
    ) -> SimulatedCertificate {
        match replaces.filter(|serial| !self.replaced.contains(serial)) {
            Some(serial) => self.replaced.push(serial),
            None => {
                let begun = self.begun;
                let same = self.duplicates.entry(names.clone());
                same.or_insert_with(|| Bucket::new(5, 34 * HOUR, begun))
                    .take(now);
                for name in names.iter() {
                    if let Some(domain) = self.domains.get_mut(registered_domain(name).as_ref()) {
                        domain.take(now);
                    }
                }
            }
        }
        self.in_a_row.retain(|name, _| !names.contains(name));
        self.serial += 1;
        // Let's Encrypt dates certificates an hour back.
        let life = Validity {
            not_before: now - HOUR,
            not_after: now - HOUR + self.lifetime,
        };
        SimulatedCertificate {
            serial: self.serial,
            life,
        }
    }

    /// Around the moment at which Let's Encrypt wishes renewal, or in the past.
    pub(super) fn window(
        &self,
        issued: SimulatedCertificate,
        revoked: SystemTime,
        now: SystemTime,
    ) -> Option<AriWindow> {
        if !self.has_ari {
            return None;
        }
        if now >= revoked && issued.life.not_before + HOUR < revoked {
            return AriWindow::new(revoked - 2 * DAY, revoked - DAY);
        }
        let left = self.lifetime / if self.lifetime < 10 * DAY { 2 } else { 3 };
        let ideal = issued.life.not_after - left;
        AriWindow::new(ideal - self.lifetime / 100, ideal + self.lifetime / 100)
    }
}
