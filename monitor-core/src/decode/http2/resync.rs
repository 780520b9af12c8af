//! Where does a frame begin? The search after a loss, and on connections that began unseen.
//!
//! Nothing marks the beginning of a frame. What gives it away is that its length leads to another
//! frame: each place that looks like a frame's head is followed from frame to frame until the chain
//! has shown enough. Kinds whose length is fixed count double, and so do header blocks that can be
//! read; data count little. A chain that begins with the first byte after the loss counts more, as
//! senders begin segments with frames.
//!
//! What is found depends on the bytes alone and not on how they come: places are looked at in order
//! of their last byte.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::frame::{CONTENT_BYTES_DEFAULT, HEAD_BYTES, Head, Kind, SETTING_BYTES, setting};
use super::hpack::{Bounds, Decoder};
use crate::time::EventTime;

/// What a chain must show on a connection that is known to speak HTTP/2.
pub(super) const SURE: u32 = 3;

/// What it must show where anything may be spoken.
pub(super) const DOUBTFUL: u32 = 4;

/// Chains followed at once; text has none, and a body that is all zeros few.
const CHAINS_MAX: usize = 8;

/// Ids of settings in use are small (IANA's registry of HTTP/2 settings).
const SETTING_ID_MAX: u16 = 0xff;

/// Bytes of one direction in which a frame's beginning is looked for.
pub(super) struct Resync {
    /// Bytes from the first chain's beginning on, or the last few.
    held: Vec<u8>,
    /// Where `held` begins, counted from the loss.
    base: u64,
    /// Bytes looked at, counted from the loss.
    seen: u64,
    /// Where bytes of another time begin.
    times: VecDeque<(u64, EventTime)>,
    chains: SmallVec<[Chain; 2]>,
    needed: u32,
    search_bytes_max: u64,
}

#[derive(Clone, Copy)]
struct Chain {
    start: u64,
    /// Where the next frame's head is expected.
    next: u64,
    /// What was shown.
    points: u32,
    /// The last frame, of which the content was not looked at.
    last: Head,
}

/// The beginning of a frame.
pub(super) struct Found {
    /// Bytes from there to where it was sure.
    pub(super) pieces: Vec<(EventTime, Vec<u8>)>,
    /// Bytes passed over.
    pub(super) skipped_bytes: u64,
    /// Bytes of the last chunk that it took to be sure.
    pub(super) used: usize,
}

impl Resync {
    pub(super) fn new(needed: u32, search_bytes_max: usize) -> Resync {
        Resync {
            held: Vec::new(),
            base: 0,
            seen: 0,
            times: VecDeque::new(),
            chains: SmallVec::new(),
            needed,
            search_bytes_max: search_bytes_max as u64,
        }
    }

    /// Bytes are missing: begins anew.
    pub(super) fn gap(&mut self) {
        *self = Resync::new(self.needed, self.search_bytes_max as usize);
    }

    /// Whether some bytes may turn out to be frames.
    pub(super) fn has_chain(&self) -> bool {
        !self.chains.is_empty()
    }

    /// Whether they would be taken for frames if it were known that there are some.
    pub(super) fn is_likely(&self) -> bool {
        self.chains.iter().any(|chain| chain.points >= SURE)
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity() + self.times.capacity() * size_of::<(u64, EventTime)>()
    }

    /// Looks at more bytes.
    pub(super) fn search(&mut self, time: EventTime, chunk: &[u8]) -> Option<Found> {
        let chunk_start = self.end();
        if self.times.back().is_none_or(|(_, last)| *last != time) {
            self.times.push_back((chunk_start, time));
        }
        self.held.extend_from_slice(chunk);
        while let Some(next) = self.next_place() {
            self.seen = next;
            if let Some(start) = self.look() {
                let used = (self.seen.saturating_sub(chunk_start)) as usize;
                return Some(self.found(start, used));
            }
        }
        self.seen = self.end();
        self.trim();
        None
    }

