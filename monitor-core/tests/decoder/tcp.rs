//! Handshakes, ports used again, who is the server, how flows end, and how many there may be.

use std::sync::Arc;
use std::time::Duration;

use monitor_core::call::FlowId;
use monitor_core::decode::Decoder;
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Direction, FlowKey, Input, Open, Owner, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

use crate::wire::{Packet, Wire, decoder, feed, flow, line, lines};

const GET: &str = "GET /a HTTP/1.1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn open(flow: FlowKey, client_isn: u32, server_isn: u32, midstream: bool) -> Input<'static> {
    Input::Open(Open {
        time: EventTime(0),
        flow,
        client_isn,
        client_next: client_isn.wrapping_add(1),
        server_next: server_isn.wrapping_add(1),
        midstream,
    })
}

fn flow_id(wire: &Wire) -> FlowId {
    let calls = wire.decode();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
    calls[0].flow.id
}

#[test]
fn live_and_replayed_flows_have_the_same_id() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).close();
    let id = flow_id(&wire);
    let syn = wire.packets.remove(0);
    assert_eq!(flow_id(&wire), id, "from the SYN-ACK");
    wire.packets.remove(0);
    assert_eq!(flow_id(&wire), id, "from the client's first segment");

    let mut live = decoder(Limits::default());
    live.handle_input(open(wire.flow, 1000, 2000, false));
    live.handle_input(syn.input(wire.flow));
    live.handle_input(open(wire.flow, 1000, 2000, false));
    let calls = feed(&mut live, wire.flow, &wire.packets);
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
    assert_eq!((calls[0].flow.id, live.counters().flows_opened), (id, 1));

    let mut other = Wire::open(1001, 2000);
    other.ask(GET).answer(OK).close();
    assert_ne!(flow_id(&other), id);
}

#[test]
fn a_response_alone_names_the_client_by_its_acknowledgement() {
    let mut wire = Wire::midstream(1000, 2000);
    wire.answer(OK);
    let calls = wire.decode();
    assert_eq!(lines(&calls), ["- > 200 2 incomplete UNPAIRED_RESPONSE"]);
    let mut whole = Wire::open(1000, 2000);
    whole.ask(GET).answer(OK);
    assert_eq!(calls[0].flow.id, flow_id(&whole));
}

#[test]
fn the_server_is_found_without_a_handshake() {
    // The client's port is the lower one here, so that ports alone would be wrong.
    let client_port = 700;
    for (ports, cut) in [(&[8080_u16][..], 1), (&[], 1), (&[], 3), (&[], 100)] {
        for first in [Direction::ToServer, Direction::ToClient] {
            let mut wire = Wire::midstream(1000, 2000);
            (wire.flow, wire.cut) = (flow(client_port), cut);
            if first == Direction::ToClient {
                wire.answer(OK);
            }
            wire.ask(GET).answer(OK);
            let identifier = Identifier::new(Secret::new([0; 32]));
            let mut decoder = Decoder::new(Limits::default(), identifier, ports);
            let calls = feed(&mut decoder, wire.flow, &wire.packets);
            assert_eq!(
                line(calls.last().unwrap()),
                "GET /a 0 > 200 2",
                "{ports:?} {cut} {first:?}"
            );
            assert_eq!(calls.last().unwrap().flow.client, wire.flow.client);
        }
    }
}

#[test]
fn in_the_middle_of_a_body_the_lower_port_is_the_server() {
    let mut wire = Wire::midstream(1000, 2000);
    wire.answer("tail of a body").ask(GET).answer(OK);
    let calls = wire.decode();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2 MIDSTREAM"]);
    assert_eq!(calls[0].flow.client, wire.flow.client);
}

#[test]
fn a_midstream_start_with_a_whole_call_is_not_affected() {
    let mut wire = Wire::midstream(1000, 2000);
    wire.ask(GET).answer(OK);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
    assert_eq!((counters.flows_midstream, counters.skipped_bytes), (1, 0));
}

#[test]
fn a_live_midstream_flow_takes_segments_in_any_order() {
    let mut wire = Wire::midstream(1000, 2000);
    wire.cut = 4;
    wire.ask(GET);
    wire.packets.reverse();
    wire.answer(OK);
    let mut live = decoder(Limits::default());
    live.handle_input(open(wire.flow, 1000, 2000, true));
    let calls = feed(&mut live, wire.flow, &wire.packets);
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
}

