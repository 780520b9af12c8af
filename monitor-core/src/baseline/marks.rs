//! A small set of what is usual, by short hashes: sixteen things in 32 bytes.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::saved;

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

/// The things most used, those that are used more before those that are used less: each use moves a
/// thing one place up, and what is new takes the last place (the transposition rule; Rivest, 1976).
#[derive(Debug)]
pub(crate) struct Marks<const N: usize = PLACES> {
    /// 0 is an empty place.
    marks: [u16; N],
}

impl<const N: usize> Serialize for Marks<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        saved::array::serialize(&self.marks, serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Marks<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Marks<N>, D::Error> {
        Ok(Marks { marks: saved::array::deserialize(deserializer)? })
    }
}

impl<const N: usize> Default for Marks<N> {
    fn default() -> Marks<N> {
        Marks { marks: [0; N] }
    }
}

impl<const N: usize> Marks<N> {
    pub(crate) fn is_empty(&self) -> bool {
        self.marks[0] == 0
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark.0)
    }

    /// The most used, in order; 0 is none.
    pub(crate) fn first<const M: usize>(&self) -> [u16; M] {
        std::array::from_fn(|at| self.marks.get(at).copied().unwrap_or_default())
    }

    /// Goes on from them.
    pub(crate) fn of_first(first: &[u16]) -> Marks<N> {
        let mut marks = Marks::default();
        marks.marks.iter_mut().zip(first).for_each(|(to, from)| *to = *from);
        marks
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.marks.iter().filter(|mark| **mark != 0).count()
    }

    /// True when it was not there.
    pub(crate) fn add(&mut self, mark: Mark) -> bool {
        let at = self.marks.iter().position(|known| *known == mark.0 || *known == 0);
        let at = at.unwrap_or(N - 1);
        let is_new = self.marks[at] != mark.0;
        self.marks[at] = mark.0;
        if !is_new && at > 0 {
            self.marks.swap(at, at - 1);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_makes_room() {
        let mut marks = Marks::<PLACES>::default();
        assert!(marks.is_empty());
        for round in 0..100 {
            for thing in 0..16 {
                assert_eq!(marks.add(Mark::of(thing)), round == 0);
            }
        }
        for _ in 0..32 {
            (1..16).for_each(|thing| assert!(!marks.add(Mark::of(thing))));
        }
        assert!(marks.add(Mark::of("new")));
        assert!(!marks.has(Mark::of(0)) && marks.has(Mark::of(1)));
        assert_eq!(marks.len(), 16);
    }
}
