//! One captured packet to one TCP segment: link, IP and TCP headers taken off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use monitor_core::input::{Endpoint, Segment, TcpFlags};
use monitor_core::time::EventTime;

/// What stands before the IP header (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// LINKTYPE_ETHERNET, with any number of VLAN tags.
    Ethernet,
    /// LINKTYPE_LINUX_SLL: what `tcpdump -i any` wrote for long.
    Cooked1,
    /// LINKTYPE_LINUX_SLL2: what it writes now.
    Cooked2,
    /// LINKTYPE_NULL and LINKTYPE_LOOP: four bytes of address family.
    Loopback,
    /// LINKTYPE_RAW and its kin: nothing.
    Raw,
}

impl Link {
    /// From the number in the file header; `None` for one that is not read.
    pub fn from_number(number: i32) -> Option<Link> {
        // The upper six bits tell the length of the frame check sequence.
        match number & 0x03ff_ffff {
            0 | 108 => Some(Link::Loopback),
            1 => Some(Link::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Link::Raw),
            113 => Some(Link::Cooked1),
            276 => Some(Link::Cooked2),
            _ => None,
        }
    }
}

/// Why a packet gave no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// Not IP, or IP that carries something else than TCP.
    NotTcp,
    /// A piece of a fragmented IP packet.
    Fragment,
    /// A header is broken, or cut off by the snap length.
    Malformed,
}

/// The TCP segment in a packet. `missing_bytes`: how much of it the snap length cut off.
pub(super) fn segment(
    link: Link,
    time: EventTime,
    packet: &[u8],
    missing_bytes: u32,
) -> Result<Segment<'_>, Skipped> {
    let ip = network_packet(link, packet)?;
    match ip.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(time, ip, missing_bytes),
        Some(6) => ipv6(time, ip, missing_bytes),
        Some(_) => Err(Skipped::NotTcp),
        None => Err(Skipped::Malformed),
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the number that QinQ had before it was a standard.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// AF_INET everywhere; AF_INET6 on Linux, NetBSD, FreeBSD and Darwin.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

fn network_packet(link: Link, packet: &[u8]) -> Result<&[u8], Skipped> {
    let (ethertype, rest) = match link {
        Link::Raw => return Ok(packet),
        Link::Loopback => {
            let (family, rest) = packet.split_first_chunk::<4>().ok_or(Skipped::Malformed)?;
            // NULL has the byte order of the capturing machine, LOOP that of the network.
            let known = FAMILIES.contains(&u32::from_le_bytes(*family))
                || FAMILIES.contains(&u32::from_be_bytes(*family));
            return if known { Ok(rest) } else { Err(Skipped::NotTcp) };
        }
        Link::Ethernet => (be16(packet, 12)?, packet.get(14..)),
        Link::Cooked1 => (be16(packet, 14)?, packet.get(16..)),
        Link::Cooked2 => (be16(packet, 0)?, packet.get(20..)),
    };
    without_vlan_tags(ethertype, rest.ok_or(Skipped::Malformed)?)
}

fn without_vlan_tags(mut ethertype: u16, mut rest: &[u8]) -> Result<&[u8], Skipped> {
    while ETHERTYPES_VLAN.contains(&ethertype) {
        ethertype = be16(rest, 2)?;
        rest = rest.get(4..).ok_or(Skipped::Malformed)?;
    }
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Ok(rest),
        _ => Err(Skipped::NotTcp),
    }
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, Skipped> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(Skipped::Malformed)?;
    Ok(u16::from_be_bytes(*bytes))
}

fn ipv4(time: EventTime, packet: &[u8], missing_bytes: u32) -> Result<Segment<'_>, Skipped> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Skipped::Malformed)?;
    if header.protocol() != IpNumber::TCP {
        return Err(Skipped::NotTcp);
    }
    if header.is_fragmenting_payload() {
        return Err(Skipped::Fragment);
    }
    let header_bytes = header.slice().len();
    let body = packet.get(header_bytes..).ok_or(Skipped::Malformed)?;
    let ends = [header.source_addr(), header.destination_addr()].map(Ipv4Addr::into);
    // A total length of 0 is what the sender's stack shows of a packet over 64 KiB that the card
    // is yet to cut up (TSO): it reaches to the end of the capture.
    let total = match usize::from(header.total_len()) {
        0 => None,
        total => Some(total.checked_sub(header_bytes).ok_or(Skipped::Malformed)?),
    };
    tcp(time, ends, body, total, missing_bytes)
}

fn ipv6(time: EventTime, packet: &[u8], missing_bytes: u32) -> Result<Segment<'_>, Skipped> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Skipped::Malformed)?;
    let after = packet.get(header.slice().len()..).ok_or(Skipped::Malformed)?;
    let ends = [header.source_addr(), header.destination_addr()].map(Ipv6Addr::into);
    // 0 as above; RFC 2675 jumbograms write it too.
    let total = Some(usize::from(header.payload_length())).filter(|&bytes| bytes != 0);
    if header.next_header() == IpNumber::TCP {
        return tcp(time, ends, after, total, missing_bytes);
    }
    let (extensions, last, body, fault) =
        Ipv6ExtensionsSlice::from_slice_lax(header.next_header(), after);
    if extensions.is_fragmenting_payload() {
        return Err(Skipped::Fragment);
    }
    if fault.is_some() {
        return Err(Skipped::Malformed);
    }
    if last != IpNumber::TCP {
        return Err(Skipped::NotTcp);
    }
    let taken = after.len() - body.len();
    let total = match total {
        None => None,
        Some(total) => Some(total.checked_sub(taken).ok_or(Skipped::Malformed)?),
    };
    tcp(time, ends, body, total, missing_bytes)
}

/// `total`: bytes of header and payload as the IP header has them; what follows them is padding.
fn tcp(
    time: EventTime,
    [source, target]: [IpAddr; 2],
    body: &[u8],
    total: Option<usize>,
    missing_bytes: u32,
) -> Result<Segment<'_>, Skipped> {
    let header = TcpHeaderSlice::from_slice(body).map_err(|_| Skipped::Malformed)?;
    let header_bytes = header.slice().len();
    let captured = body.get(header_bytes..).ok_or(Skipped::Malformed)?;
    let (payload, missing) = match total {
        None => (captured, missing_bytes),
        Some(total) => {
            let sent = total.checked_sub(header_bytes).ok_or(Skipped::Malformed)?;
            let payload = captured.get(..sent).unwrap_or(captured);
            // At most 65,535: both lengths stand in 16 bits.
            (payload, u32::try_from(sent - payload.len()).unwrap_or(u32::MAX))
        }
    };
    let mut flags = TcpFlags::empty();
    flags.set(TcpFlags::FIN, header.fin());
    flags.set(TcpFlags::SYN, header.syn());
    flags.set(TcpFlags::RST, header.rst());
    flags.set(TcpFlags::ACK, header.ack());
    Ok(Segment {
        time,
        source: Endpoint::new(source, header.source_port()),
        target: Endpoint::new(target, header.destination_port()),
        scope: 0,
        seq: header.sequence_number(),
        ack: header.acknowledgment_number(),
        flags,
        payload,
        missing,
    })
}
