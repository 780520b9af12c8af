//! Classic pcap files.

use std::io::Read;

use monitor_core::time::EventTime;

use super::dissect::{Captured, Dissector};
use super::fault::Fault;
use super::link::Link;
use super::reader::Each;
use super::tally::Tally;
use super::window::Window;

/// Four times tcpdump's largest snap length (MAXIMUM_SNAPLEN, 256 KiB).
pub(super) const PACKET_BYTES_MAX: usize = 1 << 20;
/// Header of the file.
const HEADER_BYTES: usize = 24;
/// Seconds, fraction, captured and original length, before each packet.
const RECORD_BYTES: usize = 16;

/// How a file stores its numbers, as its first four bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    big_endian: bool,
    /// Nanoseconds in one unit of the fraction.
    fraction_ns: u32,
    /// What may stand between the record header and the packet, bytes; the first is the usual.
    extra_bytes: &'static [usize],
}

/// Nothing; the interface and protocol of libpcap ss990417; a word of Nokia's firewalls. All three
/// have the same magic number.
const EXTRA_USUAL: &[usize] = &[0, 8, 4];
/// Kuznetzov's libpcap of old Red Hat and SuSE kernels; its form of ss990915 has four bytes more.
const EXTRA_MODIFIED: &[usize] = &[8, 12];

impl Form {
    pub(super) fn from_magic(magic: [u8; 4]) -> Option<Form> {
        let little = u32::from_le_bytes(magic);
        let (number, big_endian) =
            if magic[0] == 0xa1 { (little.swap_bytes(), true) } else { (little, false) };
        let (fraction_ns, extra_bytes) = match number {
            // The second is what Navtel's analysers write; nothing else differs.
            0xa1b2_c3d4 | 0xa12b_3c4d => (1_000, EXTRA_USUAL),
            0xa1b2_3c4d => (1, EXTRA_USUAL),
            0xa1b2_cd34 => (1_000, EXTRA_MODIFIED),
            _ => return None,
        };
        Some(Form { big_endian, fraction_ns, extra_bytes })
    }

    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn record(self, bytes: &[u8], lengths: Lengths) -> Record {
        let [captured, original] = [self.u32(bytes, 8), self.u32(bytes, 12)];
        let swapped = match lengths {
            Lengths::InOrder => false,
            Lengths::Swapped => true,
            Lengths::Either => captured > original,
        };
        let (captured, original) =
            if swapped { (original, captured) } else { (captured, original) };
        Record { secs: self.u32(bytes, 0), fraction: self.u32(bytes, 4), captured, original }
    }
}

/// In which order a record names what was captured and what was sent: it changed with version 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    InOrder,
    Swapped,
    /// Some writers of 2.3 had the old order; the captured is never the larger.
    Either,
}

impl Lengths {
    fn of(major: u16, minor: u16) -> Lengths {
        match (major, minor) {
            (2, 0..3) | (543, 0) => Lengths::Swapped,
            (2, 3) => Lengths::Either,
            _ => Lengths::InOrder,
        }
    }
}

/// The header of one packet.
#[derive(Clone, Copy, Debug)]
struct Record {
    secs: u32,
    fraction: u32,
    captured: u32,
    original: u32,
}

