//! What part of a key's calls are of which operation, over windows of calls.

use serde::{Deserialize, Serialize};

use super::OPS;

/// Calls of a window: fewer say little of a mix, more hide a change for long.
const WINDOW_CALLS: u8 = 64;
/// Windows before a key's own spread is known (DETECTORS.md, D8).
const WINDOWS_MIN: u8 = 20;
/// Divergence, of at most 1, that is never a change: a quarter of the calls are others.
const LEAST: f32 = 0.2;
/// A change goes beyond the key's own largest divergence by this factor (as for rates).
const OWN_MAX_FACTOR: f32 = 1.25;
/// Windows in a row: one is a batch job.
const RUN: u8 = 2;
/// Part of each mix that is spread over all operations.
const SMOOTH: f32 = 0.01;

/// Windows that the usual mix remembers.
const MEMORY_WINDOWS: u8 = 8;
/// Parts of a mix are held as so many; and divergences.
const WHOLE: f32 = 250.0;

/// The running window of a key, and how far windows usually diverge.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mix {
    usual: [u8; OPS],
    own_max: u8,
    counts: [u8; OPS],
    calls: u8,
    windows: u8,
    run: u8,
}

/// A mix that does not fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shift {
    /// Jensen-Shannon divergence, from 0 to 1 (logarithms to base 2).
    pub(crate) divergence: f32,
    /// Largest divergence that passes.
    pub(crate) bar: f32,
    /// The operation that gained most, and its usual and its present part.
    pub(crate) op: usize,
    pub(crate) usual: f32,
    pub(crate) now: f32,
}

impl Mix {
    /// Counts a call; a full window is held against those before.
    pub(crate) fn count(&mut self, op: usize) -> Option<Shift> {
        self.counts[op] = self.counts[op].saturating_add(1);
        self.calls = self.calls.saturating_add(1);
        if self.calls < WINDOW_CALLS {
            return None;
        }
        let now = shares(|op| f32::from(self.counts[op]));
        let usual = shares(|op| f32::from(self.usual[op]));
        (self.counts, self.calls) = ([0; OPS], 0);
        let divergence = divergence(&now, &usual);
        let own_max = f32::from(self.own_max) / WHOLE;
        let bar = (OWN_MAX_FACTOR * own_max).max(LEAST);
        self.windows = self.windows.saturating_add(1);
        let is_known = self.windows > WINDOWS_MIN;
        let is_odd = is_known && divergence > bar;
        // The first windows have nothing to be held against, and odd ones teach a little only.
        let memory = f32::from(self.windows.min(MEMORY_WINDOWS)) * if is_odd { 4.0 } else { 1.0 };
        for (usual, now) in self.usual.iter_mut().zip(&now) {
            *usual = (f32::from(*usual) + (now * WHOLE - f32::from(*usual)) / memory).round() as u8;
        }
        if !is_odd {
            self.run = 0;
            if self.windows > 2 {
                self.fade();
                self.own_max = self.own_max.max((divergence * WHOLE) as u8);
            }
            return None;
        }
        self.run = self.run.saturating_add(1);
        if self.run != RUN {
            return None;
        }
        self.own_max = (bar * WHOLE) as u8;
        let gain = |op: &usize| now[*op] - usual[*op];
        let op = (0..OPS).max_by(|a, b| gain(a).total_cmp(&gain(b))).unwrap_or(0);
        Some(Shift { divergence, bar, op, usual: usual[op], now: now[op] })
    }

    /// The largest divergence is forgotten by a part in 250 each eighth window.
    fn fade(&mut self) {
        if self.windows.is_multiple_of(8) {
            self.own_max = self.own_max.saturating_sub(1);
        }
        if self.windows == u8::MAX {
            self.windows -= 64;
        }
    }
}

/// Parts of the whole; all alike when there is nothing, or no number.
fn shares(of: impl Fn(usize) -> f32) -> [f32; OPS] {
    let sane = |value: f32| if value.is_finite() { value.max(0.0) } else { 0.0 };
    let total: f32 = (0..OPS).map(|op| sane(of(op))).sum();
    let even = 1.0 / OPS as f32;
    std::array::from_fn(|op| {
        let share = if total > 0.0 { sane(of(op)) / total } else { even };
        (1.0 - SMOOTH) * share + SMOOTH * even
    })
}

/// Jensen and Shannon's divergence (Lin, 1991), from 0 to 1.
fn divergence(a: &[f32; OPS], b: &[f32; OPS]) -> f32 {
    let half = |p: f32, m: f32| if p > 0.0 { p * (p / m).log2() } else { 0.0 };
    let each = a.iter().zip(b).map(|(p, q)| {
        let m = (p + q) / 2.0;
        half(*p, m) + half(*q, m)
    });
    (each.sum::<f32>() / 2.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_mixes() {
        let only = |op: usize| shares(|other| f32::from(other == op));
        assert!(divergence(&only(1), &only(1)) < 1e-6);
        assert!(divergence(&only(1), &only(2)) > 0.95);
        assert!(divergence(&shares(|_| f32::NAN), &shares(|_| 0.0)) < 1e-6);
    }

    #[test]
    fn two_windows_in_a_row_that_differ() {
        let mut mix = Mix::default();
        for n in 0..64 * 40 {
            let op = [1, 1, 1, 2, 1, 1, 3, 1, 2, 1][n % 10];
            assert_eq!(mix.count(op), None);
        }
        let shifts = (0..64 * 4).filter_map(|_| mix.count(4)).collect::<Vec<_>>();
        assert_eq!(shifts.len(), 1, "{shifts:?}");
        assert_eq!(shifts[0].op, 4);
    }
}
