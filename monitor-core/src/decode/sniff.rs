//! What a connection speaks, from the first bytes of either side.

use super::proxied::Version;
use crate::call::Anomalies;
use crate::input::Direction;
use crate::time::EventTime;

/// Bytes that decide: `OPTIONS ` and `HTTP/1.1` are eight.
const START_BYTES: usize = 8;

/// First bytes of both sides, 0 and 1, until there are enough.
#[derive(Default)]
pub(super) struct Sniff {
    /// `None` when nothing came, or the first of it decided.
    sides: Option<Box<[Start; 2]>>,
}

#[derive(Default, Clone, Copy)]
struct Start {
    bytes: [u8; START_BYTES],
    count: usize,
    time: EventTime,
    missing_bytes: u64,
    notes: Anomalies,
}

/// What first bytes look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// A method.
    Request,
    /// A word in capitals, and no target so far: a method that few have, or what another protocol asks for.
    Command,
    /// An HTTP/1 status line.
    Response,
    /// The preface of an HTTP/2 client (RFC 9113, 3.4).
    Preface,
    /// Settings, which an HTTP/2 server sends first.
    Settings,
    /// A TLS handshake, or a record from within a TLS connection; which way a hello goes.
    Tls(Option<Direction>),
    /// `8=FIX`
    Fix,
    /// A message of FIX in its binary encoding.
    Sbe,
    /// The header of a proxy in front; of its second version what follows the line ends.
    Proxy(Version),
    /// None of these.
    Other,
}

impl Sniff {
    /// Takes bytes of one side. Says what its start looks like once that can be told; the bytes taken
    /// before must then be had from [`Sniff::start`], and `bytes` are what follows them: without empty
    /// lines at the start, which may come before a request (RFC 9112, 2.2) and begin nothing else.
    pub(super) fn look(&mut self, side: usize, time: EventTime, bytes: &mut &[u8]) -> Option<Look> {
        let mut known = self.side(side);
        if known.count == 0 {
            known.time = time;
            let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let empty = bytes.iter().take_while(|byte| line_end(byte)).count();
            *bytes = &bytes[empty..];
        }
        for byte in *bytes {
            known.bytes[known.count] = *byte;
            known.count += 1;
            // The shortest request of HTTP/0.9 is a line of seven (RFC 1945, 4.1).
            if *byte == b'\n' && known.bytes.starts_with(b"GET /") {
                return Some(Look::Request);
            }
            if known.count == START_BYTES {
                return Some(look(&known.bytes));
            }
        }
        if known.count > 0 {
            self.sides.get_or_insert_default()[side] = known;
        }
        None
    }

    /// The bytes that were taken and did not decide.
    pub(super) fn start(&self, side: usize) -> (EventTime, &[u8]) {
        match &self.sides {
            Some(sides) => (sides[side].time, &sides[side].bytes[..sides[side].count]),
            None => (EventTime::default(), &[]),
        }
    }

    /// Bytes of one side are missing.
    pub(super) fn gap(&mut self, side: usize, bytes: u64) {
        let start = &mut self.sides.get_or_insert_default()[side];
        let missing_bytes = start.missing_bytes.saturating_add(bytes);
        *start = Start { missing_bytes, notes: start.notes, ..Start::default() };
    }

    /// Something is odd about the first message of one side.
    pub(super) fn note(&mut self, side: usize, what: Anomalies) {
        if !what.is_empty() {
            self.sides.get_or_insert_default()[side].notes |= what;
        }
    }

    /// What is.
    pub(super) fn notes(&self, side: usize) -> Anomalies {
        self.side(side).notes
    }

    /// Bytes of one side that were missing.
    pub(super) fn missing_bytes(&self, side: usize) -> u64 {
        self.side(side).missing_bytes
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.sides.as_ref().map_or(0, |_| size_of::<[Start; 2]>())
    }

    fn side(&self, side: usize) -> Start {
        self.sides.as_ref().map_or_else(Start::default, |sides| sides[side])
    }
}