/// Reads a file of which the first four bytes are known.
pub(super) fn read<R: Read>(
    form: Form,
    window: &mut Window<R>,
    dissector: &mut Dissector,
    tally: &mut Tally,
    each: &mut Each<'_>,
) -> Result<(), Fault> {
    if !window.fill(HEADER_BYTES).map_err(|error| Fault::reading(0, error))? {
        return Err(Fault::NoHeader(window.data().len()));
    }
    let lengths = Lengths::of(form.u16(window.data(), 4), form.u16(window.data(), 6));
    // No such link type is above 2^31; the bits are shown as they are.
    let number = form.u32(window.data(), 20).cast_signed();
    window.consume(HEADER_BYTES);
    let link = Link::from_number(number).ok_or(Fault::LinkType(number))?;
    let mut head_bytes = None;
    let mut number = 0;
    loop {
        let offset = window.offset();
        number += 1;
        let reading = |error| Fault::reading(offset, error);
        if !window.fill(RECORD_BYTES).map_err(reading)? {
            return match window.data() {
                [] => Ok(()),
                _ => Err(Fault::CutOff { unit: "packet", number, offset }),
            };
        }
        let record = form.record(window.data(), lengths);
        let captured = record.captured as usize;
        if captured > PACKET_BYTES_MAX {
            return Err(Fault::PacketTooLarge { packet: number, offset });
        }
        if head_bytes.is_none() {
            window.fill(RECORD_BYTES + form.extra_bytes[0] + captured).map_err(reading)?;
        }
        let head = *head_bytes
            .get_or_insert_with(|| RECORD_BYTES + extra_bytes(form, lengths, window.data()));
        if !window.fill(head + captured).map_err(reading)? {
            return Err(Fault::CutOff { unit: "packet", number, offset });
        }
        tally.packets += 1;
        let packet = Captured {
            link,
            // At most u32::MAX of each: no overflow in 64 bits.
            time: EventTime(
                u64::from(record.secs) * 1_000_000_000
                    + u64::from(record.fraction) * u64::from(form.fraction_ns),
            ),
            bytes: &window.data()[head..head + captured],
            missing: record.original.saturating_sub(record.captured),
        };
        let flow = dissector.packet(packet, tally, each);
        window.consume(head + captured);
        if flow.is_break() {
            return Ok(());
        }
    }
}

/// What stands between record header and packet, as far as the first packets show it.
fn extra_bytes(form: Form, lengths: Lengths, packets: &[u8]) -> usize {
    let fits = form.extra_bytes.iter().position(|&extra| fit(form, lengths, extra, packets));
    form.extra_bytes[fits.unwrap_or(0)]
}

/// Whether the packets at hand follow each other with so many extra bytes. One packet alone says so
/// only for the usual form: anything fits it.
fn fit(form: Form, lengths: Lengths, extra: usize, mut packets: &[u8]) -> bool {
    /// Enough to be sure, and few beside a whole file.
    const PACKETS_MAX: u32 = 8;
    let second = 1_000_000_000 / form.fraction_ns;
    let usual = extra == form.extra_bytes[0];
    for number in 0..PACKETS_MAX {
        if packets.len() < RECORD_BYTES {
            return usual || (packets.is_empty() && number > 1);
        }
        let record = form.record(packets, lengths);
        let sane = record.fraction < second
            && record.captured <= record.original
            && record.captured as usize <= PACKET_BYTES_MAX;
        if !sane {
            return false;
        }
        packets =
            packets.get(RECORD_BYTES + extra + record.captured as usize..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::io;
    use std::ops::ControlFlow;

    use monitor_core::input::Input;

    use super::super::fixture::*;
    use super::super::reader::read;
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

    fn two_packets(form: Written) -> Vec<u8> {
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
            (MODIFIED, true, 1_000),
            (NAVTEL, false, 1_000),
            (NAVTEL, true, 1_000),
        ] {
            let (got, tally, fault) = all(&two_packets(Written { big_endian, magic, link: 1 }));
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
            (
                &b"GET "[..],
                "not a pcap or pcapng file (it begins with [47, 45, 54, 20]); record one with \
                 tcpdump -w",
            ),
            (b"\x7fELF", "not a pcap or pcapng file"),
            (
                b"\x04\x22\x4d\x18",
                "compressed with lz4; decompress it and pipe it in: lz4cat FILE | keywatch replay -",
            ),
        ] {
            let file = [start, &[0; 100]].concat();
            let (got, _, fault) = all(&file);
            assert!(got.is_empty());
            assert!(fault.as_ref().is_some_and(|fault| fault.starts_with(reason)), "{fault:?}");
        }
        let (_, _, fault) = all(&two_packets(Written { link: 147, ..USUAL }));
        assert!(fault.is_some_and(|fault| fault.starts_with("link type 147 is not read")));
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
        let Tally { packets, segments, not_tcp, fragments, malformed, .. } = tally;
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
            let mut file = two_packets(Written { big_endian, ..USUAL });
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
