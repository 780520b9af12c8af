//! Link layers: what stands before the network layer, and which network layer it is.

use super::packet::{Layer, Skipped, after, be16};

/// What a packet of a capture begins with (<https://www.tcpdump.org/linktypes.html>).
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
    /// LINKTYPE_PPP, LINKTYPE_PPP_HDLC, and LINKTYPE_PPP_PPPD with the direction for an address.
    Ppp,
    /// LINKTYPE_PPP_WITH_DIR: a byte of direction.
    PppDirection,
    /// LINKTYPE_PPP_ETHER: a session of PPPoE.
    PppoE,
    /// LINKTYPE_C_HDLC: Cisco's.
    CiscoHdlc,
    /// LINKTYPE_FRELAY.
    FrameRelay,
    /// LINKTYPE_ATM_RFC1483: LLC at once.
    Llc,
    /// LINKTYPE_SLIP: a header of sixteen bytes.
    Slip,
    /// LINKTYPE_IEEE802_11.
    Wifi,
    /// LINKTYPE_IEEE802_11_RADIOTAP.
    Radiotap,
    /// LINKTYPE_IEEE802_11_PRISM: a header of 144 bytes, or AVS.
    Prism,
    /// LINKTYPE_IEEE802_11_AVS: a header that says its length.
    Avs,
    /// LINKTYPE_PPI: fields, and a link type of its own.
    Ppi,
    /// LINKTYPE_ENC: what OpenBSD's IPsec saw.
    Enc,
    /// LINKTYPE_PFLOG: what BSD's packet filter logged.
    Pflog,
    /// LINKTYPE_NFLOG: what Linux's packet filter logged.
    Nflog,
    /// LINKTYPE_PKTAP: Darwin's, with a link type of its own.
    Pktap,
    /// LINKTYPE_NETANALYZER: Hilscher's, before Ethernet.
    NetAnalyzer,
}

impl Link {
    /// From the number in the file header; `None` for one that is not read.
    pub fn from_number(number: i32) -> Option<Link> {
        // The upper six bits tell the length of the frame check sequence.
        match number & 0x03ff_ffff {
            0 | 108 => Some(Link::Loopback),
            1 => Some(Link::Ethernet),
            8 => Some(Link::Slip),
            9 | 50 => Some(Link::Ppp),
            11 | 100 => Some(Link::Llc),
            12 | 14 | 101 | 228 | 229 => Some(Link::Raw),
            51 => Some(Link::PppoE),
            104 => Some(Link::CiscoHdlc),
            105 => Some(Link::Wifi),
            107 => Some(Link::FrameRelay),
            109 => Some(Link::Enc),
            113 => Some(Link::Cooked1),
            117 => Some(Link::Pflog),
            119 => Some(Link::Prism),
            127 => Some(Link::Radiotap),
            163 => Some(Link::Avs),
            166 => Some(Link::Ppp),
            192 => Some(Link::Ppi),
            204 => Some(Link::PppDirection),
            239 => Some(Link::Nflog),
            240 => Some(Link::NetAnalyzer),
            258 => Some(Link::Pktap),
            276 => Some(Link::Cooked2),
            _ => None,
        }
    }
}

/// AF_INET everywhere; AF_INET6 on Linux, NetBSD, FreeBSD and Darwin.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

