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

/// Most bytes of one call of a TLS library that can be carried, 16 MiB: as much as the usual ring holds,
/// and as many records as the verifier follows.
pub const TLS_CALL_BYTES_MAX: usize = 256 * PAYLOAD_BYTES_MAX;

/// Payload bytes of a TLS connection that are delivered as they stand on the wire, both directions
/// together, when nothing is opened with them: hellos and certificates take a few KiB.
pub const TLS_WIRE_BYTES_MAX: u32 = 32 << 10;

/// Bytes among which the begin of a client's hello is, with what a proxy says before it.
pub const TLS_HELLO_BYTES_MAX: u32 = 4 << 10;

/// Calls into TLS libraries that may be under way at once: a thread each.
pub const TLS_CALLS_MAX: usize = 16_384;

/// TLS connections that are known at once, those of no watched socket among them.
pub const TLS_SESSIONS_MAX: usize = 65_536;

/// Randoms of hellos that are made and not sent yet: handshakes that are under way, a few each.
pub const TLS_HELLOS_MAX: usize = 16_384;

/// Bytes of a hello's random that tell it from every other.
pub const HELLO_RANDOM_BYTES: usize = 16;

/// Threads whose last socket is known, as long as its TLS handshake may be under way.
pub const TLS_THREADS_MAX: usize = 16_384;

/// TLS connections of which user side wants no more: as many as a busy host has open.
pub const TLS_SEALED_MAX: usize = 65_536;

/// Times that a process receives on a TLS connection until its handshake is over: a few in any version.
pub const TLS_HANDSHAKE_RECEIVES_MAX: u8 = 16;

/// Bytes of a TLS secret at most: SHA-384's output, and the master secret (RFC 8446, 7.1; RFC 5246, 8.1).
pub const TLS_SECRET_BYTES_MAX: usize = 48;

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
    /// On the wire: payload bytes of this direction of this socket that could not be delivered so far.
    /// Of plaintext: bytes that the library had passed on in this direction before these.
    pub before: u64,
    /// Sender, IPv4 as IPv4-mapped IPv6, network order; of plaintext, no address stands here.
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
    /// [`TO_SERVER`], [`TO_CLIENT`], [`PLAIN_TO_SERVER`] or [`PLAIN_TO_CLIENT`].
    pub direction: u8,
    /// Of plaintext: 1 when the library had passed on other bytes before the first of this socket.
    pub midstream: u8,
    /// On the wire: how far the connection is, [`BEGINS`], [`GOES_ON`] or 0.
    pub stage: u8,
}

/// Among the first bytes of a connection, [`TLS_HELLO_BYTES_MAX`].
pub const BEGINS: u8 = 1;
/// With this packet another [`TLS_WIRE_BYTES_MAX`] are delivered of it: a time to say that no more is wanted.
pub const GOES_ON: u8 = 2;

/// On the wire, from the client.
pub const TO_SERVER: u8 = 0;
/// On the wire, from the server.
pub const TO_CLIENT: u8 = 1;
/// In the clear, from the client: what a TLS library gave to a server or was given by a client.
pub const PLAIN_TO_SERVER: u8 = 2;
/// In the clear, from the server: what a TLS library was given by a server or gave to a client.
pub const PLAIN_TO_CLIENT: u8 = 3;
/// TCP's FIN, in [`DataHeader::tcp_flags`] of plaintext: its sender has ended it.
pub const PLAIN_END: u8 = 0x01;

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
    /// Payload bytes that could not be delivered, to the server and to the client.
    pub lost_bytes: [u64; 2],
    /// Address of who has connected.
    pub client: [u8; 16],
    /// Address of who was connected to.
    pub server: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The server's.
    pub server_port: u16,
    /// One of [`OPENED`], [`OWNED`], [`CLOSED`], [`LISTENS`].
    pub kind: u32,
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// Next sequence number of the client.
    pub client_next: u32,
    /// Next sequence number of the server.
    pub server_next: u32,
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
/// A process, `pid`, begins to listen on some port.
pub const LISTENS: u32 = 4;

/// A secret that a TLS library has derived; in the control ring, and told from [`Control`] by its size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TlsSecret {
    /// Monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// Cookie of the socket on which its thread received last; 0: of none that is watched.
    pub cookie: u64,
    /// Random of the client's hello, if [`has_random`](TlsSecret::has_random).
    pub random: [u8; 32],
    /// The first [`secret_bytes`](TlsSecret::secret_bytes) of it are the secret.
    pub secret: [u8; TLS_SECRET_BYTES_MAX],
    /// A [label](TlsLabel).
    pub label: u8,
    /// Length of the secret.
    pub secret_bytes: u8,
    /// 1 when the random is known.
    pub has_random: u8,
    /// Zero.
    pub padding: [u8; 5],
}

/// What a TLS secret is for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsLabel {
    /// Master secret of TLS 1.2 and before.
    Master = 1,
    /// Of TLS 1.3 (RFC 8446, 7.1): early data.
    ClientEarly = 2,
    /// What the client sends within the handshake.
    ClientHandshake = 3,
    /// What the server does.
    ServerHandshake = 4,
    /// What the client sends after it.
    ClientTraffic = 5,
    /// What the server does.
    ServerTraffic = 6,
}

/// A derivation of a secret that a thread is in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TlsDerivation {
    /// Where the secret will be.
    pub out: u64,
    /// Its length.
    pub bytes: u32,
    /// A [label](TlsLabel).
    pub label: u32,
}

