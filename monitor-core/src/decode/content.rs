//! Content codings (RFC 9110, 8.4.1): the beginning of a body, decoded.
//!
//! Only bodies that are read are decoded, and of those only the beginning. Compressed bytes are kept
//! up to a bound and decoded once, when the text is asked for, so that nothing depends on how they
//! came. Work is bounded too: what expands without measure is named and not followed.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::call::{Anomalies, Operation};
use crate::identity::{Identifier, Style};

/// Codings over one another: curl takes five.
const LAYERS_MAX: usize = 5;

/// Compressed bytes kept for each byte wanted. A zstd block must be there whole; 512 bytes wanted
/// make 16 KiB, and error bodies are shorter.
const RAW_PER_BYTE: usize = 32;

/// Bytes that may come out before the measure is taken: what one deflate window or a zstd block of
/// plain repetition comes to.
const FREE_BYTES: usize = 64 << 10;

/// Bytes that may come out for each that went in. Text gives 10, repeated text 50; deflate can give
/// 1032 at most.
const EXPANSION_MAX: usize = 100;

/// Memory that a zstd window may take (RFC 8878, 3.1.1.1.2: at least 8 MiB should be taken).
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What the `Content-Encoding` fields of a message name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContentCoding {
    layers: [Layer; LAYERS_MAX],
    count: u8,
    /// One that is not known: nothing can be decoded.
    unknown: bool,
    /// More than are followed.
    too_many: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Layer {
    #[default]
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The beginning of a body.
#[derive(Debug)]
pub(super) struct Prefix {
    coding: ContentCoding,
    bytes_max: usize,
    /// As it was on the wire, the beginning.
    raw: Vec<u8>,
    decoded: Option<Vec<u8>>,
    odd: Anomalies,
    /// What follows does not follow what was taken.
    ended: bool,
}

impl ContentCoding {
    /// Adds a field, in order.
    pub(super) fn add(&mut self, value: &[u8]) {
        for item in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &[u8]| item.eq_ignore_ascii_case(name);
            let layer = if item.is_empty() || is(b"identity") {
                continue;
            } else if is(b"gzip") || is(b"x-gzip") {
                Layer::Gzip
            } else if is(b"deflate") {
                Layer::Deflate
            } else if is(b"br") {
                Layer::Brotli
            } else if is(b"zstd") {
                Layer::Zstd
            } else {
                self.unknown = true;
                continue;
            };
            match self.layers.get_mut(usize::from(self.count)) {
                Some(free) => {
                    *free = layer;
                    self.count += 1;
                }
                None => self.too_many = true,
            }
        }
    }

    /// Whether bytes are read as they are: nothing is coded, or in a way that is not known.
    fn is_plain(&self) -> bool {
        self.count == 0 || self.unknown || self.too_many
    }
}

/// Whether the beginning of an answer is kept. Where nothing has failed it is not decompressed: that would
/// cost more than all else that a call costs.
pub(super) fn keeps(
    identifier: &Identifier,
    (style, op): (Style, Operation),
    status: u16,
    coding: &ContentCoding,
) -> bool {
    identifier.reads_reply(style, status)
        || coding.is_plain() && identifier.looks_for_leaks(style, op)
}

impl Prefix {
    /// For at most so many decoded bytes.
    pub(super) fn new(coding: ContentCoding, bytes_max: usize) -> Prefix {
        let odd = if coding.too_many { Anomalies::BAD_CONTENT_CODING } else { Anomalies::empty() };
        Prefix { coding, bytes_max, raw: Vec::new(), decoded: None, odd, ended: false }
    }

    /// Takes the next bytes of the body, after transfer decoding.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let raw_max = if self.coding.is_plain() {
            self.bytes_max
        } else {
            self.bytes_max.saturating_mul(RAW_PER_BYTE)
        };
        let room = raw_max.saturating_sub(self.raw.len()).min(bytes.len());
        if room > 0 && !self.ended {
            self.raw.extend_from_slice(&bytes[..room]);
            self.decoded = None;
        }
    }

    /// Bytes are missing: nothing more is taken.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The first decoded bytes; what cannot be decoded at all is given as it came.
    pub(super) fn bytes(&mut self) -> &[u8] {
        if self.coding.is_plain() {
            return &self.raw;
        }
        self.decode();
        match &self.decoded {
            Some(decoded) if !decoded.is_empty() => decoded,
            Some(_) | None => &self.raw[..self.raw.len().min(self.bytes_max)],
        }
    }

    /// What was odd about the coding.
    pub(super) fn anomalies(&mut self) -> Anomalies {
        if !self.coding.is_plain() {
            self.decode();
        }
        self.odd
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.raw.capacity() + self.decoded.as_ref().map_or(0, Vec::capacity)
    }

    fn decode(&mut self) {
        if self.decoded.is_some() {
            return;
        }
        let ended = Rc::new(Cell::new(false));
        let raw = Raw { bytes: &self.raw, ended: Rc::clone(&ended) };
        let layers = &self.coding.layers[..usize::from(self.coding.count)];
        let reader = layers.iter().rev().fold(Some(Box::new(raw) as Box<dyn Read>), open);
        let expanded_max = FREE_BYTES + self.raw.len().saturating_mul(EXPANSION_MAX);
        let read = match reader {
            Some(reader) => expand(reader, self.bytes_max, expanded_max),
            None => Expanded { bytes: Vec::new(), end: Stop::Error },
        };
        // An error at the end of what was kept says only that more was to come.
        if read.end == Stop::Bound || read.end == Stop::Error && !ended.get() {
            self.odd |= Anomalies::BAD_CONTENT_CODING;
        }
        self.decoded = Some(read.bytes);
    }
}