    /// It is known by other means that HTTP/2 is spoken: what counts as enough becomes less.
    pub(super) fn relent(&mut self) -> Option<Found> {
        self.needed = SURE;
        let enough = self.chains.iter().filter(|chain| chain.points >= SURE);
        let start = enough.map(|chain| chain.start).min()?;
        Some(self.found(start, 0))
    }

    fn end(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| at.saturating_sub(self.base) as usize;
        self.held.get(place(from)..place(to)).unwrap_or_default()
    }

    /// The next place where there is something to see, if its bytes are there.
    fn next_place(&self) -> Option<u64> {
        // Heads begin with a zero: longer frames are not in use unless agreed upon.
        let from = (self.seen + 1).saturating_sub(HEAD_BYTES as u64).max(self.base);
        let zero = memchr::memchr(0, self.bytes(from, self.end()));
        let head = zero.map(|at| from + at as u64 + HEAD_BYTES as u64);
        let of_chains = self.chains.iter().flat_map(|it| [it.next, it.next + HEAD_BYTES as u64]);
        let next = of_chains.filter(|at| *at > self.seen).chain(head).min()?;
        (next <= self.end()).then_some(next)
    }

    /// Looks at what has its last byte just before `seen`; gives the start of a chain that is sure.
    fn look(&mut self) -> Option<u64> {
        let seen = self.seen;
        let mut chains = std::mem::take(&mut self.chains);
        chains.retain(|chain| {
            if chain.next == seen {
                self.read_content(chain)
            } else if chain.next + HEAD_BYTES as u64 == seen {
                self.read_head(chain)
            } else {
                true
            }
        });
        let start = seen.saturating_sub(HEAD_BYTES as u64);
        let is_new = seen >= HEAD_BYTES as u64
            && start >= self.base
            && chains.len() < CHAINS_MAX
            && chains.iter().all(|chain| chain.start != start && !chain.passes(start));
        if is_new && let Some(head) = self.head(start) {
            let first = u32::from(start == 0);
            let mut chain = Chain { start, next: 0, points: first + points(&head), last: head };
            chain.next = seen + u64::from(head.length);
            if chain.next != seen || self.read_content(&mut chain) {
                chains.push(chain);
            }
        }
        self.chains = chains;
        let sure = self.chains.iter().filter(|chain| chain.points >= self.needed);
        sure.map(|chain| chain.start).min()
    }

    /// A plausible head at a place whose bytes are there.
    fn head(&self, at: u64) -> Option<Head> {
        let bytes = self.bytes(at, at + HEAD_BYTES as u64).first_chunk::<HEAD_BYTES>()?;
        is_plausible(bytes).then(|| Head::parse(bytes))
    }

    /// The chain goes on with a head; false when it does not.
    fn read_head(&self, chain: &mut Chain) -> bool {
        let Some(head) = self.head(chain.next) else { return false };
        // A header block is not interrupted (RFC 9113, 6.10).
        let goes_on = chain.last.has_block() && !chain.last.ends_headers();
        if goes_on != (head.kind == Kind::Continuation) {
            return false;
        }
        chain.points += points(&head);
        chain.last = head;
        chain.next += HEAD_BYTES as u64 + u64::from(head.length);
        if head.length == 0 && !self.read_content(chain) {
            return false;
        }
        chain.next - chain.start <= self.search_bytes_max
    }

    /// The content of the chain's last frame is there; false when it is none.
    fn read_content(&self, chain: &mut Chain) -> bool {
        let head = &chain.last;
        let content = self.bytes(chain.next - u64::from(head.length), chain.next);
        let Some((_, content)) = content.split_at_checked(head.fields_bytes()) else {
            return head.length == 0;
        };
        match head.kind {
            Kind::Settings => {
                let (settings, _) = content.as_chunks::<SETTING_BYTES>();
                settings.iter().all(|bytes| (1..=SETTING_ID_MAX).contains(&setting(bytes).0))
            }
            Kind::Headers if head.ends_headers() => {
                let padding = match head.is_padded() {
                    true => self.bytes(chain.next - u64::from(head.length), chain.next)[0],
                    false => 0,
                };
                let Some(length) = content.len().checked_sub(usize::from(padding)) else {
                    return false;
                };
                let reads = reads_as_block(&content[..length]);
                chain.points += u32::from(reads);
                reads
            }
            Kind::Data
            | Kind::Headers
            | Kind::Priority
            | Kind::ResetStream
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Other(_) => true,
        }
    }

