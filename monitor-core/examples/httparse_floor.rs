//! What nothing can beat: httparse alone over the packets of a capture, each of which holds one whole
//! message: `cargo run --release --example httparse_floor -- FILE`.
//!
//! Nothing is put in order, paired, identified or written. Prints calls and nanoseconds.

#![expect(clippy::print_stdout, reason = "its answer is what it prints")]

use std::hint::black_box;
use std::time::Instant;

/// Headers of a packet: Ethernet, IPv4 and TCP, none of them with options.
const HEADER_BYTES: usize = 14 + 20 + 20;
/// Of a pcap file, and of a packet in it.
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

fn main() {
    let path = std::env::args_os().nth(1).expect("a capture file");
    let file = std::fs::read(path).expect("a file that can be read");
    let begin = Instant::now();
    let calls = calls(&file);
    println!("{calls} {}", begin.elapsed().as_nanos());
}

/// Responses, each of which answers the request before it.
fn calls(file: &[u8]) -> u64 {
    let mut responses = 0;
    let mut rest = file.get(FILE_HEADER_BYTES..).unwrap_or_default();
    while let Some((header, packets)) = rest.split_at_checked(RECORD_HEADER_BYTES) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let Some((packet, next)) = packets.split_at_checked(length as usize) else { break };
        rest = next;
        let payload = packet.get(HEADER_BYTES..).unwrap_or_default();
        responses += u64::from(is_response(payload));
    }
    responses
}

/// Parses a request or a response; true for a response.
fn is_response(payload: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    if payload.starts_with(b"HTTP/") {
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(payload);
        black_box(&response);
        return parsed.is_ok_and(|status| status.is_complete());
    }
    if !payload.is_empty() {
        let mut request = httparse::Request::new(&mut headers);
        let _ = black_box(request.parse(payload));
        black_box(&request);
    }
    false
}
