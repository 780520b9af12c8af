//! How far beyond their bars settled keys come by themselves, over all keys: peaks over a threshold.
//!
//! A law that is fitted to each key is wrong in its tail when bursts are heavier than it knows, and no key
//! alone shows its tail often enough to tell. All of them together do. Each peak counts once, however long
//! it lasts, and what is beyond the bar is taken as exponential: it is a surprise, the logarithm of a chance,
//! so that chances themselves may fall as slowly as any power (Pickands 1975; Siffer et al., KDD 2017, with
//! shape 0).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rarity::Rarity;
use crate::call::KeyId;
use crate::time::EventTime;

/// Surprises of one key that are closer together are one peak: the window of an incident.
const APART: Duration = Duration::from_secs(900);
/// Peaks that go on at once; in a storm the first are taken to be over.
const OPEN_MAX: usize = 256;
/// Mean excess before any is known, in powers of ten, and how many peaks that counts as.
const PRIOR_EXCESS: f32 = 2.0;
const PRIOR_PEAKS: f32 = 2.0;
/// A peak so rare suffices alone: one in five thousand key-days, a tenth of what all detectors together may
/// flag without cause (issue 6: 0.002 a key-day).
const ALONE_PER_KEY_DAY: f32 = 2e-4;
const EVIDENCE_ALONE: f32 = 5.0;

/// Peaks of all keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Peaks {
    number: Rarity,
    /// The sum of what is beyond the bar, counted as the number is.
    excess: Rarity,
    #[serde(skip)]
    open: Vec<Peak>,
}

#[derive(Debug)]
struct Peak {
    key: KeyId,
    last: EventTime,
    excess: f32,
}

impl Peaks {
    /// A settled key is so far beyond its bar, in powers of ten, one of so many keys.
    pub(crate) fn note(&mut self, key: KeyId, excess: f32, time: EventTime, keys: usize) {
        if let Some(peak) = self.open.iter_mut().find(|peak| peak.key == key)
            && time.since(peak.last) <= APART
        {
            (peak.last, peak.excess) = (peak.last.max(time), peak.excess.max(excess));
            return;
        }
        self.close(time, keys);
        self.open.push(Peak { key, last: time, excess });
    }

    /// What it counts when a key is so far beyond its bar, natural log-odds.
    pub(crate) fn evidence(&mut self, excess: f32, time: EventTime, keys: usize) -> f32 {
        self.close(time, keys);
        let chance = self.number.chance(day(time), keys);
        let peaks = self.number.events() + PRIOR_PEAKS;
        let mean = (self.excess.events() + PRIOR_PEAKS * PRIOR_EXCESS) / peaks;
        EVIDENCE_ALONE - (chance / ALONE_PER_KEY_DAY).ln() + excess / mean.max(0.1)
    }

    /// Puts what was read back from a snapshot within its bounds, whatever wrote it.
    pub(crate) fn mend(&mut self) {
        self.number.mend();
        self.excess.mend();
    }

    fn close(&mut self, time: EventTime, keys: usize) {
        let day = day(time);
        let mut at = 0;
        while at < self.open.len() {
            if time.since(self.open[at].last) > APART || self.open.len() >= OPEN_MAX {
                let over = self.open.swap_remove(at);
                self.number.note(day, keys);
                self.excess.note_sum(over.excess, day, keys);
            } else {
                at += 1;
            }
        }
    }
}

fn day(time: EventTime) -> u32 {
    u32::try_from(time.secs() / 86_400).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000_000_000;
    const MINUTE: u64 = 60_000_000_000;
    const KEYS: usize = 100;

    /// Peaks of this size, one a day for three weeks.
    fn seen(excess: f32) -> (Peaks, EventTime) {
        let mut peaks = Peaks::default();
        (0..21).for_each(|day| {
            peaks.note(KeyId(day), excess, EventTime((20_000 + day as u64) * DAY), KEYS);
        });
        (peaks, EventTime(20_021 * DAY))
    }

    #[test]
    fn what_other_keys_reach_by_themselves_does_not_suffice_alone() {
        let now = EventTime(20_000 * DAY);
        let unknown = Peaks::default().evidence(6.0, now, KEYS);
        assert!(unknown > EVIDENCE_ALONE, "{unknown}");
        let (mut heavy, now) = seen(6.0);
        let (usual, far) = (heavy.evidence(6.0, now, KEYS), heavy.evidence(60.0, now, KEYS));
        assert!(usual < 3.0 && far > EVIDENCE_ALONE, "{usual} {far}");
        let (mut light, now) = seen(0.2);
        let beyond = light.evidence(6.0, now, KEYS);
        assert!(beyond > EVIDENCE_ALONE, "{beyond}");
    }

    #[test]
    fn a_peak_counts_once_however_long_it_lasts() {
        let at = |minute: u64| EventTime(20_000 * DAY + minute * MINUTE);
        let mut peaks = Peaks::default();
        (0..100).for_each(|minute| peaks.note(KeyId(1), minute as f32, at(minute), KEYS));
        assert_eq!(peaks.number.events(), 0.0, "it goes on");
        peaks.note(KeyId(1), 5.0, at(200), KEYS);
        assert_eq!((peaks.number.events(), peaks.excess.events()), (1.0, 99.0));
        (0..1_000).for_each(|key| peaks.note(KeyId(key), 1.0, at(201), KEYS));
        assert!(peaks.open.len() <= OPEN_MAX);
    }
}
