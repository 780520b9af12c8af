//! What is not captured: exact where the length is known, never paired wrongly where it is not.

use monitor_core::input::{Direction, Input};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

use crate::wire::{Packet, Wire, decoder, feed, lines};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// What a conversation comes to without some of its packets (the handshake is 0 to 2).
fn check(wire: &Wire, lost: &[usize], expected: &[&str]) {
    let keep = |(at, packet): (usize, &Packet)| (!lost.contains(&at)).then(|| packet.clone());
    let packets: Vec<Packet> = wire.packets.iter().enumerate().filter_map(keep).collect();
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, &packets);
    assert_eq!(lines(&calls), expected, "without {lost:?}");
}

/// Three calls, one after the other, in packets 3 to 8.
fn three_calls() -> Wire {
    let mut wire = Wire::open(1000, 2000);
    for path in ["/1", "/2", "/3"] {
        wire.ask(get(path)).answer(OK);
    }
    wire.close();
    wire
}

#[test]
fn a_lost_request_leaves_an_unpaired_response() {
    let unpaired = "- > 200 2 incomplete UNPAIRED_RESPONSE";
    check(&three_calls(), &[3], &[unpaired, "GET /2 0 > 200 2", "GET /3 0 > 200 2"]);
    check(&three_calls(), &[5], &["GET /1 0 > 200 2", unpaired, "GET /3 0 > 200 2"]);
    check(&three_calls(), &[7], &["GET /1 0 > 200 2", "GET /2 0 > 200 2", unpaired]);
}

#[test]
fn a_body_that_begins_like_a_response_is_counted_once() {
    for cut in [1, 3, 40, usize::MAX] {
        let mut wire = Wire::open(1000, 2000);
        wire.ask(get("/1"));
        wire.cut = cut;
        wire.answer("HTTP/1.0 200 OK\r\n\r\nHTTP/1 ok").close();
        check(&wire, &[3], &["- > 200 9 incomplete UNPAIRED_RESPONSE"]);
    }
}

#[test]
fn a_lost_response_leaves_an_unanswered_request() {
    let gap = |path| format!("GET {path} 0 > - incomplete GAP");
    check(&three_calls(), &[4], &[&gap("/1"), "GET /2 0 > 200 2", "GET /3 0 > 200 2"]);
    check(&three_calls(), &[6], &["GET /1 0 > 200 2", &gap("/2"), "GET /3 0 > 200 2"]);
    let cut = "GET /3 0 > - incomplete";
    check(&three_calls(), &[8], &["GET /1 0 > 200 2", "GET /2 0 > 200 2", &gap("/3")]);
    check(&three_calls(), &[8, 9, 10], &["GET /1 0 > 200 2", "GET /2 0 > 200 2", cut]);
}

#[test]
fn a_whole_call_is_lost() {
    check(&three_calls(), &[5, 6], &["GET /1 0 > 200 2", "GET /3 0 > 200 2"]);
    check(&three_calls(), &[3, 4, 5, 6], &["GET /3 0 > 200 2"]);
}

#[test]
fn bodies_of_known_length_are_counted_through() {
    let mut wire = Wire::open(1000, 2000);
    wire.cut = 100;
    let post = format!("POST /up HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{}", "u".repeat(1000));
    let down = format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{}", "d".repeat(2000));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}3e8\r\n{}\r\n0\r\n\r\n", "c".repeat(1000));
    let requests = wire.packets.len();
    wire.ask(post);
    let responses = wire.packets.len();
    wire.answer(down).ask(get("/2"));
    let chunks = wire.packets.len();
    wire.answer(chunked).ask(get("/3")).answer(OK).close();
    let lost = [requests + 2, requests + 3, responses + 5, chunks + 4];
    let expected = [
        "POST /up 1000 > 200 2000 incomplete GAP",
        "GET /2 0 > 200 1000 incomplete GAP",
        "GET /3 0 > 200 2",
    ];
    check(&wire, &lost, &expected);
}