/// A SYN with all of a request, and its answer when the server took so many bytes of that.
fn fast_open(taken: usize) -> Wire {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).close();
    wire.packets[0].payload = GET.into();
    wire.packets[1].ack = wire.packets[1].ack.wrapping_add(taken as u32);
    let rest = &mut wire.packets[3];
    rest.seq = rest.seq.wrapping_add(taken as u32);
    rest.payload = GET.as_bytes()[taken..].into();
    wire
}

#[test]
fn data_on_a_syn_counts_as_far_as_the_server_took_it() {
    for taken in [0, 5, GET.len()] {
        for lost in [None, Some(1), Some(2)] {
            let mut wire = fast_open(taken);
            let [syn, reply] = [0, 1].map(|at| wire.packets[at].clone());
            let rest = wire.packets[3].seq;
            wire.packets[2].seq = rest;
            // What is sent again, in the SYN or its answer, changes nothing.
            wire.packets.splice(2..2, [syn, reply]);
            if let Some(lost) = lost {
                wire.packets.retain(|packet| {
                    let is_reply = packet.flags.contains(TcpFlags::SYN | TcpFlags::ACK);
                    if lost == 1 {
                        !is_reply
                    } else {
                        packet.ack == 0
                            || is_reply
                            || packet.seq != rest
                            || !packet.payload.is_empty()
                    }
                });
            }
            let (calls, counters) = wire.run();
            assert_eq!(lines(&calls), ["GET /a 0 > 200 2"], "{taken} {lost:?}");
            assert_eq!(counters.syn_bytes_refused > 0, taken < GET.len());
            assert_eq!(
                (counters.gaps, counters.overlap_conflicts, counters.syns_ignored),
                (0, 0, 0)
            );
        }
    }
}

#[test]
fn data_on_a_syn_that_the_server_refused_is_not_a_request() {
    // The server sees only what comes after the handshake, and that is something else.
    let mut wire = fast_open(0);
    wire.packets[0].payload = b"GET /never HTTP/1.1\r\n\r\n".to_vec();
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
    assert_eq!(counters.overlap_conflicts, 0);
    // Nobody answers, or with a reset.
    for reset in [false, true] {
        let mut wire = fast_open(0);
        wire.packets.truncate(1);
        if reset {
            let end = GET.len() as u32;
            let mut packet = wire.reset(Direction::ToClient).packets.pop().unwrap();
            (packet.flags, packet.seq, packet.ack) = (TcpFlags::RST | TcpFlags::ACK, 0, 1001 + end);
            wire.packets.push(packet);
        }
        let (calls, counters) = wire.run();
        assert_eq!((calls.len(), counters.syn_bytes_refused), (0, GET.len() as u64));
    }
}

#[test]
fn the_last_answer_to_a_syn_counts() {
    // Forged or old segments, and a SYN-ACK of an earlier attempt, before the real one.
    let mut wire = Wire::open(1000, 59_247);
    wire.ask(GET).answer(OK).close();
    let reply = wire.packets[1].clone();
    let odd = |seq, flags| Packet { seq, flags, ..reply.clone() };
    let both = TcpFlags::SYN | TcpFlags::ACK;
    for before in [
        vec![odd(0, TcpFlags::RST | TcpFlags::ACK), odd(0, TcpFlags::FIN | TcpFlags::ACK)],
        vec![odd(2_859_879_429, both), odd(2_829_651_200, both)],
        vec![odd(7, TcpFlags::FIN | TcpFlags::ACK), odd(9, both)],
    ] {
        let mut with = wire.clone();
        with.packets.splice(1..1, before.clone());
        let (calls, counters) = with.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 200 2"], "{before:?}");
        assert_eq!((counters.gaps, counters.segments_absurd), (0, 0), "{before:?}");
    }
}

#[test]
fn an_answer_to_a_syn_that_the_client_has_passed_by_counts_no_more() {
    let mut wire = Wire::open(1000, 59_247);
    wire.ask(GET).answer(OK).close();
    let reply = wire.packets[1].clone();
    let late = Packet { seq: 2_859_879_429, ..reply };
    // Behind the client's ACK, and behind its request.
    for at in [3, 4] {
        let mut with = wire.clone();
        with.packets.insert(at, late.clone());
        let (calls, counters) = with.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 200 2"], "{at}");
        assert_eq!((counters.gaps, counters.segments_absurd), (0, 1), "{at}");
    }
}

