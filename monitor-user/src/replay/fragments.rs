//! IP fragments put together again, in bounded memory.

use std::collections::{HashMap, VecDeque};

use monitor_core::time::EventTime;

use super::packet::{Fragment, FragmentOf};
use super::tally::Reassembly;

/// What waits for its missing pieces.
#[derive(Default)]
pub(super) struct Fragments {
    waiting: HashMap<FragmentOf, Waiting>,
    /// In the order in which they began. Those that are whole are still in here.
    order: VecDeque<(FragmentOf, u64)>,
    /// What is held, bytes.
    held: usize,
    /// How many have begun.
    begun: u64,
}

/// A packet put together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) of: FragmentOf,
    pub(super) protocol: u8,
    /// As far as it was captured.
    pub(super) bytes: Vec<u8>,
    /// How long it was when sent.
    pub(super) sent: usize,
}

/// The length of an IP packet has 16 bits.
const PACKET_BYTES_MAX: usize = 65_535;
/// Linux holds as much (ipfrag_high_thresh).
const HELD_BYTES_MAX: usize = 4 << 20;
/// Linux waits as long (ipfrag_time). RFC 8200 asks for twice that, and packets of which a piece
/// takes longer than a second are hardly ever seen.
const WAIT_NS_MAX: u64 = 30_000_000_000;
/// Places in the order of those that are whole, before they are swept out.
const ORDER_SLACK: usize = 1024;
/// Offsets count in units of so many bytes.
const UNIT: usize = 8;

struct Waiting {
    since: EventTime,
    number: u64,
    protocol: Option<u8>,
    bytes: Vec<u8>,
    /// Which units have come, a bit each.
    units: Vec<u64>,
    units_come: usize,
    /// Known when the last piece has come.
    sent: Option<usize>,
    /// Where the snap length first cut something off.
    captured: usize,
}

impl Fragments {
    /// Takes a piece; gives the packet when that was the last missing one. Of two pieces with the same
    /// place the bytes that came first stay. Hosts differ in that: the current Linux drops the whole
    /// packet when pieces overlap.
    pub(super) fn add(
        &mut self,
        time: EventTime,
        fragment: &Fragment<'_>,
        tally: &mut Reassembly,
    ) -> Option<Whole> {
        let Fragment { of, protocol, offset, more, bytes, sent } = *fragment;
        self.expire(time, tally);
        if self.order.len() > 2 * self.waiting.len() + ORDER_SLACK {
            let Fragments { order, waiting, .. } = self;
            order.retain(|(of, number)| is_number(waiting, of, *number));
        }
        let end = offset + sent;
        // All pieces but the last are whole units, and an empty piece says nothing.
        if end > PACKET_BYTES_MAX || sent == 0 || (more && sent % UNIT != 0) {
            tally.misfits += 1;
            return None;
        }
        let waiting = self.waiting.entry(of).or_insert_with(|| {
            self.begun += 1;
            self.order.push_back((of, self.begun));
            let waiting = Waiting::new(time, self.begun);
            self.held += waiting.held();
            waiting
        });
        if !waiting.fits(end, more) {
            tally.misfits += 1;
            return None;
        }
        let before = waiting.held();
        if offset == 0 {
            waiting.protocol.get_or_insert(protocol);
        }
        if waiting.put(offset, bytes, sent) {
            tally.conflicts += 1;
        }
        if !more {
            waiting.sent = Some(end);
        }
        self.held = self.held - before + waiting.held();
        if waiting.is_whole() {
            let waiting = self.remove(&of)?;
            tally.packets += 1;
            let mut bytes = waiting.bytes;
            bytes.truncate(waiting.captured);
            // A whole packet has a first piece and a last.
            return Some(Whole { of, protocol: waiting.protocol?, bytes, sent: waiting.sent? });
        }
        while self.held > HELD_BYTES_MAX && self.drop_first() {
            tally.evicted += 1;
        }
        None
    }

    /// Drops what has waited too long.
    fn expire(&mut self, now: EventTime, tally: &mut Reassembly) {
        while let Some(&(of, number)) = self.order.front() {
            match self.waiting.get(&of).filter(|waiting| waiting.number == number) {
                Some(waiting) if now.0.saturating_sub(waiting.since.0) <= WAIT_NS_MAX => return,
                Some(_) => {
                    tally.expired += 1;
                    self.remove(&of);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    /// Drops everything: nothing follows.
    pub(super) fn finish(&mut self, tally: &mut Reassembly) {
        tally.expired += self.waiting.len() as u64;
        *self = Fragments::default();
    }

    /// Drops the packet that began first. False when there is none.
    fn drop_first(&mut self) -> bool {
        while let Some((of, number)) = self.order.pop_front() {
            if is_number(&self.waiting, &of, number) {
                return self.remove(&of).is_some();
            }
        }
        false
    }

    fn remove(&mut self, of: &FragmentOf) -> Option<Waiting> {
        let waiting = self.waiting.remove(of)?;
        self.held -= waiting.held();
        Some(waiting)
    }
}

/// Whether that one still waits, rather than a later one with the same key.
fn is_number(waiting: &HashMap<FragmentOf, Waiting>, of: &FragmentOf, number: u64) -> bool {
    waiting.get(of).is_some_and(|waiting| waiting.number == number)
}

impl Waiting {
    fn new(since: EventTime, number: u64) -> Waiting {
        Waiting {
            since,
            number,
            protocol: None,
            bytes: Vec::new(),
            units: Vec::new(),
            units_come: 0,
            sent: None,
            captured: usize::MAX,
        }
    }

    /// What it holds, itself and its places in the tables included.
    fn held(&self) -> usize {
        self.bytes.capacity() + self.units.capacity() * 8 + 2 * size_of::<Waiting>()
    }

    /// Whether a piece that ends there can belong to what is known.
    fn fits(&self, end: usize, more: bool) -> bool {
        match self.sent {
            Some(sent) if more => end <= sent,
            Some(sent) => end == sent,
            None => more || end >= self.bytes.len(),
        }
    }

    /// Puts bytes at their place where none are yet. True when others are there already.
    fn put(&mut self, offset: usize, captured: &[u8], sent: usize) -> bool {
        let end = offset + sent;
        if captured.len() < sent {
            self.captured = self.captured.min(offset + captured.len());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.units.resize(end.div_ceil(UNIT).div_ceil(64), 0);
        }
        let mut conflicts = false;
        for unit in offset / UNIT..end.div_ceil(UNIT) {
            let from = unit * UNIT;
            let piece = &captured[(from - offset).min(captured.len())..];
            let piece = &piece[..piece.len().min(UNIT)];
            let place = &mut self.bytes[from..][..piece.len()];
            let bit = 1 << (unit % 64);
            let word = &mut self.units[unit / 64];
            if *word & bit == 0 {
                *word |= bit;
                self.units_come += 1;
                place.copy_from_slice(piece);
            } else {
                conflicts |= place != piece && from < self.captured;
            }
        }
        conflicts
    }

    fn is_whole(&self) -> bool {
        self.sent.is_some_and(|sent| self.units_come == sent.div_ceil(UNIT))
            && self.protocol.is_some()
    }
}

#[cfg(test)]
mod tests;
