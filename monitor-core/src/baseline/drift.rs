//! Slow changes: calls a day against those of two months, and how long a key stays just under its
//! limit.

use serde::{Deserialize, Serialize};

/// Days that the reference remembers: half a percent a day more is growth, two percent shows.
const MEMORY_DAYS: u16 = 60;
/// Days before a key's own reference is known.
const DAYS_MIN: u16 = 10;
/// Log-ratio that each day is allowed (the slack of the CUSUM), and the most that one day counts.
const SLACK: f32 = 0.15;
const DAY_MAX: f32 = 1.0;
/// Sum beyond which it is a trend: ten days of a third more.
const BAR: f32 = 1.5;
/// Part of the limit that is just under it (DETECTORS.md, D21), percent.
const NEAR: std::ops::Range<u64> = 85..100;
/// Minutes in a row just under the limit before it is a method.
const NEAR_RUN: u16 = 30;

/// Calls a day of a key, or of all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Daily {
    calls: u32,
    /// Mean of the logarithm of calls a day.
    reference: f32,
    sum: f32,
    day: u16,
    days: u16,
}

/// More every day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    pub(crate) sum: f32,
    /// Usual calls a day, and those of the last day.
    pub(crate) usual: f32,
    pub(crate) now: u32,
}

impl Daily {
    /// Counts a call. At a key's first call of a day the day before is judged: `growth` is by how
    /// much all keys grew, a log-ratio.
    pub(crate) fn count(&mut self, day: u32, growth: f32) -> Option<Trend> {
        let day = day.min(u32::from(u16::MAX)) as u16;
        let trend = if day == self.day { None } else { self.close(day, growth) };
        self.calls = self.calls.saturating_add(1);
        trend
    }

    /// Whether no call of this day was counted yet.
    pub(crate) fn begins(&self, day: u32) -> bool {
        self.day != day.min(u32::from(u16::MAX)) as u16
    }

    /// By how much the last full day differed from the reference, as a log-ratio.
    pub(crate) fn growth(&self) -> f32 {
        if self.days < DAYS_MIN { 0.0 } else { self.sum }
    }

    /// For all keys: the sum is the log-ratio of the last day alone.
    pub(crate) fn count_all(&mut self, day: u32) {
        let day = day.min(u32::from(u16::MAX)) as u16;
        if day != self.day {
            self.sum = 0.0;
            let ratio = (self.calls as f32).ln_1p() - self.reference;
            self.close(day, 0.0);
            self.sum = if ratio.is_finite() { ratio } else { 0.0 };
        }
        self.calls = self.calls.saturating_add(1);
    }

    fn close(&mut self, day: u16, growth: f32) -> Option<Trend> {
        let calls = std::mem::take(&mut self.calls);
        let was = std::mem::replace(&mut self.day, day);
        // The first day was seen in part, and after a jump of the clock nothing is comparable.
        if was == 0 || day < was || self.days == 0 {
            self.days = self.days.max(u16::from(was != 0 && day > was));
            return None;
        }
        let level = (calls as f32).ln_1p();
        let reference = self.reference;
        self.reference += (level - reference) / f32::from(self.days.min(MEMORY_DAYS));
        self.days = self.days.saturating_add(1);
        if self.days <= DAYS_MIN {
            return None;
        }
        let ratio = (level - reference - growth.max(0.0)).clamp(-DAY_MAX, DAY_MAX);
        self.sum = (self.sum + ratio - SLACK).max(0.0);
        if self.sum <= BAR {
            return None;
        }
        let trend = Trend { sum: self.sum, usual: reference.exp_m1(), now: calls };
        self.sum = 0.0;
        Some(trend)
    }
}

/// Minutes just under the limit.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Nearness {
    minute: u32,
    /// Minutes in which the server told, and those just under the limit.
    told: u16,
    near: u16,
    run: u16,
    is_near: bool,
}

impl Nearness {
    /// A server told how much of the limit is used. Gives the minutes in a row just under it, and
    /// what part of all minutes are, when they become many.
    pub(crate) fn note(&mut self, used: u64, limit: u64, minute: u32) -> Option<(u16, f32)> {
        let percent = used.saturating_mul(100) / limit.max(1);
        let mut found = None;
        if minute != self.minute {
            if self.told == u16::MAX {
                (self.told, self.near) = (self.told / 2, self.near / 2);
            }
            self.told += u16::from(self.minute != 0);
            let earlier = self.near.saturating_sub(self.run);
            if self.is_near {
                self.near = self.near.saturating_add(1);
                self.run = self.run.saturating_add(1);
                if self.run == NEAR_RUN {
                    let told = f32::from(self.told.saturating_sub(self.run)) + 2.0;
                    found = Some((self.run, ((f32::from(earlier) + 1.0) / told).min(1.0)));
                }
            } else {
                self.run = 0;
            }
            let in_a_row = minute == self.minute.saturating_add(1);
            self.run = if in_a_row { self.run } else { 0 };
            (self.minute, self.is_near) = (minute, false);
        }
        self.is_near |= NEAR.contains(&percent);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_a_day_shows_and_growth_of_all_does_not() {
        let first = |per_day: f64, all: bool| {
            let (mut key, mut fleet) = (Daily::default(), Daily::default());
            (100..190).find(|day| {
                let days = f64::from(day - 130u32.min(*day));
                let calls = 500.0 * per_day.powf(days);
                let found = (0..calls as u32).filter(|_| {
                    fleet.count_all(*day);
                    key.count(*day, if all { fleet.growth() } else { 0.0 }).is_some()
                });
                found.count() > 0
            })
        };
        assert_eq!(first(1.0, false), None);
        let shown = first(1.02, false).expect("noticed");
        assert!((140..175).contains(&shown), "{shown}");
        assert_eq!(first(1.02, true), None);
    }

    #[test]
    fn who_is_always_near_its_limit_behaves_well() {
        let mut it = Nearness::default();
        let found = (1..5_000).filter_map(|minute| it.note(10, 100, minute)).count();
        assert_eq!(found, 0);
        let near = (5_000..5_100).filter_map(|minute| it.note(92, 100, minute));
        let near = near.collect::<Vec<_>>();
        assert_eq!(near.len(), 1);
        assert!(near[0].1 < 0.001, "{near:?}");
        let mut it = Nearness::default();
        (1..5_000).for_each(|minute| {
            it.note(if minute % 60 == 0 { 10 } else { 92 }, 100, minute);
        });
        let found = (5_001..5_040).find_map(|minute| it.note(92, 100, minute));
        assert!(found.is_some_and(|(_, part)| part > 0.9), "{found:?}");
        it.note(u64::MAX, 0, u32::MAX);
        it.note(0, 0, 0);
    }
}
