//! Random conversations, and what a Decoder that sees all of them must say.

use monitor_core::call::ApiCall;
use monitor_core::input::{Direction, TcpFlags};
use proptest::prelude::*;

use crate::wire::{Packet, Wire};

/// A request and its response. The number is in the path and in the status.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    method: &'static str,
    request: Body,
    response: Body,
    interim: bool,
    empty_lines: bool,
}

/// A body of so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    None,
    Length(usize),
    Chunked(usize, usize),
}

/// A connection: bursts of exchanges, each asked at once and then answered at once.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) bursts: Vec<Vec<Exchange>>,
    until_close: Option<usize>,
    isns: (u32, u32),
    /// What bodies are made of.
    pub(crate) stuff: &'static str,
}

/// What a call must say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) request_bytes: u64,
    pub(crate) status: u16,
    pub(crate) response_bytes: u64,
    pub(crate) time: u64,
    pub(crate) latency_us: Option<u64>,
    pub(crate) complete: bool,
}

const STATUS_FIRST: usize = 400;

/// Bodies that look like messages.
pub(crate) const HOSTILE: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nGET /fake HTTP/1.1\r\n\r\n0\r\n\r\n";
/// Bodies that do not.
pub(crate) const PLAIN: &str = "{\"price\": 1}";

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::None),
        (0_usize..300).prop_map(Body::Length),
        (0_usize..300, 1_usize..100).prop_map(|(bytes, chunk)| Body::Chunked(bytes, chunk)),
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "POST", "DELETE", "HEAD", "PATCH"]);
    (method, body(), body(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(method, request, response, interim, empty_lines)| Exchange {
            method,
            request,
            response,
            interim,
            empty_lines,
        },
    )
}

/// Conversations whose bursts have the given sizes.
pub(crate) fn conversation(
    burst: std::ops::Range<usize>,
    stuff: &'static str,
) -> impl Strategy<Value = Conversation> {
    let bursts = prop::collection::vec(prop::collection::vec(exchange(), burst), 1..6);
    let isn = || prop_oneof![any::<u32>(), (0_u32..4000).prop_map(|below| u32::MAX - below)];
    let until_close = prop::option::of(0_usize..200);
    (bursts, until_close, isn(), isn()).prop_map(move |(bursts, until_close, client, server)| {
        Conversation { bursts, until_close, isns: (client, server), stuff }
    })
}

impl Conversation {
    /// As packets, one for each burst and direction, and the calls in order.
    pub(crate) fn play(&self) -> (Wire, Vec<Expected>) {
        let mut wire = Wire::open(self.isns.0, self.isns.1);
        let mut calls = Vec::new();
        for burst in &self.bursts {
            let first = calls.len();
            let asked = wire.wait(1000).time;
            let (mut requests, mut responses) = (String::new(), String::new());
            for (at, exchange) in burst.iter().enumerate() {
                let number = first + at;
                requests += &exchange.request(number, self.stuff);
                responses += &exchange.response(number, self.stuff);
                calls.push(exchange.expected(number, asked));
            }
            wire.ask(requests).wait(250).answer(responses);
        }
        if let Some(bytes) = self.until_close {
            let number = calls.len();
            let asked = wire.wait(1000).time;
            let body: String = self.stuff.chars().cycle().take(bytes).collect();
            wire.ask(format!("GET /{number} HTTP/1.0\r\n\r\n")).wait(250);
            wire.answer(format!("HTTP/1.0 {} x\r\n\r\n{body}", STATUS_FIRST + number));
            calls.push(Expected {
                path: format!("/{number}"),
                method: "GET".into(),
                request_bytes: 0,
                status: (STATUS_FIRST + number) as u16,
                response_bytes: bytes as u64,
                time: asked,
                latency_us: Some(250),
                complete: true,
            });
        }
        wire.close();
        (wire, calls)
    }
}

