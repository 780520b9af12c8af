//! Why reading a capture stopped before its end, each in one line.

use std::io;

use thiserror::Error;

use super::compressed::Damage;
use super::pcap::PACKET_BYTES_MAX;

/// Why reading stopped before the end, or what was passed over on the way to it. All that stands
/// before the fault has been given out.
#[derive(Debug, Error)]
pub enum Fault {
    /// The file ends within a packet or a block.
    #[error("the capture is cut off in {unit} {number} at byte {offset}")]
    CutOff {
        /// `packet` or `block`.
        unit: &'static str,
        /// Its number, from 1.
        number: u64,
        /// Where it begins.
        offset: u64,
    },
    /// No packet is that large.
    #[error(
        "packet {packet} at byte {offset} says that it has more than {} bytes; the file is broken \
         there",
        PACKET_BYTES_MAX
    )]
    PacketTooLarge {
        /// Number of the packet, from 1.
        packet: u64,
        /// Where it begins.
        offset: u64,
    },
    /// A block whose length cannot be; what follows it cannot be found.
    #[error(
        "block {block} at byte {offset} says that it has {bytes} bytes; the file is broken there"
    )]
    BlockLength {
        /// Number of the block, from 1.
        block: u64,
        /// Where it begins.
        offset: u64,
        /// Its length.
        bytes: u32,
    },
    /// A section header without a byte order; what follows it cannot be read.
    #[error("the section header at byte {offset} is broken; the file cannot be read from there on")]
    SectionHeader {
        /// Where it begins.
        offset: u64,
    },
    /// Blocks whose length was right and whose content was not: the rest of the file was read.
    #[error(
        "{count} blocks are broken, the first of them block {block} at byte {offset}; the others were read"
    )]
    BrokenBlocks {
        /// How many.
        count: u64,
        /// Number of the first, from 1.
        block: u64,
        /// Where that begins.
        offset: u64,
    },
    /// The file is shorter than a file header.
    #[error("the file ends within its header, after {0} bytes")]
    NoHeader(usize),
    /// Compressed in a way that is not read.
    #[error("compressed with {0}; decompress it and pipe it in: {1} FILE | keywatch replay -")]
    OtherCodec(&'static str, &'static str),
    /// Compressed twice.
    #[error("compressed once more, with {0}; decompress it once and pipe it in")]
    CompressedTwice(&'static str),
    /// Something else.
    #[error("not a pcap or pcapng file (it begins with {0:02x?}); record one with tcpdump -w")]
    NotCapture([u8; 4]),
    /// A link layer that is not read.
    #[error("link type {0} is not read; capture on Ethernet, `any`, loopback or a raw IP device")]
    LinkType(i32),
    /// The operating system said no.
    #[error("cannot read at byte {offset}: {error}")]
    Read {
        /// After how many bytes.
        offset: u64,
        /// What it said.
        error: io::Error,
    },
    /// A compressed file ends too early.
    #[error("the {codec} stream is cut off; it was read to its byte {offset} as decompressed")]
    StreamCutOff {
        /// How it is compressed.
        codec: &'static str,
        /// Decompressed bytes before it.
        offset: u64,
    },
    /// A compressed file is broken.
    #[error("the {codec} stream is broken after its byte {offset} as decompressed: {error}")]
    StreamBroken {
        /// How it is compressed.
        codec: &'static str,
        /// Decompressed bytes before it.
        offset: u64,
        /// What the decompressor said.
        error: io::Error,
    },
    /// The same of a capture that is compressed; places are those of the decompressed bytes.
    #[error("decompressed from {codec}: {fault}")]
    Within {
        /// How it is compressed.
        codec: &'static str,
        /// What is wrong in it.
        fault: Box<Fault>,
    },
}

impl Fault {
    /// Reading failed after so many bytes.
    pub(super) fn reading(offset: u64, error: io::Error) -> Fault {
        match error.downcast::<Damage>() {
            Ok(Damage { codec, cut_off: true, error: _ }) => {
                Fault::StreamCutOff { codec: codec.name(), offset }
            }
            Ok(Damage { codec, cut_off: false, error }) => {
                Fault::StreamBroken { codec: codec.name(), offset, error }
            }
            Err(error) => Fault::Read { offset, error },
        }
    }

    /// Whether the file is something else than a capture, rather than a capture with a fault.
    pub fn is_other_file(&self) -> bool {
        match self {
            Fault::NoHeader(_) | Fault::NotCapture(_) => true,
            Fault::Within { codec: _, fault } => fault.is_other_file(),
            Fault::CutOff { .. }
            | Fault::PacketTooLarge { .. }
            | Fault::BlockLength { .. }
            | Fault::SectionHeader { .. }
            | Fault::BrokenBlocks { .. }
            | Fault::OtherCodec(..)
            | Fault::CompressedTwice(_)
            | Fault::LinkType(_)
            | Fault::Read { .. }
            | Fault::StreamCutOff { .. }
            | Fault::StreamBroken { .. } => false,
        }
    }

    pub(super) fn within(self, codec: &'static str) -> Fault {
        match self {
            // These say it themselves.
            Fault::StreamCutOff { .. } | Fault::StreamBroken { .. } | Fault::Read { .. } => self,
            Fault::CutOff { .. }
            | Fault::PacketTooLarge { .. }
            | Fault::BlockLength { .. }
            | Fault::SectionHeader { .. }
            | Fault::BrokenBlocks { .. }
            | Fault::NoHeader(_)
            | Fault::OtherCodec(..)
            | Fault::CompressedTwice(_)
            | Fault::NotCapture(_)
            | Fault::LinkType(_)
            | Fault::Within { .. } => Fault::Within { codec, fault: Box::new(self) },
        }
    }
}
