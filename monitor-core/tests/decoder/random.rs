//! Random conversations over a random network: everything is seen, or what is lost misleads nobody.

use std::collections::BTreeSet;

use monitor_core::call::{Anomalies, ApiCall};
use monitor_core::decode::Decoder;
use monitor_core::input::{Direction, Input};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;
use proptest::prelude::*;

use crate::model::{self, Conversation, Dice, Expected, HOSTILE, PLAIN, conversation};
use crate::wire::{Packet, Wire, decoder, feed, lines};

fn decode(wire: &Wire, packets: &[Packet]) -> (Vec<ApiCall>, Decoder) {
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, packets);
    (calls, decoder)
}

/// Every request and response number that a call may show, and no call that mixes two.
fn assert_never_mixed(calls: &[ApiCall], expected: &[Expected]) {
    let mut asked = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for call in calls {
        let number = call.request.as_ref().map(|request| request.path.to_string());
        let status = call.response.as_ref().and_then(|response| response.status);
        if let Some(number) = &number {
            assert!(asked.insert(number.clone()), "{number} twice in {:#?}", lines(calls));
        }
        if let Some(status) = status {
            assert!(answered.insert(status), "{status} twice in {:#?}", lines(calls));
        }
        if let (Some(path), Some(status)) = (number, status) {
            let truth = expected.iter().find(|call| call.path == path).expect("a known path");
            assert_eq!(truth.status, status, "{path} in {:#?}", lines(calls));
            if call.complete {
                let mut seen = Expected::of(call).expect("both halves");
                // What was lost may leave a few bytes before it, and the first of them tell the time.
                assert!(seen.time <= truth.time, "{path} in {:#?}", lines(calls));
                seen.time = truth.time;
                assert_eq!(&seen, truth);
            }
            assert!(
                call.complete || call.anomalies.intersects(Anomalies::GAP | Anomalies::TRUNCATED)
            );
        }
    }
}

