//! Ties a TLS connection to its socket by the random of its hello: the library makes it, and a moment
//! later it stands on the wire, in the clear (RFC 8446, 4.1.2 and 4.1.3).
//!
//! That holds for libraries that never touch a socket themselves, and it is proof: no other connection
//! has the same.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_map, uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use monitor_common::{
    Counter, HELLO_RANDOM_BYTES, Socket, TIED, TIED_TO_NONE, TLS_HELLOS_MAX, TlsSession,
    TlsSessionKey,
};

use crate::headers::{Headers, load};
use crate::memory::read;
use crate::sockets::count;
use crate::tls::{TLS_SESSIONS, key, session_of, under_way};

/// Randoms that may come on the wire soon, with the connection that made them; a session of 0: made
/// by two. Others than those of hellos are here too and never met: they go when room is needed.
#[btf_map]
static TLS_HELLOS: LruHashMap<[u8; HELLO_RANDOM_BYTES], TlsSessionKey, TLS_HELLOS_MAX> =
    LruHashMap::new();

/// The part of a random that is looked at. It begins after the time that old libraries put first, and
/// ends before the mark of a downgrade (RFC 8446, 4.1.3), which is set later.
const LEFT_OUT: u64 = 4;

/// The same part of the random that every HelloRetryRequest has (RFC 8446, 4.1.3).
const RETRY: [u8; HELLO_RANDOM_BYTES] = [
    0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16,
];

/// Bytes of the random of a hello.
const RANDOM_BYTES: u32 = 32;

/// Record header, handshake header, version, random.
const HELLO_BYTES_MIN: u32 = 5 + 4 + 2 + RANDOM_BYTES;

/// `RAND_bytes(buffer, bytes)`.
#[uprobe]
pub fn keywatch_tls_random(ctx: ProbeContext) -> u32 {
    begin(ctx.arg(0), ctx.arg(1));
    0
}

/// `RAND_bytes_ex(context, buffer, bytes, strength)`.
#[uprobe]
pub fn keywatch_tls_random_ex(ctx: ProbeContext) -> u32 {
    begin(ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn begin(buffer: Option<u64>, bytes: Option<u64>) {
    let (Some(buffer), Some(bytes)) = (buffer, bytes) else { return };
    // The number is an int in one of them.
    if bytes as u32 != RANDOM_BYTES {
        return;
    }
    if let Some(under_way) = under_way(bpf_get_current_pid_tgid()) {
        under_way.random = buffer;
    }
}

/// It is made.
#[uretprobe]
pub fn keywatch_tls_random_return(_: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(under_way) = under_way(thread) else { return 0 };
    let buffer = under_way.random;
    if buffer != 0 {
        under_way.random = 0;
        expect(buffer, key(under_way.session, thread));
    }
    0
}

/// The random at an address of the process is that of a hello which a connection is about to send.
#[inline(always)]
pub fn expect(random: u64, connection: TlsSessionKey) {
    let Some(part) = read::<[u8; HELLO_RANDOM_BYTES]>(random + LEFT_OUT) else { return };
    if part == RETRY {
        return;
    }
    let mut connection = connection;
    if let Some(other) = TLS_HELLOS.get_ptr(part) {
        // SAFETY: a value of the map.
        if unsafe { *other } != connection {
            connection = TlsSessionKey { session: 0, ..connection };
        }
    }
    // The map makes room by itself; without kernel memory the connection stays unknown.
    let _ = TLS_HELLOS.insert(part, connection, BPF_ANY.into());
}

/// A packet leaves a socket that speaks TLS: if it begins with a hello that a library has made, the
/// socket is that of the library's connection.
#[inline(always)]
pub fn tie(skb: *mut __sk_buff, socket: &mut Socket, headers: &Headers) {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const SERVER_HELLO: u8 = 2;
    if socket.tied != 0 || socket.cookie == 0 || headers.payload_len < HELLO_BYTES_MIN {
        return;
    }
    let Some([kind, 3, _, _, _, message]) = load::<[u8; 6]>(skb, headers.payload_offset) else {
        return;
    };
    if kind != HANDSHAKE || !(message == CLIENT_HELLO || message == SERVER_HELLO) {
        return;
    }
    let at = headers.payload_offset + HELLO_BYTES_MIN - RANDOM_BYTES + LEFT_OUT as u32;
    let Some(part) = load::<[u8; HELLO_RANDOM_BYTES]>(skb, at) else { return };
    let Some(connection) = TLS_HELLOS.get_ptr(part) else { return };
    // SAFETY: a value of the map.
    let connection = unsafe { *connection };
    let _ = TLS_HELLOS.remove(part);
    if connection.session == 0 {
        socket.tied = TIED_TO_NONE;
        return count(Counter::TlsAmbiguous, 1);
    }
    socket.tied = TIED;
    let tied = TlsSession { begun: 1, proved: 1, ..session_of(socket) };
    match TLS_SESSIONS.get_ptr_mut(connection) {
        Some(known) => {
            // SAFETY: a value of the map; its library is in its handshake, and passes nothing on.
            let known = unsafe { &mut *known };
            *known = tied;
        }
        None => {
            let _ = TLS_SESSIONS.insert(connection, tied, BPF_ANY.into());
        }
    }
}
