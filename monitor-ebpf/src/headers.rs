//! IP and TCP headers of a packet, as far as reassembly needs them.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;

/// TCP flags (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;

const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
const IPPROTO_TCP: u8 = 6;

/// What a packet says about itself.
pub struct Headers {
    /// Sender, IPv4 as IPv4-mapped IPv6.
    pub source: [u8; 16],
    /// Receiver.
    pub target: [u8; 16],
    pub source_port: u16,
    pub target_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Where the payload begins.
    pub payload_offset: u32,
    /// Payload bytes in the packet.
    pub payload_len: u32,
}

/// Reads the headers of a TCP packet that begins at its IP header; `None` when it is anything else.
///
/// Everything is read in words: zeroing and copying bytes would become loops here.
#[inline(always)]
pub fn read(skb: *mut __sk_buff) -> Option<Headers> {
    // SAFETY: the context pointer is the kernel's; fields of it are read through the verifier.
    let (protocol, len) = unsafe { ((*skb).protocol, (*skb).len) };
    let (source, target, tcp_offset) = if protocol == ETH_P_IP {
        let ip: [u32; 5] = header(skb, 0)?;
        let [first, _, third, source, target] = ip;
        if third.to_ne_bytes()[1] != IPPROTO_TCP {
            return None;
        }
        let header_len = u32::from(first.to_ne_bytes()[0] & 0x0f) * 4;
        (mapped(source), mapped(target), header_len)
    } else if protocol == ETH_P_IPV6 {
        let ip: [u32; 10] = header(skb, 0)?;
        let [_, second, s0, s1, s2, s3, t0, t1, t2, t3] = ip;
        let offset = after_extensions(skb, second.to_ne_bytes()[2])?;
        (address([s0, s1, s2, s3]), address([t0, t1, t2, t3]), offset)
    } else {
        return None;
    };
    let tcp: [u32; 4] = header(skb, tcp_offset)?;
    let [ports, seq, ack, rest] = tcp;
    let [source_high, source_low, target_high, target_low] = ports.to_ne_bytes();
    let [data_offset, flags, ..] = rest.to_ne_bytes();
    let payload_offset = tcp_offset + u32::from(data_offset >> 4) * 4;
    Some(Headers {
        source,
        target,
        source_port: u16::from_be_bytes([source_high, source_low]),
        target_port: u16::from_be_bytes([target_high, target_low]),
        seq: u32::from_be(seq),
        ack: u32::from_be(ack),
        flags,
        payload_offset,
        payload_len: len.checked_sub(payload_offset)?,
    })
}

/// An IPv4 address as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2); all in network order.
#[inline(always)]
fn mapped(v4: u32) -> [u8; 16] {
    address([0, 0, 0xffff_u32.to_be(), v4])
}

#[inline(always)]
fn address(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: same size, and any bytes are an address.
    unsafe { core::mem::transmute(words) }
}

/// Where TCP begins behind an IPv6 header and up to three extension headers (RFC 8200, 4), which is
/// one more than hosts are seen to send.
#[inline(always)]
fn after_extensions(skb: *mut __sk_buff, first: u8) -> Option<u32> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let mut next = first;
    let mut offset = 40;
    for _ in 0..4 {
        match next {
            IPPROTO_TCP => return Some(offset),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let extension: [u8; 2] = load(skb, offset)?;
                next = extension[0];
                offset += (u32::from(extension[1]) + 1) * 8;
            }
            _ => return None,
        }
    }
    None
}

/// A header at `offset`: where it lies, when the kernel holds it in one piece as it does headers;
/// else copied together.
#[inline(always)]
fn header<T: Plain>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    // SAFETY: the context is the kernel's; a read ends before `data_end`, as the verifier sees, and
    // the kernel keeps IP headers as aligned as the machine needs.
    unsafe {
        let start = (*skb).data as usize + offset as usize;
        if start + size_of::<T>() <= (*skb).data_end as usize {
            return Some((start as *const T).read());
        }
    }
    load(skb, offset)
}

/// The bytes of the packet at `offset`, wherever the kernel keeps them.
#[inline(always)]
pub fn load<T: Plain>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let (to, len) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
    // SAFETY: the helper writes `len` bytes into `value`, all of them or none, and any bytes are a T.
    unsafe { (bpf_skb_load_bytes(skb.cast(), offset, to, len) == 0).then(|| value.assume_init()) }
}

/// Types that are valid for any bytes.
pub trait Plain {}
impl<const N: usize> Plain for [u8; N] {}
impl<const N: usize> Plain for [u32; N] {}
