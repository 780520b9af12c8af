//! How big answers usually are, as the logarithm of their bytes: of a key, and of an endpoint.

use serde::{Deserialize, Serialize};

use super::names::Named;
use super::{Slots, saved};
use crate::call::KeyId;

/// Endpoints held; APIs have a few hundred routes. 40 B each.
const ENDPOINTS_MAX: usize = 4_096;
/// Answers that a mean remembers.
const MEMORY: u16 = 2_000;
/// Spread of the logarithm before anything is known (a factor of e), worth so many answers.
const PRIOR_VARIANCE: f32 = 1.0;
const PRIOR_ANSWERS: f32 = 20.0;
/// Least spread: a list with one entry more.
const DEVIATION_MIN: f32 = 0.3;
/// Deviations beyond the mean that are usual: of a key over all that it asks for, and of what is big at an
/// endpoint.
const DEVIATIONS: f32 = 3.0;
const ENDPOINT_DEVIATIONS: f32 = 2.0;
/// The most that one answer counts: three natural powers.
const EXCESS_MAX: f32 = 3.0;
/// Sum beyond which it does not fit: e.g. two answers eight times as big as any. And the most of it: a
/// day of ordinary answers forgets that.
const BAR: f32 = 4.0;
const SUM_MAX: f32 = 60.0;
/// Each finding raises the bar for the next by this factor; what each ordinary answer takes off the
/// sum; the fading of the raised bar.
const OWN_MAX_FACTOR: f32 = 1.25;
const FALL: f32 = 0.05;
const OWN_MAX_KEPT: f32 = 0.9999;

/// Mean and variance of the logarithm of sizes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Size {
    mean: f32,
    variance: f32,
    answers: u16,
}

impl Size {
    /// The largest usual size, as a logarithm.
    fn most(&self, deviations: f32) -> f32 {
        let known = f32::from(self.answers);
        let variance =
            (self.variance * known + PRIOR_VARIANCE * PRIOR_ANSWERS) / (known + PRIOR_ANSWERS);
        self.mean + deviations * variance.max(0.0).sqrt().max(DEVIATION_MIN)
    }

    /// Learns a size, as far as it is usual.
    fn learn(&mut self, size: f32) {
        let size = if self.answers < PRIOR_ANSWERS as u16 {
            size
        } else {
            size.min(self.most(DEVIATIONS))
        };
        self.answers = self.answers.saturating_add(1).min(MEMORY);
        let step = 1.0 / f32::from(self.answers);
        let off = size - self.mean;
        self.mean += step * off;
        self.variance += step * (off * (size - self.mean) - self.variance);
    }
}

/// Sizes of the answers to one key: to reads, and to all else.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sizes {
    of: [Size; 2],
    sum: f32,
    own_max: f32,
}

/// Answers that are too big.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bulk {
    pub(crate) sum: f32,
    pub(crate) bar: f32,
    /// The largest usual size, bytes.
    pub(crate) usual_bytes: f32,
}

impl Sizes {
    /// An answer of so many bytes; `least` is the logarithm of what is big at all, `endpoint` what is
    /// usual where it was asked.
    pub(crate) fn note(
        &mut self,
        is_read: bool,
        bytes: u64,
        least: f32,
        endpoint: f32,
    ) -> Option<Bulk> {
        let size = ln_of(bytes);
        let own = &mut self.of[usize::from(is_read)];
        let most = own.most(DEVIATIONS).max(endpoint).max(least);
        own.learn(size);
        let excess = (size - most).min(EXCESS_MAX);
        self.own_max *= OWN_MAX_KEPT;
        if excess <= 0.0 {
            self.sum = (self.sum - FALL).max(0.0);
            return None;
        }
        self.sum = (self.sum + excess).min(SUM_MAX);
        let bar = (OWN_MAX_FACTOR * self.own_max).max(BAR);
        if self.sum <= bar {
            return None;
        }
        let bulk = Bulk { sum: self.sum, bar: BAR, usual_bytes: most.exp_m1() };
        // It goes on from there: the next finding is for more of it.
        self.own_max = self.sum;
        Some(bulk)
    }
}

/// The logarithm of a size; of nothing 0.
fn ln_of(bytes: u64) -> f32 {
    (bytes as f32 + 1.0).ln()
}

/// Sizes of the big answers of each endpoint, over all keys: a key that takes a hundred counts once, until
/// another takes some.
pub(crate) struct EndpointSizes(Slots<u64, Shared>);

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shared {
    size: Size,
    last: u64,
}

impl Default for EndpointSizes {
    fn default() -> EndpointSizes {
        EndpointSizes::new()
    }
}

impl EndpointSizes {
    pub(crate) fn new() -> EndpointSizes {
        EndpointSizes(Slots::new(ENDPOINTS_MAX, |shared| shared.size.answers > 20))
    }

    /// The largest usual size at an endpoint, as a logarithm; learns this one of a key.
    pub(crate) fn most(&mut self, named: Named, bytes: u64, key: KeyId) -> f32 {
        let Shared { size, last } = self.0.find_or_insert(named.at_host(), Shared::default);
        let is_known = size.answers >= PRIOR_ANSWERS as u16;
        let most = if is_known { size.most(ENDPOINT_DEVIATIONS) } else { 0.0 };
        if std::mem::replace(last, key.0 as u64) != key.0 as u64 {
            size.learn(ln_of(bytes));
        }
        most
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// For a snapshot: those with enough answers to say what is usual.
    pub(crate) fn save(&self) -> Vec<(u64, &Shared)> {
        self.0.to_save(ENDPOINTS_MAX)
    }

    pub(crate) fn restore(&mut self, mut endpoints: Vec<(u64, Shared)>) {
        for (_, Shared { size, .. }) in &mut endpoints {
            saved::mend(&mut size.mean, 0.0..=100.0, 0.0);
            saved::mend(&mut size.variance, 0.0..=1e4, 0.0);
        }
        self.0.take_back(endpoints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_far_beyond_all_before() {
        let mut sizes = Sizes::default();
        let least = 65_536f32.ln();
        for n in 0..2_000u64 {
            assert_eq!(sizes.note(true, 500 + n % 700, least, 0.0), None);
        }
        let found: Vec<Bulk> =
            (0..10).filter_map(|_| sizes.note(true, 5_000_000, least, 0.0)).collect();
        assert!((2..=6).contains(&found.len()), "{found:?}");
        assert!(found.is_sorted_by(|a, b| 1.2 * a.sum < b.sum), "more of it each time: {found:?}");
        let mut usual = Sizes::default();
        let exports = (0..10).filter_map(|_| usual.note(true, 5_000_000, least, 16.0)).count();
        assert_eq!(exports, 0, "usual at that endpoint");
        for bytes in [0, u64::MAX, 1, u64::MAX] {
            sizes.note(false, bytes, f32::NAN, f32::NAN);
            assert!(sizes.sum.is_finite() && sizes.of[0].mean.is_finite());
        }
    }
}
