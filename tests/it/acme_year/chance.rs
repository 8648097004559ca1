//! Chance that can be had again: all of it comes from two numbers, which are printed. What happens
//! is then the same, and when; not how far threads have come meanwhile, which is how far a kill
//! lets them come.

use std::time::{Duration, SystemTime};

/// SplitMix64.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    /// From `MOORGATE_TEST_SEED`, or else another one each time.
    pub fn new() -> Self {
        Self(number("MOORGATE_TEST_SEED", || {
            let mut bytes = [0; 4];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            u64::from(u32::from_le_bytes(bytes))
        }))
    }

    /// Another one for the nth time that something happens at a place, whatever happens elsewhere
    /// meanwhile.
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

    /// From 0 up to, but not, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// So many times in a thousand.
    pub fn in_thousand(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }
}

/// When a year begins, of which much depends: by `MOORGATE_TEST_BEGIN`, in seconds since 1970, or
/// else now.
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
