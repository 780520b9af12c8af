//! Where FIX messages begin and end (FIX Session Layer, 4.2: BeginString, BodyLength, CheckSum).
//!
//! A message that comes in one piece is read where it lies. Of another the beginning is kept, up to
//! [`MESSAGE_BYTES_MAX`]; its checksum is added up as it passes.

use memchr::memchr;

use crate::call::Anomalies;
use crate::time::EventTime;

/// Field separator.
pub(super) const SOH: u8 = 1;

/// Bytes of a message that are kept: orders have 200 to 400, the longest logon 4 KiB.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// A body that is longer is none: servers cut the line at 64 KiB or less; data sets have more.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// `8=FIXT.1.1|9=16777216|`, with room for a version that is longer.
const HEAD_BYTES_MAX: usize = 48;

/// `10=000|`
const TRAILER_BYTES: usize = 7;

/// How every message begins.
const START: &[u8] = b"8=FIX";

/// One message.
#[derive(Debug)]
pub(super) struct Frame<'b> {
    /// First byte.
    pub(super) time: EventTime,
    /// Last byte.
    pub(super) last: EventTime,
    /// The beginning of it, without its trailer.
    pub(super) bytes: &'b [u8],
    /// All of it, trailer and all.
    pub(super) length: u64,
    pub(super) anomalies: Anomalies,
    /// All of it was seen, and is in `bytes`.
    pub(super) complete: bool,
}

/// Reads the messages of one direction.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// The message so far.
    kept: Vec<u8>,
    time: EventTime,
    sum: u8,
    length: u64,
    notes: Anomalies,
    gap: bool,
    pub(super) skipped_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a message or in its first two fields.
    #[default]
    Head,
    /// In its body: so many bytes follow.
    Body(u64),
    /// In its trailer, of which so many bytes were taken.
    Trailer { bytes: [u8; TRAILER_BYTES], taken: usize },
    /// Not known where: the next beginning is looked for.
    Search,
}

/// What a piece of text is the head of.
enum Head {
    More,
    /// So many bytes, and then a body of that many.
    Is {
        bytes: usize,
        body: u64,
    },
    Bad,
}

impl Reader {
    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// Adds to the message under way, or to the next.
    pub(super) fn note(&mut self, what: Anomalies) {
        self.notes |= what;
    }

    /// Takes bytes from the beginning of `chunk`; a message is given to `give` when it is whole.
    pub(super) fn read(
        &mut self,
        time: EventTime,
        mut chunk: &[u8],
        mut give: impl FnMut(Frame<'_>),
    ) {
        while !chunk.is_empty() {
            chunk = match self.state {
                State::Head => match self.at_once(time, chunk, &mut give) {
                    Some(rest) => rest,
                    None => self.head(time, chunk),
                },
                State::Body(left) => self.body(left, chunk),
                State::Trailer { bytes, taken } => {
                    self.trailer(time, bytes, taken, chunk, &mut give)
                }
                State::Search => self.search(time, chunk),
            };
        }
    }

    /// A message that is whole in the chunk; what follows it.
    fn at_once<'c>(
        &mut self,
        time: EventTime,
        chunk: &'c [u8],
        give: &mut impl FnMut(Frame<'_>),
    ) -> Option<&'c [u8]> {
        if !self.kept.is_empty() {
            return None;
        }
        let Head::Is { bytes, body } = head(chunk) else { return None };
        let end = bytes + usize::try_from(body).ok()?;
        let trailer = chunk.get(end..end + TRAILER_BYTES)?;
        let sum = chunk[..end].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let (odd, whole) = check(trailer, sum);
        if !whole {
            return None;
        }
        let kept = end.min(MESSAGE_BYTES_MAX);
        give(Frame {
            time,
            last: time,
            bytes: &chunk[..kept],
            length: (end + TRAILER_BYTES) as u64,
            anomalies: odd | std::mem::take(&mut self.notes),
            complete: kept == end,
        });
        Some(&chunk[end + TRAILER_BYTES..])
    }