/// Takes the header of a link off.
#[inline]
pub(super) fn network(link: Link, packet: &[u8]) -> Result<(Layer, &[u8]), Skipped> {
    let then = |layer, header_bytes| after(packet, header_bytes).map(|rest| (layer, rest));
    match link {
        Link::Ethernet => {
            let ethertype = be16(packet, 12)?;
            // Cisco's ISL puts a frame of its own around the whole frame, which begins so.
            if packet.starts_with(&[1, 0, 0x0c, 0, 0]) {
                return then(Layer::Link(Link::Ethernet), 26);
            }
            then(Layer::Ethertype(ethertype), 14)
        }
        Link::Cooked1 => then(Layer::Ethertype(be16(packet, 14)?), 16),
        Link::Cooked2 => then(Layer::Ethertype(be16(packet, 0)?), 20),
        Link::Raw => Ok((Layer::Ip, packet)),
        Link::Loopback => {
            let family = packet.first_chunk::<4>().ok_or(Skipped::Malformed)?;
            // NULL has the byte order of the capturing machine, LOOP that of the network.
            let known = FAMILIES.contains(&u32::from_le_bytes(*family))
                || FAMILIES.contains(&u32::from_be_bytes(*family));
            if known { then(Layer::Ip, 4) } else { Err(Skipped::NotTcp) }
        }
        Link::Ppp => Ok((Layer::Ppp, packet)),
        Link::PppDirection => then(Layer::Ppp, 1),
        Link::PppoE => Ok((Layer::Ethertype(ETHERTYPE_PPPOE), packet)),
        Link::CiscoHdlc => then(Layer::Ethertype(be16(packet, 2)?), 4),
        Link::FrameRelay => frame_relay(packet),
        Link::Llc => Ok((Layer::Llc, packet)),
        Link::Slip => then(Layer::Ip, 16),
        Link::Wifi => wifi(packet, false),
        Link::Radiotap => {
            let header_bytes = usize::from(le16(packet, 2)?);
            wifi(after(packet, header_bytes)?, radiotap_pads(packet))
        }
        Link::Prism => {
            // AVS headers are found under this number too; they begin with a magic of their own.
            if packet.starts_with(&[0x80, 0x21, 0x10]) {
                return Ok((Layer::Link(Link::Avs), packet));
            }
            then(Layer::Link(Link::Wifi), 144)
        }
        Link::Avs => then(Layer::Link(Link::Wifi), usize::from(be16(packet, 6)?)),
        Link::Ppi => {
            let link = inner(le32(packet, 4)?)?;
            then(Layer::Link(link), usize::from(le16(packet, 2)?))
        }
        Link::Enc => then(Layer::Ip, 12),
        // The length in the first byte is without the padding to four bytes.
        Link::Pflog => {
            let length = *packet.first().ok_or(Skipped::Malformed)?;
            then(Layer::Ip, usize::from(length).next_multiple_of(4))
        }
        Link::Nflog => nflog(packet),
        Link::Pktap => {
            let (length, link) = (le32(packet, 0)?, inner(le32(packet, 8)?)?);
            then(Layer::Link(link), usize::try_from(length).map_err(|_| Skipped::Malformed)?)
        }
        Link::NetAnalyzer => then(Layer::Link(Link::Ethernet), 4),
    }
}

pub(super) const ETHERTYPE_PPPOE: u16 = 0x8864;

/// The link type that a header within the packet names.
fn inner(number: u32) -> Result<Link, Skipped> {
    let number = number.cast_signed();
    Link::from_number(number).ok_or(Skipped::Unread(number))
}

/// IEEE 802.2: SNAP with an ethertype, or IP of its own number.
pub(super) fn llc(bytes: &[u8]) -> Result<(Layer, &[u8]), Skipped> {
    match bytes {
        // RFC 1042, and the bridge tunnel of IEEE 802.1H; Cisco's own protocols have another prefix.
        [0xaa, 0xaa, 3, 0, 0, 0 | 0xf8, high, low, rest @ ..] => {
            Ok((Layer::Ethertype(u16::from_be_bytes([*high, *low])), rest))
        }
        // RFC 2684: Ethernet over ATM, with and without its checksum.
        [0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 1 | 7, _, _, rest @ ..] => {
            Ok((Layer::Link(Link::Ethernet), rest))
        }
        [6, 6, 3, rest @ ..] => Ok((Layer::Ip, rest)),
        // RFC 2684 of routed packets: NLPID.
        [0xfe, 0xfe, 3, 0xcc, rest @ ..] => Ok((Layer::Ip, rest)),
        [_, _, _, ..] => Err(Skipped::NotTcp),
        [] | [_] | [_, _] => Err(Skipped::Malformed),
    }
}

