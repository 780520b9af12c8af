//! Tunnels and tags: what carries another packet. UDP is taken for a tunnel only where its port says
//! so and the bytes can be one.

use super::link::{ETHERTYPE_PPPOE, Link};
use super::packet::{Layer, Skipped, after, be16};
use super::tally::Tunnels;

/// What follows a header.
type Next<'a> = (Layer, &'a [u8]);

const ETHERNET: Layer = Layer::Link(Link::Ethernet);

/// What an ethertype stands for (IEEE 802 numbers).
pub(super) fn ethertype<'a>(
    ethertype: u16,
    bytes: &'a [u8],
    tunnels: &mut Tunnels,
) -> Result<Next<'a>, Skipped> {
    // A tag of so many bytes, the ethertype of the rest among them.
    let tag = |tag_bytes: usize| {
        Ok((Layer::Ethertype(be16(bytes, tag_bytes - 2)?), after(bytes, tag_bytes)?))
    };
    match ethertype {
        0x0800 | 0x86dd => Ok((Layer::Ip, bytes)),
        // 802.1Q, 802.1ad, and the numbers that QinQ had before it was a standard.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => tag(4),
        // HSR, 802.1BR, Cisco's VN-Tag and TrustSec.
        0x892f => tag(6),
        0x893f => tag(8),
        0x8926 => tag(6),
        0x8909 => tag(8),
        // A length: the frame has no ethertype. The other is the number of longer ones.
        0..=1500 | 0x8870 => Ok((Layer::Llc, bytes)),
        0x8847 | 0x8848 => Ok((Layer::Mpls, bytes)),
        ETHERTYPE_PPPOE => pppoe(bytes, tunnels),
        // PPP in GRE.
        0x880b => Ok((Layer::Ppp, bytes)),
        0x6558 => Ok((ETHERNET, bytes)),
        // 802.1ah: four bytes of service tag before the customer's frame.
        0x88e7 => {
            tunnels.other += 1;
            Ok((ETHERNET, after(bytes, 4)?))
        }
        0x894f => nsh(bytes, tunnels),
        _ => Err(Skipped::NotTcp),
    }
}

/// RFC 2516.
fn pppoe<'a>(bytes: &'a [u8], tunnels: &mut Tunnels) -> Result<Next<'a>, Skipped> {
    const VERSION_AND_TYPE: u8 = 0x11;
    const SESSION_DATA: u8 = 0;
    if !bytes.starts_with(&[VERSION_AND_TYPE, SESSION_DATA]) {
        return Err(Skipped::NotTcp);
    }
    let length = usize::from(be16(bytes, 4)?);
    let content = after(bytes, 6)?;
    tunnels.pppoe += 1;
    Ok((Layer::Ppp, content.get(..length).unwrap_or(content)))
}

/// RFC 3032. What is below the last label is not said: IP, or a pseudo-wire of Ethernet with or
/// without a control word (RFC 4448).
pub(super) fn mpls<'a>(mut bytes: &'a [u8], tunnels: &mut Tunnels) -> Result<Next<'a>, Skipped> {
    loop {
        let (label, rest) = bytes.split_first_chunk::<4>().ok_or(Skipped::Malformed)?;
        bytes = rest;
        if label[2] & 1 == 1 {
            break;
        }
    }
    tunnels.mpls += 1;
    if is_ethernet(bytes) {
        return Ok((ETHERNET, bytes));
    }
    match bytes.first().map(|byte| byte >> 4) {
        Some(4 | 6) => Ok((Layer::Ip, bytes)),
        Some(0) if is_ethernet(&bytes[bytes.len().min(4)..]) => Ok((ETHERNET, &bytes[4..])),
        Some(_) => Err(Skipped::NotTcp),
        None => Err(Skipped::Malformed),
    }
}

/// Whether an ethertype stands where a frame would have it, and IP follows if it says so.
fn is_ethernet(bytes: &[u8]) -> bool {
    match (be16(bytes, 12), bytes.get(14).map(|byte| byte >> 4)) {
        (Ok(0x0800), Some(version)) => version == 4,
        (Ok(0x86dd), Some(version)) => version == 6,
        (Ok(0x8100 | 0x88a8), Some(_)) => true,
        _ => false,
    }
}

