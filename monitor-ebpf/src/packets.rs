//! TCP payload of watched sockets, seen by `cgroup_skb` whichever system call moved it.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_tcp_sock,
};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use aya_log_ebpf::debug;
use monitor_common::{
    BEGINS, Control, Counter, DataHeader, GOES_ON, OPENED, PAYLOAD_BYTES_MAX,
    RECORDS_PER_PACKET_MAX, Socket, TLS_HELLO_BYTES_MAX, TLS_WIRE_BYTES_MAX, TO_CLIENT, TO_SERVER,
    Verdict,
};

use crate::first_bytes::FirstBytes;
use crate::headers::{self, FIN, Headers, RST, SYN};
use crate::hello;
use crate::rings::{Packet, put_control, put_payload};
use crate::secrets::{hello_before_accept, is_sealed};
use crate::sockets::{
    add, count, first_bytes_decide, has_netns_cookie, is_called, is_watched, known, known_or_new,
    looks_inside_tls, sees_calls, set_verdict, takes_secrets, takes_tls_whole, verdict,
};

/// What a cgroup_skb program returns to let a packet through.
const PASS: i32 = 1;

const TCP_LISTEN: u32 = 10;

#[cgroup_skb(ingress)]
pub fn keywatch_ingress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, false);
    PASS
}

#[cgroup_skb(egress)]
pub fn keywatch_egress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, true);
    PASS
}

/// `outward`: the packet leaves the socket.
#[inline(always)]
fn observe(ctx: &SkBuffContext, outward: bool) {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the kernel's; a null socket is checked for as the verifier asks.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: fields of the socket are read through the verifier, one by one.
    let (port, state) = unsafe {
        ((&raw const (*sk).src_port).read_volatile(), (&raw const (*sk).state).read_volatile())
    };
    let outbound = !is_watched(port as u16);
    if outbound && !calls_elsewhere(skb, sk) {
        return;
    }
    // SAFETY: `sk` is this packet's socket.
    let known = unsafe { known(sk.cast()) };
    if known.as_ref().is_some_and(|socket| is_done_with(socket)) {
        return;
    }
    let Some(mut headers) = headers::read(skb) else { return count(Counter::Malformed, 1) };
    if headers.payload_len == 0 && headers.flags & (FIN | RST) == 0 {
        return;
    }
    if state == TCP_LISTEN {
        return before_accept(skb, &headers);
    }
    let socket = match known {
        Some(socket) => socket,
        None if headers.payload_len == 0 => return,
        // SAFETY: as above.
        None => match unsafe { known_or_new(sk.cast()) } {
            Some(socket) => {
                socket.outbound = u8::from(outbound);
                socket
            }
            None => return count(Counter::Untracked, 1),
        },
    };
    if verdict(socket) == Verdict::Undecided as u8 {
        decide(ctx, sk, socket, &headers, outward);
    }
    if is_done_with(socket) || verdict(socket) == Verdict::Undecided as u8 {
        return;
    }
    if socket.verdict == Verdict::Tls as u8 {
        if !takes_secrets() {
            // The end is told when the socket is closed: what the library gives out of the last packets
            // comes after them.
            headers.flags &= !(FIN | RST);
            if headers.payload_len == 0 {
                return;
            }
        }
        if outward && sees_calls() {
            hello::tie(skb, socket, &headers);
        }
    }
    let stage = stage(socket, headers.payload_len);
    let to_client = outward != outbound;
    // Taken here, after what was told of the socket, by whichever direction.
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    deliver(skb, socket, &headers, to_client, stage, now);
}

/// Counts what is delivered of a connection, and says how far that is: [`BEGINS`], [`GOES_ON`] or 0.
#[inline(always)]
fn stage(socket: &mut Socket, payload_len: u32) -> u8 {
    let before = socket.wire_bytes;
    let after = before.saturating_add(payload_len);
    socket.wire_bytes = after;
    if before < TLS_HELLO_BYTES_MAX {
        return BEGINS;
    }
    if !takes_secrets() || before / TLS_WIRE_BYTES_MAX == after / TLS_WIRE_BYTES_MAX {
        return 0;
    }
    if socket.verdict == Verdict::Tls as u8 && is_sealed(socket.cookie) {
        socket.inside = 1;
    }
    GOES_ON
}

