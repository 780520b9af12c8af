//! Plaintext of TLS connections, seen at the calls into the library that encrypts and decrypts it.
//!
//! A thread that is inside such a call and has a socket call succeed meanwhile names the socket: that
//! is one way how the library's object of a connection and its socket are brought together ([`meet`]);
//! the other is in `hello`.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use monitor_common::{
    Counter, DataHeader, OLDER, PAYLOAD_BYTES_MAX, PLAIN_END, PLAIN_TO_CLIENT, PLAIN_TO_SERVER,
    Socket, TIED, TLS_CALL_BYTES_MAX, TLS_CALLS_MAX, TLS_CALLS_UNBOUND_MAX, TLS_SESSIONS_MAX,
    TlsCall, TlsSession, TlsSessionKey, TlsUnderWay, Verdict,
};

use crate::memory::read;
use crate::rings::{User, put_largest, put_payload};
use crate::sockets::{count, sees_calls, tls_call_bytes_max};

/// By thread. What a thread that died left here goes when others need the room.
#[btf_map]
static TLS_CALLS: LruHashMap<u64, TlsUnderWay, TLS_CALLS_MAX> = LruHashMap::new();

#[btf_map]
pub static TLS_SESSIONS: LruHashMap<TlsSessionKey, TlsSession, TLS_SESSIONS_MAX> =
    LruHashMap::new();

/// The call that a thread is in.
#[inline(always)]
pub fn under_way(thread: u64) -> Option<&'static mut TlsUnderWay> {
    last_call(thread).filter(|call| call.session != 0)
}

/// The call that a thread is in, or was in last.
#[inline(always)]
fn last_call(thread: u64) -> Option<&'static mut TlsUnderWay> {
    // SAFETY: the value is this thread's own.
    TLS_CALLS.get_ptr_mut(thread).map(|call| unsafe { &mut *call })
}

/// A call begins. The first argument is the library's object of the connection, the second the
/// buffer, the fourth where the length goes.
#[uprobe]
pub fn keywatch_tls_call(ctx: ProbeContext) -> u32 {
    if let Some(session) = ctx.arg::<u64>(0) {
        begin(&ctx, session);
    }
    0
}

#[inline(always)]
fn begin(ctx: &ProbeContext, session: u64) {
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr().cast()) };
    let (call, older) = (cookie & !OLDER, cookie & OLDER != 0);
    let thread = bpf_get_current_pid_tgid();
    let known = TLS_SESSIONS.get_ptr_mut(key(session, thread));
    if let Some(known) = known {
        // SAFETY: a value of the map, or of another connection that took its place meanwhile.
        let known = unsafe { &mut *known };
        if known.cookie == 0 && known.unbound >= TLS_CALLS_UNBOUND_MAX {
            return;
        }
        if call == TlsCall::Shutdown as u64 {
            if known.cookie != 0 {
                finish(known);
            }
            return;
        }
    }
    if call == TlsCall::Shutdown as u64 {
        return;
    }
    let is_handshake = call == TlsCall::Handshake as u64;
    let under_way = TlsUnderWay {
        session,
        buffer: ctx.arg(1).unwrap_or(0),
        length: ctx.arg(3).unwrap_or(0),
        call,
        random: 0,
        handshake: u32::from(is_handshake),
        older: u32::from(older),
    };
    if let Some(before) = last_call(thread) {
        if before.session == session && is_handshake {
            // BoringSSL shakes hands within the first read or write, through the same door.
            before.handshake = 1;
            return;
        }
        if before.session != 0 && before.session != session {
            count(Counter::TlsCallsMissed, 1);
        }
        *before = under_way;
        return;
    }
    // The map makes room by itself; without kernel memory the return finds nothing.
    let _ = TLS_CALLS.insert(thread, under_way, BPF_ANY.into());
}

/// A call has ended.
#[uretprobe]
pub fn keywatch_tls_return(ctx: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(under_way) = under_way(thread) else { return 0 };
    // SAFETY: the helper takes the context.
    if under_way.call != unsafe { bpf_get_attach_cookie(ctx.as_ptr().cast()) } & !OLDER {
        // The handshake within it.
        return 0;
    }
    let ended = *under_way;
    // It stays in the map for the thread's next call.
    under_way.session = 0;
    end(&ended, ctx.ret(), thread);
    0
}

