//! Reproducible randomness from two printed numbers. They determine what happens and when, but not
//! how far threads have progressed when the process is killed.

use std::time::{Duration, SystemTime};

/// SplitMix64.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    /// Seeded by `MOORGATE_TEST_SEED`, or else at random.
    pub fn new() -> Self {
        Self(number("MOORGATE_TEST_SEED", || {
            let mut bytes = [0; 4];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            u64::from(u32::from_le_bytes(bytes))
        }))
    }

    /// A generator for the nth event at a place, independent of events elsewhere.
    pub fn at(&self, place: &str, times: u64) -> Self {
        let numbers = place.bytes().map(u64::from).chain([times]);
        Self(numbers.fold(self.0, |state, number| Self(state ^ number).next()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to but excluding `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns `true` with a probability of `times` in a thousand.
    pub fn in_thousand(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }
}

/// When the year begins, on which much depends: `MOORGATE_TEST_BEGIN`, in seconds since 1970, or
/// now.
pub fn beginning() -> SystemTime {
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    SystemTime::UNIX_EPOCH + Duration::from_secs(number("MOORGATE_TEST_BEGIN", now))
}

fn number(variable: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    let given = std::env::var(variable)
        .ok()
        .map(|number| number.parse().expect("a number"));
    let number = given.unwrap_or_else(otherwise);
    println!("{variable}={number}");
    number
}
