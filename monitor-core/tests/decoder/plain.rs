//! Plaintext of TLS connections that a library passed on, beside what the wire shows.

use monitor_core::call::{ApiCall, Protocol};
use monitor_core::connection::{Connection, Decrypted, Sealed};
use monitor_core::decode::Counters;
use monitor_core::input::{Direction, FlowKey, Input, Plain};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;
use proptest::prelude::*;

use crate::wire::{Wire, decoder, flow, lines};

/// What passed in one call of the library.
#[derive(Clone, Debug)]
struct Passed {
    direction: Direction,
    before: u64,
    bytes: Vec<u8>,
    missing: u32,
    end: bool,
}

/// A connection of which the library tells everything.
#[derive(Clone, Default)]
struct Inside {
    passed: Vec<Passed>,
    next: [u64; 2],
    midstream: bool,
}

struct Seen {
    calls: Vec<ApiCall>,
    connections: Vec<Connection>,
    counters: Counters,
}

impl Inside {
    fn pass(&mut self, direction: Direction, bytes: &[u8], missing: u32) -> &mut Inside {
        let next = &mut self.next[direction as usize];
        let before = *next;
        *next += bytes.len() as u64 + u64::from(missing);
        self.passed.push(Passed { direction, before, bytes: bytes.to_vec(), missing, end: false });
        self
    }

    fn ask(&mut self, text: &str) -> &mut Inside {
        self.pass(Direction::ToServer, text.as_bytes(), 0)
    }

    fn answer(&mut self, text: &str) -> &mut Inside {
        self.pass(Direction::ToClient, text.as_bytes(), 0)
    }

    fn end(&mut self, direction: Direction) -> &mut Inside {
        self.pass(direction, b"", 0);
        if let Some(last) = self.passed.last_mut() {
            last.end = true;
        }
        self
    }

    fn run(&self) -> Seen {
        self.run_on(&hello())
    }

    /// After what the wire has shown.
    fn run_on(&self, wire: &Wire) -> Seen {
        let mut decoder = decoder(Limits::default());
        wire.packets.iter().for_each(|packet| decoder.handle_input(packet.input(wire.flow)));
        for (number, passed) in self.passed.iter().enumerate() {
            decoder.handle_input(Input::Plain(passed.as_input(
                wire.flow,
                1_000_000 + number as u64,
                self.midstream,
            )));
        }
        decoder.finish();
        Seen {
            calls: std::iter::from_fn(|| decoder.poll_call()).collect(),
            connections: std::iter::from_fn(|| decoder.poll_connection()).collect(),
            counters: decoder.counters().clone(),
        }
    }

    /// The same bytes in other pieces.
    fn cut(&self, step: usize) -> Inside {
        let mut inside = Inside { midstream: self.midstream, ..Inside::default() };
        for passed in &self.passed {
            for piece in passed.bytes.chunks(step) {
                inside.pass(passed.direction, piece, 0);
            }
        }
        inside
    }
}

impl Passed {
    fn as_input(&self, flow: FlowKey, time: u64, midstream: bool) -> Plain<'_> {
        Plain {
            time: EventTime(time),
            flow,
            direction: self.direction,
            before: self.before,
            payload: &self.bytes,
            missing: self.missing,
            midstream,
            end: self.end,
        }
    }
}

/// A connection that begins as OpenSSL and nginx begin one.
fn hello() -> Wire {
    let text = include_str!("sessions/tls13-aes-128-gcm.flights");
    let mut wire = Wire::open(7, 9);
    for line in text.lines().take(2) {
        let bytes: Vec<u8> = (0..line[2..].len() / 2)
            .map(|at| u8::from_str_radix(&line[2 + 2 * at..4 + 2 * at], 16).expect("hexadecimal"))
            .collect();
        let direction =
            if line.starts_with('>') { Direction::ToServer } else { Direction::ToClient };
        wire.send(direction, &bytes);
    }
    wire
}

