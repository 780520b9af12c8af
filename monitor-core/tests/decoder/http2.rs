//! HTTP/2 from the outside: streams to calls, and what goes wrong on the way.

use monitor_core::call::{Anomalies, ApiCall, Outcome, Protocol};
use monitor_core::input::Direction;
use monitor_core::limits::Limits;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Encoder, GOAWAY, HEADERS, PADDED, PING,
    PREFACE, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, settings,
};
use crate::wire::{Wire, decoder, feed, lines};

/// A connection with both ends' header tables.
struct Talk {
    wire: Wire,
    client: Encoder,
    server: Encoder,
}

impl Talk {
    /// After prefaces and settings.
    fn new() -> Talk {
        let mut wire = Wire::open(1000, 2000);
        wire.ask([PREFACE, &settings(&[(3, 100)])].concat());
        wire.answer(settings(&[(1, 4096), (3, 128)]));
        wire.ask(frame(SETTINGS, ACK, 0, b"")).answer(frame(SETTINGS, ACK, 0, b""));
        Talk { wire, client: Encoder::new(), server: Encoder::new() }
    }

    fn get(&mut self, stream: u32, path: &str) -> &mut Talk {
        let fields = request("GET", path);
        let bytes = self.client.headers(stream, true, &fields);
        self.wire.ask(bytes);
        self
    }

    fn ok(&mut self, stream: u32, body: &[u8]) -> &mut Talk {
        let head = self.server.headers(stream, false, &[(":status", "200"), ("server", "s")]);
        self.wire.answer([head, frame(DATA, END_STREAM, stream, body)].concat());
        self
    }

    fn lines(&mut self) -> Vec<String> {
        self.wire.close();
        lines(&self.wire.decode())
    }
}

fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 6] {
    [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "www.example.com"),
        ("user-agent", "desk/1.0"),
        ("x-api-key", "live-0a1b2c3d4e5f"),
    ]
}

#[test]
fn a_call_has_what_one_of_http1_has() {
    let mut talk = Talk::new();
    let fields = request("POST", "/v1/order?symbol=BTCUSDT&signature=abc");
    let head = talk.client.headers(1, false, &fields);
    talk.wire.wait(1000).ask(head).wait(10).ask(frame(DATA, END_STREAM, 1, &[b'x'; 120]));
    talk.wire.wait(250);
    talk.ok(1, b"hello");
    let calls = talk.wire.close().decode();
    assert_eq!(lines(&calls), ["POST /v1/order 120 > 200 5"]);
    let call = &calls[0];
    let request = call.request.as_ref().unwrap();
    assert_eq!(request.host.as_deref(), Some("www.example.com"));
    assert_eq!(request.user_agent.as_deref(), Some("desk/1.0"));
    assert_eq!(request.target, "/v1/order?symbol=BTCUSDT&signature=[redacted]");
    assert_eq!((call.protocol, call.stream_id), (Protocol::Http2, Some(1)));
    assert_eq!((call.latency_us, call.outcome), (Some(250), Some(Outcome::Ok)));
    assert_eq!(call.key.as_ref().unwrap().source, "header:x-api-key");
    assert_eq!(call.symbol.as_deref(), Some("BTCUSDT"));
}

#[test]
fn streams_are_answered_in_any_order() {
    let mut talk = Talk::new();
    talk.get(1, "/1").get(3, "/3").get(5, "/5").ok(5, b"5").ok(1, b"").ok(3, b"333");
    assert_eq!(talk.lines(), ["GET /5 0 > 200 1", "GET /1 0 > 200 0", "GET /3 0 > 200 3"]);
}

