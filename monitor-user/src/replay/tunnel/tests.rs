//! Each tunnel around the same segment, and bytes that only look like one.

use etherparse::PacketBuilder;
use monitor_core::time::EventTime;
use proptest::prelude::*;

use super::super::fixture::*;
use super::super::packet::{Found, find};
use super::*;

fn payload(layer: Layer, bytes: &[u8]) -> (Result<Vec<u8>, Skipped>, Tunnels) {
    let mut tunnels = Tunnels::default();
    let found = find(layer, EventTime(1), bytes, 0, &mut tunnels);
    let payload = found.map(|found| match found {
        Found::Segment(segment) => segment.payload.to_vec(),
        Found::Fragment(fragment) => panic!("{fragment:?}"),
    });
    (payload, tunnels)
}

/// A datagram to a port, in IPv4.
fn datagram(port: u16, content: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let udp = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(40_000, port);
    udp.write(&mut packet, content).unwrap();
    packet
}

/// A packet of another protocol, in IPv4.
fn packet(protocol: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    ip.write(&mut packet, etherparse::IpNumber(protocol), content).unwrap();
    packet
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Every tunnel, with what it counts as.
fn tunnels() -> Vec<(&'static str, Vec<u8>, Tunnels)> {
    let (v4, v6) = (ipv4(b"GET"), ipv6(b"GET"));
    let frame = ethernet(&[0x8100], &v4);
    let mut of_teredo = v6.clone();
    of_teredo[8..12].copy_from_slice(&[0x20, 1, 0, 0]);
    let none = Tunnels::default;
    let gtp_length = |extra: usize| (v4.len() + extra).to_be_bytes()[6..].to_vec();
    let mpls_label = [0, 0x10, 0x01, 64];
    let ppp_length = ((v4.len() + 2) as u16).to_be_bytes();
    let vxlan = Tunnels { vxlan: 1, ..none() };
    let gre = Tunnels { gre: 1, ..none() };
    let gtp = Tunnels { gtp: 1, ..none() };
    let l2tp = Tunnels { l2tp: 1, ..none() };
    let mpls = Tunnels { mpls: 1, ..none() };
    let other = Tunnels { other: 1, ..none() };
    let udp = |name, port, parts: &[&[u8]], counts: &Tunnels| {
        (name, datagram(port, &join(parts)), counts.clone())
    };
    let ip = |name, protocol, parts: &[&[u8]], counts: &Tunnels| {
        (name, packet(protocol, &join(parts)), counts.clone())
    };
    vec![
        udp("vxlan", 4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame], &vxlan),
        udp("vxlan of linux", 8472, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame], &vxlan),
        udp("vxlan with a group", 4789, &[&[0x88, 0, 0, 9, 0, 0, 7, 0], &frame], &vxlan),
        udp("vxlan-gpe of ip", 4790, &[&[0x0c, 0, 0, 1, 0, 0, 7, 0], &v4], &vxlan),
        udp("vxlan-gpe of ethernet", 4790, &[&[0x0c, 0, 0, 3, 0, 0, 7, 0], &frame], &vxlan),
        udp(
            "geneve with options",
            6081,
            &[&[2, 0, 0x65, 0x58, 0, 0, 7, 0], &[1; 8], &frame],
            &Tunnels { geneve: 1, ..none() },
        ),
        udp("gtp", 2152, &[&[0x30, 0xff], &gtp_length(0), &[0; 4], &v4], &gtp),
        udp("gtp with a number", 2152, &[&[0x32, 0xff], &gtp_length(4), &[0; 8], &v4], &gtp),
        udp(
            "gtp with an extension",
            2152,
            &[&[0x34, 0xff], &gtp_length(8), &[0; 4], &[0, 0, 0, 0x85, 1, 1, 2, 0], &v4],
            &gtp,
        ),
        udp("teredo", 3544, &[&v6], &Tunnels { teredo: 1, ..none() }),
        udp("teredo between peers", 32_900, &[&of_teredo], &Tunnels { teredo: 1, ..none() }),
        udp(
            "teredo with everything",
            3544,
            &[&[0, 1, 2, 3], &[9; 14], &[0, 0], &[9; 6], &v6],
            &Tunnels { teredo: 1, ..none() },
        ),
        udp(
            "ayiya",
            5072,
            &[&[0x41, 0x52, 0x11, 41, 0, 0, 0, 0], &[9; 16 + 20], &v6],
            &Tunnels { ayiya: 1, ..none() },
        ),
        udp("l2tp", 1701, &[&[0, 2, 0, 1, 0, 1, 0xff, 3, 0, 0x21], &v4], &l2tp),
        udp("l2tp, all", 1701, &[&[0x4a, 2], &[0; 10], &[0, 3, 1, 1, 1, 0x21], &v4], &l2tp),
        udp("tzsp", 37008, &[&[1, 0, 0, 1, 0, 10, 1, 5, 1], &frame], &other),
        udp("mpls in udp", 6635, &[&mpls_label, &v4], &mpls),
        udp("gre in udp", 4754, &[&[0, 0, 8, 0], &v4], &gre),
        ip("ip in ip", 4, &[&v4], &Tunnels { ip_in_ip: 1, ..none() }),
        ip("6in4", 41, &[&v6], &Tunnels { ip_in_ip: 1, ..none() }),
        ip("gre", 47, &[&[0, 0, 8, 0], &v4], &gre),
        ip("gre with all fields", 47, &[&[0xb0, 0, 0x86, 0xdd], &[0; 12], &v6], &gre),
        ip("gre of pptp", 47, &[&[0x30, 0x81, 0x88, 0x0b], &[0; 12], &[0x21], &v4], &gre),
        ip("nvgre", 47, &[&[0x20, 0, 0x65, 0x58, 0, 0, 7, 1], &frame], &gre),
        ip("erspan 1", 47, &[&[0, 0, 0x88, 0xbe], &frame], &gre),
        ip("erspan 2", 47, &[&[0x10, 0, 0x88, 0xbe], &[0; 12], &frame], &gre),
        ip("erspan 3", 47, &[&[0x10, 0, 0x22, 0xeb], &[0; 16], &frame], &gre),
        ip("erspan 3+", 47, &[&[0x10, 0, 0x22, 0xeb], &[0; 15], &[1], &[0; 8], &frame], &gre),
        ip("wccp", 47, &[&[0, 0, 0x88, 0x3e], &[0; 4], &v4], &gre),
        ip("etherip", 97, &[&[0x30, 0], &frame], &other),
        ip("mpls in ip", 137, &[&mpls_label, &frame], &mpls),
        ip("ah", 51, &[&[6, 4], &[0; 22], &v4[20..]], &none()),
        (
            "pppoe",
            join(&[&[2; 12], &[0x88, 0x64, 0x11, 0, 0, 1], &ppp_length, &[0, 0x21], &v4, &[0; 3]]),
            Tunnels { pppoe: 1, ..none() },
        ),
        (
            "two labels and a control word",
            join(&[&[2; 12], &[0x88, 0x47, 0, 0x10, 0, 64], &mpls_label, &[0; 4], &frame]),
            mpls,
        ),
        ("mac in mac", join(&[&[2; 12], &[0x88, 0xe7, 0, 0, 0, 7], &frame]), other.clone()),
        ("nsh", join(&[&[2; 12], &[0x89, 0x4f, 0, 2, 2, 3, 0, 0, 0, 7], &frame]), other),
    ]
}

