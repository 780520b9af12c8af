//! What the kernel side remembers: watched ports, verdict per socket, counters, settings.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::{Array, PerCpuArray, SkStorage};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use monitor_common::{COUNTERS as COUNTER_SLOTS, Counter, InsideTls, PORT_WORDS, Socket, Verdict};

/// A bit per port.
#[btf_map]
static PORTS: Array<u64, PORT_WORDS> = Array::new();

/// The same for the ports of servers elsewhere.
#[btf_map]
static OUTBOUND_PORTS: Array<u64, PORT_WORDS> = Array::new();

#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// 1 while probes at the calls of TLS libraries are attached: user side writes it.
#[btf_map]
static CALLS_ATTACHED: Array<u32, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, COUNTER_SLOTS> = PerCpuArray::new();

/// 1 when cgroup_skb programs may ask for the network namespace (kernel 6.15 and later).
#[unsafe(no_mangle)]
static HAS_NETNS_COOKIE: Global<u8> = Global::new(0);

/// 1 to look at first bytes, 0 to take every socket of a watched port.
#[unsafe(no_mangle)]
static FIRST_BYTES: Global<u8> = Global::new(1);

/// 1 when there are [`OUTBOUND_PORTS`]: else the kernel compiles that look-up out.
#[unsafe(no_mangle)]
static WATCHES_OUTBOUND: Global<u8> = Global::new(0);

/// An [`InsideTls`].
#[unsafe(no_mangle)]
static INSIDE_TLS: Global<u8> = Global::new(0);

/// Bytes of one call of a TLS library that are carried: no more than `TLS_CALL_BYTES_MAX`.
#[unsafe(no_mangle)]
static TLS_CALL_BYTES_MAX: Global<u32> = Global::new(0);

/// Bytes of one call of a TLS library that are carried.
#[inline(always)]
pub fn tls_call_bytes_max() -> u32 {
    TLS_CALL_BYTES_MAX.load()
}

/// Whether TLS connections are looked into where they end.
#[inline(always)]
pub fn looks_inside_tls() -> bool {
    let inside = INSIDE_TLS.load();
    inside == InsideTls::Libraries as u8 || inside == InsideTls::Secrets as u8
}

/// Whether any call into a TLS library can be under way that has been seen to begin.
#[inline(always)]
pub fn sees_calls() -> bool {
    looks_inside_tls() && CALLS_ATTACHED.get(0).is_some_and(|attached| *attached != 0)
}

/// Whether secrets are looked for that open TLS connections, which are delivered for that.
#[inline(always)]
pub fn takes_secrets() -> bool {
    INSIDE_TLS.load() == InsideTls::Secrets as u8
}

/// Whether TLS connections are delivered as others are.
#[inline(always)]
pub fn takes_tls_whole() -> bool {
    INSIDE_TLS.load() == InsideTls::Wire as u8
}

/// Whether the kernel tells the network namespace here.
#[inline(always)]
pub fn has_netns_cookie() -> bool {
    HAS_NETNS_COOKIE.load() == 1
}

/// Whether first bytes decide.
#[inline(always)]
pub fn first_bytes_decide() -> bool {
    FIRST_BYTES.load() == 1
}

/// Whether `port` is one of the servers of this host.
#[inline(always)]
pub fn is_watched(port: u16) -> bool {
    holds(&PORTS, port)
}

/// Whether servers elsewhere are watched.
#[inline(always)]
pub fn watches_outbound() -> bool {
    WATCHES_OUTBOUND.load() == 1
}

/// Whether `port` is one of servers elsewhere that this host calls.
#[inline(always)]
pub fn is_called(port: u16) -> bool {
    watches_outbound() && holds(&OUTBOUND_PORTS, port)
}

#[inline(always)]
fn holds(ports: &Array<u64, PORT_WORDS>, port: u16) -> bool {
    ports.get(u32::from(port) / 64).is_some_and(|word| word & (1 << (port % 64)) != 0)
}

/// State of a socket that is known already.
///
/// # Safety
///
/// `sk` is a socket that the kernel handed to the program.
#[inline(always)]
pub unsafe fn known(sk: *mut c_void) -> Option<&'static mut Socket> {
    // SAFETY: by the caller; the kernel gives null or this socket's own value.
    unsafe { storage(sk, 0).as_mut() }
}

/// State of a socket, made zero when there was none. `None` without kernel memory.
///
/// # Safety
///
/// As for [`known`].
#[inline(always)]
pub unsafe fn known_or_new(sk: *mut c_void) -> Option<&'static mut Socket> {
    // SAFETY: by the caller.
    unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)).as_mut() }
}

#[inline(always)]
unsafe fn storage(sk: *mut c_void, flags: u64) -> *mut Socket {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: `map` is the map's own symbol, which the loader turns into the map.
    unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast() }
}

/// The verdict on a socket as it is now: the other direction may be at it on another CPU.
#[inline(always)]
pub fn verdict(socket: &Socket) -> u8 {
    // SAFETY: a reference.
    unsafe { (&raw const socket.verdict).read_volatile() }
}

/// Decides on a socket, after all that was done before.
#[inline(always)]
pub fn set_verdict(socket: &mut Socket, verdict: Verdict) {
    // SAFETY: a reference.
    unsafe { (&raw mut socket.verdict).write_volatile(verdict as u8) }
}

/// Adds to a counter.
#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's and lives as long as the program.
        unsafe { add(slot, by) };
    }
}

/// Adds in one step: a softirq may come between, and both directions of a socket may be at it.
///
/// # Safety
///
/// `slot` points into a map value.
#[inline(always)]
pub unsafe fn add(slot: *mut u64, by: u64) {
    // SAFETY: by the caller. In assembly, because `core` has no atomic add for this target.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) slot, in(reg) by) };
}
