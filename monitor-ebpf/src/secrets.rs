//! Secrets of TLS connections, seen where a library derives them: a few times a handshake, and never
//! when plaintext is passed on. User side opens with them what stands on the wire.
//!
//! Of TLS 1.3 it is seen what a secret is for (RFC 8446, 7.1), not whose it is: the thread has just
//! received what it answers, on the socket whose it is ([`received_on`]). Whether that is so shows when the
//! first record is opened, or not.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::{LruHashMap, PerCpuArray};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_probe_read_user_str,
};
use aya_ebpf::macros::{btf_map, uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use monitor_common::{
    Counter, Socket, TLS_CALLS_MAX, TLS_HANDSHAKE_RECEIVES_MAX, TLS_SEALED_MAX,
    TLS_SECRET_BYTES_MAX, TLS_THREADS_MAX, TlsDerivation, TlsLabel, TlsSecret, Verdict,
};

use crate::memory::{AnyBytes, read};
use crate::rings::put_secret;
use crate::sockets::{count, known_or_new, takes_secrets};

/// By thread: cookie of the socket on which it received last, or 0.
#[btf_map]
static TLS_THREADS: LruHashMap<u64, u64, TLS_THREADS_MAX> = LruHashMap::new();

/// By thread: what it derives, or derived last; a label of 0: it has ended.
#[btf_map]
static TLS_DERIVATIONS: LruHashMap<u64, TlsDerivation, TLS_CALLS_MAX> = LruHashMap::new();

/// By cookie: connections of which user side wants no more. It writes here.
#[btf_map]
static TLS_SEALED: LruHashMap<u64, u8, TLS_SEALED_MAX> = LruHashMap::new();

/// Whether user side has said that it has no use for what is on a connection's wire.
#[inline(always)]
pub fn is_sealed(cookie: u64) -> bool {
    TLS_SEALED.get_ptr(cookie).is_some()
}

/// When a listening socket last saw a hello, by CPU: the socket that comes of it is made next there.
#[btf_map]
static EARLY_HELLO: PerCpuArray<u64, 1> = PerCpuArray::new();

/// How long that takes: it is the same packet's way through the kernel.
const ACCEPT_NS_MAX: u64 = 1_000_000;

/// A listening socket sees a hello, which came with the last segment of TCP's handshake: the connection's
/// own socket is yet to be made.
#[inline(always)]
pub fn hello_before_accept(now: u64) {
    if takes_secrets()
        && let Some(seen) = EARLY_HELLO.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own value, which no other softirq comes between.
        unsafe { *seen = now };
    }
}

/// A socket is connected. If it is the one of a hello that came early, its state is made: else the server
/// would receive the hello, and derive the first secrets, on a socket that is not known to be watched.
///
/// # Safety
///
/// `sk` is a socket that the kernel handed to the program.
#[inline(always)]
pub unsafe fn connected(sk: *mut c_void) {
    if !takes_secrets() {
        return;
    }
    let Some(seen) = EARLY_HELLO.get_ptr_mut(0) else { return };
    // SAFETY: as above; helper without arguments; the socket by the caller.
    unsafe {
        if *seen != 0 {
            if bpf_ktime_get_ns().wrapping_sub(*seen) < ACCEPT_NS_MAX {
                let _ = known_or_new(sk);
            }
            *seen = 0;
        }
    }
}

/// A thread has received on a socket; `None`: on one that is not watched.
///
/// # Safety
///
/// `sk` is the socket, as the kernel handed it to the program.
#[inline(always)]
pub unsafe fn received_on(sk: *mut c_void, socket: Option<&mut Socket>) {
    if !takes_secrets() {
        return;
    }
    match socket.filter(|socket| socket.verdict != Verdict::Ignore as u8) {
        Some(socket) => {
            if socket.received < TLS_HANDSHAKE_RECEIVES_MAX {
                socket.received += 1;
                let thread = bpf_get_current_pid_tgid();
                // SAFETY: the helper takes a socket; by the caller it is one.
                let cookie = unsafe { bpf_get_socket_cookie(sk) };
                // The map makes room by itself; without kernel memory the secrets are nobody's.
                let _ = TLS_THREADS.insert(thread, cookie, BPF_ANY.into());
            }
        }
        None => {
            if let Some(last) = TLS_THREADS.get_ptr_mut(bpf_get_current_pid_tgid()) {
                // SAFETY: this thread's own value of the map.
                unsafe { *last = 0 };
            }
        }
    }
}

/// A parameter of OpenSSL 3 (`OSSL_PARAM`, openssl/core.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameter {
    name: u64,
    kind: u32,
    padding: u32,
    data: u64,
    data_bytes: u64,
    returned_bytes: u64,
}
impl AnyBytes for Parameter {}

/// Parameters that are looked at: OpenSSL gives at most seven, and an end.
const PARAMETERS_MAX: u64 = 8;

const LABEL: u64 = u64::from_le_bytes(*b"label\0\0\0");
const SECRET: u64 = u64::from_le_bytes(*b"secret\0\0");
const SEED: u64 = u64::from_le_bytes(*b"seed\0\0\0\0");