fn look(start: &[u8; START_BYTES]) -> Look {
    match start {
        b"HTTP/1.0" | b"HTTP/1.1" => Look::Response,
        b"PRI * HT" => Look::Preface,
        // A short frame of settings, for the connection (RFC 9113, 4.1 and 6.5).
        [0, 0, 0..=96, 4, 0, 0, 0, 0] if start[2].is_multiple_of(6) => Look::Settings,
        [b'8', b'=', b'F', b'I', b'X', ..] => Look::Fix,
        b"PROXY TC" | b"PROXY UN" => Look::Proxy(Version::One),
        b"\0\r\nQUIT\n" => Look::Proxy(Version::Two),
        // Length, then SBE in either byte order (FIX Simple Open Framing Header, 1.0).
        [0, 0, _, _, 0xeb, 0x50, ..] | [0, 0, _, _, 0x5b, 0xe0, ..] => Look::Sbe,
        // Content type and version of a record (RFC 8446, 5.1).
        [0x16, 3, 0..=4, _, _, 1, ..] => Look::Tls(Some(Direction::ToServer)),
        [0x16, 3, 0..=4, _, _, 2, ..] => Look::Tls(Some(Direction::ToClient)),
        [0x14..=0x17, 3, 0..=4, ..] => Look::Tls(None),
        // A hello of SSL 2, for that or for more (RFC 5246, E.2): length, type, version.
        [0x80..=0xff, _, 1, 3, 0..=3, ..] | [0x80..=0xff, _, 1, 0, 2, 0, ..] => {
            Look::Tls(Some(Direction::ToServer))
        }
        _ => {
            // Space before a method is a fault that servers may pass over.
            let start = start.trim_ascii_start();
            let space = |byte: &u8| matches!(byte, b' ' | b'\t');
            let (method, target) = match start.iter().position(space) {
                Some(end) => (&start[..end], start[end..].trim_ascii_start()),
                None => (start, &b""[..]),
            };
            let is_named = !method.is_empty()
                && method.iter().all(|b| b.is_ascii_alphabetic() || b"-_".contains(b));
            // Other protocols have words in lower case too: what follows must be a target.
            let is_upper = !method.iter().any(u8::is_ascii_lowercase);
            let is_target = matches!(target, [b'/' | b'*', ..] | [b'h', b't', ..]);
            let is_command = method.len() == START_BYTES || !target.is_empty();
            match (is_named, is_target, is_upper) {
                (true, true, _) => Look::Request,
                (true, false, true) if is_command => Look::Command,
                (true, false, true) => Look::Request,
                (true, false, false) | (false, ..) => Look::Other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        let cases: [(&[u8], Look); 28] = [
            (b"GET /\r\n", Look::Request),
            (b"GET / HTTP/1.1", Look::Request),
            (b"\r\n\r\nOPTIONS *", Look::Request),
            (b"PROPFIND /", Look::Command),
            (b"MKCOL /a HTTP", Look::Request),
            (b"STARTTLS\r\n", Look::Command),
            (b"AUTH TLS\r\n", Look::Command),
            (b"HTTP/1.1 200 OK", Look::Response),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", Look::Tls(Some(Direction::ToServer))),
            (b"\x16\x03\x03\x00\x5a\x02\x00\x00", Look::Tls(Some(Direction::ToClient))),
            (b"\x17\x03\x03\x00\x5a\x02\x00\x00", Look::Tls(None)),
            (b"\x80\x2e\x01\x03\x01\x00\x15\x00", Look::Tls(Some(Direction::ToServer))),
            (b"SSH-2.0-x", Look::Other),
            (b"8=FIX.4.4", Look::Fix),
            (b"\0\0\x01\0\xeb\x50\x10\0", Look::Sbe),
            (b"PRI * HTTP/2.0", Look::Preface),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", Look::Settings),
            (b"\0\0\0\x04\0\0\0\0\0", Look::Settings),
            (b"\0\0\x11\x04\0\0\0\0\0", Look::Other),
            (b" GET / HTTP", Look::Request),
            (b"get / HTTP/1.1", Look::Request),
            (b"get key\r\n", Look::Other),
            (b"        ", Look::Other),
            (b"GET\t/ HTTP", Look::Request),
            (b"PROXY TCP4 ", Look::Proxy(Version::One)),
            (b"PROXY UNKNOWN\r\n", Look::Proxy(Version::One)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Look::Proxy(Version::Two)),
            (b"PROXY / HTTP/1.1", Look::Request),
        ];
        for (bytes, expected) in cases {
            for step in 1..=bytes.len() {
                let mut sniff = Sniff::default();
                let mut chunks = bytes.chunks(step);
                let look = chunks.find_map(|mut chunk| sniff.look(0, EventTime(1), &mut chunk));
                assert_eq!(look, Some(expected), "{bytes:?} by {step}");
            }
        }
        assert_eq!(Sniff::default().look(0, EventTime(1), &mut &b"GET / H"[..]), None);
    }

    #[test]
    fn empty_lines_are_no_start_however_they_are_cut() {
        for step in 1..=20 {
            let mut sniff = Sniff::default();
            let mut seen = Vec::new();
            for mut chunk in b"\r\n\nHTTP/1.1 200 OK\r\n".chunks(step) {
                if sniff.look(0, EventTime(1), &mut chunk).is_some() {
                    seen = [sniff.start(0).1, chunk].concat();
                    break;
                }
            }
            assert!(seen.starts_with(b"HTTP/1.1"), "step {step}: {seen:?}");
        }
    }
}