impl Exchange {
    fn request(&self, number: usize, stuff: &str) -> String {
        let lines = if self.empty_lines { "\r\n\r\n" } else { "" };
        let (fields, body) = self.request.text(stuff);
        format!("{lines}{} /{number} HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}", self.method)
    }

    fn response(&self, number: usize, stuff: &str) -> String {
        let interim = if self.interim { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
        let (mut fields, mut body) = self.response.text(stuff);
        if matches!(self.response, Body::None) {
            fields = "Content-Length: 0\r\n".into();
        }
        if self.method == "HEAD" {
            body.clear();
        }
        let status = STATUS_FIRST + number;
        format!("{interim}HTTP/1.1 {status} Some reason\r\nServer: s\r\n{fields}\r\n{body}")
    }

    fn expected(&self, number: usize, time: u64) -> Expected {
        let response_bytes = if self.method == "HEAD" { 0 } else { self.response.bytes() };
        Expected {
            path: format!("/{number}"),
            method: self.method.into(),
            request_bytes: self.request.bytes(),
            status: (STATUS_FIRST + number) as u16,
            response_bytes,
            time,
            latency_us: Some(250),
            complete: true,
        }
    }
}

impl Body {
    fn bytes(self) -> u64 {
        match self {
            Body::None => 0,
            Body::Length(bytes) | Body::Chunked(bytes, _) => bytes as u64,
        }
    }

    /// Header fields and the bytes themselves.
    fn text(self, stuff: &str) -> (String, String) {
        let content = |bytes| stuff.chars().cycle().take(bytes).collect::<String>();
        match self {
            Body::None => (String::new(), String::new()),
            Body::Length(bytes) => (format!("Content-Length: {bytes}\r\n"), content(bytes)),
            Body::Chunked(bytes, chunk) => {
                let content = content(bytes);
                let chunks = content.as_bytes().chunks(chunk).map(|chunk| {
                    let text = str::from_utf8(chunk).unwrap_or_default();
                    format!("{:x};e=1\r\n{text}\r\n", chunk.len())
                });
                let body = chunks.collect::<String>() + "0\r\nTrailer: x\r\n\r\n";
                ("Transfer-Encoding: chunked\r\n".into(), body)
            }
        }
    }
}

impl Expected {
    /// The same of a call that has both halves.
    pub(crate) fn of(call: &ApiCall) -> Option<Expected> {
        let (request, response) = (call.request.as_ref()?, call.response.as_ref()?);
        Some(Expected {
            path: request.path.to_string(),
            method: request.method.to_string(),
            request_bytes: request.body_bytes,
            status: response.status?,
            response_bytes: response.body_bytes,
            time: call.time.0,
            latency_us: call.latency_us,
            complete: call.complete,
        })
    }
}

/// A source of choices that a failing case repeats.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides` (SplitMix64, Steele and others 2014).
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % sides.max(1) as u64) as usize
    }
}

/// Cuts each packet into pieces of at most `piece` bytes.
pub(crate) fn cut(packets: &[Packet], piece: usize, dice: &mut Dice) -> Vec<Packet> {
    let mut pieces = Vec::new();
    for packet in packets {
        let mut at = 0;
        loop {
            let end = (at + 1 + dice.roll(piece)).min(packet.payload.len());
            pieces.push(Packet {
                seq: packet.seq.wrapping_add(at as u32),
                payload: packet.payload[at.min(end)..end].to_vec(),
                ..packet.clone()
            });
            at = end;
            if at >= packet.payload.len() {
                break;
            }
        }
    }
    pieces
}

/// Repeats some packets, some of them longer by the beginning of the next.
pub(crate) fn repeat(packets: &[Packet], dice: &mut Dice) -> Vec<Packet> {
    let mut more = Vec::new();
    for (at, packet) in packets.iter().enumerate() {
        more.push(packet.clone());
        if dice.roll(4) == 0 && !packet.flags.intersects(TcpFlags::SYN | TcpFlags::RST) {
            let mut again = packet.clone();
            if let Some(next) = packets.get(at + 1)
                && next.direction == packet.direction
                && !packet.flags.contains(TcpFlags::FIN)
            {
                let some = dice.roll(next.payload.len() + 1);
                again.payload.extend_from_slice(&next.payload[..some]);
                again.time = next.time;
            }
            more.push(again);
        }
    }
    more
}

