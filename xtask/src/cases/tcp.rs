//! What TCP and capture files can do to the same bytes.

use std::time::Duration;

use monitor_core::input::{Direction, TcpFlags};

use super::Case;
use super::capture::{Format, Link, Packet};
use super::container::Container;
use super::conversation::{Conversation, interleave, swap_with_next};
use super::http::{get, ok, reply, request};

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![
        Case::new("link-ethernet", everyday()),
        Case::new("link-vlan", everyday()).link(Link::Vlan),
        Case::new("link-sll", everyday()).link(Link::Sll),
        Case::new("link-sll2", everyday()).link(Link::Sll2),
        Case::new("link-raw", everyday()).link(Link::Raw),
        Case::new("link-null", everyday()).link(Link::Null),
        Case::new("link-loop", everyday()).link(Link::Loop),
        Case::new("vxlan", everyday()).link(Link::Vxlan),
        Case::new("fragments", everyday()).link(Link::Fragments),
        Case::new("fragments-ipv6", everyday_v6()).link(Link::Fragments),
        Case { format: Format::BigNanos, ..Case::new("big-endian-nanos", everyday()) },
        kept("gzip", Container::Gzip),
        kept("zstd", Container::Zstd),
        kept("pcapng", Container::PcapngLittle),
        kept("pcapng-big-endian", Container::PcapngBig),
        Case::new("ipv6", everyday_v6()),
        Case::new("ipv6-null", everyday_v6()).link(Link::Null),
        out_of_order(),
        sequence_wrap(),
        gap(),
        midstream(),
        port_reuse(),
        reset(),
        Case { snap_bytes: 200, ..Case::new("snap-length", large()) },
        Case { cut_bytes: 40, ..Case::new("truncated-file", everyday()) },
        many_flows(),
        fast_open(),
        simultaneous_open(),
        handshake_again(),
        overlap_conflict(),
        keep_alive(),
        one_direction("only-requests", Direction::ToServer),
        one_direction("only-responses", Direction::ToClient),
        late_retransmission(),
    ]
}

fn kept(name: &'static str, container: Container) -> Case {
    Case { container, ..Case::new(name, everyday()) }
}

/// Two calls on one connection.
fn everyday() -> Vec<Packet> {
    two_calls(Conversation::everyday())
}

fn everyday_v6() -> Vec<Packet> {
    two_calls(Conversation::between("[2001:db8::9]:51512", "[2001:db8:1::5]:8080"))
}

fn two_calls(mut talk: Conversation) -> Vec<Packet> {
    talk.open()
        .ask(get("/first", ""))
        .answer(ok("one"))
        .ask(request("POST", "/second", "", "payload"))
        .answer(reply("403 Forbidden", "no"))
        .close();
    talk.packets()
}

/// A reply of seven segments.
fn large() -> Vec<Packet> {
    let mut talk = Conversation::everyday();
    let body = "0123456789".repeat(1000);
    talk.open().ask(get("/large", "")).answer(ok(&body)).ask(get("/small", "")).answer(ok("s"));
    talk.close();
    talk.packets()
}

/// Swapped segments, one sent twice, and one sent again together with what follows it. The bytes
/// agree everywhere, so nothing is odd about the calls.
fn out_of_order() -> Case {
    let mut packets = large();
    // 0 to 2 open, 3 asks, 4 to 10 answer.
    let mut both = packets[7].clone();
    both.payload.extend_from_slice(&packets[8].payload);
    packets.insert(9, both);
    let again = packets[4].clone();
    packets.insert(6, again);
    swap_with_next(&mut packets, 4);
    swap_with_next(&mut packets, 10);
    for (index, packet) in (0..).zip(&mut packets) {
        packet.time = super::conversation::START.after(Duration::from_millis(index));
    }
    Case::new("out-of-order", packets)
}

/// Both sequence numbers pass 2^32 within a body.
fn sequence_wrap() -> Case {
    let mut talk = Conversation::everyday().numbered(u32::MAX - 60, u32::MAX - 3000);
    let body = "z".repeat(9000);
    talk.open()
        .ask(request("POST", "/wrap", "", "0123456789012345678901234567890123456789"))
        .answer(ok(&body))
        .ask(get("/after", ""))
        .answer(ok("ok"))
        .close();
    Case::new("sequence-wrap", talk.packets())
}