/// Whether a socket has connected to a watched port of a server elsewhere. What this host's own server
/// serves over the loopback device is seen at that server's socket.
#[inline(always)]
fn calls_elsewhere(skb: *mut __sk_buff, sk: *mut bpf_sock) -> bool {
    /// LOOPBACK_IFINDEX of the kernel, in every network namespace.
    const LOOPBACK: u32 = 1;
    // SAFETY: fields are read through the verifier, the port as kernels before 5.18 have it too: the
    // first two of four bytes, in network order.
    let (port, device) = unsafe {
        let port = (&raw const (*sk).dst_port).cast::<u32>().read_volatile();
        (u16::from_be(port as u16), (&raw const (*skb).ifindex).read_volatile())
    };
    is_called(port) && !(device == LOOPBACK && is_watched(port))
}

/// Whether a socket's packets are of no interest any more.
#[inline(always)]
fn is_done_with(socket: &Socket) -> bool {
    let seen = || socket.inside == 1 || socket.wire_bytes >= TLS_WIRE_BYTES_MAX && !takes_secrets();
    socket.verdict == Verdict::Ignore as u8
        || (socket.verdict == Verdict::Tls as u8 && (!looks_inside_tls() || seen()))
}

/// Payload that comes with the last segment of the handshake belongs to a socket that is not made
/// yet: the kernel shows it at the listening one.
#[inline(always)]
fn before_accept(skb: *mut __sk_buff, headers: &Headers) {
    if headers.payload_len == 0 {
        return;
    }
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let verdict = if first_bytes_decide() {
        by_first_bytes(skb, headers, true, true)
    } else {
        Verdict::Watch
    };
    match verdict {
        Verdict::Watch => {}
        Verdict::Tls if looks_inside_tls() => {}
        Verdict::Tls | Verdict::Ignore | Verdict::Undecided => return,
    }
    hello_before_accept(now);
    let first_seq = headers.seq.wrapping_add(u32::from(headers.flags & SYN != 0));
    let scope = scope_of(skb);
    put_control(&Control {
        time_ns: now,
        cookie: 0,
        scope,
        lost_bytes: [0; 2],
        client: headers.source,
        server: headers.target,
        client_port: headers.source_port,
        server_port: headers.target_port,
        kind: OPENED,
        client_isn: first_seq.wrapping_sub(1),
        client_next: first_seq,
        server_next: headers.ack,
        pid: 0,
        command: [0; 16],
        midstream: 0,
        verdict: verdict as u8,
        padding: [0; 6],
    });
    let mut socket = Socket {
        lost_bytes: [0; 2],
        scope,
        cookie: 0,
        verdict: verdict as u8,
        announced: 1,
        owned: 0,
        midstream: 0,
        inside: 0,
        tied: 0,
        outbound: 0,
        received: 0,
        wire_bytes: 0,
        padding: 0,
    };
    deliver(skb, &mut socket, headers, false, BEGINS, now);
}

/// Looks at the first payload of a socket and, once it tells, says so to user side.
#[inline(always)]
fn decide(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: &mut Socket,
    headers: &Headers,
    outward: bool,
) {
    if headers.payload_len == 0 {
        return;
    }
    let skb = ctx.skb.skb;
    // SAFETY: `sk` is this packet's socket; a null answer is checked for; fields are read one by one.
    let (peer_next, own_next, own_acked, acked_bytes, received, segments_out) = unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        (
            (&raw const (*tcp).rcv_nxt).read_volatile(),
            (&raw const (*tcp).snd_nxt).read_volatile(),
            (&raw const (*tcp).snd_una).read_volatile(),
            (&raw const (*tcp).bytes_acked).read_volatile(),
            (&raw const (*tcp).bytes_received).read_volatile(),
            (&raw const (*tcp).data_segs_out).read_volatile(),
        )
    };
    let outbound = socket.outbound == 1;
    let to_server = outward == outbound;
    // Of a packet that leaves, the sequence number is its own; the socket's may be ahead of it.
    let own_next = if outward { headers.seq } else { own_next };
    let (client_isn, client_next, server_next) = if outbound {
        // Of a socket that has connected, the SYN is among what was acknowledged.
        (own_acked.wrapping_sub(acked_bytes as u32), own_next, peer_next)
    } else {
        (peer_next.wrapping_sub(received as u32).wrapping_sub(1), peer_next, own_next)
    };
    let fresh = if outbound {
        let syn = u32::from(outward && headers.flags & SYN != 0);
        received == 0 && own_next.wrapping_add(syn).wrapping_sub(client_isn) == 1
    } else {
        received == 0 && (!outward || segments_out <= 1)
    };
    // The first bytes went to the listening socket and were of interest, or came before the start.
    let begun_at_listener = !outbound && !outward && received != 0 && segments_out == 0;
    let unordered = !outbound && !outward && fresh && headers.seq != peer_next;
    let verdict = if socket.inside == 1 {
        Verdict::Tls
    } else if !first_bytes_decide() || begun_at_listener || unordered {
        Verdict::Watch
    } else {
        by_first_bytes(skb, headers, fresh, to_server)
    };
    if socket.cookie == 0 {
        // SAFETY: the helper takes the context.
        socket.cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
        socket.scope = scope_of(skb);
        socket.midstream = u8::from(!fresh);
    }
    debug!(ctx, "socket {}: port {} verdict {}", socket.cookie, headers.source_port, verdict as u8);
    match verdict {
        // What the other direction may decide at the same time stays.
        Verdict::Undecided => return count(Counter::SkippedBytes, u64::from(headers.payload_len)),
        Verdict::Ignore => {
            set_verdict(socket, verdict);
            return count(Counter::SocketsIgnored, 1);
        }
        Verdict::Watch => count(Counter::SocketsWatched, 1),
        Verdict::Tls => count(Counter::SocketsTls, 1),
    }
    let announced = put_control(&Control {
        // SAFETY: helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        cookie: socket.cookie,
        scope: socket.scope,
        lost_bytes: [0; 2],
        client: if to_server { headers.source } else { headers.target },
        server: if to_server { headers.target } else { headers.source },
        client_port: if to_server { headers.source_port } else { headers.target_port },
        server_port: if to_server { headers.target_port } else { headers.source_port },
        kind: OPENED,
        client_isn,
        client_next,
        server_next,
        pid: 0,
        command: [0; 16],
        midstream: socket.midstream,
        verdict: verdict as u8,
        padding: [0; 6],
    });
    socket.announced = u8::from(announced);
    // Last: who finds it decided may count on its having been told.
    set_verdict(socket, verdict);
}

