//! One direction of a TCP connection: segments in any order to bytes in order, and holes to gaps.
//!
//! The bytes that come first count (as Linux, BSD and Windows receivers have it for segments that
//! are in order). A retransmission that says otherwise is noted where both copies are at hand: while
//! the first waits for a hole to fill, and after its delivery until the receiver has acknowledged it.
//!
//! A hole is given up when the receiver acknowledges what lies in it, for then that will not be sent
//! again: on the host itself a segment is captured before it can be acknowledged. A capture that
//! merges several taps may order the two directions wrongly by some microseconds. In the same way
//! data that acknowledges bytes of the other direction shows that those are missing if they are not
//! there: they are given up before that data is delivered, so that an answer never overtakes what it
//! answers. An acknowledgement may lie; bytes that come after they were given up, with nothing
//! delivered since, are taken after all.
//!
//! A hole that the receiver waits for too, as its acknowledgements show, is waited for as long as the
//! flow lives. Without acknowledgements a hole is given up when the kernel side said that it lost
//! bytes of this direction, or after
//! [`reorder_wait_max`](crate::limits::Limits::reorder_wait_max). A limit on memory ends every wait.

use std::collections::BTreeMap;

use crate::decode::Counters;
use crate::time::EventTime;

/// A segment this far from what is expected is not of this connection: the largest window that TCP
/// can offer is 1 GiB (RFC 7323, 2.3).
const JUMP_BYTES_MAX: u32 = 1 << 30;

/// A segment of a connection that is over comes at most this late: sixteen times the largest receive
/// buffer that Linux gives a socket by itself (tcp_rmem).
const LATE_BYTES_MAX: u64 = 96 << 20;

/// What a held piece costs besides its bytes: its share of a tree node and of the allocator.
const PIECE_BYTES: usize = 96;

/// Delivered bytes that are kept to compare with what is sent again, as long as they are not
/// acknowledged: a request with its head.
const RECENT_BYTES_MAX: usize = 2048;

/// Buffers for recent bytes that no stream has use for at present. A flow whose bytes are all
/// acknowledged holds none.
#[derive(Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

/// Buffers kept: more flows than this are seldom between a segment and its acknowledgement.
const SPARE_MAX: usize = 64;

/// A run of bytes as captured, possibly cut short.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// When it was captured.
    pub(crate) time: EventTime,
    /// Sequence number of its first byte.
    pub(crate) seq: u32,
    /// What was captured of it.
    pub(crate) payload: &'a [u8],
    /// Bytes after `payload` that were not captured.
    pub(crate) missing: u32,
    /// Nothing follows it.
    pub(crate) fin: bool,
    /// What its sender had received of the other direction.
    pub(crate) ack: Option<u32>,
}

/// What became of a [`Run`].
pub(crate) enum Accepted<'a> {
    /// These bytes, then a gap of `missing`, are next in the stream and count as delivered.
    InOrder {
        /// What is new of the payload.
        payload: &'a [u8],
        /// Bytes after it that were not captured.
        missing: u32,
    },
    /// It waits, or was not new: see [`Stream::next_held`].
    Held,
    /// Too far away to be true.
    Absurd,
}

/// A run that had to wait.
pub(crate) struct Held {
    /// When it was captured.
    pub(crate) time: EventTime,
    /// The bytes.
    pub(crate) data: Box<[u8]>,
    /// Bytes after `data` that were not captured.
    pub(crate) missing: u32,
    /// See [`Run::ack`].
    pub(crate) ack: Option<u32>,
    /// A retransmission had other bytes.
    pub(crate) conflict: bool,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.data.len() as u64 + u64::from(self.missing)
    }

    fn cost(&self) -> usize {
        self.data.len() + PIECE_BYTES
    }
}