    fn found(&mut self, start: u64, used: usize) -> Found {
        let held = std::mem::take(&mut self.held);
        // What comes after the place that decided is read as it comes.
        let end = self.seen;
        let mut pieces = Vec::new();
        let mut times = self.times.iter().peekable();
        while let Some((from, time)) = times.next() {
            let to = times.peek().map_or(end, |(next, _)| *next);
            let (from, to) = ((*from).clamp(start, end), to.clamp(start, end));
            let place = |at: u64| at.saturating_sub(self.base) as usize;
            if let Some(bytes) = held.get(place(from)..place(to)).filter(|it| !it.is_empty()) {
                pieces.push((*time, bytes.to_vec()));
            }
        }
        Found { pieces, skipped_bytes: start, used }
    }

    /// Lets go of bytes that no chain needs.
    fn trim(&mut self) {
        let tail = self.end().saturating_sub(HEAD_BYTES as u64 - 1);
        let needed = self.chains.iter().map(|chain| chain.start).min().unwrap_or(tail).min(tail);
        let spare = needed.saturating_sub(self.base) as usize;
        if spare == 0 {
            return;
        }
        self.held.drain(..spare.min(self.held.len()));
        self.base += spare as u64;
        if self.held.len() < HEAD_BYTES {
            self.held.shrink_to(HEAD_BYTES);
        }
        while self.times.get(1).is_some_and(|(next, _)| *next <= self.base) {
            self.times.pop_front();
        }
    }
}

impl Chain {
    /// Its last frame begins there.
    fn passes(&self, at: u64) -> bool {
        self.next == at + HEAD_BYTES as u64 + u64::from(self.last.length)
    }
}

/// What a head alone shows. Streams of the server have even numbers and are hardly in use any more;
/// numbers in other data often are even.
fn points(head: &Head) -> u32 {
    match head.kind {
        _ if head.stream != 0 && head.stream.is_multiple_of(2) => 0,
        Kind::Priority | Kind::ResetStream | Kind::Settings | Kind::Ping | Kind::WindowUpdate => 2,
        Kind::Data | Kind::Headers | Kind::PushPromise | Kind::GoAway | Kind::Continuation => 1,
        Kind::Other(_) => 0,
    }
}

/// Stricter than what a receiver must take: no reserved bits, no flags without meaning, no frame
/// without purpose.
fn is_plausible(bytes: &[u8; HEAD_BYTES]) -> bool {
    let head = Head::parse(bytes);
    let flags = match head.kind {
        Kind::Data => 0x09,
        Kind::Headers => 0x2d,
        Kind::Settings | Kind::Ping => 0x01,
        Kind::PushPromise => 0x0c,
        Kind::Continuation => 0x04,
        Kind::Priority | Kind::ResetStream | Kind::GoAway | Kind::WindowUpdate => 0,
        // ALTSVC (RFC 7838), ORIGIN (RFC 8336), PRIORITY_UPDATE (RFC 9218).
        Kind::Other(0x0a | 0x0c | 0x10) => 0,
        Kind::Other(_) => return false,
    };
    let has_purpose = match head.kind {
        Kind::Data => head.length > 0 || head.ends_stream(),
        Kind::Headers | Kind::PushPromise => head.length as usize > head.fields_bytes(),
        Kind::Settings => head.length <= 32 * SETTING_BYTES as u32,
        Kind::Priority
        | Kind::ResetStream
        | Kind::Ping
        | Kind::GoAway
        | Kind::WindowUpdate
        | Kind::Continuation
        | Kind::Other(_) => true,
    };
    has_purpose
        && bytes[5] & 0x80 == 0
        && head.flags & !flags == 0
        && head.check(CONTENT_BYTES_DEFAULT).is_ok()
}