#[test]
fn padding_priority_continuation_trailers_and_interim_answers() {
    let mut talk = Talk::new();
    let block = talk.client.block(&request("PUT", "/p"));
    let mut padded = vec![7, 0, 0, 0, 0, 15];
    padded.extend_from_slice(&block[..5]);
    padded.extend([0; 7]);
    talk.wire.ask(frame(HEADERS, PADDED | 0x20, 1, &padded));
    talk.wire.ask(frame(CONTINUATION, 0, 1, &block[5..9]));
    talk.wire.ask(frame(CONTINUATION, 0, 1, b""));
    talk.wire.ask(frame(CONTINUATION, END_HEADERS, 1, &block[9..]));
    let interim = talk.server.headers(1, false, &[(":status", "100")]);
    talk.wire.answer(interim);
    talk.wire.ask(frame(DATA, PADDED, 1, &[3, b'a', b'b', 0, 0, 0]));
    let trailers = talk.client.headers(1, true, &[("x-sum", "1")]);
    talk.wire.ask(trailers);
    let head = talk.server.headers(1, false, &[(":status", "404"), ("content-length", "4")]);
    talk.wire.answer([head, frame(DATA, 0, 1, b"no"), frame(DATA, 0, 1, b"ne")].concat());
    let trailers = talk.server.headers(1, true, &[("x-sum", "2")]);
    talk.wire.answer(trailers);
    assert_eq!(talk.lines(), ["PUT /p 2 > 404 4"]);
}

#[test]
fn the_outcome_is_in_the_body_of_a_failure() {
    let mut talk = Talk::new();
    talk.get(1, "/v1/me");
    let head = talk.server.headers(1, false, &[(":status", "401")]);
    talk.wire.answer([head, frame(DATA, END_STREAM, 1, b"bad signature")].concat()).close();
    assert_eq!(talk.wire.decode()[0].outcome, Some(Outcome::BadSignature));
}

#[test]
fn a_pushed_answer_is_a_call_of_its_own() {
    let mut talk = Talk::new();
    talk.get(1, "/");
    let mut promise = 2_u32.to_be_bytes().to_vec();
    promise.extend(talk.server.block(&request("GET", "/style.css")));
    talk.wire.answer(frame(PUSH_PROMISE, END_HEADERS, 1, &promise));
    talk.ok(1, b"page").ok(2, b"css");
    assert_eq!(talk.lines(), ["GET / 0 > 200 4", "GET /style.css 0 > 200 3 PUSHED"]);
}

#[test]
fn resets_end_calls() {
    let mut talk = Talk::new();
    talk.get(1, "/1").get(3, "/3");
    talk.wire.ask(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    // What was on its way is of no interest, but keeps the header table in step.
    let head = [(":status", "200"), ("x-late", "1")];
    let late = talk.server.headers(1, false, &head);
    talk.wire.answer([late, frame(DATA, END_STREAM, 1, b"late")].concat());
    let head = talk.server.headers(3, false, &[(":status", "200"), ("x-late", "1")]);
    talk.wire.answer([head, frame(DATA, 0, 3, b"part")].concat());
    talk.wire.answer(frame(RST_STREAM, 0, 3, &2_u32.to_be_bytes()));
    assert_eq!(
        talk.lines(),
        ["GET /1 0 > - incomplete STREAM_RESET", "GET /3 0 > 200 4 incomplete STREAM_RESET",]
    );
    assert_eq!(talk.wire.run().1.http2_frames_late, 3);
}

#[test]
fn what_is_open_at_the_end_is_given_as_it_is() {
    let mut talk = Talk::new();
    talk.get(1, "/1").get(3, "/3");
    let head = talk.server.headers(3, false, &[(":status", "200")]);
    talk.wire.answer([head, frame(DATA, 0, 3, b"part")].concat());
    talk.wire.answer(frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]));
    assert_eq!(talk.lines(), ["GET /1 0 > - incomplete", "GET /3 0 > 200 4 incomplete TRUNCATED"]);
}

#[test]
fn the_record_of_the_connection() {
    let mut talk = Talk::new();
    talk.get(1, "/1").ok(1, b"12345");
    talk.wire.ask(frame(PING, 0, 0, &[1; 8])).answer(frame(PING, ACK, 0, &[1; 8]));
    talk.wire.answer(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11])).close();
    let mut decoder = decoder(Limits::default());
    feed(&mut decoder, talk.wire.flow, &talk.wire.packets);
    let record = decoder.poll_connection().unwrap();
    assert_eq!((record.protocol, record.calls), (Some(Protocol::Http2), 1));
    let http2 = record.http2.unwrap();
    assert_eq!(http2.client.settings, [(3, 100)]);
    assert_eq!(http2.server.settings, [(1, 4096), (3, 128)]);
    assert_eq!((http2.client.frames, http2.client.streams, http2.client.pings), (4, 1, 1));
    assert_eq!((http2.server.frames, http2.server.data_bytes, http2.server.pings), (6, 5, 0));
    assert_eq!((http2.server.goaway, http2.anomalies), (vec![11], Anomalies::empty()));
}

