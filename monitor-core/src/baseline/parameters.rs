//! Which parameters each endpoint is given, and by whose keys (DETECTORS.md, D26; OWASP API3:2023).
//!
//! Most calls of an endpoint name the same few sets of parameters: a set that is known costs one look.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Slots;
use super::marks::Mark;
use super::seen::Seen;
use crate::call::{KeyId, PARAMETERS_MAX};

/// Parameters of endpoints at once, about 50 B each: those of a thousand endpoints, and as many that
/// somebody made up.
const NAMES_MAX: usize = 32_768;
/// Of them in a snapshot, about 25 B each.
const NAMES_SAVED_MAX: usize = 8_192;
/// Endpoints at once.
const ENDPOINTS_MAX: usize = 1_024;
/// Sets of them that are known, 4 B each.
const SETS_MAX: usize = 131_072;

/// Keys that give a parameter before it is anybody's: two may be one thief's.
const KEYS_COMMON: usize = 3;
/// Times that one or two give it before it is theirs.
const TIMES_COMMON: u16 = 64;

/// What is known of parameters.
pub(crate) struct Parameters {
    sets: Seen,
    names: Slots<u64, Use>,
    /// Endpoints that were given something; true of one that has shown what it is given.
    endpoints: Slots<u64, bool>,
}

/// Who gives one parameter to one endpoint.
#[derive(Clone, Copy, Default)]
struct Use {
    /// By marks of their ids; 0 is none.
    keys: [u16; KEYS_COMMON],
    times: u16,
    /// It was known before the endpoint was.
    is_old: bool,
}

/// What lies in a snapshot. Sets are known again when they are met.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    endpoints: Vec<u64>,
    /// Each with its keys, times, and whether it is old.
    names: Vec<(u64, [u16; KEYS_COMMON], u16, bool)>,
}

/// Names in a request that no key, or one other alone, has given to the endpoint.
pub(crate) type Unknown<'a> = SmallVec<[&'a str; 4]>;

impl Parameters {
    pub(crate) fn new() -> Parameters {
        Parameters {
            sets: Seen::default(),
            names: Slots::new(NAMES_MAX, |it| it.is_old || it.is_common()),
            endpoints: Slots::new(ENDPOINTS_MAX, |has_shown| *has_shown),
        }
    }

    /// For a snapshot: names that are nobody's own, and which endpoints have shown what they are given, as far
    /// as they did not before.
    pub(crate) fn save(&self, has_shown: impl Fn(u64) -> bool) -> Saved {
        let names = self.names.to_save(NAMES_SAVED_MAX).into_iter();
        let shown = self.endpoints.iter().filter(|(at, has)| **has || has_shown(**at));
        Saved {
            endpoints: shown.map(|(endpoint, _)| *endpoint).collect(),
            names: names.map(|(name, it)| (name, it.keys, it.times, it.is_old)).collect(),
        }
    }

    pub(crate) fn restore(&mut self, saved: Saved) {
        let Saved { endpoints, names } = saved;
        self.endpoints.take_back(endpoints.into_iter().map(|endpoint| (endpoint, true)).collect());
        let names = names.into_iter();
        let names = names.map(|(name, keys, times, is_old)| (name, Use { keys, times, is_old }));
        self.names.take_back(names.collect());
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.sets.bytes() + self.names.bytes() + self.endpoints.bytes()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.names.evicted
    }

    /// Notes what a key gave to an endpoint that served it; gives what is odd among it. `is_known`: the
    /// endpoint has shown what it is given, and is asked only when that counts.
    pub(crate) fn note<'a>(
        &mut self,
        endpoint: u64,
        key: KeyId,
        names: impl Iterator<Item = &'a str> + Clone,
        is_known: impl FnOnce() -> bool,
    ) -> Unknown<'a> {
        let mut unknown = Unknown::new();
        let names = names.take(PARAMETERS_MAX);
        let name_hash = FixedState::with_seed(endpoint);
        // In any order.
        let set = names.clone().fold(0_u64, |set, name| set.wrapping_add(name_hash.hash_one(name)));
        if set == 0 || self.sets.has(set) {
            return unknown;
        }
        let has_shown = self.endpoints.find_or_insert(endpoint, || false);
        *has_shown = *has_shown || is_known();
        let is_old = !*has_shown;
        let mark = Mark::of(key.0).number();
        let mut is_settled = true;
        for name in names {
            let hash = name_hash.hash_one(name);
            let known = self.names.find_or_insert(hash, Use::default);
            if is_old {
                known.is_old = true;
            } else if !known.is_old && !known.is_common() && !unknown.contains(&name) {
                if !known.keys.contains(&mark) {
                    unknown.push(name);
                }
                known.add(mark);
                is_settled &= known.is_common();
            }
        }
        if is_settled {
            self.sets.insert(set, SETS_MAX);
        }
        unknown
    }
}