#[inline(always)]
fn by_first_bytes(skb: *mut __sk_buff, headers: &Headers, fresh: bool, to_server: bool) -> Verdict {
    let Some(first) = FirstBytes::of(skb, headers) else { return Verdict::Undecided };
    if first.begin_tls() {
        return if takes_tls_whole() { Verdict::Watch } else { Verdict::Tls };
    }
    let is_api = first.begin_api()
        || (!to_server && first.are_settings())
        || (!fresh && (first.begin_http2_frame() || first.are_of_a_websocket_frame(to_server)));
    match (is_api, fresh && to_server) {
        (true, _) => Verdict::Watch,
        (false, true) => Verdict::Ignore,
        (false, false) => Verdict::Undecided,
    }
}

/// Carries the packet's payload to user side, in as many records as it takes.
#[inline(always)]
fn deliver(
    skb: *mut __sk_buff,
    socket: &mut Socket,
    headers: &Headers,
    to_client: bool,
    stage: u8,
    now: u64,
) {
    let way = usize::from(to_client);
    let data_seq = headers.seq.wrapping_add(u32::from(headers.flags & SYN != 0));
    let mut done: u32 = 0;
    for record in 0..RECORDS_PER_PACKET_MAX {
        let rest = headers.payload_len - done;
        let len = rest.min(PAYLOAD_BYTES_MAX as u32);
        let last = record + 1 == RECORDS_PER_PACKET_MAX || len == rest;
        let header = DataHeader {
            time_ns: now,
            cookie: socket.cookie,
            scope: socket.scope,
            before: socket.lost_bytes[way],
            source: headers.source,
            target: headers.target,
            source_port: headers.source_port,
            target_port: headers.target_port,
            seq: data_seq.wrapping_add(done),
            ack: headers.ack,
            payload_len: len,
            missing: if last { rest - len } else { 0 },
            // An end of stream belongs to the last byte; a SYN is told by the sequence numbers.
            tcp_flags: if last { headers.flags & !SYN } else { headers.flags & !(SYN | FIN | RST) },
            direction: if to_client { TO_CLIENT } else { TO_SERVER },
            midstream: 0,
            stage,
        };
        if !put_payload(Packet(skb, headers.payload_offset + done), &header) {
            // SAFETY: the state lives as long as the socket, which this packet holds.
            unsafe { add(&raw mut socket.lost_bytes[way], u64::from(len)) };
        }
        done += len;
        if last {
            break;
        }
    }
}

/// Where the packet's addresses are unique.
#[inline(always)]
fn scope_of(skb: *mut __sk_buff) -> u64 {
    // SAFETY: both helpers take the context. The first is compiled out by the verifier on kernels
    // that do not offer it.
    unsafe {
        if has_netns_cookie() { bpf_get_netns_cookie(skb.cast()) } else { bpf_skb_cgroup_id(skb) }
    }
}