/// How much of what was delivered is kept for comparison at least.
const COMPARED: i32 = 2048;

/// Sends some packets again with other bytes, while the first ones are there; gives how many.
pub(crate) fn contradict(packets: &mut Vec<Packet>, dice: &mut Dice) -> u64 {
    let mut count = 0;
    for at in (0..packets.len()).rev() {
        let first = &packets[at];
        if first.payload.len() < 2 || dice.roll(3) > 0 {
            continue;
        }
        let from = dice.roll(first.payload.len() - 1);
        let seq = first.seq.wrapping_add(from as u32);
        let behind = packets[..at].iter().filter(|packet| packet.direction == first.direction);
        let until = behind.map(|packet| {
            packet.seq.wrapping_add(packet.payload.len() as u32).wrapping_sub(seq) as i32
        });
        if until.max().is_some_and(|until| until > COMPARED) {
            continue;
        }
        let other = Packet {
            seq,
            payload: first.payload[from..].iter().map(|byte| !byte).collect(),
            ..first.clone()
        };
        packets.insert(at + 1, other);
        count += 1;
    }
    count
}

/// Puts keep-alive probes between packets: the last byte that was sent again, or any, or none.
pub(crate) fn probe(packets: &mut Vec<Packet>, dice: &mut Dice) {
    for at in (0..packets.len()).rev() {
        let last = &packets[at];
        if handshake(last) || dice.roll(3) > 0 {
            continue;
        }
        let end = last.payload.len() as u32 + u32::from(last.flags.contains(TcpFlags::FIN));
        let probe = Packet {
            seq: last.seq.wrapping_add(end).wrapping_sub(1),
            payload: vec![dice.roll(256) as u8; dice.roll(2)],
            flags: TcpFlags::ACK,
            ..last.clone()
        };
        packets.insert(at + 1, probe);
    }
}

/// Sends the first bytes of the client on its SYN; the server takes some of them.
pub(crate) fn open_fast(packets: &mut [Packet], dice: &mut Dice) {
    let is_data = |it: &Packet| it.direction == Direction::ToServer && !it.payload.is_empty();
    let Some(first) = packets.iter().position(is_data) else { return };
    let data = packets[first].payload.clone();
    let taken = dice.roll(data.len() + 1);
    packets[0].payload = data[..taken + dice.roll(data.len() + 1 - taken)].to_vec();
    packets[1].ack = packets[1].ack.wrapping_add(taken as u32);
    packets[2].seq = packets[2].seq.wrapping_add(taken as u32);
    // What the server did not take comes again.
    packets[first].payload.drain(..taken);
    packets[first].seq = packets[first].seq.wrapping_add(taken as u32);
    packets[first].time = packets[0].time;
}

/// Moves packets by at most `window` places, within runs of one direction.
pub(crate) fn shuffle(packets: &mut [Packet], window: usize, dice: &mut Dice) {
    let run = |a: &Packet, b: &Packet| a.direction == b.direction && handshake(a) == handshake(b);
    for run in packets.chunk_by_mut(run) {
        for at in 0..run.len() {
            let to = (at + dice.roll(window)).min(run.len() - 1);
            run.swap(at, to);
        }
    }
}

fn handshake(packet: &Packet) -> bool {
    packet.flags.contains(TcpFlags::SYN)
}

/// Payload bytes that went in a direction.
pub(crate) fn payload_bytes(packets: &[Packet], direction: Direction) -> u64 {
    let there = packets.iter().filter(|packet| packet.direction == direction);
    there.map(|packet| packet.payload.len() as u64).sum()
}
