//! Which objects a key asks for: how many, in what order, and how often it may not.

use serde::{Deserialize, Serialize};

/// 2^6 registers: an error of 1.04 / sqrt(64) = 13 % (Flajolet et al., 2007), enough to tell ten from
/// forty.
const REGISTER_BITS: u32 = 6;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// Ids this close are neighbours: some were deleted, or every second is another kind.
const GAP_MAX: u64 = 4;

/// Of the largest count so far, a quarter of an hour later: half in two days.
const DECAY: f32 = 0.996_4;

/// What is kept of the part of odd quarters, a quarter later: half in four days.
const ODD_KEPT: f32 = 0.998_2;

/// Walks that are followed at once: the one through others' objects goes on between looks at one's own.
const TRACKS: usize = 3;

/// About 150 bytes, of keys that ask for objects only.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Objects {
    quarter: u32,
    registers: [[u8; REGISTERS / 2]; 2],
    /// The most different objects in a quarter of an hour, decayed.
    most: f32,
    #[serde(default)]
    tracks: [Track; TRACKS],
    asked: u16,
    denied: u16,
    /// Evidence that was reported in this quarter, tenths.
    told: u8,
    /// Quarters of the last eight hours with far too many denials, a bit each, the running one last; and
    /// what part of those before had.
    #[serde(default)]
    odd: u32,
    #[serde(default)]
    odd_share: f32,
}

/// Ids of one endpoint that are neighbours.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Track {
    route: u32,
    last: u64,
    descends: bool,
    run: u16,
    /// It went on in this quarter of an hour.
    is_live: bool,
}

/// How a key goes through objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Walk {
    /// Different objects in this quarter of an hour.
    pub(crate) distinct: u32,
    /// The most in earlier ones, decayed.
    pub(crate) most: f32,
    /// Ids in a row that are neighbours.
    pub(crate) run: u16,
    /// Requests, and those that were denied; older ones count less.
    pub(crate) asked: u16,
    pub(crate) denied: u16,
}

impl Objects {
    /// A request for an object. `route`: a hash of the endpoint; `hash`: of the id (64 bits, well mixed).
    pub(crate) fn note(
        &mut self,
        quarter: u32,
        route: u32,
        id: &str,
        hash: u64,
        denied: bool,
    ) -> Walk {
        self.advance(quarter);
        let register = (hash >> (64 - REGISTER_BITS)) as usize;
        let rank = (hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() as u8 + 1;
        let place = &mut self.registers[register % 2][register / 2];
        *place = rank.max(*place);
        self.asked = self.asked.saturating_add(1);
        self.denied = self.denied.saturating_add(u16::from(denied));
        if let Ok(number) = id.parse::<u64>() {
            self.step(route, number);
        }
        Walk {
            distinct: self.distinct(),
            most: self.most,
            run: self.tracks.iter().map(|track| track.run).max().unwrap_or(0),
            asked: self.asked,
            denied: self.denied,
        }
    }

    /// The running quarter has far too many denials. How many of the last eight hours had, and what part
    /// had before.
    pub(crate) fn note_odd(&mut self) -> (u32, f32) {
        self.odd |= 1;
        (self.odd.count_ones(), self.odd_share)
    }

    /// True unless as much evidence was reported in this quarter.
    pub(crate) fn is_news(&mut self, evidence: f32) -> bool {
        let tenths = (evidence * 10.0) as u8;
        let news = tenths > self.told;
        self.told = self.told.max(tenths);
        news
    }

    fn advance(&mut self, quarter: u32) {
        if quarter == self.quarter {
            return;
        }
        let passed = quarter.saturating_sub(self.quarter).min(10_000);
        if self.quarter != 0 {
            self.most = self.most.max(self.distinct() as f32) * DECAY.powi(passed as i32);
        }
        let halvings = passed.clamp(1, 15);
        (self.asked, self.denied) = (self.asked >> halvings, self.denied >> halvings);
        self.registers = Default::default();
        for track in &mut self.tracks {
            let is_over = passed > 1 || !track.is_live;
            track.run = if is_over { 0 } else { track.run };
            track.is_live = false;
        }
        for _ in 0..passed.min(u32::BITS) {
            let part = if self.odd >> 31 == 1 { 1.0 } else { 0.0 };
            self.odd_share = part + (self.odd_share - part) * ODD_KEPT;
            self.odd <<= 1;
        }
        (self.quarter, self.told) = (quarter, 0);
    }

    fn step(&mut self, route: u32, number: u64) {
        let is_near =
            |track: &&mut Track| track.route == route && number.abs_diff(track.last) <= GAP_MAX;
        if let Some(track) = self.tracks.iter_mut().find(is_near) {
            if number == track.last {
                return;
            }
            let descends = number < track.last;
            let goes_on = track.run == 0 || descends == track.descends;
            track.run = if goes_on { track.run.saturating_add(1) } else { 1 };
            (track.last, track.descends, track.is_live) = (number, descends, true);
            return;
        }
        // The oldest of the shortest makes room.
        self.tracks.sort_by_key(|track| std::cmp::Reverse(track.run));
        let [.., oldest, latest] = &mut self.tracks;
        if oldest.run == 0 {
            *oldest = *latest;
        }
        *latest = Track { route, last: number, ..Track::default() };
    }

    /// HyperLogLog with linear counting for small sets (Flajolet et al., 2007, figure 3).
    fn distinct(&self) -> u32 {
        let ranks = || self.registers.iter().flatten();
        let m = REGISTERS as f64;
        // Two to the power of `-rank`, by its exponent alone.
        let share = |rank: &u8| f64::from_bits((1023 - u64::from(*rank)) << 52);
        let sum: f64 = ranks().map(share).sum();
        let raw = 0.709 * m * m / sum;
        let empty = ranks().filter(|rank| **rank == 0).count();
        let small = raw <= 2.5 * m && empty > 0;
        (if small { m * (m / empty as f64).ln() } else { raw }).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn walk(objects: &mut Objects, ids: impl Iterator<Item = u64>) -> Walk {
        let hash = |n: u64| foldhash::quality::FixedState::with_seed(2).hash_one(n);
        ids.map(|n| objects.note(5, 1, &n.to_string(), hash(n), false)).last().unwrap()
    }

    #[test]
    fn counts_and_runs() {
        for n in [1u64, 10, 40, 200, 5_000] {
            let seen = walk(&mut Objects::default(), 1..=n);
            let error = (f64::from(seen.distinct) / n as f64 - 1.0).abs();
            assert!(error < 0.4, "{n}: {}", seen.distinct);
            assert_eq!(u64::from(seen.run), n - 1);
        }
        let down = walk(&mut Objects::default(), (1..=50).rev());
        assert_eq!(down.run, 49);
        let own = walk(&mut Objects::default(), (1..=50).map(|n| n * n * 97));
        assert_eq!(own.run, 0);
        let both = walk(&mut Objects::default(), (0..50).map(|n| 1_000 + n % 2));
        assert!(both.run < 2, "{}", both.run);
    }

    #[test]
    fn hostile_ids_do_no_harm() {
        let mut objects = Objects::default();
        for id in ["", "x", "18446744073709551615", "0", "99999999999999999999999999"] {
            for quarter in [0, u32::MAX, 1, 7] {
                objects.note(quarter, 1, id, u64::MAX, true);
            }
        }
        assert!(objects.most.is_finite());
    }
}
