//! How many of a key's orders it cancels again: a CUSUM against its own custom.

use serde::{Deserialize, Serialize};

/// How much more often orders are cancelled when quotes are stuffed: odds of one to one where one in
/// three is usual.
const ODDS_FACTOR: f32 = 3.0;
/// Log-likelihood ratio beyond which it is not chance.
const BAR: f32 = 12.0;
/// Each finding raises the bar for the next by this factor.
const OWN_MAX_FACTOR: f32 = 1.25;
/// The raised bar fades by half in 14,000 orders and cancellations.
const OWN_MAX_KEPT: f32 = 0.99995;
/// No sum says more, and no share is taken to be nothing or everything.
const SUM_MAX: f32 = 1_000.0;
const SHARE: (f32, f32) = (0.02, 0.98);

/// The running sum, and the last bar that was passed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Quoting {
    sum: f32,
    own_max: f32,
}

impl Quoting {
    /// An order or a cancellation of a key that usually has so many of each. Gives how far beyond
    /// the bar the sum is.
    pub(crate) fn note(
        &mut self,
        is_cancel: bool,
        orders: f32,
        cancels: f32,
        judge: bool,
    ) -> Option<f32> {
        let share = cancels / (cancels + orders);
        let share = if share.is_finite() { share.clamp(SHARE.0, SHARE.1) } else { return None };
        let stuffed = ODDS_FACTOR * share / (1.0 + (ODDS_FACTOR - 1.0) * share);
        let ratio = if is_cancel { stuffed / share } else { (1.0 - stuffed) / (1.0 - share) };
        self.sum = (self.sum + ratio.ln()).clamp(0.0, SUM_MAX);
        self.own_max *= OWN_MAX_KEPT;
        let bar = (OWN_MAX_FACTOR * self.own_max).max(BAR);
        if self.sum <= bar {
            return None;
        }
        if !judge {
            // Too few to matter.
            self.sum = bar;
            return None;
        }
        let excess = self.sum - bar;
        (self.own_max, self.sum) = (bar, 0.0);
        Some(excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_come_from_own_custom() {
        let one_to_one = |orders: f32, cancels: f32| {
            let mut it = Quoting::default();
            (0..400).find_map(|n| it.note(n % 2 == 1, orders, cancels, true).map(|_| n))
        };
        assert!(one_to_one(10.0, 1.0).is_some_and(|at| at < 60));
        assert_eq!(one_to_one(10.0, 9.0), None, "a market maker");
        assert_eq!(one_to_one(0.0, 0.0), None);
        assert_eq!(one_to_one(f32::NAN, 1.0), None);
    }
}
