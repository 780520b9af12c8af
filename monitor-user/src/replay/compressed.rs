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
    /// One frame or many.
    Lz4,
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
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Codec::Lz4),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
            Codec::Xz => "xz",
            Codec::Bzip2 => "bzip2",
            Codec::Lz4 => "lz4",
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
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(reader)),
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