/// Reassembly of one direction. Positions are counted in bytes from where the capture began.
#[derive(Default)]
pub(crate) struct Stream {
    /// Sequence number of the next byte; meaningful when `started`.
    next_seq: u32,
    started: bool,
    finished: bool,
    /// The receiver was heard of.
    answered: bool,
    /// The receiver, too, waits for the byte at `next`.
    asked_for: bool,
    /// Bytes came again, and not the same ones as were delivered.
    conflict: bool,
    /// Position of the next byte.
    next: u64,
    /// The receiver has everything before this position.
    acked: u64,
    /// The last bytes before `next`, as long as they are not acknowledged; nothing when nobody is
    /// there to acknowledge.
    recent: Vec<u8>,
    /// `None` as long as all of it is zero: so it is with nearly every stream.
    disorder: Option<Box<Disorder>>,
}

/// What is not in order in a stream, and where it ends.
#[derive(Default)]
struct Disorder {
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Position of the FIN.
    fin: Option<u64>,
    /// Bytes that the kernel side lost and no gap has shown yet.
    lost_bytes: u64,
    /// Bytes just before `next` that were given up.
    given_up: u64,
}

impl Disorder {
    fn is_over(&self) -> bool {
        self.held.is_empty() && self.fin.is_none() && self.lost_bytes == 0 && self.given_up == 0
    }
}

impl Spare {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARE_MAX && buffer.capacity() > 0 {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

impl Stream {
    /// Sets where the stream begins, unless that is known.
    pub(crate) fn start(&mut self, seq: u32) {
        if !self.started {
            (self.started, self.next_seq) = (true, seq);
        }
    }

    /// A handshake says where the stream begins: what was taken for its start before, and brought no
    /// bytes, was none; unless the receiver has said that it waits there.
    pub(crate) fn restart(&mut self, seq: u32) {
        if self.is_fresh() && !self.asked_for {
            *self = Stream { started: true, next_seq: seq, ..Stream::default() };
        }
    }

    /// Whether no bytes of it have come.
    pub(crate) fn is_fresh(&self) -> bool {
        self.next == 0 && self.held().is_none_or(BTreeMap::is_empty)
    }

    /// Whether it is known where the stream begins.
    pub(crate) fn started(&self) -> bool {
        self.started
    }

    /// Whether a byte with this number is none of this stream, not even a late one.
    pub(crate) fn is_elsewhere(&self, seq: u32) -> bool {
        let far = |ahead: i64| ahead.unsigned_abs() > LATE_BYTES_MAX;
        self.started && self.ahead(seq).is_none_or(far)
    }

    /// Whether a byte with this number may still come.
    pub(crate) fn expects(&self, seq: u32) -> bool {
        !self.started || self.ahead(seq).is_some_and(|ahead| ahead >= 0)
    }

    /// Sequence number of the next byte.
    pub(crate) fn next_seq(&self) -> u32 {
        self.next_seq
    }

    /// Whether the FIN was reached.
    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// Memory for what waits, bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.disorder.as_ref().map_or(0, |it| it.held_bytes)
    }

    /// Memory for that and for what was delivered, bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        let disorder = self.disorder.as_ref();
        self.recent.capacity() + disorder.map_or(0, |it| size_of::<Disorder>() + it.held_bytes)
    }

    /// Whether bytes came again that were not those delivered; true once for each time.
    pub(crate) fn take_conflict(&mut self) -> bool {
        std::mem::take(&mut self.conflict)
    }

    /// Whether the receiver is known to lack the next byte too.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    /// Payload bytes among that.
    pub(crate) fn held_payload_bytes(&self) -> u64 {
        self.held().map_or(0, |held| held.values().map(|held| held.data.len() as u64).sum())
    }

    /// The kernel side lost bytes of this direction.
    pub(crate) fn lose(&mut self, bytes: u64) {
        let lost_bytes = &mut self.disorder().lost_bytes;
        *lost_bytes = lost_bytes.saturating_add(bytes);
    }

