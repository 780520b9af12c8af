//! Whole files of blocks: what comes out, and what is told of broken ones.

use proptest::prelude::*;

use super::super::fixture::*;
use super::super::reader::{Captures, read};
use super::*;

/// Time, payload and missing bytes of a segment.
type Got = (u64, Vec<u8>, u32);

/// What came, the tally, and the fault in words.
fn all(file: &[u8]) -> (Vec<Got>, Tally, Option<String>) {
    let mut got = Vec::new();
    let mut tally = Tally::default();
    let result = read(file, &mut tally, &mut |input| {
        if let Input::Segment(segment) = input {
            got.push((segment.time.0, segment.payload.to_vec(), segment.missing));
        }
        ControlFlow::Continue(())
    });
    (got, tally, result.err().map(|fault| fault.to_string()))
}

fn frame(payload: &[u8]) -> Vec<u8> {
    ethernet(&[], &ipv4(payload))
}

#[test]
fn byte_orders_and_interfaces_change_with_the_section() {
    for first in [false, true] {
        let mut file = Pcapng::usual(first);
        let resolution = [file.option(9, &[9]), file.option(0, &[])].concat();
        file.interface(101, 0, &resolution);
        file.packet(1, 5_000_000_001, ipv4(b"raw").len(), &ipv4(b"raw"), &[]);
        file.packet(0, 7, frame(b"one").len(), &frame(b"one"), &[]);
        file.big_endian = !first;
        file.section(&[]).interface(113, 0, &[]);
        file.packet(0, 8, cooked1(&ipv6(b"two")).len(), &cooked1(&ipv6(b"two")), &[]);
        let (got, tally, fault) = all(&file.file);
        let expected = [
            (5_000_000_001, b"raw".to_vec(), 0),
            (7_000, b"one".to_vec(), 0),
            (8_000, b"two".to_vec(), 0),
        ];
        assert_eq!((got.as_slice(), fault), (&expected[..], None), "big-endian first: {first}");
        let blocks = &tally.blocks;
        let counts = (blocks.section_header, blocks.interface_description, blocks.enhanced_packet);
        assert_eq!(counts, (2, 3, 3));
        assert_eq!((tally.packets, tally.bytes), (3, file.file.len() as u64));
    }
}

#[test]
fn times_count_what_the_interface_says() {
    let count = 3 << 32 | 5;
    for (resolution, offset, expected) in [
        (None, 0, count * 1_000),
        (Some(6), 0, count * 1_000),
        (Some(3), 0, count * 1_000_000),
        (Some(9), 0, count),
        (Some(12), 0, count / 1_000),
        (Some(28), 0, 0),
        (Some(127), 0, 0),
        (Some(0x80 | 10), 0, (count * 1_000_000_000) >> 10),
        (Some(0x80 | 64), 0, 0),
        (Some(0xff), 0, 0),
        (Some(0), 0, count * 1_000_000_000),
        (Some(9), 2, count + 2_000_000_000),
        (Some(9), -2, count - 2_000_000_000),
        (Some(9), i64::MIN, 0),
        (Some(9), i64::MAX, u64::MAX),
    ] {
        for big_endian in [false, true] {
            let mut file = Pcapng { big_endian, file: Vec::new() };
            let mut options = Vec::new();
            if let Some(resolution) = resolution {
                options.extend(file.option(9, &[resolution]));
            }
            let bytes: [u8; 8] =
                if big_endian { offset.to_be_bytes() } else { i64::to_le_bytes(offset) };
            options.extend(file.option(14, &bytes));
            file.section(&[]).interface(1, 0, &options);
            file.packet(0, count, frame(b"x").len(), &frame(b"x"), &[]);
            let (got, _, fault) = all(&file.file);
            assert_eq!((got[0].0, fault), (expected, None), "{resolution:?} {offset}");
        }
    }
}

#[test]
fn simple_packets_have_the_last_time_and_the_snap_length() {
    for big_endian in [false, true] {
        let mut file = Pcapng { big_endian, file: Vec::new() };
        let whole = frame(b"0123456789");
        let snap = whole.len() - 4;
        file.section(&[]).interface(1, u32::try_from(snap).unwrap(), &[]);
        file.packet(0, 9, frame(b"before").len(), &frame(b"before"), &[]);
        let original = file.u32(u32::try_from(whole.len()).unwrap());
        file.block(3, &[&original[..], &whole[..snap]].concat());
        let (got, tally, fault) = all(&file.file);
        assert_eq!(fault, None);
        assert_eq!(got[1], (9_000, b"012345".to_vec(), 4));
        assert_eq!(tally.blocks.simple_packet, 1);
    }
}