/// The label of the key block of TLS 1.2 and before (RFC 5246, 6.3), its first eight bytes and its length.
/// The server's random and the client's follow it.
const KEY_EXPANSION: (u64, u64) = (u64::from_le_bytes(*b"key expa"), 13);

/// Length of the master secret (RFC 5246, 8.1).
const MASTER_BYTES: u64 = 48;
const RANDOM_BYTES: u64 = 32;

/// `EVP_KDF_derive(context, out, bytes, parameters)` of OpenSSL 3: the secrets of TLS 1.3 come out of it,
/// the one of those before goes in.
#[uprobe]
pub fn keywatch_kdf(ctx: ProbeContext) -> u32 {
    let (Some(out), Some(bytes), Some(parameters)) =
        (ctx.arg::<u64>(1), ctx.arg::<u64>(2), ctx.arg::<u64>(3))
    else {
        return 0;
    };
    let (mut master, mut seeds, mut random) = (0, 0, 0);
    for index in 0..PARAMETERS_MAX {
        let at = parameters + index * size_of::<Parameter>() as u64;
        let Some(parameter) = read::<Parameter>(at) else { break };
        if parameter.name == 0 {
            break;
        }
        match (name(parameter.name), parameter.data_bytes) {
            (LABEL, bytes_of_label) => {
                if let Some(label) = label(parameter.data, bytes_of_label) {
                    derive(out, bytes, label);
                }
                break;
            }
            (SECRET, MASTER_BYTES) => master = parameter.data,
            (SEED, bytes_of_seed) => {
                seeds += 1;
                if seeds == 1 {
                    if read::<u64>(parameter.data) != Some(KEY_EXPANSION.0)
                        || bytes_of_seed != KEY_EXPANSION.1
                    {
                        break;
                    }
                } else if seeds == 3 {
                    if bytes_of_seed == RANDOM_BYTES {
                        random = parameter.data;
                    }
                    break;
                }
            }
            _ => {}
        }
    }
    if master != 0 && random != 0 {
        tell_master(master, random);
    }
    0
}

/// `HKDF_expand(out, bytes, digest, secret, secret_bytes, info, info_bytes)` of AWS-LC; the info is that
/// of HKDF-Expand-Label (RFC 8446, 7.1): length, length of the label, and the label with a prefix.
#[uprobe]
pub fn keywatch_hkdf(ctx: ProbeContext) -> u32 {
    const PREFIX: [u8; 6] = *b"tls13 ";
    let (Some(out), Some(bytes), Some(info)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(5))
    else {
        return 0;
    };
    let Some([_, _, label_bytes, prefix @ ..]) = read::<[u8; 9]>(info) else { return 0 };
    let label_bytes = u64::from(label_bytes).wrapping_sub(PREFIX.len() as u64);
    if prefix == PREFIX
        && let Some(label) = label(info + 9, label_bytes)
    {
        derive(out, bytes, label);
    }
    0
}

/// `CRYPTO_tls1_prf(digest, out, bytes, secret, secret_bytes, label, label_bytes, seed, seed_bytes, …)` of
/// AWS-LC; from the label's length on they are on the stack.
#[uprobe]
pub fn keywatch_prf(ctx: ProbeContext) -> u32 {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct OnStack {
        return_address: u64,
        label_bytes: u64,
        seed: u64,
        seed_bytes: u64,
    }
    impl AnyBytes for OnStack {}
    let (Some(secret), Some(secret_bytes), Some(label)) =
        (ctx.arg::<u64>(3), ctx.arg::<u64>(4), ctx.arg::<u64>(5))
    else {
        return 0;
    };
    // SAFETY: the context is the kernel's, and its registers are read through the verifier.
    let stack = unsafe { (*ctx.regs).rsp };
    let Some(rest) = read::<OnStack>(stack) else { return 0 };
    if secret_bytes == MASTER_BYTES
        && rest.label_bytes == KEY_EXPANSION.1
        && rest.seed_bytes == 2 * RANDOM_BYTES
        && read::<u64>(label) == Some(KEY_EXPANSION.0)
    {
        tell_master(secret, rest.seed + RANDOM_BYTES);
    }
    0
}

/// `(*Config).writeKeyLog(label, random, secret)` of Go's crypto/tls, which calls it for every secret
/// whether there is a log or not: two words of a string, then three of each slice, in registers.
#[uprobe]
pub fn keywatch_go_secret(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the kernel's, and its registers are read through the verifier.
    let regs = unsafe { &*ctx.regs };
    let (label, label_bytes) = (regs.rbx, regs.rcx);
    let (random, random_bytes) = (regs.rdi, regs.rsi);
    let (secret, secret_bytes) = (regs.r9, regs.r10);
    let Some(first) = read::<u8>(label) else { return 0 };
    // `CLIENT_RANDOM`, `CLIENT_EARLY_TRAFFIC_SECRET`, `CLIENT_HANDSHAKE_TRAFFIC_SECRET`,
    // `CLIENT_TRAFFIC_SECRET_0`, and the last two of the server.
    let label = match (first, label_bytes) {
        (b'C', 13) => TlsLabel::Master,
        (b'C', 27) => TlsLabel::ClientEarly,
        (b'C', 31) => TlsLabel::ClientHandshake,
        (b'S', 31) => TlsLabel::ServerHandshake,
        (b'C', 23) => TlsLabel::ClientTraffic,
        (b'S', 23) => TlsLabel::ServerTraffic,
        _ => return 0,
    };
    if random_bytes == RANDOM_BYTES {
        // A goroutine may have changed its thread since it received: user side knows the hello, or not.
        tell(label as u8, secret, secret_bytes, random, true);
    }
    0
}