/// RFC 8300.
fn nsh<'a>(bytes: &'a [u8], tunnels: &mut Tunnels) -> Result<Next<'a>, Skipped> {
    let [_, words, _, next, ..] = *bytes else { return Err(Skipped::Malformed) };
    let content = after(bytes, usize::from(words & 0x3f).max(2) * 4)?;
    tunnels.other += 1;
    match next {
        1 | 2 => Ok((Layer::Ip, content)),
        3 => Ok((ETHERNET, content)),
        5 => Ok((Layer::Mpls, content)),
        _ => Err(Skipped::NotTcp),
    }
}

/// What an IP protocol number stands for, TCP and extension headers aside.
pub(super) fn transport<'a>(
    protocol: u8,
    bytes: &'a [u8],
    tunnels: &mut Tunnels,
) -> Result<Next<'a>, Skipped> {
    const IPV4: u8 = 4;
    const UDP: u8 = 17;
    const IPV6: u8 = 41;
    const GRE: u8 = 47;
    const IP_WITHIN_IP: u8 = 94;
    const ETHERIP: u8 = 97;
    const MPLS: u8 = 137;
    match protocol {
        UDP => udp(bytes, tunnels),
        IPV4 | IPV6 | IP_WITHIN_IP => {
            tunnels.ip_in_ip += 1;
            Ok((Layer::Ip, bytes))
        }
        GRE => gre(bytes, tunnels),
        // RFC 3378: the version in the first four bits.
        ETHERIP if bytes.first().is_some_and(|byte| byte >> 4 == 3) => {
            tunnels.other += 1;
            Ok((ETHERNET, after(bytes, 2)?))
        }
        MPLS => Ok((Layer::Mpls, bytes)),
        _ => Err(Skipped::NotTcp),
    }
}

/// RFC 2784 and 2890; version 1 is that of PPTP (RFC 2637).
fn gre<'a>(bytes: &'a [u8], tunnels: &mut Tunnels) -> Result<Next<'a>, Skipped> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    /// In version 1 only.
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    let (flags, protocol) = (be16(bytes, 0)?, be16(bytes, 2)?);
    let version = flags & 7;
    if version > 1 || flags & ROUTING != 0 {
        return Err(Skipped::NotTcp);
    }
    let optional = [
        flags & CHECKSUM != 0,
        flags & KEY != 0,
        flags & SEQUENCE != 0,
        version == 1 && flags & ACKNOWLEDGEMENT != 0,
    ];
    let header_bytes = 4 + 4 * optional.into_iter().filter(|is_there| *is_there).count();
    let content = after(bytes, header_bytes)?;
    tunnels.gre += 1;
    const ERSPAN_1_AND_2: u16 = 0x88be;
    const ERSPAN_3: u16 = 0x22eb;
    const WCCP: u16 = 0x883e;
    match protocol {
        // The first version has neither sequence numbers nor a header.
        ERSPAN_1_AND_2 if flags & SEQUENCE == 0 => Ok((ETHERNET, content)),
        ERSPAN_1_AND_2 => Ok((ETHERNET, after(content, 8)?)),
        ERSPAN_3 => {
            let has_subheader = content.get(11).is_some_and(|flags| flags & 1 == 1);
            Ok((ETHERNET, after(content, if has_subheader { 20 } else { 12 })?))
        }
        // The second version has four bytes before the packet, which are no IP header.
        WCCP => {
            let redirect = content.first().is_some_and(|byte| byte >> 4 != 4);
            Ok((Layer::Ip, after(content, if redirect { 4 } else { 0 })?))
        }
        ethertype => Ok((Layer::Ethertype(ethertype), content)),
    }
}