    /// A byte at a time: where it turns out to be no head, no more than a part of another beginning
    /// can have been taken.
    fn head<'c>(&mut self, time: EventTime, chunk: &'c [u8]) -> &'c [u8] {
        if self.kept.is_empty() {
            self.time = time;
        }
        for (at, byte) in chunk.iter().enumerate() {
            self.kept.push(*byte);
            match head(&self.kept) {
                Head::More => {}
                Head::Is { bytes, body } => {
                    self.sum = self.kept.iter().fold(0, |sum, byte| sum.wrapping_add(*byte));
                    self.length = bytes as u64;
                    self.state = match body {
                        0 => State::Trailer { bytes: [0; TRAILER_BYTES], taken: 0 },
                        body => State::Body(body),
                    };
                    return &chunk[at + 1..];
                }
                Head::Bad => {
                    let tail = partial(&self.kept[1..]);
                    self.skipped_bytes += (self.kept.len() - tail) as u64;
                    self.notes |= Anomalies::BAD_FRAME;
                    self.kept.truncate(tail);
                    self.kept.copy_from_slice(&START[..tail]);
                    self.time = time;
                    self.state = State::Search;
                    return &chunk[at + 1..];
                }
            }
        }
        &[]
    }

    fn body<'c>(&mut self, left: u64, chunk: &'c [u8]) -> &'c [u8] {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let taken = &chunk[..count];
        self.sum = taken.iter().fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
        self.length += count as u64;
        let room = MESSAGE_BYTES_MAX.saturating_sub(self.kept.len()).min(count);
        if !self.gap {
            self.kept.extend_from_slice(&taken[..room]);
        }
        let left = left - count as u64;
        self.state = if left > 0 {
            State::Body(left)
        } else {
            State::Trailer { bytes: [0; TRAILER_BYTES], taken: 0 }
        };
        &chunk[count..]
    }

    fn trailer<'c>(
        &mut self,
        time: EventTime,
        mut bytes: [u8; TRAILER_BYTES],
        taken: usize,
        chunk: &'c [u8],
        give: &mut impl FnMut(Frame<'_>),
    ) -> &'c [u8] {
        let count = (TRAILER_BYTES - taken).min(chunk.len());
        bytes[taken..taken + count].copy_from_slice(&chunk[..count]);
        let taken = taken + count;
        if taken < TRAILER_BYTES {
            self.state = State::Trailer { bytes, taken };
            return &chunk[count..];
        }
        let (mut odd, whole) = check(&bytes, self.sum);
        if self.gap {
            odd -= Anomalies::BAD_CHECKSUM;
        }
        let beginning = self.length <= self.kept.len() as u64;
        let more = if whole { TRAILER_BYTES as u64 } else { 0 };
        self.give(time, more, odd, whole && beginning && !self.gap, give);
        self.state = if whole { State::Head } else { State::Search };
        // The length was wrong: what stands where the trailer should be may begin a message, and is
        // too short to hold the head of one.
        let mut rest = if whole { &[][..] } else { &bytes[..] };
        while !rest.is_empty() {
            rest = match self.state {
                State::Head => self.head(time, rest),
                State::Search | State::Body(_) | State::Trailer { .. } => self.search(time, rest),
            };
        }
        &chunk[count..]
    }

    fn give(
        &mut self,
        last: EventTime,
        more: u64,
        odd: Anomalies,
        complete: bool,
        give: &mut impl FnMut(Frame<'_>),
    ) {
        let kept = std::mem::take(&mut self.kept);
        give(Frame {
            time: self.time,
            last,
            bytes: &kept,
            length: self.length + more,
            anomalies: odd | std::mem::take(&mut self.notes),
            complete,
        });
        self.gap = false;
    }

    /// Looks for the next beginning, of which `kept` is the part that was seen.
    fn search<'c>(&mut self, time: EventTime, chunk: &'c [u8]) -> &'c [u8] {
        let mut rest = chunk;
        while let Some(byte) = rest.first() {
            let matched = self.kept.len();
            if *byte == START[matched] {
                if matched == 0 {
                    self.time = time;
                }
                self.kept.push(*byte);
                rest = &rest[1..];
                if self.kept.len() == START.len() {
                    self.state = State::Head;
                    return rest;
                }
            } else if matched > 0 {
                // Its first byte stands nowhere else in it.
                self.skipped_bytes += matched as u64;
                self.kept.clear();
            } else {
                let next = memchr(START[0], rest).unwrap_or(rest.len());
                self.skipped_bytes += next as u64;
                rest = &rest[next..];
            }
        }
        rest
    }

    /// Bytes are missing. Gives what there is of a message of which the end is not known any more.
    pub(super) fn gap(&mut self, time: EventTime, bytes: u64, mut give: impl FnMut(Frame<'_>)) {
        match self.state {
            State::Body(left) if bytes <= left => {
                self.gap = true;
                self.notes |= Anomalies::GAP;
                self.length += bytes;
                self.state = if bytes == left {
                    State::Trailer { bytes: [0; TRAILER_BYTES], taken: 0 }
                } else {
                    State::Body(left - bytes)
                };
            }
            State::Body(_) | State::Trailer { .. } => {
                self.give(time, 0, Anomalies::GAP, false, &mut give);
                self.state = State::Search;
            }
            State::Head | State::Search => {
                self.skipped_bytes += self.kept.len() as u64;
                self.kept.clear();
                self.notes |= Anomalies::GAP;
                self.state = State::Search;
            }
        }
    }

    /// Nothing follows: what there is of a message.
    pub(super) fn finish(&mut self, mut give: impl FnMut(Frame<'_>)) {
        match self.state {
            State::Body(_) | State::Trailer { .. } => {
                let time = self.time;
                self.give(time, 0, Anomalies::TRUNCATED, false, &mut give);
            }
            State::Head | State::Search => self.skipped_bytes += self.kept.len() as u64,
        }
        self.kept = Vec::new();
        self.state = State::Search;
    }
}

/// Whether a text is the beginning of a message.
fn head(text: &[u8]) -> Head {
    let known = text.len().min(START.len());
    if text[..known] != START[..known] {
        return Head::Bad;
    }
    let text = &text[..text.len().min(HEAD_BYTES_MAX)];
    let more = if text.len() < HEAD_BYTES_MAX { Head::More } else { Head::Bad };
    let version = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
    let end = START.len().min(text.len());
    let end = end + text[end..].iter().take_while(|byte| version(byte)).count();
    match text.get(end) {
        None => return more,
        Some(&SOH) => {}
        Some(_) => return Head::Bad,
    }
    let rest = &text[end + 1..];
    let known = rest.len().min(2);
    if rest[..known] != b"9="[..known] {
        return Head::Bad;
    }
    let digits = &rest[known..];
    let digits = &digits[..digits.iter().take_while(|byte| byte.is_ascii_digit()).count()];
    match rest.get(known + digits.len()) {
        None => return more,
        Some(&SOH) => {}
        Some(_) => return Head::Bad,
    }
    match std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
        Some(body @ 0..=BODY_BYTES_MAX) => {
            Head::Is { bytes: end + 1 + known + digits.len() + 1, body }
        }
        Some(_) | None => Head::Bad,
    }
}

