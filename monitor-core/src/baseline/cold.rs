//! What is left of a key that was not used for long, when room is needed: enough to know it again.

use super::OPS;
use super::familiar::{Brief as Places, Familiar};
use super::key::KeyState;
use super::rate::Cohort;
use crate::time::EventTime;

/// Steps of a power of two that a rate is kept in: 9 % each.
const STEPS: f32 = 8.0;
/// The least rate that is kept, as a power of two: one call in seventeen hours.
const LEAST: f32 = -10.0;

/// Summary of a key, at most 128 bytes.
pub(crate) struct Cold {
    first_seen_s: u32,
    calls: u32,
    windows: u32,
    minute: u32,
    habits: u16,
    /// Part of its calls that fails, of 65,535.
    share: u16,
    own_max: f32,
    refused: f32,
    refused_sensitive: f32,
    /// When each class was first used, days since the epoch; 0 means never.
    first_used: [u16; OPS],
    /// Mean of each class, and root of its mean square, in steps.
    means: [u8; OPS],
    squares: [u8; OPS],
    places: Places,
}

const _: () = assert!(size_of::<Cold>() <= 128, "DESIGN.md: 128 B a cold key");

impl Cold {
    /// What is to be remembered.
    pub(crate) fn of(key: &KeyState) -> Cold {
        let rates = key.rate.brief();
        Cold {
            first_seen_s: u32::try_from(key.first_seen.secs()).unwrap_or(u32::MAX),
            calls: u32::try_from(key.calls).unwrap_or(u32::MAX),
            windows: rates.windows,
            minute: rates.minute,
            habits: key.habits(),
            share: (key.failures.share() * 65_535.0) as u16,
            own_max: rates.own_max,
            refused: key.refused.mean(),
            refused_sensitive: key.refused_sensitive.mean(),
            first_used: key
                .first_used_s
                .map(|s| if s == 0 { 0 } else { (s / 86_400).max(1) as u16 }),
            means: rates.means.map(step),
            squares: rates.squares.map(|square| step(square.sqrt())),
            places: key.familiar.brief(),
        }
    }

    /// The key as far as it is remembered; all else is as of a new one.
    pub(crate) fn grown(&self, cohort: &Cohort) -> KeyState {
        let first_seen = EventTime(u64::from(self.first_seen_s) * 1_000_000_000);
        let mut key = KeyState::new(first_seen, cohort);
        key.calls = u64::from(self.calls);
        key.set_habits(self.habits);
        key.first_used_s = self.first_used.map(|days| u32::from(days) * 86_400);
        key.rate.grow(&Rates {
            windows: self.windows,
            minute: self.minute,
            own_max: self.own_max,
            means: self.means.map(value),
            squares: self.squares.map(|root| value(root) * value(root)),
        });
        key.failures.grow(f32::from(self.share) / 65_535.0);
        key.refused.grow(self.refused);
        key.refused_sensitive.grow(self.refused_sensitive);
        key.familiar = Familiar::from_brief(&self.places);
        key
    }
}

/// Rates in brief.
pub(crate) struct Rates {
    pub(crate) windows: u32,
    pub(crate) minute: u32,
    /// The largest of all classes.
    pub(crate) own_max: f32,
    pub(crate) means: [f32; OPS],
    pub(crate) squares: [f32; OPS],
}

fn step(rate: f32) -> u8 {
    // 0 is no rate at all.
    let steps = (rate.log2() - LEAST) * STEPS;
    if rate > 0.0 { (1.0 + steps.round()).clamp(1.0, 255.0) as u8 } else { 0 }
}

fn value(step: u8) -> f32 {
    if step == 0 { 0.0 } else { (f32::from(step - 1) / STEPS + LEAST).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_back_to_a_twentieth() {
        for rate in [0.001, 0.02, 1.0, 7.3, 600.0, 100_000.0] {
            let back = value(step(rate));
            assert!((back / rate - 1.0).abs() < 0.05, "{rate} {back}");
        }
        assert_eq!(value(step(0.0)), 0.0);
        assert!(value(step(f32::MAX)).is_finite());
    }
}