/// Part of a reply's body, then a whole request, were not captured; the calls after it are whole.
fn gap() -> Case {
    let mut talk = Conversation::everyday();
    talk.open()
        .ask(get("/before", ""))
        .answer(ok("fine"))
        .ask(get("/holed", ""))
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
        .answer("a".repeat(1000))
        .lose(Direction::ToClient, "b".repeat(1000))
        .answer("c".repeat(1000))
        .ask(get("/between", ""))
        .answer(ok("fine"))
        .lose(Direction::ToServer, get("/never-seen", ""))
        .answer(ok("to nobody"))
        // Longer than any wait for a retransmission.
        .wait(Duration::from_secs(30))
        .ask(get("/after", ""))
        .answer(ok("fine again"))
        .close();
    Case::new("gap", talk.packets())
}

/// The capture starts within a reply; the port tells which side is the server.
fn midstream() -> Case {
    let mut packets = large();
    packets.drain(..6);
    Case::new("midstream", packets)
}

/// The same four numbers again after the first connection has gone: two flows.
fn port_reuse() -> Case {
    let mut first = Conversation::everyday();
    first.open().ask(get("/first", "")).answer(ok("1")).close();
    let mut second =
        Conversation::everyday().numbered(77_000_000, 5_000_000).at(Duration::from_secs(120));
    second.open().ask(get("/second", "")).answer(ok("2")).close();
    Case::new("port-reuse", interleave(&[first, second]))
}

/// The client goes away while the server is still answering.
fn reset() -> Case {
    let mut talk = Conversation::everyday();
    talk.open()
        .ask(get("/slow", ""))
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
        .answer("a".repeat(1000))
        .reset();
    Case::new("reset", talk.packets())
}

/// Twenty connections at once, their packets mixed.
fn many_flows() -> Case {
    let talks: Vec<Conversation> = (0..20)
        .map(|number: u16| {
            let client = format!("203.0.113.{}:{}", number + 1, 40_000 + number);
            let mut talk = Conversation::between(&client, "198.51.100.5:8080")
                .numbered(1000 * u32::from(number), 9)
                .at(Duration::from_micros(100) * u32::from(number));
            talk.open();
            for call in 0..3 {
                talk.ask(get(&format!("/{number}/{call}"), "")).answer(ok("ok"));
            }
            talk.close();
            talk
        })
        .collect();
    Case::new("many-flows", interleave(&talks))
}

/// Two connections whose SYN carries the request (RFC 7413). The first server takes it; the second
/// takes none of it, and is then asked for something else.
fn fast_open() -> Case {
    let mut taken = Conversation::everyday();
    taken.open().ask(get("/taken", "")).answer(ok("1")).close();
    let mut first = taken.packets();
    let asked = first.remove(3);
    first[0].payload.clone_from(&asked.payload);
    first[1].ack = first[3].ack;
    first[2].seq = first[3].ack;
    let mut refused =
        Conversation::between("203.0.113.9:51513", "198.51.100.5:8080").at(Duration::from_secs(1));
    refused.open().ask(get("/seen", "")).answer(ok("2")).close();
    let mut second = refused.packets();
    second[0].payload = get("/never-taken", "").into_bytes();
    Case::new("fast-open", [first, second].concat())
}

/// Both ends send a SYN, then each sends it again with an acknowledgement.
fn simultaneous_open() -> Case {
    let mut packets = everyday();
    let (first, reply) = (packets[0].clone(), packets[1].clone());
    let crossing = Packet { flags: TcpFlags::SYN, ack: 0, ..reply.clone() };
    let again = Packet { flags: reply.flags, ack: reply.seq + 1, ..first };
    packets.splice(1..3, [crossing, again, reply]);
    in_turn("simultaneous-open", packets)
}