/// How many bytes at the end may begin a message.
fn partial(text: &[u8]) -> usize {
    (1..START.len()).rev().find(|count| text.ends_with(&START[..*count])).unwrap_or(0)
}

/// What is odd about a trailer, and whether it is one.
fn check(trailer: &[u8], sum: u8) -> (Anomalies, bool) {
    let is_one = trailer.starts_with(b"10=")
        && trailer.ends_with(&[SOH])
        && trailer[3..6].iter().all(u8::is_ascii_digit);
    if !is_one {
        return (Anomalies::BAD_FRAME, false);
    }
    let value = trailer[3..6].iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let odd = if value == u16::from(sum) { Anomalies::empty() } else { Anomalies::BAD_CHECKSUM };
    (odd, true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::message;
    use super::*;

    /// Messages (beginning, length, oddities, whole) and skipped bytes, the same however cut.
    type Seen = (Vec<(String, u64, Anomalies, bool)>, u64);

    fn read(bytes: &[u8], step: usize) -> Seen {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        let mut give = |frame: Frame<'_>| {
            let text = String::from_utf8_lossy(frame.bytes).replace('\u{1}', "|");
            seen.push((text, frame.length, frame.anomalies, frame.complete));
        };
        for piece in bytes.chunks(step.max(1)) {
            reader.read(EventTime(1), piece, &mut give);
            assert!(reader.held_bytes() <= 2 * MESSAGE_BYTES_MAX);
        }
        reader.finish(&mut give);
        (seen, reader.skipped_bytes)
    }

    fn same(bytes: &[u8]) -> Seen {
        let whole = read(bytes, bytes.len());
        for step in [1, 2, 3, 7, 50] {
            assert_eq!(read(bytes, step), whole, "{step}");
        }
        whole
    }

    #[test]
    fn messages_are_told_apart() {
        let two = [message("FIX.4.4", "35=0|34=1|"), message("FIXT.1.1", "35=1|112=a|")].concat();
        let (seen, skipped) = same(&two);
        assert_eq!(skipped, 0);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].0, "8=FIX.4.4|9=10|35=0|34=1|");
        assert_eq!((seen[0].1, seen[0].2, seen[0].3), (32, Anomalies::empty(), true));
        assert_eq!(seen[1].0, "8=FIXT.1.1|9=11|35=1|112=a|");
    }

    #[test]
    fn a_wrong_sum_is_named_and_a_wrong_length_is_left_behind() {
        let mut one = message("FIX.4.2", "35=0|");
        let at = one.len() - 2;
        one[at] = if one[at] == b'0' { b'1' } else { b'0' };
        let (seen, _) = same(&one);
        assert_eq!((seen[0].2, seen[0].3), (Anomalies::BAD_CHECKSUM, true));
        let wrong = b"8=FIX.4.2\x019=7\x0135=0\x0134=9\x0110=000\x01".to_vec();
        let (seen, _) = same(&[wrong, message("FIX.4.2", "35=5|")].concat());
        assert!(seen[0].2.contains(Anomalies::BAD_FRAME) && !seen[0].3, "{seen:?}");
        let last = seen.last().unwrap();
        assert_eq!((last.0.as_str(), last.3), ("8=FIX.4.2|9=5|35=5|", true));
    }

    #[test]
    fn what_is_no_message_is_skipped() {
        let bytes =
            [b"hello 8=FI 8=FIX.4.4\x01x".as_slice(), &message("FIX.4.4", "35=0|")].concat();
        let (seen, skipped) = same(&bytes);
        assert_eq!((seen.len(), skipped), (1, 22));
        let long = [b"8=FIX".as_slice(), &[b'4'; 100], &message("FIX.4.4", "35=0|")].concat();
        assert_eq!(same(&long).0.len(), 1);
        let huge = b"8=FIX.4.4\x019=99999999999999999999\x01".to_vec();
        assert_eq!(same(&[huge, message("FIX.4.4", "35=0|")].concat()).0.len(), 1);
    }

    #[test]
    fn of_a_long_message_the_beginning_is_kept() {
        let body = format!("35=B|58={}|", "x".repeat(20_000));
        let (seen, _) = same(&message("FIX.4.4", &body));
        assert_eq!(
            (seen[0].0.len(), seen[0].2, seen[0].3),
            (MESSAGE_BYTES_MAX, Anomalies::empty(), false)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_however_cut(
            bytes in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(&b"8=FIX.4|9=1 03\x01"[..]).prop_map(|byte| vec![byte]),
                    Just(message("FIX.4.4", "35=D|11=a|")),
                    Just(b"8=FIX.4.4\x019=5\x01".to_vec()),
                    Just(b"10=0".to_vec()),
                ],
                0..20,
            ),
            step in 1_usize..20,
        ) {
            let bytes = bytes.concat();
            prop_assert_eq!(read(&bytes, step), read(&bytes, bytes.len()));
        }
    }
}
