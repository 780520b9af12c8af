//! Pieces in every order, twice, overlapping, missing and too many.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

fn of(id: u32) -> FragmentOf {
    FragmentOf { ends: [IpAddr::V4(Ipv4Addr::LOCALHOST); 2], id, protocol: 6 }
}

fn piece(offset: usize, more: bool, bytes: &[u8]) -> Fragment<'_> {
    Fragment { of: of(1), protocol: 6, offset, more, bytes, sent: bytes.len() }
}

fn all(pieces: &[Fragment<'_>]) -> (Vec<Whole>, Reassembly) {
    let (mut fragments, mut tally) = (Fragments::default(), Reassembly::default());
    let whole =
        pieces.iter().filter_map(|piece| fragments.add(EventTime(1), piece, &mut tally)).collect();
    fragments.finish(&mut tally);
    (whole, tally)
}

#[test]
fn the_last_missing_piece_completes_the_packet() {
    let pieces = [piece(0, true, b"01234567"), piece(8, true, b"89abcdef"), piece(16, false, b"g")];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (whole, tally) = all(&order.map(|number| pieces[number]));
        let bytes = b"0123456789abcdefg".to_vec();
        assert_eq!(whole, [Whole { of: of(1), protocol: 6, bytes, sent: 17 }], "{order:?}");
        assert_eq!(tally, Reassembly { packets: 1, ..Reassembly::default() });
    }
}

#[test]
fn the_bytes_that_came_first_stay() {
    let pieces = [
        piece(0, true, b"01234567"),
        piece(0, true, b"01234567"),
        piece(0, true, b"evil....evil...."),
        piece(16, false, b"end"),
    ];
    let (whole, tally) = all(&pieces);
    assert_eq!(whole[0].bytes, b"01234567evil....end");
    assert_eq!((tally.conflicts, tally.packets), (1, 1));
}

#[test]
fn nonsense_is_counted_and_harmless() {
    for pieces in [
        // Beyond the largest packet; no whole units; nothing at all.
        &[piece(65_528, false, &[0; 100])][..],
        &[piece(0, true, b"123")],
        &[piece(0, true, b"")],
        // Two different ends, and a piece after the end.
        &[piece(8, false, b"x"), piece(16, false, b"y")],
        &[piece(8, false, b"x"), piece(16, true, b"01234567")],
        &[piece(16, true, b"01234567"), piece(8, false, b"x")],
    ] {
        let (whole, tally) = all(pieces);
        assert_eq!((whole.len(), tally.misfits), (0, 1), "{pieces:?}");
    }
    // A teardrop: the second lies within the first.
    let (whole, tally) = all(&[piece(0, true, &[1; 40]), piece(24, false, &[1; 4])]);
    assert_eq!((whole.len(), tally.misfits), (0, 1));
}

#[test]
fn what_the_snap_length_cut_off_is_missing_at_the_end() {
    let cut = Fragment { sent: 16, ..piece(8, true, b"89a") };
    let (whole, _) = all(&[piece(0, true, b"01234567"), cut, piece(24, false, b"end")]);
    assert_eq!((whole[0].bytes.as_slice(), whole[0].sent), (&b"0123456789a"[..], 27));
}

#[test]
fn they_wait_half_a_minute_of_capture_time() {
    let (mut fragments, mut tally) = (Fragments::default(), Reassembly::default());
    let (first, last) = (piece(0, true, b"01234567"), piece(8, false, b"89"));
    for (wait, comes) in [(WAIT_NS_MAX, true), (WAIT_NS_MAX + 1, false)] {
        fragments.add(EventTime(5), &first, &mut tally);
        let whole = fragments.add(EventTime(5 + wait), &last, &mut tally);
        assert_eq!(whole.is_some(), comes, "{wait}");
    }
    assert_eq!((tally.packets, tally.expired), (1, 1));
}

#[test]
fn a_flood_is_held_within_the_bound() {
    let (mut fragments, mut tally) = (Fragments::default(), Reassembly::default());
    for id in 0..10_000 {
        let far = Fragment { of: of(id), ..piece(65_520, true, &[7; 8]) };
        fragments.add(EventTime(1), &far, &mut tally);
        assert!(fragments.held <= HELD_BYTES_MAX);
    }
    assert_eq!(tally.evicted + fragments.waiting.len() as u64, 10_000);
    // Those that are whole leave nothing behind.
    for id in 0..10_000 {
        let whole = Fragment { of: of(100_000 + id), ..piece(0, false, b"x") };
        assert!(fragments.add(EventTime(1), &whole, &mut tally).is_some());
    }
    assert!(fragments.order.len() <= 2 * fragments.waiting.len() + ORDER_SLACK + 1);
}

proptest! {
    #[test]
    fn any_pieces_of_one_packet_give_it_back(
        content in prop::collection::vec(any::<u8>(), 1..200),
        cuts in prop::collection::btree_set(1_usize..25, 0..6),
        order in any::<prop::sample::Index>(),
        twice: bool,
    ) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut * UNIT).collect();
        places.retain(|place| *place < content.len());
        places.insert(0, 0);
        let ends = places.iter().skip(1).copied().chain([content.len()]);
        let mut pieces: Vec<_> = places
            .iter()
            .zip(ends)
            .map(|(&from, to)| piece(from, to < content.len(), &content[from..to]))
            .collect();
        if twice && pieces.len() > 1 {
            pieces.insert(0, pieces[0]);
        }
        let middle = order.index(pieces.len());
        pieces[1.min(middle)..].rotate_left(0);
        pieces.rotate_left(middle);
        let (whole, tally) = all(&pieces);
        prop_assert_eq!(&whole[0].bytes, &content);
        prop_assert_eq!(tally.conflicts, 0);
    }

    #[test]
    fn no_pieces_panic(
        pieces in prop::collection::vec(
            (0_u32..3, 0_usize..9000, any::<bool>(), 0_usize..100, 0_usize..100, any::<u64>()),
            0..60,
        ),
    ) {
        let (mut fragments, mut tally) = (Fragments::default(), Reassembly::default());
        let bytes = [3; 100];
        for (id, unit, more, captured, cut, time) in pieces {
            let fragment = Fragment {
                of: of(id),
                protocol: 6,
                offset: unit * UNIT,
                more,
                bytes: &bytes[..captured],
                sent: captured + cut,
            };
            if let Some(whole) = fragments.add(EventTime(time), &fragment, &mut tally) {
                prop_assert!(whole.bytes.len() <= whole.sent);
            }
            prop_assert!(fragments.held <= HELD_BYTES_MAX);
        }
    }
}