#[inline(always)]
fn end(under_way: &TlsUnderWay, returned: i64, thread: u64) {
    let key = key(under_way.session, thread);
    let Some(session) = TLS_SESSIONS.get_ptr_mut(key) else {
        let unbound = TlsSession { unbound: 1, ..TlsSession::NEW };
        let _ = TLS_SESSIONS.insert(key, unbound, BPF_ANY.into());
        return;
    };
    // SAFETY: a value of the map; no two threads may use a connection of a library at once.
    let session = unsafe { &mut *session };
    if session.cookie == 0 {
        session.unbound = session.unbound.saturating_add(1);
        return;
    }
    let call = under_way.call;
    // Functions that return an int leave the upper half of the register undefined.
    let returned = if call == TlsCall::SendFile as u64 { returned } else { returned as i32 as i64 };
    if returned <= 0 || call == TlsCall::Handshake as u64 {
        return;
    }
    let by_reference = call == TlsCall::ReadEx as u64 || call == TlsCall::WriteEx as u64;
    let bytes = if by_reference {
        let Some(bytes) = read::<u64>(under_way.length) else {
            return count(Counter::TlsCallsMissed, 1);
        };
        bytes
    } else {
        returned as u64
    };
    let inward = call == TlsCall::Read as u64 || call == TlsCall::ReadEx as u64;
    let in_memory = call != TlsCall::SendFile as u64;
    pass(session, inward, in_memory.then_some(under_way.buffer), bytes);
}

/// The process ends its direction.
#[inline(always)]
pub fn finish(session: &mut TlsSession) {
    if session.ended == 0 {
        session.ended = 1;
        put_empty(session, false, PLAIN_END);
    }
}

/// Carries what a call has passed on to user side.
#[inline(always)]
pub fn pass(session: &mut TlsSession, inward: bool, buffer: Option<u64>, bytes: u64) {
    let bytes = bytes.min(u32::MAX as u64) as u32;
    let way = usize::from(!inward);
    let before = session.passed[way];
    session.passed[way] = before.wrapping_add(u64::from(bytes));
    let mut header = header(session, inward);
    let Some(buffer) = buffer else {
        header.before = before;
        header.missing = bytes;
        count(Counter::TlsBytesMissing, u64::from(bytes));
        tell(session, way, put_payload(User(0), &header));
        return;
    };
    let carried = bytes.min(tls_call_bytes_max());
    let beyond = bytes - carried;
    if beyond > 0 {
        count(Counter::TlsBytesMissing, u64::from(beyond));
    }
    const PIECE: u32 = PAYLOAD_BYTES_MAX as u32;
    let mut done: u32 = 0;
    for _ in 1..TLS_CALL_BYTES_MAX / PAYLOAD_BYTES_MAX {
        if carried - done <= PIECE {
            break;
        }
        header.before = before.wrapping_add(u64::from(done));
        header.payload_len = PIECE;
        tell(session, way, put_largest(User(buffer + u64::from(done)), &header));
        done += PIECE;
    }
    header.before = before.wrapping_add(u64::from(done));
    header.payload_len = (carried - done).min(PIECE);
    header.missing = beyond;
    tell(session, way, put_payload(User(buffer + u64::from(done)), &header));
}

/// Whether user side knows where a direction stands: what is delivered tells of what was lost before.
#[inline(always)]
fn tell(session: &mut TlsSession, way: usize, delivered: bool) {
    let bit = 1 << way;
    session.lost = if delivered { session.lost & !bit } else { session.lost | bit };
}

/// The library lets go of a connection: its address may become another's.
#[uprobe]
pub fn keywatch_tls_free(ctx: ProbeContext) -> u32 {
    if let Some(session) = ctx.arg::<u64>(0) {
        let key = key(session, bpf_get_current_pid_tgid());
        if let Some(known) = TLS_SESSIONS.get_ptr_mut(key) {
            // SAFETY: a value of the map.
            let known = unsafe { &mut *known };
            if known.lost != 0 && known.cookie != 0 {
                // Where both directions stand: what is missing at their ends would not be noticed.
                put_empty(known, true, 0);
                put_empty(known, false, 0);
            }
            let _ = TLS_SESSIONS.remove(key);
        }
    }
    0
}

