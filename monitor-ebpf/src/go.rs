//! Plaintext of Go's crypto/tls, at the entry of what sends a record and at every return of what
//! decrypts one. Never a return probe: a goroutine's stack moves, and its return address with it.
//!
//! Arguments and results are in registers since Go 1.17 (Go's ABIInternal), the goroutine in R14. What
//! is between Read and its caller stays out: there the buffer may be on a stack that moves.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_map, uprobe};
use aya_ebpf::programs::ProbeContext;
use monitor_common::{Counter, TLS_SESSIONS_MAX, TlsSession, TlsSessionKey};

use crate::hello;
use crate::memory::read;
use crate::sockets::count;
use crate::tls::{TLS_SESSIONS, finish, key, pass};

/// By goroutine: the connection that it reads a record of.
#[btf_map]
static GO_READS: LruHashMap<TlsSessionKey, u64, TLS_SESSIONS_MAX> = LruHashMap::new();

/// Types of records (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// Integer registers in the order of Go's ABI, and the goroutine.
struct Registers {
    first: u64,
    second: u64,
    third: u64,
    fourth: u64,
    goroutine: u64,
}

#[inline(always)]
fn registers(ctx: &ProbeContext) -> Registers {
    // SAFETY: the context is the kernel's, and its registers are read through the verifier.
    let regs = unsafe { &*ctx.regs };
    Registers {
        first: regs.rax,
        second: regs.rbx,
        third: regs.rcx,
        fourth: regs.rdi,
        goroutine: regs.r14,
    }
}

#[inline(always)]
fn session(connection: &TlsSessionKey) -> Option<&'static mut TlsSession> {
    let session = TLS_SESSIONS.get_ptr_mut(*connection)?;
    // SAFETY: a value of the map; Go holds a lock for each direction of a connection.
    let session = unsafe { &mut *session };
    (session.cookie != 0).then_some(session)
}

/// `(*Conn).writeRecordLocked(type, data)`: what is about to be encrypted and sent.
#[uprobe]
pub fn keywatch_go_write(ctx: ProbeContext) -> u32 {
    let Registers { first: conn, second: kind, third: data, fourth: len, .. } = registers(&ctx);
    let connection = key(conn, bpf_get_current_pid_tgid());
    match kind as u8 {
        HANDSHAKE => greet(&connection, data, len),
        DATA if len > 0 => {
            if let Some(session) = session(&connection) {
                pass(session, false, Some(data), len);
            }
        }
        ALERT if len == 2 => {
            // RFC 8446, 6.1: close_notify is 0.
            if let Some([_, 0]) = read::<[u8; 2]>(data)
                && let Some(session) = session(&connection)
            {
                finish(session);
            }
        }
        _ => {}
    }
    0
}

/// A hello names the connection that sends it.
#[inline(always)]
fn greet(connection: &TlsSessionKey, data: u64, len: u64) {
    const CLIENT_HELLO: u8 = 1;
    const SERVER_HELLO: u8 = 2;
    /// Handshake header and version, before the random of 32 bytes.
    const BEFORE_RANDOM: u64 = 6;
    if len >= BEFORE_RANDOM + 32
        && let Some([CLIENT_HELLO | SERVER_HELLO]) = read::<[u8; 1]>(data)
    {
        hello::expect(data + BEFORE_RANDOM, *connection);
    }
}

/// `(*Conn).readRecordOrCCS(…)`: a goroutine begins to read a record.
#[uprobe]
pub fn keywatch_go_read(ctx: ProbeContext) -> u32 {
    let Registers { first: conn, goroutine, .. } = registers(&ctx);
    let goroutine = key(goroutine, bpf_get_current_pid_tgid());
    // The map makes room by itself; without kernel memory the return finds nothing.
    let _ = GO_READS.insert(goroutine, conn, BPF_ANY.into());
    0
}

/// `(*halfConn).decrypt(record)` returns plaintext (address, length, capacity) and its type.
#[uprobe]
pub fn keywatch_go_decrypted(ctx: ProbeContext) -> u32 {
    let Registers { first: data, second: len, fourth: kind, goroutine, .. } = registers(&ctx);
    if kind as u8 != DATA || len == 0 || data == 0 {
        return 0;
    }
    let thread = bpf_get_current_pid_tgid();
    let Some(conn) = GO_READS.get_ptr(key(goroutine, thread)) else {
        count(Counter::TlsCallsMissed, 1);
        return 0;
    };
    // SAFETY: a value of the map, which this goroutine alone changes.
    let conn = unsafe { *conn };
    if let Some(session) = session(&key(conn, thread)) {
        pass(session, true, Some(data), len);
    }
    0
}
