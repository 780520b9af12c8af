//! Types that the kernel side and the user side share: records of both rings, counters, settings.
//!
//! Every struct is `repr(C)`, without implicit padding, and valid for any bytes; a size that changes
//! by accident fails to compile.
#![no_std]

/// Payload bytes a data record may hold, by size class. Ring reservations need constant sizes, so a
/// payload goes into the smallest class that holds it: 256 B for most calls, 64 KiB for a segment
/// that offload has merged.
pub const PAYLOAD_CLASSES: [usize; 5] = [1 << 8, 1 << 10, 1 << 12, 1 << 14, PAYLOAD_BYTES_MAX];

/// Largest payload of one record; a larger segment becomes several.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 16;

/// Records that one packet may become. BIG TCP makes packets of up to 512 KiB.
pub const RECORDS_PER_PACKET_MAX: usize = 8;

/// Bytes of data that wait in the ring before its reader is woken ahead of its next look.
pub const WAKE_BYTES: u64 = 512 << 10;

/// Words in the bitmap of watched ports.
pub const PORT_WORDS: usize = 65_536 / 64;

/// Head of a record in the data ring; [`payload_len`](DataHeader::payload_len) bytes follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DataHeader {
    /// Monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// Socket cookie; 0 when the packet came in before its socket existed.
    pub cookie: u64,
    /// Network namespace cookie, or cgroup id on kernels that do not tell it.
    pub scope: u64,
    /// Payload bytes of this direction of this socket that could not be delivered so far.
    pub lost_bytes: u64,
    /// Sender, IPv4 as IPv4-mapped IPv6, network order.
    pub source: [u8; 16],
    /// Receiver.
    pub target: [u8; 16],
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub target_port: u16,
    /// TCP sequence number of the first payload byte (of the SYN on a SYN).
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Payload bytes in this record.
    pub payload_len: u32,
    /// Payload bytes of the packet after these that no record holds.
    pub missing: u32,
    /// TCP flags.
    pub tcp_flags: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// Towards the watched socket.
pub const INGRESS: u8 = 0;
/// Away from the watched socket.
pub const EGRESS: u8 = 1;

/// A record in the control ring.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// As in [`DataHeader`].
    pub scope: u64,
    /// Payload bytes that could not be delivered, by direction.
    pub lost_bytes: [u64; 2],
    /// The watched socket's own address.
    pub local: [u8; 16],
    /// Its peer's.
    pub remote: [u8; 16],
    /// The watched socket's own port.
    pub local_port: u16,
    /// Its peer's.
    pub remote_port: u16,
    /// One of [`OPENED`], [`OWNED`], [`CLOSED`].
    pub kind: u32,
    /// Peer's initial sequence number.
    pub remote_isn: u32,
    /// Next sequence number expected from the peer.
    pub remote_next: u32,
    /// Next sequence number to be sent.
    pub local_next: u32,
    /// Process id in the root namespace.
    pub pid: u32,
    /// Command name, zero-terminated unless full.
    pub command: [u8; 16],
    /// On [`OPENED`]: 1 when bytes had passed before.
    pub midstream: u8,
    /// On [`OPENED`]: a [verdict](Verdict).
    pub verdict: u8,
    /// Zero.
    pub padding: [u8; 6],
}

/// A watched socket was seen for the first time.
pub const OPENED: u32 = 1;
/// A process sent or received on it for the first time.
pub const OWNED: u32 = 2;
/// It was closed.
pub const CLOSED: u32 = 3;

/// What is known about a socket; kept beside it in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// Payload bytes that could not be delivered, by direction.
    pub lost_bytes: [u64; 2],
    /// As in [`DataHeader`].
    pub scope: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// A [verdict](Verdict).
    pub verdict: u8,
    /// 1 once user side was told of the socket.
    pub announced: u8,
    /// 1 once user side was told of its process.
    pub owned: u8,
    /// 1 when the capture begins in mid-stream.
    pub midstream: u8,
    /// Zero.
    pub padding: [u8; 4],
}

/// Whether a socket's payload is of interest; the values of [`Socket::verdict`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing telling was seen yet.
    Undecided = 0,
    /// An API protocol in plain text.
    Watch = 1,
    /// TLS: counted, its bytes are of no use here.
    Tls = 2,
    /// Something else.
    Ignore = 3,
}

/// Totals since the start, one per-CPU slot each. What goes well is counted by the reader, not here.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Records that did not fit into the data ring.
    LostRecords = 0,
    /// Payload bytes that did not fit.
    LostBytes = 1,
    /// Records that did not fit into the control ring.
    LostControls = 2,
    /// Sockets found to speak an API protocol in plain text.
    SocketsWatched = 3,
    /// Sockets found to speak TLS.
    SocketsTls = 4,
    /// Sockets found to speak something else.
    SocketsIgnored = 5,
    /// Packets whose headers could not be read.
    Malformed = 6,
    /// Payload bytes of undecided mid-stream sockets that were passed over.
    SkippedBytes = 7,
    /// Packets of sockets whose state could not be kept for want of kernel memory.
    Untracked = 8,
}

/// Number of [`Counter`]s.
pub const COUNTERS: usize = 9;

const _: () = assert!(size_of::<DataHeader>() == 88);
const _: () = assert!(size_of::<Control>() == 120);
const _: () = assert!(size_of::<Socket>() == 40);
const _: () = assert!(Counter::Untracked as usize + 1 == COUNTERS);
