//! Random HTTP/2 connections: however they are cut, wherever they are joined, whatever is damaged.

use std::collections::BTreeMap;

use monitor_core::call::{Anomalies, ApiCall};
use monitor_core::limits::Limits;
use proptest::prelude::*;

use crate::frames::{
    ACK, DATA, END_STREAM, Encoder, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    settings,
};
use crate::model::{Dice, cut};
use crate::wire::{Packet, Wire, decoder, feed, lines};

const HOSTS: [&str; 3] = ["a.example", "www.example.com", "c.example"];
const AGENTS: [&str; 2] = ["desk/1.0", "bot/2"];

/// A connection whose calls say their number in every place: path `/N`, status 200 + N % 300.
fn play(seed: u64, calls: usize) -> Wire {
    let mut dice = Dice(seed);
    let mut wire = Wire::open(1000, 2000);
    let (mut client, mut server) = (Encoder::new(), Encoder::new());
    wire.ask([PREFACE, &settings(&[(3, 100)])].concat()).answer(settings(&[]));
    wire.ask(frame(SETTINGS, ACK, 0, b"")).answer(frame(SETTINGS, ACK, 0, b""));
    let mut open = Vec::new();
    let mut number = 0;
    while number < calls || !open.is_empty() {
        wire.wait(100);
        match dice.roll(8) {
            0..=2 if number < calls => {
                let (path, bytes) = (format!("/{number}"), dice.roll(300));
                let stream = number as u32 * 2 + 1;
                let fields = [
                    (":method", ["GET", "POST", "PUT"][dice.roll(3)]),
                    (":scheme", "http"),
                    (":authority", HOSTS[dice.roll(3)]),
                    (":path", &path),
                    ("user-agent", AGENTS[dice.roll(2)]),
                ];
                wire.ask(client.headers(stream, bytes == 0, &fields));
                if bytes > 0 {
                    wire.ask(frame(DATA, END_STREAM, stream, &vec![0; bytes]));
                }
                open.push(number);
                number += 1;
            }
            3..=5 if !open.is_empty() => {
                let number = open.swap_remove(dice.roll(open.len()));
                let stream = number as u32 * 2 + 1;
                let status = (200 + number % 300).to_string();
                let fields = [(":status", &*status), ("server", AGENTS[dice.roll(2)])];
                wire.answer(server.headers(stream, false, &fields));
                wire.answer(frame(DATA, 0, stream, &vec![b'x'; dice.roll(3000)]));
                wire.answer(frame(DATA, END_STREAM, stream, &vec![1; dice.roll(20)]));
            }
            6 if !open.is_empty() && dice.roll(3) == 0 => {
                let number = open.swap_remove(dice.roll(open.len()));
                wire.ask(frame(RST_STREAM, 0, number as u32 * 2 + 1, &[0, 0, 0, 8]));
            }
            6 => {
                wire.ask(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]));
            }
            7 if dice.roll(4) == 0 => {
                client.bound([0, 100, 500, 4096][dice.roll(4)]);
                server.bound([0, 100, 500, 4096][dice.roll(4)]);
            }
            _ => {
                wire.answer(frame(PING, 0, 0, &[3; 8]));
            }
        }
    }
    wire.close();
    wire
}

fn decode(wire: &Wire, packets: &[Packet]) -> Vec<ApiCall> {
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, packets);
    assert_eq!(decoder.held_bytes(), 0);
    calls
}

/// Where the handshake was missed, a first segment of one zero byte is taken for a keep-alive probe,
/// and nothing in it says otherwise: frames often begin with a zero.
fn join_lone_zero(packets: &mut Vec<Packet>) {
    if let [first, second, ..] = &mut packets[..]
        && first.payload == [0]
        && !second.payload.is_empty()
        && second.direction == first.direction
    {
        first.payload.append(&mut second.payload);
        packets.remove(1);
    }
}

