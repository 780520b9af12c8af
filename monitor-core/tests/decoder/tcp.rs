//! Handshakes, ports used again, who is the server, how flows end, and how many there may be.

use std::sync::Arc;
use std::time::Duration;

use monitor_core::call::FlowId;
use monitor_core::decode::Decoder;
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Direction, FlowKey, Input, Open, Owner, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

use crate::wire::{Wire, decoder, feed, flow, line, lines};

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

#[test]
fn data_may_come_with_the_syn() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask(GET).answer(OK);
    wire.packets[0].payload = wire.packets[3].payload.clone();
    wire.packets.remove(3);
    assert_eq!(lines(&wire.decode()), ["GET /a 0 > 200 2"]);
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
            wire.ask(bytes).answer(OK).ask(GET).answer(OK).close();
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