/// What a label of TLS 1.3 is for; the first eight bytes and the length tell.
#[inline(always)]
fn label(at: u64, bytes: u64) -> Option<TlsLabel> {
    const CLIENT_EARLY: u64 = u64::from_le_bytes(*b"c e traf");
    const CLIENT_HANDSHAKE: u64 = u64::from_le_bytes(*b"c hs tra");
    const SERVER_HANDSHAKE: u64 = u64::from_le_bytes(*b"s hs tra");
    const CLIENT_TRAFFIC: u64 = u64::from_le_bytes(*b"c ap tra");
    const SERVER_TRAFFIC: u64 = u64::from_le_bytes(*b"s ap tra");
    if bytes != 11 && bytes != 12 {
        return None;
    }
    match read::<u64>(at)? {
        CLIENT_EARLY => Some(TlsLabel::ClientEarly),
        CLIENT_HANDSHAKE => Some(TlsLabel::ClientHandshake),
        SERVER_HANDSHAKE => Some(TlsLabel::ServerHandshake),
        CLIENT_TRAFFIC => Some(TlsLabel::ClientTraffic),
        SERVER_TRAFFIC => Some(TlsLabel::ServerTraffic),
        _ => None,
    }
}

/// A thread begins to derive a secret.
#[inline(always)]
fn derive(out: u64, bytes: u64, label: TlsLabel) {
    let derivation = TlsDerivation { out, bytes: bytes as u32, label: label as u32 };
    // The map makes room by itself; without kernel memory the return finds nothing.
    let _ = TLS_DERIVATIONS.insert(bpf_get_current_pid_tgid(), derivation, BPF_ANY.into());
}

/// The secret is there.
#[uretprobe]
pub fn keywatch_kdf_return(ctx: RetProbeContext) -> u32 {
    let Some(derivation) = TLS_DERIVATIONS.get_ptr_mut(bpf_get_current_pid_tgid()) else {
        return 0;
    };
    // SAFETY: this thread's own value of the map.
    let derivation = unsafe { &mut *derivation };
    let TlsDerivation { out, bytes, label } = *derivation;
    derivation.label = 0;
    // Functions that return an int leave the upper half of the register undefined.
    if label != 0 && ctx.ret::<i32>() > 0 {
        tell(label as u8, out, bytes.into(), 0, false);
    }
    0
}

#[inline(always)]
fn tell_master(secret: u64, random: u64) {
    tell(TlsLabel::Master as u8, secret, MASTER_BYTES, random, false);
}

/// Carries a secret to user side. `label`: a [`TlsLabel`]. `random`: where that of the client's hello is, or 0.
/// `anywhere`: also when the thread has received last on what is not watched.
#[inline(always)]
fn tell(label: u8, secret: u64, secret_bytes: u64, random: u64, anywhere: bool) {
    let last = TLS_THREADS.get_ptr(bpf_get_current_pid_tgid());
    let mut record = TlsSecret {
        // SAFETY: helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: this thread's own value of the map.
        cookie: last.map_or(0, |cookie| unsafe { *cookie }),
        random: [0; 32],
        secret: [0; TLS_SECRET_BYTES_MAX],
        label,
        secret_bytes: secret_bytes as u8,
        has_random: 0,
        padding: [0; 5],
    };
    if record.cookie == 0 && !anywhere {
        // Of a connection that is not watched.
        return;
    }
    if random != 0 {
        let Some(bytes) = read::<[u8; 32]>(random) else { return };
        record.random = bytes;
        record.has_random = 1;
    }
    // SHA-256's and SHA-384's output; the master secret has the length of the second.
    let failed = match secret_bytes {
        32 => read::<[u8; 32]>(secret).map(|bytes| record.secret[..32].copy_from_slice(&bytes)),
        48 => read::<[u8; 48]>(secret).map(|bytes| record.secret = bytes),
        _ => return,
    }
    .is_none();
    if failed {
        return count(Counter::TlsCallsMissed, 1);
    }
    put_secret(&record);
}

/// The first eight bytes of a name, zeros behind its end.
#[inline(always)]
fn name(at: u64) -> u64 {
    let mut name = [0_u8; 8];
    // SAFETY: at most as many bytes are read as there is room for.
    unsafe { bpf_probe_read_user_str(name.as_mut_ptr().cast(), 8, at as *const c_void) };
    u64::from_le_bytes(name)
}
