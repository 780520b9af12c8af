//! A pcap writer for captures that are the same on every machine.

mod wrap;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use etherparse::{EtherType, Ethernet2Header, PacketBuilder, SingleVlanHeader, VlanId};
use monitor_core::input::TcpFlags;
use monitor_core::time::EventTime;

/// One TCP segment on the wire.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it was captured.
    pub time: EventTime,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub target: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Payload.
    pub payload: Vec<u8>,
}

/// What stands before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet II.
    Ethernet,
    /// Ethernet with an 802.1Q tag.
    Vlan,
    /// Linux cooked, version 1 (`tcpdump -i any` of old).
    Sll,
    /// Linux cooked, version 2.
    Sll2,
    /// Nothing.
    Raw,
    /// BSD loopback: the address family in the byte order of the capturing machine.
    Null,
    /// OpenBSD loopback: the same in network byte order.
    Loop,
    /// Ethernet inside VXLAN (RFC 7348), as clouds mirror traffic.
    Vxlan,
    /// Ethernet, its IP packets in fragments (RFC 791, 3.2; RFC 8200, 4.5), the last one first.
    Fragments,
}

impl Link {
    /// Its LINKTYPE_ number (tcpdump.org/linktypes.html).
    pub(super) fn number(self) -> u32 {
        match self {
            Link::Null => 0,
            Link::Ethernet | Link::Vlan | Link::Vxlan | Link::Fragments => 1,
            Link::Raw => 101,
            Link::Loop => 108,
            Link::Sll => 113,
            Link::Sll2 => 276,
        }
    }

    fn header(self, v6: bool) -> Vec<u8> {
        let ether_type = if v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        let ethernet = |ether_type| Ethernet2Header {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type,
        };
        // AF_INET is 2 everywhere; AF_INET6 is 30 on macOS, where most such captures come from.
        let family: u32 = if v6 { 30 } else { 2 };
        match self {
            Link::Ethernet | Link::Vxlan | Link::Fragments => {
                ethernet(ether_type).to_bytes().to_vec()
            }
            Link::Vlan => {
                let tag = SingleVlanHeader {
                    vlan_id: VlanId::try_new(7).unwrap_or_default(),
                    ether_type,
                    ..SingleVlanHeader::default()
                };
                let outer = ethernet(EtherType::VLAN_TAGGED_FRAME).to_bytes();
                [outer.as_slice(), &tag.to_bytes()].concat()
            }
            // Packet to us, Ethernet, six address bytes of eight.
            Link::Sll => {
                let fields = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
                [fields.as_slice(), &ether_type.0.to_be_bytes()].concat()
            }
            // Interface 2, Ethernet, packet to us, six address bytes of eight.
            Link::Sll2 => {
                let fields = [0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
                [ether_type.0.to_be_bytes().as_slice(), &fields].concat()
            }
            Link::Raw => Vec::new(),
            Link::Null => family.to_le_bytes().to_vec(),
            Link::Loop => family.to_be_bytes().to_vec(),
        }
    }
}

/// How the file stores its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Little-endian, microseconds: what tcpdump writes on most machines.
    LittleMicros,
    /// Big-endian, nanoseconds.
    BigNanos,
}

impl Format {
    fn u16_bytes(self, value: u16) -> [u8; 2] {
        match self {
            Format::LittleMicros => value.to_le_bytes(),
            Format::BigNanos => value.to_be_bytes(),
        }
    }

    fn u32_bytes(self, value: u32) -> [u8; 4] {
        match self {
            Format::LittleMicros => value.to_le_bytes(),
            Format::BigNanos => value.to_be_bytes(),
        }
    }

    fn magic(self) -> u32 {
        match self {
            Format::LittleMicros => 0xa1b2_c3d4,
            Format::BigNanos => 0xa1b2_3c4d,
        }
    }

    /// Nanoseconds in one unit of its time stamps.
    fn fraction_ns(self) -> u64 {
        match self {
            Format::LittleMicros => 1000,
            Format::BigNanos => 1,
        }
    }
}

/// A whole capture file. `snap_bytes` cuts each packet as `tcpdump -s` does.
pub fn pcap(packets: &[Packet], link: Link, format: Format, snap_bytes: usize) -> Result<Vec<u8>> {
    let mut file = file_header(link, format, snap_bytes)?;
    append(&mut file, packets, link, format, snap_bytes)?;
    Ok(file)
}

/// What a capture file begins with.
pub fn file_header(link: Link, format: Format, snap_bytes: usize) -> Result<Vec<u8>> {
    let mut file = format.u32_bytes(format.magic()).to_vec();
    file.extend(format.u16_bytes(2));
    file.extend(format.u16_bytes(4));
    for value in [0, 0, u32::try_from(snap_bytes)?, link.number()] {
        file.extend(format.u32_bytes(value));
    }
    Ok(file)
}

/// The records of more packets.
pub fn append(
    file: &mut Vec<u8>,
    packets: &[Packet],
    link: Link,
    format: Format,
    snap_bytes: usize,
) -> Result<()> {
    for packet in packets {
        for bytes in frames(packet, link)? {
            let kept = &bytes[..bytes.len().min(snap_bytes)];
            let fraction = packet.time.0 % 1_000_000_000 / format.fraction_ns();
            file.extend(format.u32_bytes(u32::try_from(packet.time.secs())?));
            file.extend(format.u32_bytes(u32::try_from(fraction)?));
            file.extend(format.u32_bytes(u32::try_from(kept.len())?));
            file.extend(format.u32_bytes(u32::try_from(bytes.len())?));
            file.extend(kept);
        }
    }
    Ok(())
}

/// A packet as it was on the wire: mostly in one piece.
fn frames(packet: &Packet, link: Link) -> Result<Vec<Vec<u8>>> {
    let frame = frame(packet, link)?;
    match link {
        Link::Vxlan => Ok(vec![wrap::vxlan(&frame)?]),
        Link::Fragments => wrap::fragments(&frame, packet.seq),
        Link::Ethernet
        | Link::Vlan
        | Link::Sll
        | Link::Sll2
        | Link::Raw
        | Link::Null
        | Link::Loop => Ok(vec![frame]),
    }
}

/// A packet with its headers.
pub(super) fn frame(packet: &Packet, link: Link) -> Result<Vec<u8>> {
    let mut bytes = link.header(packet.source.is_ipv6());
    let builder = match (packet.source, packet.target) {
        (SocketAddr::V4(source), SocketAddr::V4(target)) => {
            PacketBuilder::ipv4(source.ip().octets(), target.ip().octets(), 64)
        }
        (SocketAddr::V6(source), SocketAddr::V6(target)) => {
            PacketBuilder::ipv6(source.ip().octets(), target.ip().octets(), 64)
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            bail!("a packet between address families")
        }
    };
    let mut tcp = builder.tcp(packet.source.port(), packet.target.port(), packet.seq, 64240);
    if packet.flags.contains(TcpFlags::SYN) {
        tcp = tcp.syn();
    }
    if packet.flags.contains(TcpFlags::ACK) {
        tcp = tcp.ack(packet.ack);
    }
    if packet.flags.contains(TcpFlags::FIN) {
        tcp = tcp.fin();
    }
    if packet.flags.contains(TcpFlags::RST) {
        tcp = tcp.rst();
    }
    tcp.write(&mut bytes, &packet.payload).context("building a packet")?;
    Ok(bytes)
}
