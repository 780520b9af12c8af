//! The captures that are replayed, made anew each time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases::capture::{Format, Link, append, file_header};
use crate::cases::conversation::Conversation;
use crate::encode::{http2, websocket};
use crate::process;

/// Where every server listens.
pub(super) const PORT: u16 = 8080;

const SNAP_BYTES: usize = 262_144;
const CALLS_PER_CONNECTION: u32 = 200;
/// Clients and keys that the calls are spread over.
const KEYS: u32 = 1000;
const LARGE_BODY_BYTES: usize = 1 << 20;
const BODY: &str = r#"{"symbol":"BTCUSDT","price":"97250.10000000"}"#;

/// A capture and what is in it.
pub(super) struct Capture {
    /// What it is there for.
    pub(super) name: &'static str,
    /// The file.
    pub(super) file: PathBuf,
    /// Its size, bytes.
    pub(super) bytes: u64,
    /// Calls in it: requests, or messages of WebSocket clients.
    pub(super) calls: u64,
    /// Handshakes of WebSocket connections, which are calls too.
    pub(super) handshakes: u64,
}

/// Ordinary small calls: 1000 keys, each on connections of 200 calls.
pub(super) fn small(dir: &Path, name: &'static str, calls: u32) -> Result<Capture> {
    let reply = reply();
    let connections = write(dir, name, calls.div_ceil(CALLS_PER_CONNECTION), |number| {
        let request = request(number % KEYS);
        let mut talk = client(number);
        talk.open();
        for _ in 0..calls_of(number, calls) {
            talk.ask(&request).answer(&reply);
        }
        talk.close();
        talk
    });
    capture(dir, name, connections, calls, 0)
}

/// Answers of 1 MiB, one on each connection.
pub(super) fn large(dir: &Path, calls: u32) -> Result<Capture> {
    let body = "x".repeat(LARGE_BODY_BYTES);
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BODY_BYTES}\r\n\r\n{body}");
    let written = write(dir, "large bodies", calls, |number| {
        let mut talk = client(number);
        talk.open().ask("GET /export HTTP/1.1\r\nHost: api.example.com\r\n\r\n").answer(&reply);
        talk.close();
        talk
    });
    capture(dir, "large bodies", written, calls, 0)
}

/// The small calls as streams of HTTP/2 with prior knowledge.
pub(super) fn http2(dir: &Path, calls: u32) -> Result<Capture> {
    let written = write(dir, "http/2", calls.div_ceil(CALLS_PER_CONNECTION), |number| {
        let mut talk = client(number);
        let (mut client, mut server) = (http2::Encoder::default(), http2::Encoder::default());
        let settings = http2::frame(http2::SETTINGS, 0, 0, b"");
        let agreed = http2::frame(http2::SETTINGS, 1, 0, b"");
        talk.open().ask([http2::PREFACE, &settings].concat());
        talk.answer([settings, agreed.clone()].concat()).ask(&agreed);
        let key = key(number % KEYS);
        for call in 0..calls_of(number, calls) {
            let stream = 2 * call + 1;
            let target =
                "/api/v3/account?recvWindow=5000&timestamp=1795464000000&signature=00112233";
            let request = client.block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", target),
                (":authority", "api.example.com"),
                ("user-agent", "desk/1.0"),
                ("accept", "*/*"),
                ("x-mbx-apikey", &key),
            ]);
            let length = BODY.len().to_string();
            let response = server.block(&[
                (":status", "200"),
                ("server", "nginx"),
                ("content-type", "application/json"),
                ("content-length", &length),
            ]);
            let ends = http2::END_HEADERS | http2::END_STREAM;
            talk.ask(http2::frame(http2::HEADERS, ends, stream, &request));
            let head = http2::frame(http2::HEADERS, http2::END_HEADERS, stream, &response);
            talk.answer([head, http2::body(stream, BODY.as_bytes())].concat());
        }
        talk.close();
        talk
    });
    capture(dir, "http/2", written, calls, 0)
}

