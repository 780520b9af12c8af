//! Which keys come to the same thing for the first time, and how many at once: edges of a graph from
//! keys to symbols, networks and operations, after MIDAS-F (Bhatia et al., arXiv 2009.08452).
//!
//! As there, the edges of a short time are weighed against those of all time, and a burst that stands
//! out is kept out of what is usual. Unlike there, the things that keys come to are few enough to be
//! counted one by one.

use serde::{Deserialize, Serialize};

use super::math::ln_tail_negative_binomial;
use super::seen::Seen;
use super::{Slots, half_window, saved};
use crate::call::KeyId;
use crate::engine::SynchronySettings;
use crate::time::EventTime;

/// Keys of a half window that are told apart; more are at least as many. One look goes over them all.
const KEYS_MAX: usize = 256;
/// Keys that an alert names.
const EXAMPLES_MAX: usize = 4;
/// Half windows that are remembered: twelve days of 15 minutes.
const HALVES_MAX: f32 = 1_152.0;
/// So few say little of what is usual.
const YOUNG_HALVES: f32 = 8.0;
/// Newcomers in a window that nothing is known of, and their spread: people come in groups, by links
/// and news.
const PRIOR: f64 = 0.3;
const DISPERSION: f64 = 0.3;
/// A key that is more often at networks new to it says nothing by that, and each by itself is there with
/// this chance at most.
pub(crate) const AWAY_MAX: f64 = 0.2;
/// As far as others' newcomers excuse: nothing moves a market further.
const FACTOR_MAX: f64 = 8.0;

/// What keys may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    Symbol,
    Network,
    Operation,
}

/// What a key is to what it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// It never was there before.
    Newcomer,
    /// It was there before.
    Regular,
    /// Too young to tell.
    Unknown,
}

/// A key, and what it comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) kind: Kind,
    /// Hash of the symbol, network or operation.
    pub(crate) target: u64,
    pub(crate) key: KeyId,
    pub(crate) standing: Standing,
    /// From a network that is new to the key.
    pub(crate) away: bool,
    /// Hash of the network that the key was last known at.
    pub(crate) home: u64,
}

/// Keys that came to one thing at about the same time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Together {
    /// How many never were there before.
    pub(crate) fresh: u64,
    /// How many of them from networks that are new to them.
    pub(crate) away: u64,
    /// How many networks they were known at.
    pub(crate) homes: u64,
    /// How many other keys did it that did so before.
    pub(crate) regulars: u64,
    /// Newcomers expected in this time.
    pub(crate) expected: f64,
    /// Nobody was known to come there until a day ago.
    pub(crate) is_novel: bool,
    pub(crate) since: EventTime,
    pub(crate) grown: bool,
    /// Some of the newcomers.
    pub(crate) examples: Vec<KeyId>,
}

/// Newcomers to everything.
pub(crate) struct Synchrony {
    edges: Seen,
    targets: Slots<(Kind, u64), Target>,
    /// To all things of a kind.
    all: [Pace; 3],
}

/// Newcomers to everything, as they lie in a snapshot.
#[derive(Serialize)]
pub(crate) struct SavedRef<'a> {
    targets: Vec<((Kind, u64), &'a Target)>,
    all: &'a [Pace; 3],
}

/// The same, read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    targets: Vec<((Kind, u64), Target)>,
    all: [Pace; 3],
}

/// Newcomers to one thing.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Target {
    since: EventTime,
    first: EventTime,
    pace: Pace,
    fresh: [Vec<u64>; 2],
    away: [Vec<u64>; 2],
    homes: [Vec<u64>; 2],
    regulars: [Vec<u64>; 2],
    examples: Vec<KeyId>,
    report_at: u64,
}

/// How many newcomers a half window has, and is used to.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Pace {
    half: u64,
    pub(super) counts: [u32; 2],
    usual: f32,
    halves: f32,
}

impl Synchrony {
    pub(crate) fn new(settings: &SynchronySettings) -> Synchrony {
        let keep = |target: &Target| target.pace.counts.iter().sum::<u32>() >= 2;
        Synchrony {
            edges: Seen::default(),
            targets: Slots::new(settings.targets_max, keep),
            all: Default::default(),
        }
    }

    /// Bytes held; walks over all targets.
    pub(crate) fn bytes(&self) -> usize {
        let of_target = |target: &Target| {
            let sets = [&target.fresh, &target.away, &target.homes, &target.regulars];
            let held: usize = sets.into_iter().flatten().map(|set| set.capacity() * 8).sum();
            held + target.examples.capacity() * size_of::<KeyId>()
        };
        self.edges.bytes()
            + self.targets.bytes()
            + self.targets.values().map(of_target).sum::<usize>()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.targets.evicted
    }