/// Nothing in a call that the whole connection does not say of the same stream, but for what is
/// empty or `None`.
fn assert_never_wrong(calls: &[ApiCall], truth: &[ApiCall]) {
    let by_stream: BTreeMap<u32, &ApiCall> =
        truth.iter().map(|call| (call.stream_id.unwrap_or(0), call)).collect();
    for call in calls {
        let truth = by_stream[&call.stream_id.unwrap_or(0)];
        if let Some(request) = &call.request {
            let whole = truth.request.as_ref().expect("a request");
            for (seen, said) in [
                (&request.method, &whole.method),
                (&request.path, &whole.path),
                (&request.target, &whole.target),
            ] {
                assert!(seen.is_empty() || seen == said, "{seen} is not {said}");
            }
            assert!(request.host.is_none() || request.host == whole.host);
            assert!(request.user_agent.is_none() || request.user_agent == whole.user_agent);
        }
        if let Some(response) = &call.response
            && let Some(whole) = &truth.response
        {
            assert!(response.status.is_none() || response.status == whole.status);
        }
        if call.complete {
            assert_eq!(lines(&[(*truth).clone()]), lines(std::slice::from_ref(call)));
        }
    }
}

#[test]
fn a_connection_joined_in_its_middle_comes_out_the_same_byte_by_byte() {
    let wire = play(2_311_545_829_399_437_365, 4);
    let packets = &wire.packets[9..];
    let whole = decode(&wire, packets);
    let mut pieces = cut(packets, 1, &mut Dice(0));
    assert_eq!(pieces[0].payload, [0]);
    join_lone_zero(&mut pieces);
    assert_eq!(pieces[0].payload, packets[0].payload[..2]);
    assert_eq!(decode(&wire, &pieces), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn pieces_give_the_same_calls(
        seed: u64, calls in 1_usize..25, piece in prop::sample::select(vec![1_usize, 2, 9, 100]),
        from in prop::sample::select(vec![0_usize, 0, 4, 9, 20]),
    ) {
        let wire = play(seed, calls);
        let packets = &wire.packets[from.min(wire.packets.len() - 1)..];
        let whole = decode(&wire, packets);
        prop_assert!(from > 0 || whole.len() == calls);
        let odd = |call: &ApiCall| !(call.anomalies - Anomalies::STREAM_RESET).is_empty();
        prop_assert!(from > 0 || !whole.iter().any(odd));
        let mut pieces = cut(packets, piece, &mut Dice(seed));
        join_lone_zero(&mut pieces);
        prop_assert_eq!(decode(&wire, &pieces), whole);
    }

    #[test]
    fn who_comes_late_is_never_wrong(
        seed: u64, calls in 5_usize..40, from: prop::sample::Index, within: prop::sample::Index,
    ) {
        let wire = play(seed, calls);
        let truth = decode(&wire, &wire.packets);
        let mut packets = wire.packets[from.index(wire.packets.len())..].to_vec();
        // The first packet may have been cut anywhere.
        if let Some(first) = packets.first_mut().filter(|it| !it.payload.is_empty()) {
            let cut = within.index(first.payload.len());
            first.payload.drain(..cut);
            first.seq = first.seq.wrapping_add(cut as u32);
        }
        assert_never_wrong(&decode(&wire, &packets), &truth);
    }

    #[test]
    fn who_misses_something_is_never_wrong(seed: u64, calls in 5_usize..40, one_in in 3_usize..30) {
        let wire = play(seed, calls);
        let truth = decode(&wire, &wire.packets);
        let mut dice = Dice(seed);
        let pieces = cut(&wire.packets, 400, &mut dice);
        let kept: Vec<Packet> = pieces
            .into_iter()
            .filter(|packet| packet.payload.is_empty() || dice.roll(one_in) > 0)
            .collect();
        assert_never_wrong(&decode(&wire, &kept), &truth);
    }

    #[test]
    fn damage_is_survived(seed: u64, calls in 1_usize..20, one_in in 5_usize..200) {
        let wire = play(seed, calls);
        let mut dice = Dice(seed);
        let mut packets = wire.packets.clone();
        for byte in packets.iter_mut().skip(4).flat_map(|packet| &mut packet.payload) {
            if dice.roll(one_in) == 0 {
                *byte = dice.roll(256) as u8;
            }
        }
        let calls = decode(&wire, &packets);
        prop_assert_eq!(decode(&wire, &cut(&packets, 7, &mut dice)), calls);
    }
}