/// RFC 1661 and 1662, and Cisco HDLC, which is captured under the same numbers.
pub(super) fn ppp(bytes: &[u8]) -> Result<(Layer, &[u8]), Skipped> {
    let bytes = match bytes {
        [0x0f | 0x8f, 0, high, low, rest @ ..] => {
            return Ok((Layer::Ethertype(u16::from_be_bytes([*high, *low])), rest));
        }
        // Address and control; some captures have the direction instead of the address.
        [0xff | 0 | 1, 3, rest @ ..] => rest,
        other => other,
    };
    // Protocol numbers below 256 may be compressed to one byte: an odd one, as no first of two is.
    let (protocol, rest) = match bytes {
        [low, rest @ ..] if low & 1 == 1 => (u16::from(*low), rest),
        [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        [] | [_] => return Err(Skipped::Malformed),
    };
    match protocol {
        0x0021 | 0x0057 => Ok((Layer::Ip, rest)),
        0x0281 | 0x0283 => Ok((Layer::Mpls, rest)),
        // Bridged Ethernet (RFC 3518): flags and the kind of MAC.
        0x0031 => match rest {
            [_, 1, frame @ ..] => Ok((Layer::Link(Link::Ethernet), frame)),
            _ => Err(Skipped::NotTcp),
        },
        _ => Err(Skipped::NotTcp),
    }
}

/// RFC 2427, or Cisco's own form, which has an ethertype at once.
fn frame_relay(packet: &[u8]) -> Result<(Layer, &[u8]), Skipped> {
    match packet {
        [_, _, 3, 0xcc | 0x8e, rest @ ..] => Ok((Layer::Ip, rest)),
        [_, _, 3, 0x80, 0, 0, 0, high, low, rest @ ..]
        | [_, _, 3, 0, 0x80, 0, 0, 0, high, low, rest @ ..]
        | [_, _, high @ (8 | 0x86), low, rest @ ..] => {
            Ok((Layer::Ethertype(u16::from_be_bytes([*high, *low])), rest))
        }
        [_, _, _, _, ..] => Err(Skipped::NotTcp),
        _ => Err(Skipped::Malformed),
    }
}

/// A data frame of IEEE 802.11 that is not encrypted; `padded`: its header is padded to 32 bits.
fn wifi(frame: &[u8], padded: bool) -> Result<(Layer, &[u8]), Skipped> {
    const DATA: u8 = 2;
    const PROTECTED: u8 = 0x40;
    const ORDER: u8 = 0x80;
    const FROM_AND_TO_DS: u8 = 3;
    let [control, flags, ..] = *frame else { return Err(Skipped::Malformed) };
    let (kind, subtype) = (control >> 2 & 3, control >> 4);
    // Subtypes with the bit 4 have no data.
    if kind != DATA || subtype & 4 != 0 || flags & PROTECTED != 0 {
        return Err(Skipped::NotTcp);
    }
    let mut header_bytes = 24;
    if flags & FROM_AND_TO_DS == FROM_AND_TO_DS {
        header_bytes += 6;
    }
    if subtype & 8 != 0 {
        let quality = *frame.get(header_bytes).ok_or(Skipped::Malformed)?;
        // Several frames in one (A-MSDU): not taken apart.
        if quality & 0x80 != 0 {
            return Err(Skipped::NotTcp);
        }
        header_bytes += if flags & ORDER != 0 { 6 } else { 2 };
    }
    if padded {
        header_bytes = header_bytes.next_multiple_of(4);
    }
    Ok((Layer::Llc, after(frame, header_bytes)?))
}

/// Whether a radiotap header says that the frame's header is padded.
fn radiotap_pads(packet: &[u8]) -> bool {
    const MORE: u32 = 1 << 31;
    const TIME: u32 = 1;
    const FLAGS: u32 = 2;
    const PADDED: u8 = 0x20;
    let present = le32(packet, 4).unwrap_or(0);
    let mut at = 8;
    let mut word = present;
    while word & MORE != 0 {
        word = le32(packet, at).unwrap_or(0);
        at += 4;
    }
    if present & TIME != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    present & FLAGS != 0 && packet.get(at).is_some_and(|flags| flags & PADDED != 0)
}

/// Attributes in the byte order of the capturing machine; one of them is the packet.
fn nflog(packet: &[u8]) -> Result<(Layer, &[u8]), Skipped> {
    const PAYLOAD: u16 = 9;
    let mut attributes = after(packet, 4)?;
    // The length of the first attribute is small: that tells the order.
    let first = attributes.first_chunk::<2>().ok_or(Skipped::Malformed)?;
    let big_endian = u16::from_be_bytes(*first) < u16::from_le_bytes(*first);
    loop {
        let [a, b, c, d, ..] = *attributes else { return Err(Skipped::NotTcp) };
        let number = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        let (length, kind) = (usize::from(number([a, b])), number([c, d]));
        if length < 4 {
            return Err(Skipped::Malformed);
        }
        if kind & 0x7fff == PAYLOAD {
            // The snap length may have cut it; the IP header knows.
            return Ok((Layer::Ip, &attributes[4..length.min(attributes.len())]));
        }
        attributes = attributes.get(length.next_multiple_of(4)..).ok_or(Skipped::Malformed)?;
    }
}

fn le16(bytes: &[u8], at: usize) -> Result<u16, Skipped> {
    be16(bytes, at).map(u16::swap_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Result<u32, Skipped> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).ok_or(Skipped::Malformed)?;
    Ok(u32::from_le_bytes(*bytes))
}