/// What looks like a refusal comes first, then a SYN-ACK with another number, then the right one.
fn handshake_again() -> Case {
    let mut packets = everyday();
    let reply = packets[1].clone();
    let refusal = Packet { seq: 0, flags: TcpFlags::RST | TcpFlags::ACK, ..reply.clone() };
    let end = Packet { seq: 0, flags: TcpFlags::FIN | TcpFlags::ACK, ..reply.clone() };
    let other = Packet { seq: 2_859_879_429, ..reply.clone() };
    packets.splice(1..1, [refusal, end, other]);
    in_turn("handshake-again", packets)
}

/// Requests come again with another path: before the first was delivered (a hole was before it),
/// after it was delivered, and after it was answered, when nothing can be said of it any more.
fn overlap_conflict() -> Case {
    let mut talk = Conversation::everyday();
    talk.open();
    for path in ["/held", "/sent", "/done"] {
        talk.ask(request("POST", path, "", "body")).answer(ok("ok"));
    }
    talk.close();
    let mut packets = talk.packets();
    let other = |packet: &Packet| {
        let text = String::from_utf8_lossy(&packet.payload).replace("POST /", "POST .");
        Packet { payload: text.into_bytes(), ..packet.clone() }
    };
    let [held, sent, done] = [3, 5, 7].map(|at| packets[at].clone());
    packets.insert(9, other(&done));
    packets.insert(6, other(&sent));
    let (head, rest) = held.payload.split_at(10);
    let late = Packet { payload: head.to_vec(), ..held.clone() };
    let rest = Packet { seq: held.seq + 10, payload: rest.to_vec(), ..held };
    let again = Packet { payload: b".".repeat(rest.payload.len()), ..rest.clone() };
    packets.splice(3..4, [rest, again, late]);
    in_turn("overlap-conflict", packets)
}

/// An idle connection is probed from both ends, with a byte and without.
fn keep_alive() -> Case {
    let mut packets = everyday();
    let (asked, answered) = (packets[3].clone(), packets[4].clone());
    let probe = |of: &Packet, ack, payload: &[u8]| {
        let end = of.seq + u32::try_from(of.payload.len()).unwrap_or_default();
        Packet { seq: end - 1, ack, payload: payload.to_vec(), ..of.clone() }
    };
    let probes = [
        probe(&asked, packets[5].ack, b"\0"),
        probe(&answered, packets[5].seq, b"\0"),
        probe(&asked, packets[5].ack, b""),
    ];
    packets.splice(5..5, probes);
    packets.insert(4, probe(&asked, asked.ack, b"?"));
    in_turn("keep-alive", packets)
}

/// The other direction took another way and was not captured.
fn one_direction(name: &'static str, way: Direction) -> Case {
    let mut packets = everyday();
    let client = packets[0].source;
    packets.retain(|packet| (packet.source == client) == (way == Direction::ToServer));
    Case::new(name, packets)
}

/// A piece of an answer was lost on the way: the client says that it lacks it, and it comes again
/// after half a minute. Another was taken by the client and is missing in the capture only.
fn late_retransmission() -> Case {
    let mut talk = Conversation::everyday();
    let piece = |byte: &str| byte.repeat(1000);
    talk.open().ask(get("/large", ""));
    talk.answer("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n");
    for byte in ["a", "b", "c", "d"] {
        talk.answer(piece(byte));
    }
    talk.ask(get("/small", "")).answer(ok("s")).close();
    let mut packets = talk.packets();
    // 3 asks, 4 is the head, 5 to 8 are the pieces, 9 asks again.
    let (lost, unseen) = (packets.remove(6), packets.remove(6));
    let waits = |ack| Packet { ack, payload: Vec::new(), ..packets[7].clone() };
    let between = [waits(lost.seq), waits(lost.seq), lost.clone(), waits(unseen.seq + 1000)];
    packets.splice(7..7, between);
    for (index, packet) in (0..).zip(&mut packets) {
        let secs = if index < 9 { 0 } else { 30 };
        packet.time = super::conversation::START.after(Duration::from_millis(index + secs * 1000));
    }
    Case::new("late-retransmission", packets)
}

/// A packet every millisecond.
fn in_turn(name: &'static str, mut packets: Vec<Packet>) -> Case {
    for (index, packet) in (0..).zip(&mut packets) {
        packet.time = super::conversation::START.after(Duration::from_millis(index));
    }
    Case::new(name, packets)
}