/// Loses some packets, some of them with notice.
fn lossy(conversation: &Conversation, seed: u64, one_in: usize, first_burst_is_safe: bool) {
    let (wire, expected) = conversation.play();
    let mut dice = Dice(seed);
    let packets = model::cut(&wire.packets, 150, &mut dice);
    let safe_until = if first_burst_is_safe { wire.packets[4].time } else { 0 };
    let mut decoder = decoder(Limits::default());
    let mut lost_bytes = 0;
    for packet in &packets {
        if packet.time > safe_until && !packet.payload.is_empty() && dice.roll(one_in) == 0 {
            lost_bytes += packet.payload.len() as u64;
            if dice.roll(2) == 0 {
                let bytes = packet.payload.len() as u64;
                let time = EventTime(packet.time);
                let direction = packet.direction;
                decoder.handle_input(Input::Lost { time, flow: wire.flow, direction, bytes });
            }
            continue;
        }
        decoder.handle_input(packet.input(wire.flow));
    }
    let calls = feed(&mut decoder, wire.flow, &[]);
    assert_never_mixed(&calls, &expected);
    let counters = decoder.counters();
    assert!(counters.gap_bytes <= lost_bytes, "{} > {lost_bytes}", counters.gap_bytes);
    if lost_bytes == 0 {
        assert_eq!(calls.iter().filter_map(Expected::of).collect::<Vec<_>>(), expected);
    }
    let total = wire.packets.iter().map(|packet| packet.payload.len() as u64).sum::<u64>();
    assert_eq!(counters.payload_bytes + lost_bytes, total);
    assert_eq!(decoder.held_bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn everything_is_seen_whatever_the_network_does(
        conversation in conversation(1..5, HOSTILE),
        seed: u64,
        piece in prop::sample::select(vec![1_usize, 7, 50, 400, 5000]),
        window in prop::sample::select(vec![1_usize, 3, 10]),
    ) {
        let (wire, expected) = conversation.play();
        let mut dice = Dice(seed);
        let mut packets = model::cut(&wire.packets, piece, &mut dice);
        packets = model::repeat(&packets, &mut dice);
        model::shuffle(&mut packets, window, &mut dice);
        let (calls, decoder) = decode(&wire, &packets);
        let seen: Vec<Expected> = calls.iter().filter_map(Expected::of).collect();
        prop_assert_eq!(&seen, &expected, "{:#?}", lines(&calls));
        prop_assert!(calls.iter().all(|call| call.anomalies.is_empty()), "{:#?}", lines(&calls));
        prop_assert_eq!(calls.len(), expected.len());
        let counters = decoder.counters();
        prop_assert_eq!((counters.gaps, counters.overlap_conflicts), (0, 0));
        let bytes = |packets| {
            [Direction::ToServer, Direction::ToClient].map(|way| model::payload_bytes(packets, way))
        };
        let repeated: u64 =
            bytes(&packets).iter().sum::<u64>() - bytes(&wire.packets).iter().sum::<u64>();
        prop_assert_eq!(counters.retransmitted_bytes, repeated);
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn bytes_that_come_again_and_differ_change_nothing_and_are_named(
        conversation in conversation(1..4, HOSTILE),
        seed: u64,
        piece in prop::sample::select(vec![7_usize, 50, 400]),
        window in prop::sample::select(vec![1_usize, 5]),
    ) {
        let (wire, expected) = conversation.play();
        let mut dice = Dice(seed);
        let mut packets = model::cut(&wire.packets, piece, &mut dice);
        model::shuffle(&mut packets, window, &mut dice);
        let conflicts = model::contradict(&mut packets, &mut dice);
        let (calls, decoder) = decode(&wire, &packets);
        let seen: Vec<Expected> = calls.iter().filter_map(Expected::of).collect();
        prop_assert_eq!(&seen, &expected, "{:#?}", lines(&calls));
        let odd = calls.iter().fold(Anomalies::empty(), |odd, call| odd | call.anomalies);
        prop_assert!((odd - Anomalies::OVERLAP_CONFLICT).is_empty(), "{:#?}", lines(&calls));
        prop_assert_eq!(decoder.counters().overlap_conflicts, conflicts);
        prop_assert_eq!(decoder.counters().gaps, 0);
    }

    #[test]
    fn probes_and_data_on_the_syn_change_nothing(
        conversation in conversation(1..4, HOSTILE),
        seed: u64,
        piece in prop::sample::select(vec![1_usize, 50, 5000]),
        fast: bool,
    ) {
        let (wire, expected) = conversation.play();
        let mut dice = Dice(seed);
        let mut packets = model::cut(&wire.packets, piece, &mut dice);
        if fast {
            model::open_fast(&mut packets, &mut dice);
        }
        model::probe(&mut packets, &mut dice);
        let (calls, decoder) = decode(&wire, &packets);
        let mut seen: Vec<Expected> = calls.iter().filter_map(Expected::of).collect();
        if fast {
            // It was sent before the rest of its burst.
            seen.iter_mut().zip(&expected).for_each(|(seen, expected)| {
                (seen.time, seen.latency_us) = (expected.time, expected.latency_us);
            });
        }
        prop_assert_eq!(&seen, &expected, "{:#?}", lines(&calls));
        prop_assert!(calls.iter().all(|call| call.anomalies.is_empty()), "{:#?}", lines(&calls));
        let counters = decoder.counters();
        prop_assert_eq!((counters.gaps, counters.overlap_conflicts), (0, 0));
    }

    #[test]
    fn one_direction_alone_shows_all_that_it_has(
        conversation in conversation(1..4, PLAIN), seed: u64, midstream: bool,
    ) {
        let (wire, expected) = conversation.play();
        let packets = model::cut(&wire.packets, 100, &mut Dice(seed));
        let from = if midstream { 3 } else { 0 };
        let one_way = |way| {
            let packets = packets[from..].iter().filter(|packet| packet.direction == way);
            decode(&wire, &packets.cloned().collect::<Vec<_>>()).0
        };
        let calls = one_way(Direction::ToServer);
        let asked: Vec<_> = calls
            .iter()
            .map(|call| {
                let request = call.request.as_ref().unwrap();
                (request.path.to_string(), request.body_bytes, call.response.is_some())
            })
            .collect();
        let all: Vec<_> =
            expected.iter().map(|it| (it.path.clone(), it.request_bytes, false)).collect();
        prop_assert_eq!(asked, all, "{:#?}", lines(&calls));
        let calls = one_way(Direction::ToClient);
        prop_assert!(calls.iter().all(|call| call.request.is_none()));
        assert_never_mixed(&calls, &expected);
    }

    #[test]
    fn the_hash_seed_changes_nothing(conversation in conversation(1..3, HOSTILE), seed: u64) {
        let (wire, _) = conversation.play();
        let (calls, _) = decode(&wire, &wire.packets);
        let mut other = decoder(Limits::default()).with_hash_seed(seed);
        prop_assert_eq!(calls, feed(&mut other, wire.flow, &wire.packets));
    }

    #[test]
    fn losses_never_mix_calls_of_a_client_that_waits(
        conversation in conversation(1..2, PLAIN), seed: u64, one_in in 2_usize..8,
    ) {
        lossy(&conversation, seed, one_in, false);
    }

    #[test]
    fn losses_never_mix_calls_of_a_client_that_pipelines(
        conversation in conversation(2..5, PLAIN), seed: u64, one_in in 2_usize..8,
    ) {
        lossy(&conversation, seed, one_in, true);
    }

    #[test]
    fn a_start_in_the_middle_never_mixes_calls(
        conversation in conversation(1..2, PLAIN), seed: u64, from: prop::sample::Index,
    ) {
        let (wire, expected) = conversation.play();
        let packets = model::cut(&wire.packets, 100, &mut Dice(seed));
        let packets = &packets[from.index(packets.len())..];
        let (calls, _) = decode(&wire, packets);
        assert_never_mixed(&calls, &expected);
    }
}
