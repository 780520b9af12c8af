//! How a key's calls usually end: its share of failures, and how often it is refused.

use serde::{Deserialize, Serialize};

use super::math::{ln_tail_beta_binomial, ln_tail_negative_binomial};
use super::saved;
use crate::engine::ErrorSettings;

/// Share of failures before anything is known: one call in twenty, worth twenty calls.
const PRIOR_SHARE: f32 = 0.05;
const PRIOR_CALLS: f32 = 20.0;
/// Memory of the share: ten thousand calls.
const MEMORY_CALLS: f32 = 10_000.0;
/// How alike windows are: failures come in bursts, so a window's share is drawn from a Beta that
/// weighs as little as this many calls.
const CONCENTRATION: f64 = 30.0;
/// The share is never taken to be nothing or everything.
const SHARE_MIN: f64 = 0.002;
const SHARE_MAX: f64 = 0.95;

/// Failures of one key (or of all), a minute at a time.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failures {
    share: f32,
    calls_known: f32,
    own_max: f32,
    calls: u32,
    failed: u32,
    check_at: u32,
    expected: u32,
}

/// A window with too many failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Burst {
    pub(crate) failed: u32,
    pub(crate) calls: u32,
    /// Usual share of failures.
    pub(crate) share: f64,
    /// Surprise beyond the threshold, in powers of ten.
    pub(crate) excess: f64,
}

impl Failures {
    pub(crate) fn new() -> Failures {
        Failures {
            share: PRIOR_SHARE,
            calls_known: PRIOR_CALLS,
            own_max: 0.0,
            calls: 0,
            failed: 0,
            check_at: 0,
            expected: u32::MAX,
        }
    }

    /// Puts what was read back from a snapshot within its bounds.
    pub(crate) fn mend(&mut self) {
        saved::mend(&mut self.share, 0.0..=1.0, PRIOR_SHARE);
        saved::mend(&mut self.calls_known, 0.0..=MEMORY_CALLS, PRIOR_CALLS);
        saved::mend(&mut self.own_max, 0.0..=60.0, 0.0);
    }

    /// Goes on from a summary; what was known weighs half as much as it may.
    pub(crate) fn grow(&mut self, share: f32) {
        (self.share, self.calls_known) = (share, MEMORY_CALLS / 2.0);
        self.mend();
    }

    /// Somebody who knows says that bursts of this surprise are in order.
    pub(crate) fn accept(&mut self, surprise: f32) {
        self.own_max = self.own_max.max(surprise.clamp(0.0, 60.0));
    }

    /// Counts a call; true when it is time to [`check`](Failures::check).
    pub(crate) fn count(&mut self, failed: bool) -> bool {
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(failed));
        failed && self.failed >= self.check_at
    }

    /// Usual share of failures, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.share)
    }

    /// Calls and failures in this window.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.calls, self.failed)
    }

    /// Judges the running window. `fleet_share`: what part of all other keys' calls fails now.
    pub(crate) fn check(&mut self, fleet_share: f64, settings: &ErrorSettings) -> Option<Burst> {
        if self.failed < settings.errors_per_minute_min {
            self.check_at = settings.errors_per_minute_min;
            return None;
        }
        let share = f64::from(self.share).max(fleet_share).clamp(SHARE_MIN, SHARE_MAX);
        let surprise = self.surprise(share);
        let bar = (-settings.tail_probability.log10())
            .max(settings.own_max_factor * f64::from(self.own_max))
            .clamp(1.0, 60.0);
        if surprise < bar {
            self.check_at = self.failed + self.failed / 8 + 1;
            return None;
        }
        self.check_at = self.failed + self.failed / 2 + 1;
        self.expected = self.expected.min(self.failed);
        Some(Burst { failed: self.failed, calls: self.calls, share, excess: surprise - bar })
    }

    /// Merges the window: failures beyond what was found too many do not count.
    pub(crate) fn close(&mut self) {
        if self.failed >= 4 && self.expected == u32::MAX {
            let share = f64::from(self.share).clamp(SHARE_MIN, SHARE_MAX);
            self.own_max = self.own_max.max(self.surprise(share) as f32);
        }
        self.own_max *= 0.9999;
        let (calls, failed) = (self.calls as f32, self.failed.min(self.expected) as f32);
        self.calls_known = (self.calls_known + calls).min(MEMORY_CALLS);
        self.share += (failed - self.share * calls) / self.calls_known.max(calls).max(1.0);
        self.share = self.share.clamp(0.0, 1.0);
        self.discard();
    }

    /// Forgets the window.
    pub(crate) fn discard(&mut self) {
        (self.calls, self.failed, self.check_at, self.expected) = (0, 0, 0, u32::MAX);
    }

    fn surprise(&self, share: f64) -> f64 {
        let (a, b) = (share * CONCENTRATION, (1.0 - share) * CONCENTRATION);
        let ln_p = ln_tail_beta_binomial(u64::from(self.failed), u64::from(self.calls), a, b);
        -ln_p / std::f64::consts::LN_10
    }
}

