//! IP and TCP headers of a packet, as far as reassembly needs them.

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
#[inline(always)]
pub fn read(skb: *mut __sk_buff) -> Option<Headers> {
    let mut source = [0; 16];
    let mut target = [0; 16];
    // SAFETY: the context pointer is the kernel's; fields of it are read through the verifier.
    let protocol = unsafe { (*skb).protocol };
    let tcp_offset = if protocol == ETH_P_IP {
        let ip: [u8; 20] = load(skb, 0)?;
        if ip[9] != IPPROTO_TCP {
            return None;
        }
        source[10] = 0xff;
        source[11] = 0xff;
        target[10] = 0xff;
        target[11] = 0xff;
        source[12..].copy_from_slice(&ip[12..16]);
        target[12..].copy_from_slice(&ip[16..20]);
        u32::from(ip[0] & 0x0f) * 4
    } else if protocol == ETH_P_IPV6 {
        let ip: [u8; 40] = load(skb, 0)?;
        source.copy_from_slice(&ip[8..24]);
        target.copy_from_slice(&ip[24..40]);
        after_extensions(skb, ip[6])?
    } else {
        return None;
    };
    let tcp: [u8; 20] = load(skb, tcp_offset)?;
    let payload_offset = tcp_offset + u32::from(tcp[12] >> 4) * 4;
    // SAFETY: as above.
    let len = unsafe { (*skb).len };
    Some(Headers {
        source,
        target,
        source_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        target_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        ack: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
        flags: tcp[13],
        payload_offset,
        payload_len: len.checked_sub(payload_offset)?,
    })
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

/// `N` bytes of the packet at `offset`, wherever the kernel keeps them.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the helper writes at most N bytes into `bytes` and fails beyond the packet's end.
    let failed =
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (failed == 0).then_some(bytes)
}