#[test]
fn a_cut_snap_length_is_a_gap_of_known_length() {
    let mut wire = Wire::open(1000, 2000);
    let body = "x".repeat(500);
    wire.ask(format!("POST /a HTTP/1.1\r\nContent-Length: 500\r\n\r\n{body}"));
    wire.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{body}"));
    wire.ask(get("/2")).answer(OK).close();
    for packet in &mut wire.packets {
        packet.missing = packet.payload.len().saturating_sub(96) as u32;
        packet.payload.truncate(96);
    }
    check(&wire, &[], &["POST /a 500 > 200 500 incomplete GAP", "GET /2 0 > 200 2"]);
    let counters = wire.run().1;
    assert_eq!((counters.gaps, counters.gap_bytes > 800), (2, true));
}

#[test]
fn after_a_loss_a_pipelining_client_is_not_paired_again() {
    let mut wire = Wire::open(1000, 2000);
    let burst = |wire: &mut Wire, from: usize| {
        for n in from..from + 3 {
            wire.ask(get(&format!("/{n}")));
        }
        for n in from..from + 3 {
            wire.answer(format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", 200 + n));
        }
    };
    burst(&mut wire, 1);
    burst(&mut wire, 4);
    burst(&mut wire, 7);
    // The second request of the second burst.
    let expected = [
        "GET /1 0 > 201 0",
        "GET /2 0 > 202 0",
        "GET /3 0 > 203 0",
        "GET /6 0 > - incomplete",
        "GET /4 0 > 204 0",
        "- > 205 0 incomplete UNPAIRED_RESPONSE",
        "- > 206 0 incomplete UNPAIRED_RESPONSE",
        "GET /7 0 > - incomplete",
        "GET /8 0 > - incomplete",
        "GET /9 0 > - incomplete",
        "- > 207 0 incomplete UNPAIRED_RESPONSE",
        "- > 208 0 incomplete UNPAIRED_RESPONSE",
        "- > 209 0 incomplete UNPAIRED_RESPONSE",
    ];
    check(&wire, &[10], &expected);
}

#[test]
fn a_hole_is_given_up_after_a_time() {
    // Nothing is heard of the server: nobody acknowledges.
    let mut wire = Wire::open(1000, 2000);
    wire.ask(get("/1")).ask(get("/2")).ask(get("/3"));
    let limits = Limits::default();
    let mut decoder = decoder(limits.clone());
    for (at, packet) in wire.packets.iter().enumerate() {
        if at != 4 {
            decoder.handle_input(packet.input(wire.flow));
        }
    }
    let deadline = EventTime(wire.time).after(limits.reorder_wait_max);
    decoder.handle_input(Input::Tick(EventTime(deadline.0 - 1)));
    assert_eq!((decoder.counters().gaps, decoder.poll_call()), (0, None));
    decoder.handle_input(Input::Tick(deadline));
    let counters = decoder.counters();
    assert_eq!((counters.gaps, counters.gap_bytes), (1, get("/2").len() as u64));
    assert_eq!(counters.reorder_timeouts, 1);
    assert_eq!(lines(&[decoder.poll_call().unwrap()]), ["GET /3 0 > - incomplete"]);
}

#[test]
fn a_hole_that_the_receiver_has_too_is_waited_for() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(get("/1")).ask(get("/2")).ask(get("/3"));
    let limits = Limits::default();
    let mut decoder = decoder(limits.clone());
    let (mut late, mut last) = (wire.packets.remove(4), wire.packets.pop().unwrap());
    for packet in &wire.packets {
        decoder.handle_input(packet.input(wire.flow));
    }
    decoder.handle_input(last.input(wire.flow));
    let mut again = Packet { direction: Direction::ToClient, payload: Vec::new(), ..last.clone() };
    (again.seq, again.ack) = (2001, late.seq);
    decoder.handle_input(again.input(wire.flow));
    for waits in 1..6 {
        let time = EventTime(wire.time).after(limits.reorder_wait_max * waits);
        decoder.handle_input(Input::Tick(time));
        (late.time, last.time) = (time.0, time.0);
    }
    let counters = decoder.counters();
    assert_eq!((counters.gaps, counters.reorder_timeouts), (0, 0));
    decoder.handle_input(late.input(wire.flow));
    decoder.finish();
    let calls: Vec<_> = std::iter::from_fn(|| decoder.poll_call()).collect();
    assert_eq!(lines(&calls), [1, 2, 3].map(|n| format!("GET /{n} 0 > - incomplete")));
    assert_eq!(decoder.counters().gaps, 0);
}

