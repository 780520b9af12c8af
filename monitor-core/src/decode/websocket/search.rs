//! Where frames begin when that is not known: after a gap, or in the middle of a connection.
//!
//! Every place that could be the head of a frame begins a chain; a chain lives as long as its next
//! frame begins where the one before says it does. Frames score by how unlikely they are to be
//! something else, and a chain with enough points is taken. What it went over is held and read again
//! from its first frame, so that finding out costs no message.

use std::collections::VecDeque;

use super::frame::{CONTROL_BYTES_MAX, Head, Opcode, unmask};
use crate::input::Direction;
use crate::time::EventTime;

/// Payload bytes of a text frame that are looked at.
const SAMPLE_BYTES: usize = 32;

/// Text this long or longer counts for [`TEXT_POINTS`]: by chance, once in 10^7 places of random
/// bytes.
const TEXT_BYTES_MIN: u64 = 8;
const TEXT_POINTS: u8 = 3;

/// Points that tell a WebSocket connection from any other: three frames with text, or eight of which
/// nothing is known, by chance once in 10^16 places of random bytes.
const UNKNOWN_POINTS: u8 = 8;

/// Points that tell a frame in a connection that is known for one.
const KNOWN_POINTS: u8 = 4;

/// Chains at once. In random bytes there are about three.
const CHAINS_MAX: usize = 16;

/// A frame that a chain goes over. Servers refuse messages beyond 1 MiB unless told otherwise.
const FRAME_BYTES_MAX: u64 = 1 << 20;

/// Bytes held for reading them again: some seconds of prices, or a client's last orders.
const HELD_BYTES_MAX: usize = 16 << 10;

/// Bytes taken at once.
const STEP_BYTES: usize = 4 << 10;

/// A search in one direction.
pub(super) struct Search {
    direction: Direction,
    points: u8,
    /// Bytes from `start` on.
    held: VecDeque<u8>,
    start: u64,
    /// The next place to look at.
    place: u64,
    chains: Vec<Chain>,
    /// Where the time changed: place and time.
    times: VecDeque<(u64, EventTime)>,
    /// Where a frame begins.
    found: Option<u64>,
    /// The byte after the last one that anything so far was judged by.
    judged: u64,
}

struct Chain {
    start: u64,
    next: u64,
    points: u8,
}

/// What a search ends with.
pub(super) struct Found {
    /// Bytes before the frame.
    pub(super) skipped_bytes: u64,
    /// Bytes from there on, by time.
    pub(super) runs: Vec<(EventTime, Vec<u8>)>,
}

impl Search {
    /// In a connection that may be a WebSocket (`unknown`), or is one.
    pub(super) fn new(direction: Direction, unknown: bool) -> Search {
        Search {
            direction,
            points: if unknown { UNKNOWN_POINTS } else { KNOWN_POINTS },
            held: VecDeque::new(),
            start: 0,
            place: 0,
            chains: Vec::new(),
            times: VecDeque::new(),
            found: None,
            judged: 0,
        }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Search>()
            + self.held.capacity()
            + self.chains.capacity() * size_of::<Chain>()
            + self.times.capacity() * size_of::<(u64, EventTime)>()
    }

    /// Bytes that were taken so far.
    pub(super) fn bytes(&self) -> u64 {
        self.start + self.held.len() as u64
    }

    /// The byte after the one that decided, once a frame is found: however the bytes were cut.
    pub(super) fn judged(&self) -> u64 {
        self.judged
    }

    /// Takes bytes until a frame is found.
    pub(super) fn read(&mut self, time: EventTime, chunk: &mut &[u8]) -> bool {
        while self.found.is_none() && !chunk.is_empty() {
            let (step, rest) = chunk.split_at(chunk.len().min(STEP_BYTES));
            *chunk = rest;
            if self.times.back().is_none_or(|(_, last)| *last != time) {
                self.times.push_back((self.bytes(), time));
            }
            self.held.extend(step);
            self.look();
            self.trim();
        }
        self.found.is_some()
    }

    /// Now it is known that this is a WebSocket connection.
    pub(super) fn settle(&mut self) -> bool {
        self.points = KNOWN_POINTS;
        let first = self.chains.iter().filter(|chain| chain.points >= KNOWN_POINTS);
        let first = first.map(|chain| chain.start).filter(|start| *start >= self.start).min();
        self.found = self.found.or(first);
        self.found.is_some()
    }

    /// Bytes are missing: nothing that was held leads on.
    pub(super) fn gap(&mut self) {
        self.start = self.bytes();
        self.place = self.start;
        self.held.clear();
        self.chains.clear();
        self.times.clear();
    }

    /// What was found, once.
    pub(super) fn take_found(&mut self) -> Option<Found> {
        let from = self.found.take()?;
        let held: Vec<u8> = self.held.drain(..).collect();
        let mut runs = Vec::new();
        let ends = self.times.iter().skip(1).map(|(place, _)| *place).chain([u64::MAX]);
        for ((place, time), end) in self.times.iter().zip(ends) {
            let at = |place: u64| {
                let at = place.saturating_sub(self.start);
                usize::try_from(at).unwrap_or(usize::MAX).min(held.len())
            };
            let run = &held[at((*place).max(from))..at(end.max(from))];
            if !run.is_empty() {
                runs.push((*time, run.to_vec()));
            }
        }
        Some(Found { skipped_bytes: from, runs })
    }

