//! A connection whose bytes are hostile, after a beginning that makes the Decoder take it for one
//! protocol. However the bytes are cut into segments, the same must come out, unless some were lost.

use monitor_core::input::{Direction, Input};
use monitor_core::limits::Limits;

use crate::script::{self, Turn};
use crate::wire::{Output, Wire};

/// Ways in which segments are cut: whole, and two others.
const CUTS: [usize; 3] = [usize::MAX, 1, 7];

/// HTTP/1 in both directions.
pub fn http1(data: &[u8]) {
    compare_cuts(data, |_| {}, |turn| turn.bytes.to_vec());
}

/// HTTP/2: frames after preface and settings.
pub fn http2(data: &[u8]) {
    compare_cuts(data, begin_http2, |turn| turn.bytes.to_vec());
}

/// HPACK: each turn is the header block of a message, in a frame that is well formed.
pub fn hpack(data: &[u8]) {
    let mut streams = [1_u32, 1];
    compare_cuts(
        data,
        move |wire| {
            begin_http2(wire);
        },
        move |turn| {
            let stream = &mut streams[turn.direction as usize];
            // HEADERS with END_HEADERS and END_STREAM (RFC 9113, 6.2), or without the latter, and the
            // next turn goes on with it: trailers.
            let ends = turn.kind & 1 == 0;
            let frame = frame(1, if ends { 5 } else { 4 }, *stream, turn.bytes);
            *stream = if ends { (*stream + 2) & 0x7fff_ffff } else { *stream };
            frame
        },
    );
}

/// WebSocket after a handshake: turns of an even kind are raw bytes, those of an odd one the payload
/// of a frame that is well formed. The first byte chooses the extension.
pub fn websocket(data: &[u8]) {
    let (first, data) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let extension = EXTENSIONS[usize::from(first) % EXTENSIONS.len()];
    compare_cuts(data, move |wire| begin_websocket(wire, extension), websocket_bytes);
}

/// FIX after a message that begins it: turns of an even kind are raw bytes, those of an odd one the
/// fields of a message that is well formed.
pub fn fix(data: &[u8]) {
    compare_cuts(
        data,
        |wire| wire.send(Direction::ToServer, &fix_message(b"35=A\x0134=1\x01553=k\x01")),
        |turn| if turn.kind & 1 == 0 { turn.bytes.to_vec() } else { fix_message(turn.bytes) },
    );
}

fn fix_message(fields: &[u8]) -> Vec<u8> {
    let mut bytes = [format!("8=FIX.4.4\x019={}\x01", fields.len()).as_bytes(), fields].concat();
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.extend(format!("10={sum:03}\x01").as_bytes());
    bytes
}

/// TLS records after secrets that are known: turns of an even kind are raw bytes, those of an odd one
/// the content of a record.
pub fn tls_records(data: &[u8]) {
    compare_cuts(
        data,
        |wire| wire.watched.feed(Input::Secrets(KEY_LOG)),
        |turn| {
            if turn.kind & 1 == 0 {
                return turn.bytes.to_vec();
            }
            // change_cipher_spec, alert, handshake, application_data (RFC 8446, 5.1).
            let content_type = 20 + (turn.kind >> 1 & 3);
            let length = (turn.bytes.len() as u16).to_be_bytes();
            [&[content_type, 3, 3][..], &length, turn.bytes].concat()
        },
    );
}

