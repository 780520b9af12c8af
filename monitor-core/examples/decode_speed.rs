//! How long the Decoder takes for a small call: `cargo run --release --example decode_speed`.

use std::time::Instant;

use monitor_core::decode::Decoder;
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Endpoint, Input, Segment, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

const REQUEST: &str = "GET /api/v3/account?timestamp=1795464000123&recvWindow=5000 HTTP/1.1\r\n\
    Host: api.example.com\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\n\
    Accept: */*\r\nConnection: keep-alive\r\nX-MBX-APIKEY: 0123456789abcdef0123456789abcdef\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\
    Date: Mon, 23 Nov 2026 20:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\
    Connection: keep-alive\r\n\r\n{\"status\":\"ok\"}";

fn main() {
    let flows: u16 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let rounds = 1_000_000 / u32::from(flows);
    let identifier = Identifier::new(Secret::new([0; 32]));
    let mut decoder = Decoder::new(Limits::default(), identifier, &[]);
    let server = Endpoint::new([10, 0, 0, 5].into(), 8080);
    let begin = Instant::now();
    let mut calls = 0_u64;
    for round in 0..rounds {
        for port in 0..flows {
            let client = Endpoint::new([203, 0, 113, 9].into(), 10_000 + port);
            let seq = 1 + round * REQUEST.len() as u32;
            let ack = 1 + round * RESPONSE.len() as u32;
            let time = EventTime(u64::from(round) * 1000);
            let segment = |source, target, seq, ack, text: &'static str| {
                let (payload, flags) = (text.as_bytes(), TcpFlags::ACK);
                let segment = Segment {
                    time,
                    source,
                    target,
                    scope: 0,
                    seq,
                    ack,
                    flags,
                    payload,
                    missing: 0,
                };
                Input::Segment(segment)
            };
            decoder.handle_input(segment(client, server, seq, ack, REQUEST));
            let seq_next = seq + REQUEST.len() as u32;
            decoder.handle_input(segment(server, client, ack, seq_next, RESPONSE));
            while decoder.poll_call().is_some() {
                calls += 1;
            }
        }
    }
    let nanos = begin.elapsed().as_nanos() as f64;
    eprintln!("{calls} calls, {:.0} ns each", nanos / calls as f64);
}