#[test]
fn the_obsolete_packet_is_read_with_its_options() {
    for big_endian in [false, true] {
        let mut file = Pcapng::usual(big_endian);
        let bytes = frame(b"old!");
        let words = [0, 4, bytes.len() as u32, bytes.len() as u32 + 3];
        let mut body = [file.u16(0), file.u16(7)].concat();
        body.extend(words.map(|word| file.u32(word)).concat());
        body.extend(&bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(file.option(1, b"from long ago"));
        file.block(2, &body);
        let (got, tally, fault) = all(&file.file);
        assert_eq!((got, fault), (vec![(4_000, b"old!".to_vec(), 0)], None));
        assert_eq!((tally.blocks.obsolete_packet, tally.comments), (1, 1));
        // Cut short, it is broken and nothing else.
        let mut file = Pcapng::usual(big_endian);
        file.block(2, &body[..16]);
        assert_eq!(all(&file.file).1.blocks.broken, 1);
    }
}

#[test]
fn tls_secrets_come_in_their_place_and_others_do_not() {
    for big_endian in [false, true] {
        let mut file = Pcapng::usual(big_endian);
        for kind in [0x544c_534b, 0x5747_4b4c] {
            let head = [file.u32(kind), file.u32(5)].concat();
            file.block(10, &[&head[..], b"line\n", &[0; 3]].concat());
        }
        let mut secrets = Vec::new();
        let mut tally = Tally::default();
        let result = read(&file.file[..], &mut tally, &mut |input| {
            let Input::Secrets(lines) = input else { panic!("{input:?}") };
            secrets.push(lines.to_vec());
            ControlFlow::Continue(())
        });
        result.unwrap();
        assert_eq!(secrets, [b"line\n"]);
        assert_eq!(tally.blocks.decryption_secrets, 2);
    }
}

#[test]
fn other_blocks_are_passed_over_whatever_their_size_and_content() {
    let mut file = Pcapng::usual(false);
    let large = vec![0xff; BLOCK_BYTES_MAX as usize + 4];
    for kind in [4, 5, 9, 0x0bad, 0x4000_0bad, 0x7777] {
        file.block(kind, b"garbage!");
    }
    file.block(0x7778, &large).packet(0, 1, 0, &frame(b"after"), &[]);
    let (got, tally, fault) = all(&file.file);
    assert_eq!((got.len(), fault), (1, None));
    let blocks = tally.blocks;
    let counts = (blocks.name_resolution, blocks.interface_statistics, blocks.custom);
    assert_eq!(counts, (1, 1, 1));
    assert_eq!((blocks.custom_no_copy, blocks.unknown, blocks.broken), (1, 3, 0));
}

#[test]
fn broken_blocks_are_told_and_the_others_read() {
    let mut file = Pcapng::usual(false);
    file.packet(0, 1, 0, &frame(b"first"), &[]);
    let offset = file.file.len();
    // More bytes than the block has; an interface that is not there; two lengths that differ.
    let words = [0, 0, 2, 1_000, 1_000].map(|word| file.u32(word)).concat();
    file.block(6, &words);
    file.packet(9, 2, 0, &frame(b"of none"), &[]);
    file.packet(0, 2, 0, &frame(b"x"), &[]);
    *file.file.last_mut().unwrap() = 1;
    file.packet(0, 3, 0, &frame(b"last"), &[]);
    let (got, tally, fault) = all(&file.file);
    let payloads: Vec<&[u8]> = got.iter().map(|(_, payload, _)| payload.as_slice()).collect();
    assert_eq!(payloads, [&b"first"[..], b"last"]);
    assert_eq!((tally.blocks.broken, tally.packets), (3, 2));
    let expected = format!(
        "3 blocks are broken, the first of them block 4 at byte {offset}; the others were read"
    );
    assert_eq!(fault, Some(expected));
}

#[test]
fn a_length_that_cannot_be_ends_the_file_there() {
    for bytes in [0_u32, 8, 13] {
        let mut file = Pcapng::usual(false);
        file.packet(0, 1, 0, &frame(b"first"), &[]);
        let offset = file.file.len();
        file.packet(0, 2, 0, &frame(b"x"), &[]);
        file.file[offset + 4..offset + 8].copy_from_slice(&bytes.to_le_bytes());
        let (got, _, fault) = all(&file.file);
        assert_eq!(got.len(), 1);
        let expected = format!(
            "block 4 at byte {offset} says that it has {bytes} bytes; the file is broken there"
        );
        assert_eq!(fault, Some(expected));
    }
    let mut file = Pcapng::usual(false);
    let offset = file.file.len();
    file.section(&[]);
    file.file[offset + 8] = 0;
    let expected = format!(
        "the section header at byte {offset} is broken; the file cannot be read from there on"
    );
    assert_eq!(all(&file.file).2, Some(expected));
}

#[test]
fn packets_of_links_that_are_not_read_are_counted_by_link() {
    let mut file = Pcapng::usual(false);
    file.interface(147, 0, &[]);
    file.packet(1, 1, 0, b"who knows", &[]).packet(0, 2, 0, &frame(b"known"), &[]);
    let (got, tally, fault) = all(&file.file);
    assert_eq!((got.len(), fault), (1, None));
    assert_eq!((tally.packets, tally.segments, tally.unread), (2, 1, 1));
    assert_eq!(tally.unread_links.into_iter().collect::<Vec<_>>(), [(147, 1)]);
}

#[test]
fn comments_of_own_recordings_are_recalled() {
    let mut file = Pcapng::default();
    let program = file.option(4, b"keywatch");
    file.section(&program).interface(101, 0, &[]);
    let comment = file.option(1, b"keywatch: lost bytes=7");
    file.packet(0, 1, 0, &ipv4(b"a"), &comment);
    let other = file.option(1, b"look here");
    file.packet(0, 2, 0, &ipv4(b"b"), &other);
    // Another program's comments mean nothing, whatever they say.
    file.section(&[]).interface(101, 0, &[]).packet(0, 3, 0, &ipv4(b"c"), &comment);
    let mut seen = Vec::new();
    let mut payloads = Vec::new();
    let mut tally = Tally::default();
    let result = Captures::default().read(
        &file.file[..],
        &mut tally,
        &mut |recorded| {
            let Some(comment) = recorded.comment else { return Recalled::Packet };
            let payload = recorded.segment.map(|segment| segment.payload.to_vec());
            seen.push((recorded.time.0, comment.to_owned(), payload));
            Recalled::Input(Input::Tick(recorded.time))
        },
        &mut |input| {
            if let Input::Segment(segment) = input {
                payloads.push(segment.payload.to_vec());
            }
            ControlFlow::Continue(())
        },
    );
    result.unwrap();
    assert_eq!(seen, [(1_000, "keywatch: lost bytes=7".into(), Some(b"a".to_vec()))]);
    assert_eq!(payloads, [b"b", b"c"]);
    assert_eq!((tally.recorded, tally.comments, tally.packets), (1, 3, 3));
}

#[test]
fn cut_anywhere_all_whole_packets_come() {
    let mut file = Pcapng::usual(true);
    let mut ends = Vec::new();
    for payload in [&b"one"[..], b"second"] {
        file.packet(0, 1, 0, &frame(payload), &[]);
        ends.push(file.file.len());
    }
    for length in 0..file.file.len() {
        let (got, tally, fault) = all(&file.file[..length]);
        let whole = ends.iter().filter(|end| **end <= length).count();
        assert_eq!((got.len(), tally.packets), (whole, whole as u64), "{length}");
        let at_an_end = length == 28 || length == 48 || ends.contains(&length);
        assert_eq!(fault.is_none(), at_an_end, "{length}: {fault:?}");
    }
}

proptest! {
    #[test]
    fn no_damage_panics_or_hangs(
        big_endian: bool,
        damage in prop::collection::vec((0_usize..400, any::<u8>()), 1..8),
    ) {
        let mut file = Pcapng::usual(big_endian);
        let comment = file.option(1, b"a comment");
        file.packet(0, 1, 0, &frame(b"one"), &comment);
        file.block(2, &[0; 60]).block(10, &[0; 24]).packet(0, 2, 0, &frame(b"two"), &[]);
        for (at, value) in damage {
            if let Some(byte) = file.file.get_mut(at) {
                *byte ^= value;
            }
        }
        let (got, tally, _) = all(&file.file);
        prop_assert_eq!(got.len() as u64, tally.segments);
        let skipped = tally.not_tcp + tally.fragments + tally.malformed + tally.unread;
        prop_assert_eq!(tally.segments + skipped, tally.packets);
    }
}
