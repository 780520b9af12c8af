//! Bytes and segments that nobody sends in good faith: no panic, no growth, the same every time.

use std::time::Duration;

use monitor_core::call::ApiCall;
use monitor_core::decode::Counters;
use monitor_core::input::{Direction, Input, Open, TcpFlags};
use monitor_core::limits::{Http2Limits, Limits};
use monitor_core::time::EventTime;
use proptest::prelude::*;

use crate::model::{self, Dice, HOSTILE, conversation};
use crate::wire::{Packet, Wire, decoder, flow, lines};

/// Small bounds, so that they are met.
fn limits() -> Limits {
    Limits {
        flows_max: 4,
        reorder_bytes_per_direction_max: 3000,
        reorder_bytes_max: 5000,
        reorder_wait_max: Duration::from_micros(50),
        head_bytes_max: 300,
        headers_max: 4,
        pipeline_max: 3,
        early_bytes_max: 100,
        tunnels_max: 2,
        body_prefix_bytes: 16,
        idle_max: Duration::from_millis(5),
        closed_max: Duration::from_millis(1),
        held_bytes_max: 30_000,
        http2: Http2Limits {
            streams_max: 3,
            table_bytes_max: 200,
            search_bytes_max: 400,
            continuations_max: 2,
            resets_burst: 2,
            controls_burst: 4,
            ..Http2Limits::default()
        },
        message_prefix_bytes: 64,
        message_inflated_bytes_max: 1 << 10,
        replies_awaited_max: 3,
        channels_max: 3,
        ..Limits::default()
    }
}

/// Feeds packets of a few flows with other inputs between, and looks at the bounds after each.
fn run(packets: &[Packet], seed: u64) -> (Vec<ApiCall>, Counters) {
    let (limits, mut dice) = (limits(), Dice(seed));
    let mut decoder = decoder(limits.clone());
    let mut calls = Vec::new();
    for packet in packets {
        let time = EventTime(packet.time);
        let flow = flow(dice.roll(6) as u16);
        let direction = packet.direction;
        match dice.roll(40) {
            0 => decoder.handle_input(Input::Lost { time, flow, direction, bytes: packet.time }),
            1 => decoder.handle_input(Input::Close { time, flow }),
            2 => decoder.handle_input(Input::Open(Open {
                time,
                flow,
                client_isn: packet.ack,
                client_next: packet.seq,
                server_next: packet.ack,
                midstream: dice.roll(2) == 0,
            })),
            3 => decoder.handle_input(Input::Tick(time.after(Duration::from_micros(100)))),
            _ => decoder.handle_input(packet.input(flow)),
        }
        calls.extend(std::iter::from_fn(|| decoder.poll_call()));
        assert!(decoder.flows() <= limits.flows_max);
        let bound = limits.held_bytes_max + decoder.flows() * 2000;
        assert!(decoder.held_bytes() <= bound, "{} > {bound}", decoder.held_bytes());
    }
    decoder.finish();
    calls.extend(std::iter::from_fn(|| decoder.poll_call()));
    assert_eq!((decoder.held_bytes(), decoder.flows()), (0, 0));
    assert_eq!(decoder.counters().calls, calls.len() as u64);
    (calls, decoder.counters().clone())
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let words = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 18446744073709551615\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n\r\n",
        b"x: y\r\n",
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        b"\x81\x05Hello",
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x01\x03{\"i\x89\x00\x80\x05d\":1}",
        b"\x81\x7f\0\0\0\0\x7f\xff\xff\xff",
        b"\x88\x02\x03\xe8",
        b"\0",
    ]);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(words, 0..9).prop_map(|words| words.concat()),
    ];
    let number = || prop_oneof![4 => 0_u32..400, 1 => any::<u32>()];
    let flags = any::<u8>().prop_map(|bits| {
        // Mostly plain data.
        if bits < 200 { TcpFlags::ACK } else { TcpFlags::from_bits_truncate(bits) }
    });
    let missing = prop_oneof![9 => Just(0_u32), 1 => any::<u32>()];
    (0_u64..10_000_000, any::<bool>(), number(), number(), flags, payload, missing).prop_map(
        |(time, up, seq, ack, flags, payload, missing)| Packet {
            time,
            direction: if up { Direction::ToServer } else { Direction::ToClient },
            seq,
            ack,
            flags,
            payload,
            missing,
        },
    )
}