    /// For a snapshot: everything but which key traded which symbol; `with_symbols` where that is
    /// known to those who tell of it, since otherwise all who trade look like newcomers.
    pub(crate) fn save(&self, with_symbols: bool) -> SavedRef<'_> {
        let is_known = |((kind, _), _): &(&(Kind, u64), &Target)| match kind {
            Kind::Symbol => with_symbols,
            Kind::Network | Kind::Operation => true,
        };
        let targets = self.targets.iter().filter(is_known);
        let targets = targets.map(|(id, target)| (*id, target)).collect();
        SavedRef { targets, all: &self.all }
    }

    /// Goes on from a snapshot, whatever wrote it.
    pub(crate) fn restore(&mut self, saved: Saved) {
        self.targets.clear();
        for (id, mut target) in saved.targets {
            target.mend();
            *self.targets.find_or_insert(id, Target::default) = target;
        }
        self.all = saved.all;
        self.all.iter_mut().for_each(Pace::mend);
    }

    /// Whether a key never came to a thing; remembers that it did.
    pub(crate) fn is_first(&mut self, hash: u64, s: &SynchronySettings) -> bool {
        self.edges.insert(hash, s.edges_max)
    }

    /// A key came to a thing; tells when many did at once that never had.
    pub(crate) fn note(
        &mut self,
        edge: &Edge,
        time: EventTime,
        s: &SynchronySettings,
    ) -> Option<Together> {
        let half = half_window(time, s.window_s);
        let id = (edge.kind, edge.target);
        // What only regulars come to needs no room.
        if edge.standing == Standing::Regular && self.targets.find(&id).is_none() {
            return None;
        }
        let fresh = || Target { since: time, first: time, ..Target::default() };
        let target = self.targets.find_or_insert(id, fresh);
        target.advance(half, time);
        let mark = edge.key.0 as u64;
        let is_news = match edge.standing {
            Standing::Newcomer => put(&mut target.fresh, mark),
            Standing::Regular => {
                put(&mut target.regulars, mark);
                false
            }
            Standing::Unknown => false,
        };
        if !is_news {
            return None;
        }
        put(&mut target.homes, edge.home);
        if edge.away {
            put(&mut target.away, mark);
        }
        if target.examples.len() < EXAMPLES_MAX {
            target.examples.push(edge.key);
        }
        target.pace.counts[0] = target.pace.counts[0].saturating_add(1);
        let all = &mut self.all[edge.kind as usize];
        all.advance(half);
        all.counts[0] = all.counts[0].saturating_add(1);
        let factor = all.factor_without(&target.pace);
        target.judge(edge.kind, factor, time, s)
    }
}

impl Target {
    fn mend(&mut self) {
        for pair in [&mut self.fresh, &mut self.away, &mut self.homes, &mut self.regulars] {
            pair.iter_mut().for_each(|set| set.truncate(KEYS_MAX));
        }
        self.examples.truncate(EXAMPLES_MAX);
        self.pace.mend();
    }

    fn advance(&mut self, half: u64, time: EventTime) {
        let passed = self.pace.advance(half);
        if passed == 0 {
            return;
        }
        for pair in [&mut self.fresh, &mut self.away, &mut self.homes, &mut self.regulars] {
            pair.swap(0, 1);
            pair[0].clear();
            if passed > 1 {
                pair[1] = Vec::new();
            }
        }
        if passed > 1 || self.fresh[1].is_empty() {
            self.first = time;
            self.report_at = 0;
            self.examples.clear();
        }
    }

    fn judge(
        &mut self,
        kind: Kind,
        factor: f64,
        time: EventTime,
        s: &SynchronySettings,
    ) -> Option<Together> {
        let (fresh, away) = (count(&self.fresh), count(&self.away));
        let grown = self.report_at > 0;
        // That all come to a network from others says no more than that they come.
        let all_away = kind != Kind::Network && away == fresh;
        let least = if all_away { s.keys_min.div_ceil(2) } else { s.keys_min };
        if fresh < least.max(self.report_at) {
            return None;
        }
        let expected = self.pace.expected() * factor;
        let chance_away = if all_away { away as f64 * AWAY_MAX.ln() } else { 0.0 };
        let surprise = ln_tail_negative_binomial(fresh, expected, DISPERSION) + chance_away;
        // A chance that makes no sense flags nothing.
        if s.tail_probability.is_nan() || surprise > s.tail_probability.ln() {
            return None;
        }
        Some(Together {
            fresh,
            away,
            homes: count(&self.homes),
            regulars: count(&self.regulars),
            expected,
            is_novel: time.since(self.since).as_secs() < 86_400,
            since: self.first,
            grown,
            examples: self.examples.clone(),
        })
    }
}