#[test]
fn only_the_server_is_seen() {
    let mut talk = Talk::new();
    talk.get(1, "/1").ok(1, b"1").get(3, "/3").ok(3, b"33");
    talk.wire.close();
    talk.wire
        .packets
        .retain(|packet| packet.direction == Direction::ToClient || packet.payload.is_empty());
    // The client's acknowledgements are not there either.
    talk.wire.packets.iter_mut().for_each(|packet| packet.ack = 1001);
    let calls = talk.wire.decode();
    assert_eq!(
        lines(&calls),
        ["- > 200 1 incomplete UNPAIRED_RESPONSE", "- > 200 2 incomplete UNPAIRED_RESPONSE"]
    );
}

#[test]
fn after_an_upgrade_from_http1() {
    let mut wire = Wire::open(1000, 2000);
    wire.ask("GET /first HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    let (mut client, mut server) = (Encoder::new(), Encoder::new());
    let head = server.headers(1, false, &[(":status", "200")]);
    wire.answer(
        [
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            &settings(&[])[..],
            &head,
            &frame(DATA, END_STREAM, 1, b"first"),
        ]
        .concat(),
    );
    wire.ask([PREFACE, &settings(&[]), &client.headers(3, true, &request("GET", "/2"))].concat());
    wire.answer(server.headers(3, true, &[(":status", "404")])).close();
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, wire.flow, &wire.packets);
    assert_eq!(lines(&calls), ["GET /first 0 > 200 5", "GET /2 0 > 404 0"]);
    assert!(calls.iter().all(|call| call.protocol == Protocol::Http2));
    assert_eq!(calls[0].stream_id, Some(1));
    let record = decoder.poll_connection().unwrap();
    assert_eq!(record.http2.unwrap().client.settings, [(3, 100)]);
}

