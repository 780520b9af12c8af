//! TLS: sessions between OpenSSL and nginx, decrypted with their key logs, whatever happens on the way.
//!
//! Each file under `sessions` is what went over one connection or two, a line for each segment: `>` from
//! the client, `<` from the server, an empty line between connections. The keys beside it were made for
//! it and are good for nothing else.

use std::path::PathBuf;

use monitor_core::call::{Anomalies, ApiCall};
use monitor_core::connection::{Connection, Decrypted, Sealed, Tls};
use monitor_core::decode::Counters;
use monitor_core::input::{Direction, Input};
use monitor_core::limits::Limits;
use proptest::prelude::*;

use crate::model::{self, Dice};
use crate::wire::{Packet, Wire, decoder, flow, lines};

const SUITES: [(&str, &str, &str); 14] = [
    ("tls13-aes-128-gcm", "TLS 1.3", "TLS_AES_128_GCM_SHA256"),
    ("tls13-aes-256-gcm", "TLS 1.3", "TLS_AES_256_GCM_SHA384"),
    ("tls13-chacha20-poly1305", "TLS 1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    ("tls13-aes-128-ccm", "TLS 1.3", "TLS_AES_128_CCM_SHA256"),
    ("tls13-aes-128-ccm-8", "TLS 1.3", "TLS_AES_128_CCM_8_SHA256"),
    ("tls12-aes-128-gcm", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("tls12-aes-256-gcm", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("tls12-chacha20-poly1305", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("tls12-aes-256-ccm-8", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8"),
    ("tls12-aes-128-cbc-sha256", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
    ("tls12-aes-256-cbc-sha384-etm", "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"),
    ("tls11-aes-128-cbc-sha", "TLS 1.1", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    ("tls10-aes-256-cbc-sha", "TLS 1.0", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    ("tls10-aes-128-cbc-sha-etm", "TLS 1.0", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
];
/// What was asked in each of them.
const CALLS: [&str; 3] = [
    "GET /api/v3/account 0 > 200 22",
    "POST /api/v3/order 60 > 200 14",
    "GET /api/v3/ping 0 > 200 2",
];
/// Sessions of two connections.
const RESUMED: [&str; 3] = ["tls13-early-data", "tls13-early-data-refused", "tls12-resumption"];

/// A session as packets, and its key log.
struct Session {
    wires: Vec<Wire>,
    keys: String,
}

/// What came of one.
struct Seen {
    calls: Vec<ApiCall>,
    connections: Vec<Connection>,
    counters: Counters,
}

impl Session {
    fn read(name: &str) -> Session {
        let path = |end: &str| {
            let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/decoder/sessions");
            dir.join(format!("{name}.{end}"))
        };
        let text = std::fs::read_to_string(path("flights")).expect("a session as stored");
        let wires = text.split("\n\n").zip(50_000..).map(|(text, port)| wire(text, port)).collect();
        Session { wires, keys: std::fs::read_to_string(path("keys")).expect("a session as stored") }
    }

    /// The segments of the first connection.
    fn packets(&self) -> Vec<Packet> {
        self.wires[0].packets.clone()
    }

    /// Decodes it as it was.
    fn decode(&self) -> Seen {
        let packets: Vec<Vec<Packet>> =
            self.wires.iter().map(|wire| wire.packets.clone()).collect();
        self.decode_as(&packets, &[(0, &self.keys)])
    }

    /// Decodes other packets of it, with keys that come before the packet with that number.
    fn decode_as(&self, packets: &[Vec<Packet>], keys: &[(usize, &str)]) -> Seen {
        self.decode_within(Limits::default(), packets, keys)
    }

    fn decode_within(
        &self,
        limits: Limits,
        packets: &[Vec<Packet>],
        keys: &[(usize, &str)],
    ) -> Seen {
        let mut decoder = decoder(limits);
        let inputs = self.wires.iter().zip(packets);
        let inputs =
            inputs.flat_map(|(wire, packets)| packets.iter().map(|it| it.input(wire.flow)));
        for (number, input) in inputs.enumerate() {
            for (_, lines) in keys.iter().filter(|(before, _)| *before == number) {
                decoder.handle_input(Input::Secrets(lines.as_bytes()));
            }
            decoder.handle_input(input);
        }
        decoder.finish();
        assert_eq!(decoder.held_bytes(), 0);
        Seen {
            calls: std::iter::from_fn(|| decoder.poll_call()).collect(),
            connections: std::iter::from_fn(|| decoder.poll_connection()).collect(),
            counters: decoder.counters().clone(),
        }
    }
}

fn wire(text: &str, port: u16) -> Wire {
    let mut wire = Wire::open(7, 9000);
    wire.flow = flow(port);
    for line in text.lines() {
        let (sender, hex) = line.split_at(2);
        let digits = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).expect("a session as stored"));
        let bytes: Vec<u8> =
            digits.map(|pair| u8::from_str_radix(pair, 16).expect("a session as stored")).collect();
        wire.wait(1000);
        match sender {
            "> " => wire.ask(bytes),
            "< " => wire.answer(bytes),
            _ => panic!("{line}"),
        };
    }
    wire.close();
    wire
}

fn tls(connection: &Connection) -> &Tls {
    connection.tls.as_deref().expect("a TLS connection")
}

#[test]
fn every_suite_is_decrypted() {
    for (name, version, cipher) in SUITES {
        let seen = Session::read(name).decode();
        assert_eq!(lines(&seen.calls), CALLS, "{name}");
        let tls = tls(&seen.connections[0]);
        assert_eq!(tls.version.as_deref(), Some(version), "{name}");
        assert_eq!(tls.cipher.as_deref(), Some(cipher), "{name}");
        assert_eq!(tls.alpn.as_deref(), Some("http/1.1"), "{name}");
        assert_eq!((tls.decrypted, tls.sealed), (Decrypted::Yes, None), "{name}");
        let certificate = tls.certificate.as_ref().expect("a certificate");
        assert_eq!(certificate.subject.as_deref(), Some("CN=localhost"), "{name}");
        for call in &seen.calls {
            assert!(call.flow.tls && call.flow.server_name.as_deref() == Some("api.example.com"));
            assert_eq!(call.flow.ja4, tls.ja4, "{name}");
        }
        assert!(seen.calls[0].key.is_some(), "the key is found inside");
        assert_eq!(seen.counters.tls_records_unopened, 0);
    }
}

#[test]
fn keys_are_updated_by_both() {
    let seen = Session::read("tls13-key-update").decode();
    assert_eq!(lines(&seen.calls), [CALLS[0], CALLS[1], CALLS[0], CALLS[2]]);
    assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Yes);
}

/// What other protocols say before TLS: turns from the client and the server, the client's first; true:
/// the client does not wait for the last.
const PREAMBLES: [(&str, &[&[u8]], bool); 7] = [
    ("postgresql", &[b"\0\0\0\x08\x04\xd2\x16\x2f", b"S"], false),
    ("ftp", &[b"", b"220 Ready\r\n", b"AUTH TLS\r\n", b"234 Proceed\r\n"], false),
    (
        "smtp",
        &[
            b"",
            b"220 mx.example.com ESMTP\r\n",
            b"EHLO a\r\n",
            b"250-mx.example.com\r\n250-SIZE\r\n250 STARTTLS\r\n",
            b"STARTTLS\r\n",
            b"220 Go ahead\r\n",
        ],
        false,
    ),
    (
        "rdp",
        &[
            b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
            b"\x03\0\0\x13\x0e\xd0\0\0\x12\x34\0\x02\x1f\x08\0\x02\0\0\0",
        ],
        false,
    ),
    (
        "ldap",
        &[
            b"0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037",
            b"0\x0c\x02\x01\x01x\x07\x0a\x01\0\x04\0\x04\0",
        ],
        false,
    ),
    ("mysql", &[b"", b"J\0\0\0\x0a8.0.1\0rest", b" \0\0\x01\x85\xae\xff\x19\0\0\0\x01\xff"], true),
    ("pipelined", &[b"", b"* OK IMAP4rev1\r\n", b"a STARTTLS\r\n", b"a OK Begin\r\n"], true),
];

/// A session after a preamble.
fn after(preamble: &[&[u8]], eager: bool, session: &Session) -> Vec<Packet> {
    let mut wire = Wire::open(7, 9000);
    let mut turns = preamble.to_vec();
    let last = if eager && turns.len().is_multiple_of(2) { turns.pop() } else { None };
    for (number, turn) in turns.iter().enumerate() {
        let direction = [Direction::ToServer, Direction::ToClient][number % 2];
        wire.wait(1000).send(direction, turn);
    }
    let mut last = last;
    for packet in session.packets().iter().filter(|it| !it.payload.is_empty()) {
        if packet.direction == Direction::ToClient
            && let Some(last) = last.take()
        {
            wire.send(Direction::ToClient, last);
        }
        wire.wait(1000).send(packet.direction, &packet.payload);
    }
    wire.close();
    wire.packets
}

#[test]
fn tls_begins_inside_other_protocols() {
    for (name, preamble, eager) in PREAMBLES {
        for session in ["tls13-aes-128-gcm", "tls12-aes-128-gcm", "tls13-retry"] {
            let session = Session::read(session);
            let plain = session.decode();
            let packets = after(preamble, eager, &session);
            for piece in [usize::MAX, 1, 100] {
                let packets = model::cut(&packets, piece, &mut Dice(1));
                let seen = session.decode_as(&[packets], &[(0, &session.keys)]);
                assert_eq!(lines(&seen.calls), lines(&plain.calls), "{name} by {piece}");
                assert_eq!(seen.connections[0].tls, plain.connections[0].tls, "{name} by {piece}");
                assert_eq!((seen.counters.tls_flows, seen.counters.flows_not_http), (1, 0));
            }
            let sealed = session.decode_as(&[packets], &[]);
            assert_eq!(tls(&sealed.connections[0]).server_name.as_deref(), Some("api.example.com"));
            assert_eq!(sealed.connections[0].flow.ja4, tls(&plain.connections[0]).ja4);
        }
    }
}

#[test]
fn tls_begins_inside_other_protocols_whose_beginning_was_not_seen() {
    let session = Session::read("tls13-aes-128-gcm");
    let plain = session.decode();
    for (name, preamble, eager) in PREAMBLES {
        let packets = after(preamble, eager, &session);
        // From each of its turns on that says something of more than a letter.
        let turns = packets.iter().enumerate().filter(|(_, it)| !it.payload.is_empty());
        let turns: Vec<usize> = turns.map(|(at, _)| at).take(preamble.len() - 1).collect();
        for from in turns {
            if packets[from].payload.len() < 8 || packets[from].payload.starts_with(b"\x16") {
                continue;
            }
            for piece in [usize::MAX, 1, 100] {
                let packets = model::cut(&packets[from..], piece, &mut Dice(1));
                let seen = session.decode_as(&[packets], &[(0, &session.keys)]);
                assert_eq!(
                    lines(&seen.calls),
                    lines(&plain.calls),
                    "{name} from {from} by {piece}"
                );
                let tls = &seen.connections[0].tls;
                assert_eq!(*tls, plain.connections[0].tls, "{name} from {from} by {piece}");
            }
        }
    }
}

#[test]
fn hellos_in_content_are_content() {
    let session = Session::read("tls13-aes-128-gcm");
    let hello = session.packets().iter().find(|it| !it.payload.is_empty()).unwrap().payload.clone();
    // What the server sends is no hello.
    let mut wire = Wire::open(7, 9000);
    wire.ask("\u{1}PUT\0").answer("ok").ask(&hello).answer("stored").ask(&hello).close();
    let seen = session.decode_as(&[wire.packets], &[]);
    assert!(seen.connections[0].tls.is_none() && !seen.connections[0].flow.tls);
    assert_eq!((seen.counters.tls_flows, seen.counters.flows_not_http), (0, 1));
    // Both sides of a file that both have: the whole session as content of HTTP.
    let both: Vec<u8> = session.packets().iter().flat_map(|it| it.payload.clone()).collect();
    let length = both.len();
    let mut wire = Wire::open(7, 9000);
    wire.ask(format!("POST /a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n")).ask(&both);
    wire.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).answer(&both);
    wire.close();
    let seen = session.decode_as(&[wire.packets], &[]);
    assert_eq!(lines(&seen.calls), [format!("POST /a {length} > 200 {length}")]);
    assert!(seen.connections[0].tls.is_none());
    // And far from the beginning of a protocol that is not known.
    let far = vec![b'x'; Limits::default().preamble_bytes_max];
    let packets = after(&[&far, b"ok"], false, &session);
    let seen = session.decode_as(&[packets], &[(0, &session.keys)]);
    assert!(seen.connections[0].tls.is_none() && seen.calls.is_empty());
}

#[test]
fn resumed_sessions_and_a_retry() {
    let seen = Session::read("tls12-resumption").decode();
    assert_eq!(lines(&seen.calls), [CALLS[2], CALLS[2]]);
    assert!(seen.connections.iter().all(|it| tls(it).decrypted == Decrypted::Yes));
    assert!(tls(&seen.connections[1]).certificate.is_none(), "none is sent again");
    let seen = Session::read("tls13-retry").decode();
    assert_eq!(lines(&seen.calls), [CALLS[2]]);
    assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Yes);
}

#[test]
fn early_data_is_told_apart_and_counts_once() {
    let seen = Session::read("tls13-early-data").decode();
    let early = format!("{} EARLY_DATA", CALLS[0]);
    assert_eq!(lines(&seen.calls), [CALLS[2], early.as_str(), CALLS[2]]);
    let refused = Session::read("tls13-early-data-refused").decode();
    assert_eq!(lines(&refused.calls), [CALLS[2], CALLS[2]]);
    assert!(refused.counters.tls_early_bytes_dropped > 0);
}

#[test]
fn without_keys_the_handshake_tells_what_it_can() {
    for (name, version, cipher) in SUITES {
        let session = Session::read(name);
        for keys in [&[][..], &[(0, "CLIENT_RANDOM 00 00\n")]] {
            let seen = session.decode_as(&[session.packets()], keys);
            assert!(seen.calls.is_empty());
            let connection = &seen.connections[0];
            let tls = tls(connection);
            assert_eq!(tls.version.as_deref(), Some(version), "{name}");
            assert_eq!(tls.cipher.as_deref(), Some(cipher), "{name}");
            assert_eq!(tls.server_name.as_deref(), Some("api.example.com"));
            assert_eq!(
                (tls.decrypted, tls.sealed),
                (Decrypted::No, Some(Sealed::NoKeys)),
                "{name}"
            );
            assert_eq!(tls.certificate.is_some(), version != "TLS 1.3", "{name}");
            assert_eq!(connection.flow.ja4, tls.ja4);
            assert!(tls.ja4.as_ref().is_some_and(|ja4| ja4.starts_with("t1") && ja4.contains("d")));
            let sent: u64 = session.packets().iter().map(|it| it.payload.len() as u64).sum();
            assert_eq!(connection.bytes_to_client + connection.bytes_to_server, sent, "{name}");
        }
    }
}

#[test]
fn keys_may_come_while_the_handshake_is_under_way() {
    for (name, version, _) in SUITES {
        let session = Session::read(name);
        // Three packets of TCP's handshake, the hellos; in TLS 1.2 the client's last flight too.
        let number = if version == "TLS 1.3" { 4 } else { 5 };
        let seen = session.decode_as(&[session.packets()], &[(number, &session.keys)]);
        assert_eq!(lines(&seen.calls), CALLS, "{name}");
    }
}

#[test]
fn late_keys_open_what_waited() {
    for (name, ..) in SUITES {
        let session = Session::read(name);
        let begun = "# nothing yet\n";
        let whole = session.decode();
        // Before any packet, and behind the last but its end.
        for number in 0..session.packets().len() - 2 {
            let keys = [(0, begun), (number, &session.keys[..])];
            let seen = session.decode_as(&[session.packets()], &keys);
            assert_eq!(lines(&seen.calls), CALLS, "{name}, {number}");
            assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Yes, "{name}, {number}");
            let times = |calls: &[ApiCall]| -> Vec<_> {
                calls.iter().map(|it| (it.time, it.response.as_ref().map(|it| it.status))).collect()
            };
            assert_eq!(times(&seen.calls), times(&whole.calls), "{name}, {number}");
        }
    }
}

/// A gap behind what waits, or no room for it, is one behind what was never opened.
#[test]
fn what_waits_is_bounded() {
    let session = Session::read("tls13-aes-128-gcm");
    let packets = session.packets();
    let last = packets
        .iter()
        .rposition(|it| it.direction == Direction::ToServer && it.payload.len() > 90)
        .expect("a request");
    let limits = Limits { tls_waiting_bytes_max: 500, ..Limits::default() };
    let keys = [(0, "# nothing yet\n"), (last, &session.keys[..])];
    let seen = session.decode_within(limits, &[packets], &keys);
    assert!(!seen.calls.is_empty() && seen.calls.len() < 3, "{:#?}", lines(&seen.calls));
    assert!(known(&seen.calls));
    assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Partly);
}

/// What waits when the connection ends was not opened.
#[test]
fn keys_that_never_come_leave_it_sealed() {
    for (name, ..) in SUITES {
        let session = Session::read(name);
        let seen = session.decode_as(&[session.packets()], &[(0, "# nothing\n")]);
        assert!(seen.calls.is_empty(), "{name}");
        let tls = tls(&seen.connections[0]);
        let expected = (Decrypted::No, Some(Sealed::NoKeys));
        assert_eq!((tls.decrypted, tls.sealed), expected, "{name}");
    }
}

#[test]
fn late_keys_without_room_open_what_follows() {
    let session = Session::read("tls13-aes-128-gcm");
    let last = session
        .packets()
        .iter()
        .rposition(|it| it.direction == Direction::ToServer && it.payload.len() > 90)
        .unwrap();
    let first =
        "CLIENT_RANDOM 00 00\nCLIENT_RANDOM ".to_owned() + &"0".repeat(64) + " " + &"1".repeat(96);
    let limits = Limits { tls_waiting_bytes_max: 0, ..Limits::default() };
    let keys = [(0, &first[..]), (last, &session.keys)];
    let seen = session.decode_within(limits, &[session.packets()], &keys);
    assert!(!seen.calls.is_empty() && seen.calls.len() < 3, "{:#?}", lines(&seen.calls));
    let last = seen.calls.last().and_then(|call| call.response.as_ref()).expect("its answer");
    assert_eq!((last.status, last.body_bytes), (Some(200), 2));
    assert!(known(&seen.calls));
    assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Partly);
}

#[test]
fn keys_of_one_direction_give_that_direction() {
    let session = Session::read("tls13-aes-256-gcm");
    for (label, request) in [("CLIENT_", true), ("SERVER_", false)] {
        let keys: Vec<&str> = session.keys.lines().filter(|it| it.starts_with(label)).collect();
        let seen = session.decode_as(&[session.packets()], &[(0, &keys.join("\n"))]);
        assert_eq!(seen.calls.len(), 3, "{:#?}", lines(&seen.calls));
        for call in &seen.calls {
            assert_eq!((call.request.is_some(), call.response.is_some()), (request, !request));
        }
    }
    // Without the secrets of the handshake the application's do by themselves.
    let keys: Vec<&str> =
        session.keys.lines().filter(|it| it.contains("TRAFFIC_SECRET_0")).collect();
    let seen = session.decode_as(&[session.packets()], &[(0, &keys.join("\n"))]);
    assert_eq!(lines(&seen.calls), CALLS);
}

/// A segment is lost: its calls are named as such, those after it are whole.
#[test]
fn after_a_loss_the_next_record_is_found() {
    for (name, version, _) in SUITES {
        let session = Session::read(name);
        let packets = session.packets();
        let data: Vec<usize> =
            (0..packets.len()).filter(|it| !packets[*it].payload.is_empty()).collect();
        // The request of the second call: after it follow its answer, the last call and two alerts.
        let asks: Vec<usize> = data
            .iter()
            .copied()
            .filter(|it| packets[*it].direction == Direction::ToServer)
            .collect();
        let second = *asks.iter().rev().find(|it| packets[**it].payload.len() > 190).unwrap();
        for cut in [0, 3, 20] {
            let mut lossy = packets.clone();
            // Only the end of it, or all.
            lossy[second].payload.truncate(cut);
            let seen = session.decode_as(&[lossy], &[(0, &session.keys)]);
            let seen_lines = lines(&seen.calls);
            assert_eq!(seen_lines.first().map(String::as_str), Some(CALLS[0]), "{name} {cut}");
            let last = seen_lines.last().unwrap();
            if version == "TLS 1.0" && !name.ends_with("etm") {
                // Each record is chained to the one before, so one more is lost.
                assert!(seen.calls.iter().any(|call| !call.complete), "{name}: {seen_lines:#?}");
            } else {
                assert_eq!(last, CALLS[2], "{name} {cut}: {seen_lines:#?}");
            }
            assert!(!seen_lines.iter().any(|line| line == CALLS[1]), "{name}: {seen_lines:#?}");
            assert_eq!(tls(&seen.connections[0]).decrypted, Decrypted::Partly, "{name}");
        }
    }
}

#[test]
fn a_changed_record_gives_nothing_inward() {
    for (name, _, _) in SUITES {
        let session = Session::read(name);
        let mut packets = session.packets();
        let second = packets.iter().rposition(|it| it.payload.len() > 190).unwrap();
        let end = packets[second].payload.len() - 40;
        packets[second].payload[end] ^= 1;
        let seen = session.decode_as(&[packets], &[(0, &session.keys)]);
        let whole: Vec<_> = seen.calls.iter().filter(|call| call.complete).cloned().collect();
        assert!(whole.len() <= 2, "{name}: {:#?}", lines(&seen.calls));
        let seen_lines = lines(&whole);
        let fine = |line: &String| CALLS.contains(&line.trim_end_matches(" TLS_UNOPENED"));
        assert!(seen_lines.iter().all(fine), "{name}: {seen_lines:#?}");
        assert_eq!(tls(&seen.connections[0]).sealed, Some(Sealed::DoesNotFit), "{name}");
    }
}

/// With encrypt-then-MAC the MAC does not cover what a record is chained to: in TLS 1.0 that is the
/// record before, which may have been changed.
#[test]
fn no_changed_byte_gives_other_plaintext() {
    let session = Session::read("tls10-aes-128-cbc-sha-etm");
    let packets = session.packets();
    let mut tried = 0;
    for (number, packet) in packets.iter().enumerate() {
        for byte in 0..packet.payload.len() {
            let mut changed = packets.clone();
            changed[number].payload[byte] ^= 1;
            let seen = session.decode_as(&[changed], &[(0, &session.keys)]);
            assert!(known(&seen.calls), "byte {byte} of {number}: {:#?}", lines(&seen.calls));
            tried += 1;
        }
    }
    assert!(tried > 2000, "only {tried} bytes were changed");
}

fn any_session() -> impl Strategy<Value = &'static str> {
    let names = SUITES.iter().map(|(name, _, _)| *name).chain(RESUMED).chain(["tls13-retry"]);
    prop::sample::select(names.collect::<Vec<_>>())
}