impl Synchrony {
    /// It was reported: the next time is when four times as many came.
    pub(crate) fn reported(&mut self, edge: &Edge, together: &Together) {
        if let Some(target) = self.targets.find(&(edge.kind, edge.target)) {
            target.report_at = together.fresh.saturating_mul(4);
        }
    }
}

impl Pace {
    pub(super) fn mend(&mut self) {
        saved::mend(&mut self.usual, 0.0..=1e6, 0.0);
        saved::mend(&mut self.halves, 0.0..=HALVES_MAX, 0.0);
    }

    /// Moves on to a half window; how many began, at most two. A burst is not what is usual: it counts as
    /// twice that and one.
    fn advance(&mut self, half: u64) -> u64 {
        let most = 2.0 * self.usual + 1.0;
        self.advance_with(half, most)
    }

    /// As [`advance`](Pace::advance), and learns all while it is young.
    pub(super) fn advance_freely(&mut self, half: u64) -> u64 {
        let is_young = self.halves < YOUNG_HALVES;
        let most = if is_young { f32::MAX } else { 2.0 * self.usual + 1.0 };
        self.advance_with(half, most)
    }

    /// Before the first newcomer: so many half windows were watched, and nobody came.
    pub(super) fn begin_quiet(&mut self, halves: u64) {
        if self.half == 0 && self.halves == 0.0 {
            self.merge(0.0, halves.min(HALVES_MAX as u64) as f32);
        }
    }

    fn advance_with(&mut self, half: u64, most: f32) -> u64 {
        let passed = half.abs_diff(self.half);
        // What comes late counts in the half that runs.
        if passed == 0 || half.checked_add(1) == Some(self.half) {
            return 0;
        }
        if half < self.half || self.half == 0 {
            // The clock was set back, or this is the beginning: nothing is known of the time between.
            (self.half, self.counts) = (half, [0; 2]);
            return 2;
        }
        let closed = (self.counts[0] as f32).min(most);
        self.merge(closed, 1.0);
        self.merge(0.0, (passed - 1) as f32);
        self.counts = [0, if passed == 1 { self.counts[0] } else { 0 }];
        self.half = half;
        passed.min(2)
    }

    /// So many half windows with so many newcomers each.
    fn merge(&mut self, count: f32, halves: f32) {
        if halves <= 0.0 {
            return;
        }
        self.halves = (self.halves + halves).min(HALVES_MAX);
        let part = (halves / self.halves).min(1.0);
        self.usual += (count - self.usual) * part;
    }

    /// In two half windows.
    pub(super) fn expected(&self) -> f64 {
        2.0 * f64::from(self.usual) + PRIOR
    }

    fn both(&self) -> f64 {
        f64::from(self.counts[0]) + f64::from(self.counts[1])
    }

    /// How many times more newcomers than usual all other things have: at least 1.
    fn factor_without(&self, own: &Pace) -> f64 {
        // Few say nothing.
        let expected = (self.expected() - 2.0 * f64::from(own.usual)).max(4.0);
        ((self.both() - own.both()) / expected).clamp(1.0, FACTOR_MAX)
    }
}

/// Into the running half; true when it is in neither.
fn put(pair: &mut [Vec<u64>; 2], mark: u64) -> bool {
    if pair.iter().any(|set| set.contains(&mark)) || pair[0].len() >= KEYS_MAX {
        return false;
    }
    pair[0].push(mark);
    true
}

fn count(pair: &[Vec<u64>; 2]) -> u64 {
    (pair[0].len() + pair[1].len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_learnt_and_bursts_are_kept_out() {
        let mut pace = Pace::default();
        for half in 1..=2_000 {
            pace.advance(half);
            pace.counts[0] = 3;
        }
        assert!((pace.usual - 3.0).abs() < 0.1, "{}", pace.usual);
        for half in 2_001..=2_004 {
            pace.advance(half);
            pace.counts[0] = 10_000;
        }
        assert!(pace.usual < 3.2, "{}", pace.usual);
        assert_eq!(pace.advance(2_304), 2);
        assert!(pace.usual < 2.5, "quiet counts too: {}", pace.usual);
        let counts = pace.counts;
        assert_eq!((pace.advance(2_303), pace.counts), (0, counts), "what comes late");
        assert_eq!(pace.advance(100), 2, "a clock that is set back");
        assert_eq!(pace.advance(u64::MAX), 2);
        assert!(pace.usual.is_finite() && pace.usual >= 0.0, "{}", pace.usual);
    }
}