/// A socket call of this thread has moved bytes of a watched socket: if it did so inside a call into
/// a TLS library, that call is about this socket.
#[inline(always)]
pub fn meet(socket: &mut Socket) {
    if !sees_calls() || socket.verdict == Verdict::Ignore as u8 || socket.cookie == 0 {
        return;
    }
    if socket.tied == TIED && socket.inside == 1 {
        // It is known whose it is, and that this is seen: no more is to be learnt from any call.
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    let Some(under_way) = under_way(thread) else { return };
    let key = key(under_way.session, thread);
    let begun = u8::from(under_way.handshake == 1);
    let fresh = if under_way.older == 1 && (socket.midstream == 0 || begun == 1) {
        // It is opened with its secrets.
        TlsSession { unbound: TLS_CALLS_UNBOUND_MAX, ..TlsSession::NEW }
    } else {
        TlsSession { begun, ..session_of(socket) }
    };
    let Some(session) = TLS_SESSIONS.get_ptr_mut(key) else {
        let _ = TLS_SESSIONS.insert(key, fresh, BPF_ANY.into());
        return;
    };
    // SAFETY: a value of the map; no two threads may use a connection of a library at once.
    let session = unsafe { &mut *session };
    if session.cookie == socket.cookie {
        if session.passed[0] | session.passed[1] != 0 {
            socket.inside = 1;
            socket.verdict = Verdict::Tls as u8;
        }
    } else if session.proved == 1 {
        // Something else that the thread does within the call.
    } else if begun == 1 || session.cookie == 0 && session.unbound < TLS_CALLS_UNBOUND_MAX {
        *session = fresh;
    } else if session.cookie != 0 {
        // Which of the two is meant cannot be known.
        count(Counter::TlsAmbiguous, 1);
        *session = TlsSession { unbound: TLS_CALLS_UNBOUND_MAX, ..TlsSession::NEW };
    }
}

/// What is known of a connection once its socket is.
#[inline(always)]
pub fn session_of(socket: &Socket) -> TlsSession {
    TlsSession { cookie: socket.cookie, outbound: socket.outbound, ..TlsSession::NEW }
}

/// Tells of a state without bytes.
#[inline(always)]
fn put_empty(session: &TlsSession, inward: bool, flags: u8) {
    let mut header = header(session, inward);
    header.before = session.passed[usize::from(!inward)];
    header.tcp_flags = flags;
    put_payload(User(0), &header);
}

#[inline(always)]
fn header(session: &TlsSession, inward: bool) -> DataHeader {
    // What comes in at a server goes to it; what comes in at a client goes to that.
    let to_server = inward != (session.outbound == 1);
    let direction = if to_server { PLAIN_TO_SERVER } else { PLAIN_TO_CLIENT };
    let nothing = unknown_zero();
    // SAFETY: same size, and any bytes are an address.
    let nobody: [u8; 16] = unsafe { core::mem::transmute([nothing; 2]) };
    DataHeader {
        // SAFETY: helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        cookie: session.cookie,
        scope: nothing,
        before: nothing,
        source: nobody,
        target: nobody,
        source_port: nothing as u16,
        target_port: nothing as u16,
        seq: nothing as u32,
        ack: nothing as u32,
        payload_len: 0,
        missing: 0,
        tcp_flags: 0,
        direction,
        midstream: 1 - session.begun,
        stage: 0,
    }
}

/// 0, which the compiler does not know: it would make loops over bytes of what is zero.
#[inline(always)]
fn unknown_zero() -> u64 {
    let mut zero = 0;
    // SAFETY: does nothing with a register.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) zero) };
    zero
}

#[inline(always)]
pub fn key(session: u64, thread: u64) -> TlsSessionKey {
    TlsSessionKey { session, pid: (thread >> 32) as u32, padding: 0 }
}