#[test]
fn both_ends_may_open_at_once() {
    for (who, later) in
        [(Direction::ToServer, false), (Direction::ToServer, true), (Direction::ToClient, true)]
    {
        let mut wire = Wire::open(1000, 2000);
        match who {
            Direction::ToServer => wire.ask(GET).answer(OK),
            Direction::ToClient => wire.answer(GET).ask(OK),
        };
        wire.close();
        // SYNs cross, then each is sent again with an acknowledgement.
        let [first, reply] = [0, 1].map(|at| wire.packets[at].clone());
        let crossing = Packet { flags: TcpFlags::SYN, ack: 0, ..reply.clone() };
        let again = Packet { flags: reply.flags, ack: 2001, ..first };
        if later {
            wire.packets.splice(1..3, [crossing, again, reply]);
        } else {
            wire.packets.splice(1..3, [crossing]);
        }
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 200 2"], "{who:?} {later}");
        let client = if who == Direction::ToServer { wire.flow.client } else { wire.flow.server };
        assert_eq!(calls[0].flow.client, client);
        assert_eq!((counters.flows_opened, counters.gaps, counters.flows_midstream), (1, 0, 0));
    }
}

#[test]
fn a_restarted_client_breaks_its_old_connection_and_opens_again() {
    // Half-open (RFC 9293, 3.5.1): SYN, an acknowledgement of the old connection, RST, SYN.
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK);
    let mut next = Wire::open(0x4000_0000, 9000);
    next.ask("GET /b HTTP/1.1\r\n\r\n").answer(OK).close();
    let syn = next.packets[0].clone();
    let mut after = wire.packets.last().unwrap().clone();
    after.seq = after.seq.wrapping_add(after.payload.len() as u32);
    after.payload.clear();
    let rst = Packet {
        direction: Direction::ToServer,
        seq: after.ack,
        flags: TcpFlags::RST,
        ..after.clone()
    };
    wire.packets.extend([syn, after, rst]);
    wire.packets.extend_from_slice(&next.packets);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /b 0 > 200 2"]);
    assert_eq!((counters.flows_opened, counters.syns_ignored, counters.gaps), (2, 1, 0));
}

#[test]
fn a_connection_whose_opening_was_missed_follows_one_that_is_over() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).close();
    for isn in [0x2000_0000, 0xe000_0000] {
        let mut next = Wire::midstream(isn, isn);
        next.ask("GET /b HTTP/1.1\r\n\r\n").answer(OK).close();
        let mut both = wire.clone();
        both.packets.extend_from_slice(&next.packets);
        let (calls, counters) = both.run();
        assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /b 0 > 200 2"], "{isn:x}");
        assert_eq!(counters.flows_opened, 2);
    }
}

#[test]
fn a_reset_carries_no_bytes_of_the_stream() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(&OK[..OK.len() - 2]).reset(Direction::ToClient);
    wire.packets.last_mut().unwrap().payload = b"ok".to_vec();
    assert_eq!(lines(&wire.decode()), ["GET /a 0 > 200 0 incomplete TRUNCATED"]);
}

#[test]
fn a_reset_gives_out_what_is_in_flight() {
    // Neither the rest of the body nor the reset was acknowledged; a piece is missing before it.
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n0123456789");
    wire.answer("0123456789").answer("0123456789").reset(Direction::ToServer);
    wire.packets.remove(5);
    assert_eq!(lines(&wire.decode()), ["GET /a 0 > 200 30 incomplete GAP"]);
}

#[test]
fn a_fin_comes_with_the_last_bytes_and_again() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer("HTTP/1.1 200 OK\r\n\r\nuntil close").close();
    let fin = wire.packets.remove(5);
    wire.packets[4].flags = fin.flags;
    let [with_data, client] = [4, 5].map(|at| wire.packets[at].clone());
    wire.packets.extend([with_data, fin, client]);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 11"]);
    assert_eq!((counters.gaps, counters.overlap_conflicts, counters.flows_opened), (0, 0, 1));
}

#[test]
fn one_direction_alone_is_given_out() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).ask("GET /b HTTP/1.1\r\n\r\n").answer(OK).close();
    wire.wait(61_000_000).ask("x");
    let last = EventTime(wire.packets.pop().unwrap().time);
    let both = "incomplete UNPAIRED_RESPONSE";
    for (way, expected) in [
        (
            Direction::ToServer,
            ["GET /a 0 > - incomplete GAP".into(), "GET /b 0 > - incomplete GAP".into()],
        ),
        (Direction::ToClient, [format!("- > 200 2 {both}"), format!("- > 200 2 {both}")]),
    ] {
        for from in [0, 3] {
            let mut decoder = decoder(Limits::default());
            let seen = wire.packets[from..].iter().filter(|packet| packet.direction == way);
            seen.for_each(|packet| decoder.handle_input(packet.input(wire.flow)));
            // No end of the other direction can come: it is not waited for.
            decoder.handle_input(Input::Tick(last));
            let calls: Vec<_> = std::iter::from_fn(|| decoder.poll_call()).collect();
            assert_eq!(lines(&calls), expected, "{way:?} from {from}");
            assert_eq!(decoder.flows(), 0);
        }
    }
}

