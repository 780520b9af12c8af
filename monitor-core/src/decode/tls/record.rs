//! Records out of bytes (RFC 8446, 5.1), and where the next one begins after bytes that are missing.

use crate::time::EventTime;

/// What is in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
    /// RFC 6520, and numbers that nobody has given out.
    Other,
    /// A message of SSL 2, without the length before it.
    Ssl2,
}

impl Kind {
    /// From the byte in the header, or at the end of the plaintext in TLS 1.3.
    pub(super) fn of(byte: u8) -> Kind {
        match byte {
            20 => Kind::ChangeCipherSpec,
            21 => Kind::Alert,
            22 => Kind::Handshake,
            23 => Kind::ApplicationData,
            _ => Kind::Other,
        }
    }
}

/// A whole record.
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Header and body.
    pub(super) bytes: Vec<u8>,
    /// When its first byte came.
    pub(super) first: EventTime,
    /// It was searched for: perhaps it is none.
    pub(super) uncertain: bool,
}

/// What reading came to.
pub(super) enum Read {
    /// The bytes are used up.
    More,
    /// A record is whole.
    Record(Record),
    /// What stands where a record should begin is none. The next one is searched for.
    Astray,
}

/// Of a gap: what is known to be missing.
pub(super) struct Hole {
    /// A record whose length is known, and how long its body is.
    pub(super) body: Option<(Kind, usize)>,
    /// Bytes beyond it: nobody knows where the next record begins.
    pub(super) beyond: u64,
}

/// Cuts one direction into records.
#[derive(Default)]
pub(super) struct Records {
    /// Bytes that wait for the rest of their record, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    /// Bytes of a broken record that are still to come.
    skip: usize,
    /// Where the next record begins is not known.
    astray: bool,
    /// Bytes since the last record, with what is missing.
    passed_bytes: u64,
    /// When the first byte of the record under way came.
    first: EventTime,
}

/// Header of a record.
pub(super) const HEADER_BYTES: usize = 5;
/// The largest body (RFC 5246, 6.2.3).
const BODY_BYTES_MAX: usize = (1 << 14) + 2048;
/// Bytes before `at` that are worth being moved.
const COMPACT_BYTES: usize = 4096;

impl Records {
    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes that were passed over since the last record that was right, with those missing.
    pub(super) fn passed_bytes(&self) -> u64 {
        self.passed_bytes
    }

    /// The last record was right: the next begins behind it.
    pub(super) fn confirm(&mut self) {
        self.astray = false;
        self.passed_bytes = 0;
    }

    /// The last record was none: searches on from its second byte.
    pub(super) fn reject(&mut self, record: Record) {
        let mut bytes = record.bytes;
        bytes.extend(&self.buffer[self.at..]);
        (self.buffer, self.at) = (bytes, 1);
        self.astray = true;
        self.passed_bytes += 1;
    }

    /// Takes from `chunk` up to the end of a record. `ssl2`: it may be a hello of SSL 2.
    pub(super) fn read(&mut self, time: EventTime, chunk: &mut &[u8], ssl2: bool) -> Read {
        let skipped = self.skip.min(chunk.len());
        self.skip -= skipped;
        *chunk = &chunk[skipped..];
        loop {
            if self.waiting().is_empty() {
                self.first = time;
            }
            if ssl2 && self.has(2, chunk) && self.waiting()[0] & 0x80 != 0 {
                return self.read_ssl2(chunk);
            }
            if self.buffer.is_empty()
                && let Some((_, body)) = header(chunk)
            {
                self.buffer.reserve_exact(HEADER_BYTES + body);
            }
            if !self.has(HEADER_BYTES, chunk) {
                return self.more();
            }
            let Some((kind, body)) = header(self.waiting()) else {
                let known = !std::mem::replace(&mut self.astray, true);
                self.pass(1);
                if known {
                    return Read::Astray;
                }
                continue;
            };
            if !self.has(HEADER_BYTES + body, chunk) {
                return self.more();
            }
            let bytes = self.take(HEADER_BYTES + body);
            return Read::Record(Record { kind, bytes, first: self.first, uncertain: self.astray });
        }
    }

    fn read_ssl2(&mut self, chunk: &mut &[u8]) -> Read {
        let [high, low, ..] = *self.waiting() else { return Read::More };
        let body = usize::from(u16::from_be_bytes([high & 0x7f, low]));
        if !self.has(2 + body, chunk) {
            return Read::More;
        }
        let mut bytes = self.take(2 + body);
        bytes.drain(..2);
        Read::Record(Record { kind: Kind::Ssl2, bytes, first: self.first, uncertain: false })
    }

    /// Bytes are missing.
    pub(super) fn gap(&mut self, bytes: u64) -> Hole {
        let mut beyond = bytes;
        let mut body = None;
        if self.skip > 0 {
            beyond = self.leave_out(self.skip, bytes);
        } else if !self.astray && self.waiting().len() >= HEADER_BYTES {
            body = header(self.waiting());
            let bytes_of_body = body.map_or(0, |(_, bytes)| bytes);
            let rest = (HEADER_BYTES + bytes_of_body).saturating_sub(self.waiting().len());
            self.drop_waiting();
            beyond = self.leave_out(rest, bytes);
        }
        if beyond > 0 {
            self.astray = true;
            let waiting = self.waiting().len() as u64;
            self.passed_bytes = self.passed_bytes.saturating_add(waiting + beyond);
            self.drop_waiting();
        }
        Hole { body, beyond }
    }