/// What came of decoding.
struct Expanded {
    /// The beginning of it.
    bytes: Vec<u8>,
    end: Stop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// All was read.
    End,
    /// It expanded too much.
    Bound,
    /// It does not decode, or not further.
    Error,
}

/// Reads all, up to a bound, and keeps the beginning.
fn expand(mut reader: Box<dyn Read + '_>, bytes_max: usize, expanded_max: usize) -> Expanded {
    let (mut bytes, mut total) = (Vec::new(), 0);
    let mut buffer = [0; 1024];
    let end = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Stop::End,
            Ok(count) => {
                let room = bytes_max.saturating_sub(bytes.len()).min(count);
                bytes.extend_from_slice(&buffer[..room]);
                total += count;
                if total > expanded_max {
                    break Stop::Bound;
                }
            }
            Err(_) => break Stop::Error,
        }
    };
    Expanded { bytes, end }
}

/// One more layer around a reader.
fn open<'r>(reader: Option<Box<dyn Read + 'r>>, layer: &Layer) -> Option<Box<dyn Read + 'r>> {
    let mut reader = reader?;
    Some(match layer {
        Layer::Gzip => Box::new(GzDecoder::new(reader)),
        Layer::Deflate => {
            // With or without a zlib header (RFC 1950, 2.2): both are in use under this name.
            let mut start = [0; 2];
            let count = read_start(&mut reader, &mut start);
            let is_zlib =
                count == 2 && start[0] & 0x0f == 8 && u16::from_be_bytes(start).is_multiple_of(31);
            let all = std::io::Cursor::new(start).take(count as u64).chain(reader);
            if is_zlib {
                Box::new(ZlibDecoder::new(all))
            } else {
                Box::new(DeflateDecoder::new(all))
            }
        }
        Layer::Brotli => Box::new(Decompressor::new(reader, 4096)),
        Layer::Zstd => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(WINDOW_BYTES_MAX);
            Box::new(StreamingDecoder::new_with_decoder(reader, decoder).ok()?)
        }
    })
}

