//! IP and TCP headers drawn around a payload, so that other programs can read a recording.

use monitor_core::input::{Endpoint, Segment, TcpFlags};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
/// Hops that are usual for a packet that was just sent.
const HOPS: u8 = 64;
const PROTOCOL_TCP: u8 = 6;
/// IPv6 with nothing behind its header (RFC 8200, 4.7).
const PROTOCOL_NONE: u8 = 59;
/// Before the other 80 bits of an IPv4 address in IPv6 form.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
const PUSH: u8 = 0x08;

/// What stands in the headers.
pub(super) struct Headers {
    source: Endpoint,
    target: Endpoint,
    /// `None`: no TCP at all.
    tcp: Option<Tcp>,
}

struct Tcp {
    seq: u32,
    ack: u32,
    flags: TcpFlags,
}

/// An IPv6 header from the unspecified address to itself, with nothing in it.
pub(super) const EVENT: Headers = Headers {
    source: Endpoint { addr: [0; 16], port: 0 },
    target: Endpoint { addr: [0; 16], port: 0 },
    tcp: None,
};

impl Headers {
    pub(super) fn new(
        source: Endpoint,
        target: Endpoint,
        seq: u32,
        ack: u32,
        flags: TcpFlags,
    ) -> Headers {
        Headers { source, target, tcp: Some(Tcp { seq, ack, flags }) }
    }

    pub(super) fn of(segment: &Segment<'_>) -> Headers {
        let Segment { source, target, seq, ack, flags, .. } = *segment;
        Headers::new(source, target, seq, ack, flags)
    }

    /// The headers before `payload`, of which `missing` more bytes were sent.
    pub(super) fn bytes(&self, payload: &[u8], missing: u32) -> Header {
        let Some(tcp) = &self.tcp else {
            let mut header = Header::default();
            self.ipv6(&mut header, 0, PROTOCOL_NONE);
            return header;
        };
        let body = TCP_BYTES + payload.len() + missing as usize;
        let mut header = Header::default();
        let v4 = [self.source, self.target].iter().all(|end| end.addr.starts_with(&MAPPED));
        if v4 {
            self.ipv4(&mut header, body)
        } else {
            self.ipv6(&mut header, body, PROTOCOL_TCP)
        }
        let begin = header.length;
        header.put(&self.source.port.to_be_bytes());
        header.put(&self.target.port.to_be_bytes());
        header.put(&tcp.seq.to_be_bytes());
        header.put(&tcp.ack.to_be_bytes());
        let push = if payload.is_empty() { 0 } else { PUSH };
        header.put(&[(TCP_BYTES as u8 / 4) << 4, tcp.flags.bits() | push]);
        // The largest window without scaling; then no checksum yet, and no urgent data.
        header.put(&[0xff, 0xff, 0, 0, 0, 0]);
        // Over bytes that are not there no checksum can be drawn; 0 is what a card is left to fill.
        if missing == 0
            && let Ok(body) = u16::try_from(body)
        {
            let from = if v4 { MAPPED.len() } else { 0 };
            let mut sum = u64::from(PROTOCOL_TCP) + u64::from(body);
            for part in [&self.source.addr[from..], &self.target.addr[from..]] {
                sum += words(part);
            }
            sum += words(&header.bytes[begin..header.length]) + words(payload);
            header.bytes[begin + 16..begin + 18].copy_from_slice(&folded(sum).to_be_bytes());
        }
        header
    }

    fn ipv4(&self, header: &mut Header, body: usize) {
        // 0: longer than its field, as a stack shows packets that the card is yet to cut up.
        let total = u16::try_from(IPV4_BYTES + body).unwrap_or(0);
        header.put(&[0x45, 0]);
        header.put(&total.to_be_bytes());
        // No identification, not to be fragmented, no checksum yet.
        header.put(&[0, 0, 0x40, 0, HOPS, PROTOCOL_TCP, 0, 0]);
        header.put(&self.source.addr[MAPPED.len()..]);
        header.put(&self.target.addr[MAPPED.len()..]);
        let sum = folded(words(&header.bytes[..IPV4_BYTES]));
        header.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn ipv6(&self, header: &mut Header, body: usize, next: u8) {
        let length = u16::try_from(body).unwrap_or(0);
        header.put(&[0x60, 0, 0, 0]);
        header.put(&length.to_be_bytes());
        header.put(&[next, HOPS]);
        header.put(&self.source.addr);
        header.put(&self.target.addr);
    }
}

/// Both headers.
#[derive(Clone, Copy)]
pub(super) struct Header {
    bytes: [u8; IPV6_BYTES + TCP_BYTES],
    length: usize,
}

impl Default for Header {
    fn default() -> Header {
        Header { bytes: [0; IPV6_BYTES + TCP_BYTES], length: 0 }
    }
}

impl Header {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }
}

/// The sum of the 16-bit words of `bytes` (RFC 1071); no more than a packet, so it cannot overflow.
fn words(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    sum + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
