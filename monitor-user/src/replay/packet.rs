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
pub(crate) enum Skipped {
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
        Some(4) => ipv4_segment(time, ip, missing_bytes),
        Some(6) => ipv6_segment(time, ip, missing_bytes),
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

fn ipv4_segment(
    time: EventTime,
    packet: &[u8],
    missing_bytes: u32,
) -> Result<Segment<'_>, Skipped> {
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
    tcp_segment(time, ends, body, total, missing_bytes)
}

fn ipv6_segment(
    time: EventTime,
    packet: &[u8],
    missing_bytes: u32,
) -> Result<Segment<'_>, Skipped> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Skipped::Malformed)?;
    let after = packet.get(header.slice().len()..).ok_or(Skipped::Malformed)?;
    let ends = [header.source_addr(), header.destination_addr()].map(Ipv6Addr::into);
    // 0 as above; RFC 2675 jumbograms write it too.
    let total = Some(usize::from(header.payload_length())).filter(|&bytes| bytes != 0);
    if header.next_header() == IpNumber::TCP {
        return tcp_segment(time, ends, after, total, missing_bytes);
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
    tcp_segment(time, ends, body, total, missing_bytes)
}

/// `total`: bytes of header and payload as the IP header has them; what follows them is padding.
fn tcp_segment(
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

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, ip_number};
    use proptest::prelude::*;

    use super::super::fixture::*;
    use super::*;

    const TIME: EventTime = EventTime(5);

    fn payload(link: Link, packet: &[u8]) -> Result<Vec<u8>, Skipped> {
        segment(link, TIME, packet, 0).map(|segment| segment.payload.to_vec())
    }

    #[test]
    fn every_link_type_leads_to_the_same_segment() {
        let expected = {
            let packet = ipv4(b"GET");
            let segment = segment(Link::Raw, TIME, &packet, 0).unwrap();
            assert_eq!(segment.source, Endpoint::new(CLIENT.0.into(), CLIENT.1));
            assert_eq!(segment.target, Endpoint::new(SERVER.0.into(), SERVER.1));
            assert_eq!((segment.seq, segment.ack), (SEQ, ACK));
            assert_eq!(segment.flags, TcpFlags::ACK);
            assert_eq!((segment.payload, segment.missing), (&b"GET"[..], 0));
            format!("{segment:?}")
        };
        let packet = ipv4(b"GET");
        for (link, bytes) in [
            (1, ethernet(&[], &packet)),
            (1, ethernet(&[0x8100], &packet)),
            (1, ethernet(&[0x88a8, 0x8100], &packet)),
            (0x1400_0001, ethernet(&[], &packet)),
            (113, cooked1(&packet)),
            (276, cooked2(&packet)),
            (0, loopback(2_u32.to_le_bytes(), &packet)),
            (0, loopback(2_u32.to_be_bytes(), &packet)),
            (108, loopback(2_u32.to_be_bytes(), &packet)),
            (12, packet.clone()),
            (14, packet.clone()),
            (101, packet.clone()),
            (228, packet.clone()),
        ] {
            let kind = Link::from_number(link).unwrap();
            let segment = segment(kind, TIME, &bytes, 0).unwrap();
            assert_eq!(format!("{segment:?}"), expected, "link type {link}");
        }
        assert_eq!(Link::from_number(105), None, "IEEE 802.11");
    }

    #[test]
    fn ipv6_with_and_without_extension_headers() {
        let packet = ipv6(b"GET");
        for (link, bytes) in [
            (1, ethernet(&[0x8100], &packet)),
            (113, cooked1(&packet)),
            (276, cooked2(&packet)),
            (0, loopback(30_u32.to_le_bytes(), &packet)),
            (0, loopback(10_u32.to_le_bytes(), &packet)),
            (229, packet.clone()),
            (101, ipv6_with(ip_number::IPV6_HEADER_HOP_BY_HOP, [0, 1, 4, 0, 0, 0, 0], b"GET")),
            (101, ipv6_with(ip_number::IPV6_DESTINATION_OPTIONS, [0, 1, 4, 0, 0, 0, 0], b"GET")),
            // A fragment header on a whole packet (RFC 6946).
            (101, ipv6_with(ip_number::IPV6_FRAGMENTATION_HEADER, [0; 7], b"GET")),
        ] {
            let kind = Link::from_number(link).unwrap();
            let segment = segment(kind, TIME, &bytes, 0).unwrap();
            assert_eq!((segment.payload, segment.missing), (&b"GET"[..], 0), "link type {link}");
            let expected: IpAddr = "2001:db8::c000:201".parse().unwrap();
            assert_eq!(segment.source, Endpoint::new(expected, CLIENT.1));
        }
    }

    #[test]
    fn padding_is_no_payload() {
        for packet in [ipv4(b"GET"), ipv6(b"GET")] {
            let mut frame = ethernet(&[], &packet);
            frame.extend([0xee; 9]);
            assert_eq!(payload(Link::Ethernet, &frame), Ok(b"GET".to_vec()));
        }
    }

    #[test]
    fn a_length_of_zero_reaches_to_the_end() {
        let mut v4 = ipv4(b"GET");
        v4[2..4].fill(0);
        let mut v6 = ipv6(b"GET");
        v6[4..6].fill(0);
        for packet in [v4, v6] {
            assert_eq!(payload(Link::Raw, &packet), Ok(b"GET".to_vec()));
            let cut = segment(Link::Raw, TIME, &packet[..packet.len() - 1], 1).unwrap();
            assert_eq!((cut.payload, cut.missing), (&b"GE"[..], 1));
        }
    }

    #[test]
    fn the_snap_length_leaves_what_is_missing() {
        for packet in [ipv4(b"0123456789"), ipv6(b"0123456789")] {
            let headers = packet.len() - 10;
            for kept in 0..=10 {
                let cut = &packet[..headers + kept];
                let segment = segment(Link::Raw, TIME, cut, 10 - kept as u32).unwrap();
                assert_eq!(segment.payload, &b"0123456789"[..kept]);
                assert_eq!(segment.missing, 10 - kept as u32);
            }
            for kept in 0..headers {
                assert_eq!(payload(Link::Raw, &packet[..kept]), Err(Skipped::Malformed), "{kept}");
            }
        }
    }

    #[test]
    fn what_gives_no_segment_is_told_apart() {
        let mut first = ipv4(b"GET");
        first[6] = 0x20;
        let mut later = ipv4(b"GET");
        later[7] = 1;
        let fragment6 =
            ipv6_with(ip_number::IPV6_FRAGMENTATION_HEADER, [0, 0, 1, 0, 0, 0, 9], b"G");
        for packet in [first, later, fragment6] {
            assert_eq!(payload(Link::Raw, &packet), Err(Skipped::Fragment));
        }
        let mut udp = Vec::new();
        PacketBuilder::ipv4(CLIENT.0, SERVER.0, 64).udp(1, 2).write(&mut udp, b"x").unwrap();
        let mut arp = ethernet(&[], &ipv4(b""));
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(payload(Link::Raw, &udp), Err(Skipped::NotTcp));
        assert_eq!(payload(Link::Ethernet, &arp), Err(Skipped::NotTcp));
        assert_eq!(payload(Link::Loopback, &[9, 0, 0, 0, 0x45]), Err(Skipped::NotTcp));
        assert_eq!(payload(Link::Raw, &[0x55; 40]), Err(Skipped::NotTcp));
        let mut short = ipv4(b"GET");
        short[2..4].copy_from_slice(&30_u16.to_be_bytes());
        assert_eq!(payload(Link::Raw, &short), Err(Skipped::Malformed), "shorter than its headers");
    }

    #[test]
    fn wrong_checksums_are_taken() {
        let mut packet = ipv4(b"GET");
        packet[10] ^= 0xff;
        packet[36] ^= 0xff;
        assert_eq!(payload(Link::Raw, &packet), Ok(b"GET".to_vec()));
    }

    fn link() -> impl Strategy<Value = Link> {
        prop_oneof![
            Just(Link::Ethernet),
            Just(Link::Cooked1),
            Just(Link::Cooked2),
            Just(Link::Loopback),
            Just(Link::Raw)
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_panic(link in link(), bytes: Vec<u8>, missing: u32) {
            if let Ok(segment) = segment(link, TIME, &bytes, missing) {
                prop_assert!(segment.payload.len() <= bytes.len());
            }
        }

        #[test]
        fn no_damage_panics(
            link in link(),
            v6: bool,
            damage in prop::collection::vec((0_usize..90, any::<u8>()), 1..6),
            keep in 0_usize..120,
        ) {
            let packet = if v6 { ipv6(b"GET / HTTP/1.1") } else { ipv4(b"GET / HTTP/1.1") };
            let mut bytes = match link {
                Link::Ethernet => ethernet(&[0x8100], &packet),
                Link::Cooked1 => cooked1(&packet),
                Link::Cooked2 => cooked2(&packet),
                Link::Loopback => loopback(2_u32.to_le_bytes(), &packet),
                Link::Raw => packet,
            };
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= value;
                }
            }
            bytes.truncate(keep);
            if let Ok(segment) = segment(link, TIME, &bytes, 0) {
                prop_assert!(segment.payload.len() <= bytes.len());
            }
        }
    }
}
