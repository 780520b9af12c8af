//! The flow table: found by key in one look-up, bounded, and dropped from the oldest on.
//!
//! Two lists run through it in order of use. Flows that may go first (no payload yet, or closed) are
//! in one, the rest in the other: neither a SYN flood nor a wave of short connections pushes out a
//! connection that is in use. Nothing that is given out depends on the order of the hash map.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::key::PairKey;
use crate::time::EventTime;

/// Place of a flow in the [`Table`]; reused after the flow is removed.
pub(crate) type Slot = u32;

const NONE: Slot = Slot::MAX;

/// How much a flow is worth keeping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// No payload yet, or closed: goes first.
    Spare,
    /// In use.
    Kept,
}

/// A flow that says itself between which ends it is.
pub(crate) trait Keyed {
    fn key(&self) -> &PairKey;
}

/// Flows by key, each with the time of its last use.
pub(crate) struct Table<T> {
    hasher: FixedState,
    /// Slots by the key of the flow there.
    by_key: HashTable<Slot>,
    slots: Vec<Option<Entry<T>>>,
    free: Vec<Slot>,
    lists: [List; 2],
    /// The flow found last: segments come in trains.
    last: Option<(PairKey, Slot)>,
}

struct Entry<T> {
    used: EventTime,
    standing: Standing,
    before: Slot,
    after: Slot,
    value: T,
}

#[derive(Clone, Copy)]
struct List {
    oldest: Slot,
    newest: Slot,
}

impl<T: Keyed> Table<T> {
    /// An empty table. `seed` decides which keys collide and nothing else; live capture passes a
    /// random one so that nobody can choose addresses that do.
    pub(crate) fn new(seed: u64) -> Table<T> {
        Table {
            hasher: FixedState::with_seed(seed),
            by_key: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            lists: [List { oldest: NONE, newest: NONE }; 2],
            last: None,
        }
    }

    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Where the flow is.
    pub(crate) fn find(&mut self, key: &PairKey) -> Option<Slot> {
        match &self.last {
            Some((last, slot)) if last == key => return Some(*slot),
            Some(_) | None => {}
        }
        let slots = &self.slots;
        let is_at = |slot: &Slot| key_at(slots, *slot) == Some(key);
        let slot = *self.by_key.find(self.hasher.hash_one(key), is_at)?;
        self.last = Some((*key, slot));
        Some(slot)
    }

    /// Adds a flow that is not in the table yet.
    pub(crate) fn insert(&mut self, now: EventTime, value: T) -> Slot {
        let key = *value.key();
        let entry =
            Entry { used: now, standing: Standing::Spare, before: NONE, after: NONE, value };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                // `flows_max` flows are far fewer than `NONE`.
                (self.slots.len() - 1) as Slot
            }
        };
        self.slots[slot as usize] = Some(entry);
        let (hasher, slots) = (&self.hasher, &self.slots);
        let hash_at = |slot: &Slot| key_at(slots, *slot).map_or(0, |key| hasher.hash_one(key));
        self.by_key.insert_unique(hasher.hash_one(key), slot, hash_at);
        self.last = Some((key, slot));
        self.link(slot, Standing::Spare);
        slot
    }

    /// The flow at `slot`.
    pub(crate) fn at(&mut self, slot: Slot) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut().map(|entry| &mut entry.value)
    }

    /// Marks the flow as used just now, and says what it is worth.
    pub(crate) fn touch(&mut self, slot: Slot, now: EventTime, standing: Standing) {
        let Some(Some(entry)) = self.slots.get_mut(slot as usize) else { return };
        entry.used = now;
        if entry.standing == standing && self.lists[standing as usize].newest == slot {
            return;
        }
        self.unlink(slot);
        self.link(slot, standing);
    }

    /// The flow of this standing that was used longest ago, and when.
    pub(crate) fn oldest(&self, standing: Standing) -> Option<(Slot, EventTime)> {
        let slot = self.lists[standing as usize].oldest;
        let entry = self.slots.get(slot as usize)?.as_ref()?;
        Some((slot, entry.used))
    }

    /// The flow that goes first when one must go.
    pub(crate) fn victim(&self) -> Option<Slot> {
        let (slot, _) = self.oldest(Standing::Spare).or_else(|| self.oldest(Standing::Kept))?;
        Some(slot)
    }

    /// Takes the flow out.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        self.slots.get(slot as usize)?.as_ref()?;
        self.unlink(slot);
        let entry = self.slots[slot as usize].take()?;
        let hash = self.hasher.hash_one(entry.value.key());
        if let Ok(found) = self.by_key.find_entry(hash, |it| *it == slot) {
            found.remove();
        }
        self.free.push(slot);
        self.last = None;
        Some(entry.value)
    }

    /// Bytes that the table itself takes for each flow, about.
    pub(crate) const fn entry_bytes() -> usize {
        size_of::<Option<Entry<T>>>() + size_of::<Slot>() + 1
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Entry<T>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn link(&mut self, slot: Slot, standing: Standing) {
        let newest = std::mem::replace(&mut self.lists[standing as usize].newest, slot);
        if let Some(entry) = self.entry(slot) {
            (entry.standing, entry.before, entry.after) = (standing, newest, NONE);
        }
        match self.entry(newest) {
            Some(entry) => entry.after = slot,
            None => self.lists[standing as usize].oldest = slot,
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else { return };
        let (standing, before, after) = (entry.standing, entry.before, entry.after);
        match self.entry(before) {
            Some(entry) => entry.after = after,
            None => self.lists[standing as usize].oldest = after,
        }
        match self.entry(after) {
            Some(entry) => entry.before = before,
            None => self.lists[standing as usize].newest = before,
        }
    }
}

fn key_at<T: Keyed>(slots: &[Option<Entry<T>>], slot: Slot) -> Option<&PairKey> {
    Some(slots.get(slot as usize)?.as_ref()?.value.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Endpoint;

    impl Keyed for (PairKey, u16) {
        fn key(&self) -> &PairKey {
            &self.0
        }
    }

    fn key(port: u16) -> PairKey {
        let end = |port| Endpoint::new([127, 0, 0, 1].into(), port);
        PairKey::new(end(1), end(port), 0).0
    }

    #[test]
    fn the_victim_is_spare_first_and_then_oldest() {
        let mut table = Table::new(0);
        let slots: Vec<Slot> = (2..6).map(|n| table.insert(EventTime(0), (key(n), n))).collect();
        for (at, slot) in slots.iter().take(3).enumerate() {
            table.touch(*slot, EventTime(at as u64 + 1), Standing::Kept);
        }
        table.touch(slots[0], EventTime(9), Standing::Kept);
        let mut order = Vec::new();
        while let Some(slot) = table.victim() {
            order.push(table.remove(slot).unwrap().1);
        }
        assert_eq!(order, [5, 3, 4, 2]);
        assert_eq!(table.len(), 0);
        assert!(table.remove(slots[0]).is_none());
    }

    #[test]
    fn removed_flows_are_not_found_and_their_slots_are_reused() {
        let mut table = Table::new(0);
        let slot = table.insert(EventTime(0), (key(2), 2));
        assert_eq!(table.find(&key(2)), Some(slot));
        table.remove(slot);
        assert_eq!(table.find(&key(2)), None);
        assert_eq!(table.insert(EventTime(0), (key(3), 3)), slot);
        assert_eq!(table.find(&key(2)), None);
        assert_eq!(table.at(slot), Some(&mut (key(3), 3)));
        assert_eq!(table.oldest(Standing::Spare), Some((slot, EventTime(0))));
    }
}
