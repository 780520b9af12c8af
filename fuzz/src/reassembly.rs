//! Pieces of a known stream in any order: when every byte came and none was given up, the calls are
//! those of the stream in order.

use std::fmt::Write;

use monitor_core::input::{Direction, TcpFlags};
use monitor_core::limits::Limits;

use crate::wire::{Output, Wire};

/// Each piece of the input is four bytes: what, where (two), how much.
const STEP_BYTES: usize = 4;

/// Segments of a stream of requests, their numbers taken from the input.
pub fn reassembly(data: &[u8]) {
    let stream = stream();
    let mut wire = Wire::open(limits(), usize::MAX);
    let [start, other] = wire.numbers(Direction::ToServer);
    let mut plain = true;
    for step in data.chunks_exact(STEP_BYTES) {
        let at = usize::from(u16::from_be_bytes([step[1], step[2]]));
        let seq = start.wrapping_add(at as u32);
        let piece = stream.get(at..(at + usize::from(step[3])).min(stream.len()));
        match (step[0] % 16, piece) {
            (0..10, Some(piece)) => {
                wire.segment(Direction::ToServer, seq, other, TcpFlags::ACK, piece);
            }
            // Other bytes than the first time.
            (10, Some(piece)) => {
                let forged: Vec<u8> = piece.iter().map(|byte| byte ^ 1).collect();
                wire.segment(Direction::ToServer, seq, other, TcpFlags::ACK, &forged);
                plain = false;
            }
            (kind, _) => {
                let flags = TcpFlags::from_bits_truncate(kind << 2 | step[3]);
                wire.segment(Direction::ToServer, seq, other, flags, b"");
                wire.segment(Direction::ToClient, other, seq, flags, b"");
                plain = false;
            }
        }
    }
    // Everything once more, in order.
    for (number, piece) in stream.chunks(1000).enumerate() {
        let seq = start.wrapping_add(number as u32 * 1000);
        wire.segment(Direction::ToServer, seq, other, TcpFlags::ACK, piece);
    }
    let (output, counters) = wire.watched.finish();
    if plain && counters.gaps == 0 {
        assert_eq!(counters.overlap_conflicts, 0);
        let seen: Vec<String> = output.calls.iter().map(path).collect();
        assert_eq!(seen, in_order());
    }
}

fn limits() -> Limits {
    Limits { reorder_bytes_per_direction_max: 100_000, ..Limits::default() }
}

fn path(call: &monitor_core::call::ApiCall) -> String {
    call.request.as_ref().map(|request| request.path.to_string()).unwrap_or_default()
}

fn in_order() -> Vec<String> {
    let mut wire = Wire::open(limits(), usize::MAX);
    wire.send(Direction::ToServer, &stream());
    let (output, _): (Output, _) = wire.watched.finish();
    output.calls.iter().map(path).collect()
}

/// Some thousand bytes of requests with bodies.
fn stream() -> Vec<u8> {
    let mut text = String::new();
    for number in 0..40 {
        let body = "x".repeat(number * 3);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    text.into_bytes()
}
