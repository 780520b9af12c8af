//! A small set of what is usual, by short hashes: sixteen things in 48 bytes.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

/// Things remembered (DETECTORS.md, D5 and D18): who has more of them roams, and one more is then no
/// surprise.
const PLACES: usize = 16;

/// A hash of 16 bits: of sixteen known things, one stranger in 4,096 looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u16);

impl Mark {
    pub(crate) fn of(thing: impl Hash) -> Mark {
        Mark((FixedState::with_seed(0).hash_one(thing) >> 48).max(1) as u16)
    }

    /// As a number; never 0.
    pub(crate) fn number(self) -> u16 {
        self.0
    }
}

/// The things most used.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// 0 is an empty place.
    marks: [u16; PLACES],
    uses: [u8; PLACES],
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.marks[0] == 0
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.marks.iter().filter(|mark| **mark != 0).count()
    }

    /// True when it was not there. The least used makes room.
    pub(crate) fn add(&mut self, mark: Mark) -> bool {
        if let Some(at) = self.marks.iter().position(|known| *known == mark.0) {
            if self.uses[at] == u8::MAX {
                self.uses.iter_mut().for_each(|uses| *uses /= 2);
            }
            self.uses[at] += 1;
            return false;
        }
        let at = match self.marks.iter().position(|known| *known == 0) {
            Some(empty) => empty,
            None => (0..PLACES).min_by_key(|at| self.uses[*at]).unwrap_or(0),
        };
        self.marks[at] = mark.0;
        self.uses[at] = 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_makes_room() {
        let mut marks = Marks::default();
        assert!(marks.is_empty());
        for round in 0..600 {
            for thing in 0..16 {
                assert_eq!(marks.add(Mark::of(thing)), round == 0);
            }
        }
        for _ in 0..8 {
            (1..16).for_each(|thing| assert!(!marks.add(Mark::of(thing))));
        }
        assert!(marks.add(Mark::of("new")));
        assert!(!marks.has(Mark::of(0)) && marks.has(Mark::of(1)));
        assert_eq!(marks.len(), 16);
    }
}