    /// `missing` of the `rest` of a record do not come; gives what is missing beyond it.
    fn leave_out(&mut self, rest: usize, missing: u64) -> u64 {
        let within = missing.min(rest as u64);
        self.skip = rest - usize::try_from(within).unwrap_or(rest);
        missing - within
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Whether so many bytes wait, once what is missing of them was taken from `chunk`.
    fn has(&mut self, bytes: usize, chunk: &mut &[u8]) -> bool {
        let missing = bytes.saturating_sub(self.waiting().len()).min(chunk.len());
        if missing > 0 {
            self.buffer.extend_from_slice(&chunk[..missing]);
            *chunk = &chunk[missing..];
        }
        self.waiting().len() >= bytes
    }

    /// Passes over bytes that are no record.
    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.passed_bytes += bytes as u64;
        if self.at == self.buffer.len() || self.at >= COMPACT_BYTES {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        if self.at == 0 && self.buffer.len() == bytes {
            return std::mem::take(&mut self.buffer);
        }
        let taken = self.waiting()[..bytes].to_vec();
        self.at += bytes;
        if self.at == self.buffer.len() {
            self.drop_waiting();
        }
        taken
    }

    fn more(&mut self) -> Read {
        if self.waiting().is_empty() {
            self.drop_waiting();
        }
        Read::More
    }

    fn drop_waiting(&mut self) {
        (self.buffer, self.at) = (Vec::new(), 0);
    }
}

/// Kind and length of a record, when it looks like one.
fn header(bytes: &[u8]) -> Option<(Kind, usize)> {
    let [kind @ 20..=24, 3, 0..=4, high, low, ..] = *bytes else { return None };
    let body = usize::from(u16::from_be_bytes([high, low]));
    (body <= BODY_BYTES_MAX).then(|| (Kind::of(kind), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 3, 3, length[0], length[1]], body].concat()
    }

    /// Bodies of the records in `bytes`, cut into chunks; `!` where it went astray. All are right.
    fn bodies(records: &mut Records, bytes: &[u8], step: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for mut chunk in bytes.chunks(step) {
            loop {
                match records.read(EventTime(1), &mut chunk, false) {
                    Read::More => break,
                    Read::Astray => seen.push("!".to_owned()),
                    Read::Record(record) => {
                        let body = String::from_utf8_lossy(&record.bytes[HEADER_BYTES..]);
                        seen.push(format!("{body}{}", if record.uncertain { "?" } else { "" }));
                        records.confirm();
                    }
                }
            }
            assert!(chunk.is_empty());
        }
        seen
    }

    #[test]
    fn any_cut_gives_the_same_records() {
        let bytes = [record(22, b"one"), record(23, b""), record(23, b"three"), record(21, b"4")];
        for step in 1..30 {
            let mut records = Records::default();
            assert_eq!(bodies(&mut records, &bytes.concat(), step), ["one", "", "three", "4"]);
            assert_eq!(records.held_bytes(), 0);
        }
    }

    #[test]
    fn a_gap_within_a_record_costs_that_record() {
        let bytes = [record(23, b"one two three"), record(23, b"four")].concat();
        for (from, to) in [(5, 6), (6, 18), (7, 9), (5, 18)] {
            let mut records = Records::default();
            assert!(bodies(&mut records, &bytes[..from], 3).is_empty());
            let hole = records.gap((to - from) as u64);
            assert_eq!((hole.body, hole.beyond), (Some((Kind::ApplicationData, 13)), 0));
            assert_eq!(bodies(&mut records, &bytes[to..], 2), ["four"]);
            assert_eq!(records.passed_bytes(), 0);
        }
    }

    #[test]
    fn a_gap_over_a_boundary_is_searched_behind() {
        let bytes = [record(23, b"one"), record(23, b"two"), record(23, b"three")].concat();
        for (from, to, known) in [(3, 4, false), (0, 9, false), (6, 9, true), (7, 12, true)] {
            for step in 1..20 {
                let mut records = Records::default();
                assert!(bodies(&mut records, &bytes[..from], 1).is_empty());
                let hole = records.gap((to - from) as u64);
                assert_eq!((hole.body.is_some(), hole.beyond > 0), (known, true), "{from}");
                let rest = bodies(&mut records, &bytes[to..], step);
                let expected: &[&str] = if to > 8 { &["three?"] } else { &["two?", "three"] };
                assert_eq!(rest, expected, "{from}..{to} by {step}");
            }
        }
    }

    #[test]
    fn what_is_no_record_is_searched_from_its_second_byte() {
        let false_start = [&[0x17, 3, 3, 0, 12][..], &record(23, b"yes"), b"tail"].concat();
        let mut records = Records::default();
        records.gap(1);
        let mut chunk = &false_start[..];
        let Read::Record(wrong) = records.read(EventTime(1), &mut chunk, false) else { panic!() };
        assert!(wrong.uncertain);
        records.reject(wrong);
        let Read::Record(right) = records.read(EventTime(1), &mut chunk, false) else { panic!() };
        assert_eq!(right.bytes[HEADER_BYTES..], *b"yes");
        assert_eq!(records.passed_bytes(), 6, "one missing, five of the false header");
        records.confirm();
        assert!(matches!(records.read(EventTime(1), &mut chunk, false), Read::Astray | Read::More));
    }

    #[test]
    fn other_bytes_are_passed_over() {
        let bytes = [b"SSH-2.0-nothing\r\n".to_vec(), record(23, b"then"), record(23, b"on")];
        for step in 1..30 {
            let mut records = Records::default();
            assert_eq!(bodies(&mut records, &bytes.concat(), step), ["!", "then?", "on"]);
        }
        let mut records = Records::default();
        let noise = vec![0xff; 100_000];
        assert_eq!(bodies(&mut records, &noise, 1460), ["!"]);
        assert!(records.held_bytes() < 20_000);
    }
}
