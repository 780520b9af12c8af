//! Orders, holes, copies and acknowledgements of one direction.

use super::*;

/// Feeds runs of (sequence number, bytes) and gives the stream as text, with gaps as `<n>`.
fn reassemble(start: u32, runs: &[(u32, &str)], at_end: fn(&mut Stream)) -> (String, Counters) {
    let (mut stream, mut counters, mut text) =
        (Stream::default(), Counters::default(), String::new());
    stream.start(start);
    for (seq, bytes) in runs {
        let run = Run {
            time: EventTime(0),
            seq: *seq,
            payload: bytes.as_bytes(),
            missing: 0,
            fin: false,
            ack: None,
        };
        match stream.accept(run, &mut Spare::default(), &mut counters) {
            Accepted::InOrder { payload, missing } => {
                text.push_str(str::from_utf8(payload).unwrap());
                assert_eq!(missing, 0);
            }
            Accepted::Held => {}
            Accepted::Absurd => text.push('!'),
        }
        drain(&mut stream, &mut text);
    }
    at_end(&mut stream);
    while let Some(bytes) = stream.give_up() {
        text.push_str(&format!("<{bytes}>"));
        drain(&mut stream, &mut text);
    }
    assert_eq!((stream.held_bytes(), stream.held().map_or(0, BTreeMap::len)), (0, 0));
    (text, counters)
}

fn drain(stream: &mut Stream, text: &mut String) {
    while let Some(held) = stream.next_held(&mut Spare::default()) {
        text.push_str(str::from_utf8(&held.data).unwrap());
        if held.conflict {
            text.push('~');
        }
    }
}

#[test]
fn orders_across_the_wrap() {
    let (text, _) = reassemble(u32::MAX - 1, &[(2, "ef"), (0, "cd"), (u32::MAX - 1, "ab")], |_| {});
    assert_eq!(text, "abcdef");
}

#[test]
fn repeats_and_overlaps_count_once() {
    let runs = [(0, "abc"), (0, "abc"), (1, "bcde"), (2, "c"), (8, "i"), (4, "efghij")];
    let (text, counters) = reassemble(0, &runs, |_| {});
    assert_eq!(text, "abcdefghij");
    assert_eq!(counters.retransmitted_bytes, 3 + 2 + 1 + 1 + 1);
    assert_eq!(counters.overlap_conflicts, 0);
}

#[test]
fn the_first_bytes_win_and_a_conflict_is_noted() {
    let (text, counters) = reassemble(0, &[(2, "CD"), (1, "bcde"), (0, "a")], |_| {});
    assert_eq!(text, "abCD~e");
    assert_eq!(counters.overlap_conflicts, 1);
}

#[test]
fn holes_become_gaps_when_given_up() {
    let (text, _) = reassemble(0, &[(0, "ab"), (4, "ef"), (9, "j")], |_| {});
    assert_eq!(text, "ab<2>ef<3>j");
}

#[test]
fn a_gibibyte_away_is_absurd() {
    let (text, _) = reassemble(0, &[(0, "a"), ((1 << 30) + 2, "x"), (1, "b")], |_| {});
    assert_eq!(text, "a!b");
}

#[test]
fn an_acknowledged_hole_is_waited_for_in_vain() {
    reassemble(0, &[(0, "ab"), (4, "ef")], |stream| {
        let spare = &mut Spare::default();
        stream.acknowledge(2, spare);
        assert!(!stream.waits_in_vain() && stream.is_asked_for());
        stream.acknowledge(3, spare);
        assert!(stream.waits_in_vain());
        assert_eq!(stream.give_up_vain(), Some(1));
        assert!(!stream.waits_in_vain() && stream.is_asked_for());
        stream.acknowledge(4, spare);
        assert!(stream.waits_in_vain());
    });
}

#[test]
fn a_cut_segment_leaves_a_gap_of_known_length() {
    let (mut stream, mut counters) = (Stream::default(), Counters::default());
    let run = |seq, payload, missing| Run {
        time: EventTime(0),
        seq,
        payload,
        missing,
        fin: false,
        ack: None,
    };
    stream.start(0);
    assert!(matches!(
        stream.accept(run(10, b"klm", 7), &mut Spare::default(), &mut counters),
        Accepted::Held
    ));
    let first = stream.accept(run(0, b"abc", 7), &mut Spare::default(), &mut counters);
    assert!(matches!(first, Accepted::InOrder { payload: b"abc", missing: 7 }));
    let held = stream.next_held(&mut Spare::default()).unwrap();
    assert_eq!((&*held.data, held.missing, stream.next_seq()), (&b"klm"[..], 7, 20));
    let rest = stream.accept(run(15, b"pqrst", 5), &mut Spare::default(), &mut counters);
    assert!(matches!(rest, Accepted::InOrder { payload: b"", missing: 5 }));
}

#[test]
fn the_fin_is_reached_once_and_in_order() {
    let (mut stream, mut counters) = (Stream::default(), Counters::default());
    let run =
        |seq, payload, fin| Run { time: EventTime(0), seq, payload, missing: 0, fin, ack: None };
    stream.start(0);
    assert!(matches!(
        stream.accept(run(2, b"", true), &mut Spare::default(), &mut counters),
        Accepted::Held
    ));
    assert!(!stream.reach_fin() && stream.waits());
    assert!(matches!(
        stream.accept(run(0, b"ab", false), &mut Spare::default(), &mut counters),
        Accepted::InOrder { .. }
    ));
    assert!(stream.reach_fin() && !stream.reach_fin() && !stream.waits());
}