/// A gRPC message.
fn message(content: &[u8]) -> Vec<u8> {
    [&[0][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

fn grpc(talk: &mut Talk, stream: u32, content_type: &str) {
    let mut fields = request("POST", "/pkg.Orders/Watch").to_vec();
    fields.push(("content-type", content_type));
    let head = talk.client.headers(stream, false, &fields);
    let sent = [message(b"abc"), message(b"")].concat();
    talk.wire.ask([head, frame(DATA, 0, stream, &sent[..6])].concat());
    talk.wire.ask(frame(DATA, END_STREAM, stream, &sent[6..]));
    let fields = [(":status", "200"), ("content-type", content_type)];
    let head = talk.server.headers(stream, false, &fields);
    talk.wire.answer([head, frame(DATA, 0, stream, &message(&[7; 100]))].concat());
}

fn grpc_line(call: &ApiCall) -> String {
    let grpc = call.grpc.as_ref().expect("a gRPC call");
    let (sent, received) = (grpc.sent, grpc.received);
    format!(
        "{} {} {:?} {}/{} {}/{} {:?}",
        grpc.service,
        grpc.method,
        grpc.status,
        sent.count,
        sent.bytes,
        received.count,
        received.bytes,
        call.outcome
    )
}

#[test]
fn grpc_has_its_status_in_trailers() {
    let mut talk = Talk::new();
    grpc(&mut talk, 1, "application/grpc+proto");
    let fields = [("grpc-status", "7"), ("grpc-message", "no")];
    let trailers = talk.server.headers(1, true, &fields);
    talk.wire.answer(trailers).close();
    let calls = talk.wire.decode();
    assert_eq!(grpc_line(&calls[0]), "pkg.Orders Watch Some(7) 2/3 1/100 Some(PermissionDenied)");
    assert_eq!((calls[0].protocol, calls[0].complete), (Protocol::Grpc, true));
}

#[test]
fn grpc_without_content_has_its_status_in_the_head() {
    let mut talk = Talk::new();
    let mut fields = request("POST", "/pkg.Orders/Place").to_vec();
    fields.push(("content-type", "application/grpc"));
    let head = talk.client.headers(1, false, &fields);
    talk.wire.ask([head, frame(DATA, END_STREAM, 1, &message(b"x"))].concat());
    let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "16")];
    let head = talk.server.headers(1, true, &fields);
    talk.wire.answer(head).close();
    let calls = talk.wire.decode();
    assert_eq!(grpc_line(&calls[0]), "pkg.Orders Place Some(16) 1/1 0/0 Some(BadKey)");
}

#[test]
fn grpc_web_has_its_status_in_the_body() {
    let mut talk = Talk::new();
    grpc(&mut talk, 1, "application/grpc-web+proto");
    let trailers = b"grpc-status: 8\r\n";
    let body = [&[0x80, 0, 0, 0, trailers.len() as u8][..], trailers].concat();
    talk.wire.answer(frame(DATA, END_STREAM, 1, &body)).close();
    let calls = talk.wire.decode();
    assert_eq!(grpc_line(&calls[0]), "pkg.Orders Watch Some(8) 2/3 1/100 Some(Throttled)");
}

#[test]
fn a_websocket_over_http2_is_named_and_counted() {
    let mut talk = Talk::new();
    let mut fields = request("CONNECT", "/stream").to_vec();
    fields.insert(1, (":protocol", "websocket"));
    let head = talk.client.headers(1, false, &fields);
    talk.wire.ask(head);
    let head = talk.server.headers(1, false, &[(":status", "200")]);
    talk.wire.answer(head).ask(frame(DATA, END_STREAM, 1, b"ping"));
    talk.wire.answer(frame(DATA, END_STREAM, 1, b"pong!"));
    assert_eq!(talk.lines(), ["CONNECT /stream 4 > 200 5 UPGRADED"]);
}

#[test]
fn a_large_body_is_missing_and_counted_all_the_same() {
    let mut talk = Talk::new();
    talk.get(1, "/1");
    let head = talk.server.headers(1, false, &[(":status", "200")]);
    talk.wire.answer([head, frame(DATA, END_STREAM, 1, &[b'x'; 10_000])].concat());
    let last = talk.wire.packets.last_mut().unwrap();
    last.missing = 9900;
    last.payload.truncate(last.payload.len() - 9900);
    talk.get(3, "/3").ok(3, b"3");
    assert_eq!(talk.lines(), ["GET /1 0 > 200 10000 incomplete GAP", "GET /3 0 > 200 1"]);
}

#[test]
fn a_lost_header_block_leaves_unknown_headers_and_no_wrong_ones() {
    let mut talk = Talk::new();
    talk.get(1, "/1").ok(1, b"1");
    let lost = talk.wire.packets.len();
    talk.get(3, "/3").ok(3, b"3");
    // Everything but the path was sent before.
    talk.get(5, "/5").ok(5, b"5");
    talk.wire.ask(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]));
    let fields = [(":method", "GET"), (":path", "/7"), (":authority", "b"), ("x-new", "1")];
    let head = talk.client.headers(7, true, &fields);
    talk.wire.ask(head);
    talk.ok(7, b"7");
    talk.wire.packets.remove(lost);
    talk.wire.close();
    let calls = talk.wire.decode();
    assert_eq!(
        lines(&calls),
        [
            "GET /1 0 > 200 1",
            "- > 200 1 incomplete UNPAIRED_RESPONSE",
            "GET  0 > 200 1 incomplete UNKNOWN_HEADER",
            "GET  0 > 200 1 incomplete UNKNOWN_HEADER"
        ]
    );
}

/// Whether some call, or the connection, names an oddity.
fn names(talk: &mut Talk, what: Anomalies) -> bool {
    talk.wire.close();
    let mut decoder = decoder(Limits::default());
    let calls = feed(&mut decoder, talk.wire.flow, &talk.wire.packets);
    let record = decoder.poll_connection().and_then(|record| record.http2);
    let record = record.expect("an HTTP/2 connection");
    record.anomalies.contains(what) || calls.iter().any(|call| call.anomalies.contains(what))
}

