//! WebSocket: messages to calls, replies to messages, pushes to channels, and every fault by name.

use monitor_core::call::{Anomalies, ApiCall, Operation, Outcome, Protocol};
use monitor_core::connection::{Connection, Peer, WebSocket};
use monitor_core::decode::{Counters, Decoder};
use monitor_core::input::Direction::{self, ToClient, ToServer};
use monitor_core::limits::Limits;

use crate::websocket_frames::{
    BINARY, CLOSE, Deflater, Frame, PING, PONG, TEXT, ask, compressed, frame, handshake, tell,
    upgraded,
};
use crate::wire::{Wire, decoder, feed, lines};

/// What a Decoder made of a connection.
pub(crate) struct Seen {
    pub(crate) calls: Vec<ApiCall>,
    pub(crate) connection: Connection,
    pub(crate) counters: Counters,
}

impl Seen {
    /// Calls over WebSocket.
    pub(crate) fn messages(&self) -> Vec<&ApiCall> {
        self.calls.iter().filter(|call| call.protocol == Protocol::WebSocket).collect()
    }

    /// The summary.
    pub(crate) fn websocket(&self) -> &WebSocket {
        self.connection.websocket.as_deref().expect("a WebSocket connection")
    }

    /// Each message in a line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let calls: Vec<ApiCall> = self.messages().into_iter().cloned().collect();
        lines(&calls)
    }
}

/// Decodes, and makes sure that nothing is held afterwards.
pub(crate) fn see(wire: &Wire, mut decoder: Decoder) -> Seen {
    let calls = feed(&mut decoder, wire.flow, &wire.packets);
    assert_eq!(decoder.held_bytes(), 0);
    let connection = decoder.poll_connection().expect("a connection");
    Seen { calls, connection, counters: decoder.counters().clone() }
}

/// The same, whatever the size of the pieces.
fn check(talk: impl Fn(&mut Wire), extensions: &str, look: impl Fn(&Seen)) {
    let mut first: Option<Seen> = None;
    for cut in [usize::MAX, 1, 2, 3, 7, 100] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        handshake(&mut wire, extensions);
        talk(&mut wire);
        wire.close();
        let seen = see(&wire, decoder(Limits::default()));
        look(&seen);
        if let Some(first) = &first {
            assert_eq!(first.calls, seen.calls, "pieces of {cut} bytes");
            assert_eq!(first.connection, seen.connection, "pieces of {cut} bytes");
        } else {
            first = Some(seen);
        }
    }
}