#[test]
fn only_what_was_acknowledged_is_given_up() {
    // The second of five pieces was taken by the client and not captured; the fourth was lost on the
    // way and is sent again.
    let mut wire = Wire::open(1000, 2000);
    wire.ask(get("/1")).answer("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n");
    let first = wire.packets.len();
    for piece in [b'a', b'b', b'c', b'd'] {
        wire.answer([piece; 10]);
    }
    let mut pieces = wire.packets.split_off(first);
    let acks = |upto: &Packet| Packet {
        direction: Direction::ToServer,
        seq: upto.ack,
        ack: upto.seq,
        payload: Vec::new(),
        ..upto.clone()
    };
    let (third, end) = (acks(&pieces[2]), pieces[3].clone());
    pieces.remove(1);
    let lost = pieces.remove(1);
    wire.packets.extend([pieces.remove(0), end, third, lost]);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /1 0 > 200 40 incomplete GAP"]);
    assert_eq!((counters.gaps, counters.gap_bytes), (1, 10));
}

#[test]
fn an_acknowledgement_that_lies_hides_nothing() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(get("/1"));
    let asked = wire.packets.last().unwrap().clone();
    // Bytes that the server has not sent, and never takes for sent.
    let lie = Packet {
        seq: asked.seq.wrapping_add(asked.payload.len() as u32),
        ack: asked.ack.wrapping_add(1_000_000),
        payload: b"x".to_vec(),
        ..asked
    };
    wire.packets.push(lie);
    wire.answer(OK).ask(get("/2")).answer(OK).close();
    let (calls, counters) = wire.run();
    let answers: Vec<_> = calls.iter().filter(|call| call.response.is_some()).collect();
    assert_eq!(answers.len(), 2, "{:#?}", lines(&calls));
    assert_eq!(counters.late_bytes, OK.len() as u64);
}

#[test]
fn announced_losses_are_not_waited_for() {
    for early in [true, false] {
        let mut wire = Wire::open(1000, 2000);
        wire.ask(get("/1")).ask(get("/2")).ask(get("/3"));
        let mut decoder = decoder(Limits::default());
        let lost = |decoder: &mut monitor_core::decode::Decoder| {
            decoder.handle_input(Input::Lost {
                time: EventTime(1_000_000),
                flow: wire.flow,
                direction: Direction::ToServer,
                bytes: get("/2").len() as u64,
            });
        };
        for (at, packet) in wire.packets.iter().enumerate() {
            if at == 4 {
                if early {
                    lost(&mut decoder);
                }
                continue;
            }
            decoder.handle_input(packet.input(wire.flow));
        }
        if !early {
            assert_eq!(decoder.counters().gaps, 0);
            lost(&mut decoder);
        }
        let counters = decoder.counters();
        assert_eq!((counters.gaps, counters.lost_bytes), (1, get("/2").len() as u64));
    }
}

#[test]
fn bytes_that_wait_are_bounded() {
    let limits = Limits {
        reorder_bytes_per_direction_max: 10_000,
        reorder_bytes_max: 15_000,
        ..Limits::default()
    };
    let mut decoder = decoder(limits.clone());
    let mut wires: Vec<Wire> = (1..4)
        .map(|port| {
            let mut wire = Wire::open(1000, 2000);
            wire.flow = crate::wire::flow(port);
            wire
        })
        .collect();
    for wire in &mut wires {
        wire.ask("POST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n").ask("lost");
        wire.packets.truncate(4);
        for _ in 0..90 {
            wire.ask([b'x'; 100]);
        }
        for packet in &wire.packets {
            decoder.handle_input(packet.input(wire.flow));
            let held = decoder.held_bytes();
            // What the flows hold besides, with what was delivered and not acknowledged.
            assert!(held < limits.reorder_bytes_max + 3 * 8000, "{held}");
        }
    }
    let counters = decoder.counters();
    assert!(counters.reorder_evictions >= 3, "{counters:?}");
    assert_eq!(counters.gap_bytes, 3 * 4);
}

#[test]
fn the_answer_to_a_head_that_was_not_seen_has_no_body() {
    let mut wire = Wire::open(1000, 2000);
    // As long as the response that follows it, which would otherwise be taken for its body.
    let head = format!("HTTP/1.1 404 No\r\nContent-Length: {}\r\n\r\n", OK.len());
    wire.ask("HEAD /1 HTTP/1.1\r\n\r\n").answer(head);
    wire.ask(get("/2")).answer(OK).ask(get("/3")).answer(OK).close();
    let expected =
        ["- > 404 0 incomplete UNPAIRED_RESPONSE", "GET /2 0 > 200 2", "GET /3 0 > 200 2"];
    check(&wire, &[3], &expected);
}

