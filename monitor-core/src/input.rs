//! What the shell feeds the core: the one boundary at which live capture, replay and recording meet.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bitflags::bitflags;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ascii::Ascii;
use crate::time::EventTime;

/// One thing that happened on the wire or in the kernel. Fed in order of capture.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A socket is known from here on; live capture says so before the first byte of it.
    Open(Open),
    /// The process that owns the watched socket of a flow: the server's, or the client's when the server is
    /// elsewhere.
    Owner {
        /// The flow whose owner it is.
        flow: FlowKey,
        /// The process.
        owner: Arc<Owner>,
    },
    /// A TCP segment as it was sent: any order, any overlap, possibly cut short.
    Segment(Segment<'a>),
    /// Payload bytes that the kernel saw and could not deliver.
    Lost {
        /// When the loss was noticed.
        time: EventTime,
        /// The flow that lost them.
        flow: FlowKey,
        /// Which way they went.
        direction: Direction,
        /// How many payload bytes.
        bytes: u64,
    },
    /// Plaintext of a TLS flow, as a library in the process of its watched socket passed it on.
    Plain(Plain<'a>),
    /// The socket is gone; nothing of this flow follows.
    Close {
        /// When it went.
        time: EventTime,
        /// Which.
        flow: FlowKey,
    },
    /// TLS secrets as lines of an NSS key log; they hold for connections that begin later, and for
    /// those whose handshake is under way.
    Secrets(&'a [u8]),
    /// Time has passed without traffic.
    Tick(EventTime),
}

/// Where a live flow stands when capture first sees it.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// When.
    pub time: EventTime,
    /// Which.
    pub flow: FlowKey,
    /// Sequence number of the client's SYN, computed from what the socket has received or sent.
    pub client_isn: u32,
    /// Next sequence number that the server expects from the client.
    pub client_next: u32,
    /// Next sequence number that the server sends.
    pub server_next: u32,
    /// True when bytes had already passed: the capture starts in mid-stream.
    pub midstream: bool,
}

/// A TCP segment. `payload` may be shorter than what was sent: `missing` says by how much.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When it was captured.
    pub time: EventTime,
    /// Sender.
    pub source: Endpoint,
    /// Receiver.
    pub target: Endpoint,
    /// Network namespace or other world in which the addresses are unique; 0 in replay.
    pub scope: u64,
    /// Sequence number of the first payload byte (of the SYN itself on a SYN).
    pub seq: u32,
    /// Acknowledgement number; meaningful with [`TcpFlags::ACK`].
    pub ack: u32,
    /// TCP flags.
    pub flags: TcpFlags,
    /// Payload bytes that were captured.
    pub payload: &'a [u8],
    /// Payload bytes after `payload` that were sent and not captured (snap length).
    pub missing: u32,
}

/// Plaintext inside a TLS flow, in order of its direction. `payload` may be shorter than what was
/// passed on: `missing` says by how much.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    /// When it was passed on.
    pub time: EventTime,
    /// The flow that it belongs to.
    pub flow: FlowKey,
    /// Which way it went.
    pub direction: Direction,
    /// Plaintext bytes of this direction before these, from where it is known on.
    pub before: u64,
    /// What was captured.
    pub payload: &'a [u8],
    /// Bytes after `payload` that were passed on and not captured.
    pub missing: u32,
    /// True when other bytes had passed before it was known.
    pub midstream: bool,
    /// True when nothing follows in this direction.
    pub end: bool,
}

bitflags! {
    /// The TCP flags that the core acts on, at their places in the header (RFC 9293, 3.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset.
        const RST = 0x04;
        /// The acknowledgement number is valid.
        const ACK = 0x10;
        /// The urgent pointer is valid.
        const URG = 0x20;
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client: requests.
    ToServer,
    /// From the server: responses.
    ToClient,
}

impl Direction {
    /// The other way.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        }
    }
}

/// An IP address and port; IPv4 is held as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) and shown as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address in network order.
    pub addr: [u8; 16],
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// From an address of either family.
    pub fn new(ip: IpAddr, port: u16) -> Endpoint {
        let addr = match ip {
            // In one word: this is done for every segment.
            IpAddr::V4(v4) => ((0xffff_u128 << 32) | u128::from(v4.to_bits())).to_be_bytes(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Endpoint { addr, port }
    }

    /// The address, IPv4 where it is one.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.addr).to_canonical()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Endpoint {
        Endpoint::new(addr.ip(), addr.port())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip(), self.port).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of an IPv4 address and a port.
const V4_TEXT_BYTES: usize = 21;

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let IpAddr::V4(address) = self.ip() else { return serializer.collect_str(self) };
        let mut text = Ascii::<V4_TEXT_BYTES>::new();
        for (place, byte) in address.octets().into_iter().enumerate() {
            if place > 0 {
                text.byte(b'.');
            }
            text.padded(u32::from(byte), 1);
        }
        text.byte(b':');
        text.padded(u32::from(self.port), 1);
        serializer.serialize_str(text.as_str())
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let addr: SocketAddr = text.parse().map_err(de::Error::custom)?;
        Ok(addr.into())
    }
}

/// Addresses of a flow whose server side is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who connected.
    pub client: Endpoint,
    /// Who listened.
    pub server: Endpoint,
    /// See [`Segment::scope`].
    pub scope: u64,
}

/// The process behind the watched socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Command name, as the kernel has it (at most 15 bytes).
    pub process: CompactString,
    /// Process id in the root namespace.
    pub pid: u32,
    /// Container id (64 hexadecimal digits) when the process is in one.
    pub container: Option<CompactString>,
}
