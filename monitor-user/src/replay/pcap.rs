//! Classic pcap files: a stream of packets in bounded memory.

use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use monitor_core::input::Input;
use monitor_core::time::EventTime;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError};
use serde::Serialize;
use thiserror::Error;

use super::packet::{self, Link, Skipped};

/// What was found in one capture or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Packets read.
    pub packets: u64,
    /// TCP segments given out.
    pub segments: u64,
    /// Packets that are not TCP over IP.
    pub not_tcp: u64,
    /// Pieces of fragmented IP packets; skipped.
    pub fragments: u64,
    /// Packets with broken or cut headers; skipped.
    pub malformed: u64,
    /// Bytes read, headers and all.
    pub bytes: u64,
}

/// Why reading stopped before the end.
#[derive(Debug, Error)]
pub enum Fault {
    /// The file ends within a packet.
    #[error("the capture is cut off in packet {packet} at byte {offset}")]
    CutOff {
        /// Number of the packet, from 1.
        packet: u64,
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
    /// The file is shorter than a file header.
    #[error("the file ends within its header, after {0} bytes")]
    NoHeader(usize),
    /// The newer format.
    #[error("pcapng is not read yet; convert with: editcap -F pcap IN OUT")]
    Pcapng,
    /// A compressed file.
    #[error(
        "the file is compressed with {0}; decompress it and pipe it in: {1} FILE | keywatch replay -"
    )]
    Compressed(&'static str, &'static str),
    /// Something else.
    #[error("not a pcap file (it begins with {0:02x?})")]
    NotPcap([u8; 4]),
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
}

/// Four times tcpdump's largest snap length (MAXIMUM_SNAPLEN, 256 KiB).
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Header of the file.
const HEADER_BYTES: usize = 24;

/// Reads a capture to its end and gives out each TCP segment, in file order. `tally` is added to,
/// also when it ends in a fault: everything before the fault has then been given out. Stops early
/// and without fault when `each` breaks.
pub fn read(
    mut reader: impl Read,
    tally: &mut Tally,
    each: &mut dyn FnMut(Input<'_>) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let mut header = [0; HEADER_BYTES];
    let got =
        read_full(&mut reader, &mut header).map_err(|error| Fault::Read { offset: 0, error })?;
    recognise(&header[..got])?;

    let trouble = Rc::new(RefCell::new(None));
    let patient = Patient { reader, trouble: Rc::clone(&trouble) };
    let reader = LegacyPcapReader::new(PACKET_BYTES_MAX, Cursor::new(header).chain(patient));
    let mut reader = reader.map_err(|_| Fault::NotPcap(first4(&header)))?;
    let mut link = Link::Raw;
    let mut fraction_ns = 1_000;
    let mut packet = 0;
    loop {
        let offset = reader.consumed() as u64;
        match reader.next() {
            Ok((size, PcapBlockOwned::LegacyHeader(header))) => {
                let number = header.network.0;
                link = Link::from_number(number).ok_or(Fault::LinkType(number))?;
                fraction_ns = if header.is_nanosecond_precision() { 1 } else { 1_000 };
                reader.consume(size);
                tally.bytes += size as u64;
            }
            Ok((size, PcapBlockOwned::Legacy(block))) => {
                packet += 1;
                tally.packets += 1;
                tally.bytes += size as u64;
                // At most u32::MAX of each: no overflow in 64 bits.
                let time = EventTime(
                    u64::from(block.ts_sec) * 1_000_000_000
                        + u64::from(block.ts_usec) * fraction_ns,
                );
                let missing = block.origlen.saturating_sub(block.caplen);
                let flow = match packet::segment(link, time, block.data, missing) {
                    Ok(segment) => {
                        tally.segments += 1;
                        each(Input::Segment(segment))
                    }
                    Err(Skipped::NotTcp) => {
                        tally.not_tcp += 1;
                        ControlFlow::Continue(())
                    }
                    Err(Skipped::Fragment) => {
                        tally.fragments += 1;
                        ControlFlow::Continue(())
                    }
                    Err(Skipped::Malformed) => {
                        tally.malformed += 1;
                        ControlFlow::Continue(())
                    }
                };
                reader.consume(size);
                if flow.is_break() {
                    return Ok(());
                }
            }
            Ok((_, PcapBlockOwned::NG(_))) => return Err(Fault::Pcapng),
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                // The parser forgets what the error was: `trouble` keeps it.
                let failed = reader.refill().is_err();
                if let Some(error) = trouble.borrow_mut().take().filter(|_| failed) {
                    return Err(Fault::Read { offset, error });
                }
            }
            Err(PcapError::BufferTooSmall) => {
                return Err(Fault::PacketTooLarge { packet: packet + 1, offset });
            }
            Err(_) => return Err(Fault::CutOff { packet: packet + 1, offset }),
        }
    }
}

fn recognise(header: &[u8]) -> Result<(), Fault> {
    let magic = match header {
        [a, b, c, d, ..] => [*a, *b, *c, *d],
        short => return Err(Fault::NoHeader(short.len())),
    };
    match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3, 0xd4] => {}
        [0x4d, 0x3c, 0xb2, 0xa1] | [0xa1, 0xb2, 0x3c, 0x4d] => {}
        // Kuznetzov's format of old patched Red Hat kernels, little-endian.
        [0x34, 0xcd, 0xb2, 0xa1] => {}
        [0x0a, 0x0d, 0x0d, 0x0a] => return Err(Fault::Pcapng),
        [0x1f, 0x8b, ..] => return Err(Fault::Compressed("gzip", "zcat")),
        [0x28, 0xb5, 0x2f, 0xfd] => return Err(Fault::Compressed("zstd", "zstdcat")),
        [0xfd, b'7', b'z', b'X'] => return Err(Fault::Compressed("xz", "xzcat")),
        other => return Err(Fault::NotPcap(other)),
    }
    if header.len() < HEADER_BYTES { Err(Fault::NoHeader(header.len())) } else { Ok(()) }
}

fn first4(header: &[u8; HEADER_BYTES]) -> [u8; 4] {
    [header[0], header[1], header[2], header[3]]
}

/// As many bytes as there are, up to the length of `buffer`.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads again after a signal, and keeps the error that the parser would throw away.
struct Patient<R> {
    reader: R,
    trouble: Rc<RefCell<Option<io::Error>>>,
}

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.trouble.borrow_mut() = Some(error);
                    return Err(kind.into());
                }
                ok => return ok,
            }
        }
    }
}