/// Plays a script with segments cut in each way, and compares what comes out.
fn compare_cuts<Begin, Encode>(data: &[u8], begin: Begin, encode: Encode)
where
    Begin: Fn(&mut Wire),
    Encode: FnMut(&Turn<'_>) -> Vec<u8> + Clone,
{
    let mut first: Option<Output> = None;
    for cut in CUTS {
        let mut encode = encode.clone();
        let mut wire = Wire::open(limits(), cut);
        begin(&mut wire);
        for (direction, lost, bytes) in pieces(data, &mut encode) {
            if lost {
                wire.lose(direction, bytes.len());
            } else {
                wire.send(direction, &bytes);
            }
        }
        let (output, counters) = wire.close();
        if counters.flows_evicted > 0 || counters.gaps > 0 {
            // When a bound is met, and when a loss is noticed, depends on the pieces.
            return;
        }
        match &first {
            None => first = Some(output),
            Some(first) => assert_eq!(first, &output, "segments of {cut} bytes"),
        }
    }
}

/// Turns as they go over the wire; those in a row that go the same way are one piece, because an
/// acknowledgement between them would tell where they were cut.
fn pieces<Encode: FnMut(&Turn<'_>) -> Vec<u8>>(
    data: &[u8],
    encode: &mut Encode,
) -> Vec<(Direction, bool, Vec<u8>)> {
    let mut pieces: Vec<(Direction, bool, Vec<u8>)> = Vec::new();
    for turn in script::read(data) {
        let bytes = encode(&turn);
        match pieces.last_mut() {
            Some((direction, lost, piece))
                if (*direction, *lost) == (turn.direction, turn.lost) =>
            {
                piece.extend(bytes);
            }
            Some(_) | None => pieces.push((turn.direction, turn.lost, bytes)),
        }
    }
    pieces
}

/// Smaller than usual, so that bounds are met by short inputs.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 2048,
        headers_max: 16,
        pipeline_max: 16,
        reorder_bytes_per_direction_max: 64 << 10,
        held_bytes_max: 1 << 20,
        ..Limits::default()
    }
}

fn begin_http2(wire: &mut Wire) {
    wire.send(Direction::ToServer, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    wire.send(Direction::ToClient, b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0");
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7692, 7.1.
const EXTENSIONS: [&str; 4] = [
    "",
    "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; \
     server_no_context_takeover\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9; \
     client_max_window_bits=8\r\n",
];

fn begin_websocket(wire: &mut Wire, extension: &str) {
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extension}\r\n"
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{extension}\r\n"
    );
    wire.send(Direction::ToServer, ask.as_bytes());
    wire.send(Direction::ToClient, answer.as_bytes());
}

/// Text, text that goes on, continuation, text with RSV1 (RFC 6455, 5.2; RFC 7692, 6), and the same
/// of binary and control frames, by the kind of the turn.
const FIRST_BYTES: [u8; 8] = [0x81, 0x01, 0x80, 0xc1, 0x41, 0xc2, 0x88, 0x89];

fn websocket_bytes(turn: &Turn<'_>) -> Vec<u8> {
    if turn.kind & 1 == 0 {
        return turn.bytes.to_vec();
    }
    let first = FIRST_BYTES[usize::from(turn.kind >> 1)];
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = turn.direction == Direction::ToServer;
    let mut frame = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    match turn.bytes.len() {
        short @ 0..126 => frame.push(mask_bit | short as u8),
        long => {
            frame.push(mask_bit | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    if masked {
        frame.extend(mask);
        frame.extend(turn.bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend(turn.bytes);
    }
    frame
}

/// Secrets of a client random of zeros, for TLS 1.2 and 1.3.
const KEY_LOG: &[u8] = b"\
CLIENT_RANDOM 0000000000000000000000000000000000000000000000000000000000000000 \
000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\n\
CLIENT_HANDSHAKE_TRAFFIC_SECRET 0000000000000000000000000000000000000000000000000000000000000000 \
000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
SERVER_HANDSHAKE_TRAFFIC_SECRET 0000000000000000000000000000000000000000000000000000000000000000 \
101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\n\
CLIENT_TRAFFIC_SECRET_0 0000000000000000000000000000000000000000000000000000000000000000 \
202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f\n\
SERVER_TRAFFIC_SECRET_0 0000000000000000000000000000000000000000000000000000000000000000 \
303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f\n";
