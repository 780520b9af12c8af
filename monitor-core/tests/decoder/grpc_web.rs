//! gRPC-Web over HTTP/1.1: messages and the status in bodies.

use monitor_core::call::{ApiCall, Protocol};
use monitor_core::input::Direction;

use crate::wire::Wire;

/// A message of three bytes, and one of ten with the trailers behind it, in base64 that ends twice.
const ASKED: &str = "AAAAAANhYmM=";
const ANSWERED: &str = "AAAAAAowMTIzNDU2Nzg5gAAAACFncnBjLXN0YXR1czogNw0KZ3JwYy1tZXNzYWdlOm5vDQo=";

/// A message, or the trailers.
fn frame(flags: u8, content: &[u8]) -> Vec<u8> {
    [&[flags][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

fn post(kind: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /pkg.Orders/Watch HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n{fields}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn answer(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The same with the body in chunks of this size.
fn chunked(fields: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
    let chunks = body
        .chunks(size)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    head.into_bytes().into_iter().chain(chunks).chain(*b"0\r\n\r\n").collect()
}

fn line(call: &ApiCall) -> String {
    let Some(grpc) = &call.grpc else {
        assert_eq!(call.protocol, Protocol::Http11);
        return format!("no grpc, {:?}", call.outcome);
    };
    assert_eq!(call.protocol, Protocol::Grpc);
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

/// What one call comes to, whatever the size of the pieces.
fn check(ask: &[u8], answer: &[u8], expected: &str) {
    for cut in [usize::MAX, 1, 7] {
        let mut wire = Wire::open(1000, 2000);
        wire.cut = cut;
        wire.ask(ask).answer(answer).close();
        let calls = wire.decode();
        let lines: Vec<String> = calls.iter().map(line).collect();
        assert_eq!(lines, [expected], "pieces of {cut} bytes");
        assert!(calls[0].complete);
    }
}

const BINARY: &str = "Content-Type: application/grpc-web+proto\r\n";

#[test]
fn the_status_is_in_the_body() {
    let ask = post("application/grpc-web+proto", "", &frame(0, b"abc"));
    let trailers = frame(0x80, b"grpc-status:8\r\ngrpc-message:slow down\r\n");
    let body = [frame(0, &[b'x'; 300]), frame(0, b""), trailers].concat();
    let expected = "pkg.Orders Watch Some(8) 1/3 2/300 Some(Throttled)";
    check(&ask, &answer(BINARY, &body), expected);
    for size in [1, 4, 200] {
        check(&ask, &chunked(BINARY, &body, size), expected);
    }
    let fine = frame(0x80, b"Grpc-Status: 0\r\n");
    check(&ask, &answer(BINARY, &fine), "pkg.Orders Watch Some(0) 1/3 0/0 Some(Ok)");
    // Without a status it failed.
    check(&ask, &answer(BINARY, b""), "pkg.Orders Watch None 1/3 0/0 Some(Error)");
}

#[test]
fn base64_is_read() {
    let ask = post("application/grpc-web-text", "", ASKED.as_bytes());
    let fields = "content-type: application/grpc-web-text+proto\r\n";
    let expected = "pkg.Orders Watch Some(7) 1/3 1/10 Some(PermissionDenied)";
    check(&ask, &answer(fields, ANSWERED.as_bytes()), expected);
    check(&ask, &chunked(fields, ANSWERED.as_bytes(), 3), expected);
}

#[test]
fn the_status_may_be_in_the_only_head() {
    let ask = post("application/grpc-web", "", &frame(0, b"abc"));
    let fields = format!("{BINARY}grpc-status: 16\r\ngrpc-message: who\r\n");
    check(&ask, &answer(&fields, b""), "pkg.Orders Watch Some(16) 1/3 0/0 Some(BadKey)");
}

#[test]
fn what_is_no_grpc_web_is_no_grpc() {
    let body = frame(0, b"abc");
    // It is spoken over HTTP/2 only.
    let ask = post("application/grpc", "", &body);
    check(&ask, &answer("", b"ok"), "no grpc, Some(Ok)");
    // Messages of compressed bodies cannot be told apart.
    let ask = post("application/grpc-web", "", &body);
    let coded = format!("{BINARY}Content-Encoding: gzip\r\n");
    check(&ask, &answer(&coded, b"????"), "no grpc, Some(Ok)");
    let ask = post("application/grpc-web", "Content-Encoding: gzip\r\n", &body);
    check(&ask, &answer(BINARY, &frame(0, b"x")), "no grpc, Some(Ok)");
    // A proxy answers for the server.
    let ask = post("application/grpc-web", "", &body);
    let refused =
        b"HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n\0\0\0\0";
    check(&ask, refused, "pkg.Orders Watch None 1/3 0/0 Some(PermissionDenied)");
}

#[test]
fn calls_in_a_row_keep_their_messages_apart_also_across_a_loss() {
    let trailers = frame(0x80, b"grpc-status: 0\r\n");
    let long = [frame(0, &[b'x'; 1000]), trailers.clone()].concat();
    let mut wire = Wire::open(1000, 2000);
    wire.ask(post("application/grpc-web", "", &frame(0, &[b'a'; 500])));
    let whole = answer(BINARY, &long);
    wire.answer(&whole[..200]);
    wire.answer(&whole[200..900]);
    wire.answer(&whole[900..]);
    wire.ask(post("application/grpc-web", "", &frame(0, b"b"))).answer(answer(BINARY, &trailers));
    wire.close();
    let is_middle = |direction, bytes: usize| direction == Direction::ToClient && bytes == 700;
    wire.packets.retain(|packet| !is_middle(packet.direction, packet.payload.len()));
    let calls = wire.decode();
    let lines: Vec<String> = calls.iter().map(line).collect();
    let expected = [
        "pkg.Orders Watch Some(0) 1/500 1/1000 Some(Ok)",
        "pkg.Orders Watch Some(0) 1/1 0/0 Some(Ok)",
    ];
    assert_eq!(lines, expected);
    assert_eq!((calls[0].complete, calls[1].complete), (false, true));
}