/// Calls as text, without the anomalies of the damage.
fn known(calls: &[ApiCall]) -> bool {
    calls.iter().all(|call| {
        let path = call.request.as_ref().is_none_or(|request| request.path.starts_with("/api/v3/"));
        path && call.response.as_ref().is_none_or(|response| response.status == Some(200))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_and_order_do_not_matter(
        name in any_session(), seed: u64, piece in prop::sample::select(vec![1_usize, 7, 100, 5000]),
        window in prop::sample::select(vec![1_usize, 4]),
    ) {
        let session = Session::read(name);
        let expected = session.decode();
        let mut dice = Dice(seed);
        let packets: Vec<Vec<Packet>> = session.wires.iter().map(|wire| {
            let mut packets = model::cut(&wire.packets, piece, &mut dice);
            packets = model::repeat(&packets, &mut dice);
            model::shuffle(&mut packets, window, &mut dice);
            packets
        }).collect();
        let seen = session.decode_as(&packets, &[(0, &session.keys)]);
        prop_assert_eq!(lines(&seen.calls), lines(&expected.calls));
        let summaries = |seen: &Seen| -> Vec<Option<Box<Tls>>> {
            seen.connections.iter().map(|it| it.tls.clone()).collect()
        };
        prop_assert_eq!(summaries(&seen), summaries(&expected));
    }

    #[test]
    fn damage_and_loss_never_panic_nor_invent(
        name in any_session(), seed: u64,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_u8..), 0..4),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let session = Session::read(name);
        let mut dice = Dice(seed);
        let mut packets: Vec<Vec<Packet>> =
            session.wires.iter().map(|wire| model::cut(&wire.packets, 60, &mut dice)).collect();
        for (at, byte, mask) in damage {
            let count = packets[0].len();
            let payload = &mut packets[0][at.index(count)].payload;
            if !payload.is_empty() {
                let byte = byte.index(payload.len());
                payload[byte] ^= mask;
            }
        }
        for at in lost {
            let count = packets[0].len();
            packets[0].remove(at.index(count));
        }
        let seen = session.decode_as(&packets, &[(0, &session.keys)]);
        prop_assert!(known(&seen.calls), "{:#?}", seen.calls);
    }

    #[test]
    fn wrong_keys_give_no_plaintext(name in any_session(), digit in 0_usize..64) {
        let session = Session::read(name);
        let wrong: String = session.keys.lines().map(|line| {
            let mut line = line.as_bytes().to_vec();
            let at = line.len() - 1 - digit;
            line[at] = if line[at] == b'0' { b'1' } else { b'0' };
            String::from_utf8(line).unwrap() + "\n"
        }).collect();
        let packets: Vec<Vec<Packet>> =
            session.wires.iter().map(|wire| wire.packets.clone()).collect();
        let seen = session.decode_as(&packets, &[(0, &wrong)]);
        prop_assert_eq!(lines(&seen.calls), Vec::<String>::new());
        prop_assert_eq!(seen.counters.tls_records_opened, 0);
    }

    #[test]
    fn no_bytes_panic(
        hello in prop::collection::vec(any::<u8>(), 0..200), rest in prop::collection::vec(any::<u8>(), 0..400),
        kind in prop::sample::select(vec![20_u8, 21, 22, 23]), message in prop::sample::select(vec![1_u8, 2, 11]),
    ) {
        let mut wire = Wire::open(1, 2);
        let body = [&[message, 0, 0, hello.len() as u8][..], &hello].concat();
        let length = (body.len() as u16).to_be_bytes();
        let record = [&[22, 3, 3, length[0], length[1]][..], &body].concat();
        wire.ask(&record).answer(&record).ask([&[kind, 3, 3][..], &rest].concat()).answer(&rest).close();
        wire.decode();
    }
}

#[test]
fn no_secret_can_be_seen() {
    let session = Session::read("tls13-key-update");
    let seen = session.decode();
    let said = format!("{:?}{:?}{:?}", seen.calls, seen.connections, seen.counters);
    for secret in session.keys.lines().filter_map(|line| line.split(' ').nth(2)) {
        assert!(!said.contains(secret));
    }
    assert!(!seen.calls.iter().any(|call| call.anomalies.contains(Anomalies::EARLY_DATA)));
}