/// Whether bytes can be a header block of which the table is not known.
fn reads_as_block(block: &[u8]) -> bool {
    let bounds =
        Bounds { table_bytes_max: block.len(), string_bytes_max: CONTENT_BYTES_DEFAULT as usize };
    let mut decoder = Decoder::new(bounds);
    decoder.forget();
    decoder.forget_allowed();
    let mut fields = 0;
    let names = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_graphic());
    let mut is_text = true;
    let read = decoder.decode(block, |field| {
        fields += 1;
        is_text &= field.name.is_none_or(names);
    });
    read.is_ok() && is_text && fields > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'h'];

    fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// Where the beginning is found, however the bytes come, and what came from there on.
    fn search(needed: u32, bytes: &[u8]) -> Option<usize> {
        let mut results = Vec::new();
        for size in [1, 2, 3, 7, 50, bytes.len().max(1)] {
            let mut resync = Resync::new(needed, 65_536);
            let mut at = 0;
            let found = bytes.chunks(size).enumerate().find_map(|(index, chunk)| {
                let found = resync.search(EventTime(index as u64), chunk);
                at += found.as_ref().map_or(chunk.len(), |found| found.used);
                found
            });
            results.push(found.map(|found| {
                let start = found.skipped_bytes as usize;
                let got: Vec<u8> = found.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
                assert!(bytes[start..].starts_with(&got) && start + got.len() >= at);
                (start, at)
            }));
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results[0].map(|(start, _)| start)
    }

    #[test]
    fn a_chain_is_found_behind_the_rest_of_a_body() {
        let get = frame(1, 5, 7, GET);
        let chain = [get.clone(), frame(8, 0, 0, &[0, 0, 1, 0]), get].concat();
        for lead in [0, 1, 8, 9, 10, 300] {
            let body: Vec<u8> =
                b"{\"price\": 1.5}\0\0\x01".iter().copied().cycle().take(lead).collect();
            let bytes = [&body[..], &chain].concat();
            assert_eq!(search(SURE, &bytes), Some(lead));
            assert_eq!(search(DOUBTFUL, &bytes), Some(lead));
        }
    }

    #[test]
    fn at_the_beginning_one_header_block_is_enough_where_http2_is_known() {
        let get = frame(1, 5, 7, GET);
        assert_eq!(search(SURE, &get), Some(0));
        assert_eq!(search(DOUBTFUL, &get), None);
        let mut resync = Resync::new(DOUBTFUL, 65_536);
        assert!(resync.search(EventTime(0), &get).is_none());
        assert_eq!(resync.relent().unwrap().pieces, [(EventTime(0), get)]);
    }

    #[test]
    fn other_bytes_are_not_taken_for_frames() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":[]} ".repeat(50);
        assert_eq!(search(SURE, &text), None);
        assert_eq!(search(SURE, &[0; 5000]), None);
        let words: Vec<u8> = (0..2000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(search(SURE, &words), None);
        let words: Vec<u8> = (0..2000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(search(SURE, &words), None);
        // A good chain that is broken off.
        let bytes = [frame(0, 0, 1, b"abc"), b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat();
        assert_eq!(search(SURE, &bytes), None);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut resync = Resync::new(DOUBTFUL, 65_536);
        for _ in 0..1000 {
            assert!(resync.search(EventTime(0), &[b'x'; 1000]).is_none());
            assert!(resync.held_bytes() < 5000);
        }
        let lead = frame(0, 0, 1, &[b'x'; 16_000]);
        for _ in 0..3 {
            resync.search(EventTime(0), &lead[..10]);
            resync.search(EventTime(0), &[b'y'; 16_000]);
            assert!(resync.held_bytes() < 200_000);
        }
    }
}