fn layer(bytes: &[u8]) -> Layer {
    if bytes[0] == 2 { ETHERNET } else { Layer::Ip }
}

#[test]
fn every_tunnel_leads_to_the_segment_in_it() {
    for (name, bytes, counts) in tunnels() {
        assert_eq!(payload(layer(&bytes), &bytes), (Ok(b"GET".to_vec()), counts), "{name}");
    }
}

#[test]
fn ordinary_datagrams_at_the_same_ports_are_none() {
    for port in [4789, 4790, 8472, 6081, 2152, 3544, 5072, 1701, 37008, 53] {
        for content in [&b""[..], b"GET / HTTP/1.1\r\n\r\n and more of that", &[0xff; 60]] {
            let (result, counts) = payload(Layer::Ip, &datagram(port, content));
            assert_eq!((result, counts), (Err(Skipped::NotTcp), Tunnels::default()), "{port}");
        }
    }
}

#[test]
fn tunnels_in_tunnels_have_an_end() {
    let mut inner = ipv4(b"GET");
    for _ in 0..10 {
        inner = packet(4, &inner);
    }
    assert_eq!(payload(Layer::Ip, &inner).0, Ok(b"GET".to_vec()));
    for _ in 0..40 {
        inner = packet(4, &inner);
    }
    let (result, counts) = payload(Layer::Ip, &inner);
    assert_eq!((result, counts.too_deep), (Err(Skipped::NotTcp), 1));
}

proptest! {
    #[test]
    fn no_damage_panics(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((0_usize..120, any::<u8>()), 0..6),
        keep in 0_usize..200,
    ) {
        let (_, mut bytes, _) = which.get(&tunnels()).clone();
        let layer = layer(&bytes);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        bytes.truncate(keep);
        let found = find(layer, EventTime(1), &bytes, 0, &mut Tunnels::default());
        if let Ok(Found::Segment(segment)) = found {
            prop_assert!(segment.payload.len() <= bytes.len());
        }
    }
}
