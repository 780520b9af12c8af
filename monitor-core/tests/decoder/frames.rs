//! An HTTP/2 endpoint that writes what it is told.

use std::collections::VecDeque;

use monitor_core::decode::http2::hpack::huffman_decode;

/// The preface of a client.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// A frame of settings.
pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let content: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &content)
}

/// Writes header blocks and refers to whatever it can.
pub(crate) struct Encoder {
    table: VecDeque<(String, String)>,
    bound: usize,
    /// A bound to be told with the next block.
    pending: Option<usize>,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder { table: VecDeque::new(), bound: 4096, pending: None }
    }

    /// Takes another bound from the next block on.
    pub(crate) fn bound(&mut self, bound: usize) {
        self.pending = Some(bound);
        self.bound = bound;
        self.evict();
    }

    /// A header block.
    pub(crate) fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(bound) = self.pending.take() {
            integer(bound, 5, 0x20, &mut out);
        }
        for (name, value) in fields {
            let known = self.table.iter().position(|(n, v)| n == name && v == value);
            let named = self.table.iter().position(|(n, _)| n == name);
            match (fixed(name, value), known, named) {
                (Some(index), _, _) => integer(index, 7, 0x80, &mut out),
                (None, Some(at), _) => integer(62 + at, 7, 0x80, &mut out),
                (None, None, named) => {
                    integer(named.map_or(0, |at| 62 + at), 6, 0x40, &mut out);
                    if named.is_none() {
                        string(name, &mut out);
                    }
                    string(value, &mut out);
                    self.table.push_front((name.to_string(), value.to_string()));
                    self.evict();
                }
            }
        }
        out
    }

    /// A whole HEADERS frame.
    pub(crate) fn headers(
        &mut self,
        stream: u32,
        end_stream: bool,
        fields: &[(&str, &str)],
    ) -> Vec<u8> {
        let flags = END_HEADERS | if end_stream { END_STREAM } else { 0 };
        frame(HEADERS, flags, stream, &self.block(fields))
    }

    fn evict(&mut self) {
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.bound {
            self.table.pop_back();
        }
    }
}

/// A few entries of the static table.
fn fixed(name: &str, value: &str) -> Option<usize> {
    match (name, value) {
        (":method", "GET") => Some(2),
        (":method", "POST") => Some(3),
        (":path", "/") => Some(4),
        (":scheme", "http") => Some(6),
        (":status", "200") => Some(8),
        (":status", "404") => Some(13),
        _ => None,
    }
}

fn integer(value: usize, bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Plain, but for one that stands in RFC 7541, C.4.1 with its code.
fn string(text: &str, out: &mut Vec<u8>) {
    const CODED: [u8; 12] =
        [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    if text == "www.example.com" {
        let mut decoded = Vec::new();
        assert!(huffman_decode(&CODED, &mut decoded).is_ok() && decoded == text.as_bytes());
        integer(CODED.len(), 7, 0x80, out);
        out.extend(CODED);
    } else {
        integer(text.len(), 7, 0, out);
        out.extend(text.as_bytes());
    }
}
