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
    #[error("not a pcap file (it begins with {0:02x?}); record one with tcpdump -w")]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::*;
    use super::*;

    /// Time, payload and missing bytes of a segment.
    type Got = (u64, Vec<u8>, u32);

    /// What came, the tally, and the fault in words.
    fn all(file: &[u8]) -> (Vec<Got>, Tally, Option<String>) {
        let mut got = Vec::new();
        let mut tally = Tally::default();
        let result = read(file, &mut tally, &mut |input| {
            let Input::Segment(segment) = input else { panic!("{input:?}") };
            got.push((segment.time.0, segment.payload.to_vec(), segment.missing));
            ControlFlow::Continue(())
        });
        (got, tally, result.err().map(|fault| fault.to_string()))
    }

    fn two_packets(form: Form) -> Vec<u8> {
        let first = ethernet(&[], &ipv4(b"one"));
        let second = ethernet(&[], &ipv6(b"second"));
        capture(form, &[(7, 9, first.len(), &first), (8, 999_999, second.len(), &second)])
    }

    #[test]
    fn both_byte_orders_and_every_magic() {
        for (magic, big_endian, fraction_ns) in [
            (MICROS, false, 1_000),
            (MICROS, true, 1_000),
            (NANOS, false, 1),
            (NANOS, true, 1),
            (MODIFIED, false, 1_000),
        ] {
            let (got, tally, fault) = all(&two_packets(Form { big_endian, magic, link: 1 }));
            let expected = vec![
                (7_000_000_000 + 9 * fraction_ns, b"one".to_vec(), 0),
                (8_000_000_000 + 999_999 * fraction_ns, b"second".to_vec(), 0),
            ];
            assert_eq!((got, fault), (expected, None), "{magic:x} {big_endian}");
            assert_eq!((tally.packets, tally.segments), (2, 2));
        }
    }

    #[test]
    fn cut_anywhere_all_whole_packets_come() {
        let file = two_packets(USUAL);
        let first_end = 24 + 16 + 14 + 52 + 3;
        for length in 0..file.len() {
            let (got, tally, fault) = all(&file[..length]);
            let whole = usize::from(length >= first_end);
            assert_eq!(got.len(), whole, "{length}");
            let expected = match length {
                0..24 => Some(format!("the file ends within its header, after {length} bytes")),
                24 => None,
                _ if length < first_end => {
                    Some("the capture is cut off in packet 1 at byte 24".to_owned())
                }
                _ if length == first_end => None,
                _ => Some(format!("the capture is cut off in packet 2 at byte {first_end}")),
            };
            assert_eq!(fault, expected, "{length}");
            assert_eq!(tally.packets, whole as u64);
        }
    }

    #[test]
    fn files_of_another_kind_are_named() {
        for (start, reason) in [
            (&b"\x0a\x0d\x0d\x0a"[..], "pcapng is not read yet; convert with: editcap -F pcap"),
            (
                b"\x1f\x8b\x08\x00",
                "the file is compressed with gzip; decompress it and pipe it in: zcat",
            ),
            (b"\x28\xb5\x2f\xfd", "the file is compressed with zstd"),
            (
                b"GET ",
                "not a pcap file (it begins with [47, 45, 54, 20]); record one with tcpdump -w",
            ),
            (b"\x7fELF", "not a pcap file"),
        ] {
            let file = [start, &[0; 100]].concat();
            let (got, _, fault) = all(&file);
            assert!(got.is_empty());
            assert!(fault.as_ref().is_some_and(|fault| fault.starts_with(reason)), "{fault:?}");
        }
        let (_, _, fault) = all(&two_packets(Form { link: 105, ..USUAL }));
        assert!(fault.is_some_and(|fault| fault.starts_with("link type 105 is not read")));
    }

    #[test]
    fn a_length_from_garbage_ends_the_file_there() {
        let mut file = two_packets(USUAL);
        let second = 24 + 16 + 14 + 52 + 3;
        file[second + 8..second + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        let (got, _, fault) = all(&file);
        assert_eq!(got.len(), 1);
        assert_eq!(
            fault.unwrap(),
            format!(
                "packet 2 at byte {second} says that it has more than 1048576 bytes; the file is \
                 broken there"
            )
        );
    }

    #[test]
    fn strange_times_are_taken_as_they_are() {
        let packet = ethernet(&[], &ipv4(b"x"));
        let at = |secs, fraction| (secs, fraction, packet.len(), packet.as_slice());
        let packets = [at(u32::MAX, u32::MAX), at(0, 0), at(5, 4_000_000_000)];
        let (got, _, fault) = all(&capture(USUAL, &packets));
        let times: Vec<u64> = got.iter().map(|(time, _, _)| *time).collect();
        let most = u64::from(u32::MAX);
        assert_eq!(times, [most * 1_000_001_000, 0, 5_000_000_000 + 4_000_000_000_000]);
        assert_eq!(fault, None);
    }

    #[test]
    fn a_snap_length_is_passed_on_and_skipped_packets_are_counted() {
        let whole = ethernet(&[], &ipv4(b"0123456789"));
        let mut fragment = whole.clone();
        fragment[20] = 0x20;
        let mut arp = whole.clone();
        arp[13] = 6;
        let packets: [(u32, u32, usize, &[u8]); 4] = [
            (1, 0, whole.len(), &whole[..whole.len() - 4]),
            (2, 0, fragment.len(), &fragment),
            (3, 0, arp.len(), &arp),
            (4, 0, whole.len(), &whole[..20]),
        ];
        let (got, tally, fault) = all(&capture(USUAL, &packets));
        assert_eq!(got, [(1_000_000_000, b"012345".to_vec(), 4)]);
        assert_eq!(fault, None);
        let Tally { packets, segments, not_tcp, fragments, malformed, bytes: _ } = tally;
        assert_eq!((packets, segments, not_tcp, fragments, malformed), (4, 1, 1, 1, 1));
    }

    #[test]
    fn reading_stops_when_it_is_enough() {
        let mut tally = Tally::default();
        let file = two_packets(USUAL);
        read(&file[..], &mut tally, &mut |_| ControlFlow::Break(())).unwrap();
        assert_eq!(tally.packets, 1);
    }

    /// Gives one byte at a time, with a signal before each, and an error at the end.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((byte, rest)) = self.0.split_first() else {
                return Err(io::Error::other("the disk is gone"));
            };
            self.0 = rest;
            buffer[0] = *byte;
            Ok(1)
        }
    }

    #[test]
    fn a_slow_reader_and_a_failing_disk() {
        let file = two_packets(USUAL);
        let mut packets = 0;
        let fault = read(Slow(&file, false), &mut Tally::default(), &mut |_| {
            packets += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(packets, 2);
        let expected = format!("cannot read at byte {}: the disk is gone", file.len());
        assert_eq!(fault.unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_file_larger_than_the_buffer_is_read_through() {
        let packet = ethernet(&[], &ipv4(&[b'x'; 1400]));
        let packets = vec![(1, 0, packet.len(), packet.as_slice()); 3000];
        let (got, tally, fault) = all(&capture(USUAL, &packets));
        assert_eq!((got.len(), fault), (3000, None));
        assert!(tally.bytes > 4 * PACKET_BYTES_MAX as u64);
    }

    proptest! {
        #[test]
        fn no_damage_panics_or_hangs(
            big_endian: bool,
            damage in prop::collection::vec((0_usize..260, any::<u8>()), 1..8),
        ) {
            let mut file = two_packets(Form { big_endian, ..USUAL });
            for (at, value) in damage {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= value;
                }
            }
            let (got, tally, _) = all(&file);
            prop_assert_eq!(got.len() as u64, tally.segments);
            let skipped = tally.not_tcp + tally.fragments + tally.malformed;
            prop_assert_eq!(tally.segments + skipped, tally.packets);
        }
    }
}
