//! Which operation follows which: a first-order Markov chain of a key, in a hundred bytes.

use serde::{Deserialize, Serialize};

use super::OPS;

/// Transitions before a key's own are known (DETECTORS.md, D23).
const TRANSITIONS_MIN: u16 = 200;
/// Weight of each transition that was never seen.
const PRIOR: f32 = 0.5;
/// No transition is more of a surprise, natural logarithm.
const SURPRISE_MAX: f32 = 5.0;
/// Surprise beyond the mean that each call is allowed (the slack of the CUSUM).
const SLACK: f32 = 0.5;
/// Sum beyond which it does not fit: a dozen odd transitions in a row.
const BAR: f32 = 20.0;
/// Each odd run raises the bar for the next by this factor.
const OWN_MAX_FACTOR: f32 = 1.25;
/// The mean remembers so many calls; the raised bar fades by half in 14,000.
const MEMORY_CALLS: f32 = 1_000.0;
const OWN_MAX_KEPT: f32 = 0.99995;

/// Transitions of a key, and how surprising they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sequences {
    counts: [[u8; OPS]; OPS],
    /// The operation before; [`OPS`] is none.
    last: u8,
    /// Of an odd run, every other transition is learnt.
    skip: bool,
    seen: u16,
    mean: f32,
    sum: f32,
    own_max: f32,
}

/// A run of operations that does not fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OddRun {
    /// Surprise beyond the usual, and most of it that passes.
    pub(crate) sum: f32,
    pub(crate) bar: f32,
    /// The transition that completed it.
    pub(crate) from: usize,
}

impl Default for Sequences {
    fn default() -> Sequences {
        Sequences {
            counts: [[0; OPS]; OPS],
            last: OPS as u8,
            skip: false,
            seen: 0,
            mean: 0.0,
            sum: 0.0,
            own_max: 0.0,
        }
    }
}

impl Sequences {
    /// The next operation.
    pub(crate) fn note(&mut self, op: usize) -> Option<OddRun> {
        let from = usize::from(std::mem::replace(&mut self.last, op as u8));
        let row = self.counts.get_mut(from)?;
        let total: u16 = row.iter().map(|count| u16::from(*count)).sum();
        let chance = (f32::from(row[op]) + PRIOR) / (f32::from(total) + PRIOR * OPS as f32);
        let surprise = (-chance.ln()).clamp(0.0, SURPRISE_MAX);
        self.sum = (self.sum + surprise - self.mean - SLACK).max(0.0);
        let bar = (OWN_MAX_FACTOR * self.own_max).max(BAR);
        let is_odd = self.seen >= TRANSITIONS_MIN && self.sum > BAR / 2.0;
        self.skip = is_odd && !self.skip;
        if !self.skip {
            if row[op] == u8::MAX {
                row.iter_mut().for_each(|count| *count /= 2);
            }
            row[op] += 1;
            let memory = f32::from(self.seen.max(20)).min(MEMORY_CALLS);
            self.mean += (surprise - self.mean) / memory;
        }
        self.own_max *= OWN_MAX_KEPT;
        self.seen = self.seen.saturating_add(1);
        if self.seen <= TRANSITIONS_MIN {
            // While it is learnt everything is a surprise.
            self.sum = 0.0;
            return None;
        }
        if self.sum <= bar {
            return None;
        }
        let odd = OddRun { sum: self.sum, bar, from };
        (self.own_max, self.sum) = (bar, 0.0);
        Some(odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_order_of_the_same_operations() {
        let mut it = Sequences::default();
        for n in 0..5_000 {
            assert_eq!(it.note([1, 2, 3][n % 3]), None);
        }
        let at = (0..60).find_map(|n| it.note([3, 2, 1][n % 3]).map(|_| n)).expect("noticed");
        assert!(at < 20, "{at}");
        assert!(it.counts.iter().flatten().all(|count| *count < u8::MAX));
    }
}