fn two_calls() -> Inside {
    let mut inside = Inside::default();
    inside
        .ask("GET /api/one HTTP/1.1\r\nHost: a\r\n\r\n")
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .ask("POST /api/two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    inside
}

const TWO_CALLS: [&str; 2] = ["GET /api/one 0 > 200 5", "POST /api/two 3 > 201 0"];

#[test]
fn wire_and_plaintext_are_one_flow() {
    let seen = two_calls().run();
    assert_eq!(lines(&seen.calls), TWO_CALLS);
    assert_eq!(seen.connections.len(), 1);
    let (connection, call) = (&seen.connections[0], &seen.calls[0]);
    assert_eq!((connection.flow.id, connection.calls), (call.flow.id, 2));
    assert!(call.flow.tls && call.flow.ja4.is_some());
    assert_eq!((connection.protocol, connection.missing_bytes), (Some(Protocol::Http11), 0));
    let tls = connection.tls.as_ref().expect("TLS");
    assert_eq!((tls.decrypted, tls.sealed), (Decrypted::Yes, None));
    assert_eq!(tls.version.as_deref(), Some("TLS 1.3"));
}

#[test]
fn the_wire_is_not_looked_into_any_more() {
    let mut wire = hello();
    let once = two_calls().run_on(&wire);
    // Encrypted bytes that come before the plaintext, and a handshake that is not whole.
    wire.send(Direction::ToServer, &[0x17, 3, 3, 0, 9, 1, 2, 3]);
    assert_eq!(lines(&two_calls().run_on(&wire).calls), lines(&once.calls));
    wire.packets.truncate(4);
    assert_eq!(lines(&two_calls().run_on(&wire).calls), lines(&once.calls));
}

#[test]
fn without_a_hello_calls_are_seen_all_the_same() {
    let seen = two_calls().run_on(&Wire::midstream(7, 9));
    assert_eq!(lines(&seen.calls), TWO_CALLS);
    assert!(seen.calls[0].flow.tls && seen.calls[0].flow.ja4.is_none());
    assert_eq!(seen.calls[0].flow.client, flow(50_000).client);
}

#[test]
fn what_is_missing_is_counted_where_it_is() {
    let mut inside = Inside::default();
    inside
        .ask("GET /api/large HTTP/1.1\r\nHost: a\r\n\r\n")
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        .pass(Direction::ToClient, b"start", 4_000)
        .pass(Direction::ToClient, &[b'x'; 995], 0)
        .ask("GET /api/next HTTP/1.1\r\nHost: a\r\n\r\n")
        .answer("HTTP/1.1 204 No Content\r\n\r\n");
    let carried_in_part = inside.run();
    // The same when nothing told of the hole but the numbers.
    inside.passed[2].missing = 0;
    let lost = inside.run();
    for seen in [carried_in_part, lost] {
        let lines = lines(&seen.calls);
        assert!(lines[0].starts_with("GET /api/large 0 > 200 5000 incomplete"), "{lines:?}");
        assert_eq!(lines[1], "GET /api/next 0 > 204 0");
        assert_eq!((seen.connections[0].missing_bytes, seen.counters.gap_bytes), (4_000, 4_000));
        let tls = seen.connections[0].tls.as_ref().expect("TLS");
        assert_eq!((tls.decrypted, tls.sealed), (Decrypted::Partly, Some(Sealed::Loss)));
    }
}

#[test]
fn bytes_that_come_again_count_once() {
    let mut inside = two_calls();
    let mut again = inside.passed[0].clone();
    inside.passed.insert(1, again.clone());
    again.bytes.truncate(10);
    again.missing = 4;
    inside.passed.insert(3, again);
    let seen = inside.run();
    assert_eq!(lines(&seen.calls), TWO_CALLS);
    assert_eq!(seen.connections[0].missing_bytes, 0);
}

#[test]
fn a_connection_that_was_open_before_is_taken_from_the_middle() {
    let mut inside = Inside { midstream: true, ..Inside::default() };
    inside.answer("rest of a body").ask("GET /api/next HTTP/1.1\r\nHost: a\r\n\r\n");
    inside.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    inside.ask("GET /api/last HTTP/1.1\r\nHost: a\r\n\r\n");
    inside.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    let seen = inside.run();
    let lines = lines(&seen.calls);
    assert!(lines.iter().any(|line| line == "GET /api/last 0 > 200 2"), "{lines:?}");
    let tls = seen.connections[0].tls.as_ref().expect("TLS");
    assert_eq!((tls.decrypted, tls.sealed), (Decrypted::Partly, Some(Sealed::NoHandshake)));
}

#[test]
fn the_end_of_a_direction_ends_its_body() {
    let mut inside = Inside::default();
    inside.ask("GET /api/old HTTP/1.0\r\n\r\n").answer("HTTP/1.0 200 OK\r\n\r\n12345");
    inside.end(Direction::ToClient);
    assert_eq!(lines(&inside.run().calls), ["GET /api/old 0 > 200 5"]);
}

#[test]
fn a_connection_in_the_clear_takes_no_plaintext() {
    let mut wire = Wire::open(7, 9);
    wire.ask("GET /api/clear HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let inside = two_calls();
    let seen = inside.run_on(&wire);
    assert_eq!(lines(&seen.calls), ["GET /api/clear 0 > 200 0"]);
    assert!(!seen.calls[0].flow.tls);
    let bytes: usize = inside.passed.iter().map(|passed| passed.bytes.len()).sum();
    assert_eq!(seen.counters.plain_bytes_astray, bytes as u64);
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_calls(step in 1_usize..60) {
        let (whole, cut) = (two_calls().run(), two_calls().cut(step).run());
        prop_assert_eq!(lines(&whole.calls), lines(&cut.calls));
        prop_assert_eq!(whole.connections[0].bytes_to_server, cut.connections[0].bytes_to_server);
        prop_assert_eq!(cut.connections[0].missing_bytes, 0);
    }

    #[test]
    fn lost_pieces_are_counted(step in 1_usize..20, lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let mut inside = two_calls().cut(step);
        let mut missing = 0;
        for at in lost {
            // What follows shows that it is missing.
            let last = |direction| inside.passed.iter().rposition(|it| it.direction == direction);
            let ends = [last(Direction::ToServer), last(Direction::ToClient)];
            let at = at.index(inside.passed.len());
            if !ends.contains(&Some(at)) {
                missing += inside.passed.remove(at).bytes.len() as u64;
            }
        }
        let seen = inside.run();
        prop_assert_eq!(seen.connections[0].missing_bytes, missing);
        prop_assert!(seen.calls.iter().filter(|call| call.complete).count() <= 2);
    }
}

#[test]
fn a_place_that_no_connection_reaches_is_none() {
    let mut inside = two_calls();
    for before in [1 << 63, u64::MAX - 10] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let bytes = b"GET / HTTP/1.1\r\n\r\n".to_vec();
            let absurd = Passed { direction, before, bytes, missing: u32::MAX, end: false };
            inside.passed.insert(1, absurd);
        }
    }
    let seen = inside.run();
    assert_eq!(seen.counters.segments_absurd, 4);
    assert_eq!((seen.counters.gap_bytes, lines(&seen.calls)), (0, lines(&two_calls().run().calls)));
}
