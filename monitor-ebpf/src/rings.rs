//! The two rings to user side: payload in size classes, and socket lifecycle.

use aya_ebpf::bindings::{
    __sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RINGBUF_HDR_SZ,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{
    bpf_probe_read_user, bpf_ringbuf_discard, bpf_ringbuf_query, bpf_ringbuf_reserve,
    bpf_ringbuf_submit, bpf_skb_load_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use monitor_common::{
    Control, Counter, DataHeader, PAYLOAD_BYTES_MAX, PAYLOAD_CLASSES, TlsSecret, WAKE_BYTES,
};

use crate::sockets::count;

/// Sizes are set by the loader.
#[map]
static DATA: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

#[map]
static CONTROL: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Where a record's payload comes from.
pub trait Source: Copy {
    /// Copies `len` bytes to `to`, all or none; true when it did.
    ///
    /// # Safety
    ///
    /// There is room for so many.
    unsafe fn copy(self, to: *mut c_void, len: u32) -> bool;
}

/// From an offset in a packet on.
#[derive(Clone, Copy)]
pub struct Packet(pub *mut __sk_buff, pub u32);

impl Source for Packet {
    #[inline(always)]
    unsafe fn copy(self, to: *mut c_void, len: u32) -> bool {
        // SAFETY: by the caller.
        unsafe { bpf_skb_load_bytes(self.0.cast(), self.1, to, len) == 0 }
    }
}

/// From an address in the process that runs.
#[derive(Clone, Copy)]
pub struct User(pub u64);

impl Source for User {
    #[inline(always)]
    unsafe fn copy(self, to: *mut c_void, len: u32) -> bool {
        // SAFETY: by the caller; the helper reads user memory or fails.
        unsafe { bpf_probe_read_user(to, len, self.0 as *const c_void) == 0 }
    }
}

/// Puts one record with `header.payload_len` bytes of `source` into the data ring. False, with the
/// loss counted in total, when there is no room or the bytes cannot be had.
#[inline(always)]
pub fn put_payload(source: impl Source, header: &DataHeader) -> bool {
    let len = header.payload_len as usize;
    let put = if len == 0 {
        put_empty(header)
    } else if len <= PAYLOAD_CLASSES[0] {
        put_class::<{ PAYLOAD_CLASSES[0] }>(source, header)
    } else if len <= PAYLOAD_CLASSES[1] {
        put_class::<{ PAYLOAD_CLASSES[1] }>(source, header)
    } else if len <= PAYLOAD_CLASSES[2] {
        put_class::<{ PAYLOAD_CLASSES[2] }>(source, header)
    } else if len <= PAYLOAD_CLASSES[3] {
        put_class::<{ PAYLOAD_CLASSES[3] }>(source, header)
    } else {
        put_class::<{ PAYLOAD_CLASSES[4] }>(source, header)
    };
    counted(put, header)
}

/// The same for a record of [`PAYLOAD_BYTES_MAX`] bytes: in a loop, one class is less for the verifier to
/// follow than all of them.
#[inline(always)]
pub fn put_largest(source: impl Source, header: &DataHeader) -> bool {
    counted(put_class::<PAYLOAD_BYTES_MAX>(source, header), header)
}

#[inline(always)]
fn counted(put: bool, header: &DataHeader) -> bool {
    if !put {
        count(Counter::LostRecords, 1);
        count(Counter::LostBytes, header.payload_len.into());
    }
    put
}

/// A record without payload: an end of stream.
#[inline(always)]
fn put_empty(header: &DataHeader) -> bool {
    // SAFETY: a reservation is null or as large as asked for.
    unsafe {
        let record = bpf_ringbuf_reserve(data(), size_of::<DataHeader>() as u64, 0);
        let Some(slot) = record.cast::<DataHeader>().as_mut() else { return false };
        *slot = *header;
        bpf_ringbuf_submit(record, wake(size_of::<DataHeader>()));
    }
    true
}

#[inline(always)]
fn put_class<const CLASS: usize>(source: impl Source, header: &DataHeader) -> bool {
    // SAFETY: a reservation is null or as large as asked for; the bytes loaded are at most CLASS.
    unsafe {
        let record = bpf_ringbuf_reserve(data(), (size_of::<DataHeader>() + CLASS) as u64, 0);
        let Some(slot) = record.cast::<DataHeader>().as_mut() else { return false };
        *slot = *header;
        let payload = record.add(size_of::<DataHeader>());
        let len = at_most::<CLASS>(header.payload_len);
        if !source.copy(payload, len) {
            bpf_ringbuf_discard(record, u64::from(BPF_RB_NO_WAKEUP));
            return false;
        }
        bpf_ringbuf_submit(record, wake(size_of::<DataHeader>() + CLASS));
    }
    true
}

/// `len`, which is in `1..=MAX` already, in a form in which the verifier sees that it is.
#[inline(always)]
fn at_most<const MAX: usize>(len: u32) -> u32 {
    const { assert!(MAX.is_power_of_two()) };
    let mut less_one = u64::from(len) - 1;
    // SAFETY: touches the one register only. In assembly, because the compiler knows that the mask
    // changes nothing and would leave it out.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) less_one, const MAX - 1) };
    less_one as u32 + 1
}

/// Puts a lifecycle event into the control ring; false, and counted, when there is no room.
#[inline(always)]
pub fn put_control(event: &Control) -> bool {
    if CONTROL.output::<Control>(event, u64::from(BPF_RB_NO_WAKEUP)).is_ok() {
        return true;
    }
    count(Counter::LostControls, 1);
    false
}

/// Puts a secret there; counted when there is no room.
#[inline(always)]
pub fn put_secret(secret: &TlsSecret) {
    if CONTROL.output::<TlsSecret>(secret, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        count(Counter::LostControls, 1);
    }
}

/// The reader looks by itself every few milliseconds; it is woken only when much has come meanwhile, and
/// then once for so much: a wake-up for each record would cost more than the record, most of all when the
/// reader is behind. `bytes`: those of the record, which has a header of the kernel's and begins at a multiple
/// of eight.
#[inline(always)]
fn wake(bytes: usize) -> u64 {
    const { assert!(WAKE_BYTES.is_power_of_two()) };
    // SAFETY: `data()` is a ring buffer.
    let waiting = unsafe { bpf_ringbuf_query(data(), u64::from(BPF_RB_AVAIL_DATA)) };
    let taken = (bytes as u64 + u64::from(BPF_RINGBUF_HDR_SZ)).next_multiple_of(8);
    let is_first = waiting >= WAKE_BYTES && waiting % WAKE_BYTES < taken;
    u64::from(if is_first { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

#[inline(always)]
fn data() -> *mut c_void {
    (&raw const DATA).cast_mut().cast()
}
