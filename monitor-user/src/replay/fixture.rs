//! Hand-built packets and captures for tests.

use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader, ip_number};

/// Addresses and ports of every packet here.
pub(super) const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 50_000);
pub(super) const SERVER: ([u8; 4], u16) = ([198, 51, 100, 2], 8080);
pub(super) const SEQ: u32 = 0xffff_fff0;
pub(super) const ACK: u32 = 77;

/// An IPv4 packet with a TCP segment.
pub(super) fn ipv4(payload: &[u8]) -> Vec<u8> {
    written(PacketBuilder::ipv4(CLIENT.0, SERVER.0, 64), payload)
}

/// The same in IPv6, with the addresses mapped.
pub(super) fn ipv6(payload: &[u8]) -> Vec<u8> {
    let mapped = |[a, b, c, d]: [u8; 4]| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
    written(PacketBuilder::ipv6(mapped(CLIENT.0), mapped(SERVER.0), 64), payload)
}

/// The same with something between IP and TCP: hop-by-hop options, or a fragment header.
pub(super) fn ipv6_with(extension: IpNumber, fields: [u8; 7], payload: &[u8]) -> Vec<u8> {
    let plain = ipv6(payload);
    let (header, body) = plain.split_at(40);
    let mut packet = header.to_vec();
    packet[6] = extension.0;
    packet.push(ip_number::TCP.0);
    packet.extend(fields);
    packet.extend(body);
    let length = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// An Ethernet frame; `tags` are the ethertypes of VLAN tags before the packet.
pub(super) fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype(packet).to_be_bytes());
    frame.extend(packet);
    frame
}

/// What stands before the packet in link types that only need its ethertype.
pub(super) fn cooked1(packet: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &ethertype(packet).to_be_bytes(), packet]
        .concat()
}

/// See [`cooked1`].
pub(super) fn cooked2(packet: &[u8]) -> Vec<u8> {
    let rest = [0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0];
    [&ethertype(packet).to_be_bytes()[..], &rest, packet].concat()
}

/// `family` in the byte order of the file or of the network.
pub(super) fn loopback(family: [u8; 4], packet: &[u8]) -> Vec<u8> {
    [&family, packet].concat()
}

/// How a capture is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) big_endian: bool,
    pub(super) magic: u32,
    pub(super) link: u32,
}

/// Microseconds, as most tools write it.
pub(super) const MICROS: u32 = 0xa1b2_c3d4;
/// Nanoseconds.
pub(super) const NANOS: u32 = 0xa1b2_3c4d;
/// Navtel's.
pub(super) const NAVTEL: u32 = 0xa12b_3c4d;
/// With eight more bytes before each packet.
pub(super) const MODIFIED: u32 = 0xa1b2_cd34;

/// Ethernet in little-endian, microseconds.
pub(super) const USUAL: Written = Written { big_endian: false, magic: MICROS, link: 1 };

/// A capture of packets given by second, fraction, original length and captured bytes.
pub(super) fn capture(form: Written, packets: &[(u32, u32, usize, &[u8])]) -> Vec<u8> {
    let word = |value: u32| {
        if form.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    };
    let version = if form.big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut file =
        [word(form.magic), version, word(0), word(0), word(262_144), word(form.link)].concat();
    for (secs, fraction, original, bytes) in packets {
        let captured = u32::try_from(bytes.len()).unwrap();
        let original = u32::try_from(*original).unwrap();
        file.extend([word(*secs), word(*fraction), word(captured), word(original)].concat());
        if form.magic == MODIFIED {
            file.extend([0; 8]);
        }
        file.extend(*bytes);
    }
    file
}

/// A pcapng file, block by block.
#[derive(Default)]
pub(super) struct Pcapng {
    pub(super) big_endian: bool,
    pub(super) file: Vec<u8>,
}

impl Pcapng {
    /// Section header and one Ethernet interface that counts microseconds.
    pub(super) fn usual(big_endian: bool) -> Pcapng {
        let mut file = Pcapng { big_endian, file: Vec::new() };
        file.section(&[]).interface(1, 0, &[]);
        file
    }

    pub(super) fn u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// An option, padded.
    pub(super) fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = self.u16(u16::try_from(value.len()).unwrap());
        padded([&self.u16(code), &length, value].concat())
    }

    pub(super) fn block(&mut self, kind: u32, body: &[u8]) -> &mut Pcapng {
        let body = padded(body.to_vec());
        let length = self.u32(u32::try_from(body.len() + 12).unwrap());
        let kind = self.u32(kind);
        self.file.extend([&kind, &length, &body[..], &length].concat());
        self
    }

    pub(super) fn section(&mut self, options: &[u8]) -> &mut Pcapng {
        let version = [self.u16(1), self.u16(0)].concat();
        let body = [&self.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8], options].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    pub(super) fn interface(&mut self, link: u16, snap: u32, options: &[u8]) -> &mut Pcapng {
        let body = [&self.u16(link)[..], &[0, 0], &self.u32(snap), options].concat();
        self.block(1, &body)
    }

    /// An enhanced packet.
    pub(super) fn packet(
        &mut self,
        interface: u32,
        time: u64,
        original: usize,
        bytes: &[u8],
        options: &[u8],
    ) -> &mut Pcapng {
        let words = [
            interface,
            (time >> 32) as u32,
            time as u32,
            u32::try_from(bytes.len()).unwrap(),
            u32::try_from(original).unwrap(),
        ];
        let words = words.map(|word| self.u32(word)).concat();
        self.block(6, &[words, padded(bytes.to_vec()), options.to_vec()].concat())
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn written(step: PacketBuilderStep<etherparse::IpHeaders>, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(CLIENT.1, SERVER.1, SEQ, 1024);
    header.ack = true;
    header.psh = true;
    header.acknowledgment_number = ACK;
    // Twelve bytes of options, as with time stamps.
    header.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    let step = step.tcp_header(header);
    let mut packet = Vec::new();
    step.write(&mut packet, payload).unwrap();
    packet
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}
