//! Applies the rules to the tags of a repository: what makes each of them stay, and until when.

use jiff::Timestamp;

use super::facts::{Expiry, Facts, TagRole, end_of};
use super::inventory::{Inventory, TagRecord};
use super::newest;
use super::reason::{Reason, UseKind};
use crate::config::retention::{Keep, RetentionRule};

/// The rules of a domain, applied to a repository.
#[derive(Debug)]
pub(super) struct AppliedRules<'a> {
    pub(super) facts: Facts<'a>,
    /// Of each tag in its group; 0: none.
    ranks: Vec<u32>,
}

/// What a tag has for itself.
#[derive(Debug)]
pub(super) struct OwnReasons {
    /// Why it stays; none: it goes, unless it is a referrer of something that stays.
    pub(super) reasons: Vec<Reason>,
    /// When the last of them ends.
    until: u64,
    pub(super) expired: Option<Expiry>,
}

impl<'a> AppliedRules<'a> {
    pub(super) fn new(facts: Facts<'a>) -> Self {
        Self {
            ranks: newest::ranks(&facts),
            facts,
        }
    }

    pub(super) fn inventory(&self) -> &'a Inventory {
        self.facts.inventory
    }

    /// The reasons of a tag to stay. A referrer has those alone that count more than any rule: it
    /// stays with its subject otherwise.
    pub(super) fn own_reasons(&self, tag: usize) -> OwnReasons {
        let mut own = OwnReasons {
            reasons: Vec::new(),
            until: 0,
            expired: None,
        };
        let (Some(record), Some(facts)) =
            (self.inventory().tags.get(tag), self.facts.tags.get(tag))
        else {
            return own;
        };
        let rule = self.facts.rule(tag);
        match (facts.role, rule) {
            (TagRole::Referrer(_), _) => self.add_unconditional(&mut own, record, rule),
            (TagRole::Image | TagRole::Orphan, None) => own.add(Reason::NoRule, NEVER),
            (TagRole::Image | TagRole::Orphan, Some(rule)) => {
                self.add_unconditional(&mut own, record, Some(rule));
                self.add_conditional(&mut own, tag, record, rule);
            }
        }
        own
    }

    /// What counts more than that a tag has expired.
    fn add_unconditional(
        &self,
        own: &mut OwnReasons,
        record: &TagRecord,
        rule: Option<&RetentionRule>,
    ) {
        let facts = &self.facts;
        let mut protected = rule.iter().flat_map(|rule| &rule.protect);
        let name = record.tag.as_str();
        if let Some(pattern) = protected.find(|pattern| pattern.matches(name)) {
            let pattern = pattern.as_str().into();
            own.add(Reason::Protected { pattern }, NEVER);
        }
        let in_use = facts.in_use.of(&self.inventory().repository);
        let by_name = in_use.tag(&record.tag).map(|at| facts.in_use.source(at));
        if let Some(source) = by_name.or_else(|| facts.used_by(record.image)) {
            let source = source.into();
            own.add(Reason::InUse { source }, NEVER);
        }
        self.add_youth(own, record);
    }

    /// A tag is as young as its last push, and that of its image.
    fn add_youth(&self, own: &mut OwnReasons, record: &TagRecord) {
        let facts = &self.facts;
        let min_age = facts.settings.runs.min_age;
        let image = self.inventory().images.get(record.image.at());
        let image_pushed = facts.pushed(image.and_then(|image| image.pushed));
        let pushed = facts.pushed(record.pushed).max(image_pushed);
        if let Some(pushed) = pushed.filter(|pushed| facts.is_within(*pushed, min_age)) {
            let end = end_of(pushed, min_age);
            let pushed = time(pushed.into());
            own.add(Reason::Young { pushed, min_age }, end);
        }
        if record.pushed.is_none() {
            self.add_unknown(own, UseKind::Push, min_age);
        }
    }

    /// What an expired tag does not stay for.
    fn add_conditional(
        &self,
        own: &mut OwnReasons,
        tag: usize,
        record: &TagRecord,
        rule: &RetentionRule,
    ) {
        let expiry = self.facts.expiry(tag);
        own.expired = expiry.filter(|expiry| expiry.at <= self.facts.now.into());
        if own.expired.is_some() {
            return;
        }
        let unconditional = own.until;
        own.until = 0;
        match rule.keep {
            Some(kept) => self.add_kept(own, tag, record, kept),
            None => {
                let until = expiry.map(|expiry| time(expiry.at));
                own.add(Reason::NotExpired { until }, NEVER);
            }
        }
        let expires = expiry.map_or(NEVER, |expiry| expiry.at);
        own.until = own.until.min(expires).max(unconditional);
    }

    fn add_kept(&self, own: &mut OwnReasons, tag: usize, record: &TagRecord, kept: Keep) {
        let Keep {
            newest,
            pulled_within,
            pushed_within,
        } = kept;
        let facts = &self.facts;
        let rank = self.ranks.get(tag).map_or(0, |rank| *rank as usize);
        if let Some(of) = newest.filter(|of| (1..=*of).contains(&rank)) {
            own.add(Reason::Newest { rank, of }, NEVER);
        }
        if let Some(within) = pulled_within {
            let pulled = facts.tag_pulled(record);
            match pulled.filter(|pulled| facts.is_within(*pulled, within)) {
                Some(pulled) => {
                    // Later pulls may not have been recorded.
                    let since = facts.recorded_since;
                    let end = since.map_or(NEVER, |since| end_of(pulled.max(since), within));
                    let pulled = time(pulled.into());
                    own.add(Reason::PulledWithin { pulled, within }, end);
                }
                None => self.add_unknown(own, UseKind::Pull, within),
            }
        }
        if let Some(within) = pushed_within {
            match facts.pushed(record.pushed) {
                Some(pushed) if facts.is_within(pushed, within) => {
                    let end = end_of(pushed, within);
                    let pushed = time(pushed.into());
                    own.add(Reason::PushedWithin { pushed, within }, end);
                }
                Some(_) => {}
                None => self.add_unknown(own, UseKind::Push, within),
            }
        }
    }

    /// Adds that a use within that time is not excluded, if so.
    fn add_unknown(&self, own: &mut OwnReasons, of: UseKind, within: std::time::Duration) {
        let since = self.facts.recorded_since;
        let is_known = since.is_some_and(|since| !self.facts.is_within(since, within));
        if !is_known && !within.is_zero() {
            let end = since.map_or(NEVER, |since| end_of(since, within));
            let recorded_since = since.map(|since| time(since.into()));
            let reason = Reason::NotYetKnown {
                of,
                recorded_since,
                within,
            };
            own.add(reason, end);
        }
    }
}

impl OwnReasons {
    fn add(&mut self, reason: Reason, end: u64) {
        self.reasons.push(reason);
        self.until = self.until.max(end);
    }

    /// When the last of the reasons ends; `None`: it does not by itself.
    pub(super) fn until(&self) -> Option<Timestamp> {
        (self.until < NEVER).then(|| time(self.until))
    }
}

/// The time at so many seconds since 1970, or the last one that there is.
pub(super) fn time(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or(Timestamp::MAX)
}

/// The end of what time does not end.
const NEVER: u64 = u64::MAX;