impl Default for Failures {
    fn default() -> Failures {
        Failures::new()
    }
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals::new()
    }
}

/// Refusals of one key: rare things, counted a quarter of an hour at a time.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Refusals {
    mean: f32,
    quarters: u32,
    quarter: u32,
    count: u16,
    total: u16,
}

impl Refusals {
    /// Before anything is known: one refusal in five hours, worth 50 quarters.
    const PRIOR_MEAN: f32 = 0.05;
    const PRIOR_QUARTERS: u32 = 50;
    const MEMORY_QUARTERS: u32 = 14 * 96;
    /// Refusals come in runs: the same misconfigured job repeats itself.
    const DISPERSION: f64 = 4.0;
    /// More in one quarter teach nothing: an attack is not a habit.
    const LEARNT_MAX: u16 = 3;

    pub(crate) fn new() -> Refusals {
        Refusals {
            mean: Refusals::PRIOR_MEAN,
            quarters: Refusals::PRIOR_QUARTERS,
            quarter: 0,
            count: 0,
            total: 0,
        }
    }

    /// Puts what was read back from a snapshot within its bounds.
    pub(crate) fn mend(&mut self) {
        saved::mend(&mut self.mean, 0.0..=1e9, Refusals::PRIOR_MEAN);
        self.quarters = self.quarters.max(Refusals::PRIOR_QUARTERS);
        self.total = self.total.max(self.count);
    }

    /// Usual refusals in a quarter of an hour.
    pub(crate) fn mean(&self) -> f32 {
        self.mean
    }

    /// Goes on from a summary.
    pub(crate) fn grow(&mut self, mean: f32) {
        (self.mean, self.quarters) = (mean, Refusals::MEMORY_QUARTERS);
        self.mend();
    }

    /// Refusals before the running quarter of an hour.
    pub(crate) fn earlier(&self) -> u32 {
        u32::from(self.total.saturating_sub(self.count))
    }

    /// Counts a refusal in a quarter of an hour since the epoch. Gives how many there are in it and
    /// how surprising that is, in powers of ten.
    pub(crate) fn add(&mut self, quarter: u32) -> (u32, f64) {
        if quarter != self.quarter {
            self.close(quarter);
        }
        self.count = self.count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        let mean = f64::from(self.mean).max(1e-4);
        let ln_p = ln_tail_negative_binomial(u64::from(self.count), mean, Refusals::DISPERSION);
        (u32::from(self.count), -ln_p / std::f64::consts::LN_10)
    }

    /// Usual refusals in a day.
    pub(crate) fn per_day(&self) -> f64 {
        f64::from(self.mean) * 96.0
    }

    fn close(&mut self, quarter: u32) {
        if self.quarter != 0 {
            // A clock set back is one quarter later, as far as this goes.
            let passed = quarter.saturating_sub(self.quarter).max(1);
            let known = self.quarters.min(Refusals::MEMORY_QUARTERS) as f32;
            let learnt = f32::from(self.count.min(Refusals::LEARNT_MAX));
            self.mean = (self.mean * known + learnt) / (known + passed as f32);
            self.quarters = self.quarters.saturating_add(passed);
        }
        (self.quarter, self.count) = (quarter, 0);
    }
}
