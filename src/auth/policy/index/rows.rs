//! Sets of rows as they are stored in the index.

use fixedbitset::{Block, FixedBitSet};

/// The non-zero blocks of a bit set, with the index of each: its memory grows with the rows that
/// are in the set, not with all rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows(Vec<(usize, Block)>);

impl Rows {
    /// Adds the last row so far, or one more.
    pub(super) fn add(&mut self, row: usize) {
        let (index, bit) = (row / BLOCK_BITS, 1 << (row % BLOCK_BITS));
        match self.0.last_mut() {
            Some((last, block)) if *last == index => *block |= bit,
            _ => self.0.push((index, bit)),
        }
    }

    /// Adds these rows to a set of all rows.
    pub(super) fn add_to(&self, set: &mut FixedBitSet) {
        let blocks = set.as_mut_slice();
        for (index, block) in &self.0 {
            if let Some(own) = blocks.get_mut(*index) {
                *own |= block;
            }
        }
    }
}

const BLOCK_BITS: usize = Block::BITS as usize;