    /// Looks at every place of which enough is there.
    fn look(&mut self) {
        self.held.make_contiguous();
        while let Some(bytes) = self.rest()
            && self.found.is_none()
        {
            let place = self.place;
            let expected = self.chains.iter().any(|chain| chain.next == place);
            if !expected {
                // Most bytes begin nothing.
                match bytes.iter().position(|byte| begins(*byte)) {
                    Some(0) => {}
                    ahead => {
                        let ahead = ahead.unwrap_or(bytes.len()) as u64;
                        let next = self.chains.iter().map(|chain| chain.next).min();
                        self.place = next.unwrap_or(u64::MAX).min(place + ahead);
                        continue;
                    }
                }
            }
            let Some((looked_at, score)) = self.score(bytes, expected) else { return };
            self.judged = self.judged.max(place + looked_at as u64);
            self.advance(place, expected, score);
            self.place += 1;
        }
    }

    /// Bytes from the place to look at on.
    fn rest(&self) -> Option<&[u8]> {
        let at = usize::try_from(self.place - self.start).ok()?;
        self.held.as_slices().0.get(at..).filter(|rest| !rest.is_empty())
    }

    fn advance(&mut self, place: u64, expected: bool, score: Option<(u8, u64)>) {
        let Some((points, bytes)) = score else {
            self.chains.retain(|chain| chain.next != place);
            return;
        };
        let mut start = None;
        for chain in self.chains.iter_mut().filter(|chain| chain.next == place) {
            chain.points = chain.points.saturating_add(points);
            chain.next = place + bytes;
            if chain.points >= self.points {
                start = Some(start.unwrap_or(u64::MAX).min(chain.start));
            }
        }
        if let Some(start) = start {
            let held = place - start <= HELD_BYTES_MAX as u64;
            self.found = Some(if held { start } else { place });
        } else if !expected && points > 0 && self.chains.len() < CHAINS_MAX {
            self.chains.push(Chain { start: place, next: place + bytes, points });
        }
    }

    /// How many bytes tell whether a frame begins here, and points for it and its bytes; the inner
    /// `None` when there is none, the outer as long as that cannot be told.
    fn score(&self, bytes: &[u8], follows: bool) -> Option<(usize, Option<(u8, u64)>)> {
        let [first, rest @ ..] = bytes else { return None };
        if !(begins(*first) || follows && goes_on(*first)) {
            return Some((1, None));
        }
        let second = rest.first()?;
        if (second & 0x80 != 0) != (self.direction == Direction::ToServer) {
            return Some((2, None));
        }
        let head = Head::parse(bytes)?;
        let control = head.opcode.is_control() && head.length > CONTROL_BYTES_MAX;
        if !head.minimal || control || head.length > FRAME_BYTES_MAX {
            return Some((head.bytes, None));
        }
        let sample = usize::try_from(head.length).ok()?.min(SAMPLE_BYTES);
        let looked_at = head.bytes + sample;
        let payload = bytes.get(head.bytes..looked_at)?;
        let points = match head.opcode {
            Opcode::Text if !head.rsv1 => {
                let mut plain = Vec::with_capacity(SAMPLE_BYTES);
                unmask(head.mask, 0, payload, &mut plain);
                if !is_text(&plain, head.length > sample as u64) {
                    return Some((looked_at, None));
                }
                if head.length >= TEXT_BYTES_MIN { TEXT_POINTS } else { 1 }
            }
            Opcode::Close if head.length == 1 => return Some((looked_at, None)),
            Opcode::Text | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => 1,
            // Nothing speaks for it, and nothing against it.
            Opcode::Continuation | Opcode::Reserved => 0,
        };
        let points = if head.fin { points } else { 0 };
        Some((looked_at, Some((points, head.bytes as u64 + head.length))))
    }

    /// Lets go of what no chain will need.
    fn trim(&mut self) {
        let bound = self.place.saturating_sub(HELD_BYTES_MAX as u64);
        let wanted = self.chains.iter().map(|chain| chain.start).chain([self.place]).min();
        let wanted = self.found.or(wanted).unwrap_or(self.place).max(bound).min(self.bytes());
        let passed = usize::try_from(wanted.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.held.drain(..passed.min(self.held.len()));
        self.start = wanted;
        while self.times.get(1).is_some_and(|(place, _)| *place <= wanted) {
            self.times.pop_front();
        }
    }
}

/// First bytes of whole frames: data, compressed or not, and control.
fn begins(byte: u8) -> bool {
    matches!(byte, 0x81 | 0x82 | 0xc1 | 0xc2 | 0x88..=0x8a)
}

/// First bytes of parts of messages.
fn goes_on(byte: u8) -> bool {
    matches!(byte, 0x00 | 0x80 | 0x01 | 0x02 | 0x41 | 0x42)
}

/// UTF-8 without control characters, its end perhaps cut off.
fn is_text(plain: &[u8], cut: bool) -> bool {
    let whole = match std::str::from_utf8(plain) {
        Ok(_) => true,
        Err(error) => cut && error.error_len().is_none(),
    };
    whole && plain.iter().all(|byte| *byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n'))
}