#[test]
fn bytes_that_come_again_and_differ_are_named() {
    let check = |change: fn(&mut Wire, &str), expected: &[&str], conflicts| {
        let mut wire = Wire::open(1000, 2000);
        wire.ask(GET);
        change(&mut wire, &GET.replace("/a", "/b"));
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), expected);
        assert_eq!(counters.overlap_conflicts, conflicts);
    };
    // After the first was delivered and before it is acknowledged.
    check(
        |wire, other| {
            wire.packets.push(Packet { payload: other.into(), ..wire.packets[3].clone() });
            wire.answer(OK).ask(GET).answer(OK);
        },
        &["GET /a 0 > 200 2 OVERLAP_CONFLICT", "GET /a 0 > 200 2"],
        1,
    );
    // A part of it, with bytes that are new.
    check(
        |wire, other| {
            let mut packet = wire.packets[3].clone();
            (packet.seq, packet.payload) = (packet.seq + 3, other.as_bytes()[3..].into());
            packet.payload.extend_from_slice(b"GET /c HTTP/1.1\r\n");
            wire.packets.push(packet);
            wire.ask("GET /c HTTP/1.1\r\n").ask("\r\n").answer(OK).answer(OK);
        },
        &["GET /a 0 > 200 2 OVERLAP_CONFLICT", "GET /c 0 > 200 2"],
        1,
    );
    // Once it is acknowledged the receiver has made its choice, and nothing is kept.
    check(
        |wire, other| {
            wire.answer(OK);
            wire.packets.push(Packet { payload: other.into(), ..wire.packets[3].clone() });
        },
        &["GET /a 0 > 200 2"],
        0,
    );
}

#[test]
fn a_conflict_behind_a_whole_answer_is_in_the_connections_record() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK);
    let mut again = wire.packets[4].clone();
    again.payload = OK.replace("200 OK", "500 No").into();
    wire.packets.push(again);
    wire.ask(GET).answer(OK).close();
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, &wire.packets);
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /a 0 > 200 2"]);
    assert_eq!(decoder.poll_connection().unwrap().overlap_conflicts, 1);
}

#[test]
fn keep_alive_probes_may_hold_any_byte() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET);
    for byte in [0, b'x'] {
        let mut probe = wire.packets[3].clone();
        probe.seq = probe.seq.wrapping_add(GET.len() as u32 - 1);
        probe.payload = vec![byte];
        wire.packets.push(probe);
    }
    wire.answer(OK);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2"]);
    assert_eq!((counters.overlap_conflicts, counters.gaps), (0, 0));
    // The first that is seen of an idle connection.
    let mut wire = Wire::midstream(1000, 2000);
    wire.ask("\0");
    wire.packets[0].seq = wire.packets[0].seq.wrapping_sub(1);
    let mut rest = Wire::midstream(1000, 2000);
    rest.ask(GET).answer(OK);
    wire.packets.extend(rest.packets);
    assert_eq!(lines(&wire.decode()), ["GET /a 0 > 200 2"]);
}

#[test]
fn urgent_data_is_named() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).ask(GET).answer(OK);
    wire.packets[5].flags |= TcpFlags::URG;
    let expected = ["GET /a 0 > 200 2", "GET /a 0 > 200 2 URGENT_DATA"];
    assert_eq!(lines(&wire.decode()), expected);
}