#[test]
fn what_waits_behind_a_hole_keeps_its_place_between_the_other_sides_losses() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(&get("/1")[..10]).ask(&get("/1")[10..]).answer(OK);
    wire.ask(get("/2")).answer(OK).ask(get("/3")).answer(OK).close();
    // Half of the first request and the first two responses: the second request is heard of only
    // when the third has been answered.
    check(&wire, &[4, 5, 7], &["GET /2 0 > - incomplete GAP", "GET /3 0 > 200 2"]);
}

#[test]
fn a_request_whose_end_is_lost_is_not_complete() {
    let mut wire = Wire::open(1000, 2000);
    let post = "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc";
    wire.ask("POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").ask("c").answer(OK);
    wire.ask(post).ask("de\r\n0\r\n\r\n").answer(OK).close();
    let expected = ["POST /1 3 > - incomplete GAP", "POST /2 5 > 200 2 incomplete GAP"];
    check(&wire, &[4, 5, 7], &expected);
}

#[test]
fn a_request_head_with_a_hole_says_what_came_before_it() {
    let head = "POST /1 HTTP/1.1\r\nHost: h\r\nUser-";
    for cut in [1, 7, usize::MAX] {
        for (first, expected) in [
            (head, "POST /1 0 > 200 2 incomplete GAP"),
            ("POST /1 HTTP/1.1\r\n", "POST /1 0 > 200 2 incomplete GAP"),
            ("POST /1 HTT", "- > 200 2 incomplete UNPAIRED_RESPONSE"),
        ] {
            let mut wire = Wire::open(1000, 2000);
            wire.cut = cut;
            wire.ask(first);
            let hole = wire.packets.len();
            wire.cut = usize::MAX;
            wire.ask("Agent: me\r\nContent-").ask("Length: 0\r\n\r\n").answer(OK);
            wire.ask(get("/2")).answer(OK).close();
            check(&wire, &[hole], &[expected, "GET /2 0 > 200 2"]);
        }
    }
    let mut wire = Wire::open(1000, 2000);
    wire.ask(head).ask("Agent: me\r\n\r\n").answer(OK).close();
    wire.packets.remove(4);
    let (calls, counters) = wire.run();
    let request = calls[0].request.as_ref().unwrap();
    assert_eq!((request.host.as_deref(), request.user_agent.as_deref()), (Some("h"), None));
    assert_eq!((calls.len(), counters.heads_cut, counters.heads_bad), (1, 1, 0));
}

#[test]
fn an_early_answer_and_the_end_of_the_server_leave_time_for_the_request() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask("POST /1 HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc").answer(OK);
    wire.fin(Direction::ToClient).ask("def").fin(Direction::ToServer);
    check(&wire, &[], &["POST /1 6 > 200 2"]);
    check(&wire, &[6], &["POST /1 6 > 200 2 incomplete GAP"]);
}

#[test]
fn requests_behind_a_lost_one_are_not_given_its_answer() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(get("/1")).ask(get("/2")).ask(get("/3")).answer(OK).answer(OK).answer(OK);
    let unpaired = "- > 200 2 incomplete UNPAIRED_RESPONSE";
    let (two, three) = ("GET /2 0 > - incomplete", "GET /3 0 > - incomplete");
    check(&wire, &[3], &[two, three, unpaired, unpaired, unpaired]);
}

#[test]
fn bytes_that_wait_are_counted_in_a_connection_that_is_not_decoded() {
    // Like TLS, and then not.
    let text = "\x16\x03\x01\x00\x10\x00 and what follows";
    for cut in [1, 7, usize::MAX] {
        let mut wire = Wire::open(1000, 2000);
        wire.ask("lost");
        wire.cut = cut;
        wire.ask(text).close();
        wire.packets.remove(3);
        let mut decoder = decoder(Limits::default());
        feed(&mut decoder, wire.flow, &wire.packets);
        let record = decoder.poll_connection().unwrap();
        assert_eq!(record.bytes_to_server, text.len() as u64, "cut at {cut}");
        assert_eq!(record.missing_bytes, 4);
    }
}
