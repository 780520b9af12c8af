//! A table that never grows beyond its bound, and drops the least used first.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Slots looked at for one to give up. More finds a better one and costs more.
const SEARCHED_MAX: usize = 32;

/// Newcomers may always hold this part of the table, so that a full one still learns.
const NEWCOMERS_PART: usize = 16;

/// Keyed slots in order of arrival. When full, the oldest newcomer that is not worth keeping goes:
/// a flood drives out itself. While newcomers hold less than their part, a clock hand (second
/// chance) takes the place of one that was not used for long.
pub(crate) struct Slots<K, V> {
    /// Places by the hash of their keys, which stand with the values: small, so that of a large table
    /// it stays in the cache.
    places: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    newcomers: VecDeque<u32>,
    hand: usize,
    max: usize,
    is_worth_keeping: fn(&V) -> bool,
    /// Values dropped so far.
    pub(crate) evicted: u64,
}

struct Slot<K, V> {
    key: K,
    value: V,
    used: bool,
}

impl<K: Copy + Eq + Hash, V> Slots<K, V> {
    pub(crate) fn new(max: usize, is_worth_keeping: fn(&V) -> bool) -> Slots<K, V> {
        Slots {
            places: HashTable::new(),
            slots: Vec::new(),
            newcomers: VecDeque::new(),
            hand: 0,
            max: max.clamp(1, u32::MAX as usize),
            is_worth_keeping,
            evicted: 0,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.newcomers.clear();
        self.hand = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes held by the table itself, without what values own.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<K, V>>()
            + self.places.capacity() * (size_of::<u32>() + 1)
    }

    /// In order of arrival.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.iter().map(|slot| &slot.value)
    }

    /// Keys and values in order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|slot| (&slot.key, &slot.value))
    }

    /// For a snapshot: up to `max` of those that are worth keeping, in order of arrival.
    pub(crate) fn to_save(&self, max: usize) -> Vec<(K, &V)> {
        let worth = self.iter().filter(|(_, value)| (self.is_worth_keeping)(value));
        worth.map(|(key, value)| (*key, value)).take(max).collect()
    }

    /// Goes on from a snapshot.
    pub(crate) fn take_back(&mut self, saved: Vec<(K, V)>) {
        for (key, value) in saved {
            match self.place(&key) {
                Some(place) => *self.at(place) = value,
                None => {
                    self.insert(key, value);
                }
            }
        }
    }

    /// As [`find`](Slots::find), and no use of it.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.place_of(key).map(|place| &self.slots[place].value)
    }

    pub(crate) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place_of(key).map(|place| &mut self.slots[place].value)
    }

    pub(crate) fn find(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key)?;
        Some(self.at(place))
    }

    /// Where a value stands until something is put in or taken out; a use of it.
    pub(crate) fn place(&mut self, key: &K) -> Option<usize> {
        let place = self.place_of(key)?;
        self.slots[place].used = true;
        Some(place)
    }

    /// The value in a place.
    pub(crate) fn at(&mut self, place: usize) -> &mut V {
        &mut self.slots[place].value
    }

    pub(crate) fn find_or_insert(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.place(&key) {
            Some(place) => place,
            None => self.insert(key, make()).0,
        };
        &mut self.slots[place].value
    }

    /// Puts in a value under a key that is not there yet; says where, and gives back what had to go.
    pub(crate) fn insert(&mut self, key: K, value: V) -> (usize, Option<(K, V)>) {
        let slot = Slot { key, value, used: true };
        let (place, old) = if self.slots.len() < self.max {
            self.slots.push(slot);
            (self.slots.len() - 1, None)
        } else {
            let place = self.give_up();
            let old = std::mem::replace(&mut self.slots[place], slot);
            self.forget(&old.key, place);
            self.evicted += 1;
            (place, Some((old.key, old.value)))
        };
        let slots = &self.slots;
        self.places.insert_unique(hash(&key), place as u32, |at| hash(&slots[*at as usize].key));
        self.newcomers.push_back(place as u32);
        (place, old)
    }

    fn place_of(&self, key: &K) -> Option<usize> {
        let is_it = |place: &u32| self.slots[*place as usize].key == *key;
        self.places.find(hash(key), is_it).map(|place| *place as usize)
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place_of(key)?;
        self.forget(key, place);
        let slot = self.slots.swap_remove(place);
        let moved_from = self.slots.len() as u32;
        self.newcomers.retain(|newcomer| *newcomer != place as u32);
        if let Some(moved) = self.slots.get(place) {
            let is_moved = |held: &u32| *held == moved_from;
            if let Some(held) = self.places.find_mut(hash(&moved.key), is_moved) {
                *held = place as u32;
            }
            for newcomer in self.newcomers.iter_mut().filter(|it| **it == moved_from) {
                *newcomer = place as u32;
            }
        }
        self.hand = if self.hand >= self.slots.len() { 0 } else { self.hand };
        Some(slot.value)
    }

    /// The key is in that place no longer.
    fn forget(&mut self, key: &K, place: usize) {
        if let Ok(entry) = self.places.find_entry(hash(key), |held| *held as usize == place) {
            entry.remove();
        }
    }

    fn give_up(&mut self) -> usize {
        for _ in 0..SEARCHED_MAX {
            if self.newcomers.len() <= self.max / NEWCOMERS_PART {
                break;
            }
            let Some(place) = self.newcomers.pop_front() else { break };
            if !(self.is_worth_keeping)(&self.slots[place as usize].value) {
                return place as usize;
            }
        }
        self.pass_hand()
    }

    fn pass_hand(&mut self) -> usize {
        for _ in 0..SEARCHED_MAX {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[place].used) {
                return place;
            }
        }
        self.hand
    }
}

fn hash<K: Hash>(key: &K) -> u64 {
    FixedState::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_newcomers_drives_out_itself() {
        let mut table = Slots::new(100, |worth: &bool| *worth);
        for key in 0..90 {
            table.insert(key, true);
        }
        for key in 100..100_000 {
            table.find_or_insert(key, || false);
        }
        assert_eq!(table.len(), 100);
        let kept = (0..90).filter(|key| table.find(key).is_some()).count();
        assert!(kept >= 87, "{kept}: one in 32 looked at may go while the flood is sorted out");
        assert_eq!(table.evicted, 99_900 - 10);
    }

    #[test]
    fn what_is_taken_out_leaves_the_others_in_place() {
        let mut table = Slots::new(4, |worth: &bool| *worth);
        for key in 0..4 {
            table.insert(key, key % 2 == 0);
        }
        assert_eq!(
            (table.remove(&1), table.remove(&1), table.remove(&9)),
            (Some(false), None, None)
        );
        assert!([0, 2, 3].iter().all(|key| table.peek(key) == Some(&(key % 2 == 0))));
        for key in 10..200 {
            table.find_or_insert(key, || false);
            assert!(table.len() <= 4 && table.peek(&key).is_some());
            if key % 3 == 0 {
                assert_eq!(table.remove(&key), Some(false));
            }
        }
        assert!(table.iter().all(|(key, value)| table.peek(key) == Some(value)));
    }

    #[test]
    fn the_least_used_goes() {
        let mut table = Slots::new(4, |_: &u8| true);
        for key in 0..4 {
            table.insert(key, key as u8);
        }
        table.insert(4, 4);
        for key in [1, 2, 4] {
            assert!(table.find(&key).is_some());
        }
        table.insert(5, 5);
        assert!(table.find(&3).is_none(), "it was not used since the hand passed");
        assert!(table.find(&1).is_some());
    }
}
