//! What the fuzz targets begin with: small inputs that reach far, made by the code that makes the
//! captures of the case folders.

use anyhow::{Result, ensure};
use keywatch_fuzz::{TARGETS, Turn, write};
use monitor_core::input::Direction;
use xtask::cases;
use xtask::encode::{http2, websocket};

/// An input of a target.
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Larger captures are slow to mutate, and hold more of the same.
const CAPTURE_BYTES_MAX: usize = 8192;

const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;

/// Every seed.
pub(crate) fn all() -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    captures(&mut seeds)?;
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes });
    };
    for (name, script) in http1_scripts() {
        add("http1", name, script);
    }
    add("http2", "calls", http2_calls());
    add("http2", "frames-of-every-type", http2_frames());
    add("hpack", "literals-and-indices", header_blocks());
    for (number, name) in ["plain", "deflate", "no-context", "small-windows"].iter().enumerate() {
        let mut script = vec![u8::try_from(number)?];
        script.extend(websocket_messages(number > 0));
        add("websocket", name, script);
    }
    add("fix", "orders", fix_orders());
    add("tls_records", "hello", tls_hello());
    add("tls_records", "records-of-every-type", tls_records());
    add("reassembly", "in-order", in_order());
    add("reassembly", "backwards", backwards());
    add("decoder", "inputs-of-every-kind", inputs());
    for (target, _) in TARGETS {
        ensure!(seeds.iter().any(|seed| seed.target == target), "no seed for {target}");
    }
    Ok(seeds)
}

/// The captures of the case folders as files, and their packets alone.
fn captures(seeds: &mut Vec<Seed>) -> Result<()> {
    for case in cases::all() {
        let bytes = case.file()?;
        if bytes.len() > CAPTURE_BYTES_MAX {
            continue;
        }
        if let Some(packets) = packets(&bytes) {
            seeds.push(Seed { target: "packet", name: case.name.to_owned(), bytes: packets });
        }
        seeds.push(Seed { target: "capture_file", name: case.name.to_owned(), bytes });
    }
    Ok(())
}

/// The packets of a little-endian pcap file as the target takes them.
fn packets(file: &[u8]) -> Option<Vec<u8>> {
    // Places of the link types in the target's list.
    const LINK_TYPES: [(u32, u8); 6] = [(0, 0), (1, 1), (101, 9), (108, 11), (113, 12), (276, 15)];
    let number = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk::<4>()?));
    if number(0)? != 0xa1b2_c3d4 {
        return None;
    }
    let link = number(20)?;
    let (_, place) = LINK_TYPES.iter().find(|(link_type, _)| *link_type == link)?;
    let mut input = vec![*place];
    let mut at = 24;
    while let (Some(length), Some(original)) = (number(at + 8), number(at + 12)) {
        let end = at + 16 + length as usize;
        let packet = file.get(at + 16..end)?;
        input.extend(u16::try_from(length).ok()?.to_be_bytes());
        input.push(u8::try_from(original - length).unwrap_or(u8::MAX));
        input.extend(packet);
        at = end;
    }
    Some(input)
}

fn turn(direction: Direction, bytes: &[u8]) -> Turn<'_> {
    Turn { direction, lost: false, kind: 0, bytes }
}