fn udp<'a>(bytes: &'a [u8], tunnels: &mut Tunnels) -> Result<Next<'a>, Skipped> {
    let (source, target, length) = (be16(bytes, 0)?, be16(bytes, 2)?, be16(bytes, 4)?);
    let content = after(bytes, 8)?;
    // What follows the datagram is no part of it; a length of 0 is a jumbogram's.
    let content = match usize::from(length).checked_sub(8) {
        Some(length) => content.get(..length).unwrap_or(content),
        None => content,
    };
    let carried = in_udp(target, content, tunnels).or_else(|| in_udp(source, content, tunnels));
    carried.or_else(|| between_teredo_peers(content, tunnels)).ok_or(Skipped::NotTcp)
}

/// A tunnel over UDP (IANA's port numbers), if the bytes can be one.
fn in_udp<'a>(port: u16, bytes: &'a [u8], tunnels: &mut Tunnels) -> Option<Next<'a>> {
    let (next, counter) = match port {
        // The second is what Linux took before there was a number.
        4789 | 8472 => (vxlan(bytes)?, &mut tunnels.vxlan),
        4790 => (vxlan_gpe(bytes)?, &mut tunnels.vxlan),
        6081 => (geneve(bytes)?, &mut tunnels.geneve),
        2152 => (gtp(bytes)?, &mut tunnels.gtp),
        3544 => (teredo(bytes)?, &mut tunnels.teredo),
        5072 => (ayiya(bytes)?, &mut tunnels.ayiya),
        1701 => (l2tp(bytes)?, &mut tunnels.l2tp),
        37008 => (tzsp(bytes)?, &mut tunnels.other),
        4754 => return gre(bytes, tunnels).ok(),
        6635 => return mpls(bytes, tunnels).ok(),
        _ => return None,
    };
    *counter += 1;
    Some(next)
}

/// RFC 7348, with the group policy bit that may stand beside its one flag.
fn vxlan(bytes: &[u8]) -> Option<Next<'_>> {
    const GROUP_POLICY: u8 = 0x80;
    const HAS_NETWORK: u8 = 0x08;
    match bytes {
        [flags, _, _, _, _, _, _, 0, frame @ ..] if flags & !GROUP_POLICY == HAS_NETWORK => {
            Some((ETHERNET, frame))
        }
        _ => None,
    }
}

/// draft-ietf-nvo3-vxlan-gpe: the header says what follows.
fn vxlan_gpe(bytes: &[u8]) -> Option<Next<'_>> {
    const SAYS_PROTOCOL: u8 = 0x04;
    let [flags, _, _, protocol, _, _, _, _, content @ ..] = bytes else { return None };
    if flags & 0x08 == 0 {
        return None;
    }
    match protocol {
        _ if flags & SAYS_PROTOCOL == 0 => Some((ETHERNET, content)),
        1 | 2 => Some((Layer::Ip, content)),
        3 => Some((ETHERNET, content)),
        4 => Some((Layer::Ethertype(0x894f), content)),
        5 => Some((Layer::Mpls, content)),
        _ => None,
    }
}

/// RFC 8926.
fn geneve(bytes: &[u8]) -> Option<Next<'_>> {
    let [first, _, high, low, _, _, _, 0, rest @ ..] = bytes else { return None };
    let options_bytes = usize::from(first & 0x3f) * 4;
    if first >> 6 != 0 {
        return None;
    }
    Some((Layer::Ethertype(u16::from_be_bytes([*high, *low])), rest.get(options_bytes..)?))
}

/// GTP-U of version 1 (3GPP TS 29.281): user packets only.
fn gtp(bytes: &[u8]) -> Option<Next<'_>> {
    const VERSION_1: u8 = 0x30;
    const USER_PACKET: u8 = 0xff;
    let [flags, USER_PACKET, high, low, _, _, _, _, content @ ..] = bytes else { return None };
    // Captured bytes may be fewer, never more.
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if flags & 0xf0 != VERSION_1 || content.len() > length {
        return None;
    }
    let mut content = content;
    if flags & 0x07 != 0 {
        let [_, _, _, first, rest @ ..] = content else { return None };
        let mut next = *first;
        content = rest;
        // Extension headers: their length in words, and at their end what follows.
        while next != 0 && flags & 0x04 != 0 {
            let length = usize::from(*content.first()?).max(1) * 4;
            next = *content.get(length - 1)?;
            content = content.get(length..)?;
        }
    }
    is_ip(content).then_some((Layer::Ip, content))
}

