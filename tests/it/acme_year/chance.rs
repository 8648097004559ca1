//! Chance that can be had again: all of it comes from one number, which is printed.

/// SplitMix64.
pub struct Chance(u64);

impl Chance {
    /// From `MOORGATE_TEST_SEED`, or else another one each time.
    pub fn new() -> Self {
        let given = std::env::var("MOORGATE_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| {
            let mut bytes = [0; 4];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            u64::from(u32::from_le_bytes(bytes))
        });
        println!("MOORGATE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another one that begins here.
    pub fn split(&mut self) -> Self {
        Self(self.next())
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
