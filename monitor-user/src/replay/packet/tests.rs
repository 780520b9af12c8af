//! Links, headers and tunnels, one at a time and damaged.

use etherparse::{PacketBuilder, ip_number};
use proptest::prelude::*;

use super::super::fixture::*;
use super::*;

const TIME: EventTime = EventTime(5);

fn segment(
    link: Link,
    time: EventTime,
    packet: &[u8],
    missing: u32,
) -> Result<Segment<'_>, Skipped> {
    match find(Layer::Link(link), time, packet, missing, &mut Tunnels::default())? {
        Found::Segment(segment) => Ok(segment),
        Found::Fragment(fragment) => panic!("{fragment:?}"),
    }
}

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
    assert_eq!(Link::from_number(147), None, "whatever its users say");
}

/// One frame of each link that is not in common use, after its description.
#[test]
fn rare_links_hold_the_same_call() {
    const GET: &[u8] = b"GET /api/v3/account HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let packet = ipv4(GET);
    let frame = ethernet(&[], &packet);
    let with = |header: &[u8], inner: &[u8]| [header, inner].concat();
    let padded = |header: &[u8], bytes: usize, inner: &[u8]| {
        let mut header = header.to_vec();
        header.resize(bytes, 0);
        [&header[..], inner].concat()
    };
    let snap = with(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &packet);
    // A data frame to the access point, and one with a quality of service between two of them.
    let wifi = padded(&[0x08, 0x01], 24, &snap);
    let bridged = padded(&[0x88, 0x03], 32, &snap);
    // Its header of 26 bytes is padded to 28, as the flags before it say.
    let aligned = with(&[0, 0, 9, 0, 2, 0, 0, 0, 0x20], &padded(&[0x88, 0x01], 28, &snap));
    let ppp = with(&[0xff, 3, 0, 0x21], &packet);
    let length = (4 + packet.len()) as u16;
    let attribute = |length: [u8; 2], kind: [u8; 2]| {
        // The protocol of the hardware first, padded to four bytes.
        let first = if kind[0] == 0 { [0, 6, 0, 1, 8, 0, 0, 0] } else { [6, 0, 1, 0, 8, 0, 0, 0] };
        [&[2, 0, 0, 0][..], &first, &length, &kind, &packet].concat()
    };
    let pppoe_bytes = (packet.len() as u16 + 2).to_be_bytes();
    let pppoe = [&[0x11, 0, 0, 1][..], &pppoe_bytes, &[0, 0x21], &packet].concat();
    for (link, bytes) in [
        (8, padded(&[0, 0x45], 16, &packet)),
        (9, ppp.clone()),
        (9, with(&[0x21], &packet)),
        (9, with(&[0xff, 3, 0, 0x31, 0, 1], &frame)),
        (50, with(&[0x0f, 0, 8, 0], &packet)),
        (11, snap.clone()),
        (100, with(&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7, 0, 0], &frame)),
        (100, with(&[0xfe, 0xfe, 3, 0xcc], &packet)),
        (100, with(&[6, 6, 3], &packet)),
        (51, pppoe),
        (104, with(&[0x0f, 0, 8, 0], &packet)),
        (105, wifi.clone()),
        (105, bridged),
        (107, with(&[0x18, 0x41, 3, 0xcc], &packet)),
        (107, with(&[0x18, 0x41, 8, 0], &packet)),
        (107, with(&[0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0], &packet)),
        (109, padded(&[2, 0, 0, 0], 12, &packet)),
        (117, padded(&[61, 2], 64, &packet)),
        (119, padded(&[0x44, 0, 0, 0], 144, &wifi)),
        (119, padded(&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], 64, &wifi)),
        (127, padded(&[0, 0, 8], 8, &wifi)),
        (127, aligned),
        (163, padded(&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], 64, &wifi)),
        (166, with(&[0, 3, 0, 0x21], &packet)),
        (192, padded(&[0, 0, 16, 0, 105], 16, &wifi)),
        (192, padded(&[0, 0, 8, 0, 1], 8, &frame)),
        (204, with(&[1], &ppp)),
        (239, attribute(length.to_le_bytes(), [9, 0])),
        (239, attribute(length.to_be_bytes(), [0, 9])),
        (240, padded(&[], 4, &frame)),
        (258, padded(&[108, 0, 0, 0, 1, 0, 0, 0, 1], 108, &frame)),
        (258, padded(&[108, 0, 0, 0, 1, 0, 0, 0, 12], 108, &packet)),
    ] {
        let kind = Link::from_number(link).unwrap();
        let segment = segment(kind, TIME, &bytes, 0);
        let segment = segment.unwrap_or_else(|skipped| panic!("link type {link}: {skipped:?}"));
        assert_eq!(segment.source, Endpoint::new(CLIENT.0.into(), CLIENT.1), "link type {link}");
        assert_eq!((segment.payload, segment.missing), (GET, 0), "link type {link}");
        // Its headers alone are no packet, wherever they end.
        for end in 0..bytes.len() - packet.len() {
            assert!(self::segment(kind, TIME, &bytes[..end], 0).is_err(), "{link} cut at {end}");
        }
    }
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
    let fragment6 = ipv6_with(ip_number::IPV6_FRAGMENTATION_HEADER, [0, 0, 1, 0, 0, 0, 9], b"G");
    for packet in [first, later, fragment6] {
        let found = find(Layer::Link(Link::Raw), TIME, &packet, 0, &mut Tunnels::default());
        assert!(matches!(found, Ok(Found::Fragment(_))), "{found:?}");
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

fn framed(link: Link, packet: Vec<u8>) -> Vec<u8> {
    let headers = [
        (Link::Cooked1, cooked1(&packet)),
        (Link::Cooked2, cooked2(&packet)),
        (Link::Loopback, loopback(2_u32.to_le_bytes(), &packet)),
        (Link::Raw, packet.clone()),
    ];
    let framed = headers.into_iter().find(|(of, _)| *of == link).map(|(_, frame)| frame);
    framed.unwrap_or_else(|| ethernet(&[0x8100], &packet))
}

fn link() -> impl Strategy<Value = Link> {
    (0..300).prop_filter_map("a link type that is not read", Link::from_number)
}

proptest! {
    #[test]
    fn no_bytes_panic(link in link(), bytes: Vec<u8>, missing: u32) {
        let found = find(Layer::Link(link), TIME, &bytes, missing, &mut Tunnels::default());
        if let Ok(Found::Segment(segment)) = found {
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
        let mut bytes = framed(link, packet);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        bytes.truncate(keep);
        let found = find(Layer::Link(link), TIME, &bytes, 0, &mut Tunnels::default());
        if let Ok(Found::Segment(segment)) = found {
            prop_assert!(segment.payload.len() <= bytes.len());
        }
    }
}
