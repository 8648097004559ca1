//! The state of the CA during the year, and counts of its failures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::acme_sim::NAMES;
use super::chance::Chance;
use crate::harness::acme_ca::{CaRequest, Handler, Scripted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// One validation in 25 fails. One order in 50 is refused, and the response to one in 50 lost.
    Usual = 0,
    /// The CA is unavailable.
    Down = 1,
    /// All validations fail.
    Blind = 2,
}

#[derive(Default)]
pub struct Moods {
    now: AtomicU8,
    outage_requests: AtomicU64,
    /// Failed validations, by the profile of the name.
    failed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Moods {
    pub fn set(&self, mood: Mood) {
        self.now.store(mood as u8, Ordering::SeqCst);
    }

    /// The number of requests while the CA was unavailable.
    pub fn outage_requests(&self) -> u64 {
        self.outage_requests.load(Ordering::SeqCst)
    }

    /// The number of failed validations for a profile.
    pub fn failed(&self, profile: &str) -> u64 {
        self.failed
            .lock()
            .unwrap()
            .get(profile)
            .copied()
            .unwrap_or_default()
    }

    pub fn handler(self: &Arc<Self>, chance: Chance) -> Handler {
        let moods = self.clone();
        let mut times = BTreeMap::<String, u64>::new();
        Box::new(move |asked| {
            let place = asked
                .challenge
                .as_ref()
                .map_or(&asked.endpoint, |(_, name)| name);
            let times = times.entry(place.clone()).or_default();
            *times += 1;
            moods.decide(asked, &mut chance.at(place, *times))
        })
    }

    fn decide(&self, asked: &CaRequest, chance: &mut Chance) -> Option<Scripted> {
        let mood = self.now.load(Ordering::SeqCst);
        if mood == Mood::Down as u8 {
            self.outage_requests.fetch_add(1, Ordering::SeqCst);
            return Some(match chance.below(3) {
                0 => Scripted::Hangup,
                1 => Scripted::Html(503, &[("retry-after", "1800")]),
                _ => Scripted::Refuse("serverInternal", 500, &[]),
            });
        }
        if asked.endpoint == "order" {
            return match chance.below(50) {
                0 => Some(Scripted::Refuse("malformed", 400, &[])),
                1 => Some(Scripted::Lost),
                _ => None,
            };
        }
        let (_, name) = asked.challenge.as_ref()?;
        let fails = mood == Mood::Blind as u8 || chance.in_thousand(40);
        fails.then(|| {
            let (profile, _) = NAMES
                .iter()
                .find(|(_, names)| names.contains(&name.as_str()))
                .expect("a name of ours");
            *self.failed.lock().unwrap().entry(profile).or_default() += 1;
            Scripted::Unmet
        })
    }
}
