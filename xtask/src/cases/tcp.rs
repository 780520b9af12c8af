//! What TCP and capture files can do to the same bytes.

use std::time::Duration;

use monitor_core::input::Direction;

use super::Case;
use super::capture::{Format, Link, Packet};
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
        Case { format: Format::BigNanos, ..Case::new("big-endian-nanos", everyday()) },
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
    ]
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
