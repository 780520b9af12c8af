//! How one key signs: its largest nonce, and how far its clock is off.

use serde::{Deserialize, Serialize};

/// Requests before a skew says anything (DETECTORS.md, D13).
const REQUESTS_MIN: u16 = 20;
/// Parts by which the running and the usual skew follow: over about 8 and 256 requests.
const FAST: f32 = 1.0 / 8.0;
const SLOW: f32 = 1.0 / 256.0;
/// As far off as counts, ms: a quarter of an hour.
const SKEW_MAX_MS: f32 = 900_000.0;

/// 32 bytes a key.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Signing {
    nonce_max: u64,
    fast_ms: f32,
    slow_ms: f32,
    requests: u16,
    /// A drift was reported and goes on.
    drifted: bool,
    /// The minute of the last report of a replay, and how bad that was.
    told_minute: u32,
    told: u8,
}

impl Signing {
    /// How far a nonce is behind the largest that was accepted; 0 when it is not.
    pub(crate) fn nonce_behind(&self, nonce: u64) -> u64 {
        self.nonce_max.saturating_sub(nonce)
    }

    /// A nonce was accepted.
    pub(crate) fn learn_nonce(&mut self, nonce: u64) {
        self.nonce_max = self.nonce_max.max(nonce);
    }

    /// The time between what a request states and its coming, ms. Gives the usual and the running one
    /// when they have come apart by more than `drift_ms`, once.
    pub(crate) fn note_skew(&mut self, skew_ms: f32, drift_ms: f32) -> Option<(f32, f32)> {
        let skew = if skew_ms.is_nan() { 0.0 } else { skew_ms.clamp(-SKEW_MAX_MS, SKEW_MAX_MS) };
        self.requests = self.requests.saturating_add(1);
        // The beginning is their plain mean.
        let mean = 1.0 / f32::from(self.requests);
        self.fast_ms += (skew - self.fast_ms) * FAST.max(mean);
        self.slow_ms += (skew - self.slow_ms) * SLOW.max(mean);
        let apart = (self.fast_ms - self.slow_ms).abs();
        if self.drifted {
            self.drifted = apart > drift_ms / 2.0;
            return None;
        }
        self.drifted = self.requests > REQUESTS_MIN && apart > drift_ms;
        self.drifted.then_some((self.slow_ms, self.fast_ms))
    }

    /// True unless as bad a replay was reported in this minute.
    pub(crate) fn is_news(&mut self, minute: u32, how_bad: u8) -> bool {
        let news = self.told_minute != minute || how_bad > self.told;
        if news {
            (self.told_minute, self.told) = (minute, how_bad);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clock_is_told_once() {
        let mut signing = Signing::default();
        let jitter = |n: u32| 40.0 + (n % 30) as f32;
        assert!((0..200).all(|n| signing.note_skew(jitter(n), 1_500.0).is_none()));
        let told: Vec<_> =
            (0..60).filter_map(|n| signing.note_skew(jitter(n) - 4_000.0, 1_500.0)).collect();
        let [(usual, running)] = told[..] else { panic!("{told:?}") };
        assert!(usual > -500.0 && running < -1_500.0, "{told:?}");
        // A young key, and times that make no sense.
        let mut signing = Signing::default();
        for skew in [f32::NAN, f32::INFINITY, -1e30, 0.0, 1e9] {
            assert_eq!(signing.note_skew(skew, 1_500.0), None);
        }
        assert!(signing.fast_ms.is_finite() && signing.slow_ms.is_finite());
    }
}
