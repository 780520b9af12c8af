//! What a connection speaks, from the first bytes of either side.

use crate::time::EventTime;

/// Bytes that decide: `OPTIONS ` and `HTTP/1.1` are eight.
const START_BYTES: usize = 8;

/// First bytes of both sides, 0 and 1, until there are enough.
#[derive(Default)]
pub(super) struct Sniff {
    sides: [Start; 2],
}

#[derive(Default, Clone, Copy)]
struct Start {
    bytes: [u8; START_BYTES],
    count: usize,
    time: EventTime,
    missing_bytes: u64,
}

/// What first bytes look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// A method.
    Request,
    /// An HTTP/1 status line.
    Response,
    /// The preface of an HTTP/2 client (RFC 9113, 3.4).
    Preface,
    /// Settings, which an HTTP/2 server sends first.
    Settings,
    /// A TLS handshake, or a record from within a TLS connection.
    Tls,
    /// None of these.
    Other,
}

impl Sniff {
    /// Takes bytes of one side. Says what its start looks like once that can be told; the bytes taken
    /// before must then be had from [`Sniff::start`].
    pub(super) fn look(&mut self, side: usize, time: EventTime, bytes: &[u8]) -> Option<Look> {
        let start = &mut self.sides[side];
        let mut known = *start;
        if known.count == 0 {
            known.time = time;
        }
        for byte in bytes {
            // Empty lines may come before a request (RFC 9112, 2.2).
            if known.count == 0 && matches!(byte, b'\r' | b'\n') {
                continue;
            }
            known.bytes[known.count] = *byte;
            known.count += 1;
            if known.count == START_BYTES {
                return Some(look(&known.bytes));
            }
        }
        *start = known;
        None
    }

    /// The bytes that were taken and did not decide.
    pub(super) fn start(&self, side: usize) -> (EventTime, &[u8]) {
        let start = &self.sides[side];
        (start.time, &start.bytes[..start.count])
    }

    /// Bytes of one side are missing.
    pub(super) fn gap(&mut self, side: usize, bytes: u64) {
        let start = &mut self.sides[side];
        let missing_bytes = start.missing_bytes.saturating_add(bytes);
        *start = Start { missing_bytes, ..Start::default() };
    }

    /// Bytes of one side that were missing.
    pub(super) fn missing_bytes(&self, side: usize) -> u64 {
        self.sides[side].missing_bytes
    }
}

fn look(start: &[u8; START_BYTES]) -> Look {
    match start {
        b"HTTP/1.0" | b"HTTP/1.1" => Look::Response,
        b"PRI * HT" => Look::Preface,
        // A short frame of settings, for the connection (RFC 9113, 4.1 and 6.5).
        [0, 0, 0..=96, 4, 0, 0, 0, 0] if start[2].is_multiple_of(6) => Look::Settings,
        // Content type and version of a record (RFC 8446, 5.1).
        [0x14..=0x17, 3, 0..=4, ..] => Look::Tls,
        _ => {
            let method = start.iter().position(|byte| *byte == b' ').unwrap_or(START_BYTES);
            let named = start[..method].iter().all(|b| b.is_ascii_uppercase() || b"-_".contains(b));
            if method > 0 && named { Look::Request } else { Look::Other }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        let cases: [(&[u8], Look); 12] = [
            (b"GET / HTTP/1.1", Look::Request),
            (b"\r\n\r\nOPTIONS *", Look::Request),
            (b"PROPFIND /", Look::Request),
            (b"HTTP/1.1 200 OK", Look::Response),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", Look::Tls),
            (b"SSH-2.0-x", Look::Other),
            (b"8=FIX.4.4", Look::Other),
            (b"PRI * HTTP/2.0", Look::Preface),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", Look::Settings),
            (b"\0\0\0\x04\0\0\0\0\0", Look::Settings),
            (b"\0\0\x11\x04\0\0\0\0\0", Look::Other),
            (b" GET / HTTP", Look::Other),
        ];
        for (bytes, expected) in cases {
            for step in 1..=bytes.len() {
                let mut sniff = Sniff::default();
                let mut chunks = bytes.chunks(step);
                let look = chunks.find_map(|chunk| sniff.look(0, EventTime(1), chunk));
                assert_eq!(look, Some(expected), "{bytes:?} by {step}");
            }
        }
        assert_eq!(Sniff::default().look(0, EventTime(1), b"GET / H"), None);
    }
}