/// What is known about a socket; kept beside it in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// Payload bytes that could not be delivered, to the server and to the client.
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
    /// 1 once plaintext was taken from a TLS library: what is on the wire is of no use any more.
    pub inside: u8,
    /// 0 until its hello was found: [`TIED`] or [`TIED_TO_NONE`].
    pub tied: u8,
    /// 1 when it is a client's: it has connected to a watched port.
    pub outbound: u8,
    /// Times that its process has received on it, up to [`TLS_HANDSHAKE_RECEIVES_MAX`].
    pub received: u8,
    /// Payload bytes delivered as they stand on the wire.
    pub wire_bytes: u32,
    /// Zero.
    pub padding: u32,
}

/// The socket's hello has named the library's object of the connection: nothing else is about it.
pub const TIED: u8 = 1;
/// The socket's hello was made by two objects.
pub const TIED_TO_NONE: u8 = 2;

/// Whether a socket's payload is of interest; the values of [`Socket::verdict`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing telling was seen yet.
    Undecided = 0,
    /// An API protocol in plain text.
    Watch = 1,
    /// TLS: the handshake is of interest, and what the library behind it is given and gives.
    Tls = 2,
    /// Something else.
    Ignore = 3,
}

/// What a probed function of a TLS library does; the cookie of its probes.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsCall {
    /// `SSL_read(ssl, buffer, bytes)` gives the number of bytes.
    Read = 1,
    /// `SSL_read_ex(ssl, buffer, bytes, &read)` gives 1 when it is well.
    ReadEx = 2,
    /// `SSL_write(ssl, buffer, bytes)` gives the number of bytes taken.
    Write = 3,
    /// `SSL_write_ex(ssl, buffer, bytes, &written)` gives 1 when it is well.
    WriteEx = 4,
    /// `SSL_do_handshake(ssl)`.
    Handshake = 5,
    /// `SSL_sendfile(ssl, fd, offset, bytes, flags)` gives the number of bytes sent.
    SendFile = 6,
    /// `SSL_shutdown(ssl)`.
    Shutdown = 7,
}

/// Beside a [`TlsCall`] in the cookie of a probe: of connections that are opened with their secrets nothing is
/// taken, but of those alone that were open before.
pub const OLDER: u64 = 1 << 8;

/// The last call of a thread into a TLS library.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TlsUnderWay {
    /// The library's object of the connection; 0 when the call has ended.
    pub session: u64,
    /// Where the plaintext is.
    pub buffer: u64,
    /// Where the library says how many bytes there were.
    pub length: u64,
    /// A [`TlsCall`].
    pub call: u64,
    /// Where a random is being made that may become that of a hello, or 0.
    pub random: u64,
    /// 1 when it shakes hands, or something within it does.
    pub handshake: u32,
    /// 1 when only connections that were open before are looked for.
    pub older: u32,
}

/// A TLS connection: the library's object, in a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSessionKey {
    /// Its address.
    pub session: u64,
    /// The process.
    pub pid: u32,
    /// Zero.
    pub padding: u32,
}

/// What is known of a TLS connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TlsSession {
    /// Cookie of its socket; 0: not known, or not watched.
    pub cookie: u64,
    /// Plaintext bytes passed on so far, in and out.
    pub passed: [u64; 2],
    /// Calls in which no watched socket was met; at [`TLS_CALLS_UNBOUND_MAX`] it is given up.
    pub unbound: u8,
    /// 1 when its handshake was seen.
    pub begun: u8,
    /// 1 once the process has ended its direction.
    pub ended: u8,
    /// A bit for each direction of which bytes could not be delivered that nothing has told of yet.
    pub lost: u8,
    /// 1 when its hello on the wire has named the socket.
    pub proved: u8,
    /// As in [`Socket`].
    pub outbound: u8,
    /// Zero.
    pub padding: [u8; 2],
}

impl TlsSession {
    /// Nothing is known.
    pub const NEW: TlsSession = TlsSession {
        cookie: 0,
        passed: [0; 2],
        unbound: 0,
        begun: 0,
        ended: 0,
        lost: 0,
        proved: 0,
        outbound: 0,
        padding: [0; 2],
    };
}

/// Calls of one connection after which no watched socket is looked for any more: a handshake takes
/// a few, of which some find nothing to read.
pub const TLS_CALLS_UNBOUND_MAX: u8 = 32;

/// How TLS is looked into, as the loader tells the kernel side.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsideTls {
    /// Not at all.
    Off = 0,
    /// Handshakes are delivered, and the plaintext that is found in processes.
    Libraries = 1,
    /// Connections are delivered whole, as they stand on the wire.
    Wire = 2,
    /// The same until user side has enough, with the secrets that are found in processes, and the plaintext
    /// where there are none.
    Secrets = 3,
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
    /// Calls into TLS libraries that overtook another of the same thread, which is not seen.
    TlsCallsMissed = 9,
    /// TLS connections that used two watched sockets: neither is guessed.
    TlsAmbiguous = 10,
    /// Plaintext bytes that were not carried: beyond the bound of a call, or not readable.
    TlsBytesMissing = 11,
}

/// Number of [`Counter`]s.
pub const COUNTERS: usize = 12;

const _: () = assert!(size_of::<DataHeader>() == 88);
const _: () = assert!(size_of::<Control>() == 120);
const _: () = assert!(size_of::<Socket>() == 48);
const _: () = assert!(size_of::<TlsSecret>() == 104);
const _: () = assert!(size_of::<TlsSecret>() != size_of::<Control>());
const _: () = assert!(size_of::<TlsDerivation>() == 16);
const _: () = assert!(size_of::<TlsUnderWay>() == 48);
const _: () = assert!(size_of::<TlsSession>() == 32);
const _: () = assert!(size_of::<TlsSessionKey>() == 16);
const _: () = assert!(Counter::TlsBytesMissing as usize + 1 == COUNTERS);
