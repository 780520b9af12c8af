//! How often keys that have shown what they do come to something new: over all keys.

use serde::{Deserialize, Serialize};

use super::saved;

/// Events are forgotten by half in two weeks.
const HALF_LIFE_DAYS: f32 = 14.0;
/// Before anything is known: one in a thousand key-days, worth two thousand of them.
const PRIOR_EVENTS: f32 = 2.0;
const PRIOR_KEY_DAYS: f32 = 2_000.0;
/// What once in a thousand key-days counts, natural log-odds: an alert takes 5. Whatever is more frequent
/// than once in six hundred does not suffice alone, so that it raises no more false alarms.
const EVIDENCE_AT_PRIOR: f32 = 5.5;
/// What is so for all keys is worth so many days of one key's own: a month.
const ALL_DAYS: f32 = 30.0;

/// Events, and key-days in which they could have been.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rarity {
    events: f32,
    key_days: f32,
    day: u32,
}

impl Rarity {
    /// One key of so many did it.
    pub(crate) fn note(&mut self, day: u32, keys: usize) {
        self.note_sum(1.0, day, keys);
    }

    /// One key of so many did as much of it.
    pub(super) fn note_sum(&mut self, amount: f32, day: u32, keys: usize) {
        self.advance(day, keys);
        self.events += amount;
    }

    /// Those that are remembered.
    pub(super) fn events(&self) -> f32 {
        self.events
    }

    /// Puts what was read back from a snapshot within its bounds, whatever wrote it.
    pub(super) fn mend(&mut self) {
        for value in [&mut self.events, &mut self.key_days] {
            saved::mend(value, 0.0..=1e12, 0.0);
        }
    }

    /// What it counts when a key does it, natural log-odds.
    pub(crate) fn evidence(&mut self, day: u32, keys: usize) -> f32 {
        weight(self.chance(day, keys))
    }

    /// As [`evidence`](Rarity::evidence), of a key that did so itself so many times in so many days.
    pub(crate) fn evidence_of(&mut self, day: u32, keys: usize, times: u16, days: f32) -> f32 {
        let all = self.chance(day, keys);
        weight((f32::from(times) + all * ALL_DAYS) / (days.max(0.0) + ALL_DAYS))
    }

    /// Of any key on a day.
    pub(super) fn chance(&mut self, day: u32, keys: usize) -> f32 {
        self.advance(day, keys);
        (self.events + PRIOR_EVENTS) / (self.key_days + PRIOR_KEY_DAYS)
    }

    fn advance(&mut self, day: u32, keys: usize) {
        if self.day == 0 || day < self.day {
            // The beginning, or the clock was set back.
            self.day = day;
            return;
        }
        // Longer is forgotten by then.
        let passed = (day - self.day).min(365) as f32;
        let kept = (-passed / HALF_LIFE_DAYS).exp2();
        self.events *= kept;
        self.key_days = self.key_days * kept + passed * keys as f32;
        self.day = day;
    }
}

/// What something of this chance counts.
fn weight(chance: f32) -> f32 {
    let prior = PRIOR_EVENTS / PRIOR_KEY_DAYS;
    (EVIDENCE_AT_PRIOR - (chance / prior).ln()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_counts_less_and_is_forgotten() {
        let mut rarity = Rarity::default();
        assert_eq!(rarity.evidence(20_000, 100), EVIDENCE_AT_PRIOR, "nothing is known");
        (20_000..20_010).for_each(|day| (0..5).for_each(|_| rarity.note(day, 100)));
        // Fifty in a thousand key-days.
        let frequent = rarity.evidence(20_010, 100);
        assert!((1.0..3.0).contains(&frequent), "{frequent}");
        let later = rarity.evidence(20_200, 100);
        assert!(later > 5.5, "{later}");
        assert!(rarity.evidence(19_000, 100) > 5.5, "the clock was set back");
        let (never, often) =
            [0, 5].map(|times| rarity.evidence_of(20_200, 100, times, 60.0)).into();
        assert!(never > 5.5 && often < 2.0, "{never} {often}");
    }
}
