//! Unknown keys that are refused, over all clients: a botnet tries a few at each of many addresses.

use serde::{Deserialize, Serialize};

use super::distinct::Distinct;
use super::half_window;
use super::math::ln_tail_negative_binomial;
use super::synchrony::Pace;
use crate::call::KeyId;
use crate::engine::StuffingSettings;
use crate::time::EventTime;

/// Keys that an alert names.
const EXAMPLES_MAX: usize = 4;
/// Calls must be seen for so long before it is known how many are usual, seconds.
const WATCHED_MIN_S: u32 = 7_200;
/// Spread of their number: customers with old keys come in groups.
const DISPERSION: f64 = 0.3;
/// Chance that usual mistakes are taken for a crowd: as for keys that come together (D20).
const TAIL_PROBABILITY: f64 = 1e-6;

/// Keys that were refused in the running half window and the one before it.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Crowd {
    pace: Pace,
    first: EventTime,
    keys: [Distinct; 2],
    networks: [Distinct; 2],
    examples: Vec<KeyId>,
    /// Keys at which the next report is due; 0 before the first.
    report_at: u64,
}

/// Far more unknown keys than usual are refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tide {
    pub(crate) keys: u64,
    pub(crate) networks: u64,
    /// Keys expected in this time.
    pub(crate) expected: f64,
    pub(crate) since: EventTime,
    pub(crate) grown: bool,
    pub(crate) examples: Vec<KeyId>,
}

impl Crowd {
    /// Puts what was read from a snapshot within its bounds.
    pub(crate) fn mend(&mut self) {
        self.pace.mend();
        self.examples.truncate(EXAMPLES_MAX);
    }

    /// An unknown key was refused to a client of a network (a hash of it); calls are seen since
    /// `watched_s`.
    pub(crate) fn note(
        &mut self,
        key: KeyId,
        network: u64,
        time: EventTime,
        watched_s: u32,
        s: &StuffingSettings,
    ) -> Option<Tide> {
        self.advance(time, watched_s, s.window_s);
        let hash = key.0 as u64;
        if self.keys.iter().any(|set| set.contains(hash)) {
            return None;
        }
        let before = self.keys[0].count();
        self.keys[0].insert(hash);
        self.networks[0].insert(network);
        // An estimate tells only some of those that come again.
        if self.keys[0].count() == before {
            return None;
        }
        self.pace.counts[0] = self.pace.counts[0].saturating_add(1);
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(key);
        }
        if watched_s < WATCHED_MIN_S { None } else { self.judge(s) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().chain(&self.networks).map(Distinct::bytes).sum()
    }

    fn judge(&mut self, s: &StuffingSettings) -> Option<Tide> {
        let sum = |sets: &[Distinct; 2]| sets.iter().map(Distinct::count).sum::<u64>();
        let (keys, networks) = (sum(&self.keys), sum(&self.networks));
        if keys < s.keys_in_all_min.max(self.report_at) {
            return None;
        }
        let expected = self.pace.expected();
        let surprise = ln_tail_negative_binomial(keys, expected, DISPERSION);
        if networks < s.clients_per_network_min || surprise > TAIL_PROBABILITY.ln() {
            return None;
        }
        let grown = self.report_at > 0;
        self.report_at = keys.saturating_mul(10);
        let examples = self.examples.clone();
        Some(Tide { keys, networks, expected, since: self.first, grown, examples })
    }

    fn advance(&mut self, time: EventTime, watched_s: u32, window_s: u64) {
        // Nobody tried an unknown key while calls were seen: that is what is usual.
        self.pace.begin_quiet(u64::from(watched_s) / (window_s / 2).max(1));
        let passed = self.pace.advance_freely(half_window(time, window_s));
        if passed == 0 {
            return;
        }
        for pair in [&mut self.keys, &mut self.networks] {
            pair[1] = if passed == 1 { std::mem::take(&mut pair[0]) } else { Distinct::default() };
            pair[0] = Distinct::default();
        }
        if self.keys[1].count() == 0 {
            (self.first, self.report_at) = (time, 0);
            self.examples.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// So many keys in an hour, each from a network of its own; the last finding.
    fn hour(crowd: &mut Crowd, hour: u64, keys: u64) -> Option<Tide> {
        let settings = Settings::default().stuffing;
        let mix = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let found = (0..keys).filter_map(|n| {
            let time = EventTime(hour * HOUR_NS + n * HOUR_NS / keys);
            let key = KeyId(u128::from(mix(hour << 32 | n)));
            crowd.note(key, mix(n), time, (hour * 3_600) as u32, &settings)
        });
        found.last()
    }

    #[test]
    fn more_than_usual_is_found_and_as_many_as_usual_is_not() {
        for usual in [0, 3, 200] {
            let mut crowd = Crowd::default();
            let quiet = (1..40).filter_map(|at| hour(&mut crowd, at, usual)).count();
            assert_eq!(quiet, 0, "{usual} an hour are usual");
            assert_eq!(hour(&mut crowd, 40, usual * 3 / 2), None);
            let tide = hour(&mut crowd, 41, 10 * usual + 60).unwrap();
            assert!(tide.keys >= 30 && tide.networks >= 4, "{tide:?}");
            assert_eq!(tide.examples.len(), EXAMPLES_MAX);
        }
    }

    #[test]
    fn the_first_crowd_after_a_long_quiet_is_not_what_is_usual() {
        let mut crowd = Crowd::default();
        let found = (300..303).filter_map(|at| hour(&mut crowd, at, 190)).count();
        assert!(found > 0);
    }

    #[test]
    fn nothing_is_found_before_it_is_known_what_is_usual() {
        let mut crowd = Crowd::default();
        assert_eq!(hour(&mut crowd, 1, 500), None);
    }
}