/// Changes a few bytes, numbers and flags.
fn spoil(packets: &mut [Packet], dice: &mut Dice) {
    for packet in packets {
        if dice.roll(8) != 0 {
            continue;
        }
        match dice.roll(6) {
            0 => packet.seq = packet.seq.wrapping_add(dice.roll(3000) as u32).wrapping_sub(1500),
            1 => packet.ack = packet.ack.wrapping_add(dice.roll(3000) as u32).wrapping_sub(1500),
            2 => packet.flags = TcpFlags::from_bits_truncate(dice.roll(256) as u8),
            3 => packet.missing = dice.roll(5000) as u32,
            4 => packet.direction = packet.direction.reverse(),
            _ => {
                let at = dice.roll(packet.payload.len());
                if let Some(byte) = packet.payload.get_mut(at) {
                    *byte = dice.roll(256) as u8;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_segments(packets in prop::collection::vec(any_packet(), 0..150), seed: u64) {
        prop_assert_eq!(run(&packets, seed), run(&packets, seed));
    }

    #[test]
    fn spoilt_conversations(
        conversation in conversation(1..5, HOSTILE),
        seed: u64,
        piece in prop::sample::select(vec![1_usize, 20, 300]),
    ) {
        let (wire, _) = conversation.play();
        let mut dice = Dice(seed);
        let mut packets = model::cut(&wire.packets, piece, &mut dice);
        packets = model::repeat(&packets, &mut dice);
        spoil(&mut packets, &mut dice);
        model::shuffle(&mut packets, 5, &mut dice);
        prop_assert_eq!(run(&packets, seed), run(&packets, seed));
    }

    #[test]
    fn any_bytes_give_the_same_whatever_the_pieces(
        up in prop::collection::vec(any_packet(), 0..20),
        down in prop::collection::vec(any_packet(), 0..20),
        piece in 1_usize..20,
        seed: u64,
    ) {
        let bytes = |packets: &[Packet]| packets.iter().flat_map(|it| it.payload.clone()).collect::<Vec<u8>>();
        let mut wire = Wire::open(5, 6);
        wire.ask("GET /first HTTP/1.1\r\n\r\n").ask(bytes(&up)).answer(bytes(&down)).close();
        let whole = wire.decode();
        wire.packets = model::cut(&wire.packets, piece, &mut Dice(seed));
        let pieces = wire.decode();
        prop_assert_eq!(lines(&whole), lines(&pieces));
        prop_assert_eq!(whole, pieces);
    }
}

#[test]
fn single_bytes_out_of_order_are_bounded() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    let limits = Limits { reorder_bytes_per_direction_max: 50_000, ..Limits::default() };
    let mut decoder = decoder(limits.clone());
    wire.cut = 1;
    wire.ask("x".repeat(20_000));
    wire.packets.iter().filter(|packet| packet.seq % 2 == 0).for_each(|packet| {
        decoder.handle_input(packet.input(wire.flow));
        assert!(decoder.held_bytes() < limits.reorder_bytes_per_direction_max + 3000);
    });
    assert!(decoder.counters().reorder_evictions > 9000, "{:?}", decoder.counters());
}

#[test]
fn a_pipeline_without_end_is_bounded_and_stays_in_step() {
    let limits = Limits { pipeline_max: 5, ..Limits::default() };
    let mut decoder = decoder(limits);
    let mut wire = Wire::open(1000, 2000);
    for n in 0..100 {
        wire.ask(format!("GET /{n} HTTP/1.1\r\n\r\n"));
    }
    for n in 0..100 {
        wire.answer(format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", 200 + n));
    }
    wire.ask("GET /last HTTP/1.1\r\n\r\n").answer("HTTP/1.1 300 x\r\nContent-Length: 0\r\n\r\n");
    for packet in &wire.packets {
        decoder.handle_input(packet.input(wire.flow));
    }
    let calls: Vec<String> =
        std::iter::from_fn(|| decoder.poll_call()).map(|call| crate::wire::line(&call)).collect();
    assert_eq!(calls.len(), 100 + 95 + 1);
    assert_eq!(calls[0], "GET /5 0 > - incomplete PIPELINE_OVERFLOW");
    assert_eq!(
        calls[95..100].join(";"),
        "GET /0 0 > 200 0;GET /1 0 > 201 0;GET /2 0 > 202 0;GET /3 0 > 203 0;GET /4 0 > 204 0"
    );
    assert_eq!(calls[100], "- > 205 0 incomplete UNPAIRED_RESPONSE");
    assert_eq!(calls[195], "GET /last 0 > 300 0");
    assert_eq!(decoder.counters().pipeline_overflows, 95);
}
