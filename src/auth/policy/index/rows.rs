//! Sets of rows: as they are kept, and as they are joined to answer a question.

/// Some rows, as words of 64 bits of which those without any are left out: never more than the rows
/// that there are divided by 64, and never more than are in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows(Vec<(usize, u64)>);

/// Some rows, every word of them.
#[derive(Clone, Debug)]
pub(super) struct Bits(Vec<u64>);

impl Rows {
    /// Adds the last row so far, or one more.
    pub(super) fn add(&mut self, row: usize) {
        let (word, bit) = (row / 64, 1 << (row % 64));
        match self.0.last_mut() {
            Some((last, bits)) if *last == word => *bits |= bit,
            _ => self.0.push((word, bit)),
        }
    }
}

impl Bits {
    /// None of so many.
    pub(super) fn none(rows: usize) -> Self {
        Self(vec![0; rows.div_ceil(64)])
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }

    pub(super) fn add(&mut self, rows: &Rows) {
        for (word, bits) in &rows.0 {
            if let Some(own) = self.0.get_mut(*word) {
                *own |= bits;
            }
        }
    }

    pub(super) fn add_all(&mut self, others: &Self) {
        self.0
            .iter_mut()
            .zip(&others.0)
            .for_each(|(own, other)| *own |= other);
    }

    /// Takes out what is not among others.
    pub(super) fn intersect(&mut self, others: &Self) {
        self.0
            .iter_mut()
            .zip(&others.0)
            .for_each(|(own, other)| *own &= other);
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.0
            .get(row / 64)
            .is_some_and(|bits| *bits & (1_u64 << (row % 64)) != 0)
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

impl IntoIterator for Bits {
    type Item = usize;
    type IntoIter = Ones;

    /// From the first row on.
    fn into_iter(self) -> Ones {
        Ones {
            words: self.0.into_iter().enumerate(),
            word: 0,
            bits: 0,
        }
    }
}

/// The rows of a set.
pub(super) struct Ones {
    words: std::iter::Enumerate<std::vec::IntoIter<u64>>,
    word: usize,
    bits: u64,
}

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            (self.word, self.bits) = self.words.next()?;
        }
        let bit = self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(self.word * 64 + bit)
    }
}