#[test]
fn ports_are_used_again() {
    let mut first = Wire::open(1000, 2000);
    first.ask(GET).answer(OK).ask("GET /open HTTP/1.1\r\n\r\n");
    let mut second = Wire::open(0x7000_0000, 5);
    second.ask("GET /b HTTP/1.1\r\n\r\n").answer(OK);
    for end in ["", "close", "reset"] {
        let mut packets = first.packets.clone();
        let mut last = Wire::open(1000, 2000);
        last.packets.clear();
        last.ask(GET).ask("GET /open HTTP/1.1\r\n\r\n").answer(OK);
        let from = last.packets.len();
        match end {
            "close" => drop(last.close()),
            "reset" => drop(last.reset(Direction::ToClient)),
            _ => {}
        }
        packets.extend_from_slice(&last.packets[from..]);
        packets.extend_from_slice(&second.packets);
        let mut decoder = decoder(Limits::default());
        let calls = feed(&mut decoder, first.flow, &packets);
        let expected = ["GET /a 0 > 200 2", "GET /open 0 > - incomplete", "GET /b 0 > 200 2"];
        assert_eq!(lines(&calls), expected, "{end}");
        assert_ne!(calls[1].flow.id, calls[2].flow.id);
        assert_eq!(decoder.counters().flows_opened, 2);
    }
}

#[test]
fn a_forged_syn_or_reset_does_not_end_a_flow() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK);
    let mut forged = wire.packets[0].clone();
    forged.seq = 77_000;
    wire.packets.push(forged);
    wire.ask("GET /b HTTP/1.1\r\n\r\n").answer(OK);
    wire.reset(Direction::ToServer);
    wire.ask("GET /c HTTP/1.1\r\n\r\n").answer(OK).close();
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /b 0 > 200 2", "GET /c 0 > 200 2"]);
    assert_eq!((counters.syns_ignored, counters.flows_opened), (1, 1));
    assert!(calls.iter().all(|call| call.flow == calls[0].flow));
}

#[test]
fn late_segments_of_a_closed_flow_open_none() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).close();
    let late = wire.packets[3..].to_vec();
    wire.packets.extend(late);
    let (calls, counters) = wire.run();
    assert_eq!((calls.len(), counters.flows_opened), (1, 1));
}

#[test]
fn what_is_not_http_is_counted_and_left_alone() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03GET / HTTP/1.1\r\n\r\n";
    for (bytes, expected) in
        [(&hello[..], (1, 0)), (b"SSH-2.0-OpenSSH_9.6\r\n", (0, 1)), (b"x", (0, 1))]
    {
        for cut in [usize::MAX, 1] {
            let mut wire = Wire::open(1000, 2000);
            wire.cut = cut;
            wire.ask(bytes).answer("SSH-2.0-OpenSSH_9.6\r\n").ask(GET).answer(OK).close();
            if bytes.len() == 1 {
                wire.packets.truncate(4);
            }
            let (calls, counters) = wire.run();
            assert_eq!(calls.len(), 0);
            assert_eq!((counters.tls_flows, counters.flows_not_http), expected);
        }
    }
}

#[test]
fn an_answer_to_what_is_no_request_is_seen() {
    let unpaired = "- > 200 2 incomplete UNPAIRED_RESPONSE";
    for cut in [usize::MAX, 1, 3] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        wire.ask("\u{dd}GET / HTTP/1.1\r\n\r\n").answer(OK).ask(GET).answer(OK).close();
        let (calls, counters) = wire.run();
        assert_eq!(lines(&calls), [unpaired, "GET /a 0 > 200 2 BAD_HEAD"]);
        assert_eq!((counters.heads_bad, counters.flows_not_http), (1, 0));
    }
}

#[test]
fn an_answer_to_what_is_no_request_is_not_waited_for_without_end() {
    let head_bytes_max = 100;
    for (bytes, calls, others) in [(92, 1, 0), (93, 0, 1)] {
        for cut in [usize::MAX, 1, 7] {
            let mut wire = Wire::open(1000, 2000);
            wire.cut = cut;
            wire.ask("8=NIX.4.").ask("x".repeat(bytes)).answer(OK).close();
            let mut decoder = decoder(Limits { head_bytes_max, ..Limits::default() });
            assert_eq!(feed(&mut decoder, wire.flow, &wire.packets).len(), calls, "{bytes}");
            assert_eq!(decoder.counters().flows_not_http, others);
        }
    }
}

#[test]
fn the_owner_may_come_between_request_and_response() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).ask(GET).answer(OK);
    let mut decoder = decoder(Limits::default());
    let owner = Owner { process: "nginx".into(), pid: 812, container: None };
    let (before, after) = wire.packets.split_at(4);
    before.iter().for_each(|packet| decoder.handle_input(packet.input(wire.flow)));
    decoder.handle_input(Input::Owner { flow: wire.flow, owner: Arc::new(owner) });
    let calls = feed(&mut decoder, wire.flow, after);
    assert_eq!(calls[0].flow.process.as_deref(), Some("nginx"));
    assert!(Arc::ptr_eq(&calls[0].flow, &calls[1].flow));
}