impl Use {
    fn is_common(&self) -> bool {
        self.keys[KEYS_COMMON - 1] != 0 || self.times >= TIMES_COMMON
    }

    fn add(&mut self, mark: u16) {
        self.times = self.times.saturating_add(1);
        let place = self.keys.iter_mut().find(|held| **held == mark || **held == 0);
        place.into_iter().for_each(|held| *held = mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note<'a>(it: &mut Parameters, key: u128, names: &[&'a str], is_known: bool) -> Vec<&'a str> {
        it.note(7, KeyId(key), names.iter().copied(), || is_known).to_vec()
    }

    #[test]
    fn a_parameter_is_odd_until_a_third_key_gives_it() {
        let mut it = Parameters::new();
        assert!(note(&mut it, 1, &["symbol", "side"], false).is_empty());
        assert!(note(&mut it, 2, &["side", "symbol"], true).is_empty());
        assert_eq!(note(&mut it, 2, &["symbol", "role", "role"], true), ["role"]);
        assert!(note(&mut it, 2, &["symbol", "role"], true).is_empty(), "said once of a key");
        assert_eq!(note(&mut it, 3, &["role"], true), ["role"]);
        assert_eq!(note(&mut it, 4, &["role"], true), ["role"]);
        assert!(note(&mut it, 5, &["role", "side"], true).is_empty(), "three keys give it");
        let other = it.note(8, KeyId(5), ["role"].into_iter(), || true);
        assert_eq!(other[..], ["role"], "another endpoint is not given it");
    }

    #[test]
    fn what_one_key_keeps_on_giving_is_its_own() {
        let mut it = Parameters::new();
        note(&mut it, 1, &["a"], false);
        assert_eq!(note(&mut it, 1, &["b"], true), ["b"]);
        (1..TIMES_COMMON).for_each(|_| assert!(note(&mut it, 1, &["b"], true).is_empty()));
        assert!(note(&mut it, 2, &["b"], true).is_empty());
    }

    #[test]
    fn what_was_learnt_outlives_a_restart() {
        let mut before = Parameters::new();
        note(&mut before, 1, &["symbol", "side"], false);
        assert_eq!(note(&mut before, 1, &["side", "odd"], true), ["odd"]);
        before.note(9, KeyId(1), ["of_a_young_endpoint"].into_iter(), || false);
        before.note(11, KeyId(1), ["nothing_odd_since"].into_iter(), || false);
        let saved = rmp_serde::to_vec_named(&before.save(|endpoint| endpoint == 11)).unwrap();
        let mut after = Parameters::new();
        after.restore(rmp_serde::from_slice(&saved).unwrap());
        // Whatever the endpoint has been asked since.
        assert!(note(&mut after, 2, &["side", "symbol"], false).is_empty());
        assert_eq!(note(&mut after, 2, &["side", "role"], false), ["role"]);
        assert_eq!(note(&mut after, 3, &["odd"], false), ["odd"], "one key's own is not kept");
        let young = after.note(9, KeyId(2), ["another"].into_iter(), || false);
        assert!(young.is_empty(), "it has shown nothing yet");
        let grown = after.note(11, KeyId(2), ["another"].into_iter(), || false);
        assert_eq!(grown[..], ["another"]);
    }

    #[test]
    fn a_snapshot_is_bounded() {
        let mut it = Parameters::new();
        let names: Vec<String> = (0..40_000).map(|n| format!("n{n}")).collect();
        names.iter().for_each(|name| drop(note(&mut it, 9, &[name], false)));
        (0..10_000).for_each(|n| drop(it.note(n, KeyId(1), ["a"].into_iter(), || true)));
        let saved = it.save(|_| true);
        assert_eq!((saved.names.len(), saved.endpoints.len()), (NAMES_SAVED_MAX, ENDPOINTS_MAX));
        assert!(rmp_serde::to_vec_named(&saved).unwrap().len() < 300_000);
    }

    #[test]
    fn made_up_names_drive_out_themselves() {
        let mut it = Parameters::new();
        (0..100).for_each(|_| drop(note(&mut it, 1, &["symbol", "side"], false)));
        let names: Vec<String> = (0..200_000).map(|n| format!("n{n}")).collect();
        names.iter().for_each(|name| assert_eq!(note(&mut it, 9, &[name], true).len(), 1));
        assert!(it.names.len() <= NAMES_MAX && it.bytes() < 4 << 20, "{}", it.bytes());
        assert!(note(&mut it, 9, &["side"], true).is_empty());
    }
}