/// RFC 4380: IPv6, perhaps after an authentication and an origin.
fn teredo(mut bytes: &[u8]) -> Option<Next<'_>> {
    if let [0, 1, id_bytes, value_bytes, rest @ ..] = bytes {
        // A nonce of eight bytes and a confirmation byte follow.
        bytes = rest.get(usize::from(*id_bytes) + usize::from(*value_bytes) + 9..)?;
    }
    if bytes.starts_with(&[0, 0]) {
        bytes = bytes.get(8..)?;
    }
    (is_ip(bytes) && bytes[0] >> 4 == 6).then_some((Layer::Ip, bytes))
}

/// Past their server, Teredo clients and relays talk over ports of their own (RFC 4380, 5.2): IPv6 of
/// the datagram's length, with one of their addresses.
fn between_teredo_peers<'a>(bytes: &'a [u8], tunnels: &mut Tunnels) -> Option<Next<'a>> {
    const HEADER_BYTES: usize = 40;
    const PREFIX: [u8; 4] = [0x20, 0x01, 0, 0];
    let header = bytes.first_chunk::<HEADER_BYTES>().filter(|header| header[0] >> 4 == 6)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let theirs = header[8..].starts_with(&PREFIX) || header[24..].starts_with(&PREFIX);
    // Captured bytes may be fewer, never more.
    if !theirs || length == 0 || bytes.len() > HEADER_BYTES + length {
        return None;
    }
    tunnels.teredo += 1;
    Some((Layer::Ip, bytes))
}

/// draft-massar-v6ops-ayiya: forwarded packets only.
fn ayiya(bytes: &[u8]) -> Option<Next<'_>> {
    const FORWARD: u8 = 1;
    let [identity, signature, operation, 4 | 41, ..] = bytes else { return None };
    if operation & 0x0f != FORWARD {
        return None;
    }
    let header_bytes = 8 + (1_usize << (identity >> 4)) + usize::from(signature >> 4) * 4;
    let content = bytes.get(header_bytes..)?;
    is_ip(content).then_some((Layer::Ip, content))
}

/// L2TP of version 2 (RFC 2661): data only.
fn l2tp(bytes: &[u8]) -> Option<Next<'_>> {
    const CONTROL: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    const OFFSET: u16 = 0x0200;
    let flags = be16(bytes, 0).ok()?;
    if flags & CONTROL != 0 || flags & 0x0f != 2 {
        return None;
    }
    let mut header_bytes = 6;
    header_bytes += if flags & LENGTH != 0 { 2 } else { 0 };
    header_bytes += if flags & SEQUENCE != 0 { 4 } else { 0 };
    if flags & OFFSET != 0 {
        header_bytes += 2 + usize::from(be16(bytes, header_bytes).ok()?);
    }
    Some((Layer::Ppp, bytes.get(header_bytes..)?))
}

/// TaZmen Sniffer Protocol: Ethernet after a list of tags.
fn tzsp(bytes: &[u8]) -> Option<Next<'_>> {
    const END: u8 = 1;
    const PADDING: u8 = 0;
    let [1, 0 | 1, 0, 1, tags @ ..] = bytes else { return None };
    let mut tags = tags;
    loop {
        tags = match tags {
            [END, frame @ ..] => return Some((ETHERNET, frame)),
            [PADDING, rest @ ..] => rest,
            [_, length, rest @ ..] => rest.get(usize::from(*length)..)?,
            [] | [_] => return None,
        };
    }
}

/// Whether an IP header can stand there whose packet has at least the bytes that are there.
fn is_ip(bytes: &[u8]) -> bool {
    match bytes {
        [first, _, high, low, ..] if first >> 4 == 4 => {
            let total = usize::from(u16::from_be_bytes([*high, *low]));
            bytes.len() >= 20 && (total == 0 || total >= bytes.len())
        }
        [first, _, _, _, high, low, ..] if first >> 4 == 6 => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            bytes.len() >= 40 && (length == 0 || length + 40 >= bytes.len())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