    /// Takes a run of bytes.
    pub(crate) fn accept<'a>(
        &mut self,
        run: Run<'a>,
        spare: &mut Spare,
        counters: &mut Counters,
    ) -> Accepted<'a> {
        self.start(run.seq);
        let Some(mut ahead) = self.ahead(run.seq) else { return Accepted::Absurd };
        let (mut payload, mut missing) = (run.payload, run.missing);
        if ahead < 0 && self.given_up() > 0 {
            let bytes = payload.len() as u64 + u64::from(missing);
            ahead += self.take_back(ahead, bytes, counters);
        }
        let end = self.next as i64 + ahead + payload.len() as i64 + i64::from(missing);
        let end = u64::try_from(end).unwrap_or(0);
        if run.fin && end >= self.next {
            self.disorder().fin.get_or_insert(end);
        }
        // Data behind a FIN: the FIN was not the sender's, or not taken by the receiver.
        if self.fin().is_some_and(|fin| end > fin) && !self.finished {
            self.disorder().fin = None;
        }
        let old = u64::try_from(-ahead).unwrap_or(0);
        let fresh_from = usize::try_from(old).unwrap_or(usize::MAX).min(payload.len());
        let repeated = old.min(payload.len() as u64 + u64::from(missing));
        counters.retransmitted_bytes += repeated;
        if fresh_from > 0 && self.contradicts(payload, old) {
            counters.overlap_conflicts += 1;
            self.conflict = true;
        }
        payload = &payload[fresh_from..];
        missing -= (repeated - fresh_from as u64) as u32;
        let bytes = payload.len() as u64 + u64::from(missing);
        if bytes == 0 || self.finished {
            return Accepted::Held;
        }
        let at = self.next + u64::try_from(ahead).unwrap_or(0);
        let alone = self.first_held().is_none_or(|(first, _)| first >= at + bytes);
        if at == self.next && alone {
            self.advance(bytes);
            self.remember(payload, missing, spare);
            return Accepted::InOrder { payload, missing };
        }
        let rest = Run { payload, missing, ..run };
        self.hold(at, rest, counters);
        Accepted::Held
    }

    /// The receiver has everything before `ack`.
    pub(crate) fn acknowledge(&mut self, ack: u32, spare: &mut Spare) {
        if !self.started {
            return;
        }
        let Some(ahead) = self.ahead(ack) else { return };
        self.acked = self.acked.max(self.next.saturating_add_signed(ahead));
        self.asked_for |= ahead == 0;
        self.answered = true;
        if self.acked >= self.next {
            self.forget(spare);
        }
    }

    /// The next bytes that waited, when nothing is missing before them.
    pub(crate) fn next_held(&mut self, spare: &mut Spare) -> Option<Held> {
        let disorder = self.disorder.as_mut()?;
        let first = disorder.held.first_entry()?;
        if *first.key() != self.next {
            return None;
        }
        let held = first.remove();
        disorder.held_bytes -= held.cost();
        self.advance(held.bytes());
        self.remember(&held.data, held.missing, spare);
        Some(held)
    }

    /// True once when the FIN is next.
    pub(crate) fn reach_fin(&mut self) -> bool {
        let reached = !self.finished && self.fin() == Some(self.next);
        self.finished |= reached;
        reached
    }

    /// Whether nothing waits, and no end is in sight: so it is with nearly every segment.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.disorder.is_none()
    }

    /// Whether something waits for bytes that are not there.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        !self.is_idle() && self.hole_end().is_some()
    }

    /// Whether waiting for those is in vain.
    pub(crate) fn waits_in_vain(&self) -> bool {
        self.waits() && (self.acked > self.next || self.lost_bytes() > 0)
    }

    /// Gives up what is waited for in vain: how many bytes were missing.
    pub(crate) fn give_up_vain(&mut self) -> Option<u64> {
        let end = self.hole_end()?;
        let end = if self.lost_bytes() > 0 { end } else { end.min(self.acked) };
        let bytes = (end > self.next).then(|| self.jump_to(end));
        // It has nothing behind what it acknowledged.
        self.asked_for |= self.acked == self.next;
        bytes
    }

    /// Gives up the hole: how many bytes were missing.
    pub(crate) fn give_up(&mut self) -> Option<u64> {
        let end = self.hole_end()?;
        Some(self.jump_to(end))
    }

    /// Whether bytes before `ack` have not been delivered.
    pub(crate) fn is_behind(&self, ack: u32) -> bool {
        // The acknowledgement of a FIN counts one.
        self.started
            && self.fin() != Some(self.next)
            && !self.finished
            && self.ahead(ack).is_some_and(|ahead| ahead > 0)
    }

    /// Gives up a hole as far as `ack`: how many bytes were missing.
    pub(crate) fn give_up_to(&mut self, ack: u32) -> Option<u64> {
        let end = self.next.checked_add_signed(self.ahead(ack)?)?;
        let end = self.first_held().map_or(end, |(first, _)| end.min(first));
        let end = self.fin().map_or(end, |fin| end.min(fin));
        (end > self.next).then(|| self.jump_to(end))
    }

    /// What the sender of the first bytes that wait had received of the other direction.
    pub(crate) fn held_ack(&self) -> Option<u32> {
        self.first_held()?.1.ack
    }

    /// Whether the next bytes are among those that wait.
    pub(crate) fn has_next(&self) -> bool {
        self.first_held().is_some_and(|(first, _)| first == self.next)
    }

    /// Whether a run from `seq` on would be delivered at once.
    pub(crate) fn is_next(&self, seq: u32) -> bool {
        !self.started || self.ahead(seq).is_some_and(|ahead| ahead <= 0)
    }

    fn first_held(&self) -> Option<(u64, &Held)> {
        self.held()?.first_key_value().map(|(first, held)| (*first, held))
    }

    fn disorder(&mut self) -> &mut Disorder {
        self.disorder.get_or_insert_default()
    }

    fn held(&self) -> Option<&BTreeMap<u64, Held>> {
        self.disorder.as_ref().map(|it| &it.held)
    }

    fn fin(&self) -> Option<u64> {
        self.disorder.as_ref()?.fin
    }

    fn lost_bytes(&self) -> u64 {
        self.disorder.as_ref().map_or(0, |it| it.lost_bytes)
    }

    fn given_up(&self) -> u64 {
        self.disorder.as_ref().map_or(0, |it| it.given_up)
    }

    fn jump_to(&mut self, end: u64) -> u64 {
        let bytes = end - self.next;
        let given_up = self.given_up() + bytes;
        self.advance(bytes);
        let disorder = self.disorder();
        disorder.lost_bytes = disorder.lost_bytes.saturating_sub(bytes);
        disorder.given_up = given_up;
        self.recent.clear();
        bytes
    }

    /// Goes back to where a run begins that was given up and comes after all: by how many bytes. The
    /// run begins `-ahead` bytes before `next`.
    fn take_back(&mut self, ahead: i64, bytes: u64, counters: &mut Counters) -> i64 {
        let start = ahead.unsigned_abs();
        let back = start.min(self.given_up());
        // Before the hole, or a keep-alive probe, which may have any byte there.
        if start.saturating_sub(bytes) >= back || (bytes, back) == (1, 1) || self.finished {
            return 0;
        }
        counters.late_bytes += back - start.saturating_sub(bytes);
        self.next -= back;
        self.next_seq = self.next_seq.wrapping_sub(back as u32);
        self.disorder().given_up -= back;
        self.acked = self.acked.min(self.next);
        self.recent.clear();
        back.cast_signed()
    }

    /// Keeps delivered bytes until they are acknowledged.
    fn remember(&mut self, payload: &[u8], missing: u32, spare: &mut Spare) {
        if missing > 0 {
            self.recent.clear();
            return;
        }
        if !self.answered || self.acked >= self.next || payload.is_empty() {
            return;
        }
        if self.recent.capacity() == 0 {
            self.recent = spare.take();
        }
        let tail = &payload[payload.len().saturating_sub(RECENT_BYTES_MAX)..];
        if self.recent.len() + tail.len() > 2 * RECENT_BYTES_MAX {
            let old = self.recent.len().saturating_sub(RECENT_BYTES_MAX);
            self.recent.drain(..old);
        }
        self.recent.extend_from_slice(tail);
    }

    fn forget(&mut self, spare: &mut Spare) {
        if self.recent.capacity() > 0 {
            spare.give(std::mem::take(&mut self.recent));
        }
    }

    /// Whether a run that begins `old` bytes before `next` has other bytes than were delivered.
    fn contradicts(&self, payload: &[u8], old: u64) -> bool {
        // A keep-alive probe may have any byte there (RFC 9293, 3.8.4).
        if self.recent.is_empty() || (payload.len() == 1 && old == 1) {
            return false;
        }
        let unacknowledged = usize::try_from(self.next.saturating_sub(self.acked));
        let known = self.recent.len().min(RECENT_BYTES_MAX).min(unacknowledged.unwrap_or(0));
        let skipped = usize::try_from(old.saturating_sub(known as u64)).unwrap_or(usize::MAX);
        let Some(again) = payload.get(skipped..) else { return false };
        let from = self.recent.len() - known.min(usize::try_from(old).unwrap_or(usize::MAX));
        let both = again.len().min(self.recent.len() - from);
        again[..both] != self.recent[from..from + both]
    }

    fn hole_end(&self) -> Option<u64> {
        match self.first_held() {
            Some((first, _)) => (first > self.next).then_some(first),
            None => self.fin().filter(|fin| *fin > self.next),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.asked_for = false;
        if let Some(disorder) = &mut self.disorder {
            disorder.given_up = 0;
            if disorder.is_over() {
                self.disorder = None;
            }
        }
        self.next += bytes;
        self.next_seq = self.next_seq.wrapping_add(bytes as u32);
    }

    /// How far `seq` lies ahead of what is expected.
    fn ahead(&self, seq: u32) -> Option<i64> {
        let ahead = seq.wrapping_sub(self.next_seq).cast_signed();
        (ahead.unsigned_abs() <= JUMP_BYTES_MAX).then_some(i64::from(ahead))
    }

    /// Keeps a run, where it does not overlap what is kept already.
    fn hold(&mut self, at: u64, run: Run<'_>, counters: &mut Counters) {
        let Run { time, payload, missing, ack, .. } = run;
        let run = Span { at, payload, end: at + payload.len() as u64 + u64::from(missing) };
        let Disorder { held, held_bytes, .. } = self.disorder();
        let before = held.range(..=at).next_back().map_or(at, |(start, _)| *start);
        let mut free = Vec::new();
        let mut from = at;
        for (&start, piece) in held.range_mut(before..run.end) {
            let piece_end = start + piece.bytes();
            if piece_end <= at {
                continue;
            }
            if start > from {
                free.push((from, start));
            }
            let (overlap, overlap_end) = (start.max(at), piece_end.min(run.end));
            counters.retransmitted_bytes += overlap_end - overlap;
            let kept = Span { at: start, payload: &piece.data, end: piece_end };
            if kept.differs(&run, overlap, overlap_end) {
                counters.overlap_conflicts += 1;
                piece.conflict = true;
            }
            from = piece_end;
        }
        if from < run.end {
            free.push((from, run.end));
        }
        for (from, end) in free {
            let data: Box<[u8]> = run.between(from, end).into();
            let missing = (end - from - data.len() as u64) as u32;
            let piece = Held { time, data, missing, ack, conflict: false };
            *held_bytes += piece.cost();
            held.insert(from, piece);
        }
    }
}

/// Bytes at a position of the stream; those between the end of `payload` and `end` are not known.
struct Span<'a> {
    at: u64,
    payload: &'a [u8],
    end: u64,
}

impl Span<'_> {
    /// The known bytes from one position to another.
    fn between(&self, from: u64, end: u64) -> &[u8] {
        let index = |position: u64| {
            usize::try_from(position.min(self.end).saturating_sub(self.at))
                .unwrap_or(usize::MAX)
                .min(self.payload.len())
        };
        &self.payload[index(from)..index(end)]
    }

    /// Whether both know a byte between the positions and disagree on it.
    fn differs(&self, other: &Span<'_>, from: u64, end: u64) -> bool {
        let (mine, theirs) = (self.between(from, end), other.between(from, end));
        let both = mine.len().min(theirs.len());
        mine[..both] != theirs[..both]
    }
}

#[cfg(test)]
mod tests;