#[test]
fn a_closed_socket_gives_out_what_waits() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET);
    let mut decoder = decoder(Limits::default());
    for packet in &wire.packets {
        decoder.handle_input(packet.input(wire.flow));
    }
    assert_eq!(decoder.poll_call(), None);
    decoder.handle_input(Input::Close { time: EventTime(9), flow: wire.flow });
    assert_eq!(decoder.poll_call().as_ref().map(line).as_deref(), Some("GET /a 0 > - incomplete"));
    assert_eq!((decoder.flows(), decoder.held_bytes()), (0, 0));
}

#[test]
fn idle_flows_are_dropped_with_what_they_hold() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET);
    let limits = Limits::default();
    let mut decoder = decoder(limits.clone());
    for packet in &wire.packets {
        decoder.handle_input(packet.input(wire.flow));
    }
    let late = EventTime(wire.time).after(limits.idle_max);
    decoder.handle_input(Input::Tick(late));
    assert_eq!((decoder.poll_call(), decoder.flows()), (None, 1));
    decoder.handle_input(Input::Tick(late.after(Duration::from_nanos(1))));
    let call = decoder.poll_call().unwrap();
    assert_eq!(line(&call), "GET /a 0 > - incomplete EVICTED");
    assert_eq!((decoder.flows(), decoder.counters().flows_expired), (0, 1));
}

#[test]
fn a_syn_flood_pushes_out_no_flow_in_use() {
    let mut decoder = decoder(Limits { flows_max: 10, ..Limits::default() });
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK).ask(GET);
    wire.packets.iter().for_each(|packet| decoder.handle_input(packet.input(wire.flow)));
    for port in 1..5000 {
        decoder.handle_input(Wire::open(1, 1).packets[0].input(flow(port)));
        assert!(decoder.flows() <= 10);
    }
    assert_eq!(decoder.counters().flows_evicted, 4999 - 9);
    let from = wire.packets.len();
    wire.answer(OK);
    let calls = feed(&mut decoder, wire.flow, &wire.packets[from..]);
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /a 0 > 200 2"]);
}

#[test]
fn the_flow_used_longest_ago_goes_first() {
    let mut decoder = decoder(Limits { flows_max: 2, ..Limits::default() });
    for port in [1, 2, 1, 3] {
        let mut wire = Wire::open(1000, 2000);
        wire.flow = flow(port);
        wire.ask(GET);
        wire.packets.iter().for_each(|packet| decoder.handle_input(packet.input(wire.flow)));
    }
    let call = decoder.poll_call().unwrap();
    assert_eq!(
        (line(&call).as_str(), call.flow.client.port),
        ("GET /a 0 > - incomplete EVICTED", 2)
    );
    assert_eq!((decoder.poll_call(), decoder.counters().flows_evicted), (None, 1));
}

#[test]
fn memory_held_is_bounded_over_all_flows() {
    let limits = Limits { held_bytes_max: 100_000, ..Limits::default() };
    let mut decoder = decoder(limits.clone());
    for port in 1..200 {
        let mut wire = Wire::open(1000, 2000);
        wire.flow = flow(port);
        wire.ask(format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000)));
        for packet in &wire.packets {
            decoder.handle_input(packet.input(wire.flow));
        }
        assert!(decoder.held_bytes() < limits.held_bytes_max + 800 * decoder.flows());
    }
    assert!(decoder.counters().flows_evicted_for_memory > 150);
}

#[test]
fn keep_alive_and_window_probes_are_harmless() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET);
    // One old byte, as keep-alive probes have it (RFC 9293, 3.8.4).
    let mut probe = wire.packets.last().unwrap().clone();
    probe.seq = probe.seq.wrapping_add(probe.payload.len() as u32 - 1);
    probe.payload = vec![0];
    wire.packets.push(probe);
    wire.answer(OK);
    // One new byte into a closed window, sent again with the rest.
    let at = wire.packets.len();
    wire.ask("GET /b HTTP/1.1\r\n\r\n");
    let mut probe = wire.packets[at].clone();
    probe.payload.truncate(1);
    wire.packets.insert(at, probe);
    wire.answer(OK);
    let (calls, counters) = wire.run();
    assert_eq!(lines(&calls), ["GET /a 0 > 200 2", "GET /b 0 > 200 2"]);
    assert_eq!((counters.retransmitted_bytes, counters.gaps), (2, 0));
    assert_eq!(wire.packets[0].flags, TcpFlags::SYN);
}