fn read_start(reader: &mut dyn Read, start: &mut [u8; 2]) -> usize {
    let mut count = 0;
    while count < start.len() {
        match reader.read(&mut start[count..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => count += more,
        }
    }
    count
}

/// Kept bytes, with a note when all of them were asked for and more.
struct Raw<'a> {
    bytes: &'a [u8],
    ended: Rc<Cell<bool>>,
}

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.ended.set(true);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"code":-1022,"msg":"Signature for this request is not valid.","hint":"This request is not valid: the signature for this request is not the signature."}"#;
    /// `TEXT` by the reference encoders.
    const BROTLI: &[u8] = &[
        0x1b, 0x97, 0x00, 0x88, 0x8c, 0xc3, 0xb8, 0xf1, 0xfa, 0x89, 0x16, 0x87, 0x11, 0x8b, 0x18,
        0x03, 0x0e, 0xf5, 0x35, 0xe5, 0x6d, 0x08, 0xbb, 0xa5, 0xba, 0xfb, 0x3c, 0x82, 0xa8, 0x54,
        0x42, 0x75, 0xb6, 0x80, 0xb0, 0x55, 0x1e, 0x70, 0x13, 0x2f, 0x89, 0x36, 0x61, 0x43, 0x9d,
        0x4c, 0xe0, 0x21, 0x0b, 0xe9, 0x59, 0xb6, 0x69, 0x0d, 0x38, 0x1a, 0x50, 0x9a, 0xd6, 0x94,
        0x13, 0x1b, 0x0c, 0xdf, 0x6d, 0x21, 0x4e, 0xf3, 0x90, 0x95, 0xf0, 0xba, 0x2f, 0x3f, 0xe9,
        0x3c, 0xa1, 0x98, 0xdf, 0x04, 0xd3, 0xe9, 0x75, 0x99, 0x2d, 0x89, 0x60, 0xc2, 0xca, 0x07,
    ];
    const ZSTD: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x98, 0x9d, 0x02, 0x00, 0x22, 0x45, 0x11, 0x11, 0x90, 0x7d,
        0x02, 0xa4, 0x0d, 0x18, 0xa4, 0x9f, 0xf7, 0xcc, 0x97, 0xc8, 0x31, 0x57, 0x77, 0x83, 0x10,
        0xfd, 0x07, 0x06, 0x0d, 0x66, 0x70, 0xd2, 0x9f, 0xcf, 0x34, 0xc2, 0x0f, 0x3f, 0x58, 0x94,
        0x6a, 0x83, 0x5c, 0x29, 0xc0, 0x11, 0x64, 0xdc, 0xb4, 0x6d, 0x17, 0xe0, 0x08, 0x33, 0xb8,
        0xd5, 0x81, 0x76, 0x75, 0x56, 0xf4, 0x45, 0xf4, 0xe7, 0x1f, 0x9e, 0x1f, 0x8c, 0x21, 0x45,
        0x9c, 0x6f, 0xac, 0xae, 0xe7, 0x01, 0x03, 0x00, 0x49, 0x65, 0x40, 0x05, 0xdc, 0x90, 0x03,
        0x2a, 0x33,
    ];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn coding(value: &str) -> ContentCoding {
        let mut coding = ContentCoding::default();
        coding.add(value.as_bytes());
        coding
    }

    /// Decoded text and oddities, the same whatever the pieces.
    fn decode(value: &str, body: &[u8], bytes_max: usize) -> (Vec<u8>, Anomalies) {
        let read = |step: usize| {
            let mut prefix = Prefix::new(coding(value), bytes_max);
            body.chunks(step).for_each(|piece| prefix.take(piece));
            assert!(prefix.held_bytes() <= 2 * RAW_PER_BYTE * bytes_max + 64);
            (prefix.bytes().to_vec(), prefix.anomalies())
        };
        let whole = read(body.len().max(1));
        assert_eq!(read(1), whole);
        whole
    }

    fn check(value: &str, body: &[u8]) {
        assert_eq!(decode(value, body, 512), (TEXT.to_vec(), Anomalies::empty()), "{value}");
        assert_eq!(decode(value, body, 20).0, &TEXT[..20], "{value}");
        // Cut anywhere it says less, and blames nobody.
        for end in 0..body.len() {
            let (_, odd) = decode(value, &body[..end], 512);
            assert_eq!(odd, Anomalies::empty(), "{value} cut at {end}");
        }
    }

    #[test]
    fn every_coding_is_decoded() {
        check("identity", TEXT);
        check("gzip", &gzip(TEXT));
        check("X-Gzip, identity", &gzip(TEXT));
        check("gzip, gzip", &gzip(&gzip(TEXT)));
        check("br", BROTLI);
        check("zstd", ZSTD);
        check("zstd, gzip", &gzip(ZSTD));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT).unwrap();
        check("deflate", &zlib.finish().unwrap());
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(TEXT).unwrap();
        check("deflate", &deflate.finish().unwrap());
    }

    #[test]
    fn what_is_not_coded_as_said_is_read_as_it_is() {
        let bad = Anomalies::BAD_CONTENT_CODING;
        for value in ["gzip", "zstd", "gzip, gzip, gzip, gzip, gzip, gzip"] {
            assert_eq!(decode(value, TEXT, 512), (TEXT.to_vec(), bad), "{value}");
        }
        assert_eq!(decode("utf-8", TEXT, 512), (TEXT.to_vec(), Anomalies::empty()));
        for value in ["gzip", "br", "deflate", "zstd"] {
            let mut body = gzip(TEXT);
            body[10..].fill(0xff);
            assert_eq!(decode(value, &body, 512).1, bad, "{value}");
        }
    }

    #[test]
    fn nothing_is_taken_after_a_gap() {
        let mut prefix = Prefix::new(coding("identity"), 5);
        prefix.take(b"abc");
        prefix.end();
        prefix.take(b"d");
        assert_eq!(prefix.bytes(), b"abc");
    }

    #[test]
    fn bombs_are_named() {
        let bomb = gzip(&vec![b' '; 10 << 20]);
        assert!(bomb.len() > 10_000);
        let (bytes, odd) = decode("gzip", &bomb, 512);
        assert_eq!((&bytes[..], odd), (&[b' '; 512][..], Anomalies::BAD_CONTENT_CODING));
        let repeated = gzip(&TEXT.repeat(1000));
        assert_eq!(decode("gzip", &repeated, 512).1, Anomalies::empty());
    }

    #[test]
    fn any_bytes_are_bounded() {
        let mut state = 1_u64;
        for value in ["gzip", "deflate", "br", "zstd", "br, zstd, deflate"] {
            for (at, seed) in [&gzip(TEXT)[..], BROTLI, ZSTD, TEXT].into_iter().enumerate() {
                for round in 0..300 {
                    let mut body = seed.to_vec();
                    for _ in 0..=round % 4 {
                        state =
                            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(at as u64);
                        let place = (state >> 33) as usize % body.len();
                        body[place] = (state >> 24) as u8;
                    }
                    let mut prefix = Prefix::new(coding(value), 64);
                    prefix.take(&body);
                    assert!(prefix.bytes().len() <= 64);
                }
            }
        }
    }
}