#[test]
fn a_message_is_a_call_and_its_reply_the_response() {
    check(
        |wire| {
            let order =
                r#"{"id":"e2a","method":"order.place","params":{"symbol":"BTCUSDT","orderId":42}}"#;
            wire.ask(ask(order)).wait(250);
            wire.answer(tell(r#"{"stream":"btcusdt@trade","data":{}}"#));
            wire.answer(tell(r#"{"id":"e2a","status":200,"result":{"orderId":42}}"#));
            wire.wait(10).ask(ask(r#"{"id":7,"method":"order.cancel","params":{}}"#)).wait(20);
            wire.answer(tell(r#"{"id":7,"status":400,"error":{"code":-1022,"msg":"x"}}"#));
        },
        "",
        |seen| {
            assert_eq!(
                seen.lines(),
                ["order.place /ws 78 > 200 49", "order.cancel /ws 44 > 400 54"]
            );
            let calls = seen.messages();
            let request = calls[0].request.as_ref().unwrap();
            assert_eq!(request.host.as_deref(), Some("stream.example.com"));
            assert_eq!(request.target, "/ws?streams=a&listenKey=[redacted]");
            assert_eq!(request.user_agent.as_deref(), Some("desk/1.0"));
            assert_eq!((calls[0].op, calls[0].latency_us), (Operation::Trade, Some(250)));
            assert_eq!(calls[0].symbol.as_deref(), Some("BTCUSDT"));
            assert_eq!(calls[0].object_ids, ["42"]);
            assert_eq!(calls[0].key, seen.calls[0].key);
            assert!(calls[0].key.is_some() && calls[0].complete);
            assert_eq!(calls[0].outcome, Some(Outcome::Ok));
            assert_eq!(calls[1].op, Operation::Cancel);
            assert_eq!(calls[1].outcome, Some(Outcome::BadSignature));
            let websocket = seen.websocket();
            assert_eq!((websocket.sent.text_messages, websocket.received.text_messages), (2, 3));
            assert_eq!(websocket.channels.len(), 1);
            assert_eq!(seen.connection.protocol, Some(Protocol::WebSocket));
            assert_eq!((seen.connection.calls, seen.counters.websocket_flows), (3, 1));
        },
    );
}

#[test]
fn pushes_are_counted_and_not_given_out() {
    check(
        |wire| {
            wire.ask(ask(r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"A"}]}"#));
            wire.wait(90).answer(tell(
                r#"{"event":"subscribe","arg":{"channel":"tickers","instId":"A"},"connId":"a4d3ae55"}"#,
            ));
            for price in 0..50 {
                let push = format!(
                    r#"{{"arg":{{"channel":"tickers","instId":"A"}},"data":[{{"last":{price}}}]}}"#
                );
                wire.wait(1000).answer(tell(&push));
            }
        },
        "",
        |seen| {
            assert_eq!(seen.lines(), ["subscribe /ws 62 > 0 82"]);
            assert_eq!(seen.messages()[0].latency_us, Some(90));
            let channel = &seen.websocket().channels[0];
            assert_eq!(
                (channel.name.as_str(), channel.subscriptions, channel.pushes),
                ("tickers", 1, 50)
            );
            assert_eq!(seen.websocket().received.text_messages, 51);
        },
    );
}

#[test]
fn fragments_with_control_frames_between() {
    check(
        |wire| {
            let mut part = Frame::new(ToServer, TEXT, r#"{"id":1,"meth"#).unfinished();
            wire.ask(part.bytes()).wait(5);
            wire.ask(frame(ToServer, PING, "hi")).answer(frame(ToClient, PONG, "hi"));
            part = Frame::new(ToServer, 0, r#"od":"time""#).unfinished();
            wire.ask(part.bytes()).wait(5).ask(frame(ToServer, 0, "}")).wait(7);
            wire.answer(tell(r#"{"id":1,"result":5}"#));
        },
        "",
        |seen| {
            assert_eq!(seen.lines(), ["time /ws 24 > 0 19"]);
            let call = seen.messages()[0];
            assert_eq!((call.latency_us, call.anomalies), (Some(7), Anomalies::empty()));
            let sent = &seen.websocket().sent;
            assert_eq!((sent.frames, sent.text_messages, sent.payload_bytes), (4, 1, 24));
            assert_eq!(
                (sent.text.count, sent.continuation.count, sent.continuation.bytes),
                (1, 2, 11)
            );
            assert_eq!((sent.ping.count, seen.websocket().received.pong.bytes), (1, 2));
        },
    );
}

/// RFC 6455, 5.7.
#[test]
fn examples_of_rfc_6455() {
    check(
        |wire| {
            wire.answer([0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
            wire.ask([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
            wire.answer([0x01, 0x03, 0x48, 0x65, 0x6c]).answer([0x80, 0x02, 0x6c, 0x6f]);
            wire.answer([0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
            wire.ask([0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
            wire.answer([&[0x82, 0x7e, 0x01, 0x00][..], &[7; 256]].concat());
            wire.answer([&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65_536]].concat());
        },
        "",
        |seen| {
            assert_eq!(seen.lines(), ["Hello /ws 5 > - incomplete"]);
            let received = &seen.websocket().received;
            assert_eq!((received.text_messages, received.binary_messages), (2, 2));
            assert_eq!((received.payload_bytes, received.ping.bytes), (5 + 5 + 256 + 65_536, 5));
            assert_eq!(seen.websocket().sent.pong.bytes, 5);
            assert_eq!(seen.websocket().anomalies, Anomalies::empty());
        },
    );
}

/// RFC 7692, 7.2.3.
#[test]
fn examples_of_rfc_7692() {
    check(
        |wire| {
            wire.answer([0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
            wire.answer([0x41, 0x03, 0xf2, 0x48, 0xcd])
                .answer([0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00]);
            wire.answer([0xc1, 0x05, 0xf2, 0x00, 0x11, 0x00, 0x00]);
            wire.answer([0xc1, 0x0b, 0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]);
            wire.answer([0xc1, 0x08, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]);
            wire.answer([
                0xc1, 0x0d, 0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ]);
        },
        "permessage-deflate",
        |seen| {
            let received = &seen.websocket().received;
            assert_eq!((received.compressed_messages, received.unreadable_messages), (6, 0));
            assert_eq!((received.inflated_bytes, received.payload_bytes), (30, 30));
            let channel = &seen.websocket().channels[0];
            assert_eq!((channel.name.as_str(), channel.pushes), ("Hello", 6));
        },
    );
}

#[test]
fn compressed_messages_are_read_in_every_agreement() {
    for bits in 8..=15 {
        for takeover in [true, false] {
            let word = if takeover {
                ""
            } else {
                "; client_no_context_takeover; server_no_context_takeover"
            };
            let extensions = format!(
                "permessage-deflate; client_max_window_bits={bits}; server_max_window_bits={bits}{word}"
            );
            let mut wire = upgraded(&extensions);
            let mut sides = [Deflater::new(bits, takeover), Deflater::new(bits, takeover)];
            for id in 0..200 {
                let filler = "abcdefgh".repeat(id % 50);
                let asked = format!(r#"{{"id":{id},"method":"order.place","x":"{filler}"}}"#);
                let told = format!(r#"{{"id":{id},"result":{{"y":"{filler}{id}"}}}}"#);
                wire.wait(100);
                wire.ask(compressed(ToServer, TEXT, sides[0].message(asked.as_bytes())));
                wire.answer(compressed(ToClient, TEXT, sides[1].message(told.as_bytes())));
            }
            wire.close();
            let seen = see(&wire, decoder(Limits::default()));
            assert_eq!(seen.messages().len(), 200);
            for (id, call) in seen.messages().into_iter().enumerate() {
                let filler = 8 * (id % 50);
                let digits = id.to_string().len();
                let request = call.request.as_ref().unwrap();
                assert_eq!(request.body_bytes, (filler + digits + 37) as u64);
                let response = call.response.as_ref().unwrap();
                assert_eq!(response.body_bytes, (filler + 2 * digits + 25) as u64);
                assert!(call.complete && call.anomalies.is_empty());
            }
            let deflate = seen.websocket().deflate.as_ref().unwrap();
            assert_eq!(deflate.client_max_window_bits, bits);
            assert_eq!(deflate.server_no_context_takeover, !takeover);
        }
    }
}

/// A fault of one frame, and what goes on after it.
fn fault(direction: Direction, change: impl Fn(&mut Frame), expected: Anomalies) {
    check(
        |wire| {
            let mut bad = Frame::new(direction, TEXT, r#"{"op":"ping"}"#);
            change(&mut bad);
            let bytes = bad.bytes();
            match direction {
                ToServer => wire.ask(bytes),
                ToClient => wire.answer(bytes),
            };
            wire.ask(ask(r#"{"id":1,"method":"after"}"#)).answer(tell(r#"{"id":1,"result":1}"#));
        },
        "",
        |seen| {
            assert_eq!(seen.websocket().anomalies, expected);
            let last = seen.messages().into_iter().find(|call| {
                call.request.as_ref().is_some_and(|request| request.method == "after")
            });
            assert!(last.is_some_and(|call| call.complete), "{:?}", seen.lines());
        },
    );
}

#[test]
fn faults_are_named() {
    fault(ToServer, |frame| frame.mask = None, Anomalies::BAD_MASKING);
    fault(ToClient, |frame| frame.mask = Some([1, 2, 3, 4]), Anomalies::BAD_MASKING);
    fault(ToServer, |frame| frame.length_bytes = Some(2), Anomalies::LENGTH_NOT_MINIMAL);
    fault(ToServer, |frame| frame.length_bytes = Some(8), Anomalies::LENGTH_NOT_MINIMAL);
    fault(ToServer, |frame| frame.first |= 0x20, Anomalies::BAD_FRAME | Anomalies::CONTENT_UNKNOWN);
    fault(ToServer, |frame| frame.first |= 0x40, Anomalies::BAD_FRAME | Anomalies::CONTENT_UNKNOWN);
    fault(ToServer, |frame| frame.first = 0x83, Anomalies::BAD_FRAME);
    fault(ToServer, |frame| frame.first = 0x09, Anomalies::BAD_FRAME);
    fault(ToServer, |frame| frame.first = 0x80, Anomalies::BAD_FRAGMENT);
    let cut = Anomalies::BAD_FRAGMENT | Anomalies::TRUNCATED;
    fault(ToServer, |frame| frame.first = 0x01, cut);
    fault(ToServer, |frame| frame.payload = vec![b'a', 0xff], Anomalies::NOT_UTF8);
    let long = |frame: &mut Frame| {
        frame.first = 0x80 | PING;
        frame.payload = vec![0; 200];
    };
    fault(ToServer, long, Anomalies::BAD_FRAME);
}

#[test]
fn a_fault_is_in_the_record_of_its_message() {
    let mut bad = Frame::new(ToServer, TEXT, r#"{"id":1,"method":"a"}"#);
    bad.mask = None;
    let mut wire = upgraded("");
    wire.ask(bad.bytes()).answer(tell(r#"{"id":1,"result":1}"#)).close();
    let seen = see(&wire, decoder(Limits::default()));
    assert_eq!(seen.lines(), ["a /ws 21 > 0 19 BAD_MASKING"]);
}

#[test]
fn the_close_is_told_and_what_follows_it() {
    check(
        |wire| {
            let payload = [&4001_u16.to_be_bytes()[..], b"idle"].concat();
            wire.answer(frame(ToClient, CLOSE, payload));
            wire.ask(frame(ToServer, CLOSE, 4001_u16.to_be_bytes()));
            wire.ask(ask("late"));
        },
        "",
        |seen| {
            let websocket = seen.websocket();
            let close = websocket.close.as_ref().unwrap();
            assert_eq!(
                (close.by, close.code, close.reason.as_deref()),
                (Peer::Server, Some(4001), Some("idle"))
            );
            assert_eq!((websocket.sent.close.count, websocket.received.close.bytes), (1, 6));
            assert_eq!(websocket.sent.bytes_after_close, 10);
            assert_eq!(websocket.anomalies, Anomalies::BAD_CLOSE);
            assert!(seen.messages().is_empty());
        },
    );
}

#[test]
fn messages_without_a_reply_are_given_out_alone() {
    check(
        |wire| {
            wire.ask(frame(ToServer, BINARY, [0, 1, 2])).ask(ask("any text"));
            wire.ask(ask(r#"{"id":1,"method":"a"}"#)).wait(40_000_000);
            wire.answer(tell(r#"{"id":1,"result":1}"#));
            wire.ask(ask(r#"{"id":2,"method":"b"}"#));
        },
        "",
        |seen| {
            let expected = [
                "BINARY /ws 3 > - incomplete",
                "TEXT /ws 8 > - incomplete",
                "a /ws 21 > - incomplete",
                "b /ws 21 > - incomplete",
            ];
            assert_eq!(seen.lines(), expected);
        },
    );
}

#[test]
fn bytes_are_named_by_json_alone() {
    check(
        |wire| {
            wire.ask(frame(ToServer, BINARY, "Z")).ask(frame(ToServer, BINARY, "ping"));
            wire.answer(frame(ToClient, BINARY, "pong"));
            wire.ask(frame(ToServer, BINARY, b"[\"Z\",\xff]"));
            wire.ask(frame(ToServer, BINARY, r#"{"id":1,"method":"a"}"#));
            wire.answer(frame(ToClient, BINARY, r#"{"id":1,"result":1}"#));
        },
        "",
        |seen| {
            let expected = [
                "BINARY /ws 1 > - incomplete",
                "BINARY /ws 4 > - incomplete",
                "BINARY /ws 7 > - incomplete",
                "a /ws 21 > 0 19",
            ];
            assert_eq!(seen.lines(), expected);
        },
    );
}

#[test]
fn a_reply_is_waited_for_only_so_long_and_only_by_so_many() {
    let mut wire = upgraded("");
    wire.ask(ask(r#"{"id":1,"method":"a"}"#)).wait(40_000_000);
    wire.answer(frame(ToClient, PING, ""));
    wire.answer(tell(r#"{"id":1,"result":1}"#)).close();
    let seen = see(&wire, decoder(Limits::default()));
    assert_eq!(seen.lines(), ["a /ws 21 > - incomplete"]);
    assert_eq!((seen.websocket().replies_unpaired, seen.counters.replies_timeouts), (1, 1));
    let mut wire = upgraded("");
    for id in 0..5 {
        wire.ask(ask(&format!(r#"{{"id":{id},"method":"a"}}"#)));
    }
    wire.close();
    let limits = Limits { replies_awaited_max: 3, ..Limits::default() };
    let seen = see(&wire, decoder(limits));
    assert_eq!(seen.counters.replies_overflows, 2);
    let overflows = |call: &&ApiCall| call.anomalies.contains(Anomalies::PIPELINE_OVERFLOW);
    assert_eq!(seen.messages().into_iter().filter(overflows).count(), 2);
}

#[test]
fn large_messages_are_measured_and_not_kept() {
    let mut wire = upgraded("");
    wire.cut = 1400;
    let text = format!(r#"{{"id":1,"method":"a","x":"{}"}}"#, "y".repeat(3_000_000));
    wire.ask(ask(&text)).answer(tell(r#"{"id":1,"result":1}"#));
    wire.ask(&ask(&text)[..2_000_000]);
    let mut decoder = decoder(Limits::default());
    for packet in &wire.packets {
        decoder.handle_input(packet.input(wire.flow));
        assert!(decoder.held_bytes() < 30_000, "{}", decoder.held_bytes());
    }
    decoder.finish();
    let calls: Vec<ApiCall> = std::iter::from_fn(|| decoder.poll_call()).skip(1).collect();
    assert_eq!(lines(&calls), ["a /ws 3000028 > 0 19", "a /ws 1999986 > - incomplete TRUNCATED"]);
}

#[test]
fn a_bomb_is_named_and_costs_no_more_than_the_limit() {
    let limits = Limits { message_inflated_bytes_max: 100_000, ..Limits::default() };
    for takeover in [true, false] {
        let word = if takeover { "" } else { "; client_no_context_takeover" };
        let mut wire = upgraded(&format!("permessage-deflate{word}"));
        let mut deflater = Deflater::new(15, takeover);
        for text in [&"a".repeat(99_000), &"b".repeat(5_000_000), &r#"{"id":1}"#.to_string()] {
            wire.ask(compressed(ToServer, TEXT, deflater.message(text.as_bytes())));
        }
        wire.close();
        let seen = see(&wire, decoder(limits.clone()));
        let odd: Vec<Anomalies> = seen.messages().iter().map(|call| call.anomalies).collect();
        let unknown = Anomalies::CONTENT_UNKNOWN;
        let after = if takeover { unknown } else { Anomalies::empty() };
        assert_eq!(odd, [Anomalies::empty(), Anomalies::DEFLATE_BOMB | unknown, after]);
        assert_eq!(seen.counters.websocket_bombs, 1);
    }
}

#[test]
fn a_broken_message_is_named_and_what_refers_to_it_unknown() {
    for takeover in [true, false] {
        let word = if takeover { "" } else { "; server_no_context_takeover" };
        let mut wire = upgraded(&format!("permessage-deflate{word}"));
        let mut deflater = Deflater::new(15, takeover);
        wire.answer(compressed(ToClient, TEXT, deflater.message(b"one")));
        wire.answer(compressed(ToClient, TEXT, vec![0xff; 20]));
        wire.answer(compressed(ToClient, TEXT, deflater.message(b"two")));
        wire.answer(tell("plain")).close();
        let seen = see(&wire, decoder(Limits::default()));
        let websocket = seen.websocket();
        assert_eq!(websocket.received.unreadable_messages, if takeover { 2 } else { 1 });
        assert!(websocket.anomalies.contains(Anomalies::BAD_DEFLATE));
        assert_eq!(websocket.received.text_messages, 4);
    }
}

#[test]
fn secrets_in_messages_are_not_shown() {
    let key = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";
    let mut wire = upgraded("");
    for text in [
        format!(r#"{{"id":1,"method":"{key}","params":{{"apiKey":"{key}","symbol":"{key}"}}}}"#),
        format!(r#"{{"op":"subscribe","args":["{key}"]}}"#),
        format!(r#"{{"op":"auth","args":["{key}",1,"{key}"]}}"#),
        format!(r#"{{"type":"subscribe","channel":"user","token":"{key}"}}"#),
        key.into(),
        format!(r#"["{key}"]"#),
    ] {
        wire.ask(ask(&text));
    }
    wire.answer(tell(&format!(r#"{{"stream":"{key}","data":{{}}}}"#)));
    wire.answer(frame(ToClient, CLOSE, [&[3, 232][..], format!("bad {key}").as_bytes()].concat()));
    wire.close();
    let seen = see(&wire, decoder(Limits::default()));
    assert_eq!(seen.messages().len(), 6);
    let shown = format!("{:?} {:?}", seen.calls, seen.connection);
    for part in key.as_bytes().chunks(12) {
        let part = str::from_utf8(part).unwrap();
        assert!(!shown.contains(part), "{part} in {shown}");
    }
    let names: Vec<&str> = seen.websocket().channels.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["[redacted]", "user"]);
}

#[test]
fn gaps_within_payload_are_passed_over_exactly() {
    let text = format!(r#"{{"id":1,"method":"a","x":"{}"}}"#, "y".repeat(5000));
    for direction in [ToServer, ToClient] {
        let mut wire = upgraded("");
        let from = wire.packets.len();
        wire.cut = 500;
        if direction == ToServer {
            wire.ask(ask(&text));
        } else {
            wire.ask(ask(r#"{"id":1,"method":"a"}"#));
            wire.answer(tell(&text.replace("method", "result")));
        }
        let lost = wire.packets.remove(from + 5);
        assert_eq!(lost.payload.len(), 500);
        wire.answer(tell(r#"{"id":1,"result":1}"#));
        wire.ask(ask(r#"{"id":2,"method":"b"}"#)).answer(tell(r#"{"id":2,"result":1}"#)).close();
        let seen = see(&wire, decoder(Limits::default()));
        let first = match direction {
            ToServer => "a /ws 5028 > 0 19 incomplete GAP",
            ToClient => "a /ws 21 > 0 5028 incomplete GAP",
        };
        assert_eq!(seen.lines(), [first, "b /ws 21 > 0 19"]);
        assert_eq!(seen.counters.websocket_undecoded_bytes, 0);
    }
}

#[test]
fn after_a_gap_between_frames_they_are_found_again() {
    let mut wire = upgraded("");
    let pushes = |wire: &mut Wire, from: usize| {
        for number in from..from + 5 {
            wire.wait(1000).answer(tell(&format!(r#"{{"channel":"ticker","n":{number}}}"#)));
        }
    };
    pushes(&mut wire, 0);
    wire.ask(ask(r#"{"id":1,"method":"a"}"#));
    let from = wire.packets.len();
    wire.answer(tell(r#"{"id":1,"result":1}"#));
    wire.packets.truncate(from);
    pushes(&mut wire, 5);
    wire.ask(ask(r#"{"id":2,"method":"b"}"#)).answer(tell(r#"{"id":2,"result":1}"#)).close();
    let seen = see(&wire, decoder(Limits::default()));
    assert_eq!(seen.lines(), ["b /ws 21 > 0 19", "a /ws 21 > - incomplete GAP"]);
    let websocket = seen.websocket();
    assert_eq!(websocket.channels[0].pushes, 10);
    assert_eq!(websocket.received.undecoded_bytes, 21);
}

#[test]
fn a_gap_costs_the_window_of_a_compressed_direction() {
    for takeover in [true, false] {
        let word = if takeover { "" } else { "; client_no_context_takeover" };
        let mut wire = upgraded(&format!("permessage-deflate{word}"));
        let mut deflater = Deflater::new(15, takeover);
        for id in 0..6 {
            let kept = wire.packets.len();
            let text = format!(r#"{{"id":{id},"method":"a","text":"abcdefgh"}}"#);
            wire.wait(100).ask(compressed(ToServer, TEXT, deflater.message(text.as_bytes())));
            if id == 1 {
                wire.packets.truncate(kept);
            }
        }
        for _ in 0..4 {
            wire.ask(frame(ToServer, PING, ""));
        }
        wire.close();
        let seen = see(&wire, decoder(Limits::default()));
        let names: Vec<String> = seen.lines();
        let unknown = names
            .iter()
            .filter(|line| line.starts_with("TEXT ") && line.contains("CONTENT_UNKNOWN"));
        let known = names.iter().filter(|line| line.starts_with("a "));
        let expected = if takeover { (4, 1) } else { (0, 5) };
        assert_eq!((unknown.count(), known.count()), expected, "{names:#?}");
    }
}

#[test]
fn a_start_in_the_middle_is_recognised_and_nothing_invented() {
    for cut in [usize::MAX, 1, 3, 50] {
        let mut wire = Wire::midstream(1000, 2000);
        wire.cut = cut;
        wire.answer(&tell(&"x".repeat(300))[200..]);
        for id in 0..5 {
            wire.wait(1000).ask(ask(&format!(r#"{{"id":{id},"method":"order.place"}}"#)));
            wire.wait(10).answer(tell(&format!(r#"{{"id":{id},"result":{{}}}}"#)));
        }
        wire.close();
        let seen = see(&wire, decoder(Limits::default()));
        assert_eq!(seen.calls.len(), 5, "{:#?}", lines(&seen.calls));
        let call = &seen.calls[1];
        let request = call.request.as_ref().unwrap();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("order.place", ""));
        assert_eq!((&request.host, &request.user_agent, &call.key), (&None, &None, &None));
        assert!(call.complete && call.anomalies.is_empty());
        assert_eq!(seen.calls[0].anomalies, Anomalies::MIDSTREAM);
        assert_eq!(seen.websocket().received.undecoded_bytes, 104);
    }
}

#[test]
fn compressed_messages_in_the_middle_stay_unknown() {
    let mut wire = Wire::midstream(1000, 2000);
    let mut deflater = Deflater::new(15, true);
    for id in 0..10 {
        let text = format!(r#"{{"id":{id},"method":"order.place"}}"#);
        wire.wait(1000).ask(compressed(ToServer, TEXT, deflater.message(text.as_bytes())));
    }
    wire.close();
    let seen = see(&wire, decoder(Limits::default()));
    assert_eq!(seen.calls.len(), 10);
    assert!(seen.calls.iter().all(|call| {
        call.anomalies.contains(Anomalies::CONTENT_UNKNOWN)
            && call.request.as_ref().is_some_and(|request| request.method == "TEXT")
    }));
}

#[test]
fn the_middle_of_an_http_body_is_not_taken_for_frames() {
    let mut noise = 1_u32;
    let mut body: Vec<u8> = (0..100_000)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise as u8
        })
        .collect();
    // Two frames in a row that are none, as in a body that quotes them.
    body.splice(50_000..50_000, [tell(r#"{"a":"bcdef"}"#), tell(r#"{"a":"bcdef"}"#)].concat());
    let mut wire = Wire::midstream(1000, 2000);
    wire.cut = 1000;
    wire.answer(&body).ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close();
    let (calls, counters) = wire.run();
    assert_eq!(counters.websocket_flows, 0);
    assert_eq!(lines(&calls), ["GET /next 0 > 200 0 MIDSTREAM"]);
}

#[test]
fn windows_go_before_flows_do() {
    let limits = Limits { held_bytes_max: 60_000, ..Limits::default() };
    let mut wire = upgraded("permessage-deflate");
    let mut deflaters = [Deflater::new(15, true), Deflater::new(15, true)];
    let text = |id: usize| {
        let stuff: String =
            (0..4000).map(|at| char::from(b'a' + (at * at * id % 26) as u8)).collect();
        format!(r#"{{"id":{id},"method":"a","x":"{stuff}"}}"#)
    };
    for id in 0..40 {
        wire.ask(compressed(ToServer, TEXT, deflaters[0].message(text(id).as_bytes())));
        wire.answer(compressed(ToClient, TEXT, deflaters[1].message(text(id).as_bytes())));
    }
    wire.close();
    let seen = see(&wire, decoder(limits));
    assert_eq!(seen.counters.windows_dropped, 1);
    assert_eq!(seen.counters.flows_evicted, 0);
    assert_eq!(seen.websocket().sent.unreadable_messages, 0);
    assert!(seen.websocket().received.unreadable_messages > 0);
    assert_eq!(seen.messages().len(), 40);
}