fn http1_scripts() -> Vec<(&'static str, Vec<u8>)> {
    let ask = "GET /api/v3/account?timestamp=1&signature=00 HTTP/1.1\r\nHost: a\r\n\
               X-MBX-APIKEY: key\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let post = "POST /order HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
                Expect: 100-continue\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\n";
    let refused = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 13\r\n\r\n\
                   {\"code\":-1022}";
    let both = [turn(UP, ask.as_bytes()), turn(DOWN, answer.as_bytes())];
    let chunked = [turn(UP, post.as_bytes()), turn(DOWN, refused.as_bytes())];
    let pipelined = format!("{ask}{post}{ask}");
    let answers = format!("{answer}{refused}{answer}");
    let pipeline = [turn(UP, pipelined.as_bytes()), turn(DOWN, answers.as_bytes())];
    let lost = Turn { lost: true, ..turn(UP, post.as_bytes()) };
    let gap = [both[0], lost, turn(UP, ask.as_bytes()), turn(DOWN, answers.as_bytes())];
    let connect = [
        turn(UP, b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n"),
        turn(DOWN, b"HTTP/1.1 200 OK\r\n\r\n"),
        both[0],
        both[1],
    ];
    let odd = [
        turn(UP, b"GET  /a\tb HTTP/1.1\nHost:a\n folded\n\nGET / HTTP/1.0\r\nContent-Length: 1, 1\r\n\r\nx"),
        turn(DOWN, b"HTTP/1.1 200\nContent-Length: 1\nTransfer-Encoding: chunked\n\n1\nx\n0\n\nHTTP/1.0 200 OK\n\nrest"),
    ];
    let old = [turn(UP, b"GET /old\r\n"), turn(DOWN, b"<html>")];
    let coded = [
        both[0],
        turn(DOWN, b"HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n"),
        turn(DOWN, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0"),
    ];
    let upgrade = [
        turn(
            UP,
            b"GET /h2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        ),
        turn(
            DOWN,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
        turn(DOWN, b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88"),
    ];
    vec![
        ("call", write(&both)),
        ("chunked", write(&chunked)),
        ("pipeline", write(&pipeline)),
        ("gap", write(&gap)),
        ("connect", write(&connect)),
        ("odd", write(&odd)),
        ("old", write(&old)),
        ("coded", write(&coded)),
        ("h2c", write(&upgrade)),
    ]
}

/// Requests and responses on three streams, gRPC on one of them.
fn http2_calls() -> Vec<u8> {
    let (mut client, mut server) = (http2::Encoder::default(), http2::Encoder::default());
    let headers = |block: &[u8], stream, ends: bool| {
        let flags = http2::END_HEADERS | if ends { http2::END_STREAM } else { 0 };
        http2::frame(http2::HEADERS, flags, stream, block)
    };
    let request = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/api/v3/time"),
        (":authority", "api.example.com"),
        ("x-api-key", "key"),
    ];
    let grpc = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/exchange.Orders/Place"),
        (":authority", "api.example.com"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let message = b"\0\0\0\0\x03\x0a\x01x";
    let asked = [
        headers(&client.block(&request), 1, true),
        headers(&client.block(&grpc), 3, false),
        http2::body(3, message),
        headers(&client.block(&request), 5, true),
    ]
    .concat();
    let answered = [
        headers(
            &server.block(&[(":status", "200"), ("content-type", "application/grpc")]),
            3,
            false,
        ),
        http2::frame(http2::DATA, 0, 3, message),
        headers(&server.block(&[(":status", "404"), ("content-length", "2")]), 1, false),
        http2::body(1, b"{}"),
        headers(&server.block(&[("grpc-status", "7"), ("grpc-message", "no")]), 3, true),
        headers(&server.block(&[(":status", "200")]), 5, true),
    ]
    .concat();
    write(&[turn(UP, &asked), turn(DOWN, &answered)])
}

/// One frame of each type, and one that no standard knows.
fn http2_frames() -> Vec<u8> {
    let number = 7_u32.to_be_bytes();
    let block = [0x82, 0x86, 0x84];
    let padded = [&[2], &block[..], &[0, 0]].concat();
    let priority = [&number[..], &[16]].concat();
    let prioritised = [&priority, &block[..]].concat();
    let push = [&2_u32.to_be_bytes()[..], &block].concat();
    let up = [
        http2::frame(http2::HEADERS, 0x0c, 1, &padded),
        http2::frame(http2::HEADERS, 0x20, 3, &prioritised[..6]),
        http2::frame(9, 4, 3, &prioritised[6..]),
        http2::frame(2, 0, 5, &priority),
        http2::frame(http2::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0x40, 0]),
        http2::frame(6, 0, 0, &[0; 8]),
        http2::frame(8, 0, 0, &number),
        http2::frame(http2::DATA, 9, 3, b"\x01x\0"),
        http2::frame(0x42, 0, 0, b"?"),
    ]
    .concat();
    let down = [
        http2::frame(http2::SETTINGS, 1, 0, b""),
        http2::frame(5, 4, 1, &push),
        http2::frame(http2::HEADERS, 4, 1, &[0x88]),
        http2::frame(http2::DATA, 1, 1, b"{}"),
        http2::frame(http2::HEADERS, 5, 2, &[0x88]),
        http2::frame(3, 0, 3, &number),
        http2::frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
    ]
    .concat();
    write(&[turn(UP, &up), turn(DOWN, &down)])
}

fn header_blocks() -> Vec<u8> {
    let mut client = http2::Encoder::default();
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "b")];
    let (first, second) = (client.block(&fields), client.block(&fields));
    // A size update to nothing and back, Huffman code (RFC 7541, C.4.1), never indexed.
    let resized = [&[0x20, 0x3f, 0xe1, 0x1f], &first[..]].concat();
    let huffman = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let never = b"\x10\x08password\x06secret";
    write(&[
        turn(UP, &first),
        turn(UP, &second),
        turn(DOWN, &[0x88]),
        turn(UP, &resized),
        turn(UP, huffman),
        Turn { kind: 1, ..turn(DOWN, never) },
        turn(DOWN, &[0x88, 0xff, 0xff, 0xff, 0x0f]),
    ])
}

/// Messages, a ping between the pieces of one, and a close.
fn websocket_messages(deflated: bool) -> Vec<u8> {
    let mask = Some([1, 2, 3, 4]);
    let ask = br#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#;
    let raw = websocket::message(websocket::TEXT, mask, ask);
    let answer = websocket::message(websocket::TEXT, None, br#"{"result":null,"id":1}"#);
    let ping = websocket::message(websocket::PING, None, b"1");
    let close = websocket::message(websocket::CLOSE, mask, b"\x03\xe8");
    // "Hello" (RFC 7692, 7.2.3.1), and again with the window of the first (7.2.3.2).
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let mut turns = vec![turn(UP, &raw), turn(DOWN, &answer)];
    if deflated {
        // Text with RSV1.
        let coded = |direction, bytes| Turn { kind: 7, ..turn(direction, bytes) };
        turns.extend([coded(UP, &hello[..]), coded(UP, &again), coded(DOWN, &hello)]);
    } else {
        // A text that goes on, a ping, and the rest.
        turns.push(Turn { kind: 3, ..turn(DOWN, b"{\"e\":\"trade\",") });
        turns.push(turn(DOWN, &ping));
        turns.push(Turn { kind: 5, ..turn(DOWN, b"\"p\":\"1\"}") });
    }
    turns.push(turn(UP, &close));
    write(&turns)
}

/// An order and its reports, a reject, a message that is cut in the middle, and one with a wrong length.
fn fix_orders() -> Vec<u8> {
    let fields = |text: &'static str| text.as_bytes();
    let sent = |direction, bytes| Turn { kind: 1, ..turn(direction, bytes) };
    write(&[
        sent(DOWN, fields("35=A\u{1}34=1\u{1}")),
        sent(UP, fields("35=D\u{1}34=2\u{1}11=a\u{1}55=B\u{1}38=1\u{1}")),
        sent(DOWN, fields("35=8\u{1}34=2\u{1}11=a\u{1}39=0\u{1}")),
        sent(UP, fields("35=F\u{1}34=3\u{1}11=b\u{1}41=a\u{1}")),
        sent(DOWN, fields("35=3\u{1}34=3\u{1}45=3\u{1}373=10\u{1}")),
        turn(UP, b"8=FIX.4.4\x019=12\x0135=0\x01"),
        turn(UP, b"34=4\x01xx10=000\x01"),
        sent(UP, fields("35=5\u{1}34=5\u{1}")),
    ])
}

/// Both hellos of TLS 1.2 and 1.3 in one conversation, with a random of zeros.
fn tls_hello() -> Vec<u8> {
    let client = [
        &[1, 0, 0, 0, 3, 3][..],
        &[0; 32],
        &[0, 0, 4, 0x13, 1, 0xc0, 0x2f, 1, 0],
        &client_extensions(),
    ];
    let client = handshake(client.concat());
    let server = [&[2, 0, 0, 0, 3, 3][..], &[9; 32], &[0, 0x13, 1, 0, 0, 6, 0, 0x2b, 0, 2, 3, 4]];
    let server = handshake(server.concat());
    let application = [&[23, 3, 3, 0, 40][..], &[0x55; 40]].concat();
    write(&[
        turn(UP, &client),
        turn(DOWN, &server),
        turn(DOWN, &application),
        turn(UP, &application),
    ])
}

/// Server name, ALPN, groups, versions (RFC 8446, 4.2).
fn client_extensions() -> Vec<u8> {
    let extensions = [
        &[0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'][..],
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'],
        &[0, 10, 0, 4, 0, 2, 0, 29],
        &[0, 43, 0, 3, 2, 3, 4],
    ]
    .concat();
    [&[0, extensions.len() as u8][..], &extensions].concat()
}

/// A handshake message with its length, in a record.
fn handshake(mut message: Vec<u8>) -> Vec<u8> {
    message[3] = (message.len() - 4) as u8;
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

fn tls_records() -> Vec<u8> {
    let hello = tls_hello();
    let record =
        |direction, kind: u8, bytes| Turn { kind: kind << 1 | 1, ..turn(direction, bytes) };
    let mut script = hello;
    script.extend(write(&[
        record(UP, 0, &[1]),
        record(DOWN, 1, &[2, 40]),
        record(DOWN, 2, &[11, 0, 0, 3, 0, 0, 0]),
        record(UP, 3, &[0; 24]),
    ]));
    script
}

/// What, where, how much.
fn in_order() -> Vec<u8> {
    (0..40_u16).flat_map(|step| [&[0][..], &(step * 200).to_be_bytes(), &[200]].concat()).collect()
}

fn backwards() -> Vec<u8> {
    let steps = (0..40_u16).rev();
    steps.flat_map(|step| [&[0][..], &(step * 150).to_be_bytes(), &[200]].concat()).collect()
}

/// Each kind of input once, on two connections, with a call among them.
fn inputs() -> Vec<u8> {
    let ask = b"GET / HTTP/1.1\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let segment = |tag: u8, seq: u8, ack: u8, bytes: &[u8]| {
        [&[tag, seq, ack, bytes.len() as u8][..], bytes].concat()
    };
    [
        &[2][..],
        &[0, 0, 0, 15, 0, 0, 0, 16, 0, 0, 0, 32],
        &[4],
        &segment(9, 1, 2, ask),
        &segment(9 | 16, 2, 2, answer),
        &[5, 4],
        b"a b\n",
        &[3, 0, 1, 0, 0],
        &[16, 0, 0, 0, 9],
        &segment(9 | 32, 1, 1, ask),
        &[6 | 32, 0x12, 1, 1, 0],
        &[7 | 32, 0, 0, 0, 1, 0, 0, 0, 1, 0],
        &[8 | 32, 3, 3, 0, 0, 0, 9, 1, b'x'],
        &[1],
    ]
    .concat()
}
