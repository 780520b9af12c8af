//! Compressed captures: recognised by their first bytes, decompressed as they are read.

use std::error::Error;
use std::fmt;
use std::io::{self, BufReader, Read};

/// A form of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// One member or many (RFC 1952).
    Gzip,
    /// One frame or many (RFC 8878), skippable ones among them.
    Zstd,
    /// One stream or many.
    Xz,
    /// One stream or many.
    Bzip2,
}

/// As many bytes as are needed to tell.
pub(super) const MAGIC_BYTES: usize = 6;

impl Codec {
    /// From the first bytes of a file.
    pub(super) fn of(start: &[u8]) -> Option<Codec> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Codec::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Codec::Zstd),
            // A skippable frame, as parallel zstd writers put before the first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Codec::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Codec::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Codec::Bzip2),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
            Codec::Xz => "xz",
            Codec::Bzip2 => "bzip2",
        }
    }
}

/// What `reader` holds, decompressed. Errors of the stream itself are [`Damage`].
pub(super) fn decompress<'a>(
    codec: Codec,
    reader: impl Read + 'a,
) -> io::Result<Box<dyn Read + 'a>> {
    let reader = BufReader::with_capacity(COMPRESSED_BYTES, reader);
    let stream: Box<dyn Read + 'a> = match codec {
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        // Refuses windows over 128 MiB (ZSTD_WINDOWLOG_LIMIT_DEFAULT): that bounds its memory.
        Codec::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
        Codec::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_KIB_MAX)),
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
    };
    Ok(Box::new(Decompressed { codec, stream }))
}

/// As zstd's bound; `xz -9` needs half of it.
const XZ_KIB_MAX: u32 = 128 << 10;
/// What is read at once of the compressed file.
const COMPRESSED_BYTES: usize = 128 << 10;

/// What is wrong with a compressed stream.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) codec: Codec,
    /// The stream ends too early; otherwise it is broken.
    pub(super) cut_off: bool,
    /// What the decompressor said.
    pub(super) error: io::Error,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Damage {}

struct Decompressed<'a> {
    codec: Codec,
    stream: Box<dyn Read + 'a>,
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).map_err(|error| {
            // What the operating system said concerns the file, not the stream in it.
            if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let cut_off = error.kind() == io::ErrorKind::UnexpectedEof;
            io::Error::other(Damage { codec: self.codec, cut_off, error })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::super::fixture::*;
    use super::super::{Tally, read};
    use super::*;

    fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Codec::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Codec::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Codec::Bzip2 => {
                let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
        }
    }

    const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Zstd, Codec::Xz, Codec::Bzip2];

    fn a_capture(packets: usize) -> Vec<u8> {
        let packet = ethernet(&[], &ipv4(b"GET / HTTP/1.1"));
        capture(USUAL, &vec![(1, 0, packet.len(), packet.as_slice()); packets])
    }

    /// Segments, and the fault in words.
    fn all(file: &[u8]) -> (u64, Option<String>) {
        let mut tally = Tally::default();
        let result = read(file, &mut tally, &mut |_| ControlFlow::Continue(()));
        (tally.segments, result.err().map(|fault| fault.to_string()))
    }

    #[test]
    fn one_stream_or_several_are_one_capture() {
        let file = a_capture(3000);
        let (first, second) = file.split_at(100_001);
        for codec in CODECS {
            assert_eq!(all(&compress(codec, &file)), (3000, None), "{codec:?}");
            let parts = [compress(codec, first), compress(codec, second)].concat();
            assert_eq!(all(&parts), (3000, None), "{codec:?} in two parts");
        }
        // Skippable frames, as parallel writers of zstd leave them.
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        let file = [&skippable[..], &compress(Codec::Zstd, &file)].concat();
        assert_eq!(all(&file), (3000, None));
    }

    #[test]
    fn cut_anywhere_what_came_before_is_read_and_the_cut_is_told() {
        for codec in CODECS {
            let file = compress(codec, &a_capture(50));
            let mut last = 0;
            for length in MAGIC_BYTES..file.len() {
                let (segments, fault) = all(&file[..length]);
                assert!(segments >= last, "{codec:?} {length}");
                last = segments;
                let fault = fault.unwrap_or_else(|| panic!("{codec:?} {length} of {}", file.len()));
                let told = format!("the {} stream is cut off", codec.name());
                assert!(fault.starts_with(&told), "{codec:?} {length}: {fault}");
            }
        }
    }

    #[test]
    fn what_is_wrong_inside_is_told_with_what_it_is_inside_of() {
        let whole = a_capture(2);
        let cut = compress(Codec::Gzip, &whole[..whole.len() - 1]);
        let (segments, fault) = all(&cut);
        assert_eq!(segments, 1);
        let second = 24 + (whole.len() - 24) / 2;
        let expected =
            format!("decompressed from gzip: the capture is cut off in packet 2 at byte {second}");
        assert_eq!(fault, Some(expected));
        let (_, fault) = all(&compress(Codec::Zstd, &compress(Codec::Gzip, &whole)));
        let expected = "decompressed from zstd: compressed once more, with gzip; decompress it \
                        once and pipe it in";
        assert_eq!(fault.as_deref(), Some(expected));
    }

    proptest! {
        #[test]
        fn no_damage_panics_or_hangs(
            which in 0..CODECS.len(),
            damage in prop::collection::vec((0_usize..600, any::<u8>()), 1..8),
        ) {
            let mut file = compress(CODECS[which], &a_capture(50));
            let length = file.len();
            for (at, value) in damage {
                file[at % length] ^= value;
            }
            // Without a checksum other bytes may come out: any number of packets.
            all(&file);
        }
    }
}