/// Calls as messages of WebSocket connections, each with its reply.
pub(super) fn websocket(dir: &Path, calls: u32) -> Result<Capture> {
    let connections = calls.div_ceil(CALLS_PER_CONNECTION);
    let written = write(dir, "websocket", connections, |number| {
        let mut talk = client(number);
        let key = format!("X-MBX-APIKEY: {}\r\n", key(number % KEYS));
        talk.open().ask(websocket::request("/ws-api/v3", &key)).answer(websocket::RESPONSE);
        for call in 0..calls_of(number, calls) {
            let ask = format!(
                r#"{{"id":{call},"method":"order.status","params":{{"symbol":"BTCUSDT","orderId":{call}}}}}"#
            );
            let mask = Some((call ^ 0x5a5a_a5a5).to_be_bytes());
            let answer = format!(r#"{{"id":{call},"status":200,"result":{BODY}}}"#);
            talk.ask(websocket::message(websocket::TEXT, mask, ask.as_bytes()));
            talk.answer(websocket::message(websocket::TEXT, None, answer.as_bytes()));
        }
        talk.close();
        talk
    });
    capture(dir, "websocket", written, calls, connections)
}

/// Connections that are all open at once: one call each, and a request that is not answered.
pub(super) fn concurrent(dir: &Path, connections: u32) -> Result<Capture> {
    let (request, reply) = (request(0), reply());
    let written = write(dir, "concurrent", connections, |number| {
        // Few addresses, so that it is the connections that take memory. Ports from 10,000 on.
        let port = 10_000 + number % 50_000;
        let mut talk =
            Conversation::between(&format!("10.0.0.{}:{port}", number / 50_000), &server())
                .numbered(number.wrapping_mul(2_654_435_761), 1)
                .at(Duration::from_millis(u64::from(number)));
        talk.open().ask(&request).answer(&reply).ask(&request);
        talk
    });
    capture(dir, "concurrent", written, 2 * connections, 0)
}

/// One call, because Suricata refuses a file without packets: what a tool takes to start.
pub(super) fn one(dir: &Path) -> Result<Capture> {
    small(dir, "one call", 1)
}

fn capture(
    dir: &Path,
    name: &'static str,
    written: Result<()>,
    calls: u32,
    handshakes: u32,
) -> Result<Capture> {
    written?;
    let file = path(dir, name);
    let bytes = file.metadata()?.len();
    Ok(Capture { name, file, bytes, calls: calls.into(), handshakes: handshakes.into() })
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{}.pcap", name.replace(['/', ' '], "-")))
}

fn calls_of(number: u32, calls: u32) -> u32 {
    CALLS_PER_CONNECTION.min(calls - number * CALLS_PER_CONNECTION)
}

fn key(number: u32) -> String {
    format!("bench-key-{number:054}")
}

fn request(key: u32) -> String {
    format!(
        "GET /api/v3/account?recvWindow=5000&timestamp=1795464000000&signature=00112233 HTTP/1.1\r\n\
         Host: api.example.com\r\nUser-Agent: desk/1.0\r\nAccept: */*\r\nX-MBX-APIKEY: {}\r\n\r\n",
        self::key(key)
    )
}

fn reply() -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: keep-alive\r\n\r\n{BODY}",
        BODY.len()
    )
}

fn server() -> String {
    format!("198.51.100.5:{PORT}")
}

fn client(number: u32) -> Conversation {
    let [_, high, middle, low] = (number % KEYS).to_be_bytes();
    let port = 20_000 + number / KEYS;
    Conversation::between(&format!("10.{high}.{middle}.{low}:{port}"), &server())
        .numbered(number.wrapping_mul(2_654_435_761), 1)
        .at(Duration::from_millis(u64::from(number) * 400))
}

fn write(
    dir: &Path,
    name: &str,
    connections: u32,
    talk: impl Fn(u32) -> Conversation,
) -> Result<()> {
    let (link, format) = (Link::Ethernet, Format::LittleMicros);
    let mut out = BufWriter::new(File::create(path(dir, name))?);
    out.write_all(&file_header(link, format, SNAP_BYTES)?)?;
    for number in 0..connections {
        let mut bytes = Vec::new();
        append(&mut bytes, &talk(number).packets(), link, format, SNAP_BYTES)?;
        out.write_all(&bytes)?;
        process::check_interrupted()?;
    }
    out.flush().context("writing a capture")
}