#[test]
fn abuse_is_named_and_less_of_the_same_is_not() {
    let resets = |talk: &mut Talk, count: u32| {
        for stream in (0..count).map(|at| at * 2 + 1) {
            talk.get(stream, "/");
            talk.wire.ask(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
    };
    let repeat = |talk: &mut Talk, bytes: Vec<u8>, count: u32| {
        let bytes = bytes.repeat(count as usize);
        talk.wire.ask(bytes);
    };
    let continuations = |talk: &mut Talk, count: u32| {
        talk.wire.ask(frame(HEADERS, END_STREAM, 1, &[0x82, 0x84]));
        for _ in 0..count {
            talk.wire.ask(frame(CONTINUATION, 0, 1, &[0x86]));
        }
        talk.wire.ask(frame(CONTINUATION, END_HEADERS, 1, b""));
    };
    let streams = |talk: &mut Talk, count: u32| {
        for at in 0..count {
            talk.get(at * 2 + 1, "/");
        }
    };
    let bomb = |talk: &mut Talk, count: u32| {
        let mut block = vec![0x82, 0x84, 0x40, 1, b'x', 0x7f, 0xc0, 0x0c];
        block.extend([b'y'; 1727]);
        block.extend(vec![0xbe; count as usize]);
        talk.wire.ask(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    };
    type Abuse<'a> = (&'a dyn Fn(&mut Talk, u32), u32, u32, Anomalies);
    let cases: [Abuse<'_>; 7] = [
        (&resets, 100, 101, Anomalies::RAPID_RESET),
        (&|talk, n| repeat(talk, settings(&[(3, 1)]), n), 999, 1001, Anomalies::SETTINGS_FLOOD),
        (&|talk, n| repeat(talk, frame(PING, 0, 0, &[0; 8]), n), 1000, 1001, Anomalies::PING_FLOOD),
        (&|talk, n| repeat(talk, frame(DATA, 0, 1, b""), n), 1000, 1001, Anomalies::EMPTY_FRAMES),
        (&continuations, 7, 8, Anomalies::CONTINUATION_FLOOD),
        (&streams, 256, 257, Anomalies::TOO_MANY_STREAMS),
        (&bomb, 1, 5000, Anomalies::HEAD_TOO_LARGE),
    ];
    for (abuse, few, many, what) in cases {
        for (count, expected) in [(few, false), (many, true)] {
            let mut talk = Talk::new();
            talk.wire.wait(1000);
            abuse(&mut talk, count);
            assert_eq!(names(&mut talk, what), expected, "{count} of {what:?}");
        }
    }
}

#[test]
fn a_frame_larger_than_agreed_is_named_and_read() {
    let mut talk = Talk::new();
    talk.get(1, "/1").ok(1, &[0; 16_385]).get(3, "/3").ok(3, b"3");
    let expected = ["GET /1 0 > 200 16385 FRAME_TOO_LARGE", "GET /3 0 > 200 1"];
    assert_eq!(talk.lines(), expected);
}

#[test]
fn a_connection_that_began_unseen() {
    let mut talk = Talk::new();
    talk.get(1, "/1").ok(1, b"1").get(3, "/3").ok(3, b"33");
    let begin = talk.wire.packets.len();
    talk.get(5, "/5").ok(5, b"555").get(7, "/").ok(7, b"7777");
    let fields = [(":method", "GET"), (":path", "/"), (":authority", "new.example")];
    let head = talk.client.headers(9, true, &fields);
    talk.wire.ask(head);
    let head = talk.client.headers(11, true, &fields);
    talk.wire.ask(head);
    talk.ok(9, b"9").ok(11, b"11");
    talk.wire.close();
    talk.wire.packets.drain(..begin);
    let calls = talk.wire.decode();
    assert_eq!(
        lines(&calls),
        [
            "GET  0 > 200 3 incomplete UNKNOWN_HEADER",
            "GET / 0 > 200 4 incomplete UNKNOWN_HEADER",
            "GET / 0 > 200 1 incomplete UNKNOWN_HEADER",
            "GET / 0 > 200 2 incomplete UNKNOWN_HEADER"
        ]
    );
    let json = serde_json::to_value(&calls[0]).unwrap();
    assert!(json["request"]["path"].is_null() && json["request"]["host"].is_null());
    let again: ApiCall = serde_json::from_value(json).unwrap();
    assert_eq!(again, calls[0]);
}
