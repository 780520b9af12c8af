//! HTTP/2 frames and header blocks (RFC 9113, RFC 7541): what a plain client and server send.

use std::collections::VecDeque;

/// What a client begins with (RFC 9113, 3.4), before its SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;

/// Flags: END_STREAM, or ACK of settings.
pub const END_STREAM: u8 = 1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// Payload of a DATA frame that every receiver takes (RFC 9113, 6.5.2).
pub const FRAME_BYTES_MAX: usize = 16_384;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A body as DATA frames, the last of which ends the stream.
pub fn body(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let pieces = bytes.chunks(FRAME_BYTES_MAX).count().max(1);
    let mut frames = Vec::with_capacity(bytes.len() + pieces * 9);
    for number in 0..pieces {
        let start = number * FRAME_BYTES_MAX;
        let piece = &bytes[start..bytes.len().min(start + FRAME_BYTES_MAX)];
        let flags = if number + 1 == pieces { END_STREAM } else { 0 };
        frames.extend(frame(DATA, flags, stream, piece));
    }
    frames
}

/// A header encoder with its dynamic table. Texts are sent as they are, without Huffman code.
#[derive(Default)]
pub struct Encoder {
    /// Newest first.
    table: VecDeque<(String, String)>,
    bytes: usize,
}

/// Size of the dynamic table until told otherwise (RFC 9113, 6.5.2), and what an entry costs beside
/// its texts (RFC 7541, 4.1).
const TABLE_BYTES_MAX: usize = 4096;
const ENTRY_BYTES: usize = 32;

/// Fields of the static table (RFC 7541, appendix A) that are used here, with their index.
const STATIC: [(usize, &str, &str); 14] = [
    (1, ":authority", ""),
    (2, ":method", "GET"),
    (3, ":method", "POST"),
    (4, ":path", "/"),
    (6, ":scheme", "http"),
    (7, ":scheme", "https"),
    (8, ":status", "200"),
    (13, ":status", "404"),
    (28, "content-length", ""),
    (31, "content-type", ""),
    (33, "date", ""),
    (54, "server", ""),
    (58, "user-agent", ""),
    (19, "accept", ""),
];
const STATIC_FIELDS: usize = 61;

impl Encoder {
    /// A header block. Each field is indexed, so that it is short the next time.
    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            if let Some(index) = self.index_of(name, value) {
                integer(&mut block, 0x80, 7, index);
                continue;
            }
            let name_index = STATIC.iter().find(|(_, known, _)| known == name);
            integer(&mut block, 0x40, 6, name_index.map_or(0, |(index, ..)| *index));
            if name_index.is_none() {
                text(&mut block, name);
            }
            text(&mut block, value);
            self.remember(name, value);
        }
        block
    }

    fn index_of(&self, name: &str, value: &str) -> Option<usize> {
        let fixed = STATIC.iter().find(|(_, known, its)| known == &name && its == &value);
        let own = || self.table.iter().position(|(known, its)| known == name && its == value);
        fixed
            .filter(|_| !value.is_empty())
            .map(|(index, ..)| *index)
            .or_else(|| own().map(|place| STATIC_FIELDS + 1 + place))
    }

    fn remember(&mut self, name: &str, value: &str) {
        self.table.push_front((name.to_owned(), value.to_owned()));
        self.bytes += name.len() + value.len() + ENTRY_BYTES;
        while self.bytes > TABLE_BYTES_MAX {
            let Some((name, value)) = self.table.pop_back() else { break };
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

/// RFC 7541, 5.1.
fn integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let most = (1_usize << prefix_bits) - 1;
    if value < most {
        block.push(pattern | value as u8);
        return;
    }
    block.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// RFC 7541, 5.2.
fn text(block: &mut Vec<u8>, text: &str) {
    integer(block, 0, 7, text.len());
    block.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, C.3.1 and C.3.2.
    #[test]
    fn blocks_are_those_of_the_standard() {
        let mut encoder = Encoder::default();
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ];
        let first = encoder.block(&fields);
        assert_eq!(first, b"\x82\x86\x84\x41\x0fwww.example.com");
        fields.push(("cache-control", "no-cache"));
        let second = encoder.block(&fields);
        assert_eq!(second[..4], *b"\x82\x86\x84\xbe");
        assert_eq!(second[4..], *b"\x40\x0dcache-control\x08no-cache");
    }

    #[test]
    fn the_table_keeps_to_its_size() {
        let mut encoder = Encoder::default();
        for number in 0..1000 {
            encoder.block(&[("x-number", &number.to_string())]);
        }
        assert!(encoder.bytes <= TABLE_BYTES_MAX);
        assert_eq!(encoder.table.front().map(|(_, value)| &**value), Some("999"));
    }

    #[test]
    fn long_integers_go_on() {
        let mut block = Vec::new();
        integer(&mut block, 0, 5, 1337);
        assert_eq!(block, [31, 154, 10], "RFC 7541, C.1.2");
    }
}
