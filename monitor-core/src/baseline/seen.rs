//! What was seen before, of millions of things: a bounded set that forgets what was not used for long.

use serde::{Deserialize, Serialize};

/// Tags side by side: 64 bytes, a cache line.
const WAYS: usize = 16;

/// A set of hashes at 4 bytes each. A hash that was never put in is taken for known once in
/// 2^32 / 16 = 270 million times. A full row forgets its tag that was used longest ago.
///
/// A Bloom filter of that certainty takes 5 bytes each, and can only forget everything at once.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Latest first; 0 is empty. No rows before the first hash.
    rows: Vec<[u32; WAYS]>,
}

impl Seen {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<[u32; WAYS]>()
    }

    /// Whether the hash is there; no use of it.
    pub(crate) fn has(&self, hash: u64) -> bool {
        let tag = tag(hash);
        !self.rows.is_empty() && self.rows[self.row_of(hash)].contains(&tag)
    }

    /// True when the hash (64 bits, well mixed) was not there; of `max` hashes the room is taken at
    /// the first.
    pub(crate) fn insert(&mut self, hash: u64, max: usize) -> bool {
        if self.rows.is_empty() {
            self.rows = vec![[0; WAYS]; max.div_ceil(WAYS).clamp(1, 1 << 28)];
        }
        let (at, tag) = (self.row_of(hash), tag(hash));
        let row = &mut self.rows[at];
        let known = row.iter().position(|held| *held == tag);
        row[..=known.unwrap_or(WAYS - 1)].rotate_right(1);
        row[0] = tag;
        known.is_none()
    }

    /// Multiply and shift: spread over any number of rows (Lemire, 2019).
    fn row_of(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.rows.len() as u64) >> 32) as usize
    }
}

fn tag(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn holds_what_is_used_and_forgets_the_oldest() {
        let hash = |n: u64| foldhash::quality::FixedState::with_seed(1).hash_one(n);
        let mut seen = Seen::default();
        assert_eq!(seen.bytes(), 0);
        assert!((0..10_000).all(|n| seen.insert(hash(n), 20_000)));
        assert!((0..10_000).filter(|n| seen.insert(hash(*n), 20_000)).count() < 100);
        for n in 10_000..200_000 {
            seen.insert(hash(n), 20_000);
            // In use all the time.
            seen.insert(hash(n % 100), 20_000);
        }
        assert!((0..100).all(|n| seen.has(hash(n))) && !seen.has(hash(1_000)));
        assert!((0..100).all(|n| !seen.insert(hash(n), 20_000)));
        assert!((1_000..2_000).all(|n| seen.insert(hash(n), 20_000)), "forgotten");
        assert_eq!(seen.bytes(), 80_000);
    }
}
