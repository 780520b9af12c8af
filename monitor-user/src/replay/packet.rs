//! One captured packet to one TCP segment: link, IP and TCP headers and tunnels taken off.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use monitor_core::input::{Endpoint, Segment, TcpFlags};
use monitor_core::time::EventTime;

use super::link::{self, Link};
use super::tally::Tunnels;
use super::tunnel;

/// Why a packet gave no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// Not IP, or IP that carries something else than TCP.
    NotTcp,
    /// A header is broken, or cut off by the snap length.
    Malformed,
    /// The link type is known by a header in the packet only, and is not read.
    Unread(i32),
}

/// What a packet holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Segment(Segment<'a>),
    Fragment(Fragment<'a>),
}

/// A piece of a fragmented IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) of: FragmentOf,
    /// What the packet carries; of IPv6 the first fragment alone decides.
    pub(super) protocol: u8,
    /// Where it belongs, bytes.
    pub(super) offset: usize,
    /// Whether it is not the last.
    pub(super) more: bool,
    /// What was captured of it.
    pub(super) bytes: &'a [u8],
    /// How long it was when sent.
    pub(super) sent: usize,
}

/// The packet that a fragment belongs to (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentOf {
    pub(super) ends: [IpAddr; 2],
    pub(super) id: u32,
    /// Of IPv4 the identification is unique for each protocol; of IPv6 for all: 44 here.
    pub(super) protocol: u8,
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The header of a link type.
    Link(Link),
    /// What this ethertype stands for.
    Ethertype(u16),
    /// IEEE 802.2 LLC, often with SNAP.
    Llc,
    /// A PPP protocol number, perhaps with an HDLC header.
    Ppp,
    /// MPLS labels.
    Mpls,
    /// An IP header, of the version that it says.
    Ip,
    /// What an IP protocol number stands for, between two ends. `sent` bytes of it were sent, if
    /// that is known.
    Transport { ends: [IpAddr; 2], protocol: u8, sent: Option<usize> },
}

/// Headers of links, tunnels and extensions taken off one packet: twice as many as there are in a
/// packet of a phone (Ethernet, VLAN, IP, UDP, GTP) inside two tunnels of a data centre.
const LAYERS_MAX: u32 = 32;

/// What is in the bytes that begin with `layer`. `missing`: how many the snap length cut off at the
/// end of them.
pub(super) fn find<'a>(
    mut layer: Layer,
    time: EventTime,
    mut bytes: &'a [u8],
    mut missing: u32,
    tunnels: &mut Tunnels,
) -> Result<Found<'a>, Skipped> {
    for _ in 0..LAYERS_MAX {
        (layer, bytes) = match layer {
            Layer::Link(link) => link::network(link, bytes)?,
            Layer::Ethertype(ethertype) => tunnel::ethertype(ethertype, bytes, tunnels)?,
            Layer::Llc => link::llc(bytes)?,
            Layer::Ppp => link::ppp(bytes)?,
            Layer::Mpls => tunnel::mpls(bytes, tunnels)?,
            Layer::Ip => match in_ip(bytes)? {
                // What nearly every packet is goes no further round.
                Carried::Layer(Layer::Transport { ends, protocol: TCP, sent }, body) => {
                    return tcp(time, ends, body, sent, missing);
                }
                Carried::Layer(inner, body) => {
                    if let Layer::Transport { sent: Some(sent), .. } = inner {
                        missing = u32::try_from(sent - body.len()).unwrap_or(u32::MAX);
                    }
                    (inner, body)
                }
                Carried::Fragment(fragment) => return Ok(Found::Fragment(fragment)),
            },
            Layer::Transport { ends, protocol, sent } => {
                if protocol == TCP {
                    return tcp(time, ends, bytes, sent, missing);
                }
                match extension(ends, protocol, sent, bytes)? {
                    Some(Carried::Layer(layer, bytes)) => (layer, bytes),
                    Some(Carried::Fragment(fragment)) => return Ok(Found::Fragment(fragment)),
                    None => tunnel::transport(protocol, bytes, tunnels)?,
                }
            }
        };
    }
    tunnels.too_deep += 1;
    Err(Skipped::NotTcp)
}

/// What an IP header carries.
enum Carried<'a> {
    Layer(Layer, &'a [u8]),
    Fragment(Fragment<'a>),
}

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

#[inline(always)]
fn in_ip(bytes: &[u8]) -> Result<Carried<'_>, Skipped> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => in_ipv4(bytes),
        Some(6) => in_ipv6(bytes),
        Some(_) => Err(Skipped::NotTcp),
        None => Err(Skipped::Malformed),
    }
}

#[inline(always)]
fn in_ipv4(packet: &[u8]) -> Result<Carried<'_>, Skipped> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Skipped::Malformed)?;
    let header_bytes = header.slice().len();
    let body = packet.get(header_bytes..).ok_or(Skipped::Malformed)?;
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    let protocol = header.protocol().0;
    // A total length of 0 is what the sender's stack shows of a packet over 64 KiB that the card
    // is yet to cut up (TSO): it reaches to the end of the capture.
    let sent = match usize::from(header.total_len()) {
        0 => None,
        total => Some(total.checked_sub(header_bytes).ok_or(Skipped::Malformed)?),
    };
    let body = without_padding(body, sent);
    if header.is_fragmenting_payload() {
        return Ok(Carried::Fragment(Fragment {
            of: FragmentOf { ends, id: header.identification().into(), protocol },
            protocol,
            offset: usize::from(header.fragments_offset().byte_offset()),
            more: header.more_fragments(),
            bytes: body,
            sent: sent.unwrap_or(body.len()),
        }));
    }
    Ok(Carried::Layer(Layer::Transport { ends, protocol, sent }, body))
}

#[inline(always)]
fn in_ipv6(packet: &[u8]) -> Result<Carried<'_>, Skipped> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Skipped::Malformed)?;
    let body = packet.get(header.slice().len()..).ok_or(Skipped::Malformed)?;
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    let protocol = header.next_header().0;
    let sent = match usize::from(header.payload_length()) {
        // 0 as above, or a jumbogram (RFC 2675): its first header says how long it is.
        0 if protocol == HOP_BY_HOP => jumbo_bytes(body),
        0 => None,
        bytes => Some(bytes),
    };
    let body = without_padding(body, sent);
    Ok(Carried::Layer(Layer::Transport { ends, protocol, sent }, body))
}

/// What follows the IP packet is padding of the link.
fn without_padding(body: &[u8], sent: Option<usize>) -> &[u8] {
    sent.and_then(|sent| body.get(..sent)).unwrap_or(body)
}

/// The length in a jumbo payload option, counted as the payload length is.
fn jumbo_bytes(hop_by_hop: &[u8]) -> Option<usize> {
    const PAD_1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let end = (usize::from(*hop_by_hop.get(1)?) + 1) * 8;
    let mut options = hop_by_hop.get(2..end)?;
    loop {
        options = match options {
            [JUMBO, 4, a, b, c, d, ..] => {
                let bytes = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?;
                return (bytes > usize::from(u16::MAX)).then_some(bytes);
            }
            [PAD_1, rest @ ..] => rest,
            [_, length, rest @ ..] => rest.get(usize::from(*length)..)?,
            [] | [_] => return None,
        };
    }
}

/// What follows an extension header; `None` when `protocol` is none.
fn extension(
    ends: [IpAddr; 2],
    protocol: u8,
    sent: Option<usize>,
    bytes: &[u8],
) -> Result<Option<Carried<'_>>, Skipped> {
    let length = |units: fn(usize) -> usize| {
        bytes.get(1).map(|length| units(usize::from(*length))).ok_or(Skipped::Malformed)
    };
    let header_bytes = match protocol {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
            length(|length| (length + 1) * 8)?
        }
        AUTHENTICATION => length(|length| (length + 2) * 4)?,
        FRAGMENT => 8,
        _ => return Ok(None),
    };
    let (header, body) = bytes.split_at_checked(header_bytes).ok_or(Skipped::Malformed)?;
    let sent = match sent {
        None => None,
        Some(sent) => Some(sent.checked_sub(header_bytes).ok_or(Skipped::Malformed)?),
    };
    let next = header[0];
    if protocol == FRAGMENT {
        let place = be16(header, 2)?;
        let (offset, more) = (usize::from(place & 0xfff8), place & 1 == 1);
        // Some send whole packets with a fragment header (RFC 6946).
        if offset > 0 || more {
            let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let of = FragmentOf { ends, id, protocol };
            let sent = sent.unwrap_or(body.len());
            let fragment = Fragment { of, protocol: next, offset, more, bytes: body, sent };
            return Ok(Some(Carried::Fragment(fragment)));
        }
    }
    Ok(Some(Carried::Layer(Layer::Transport { ends, protocol: next, sent }, body)))
}

/// Two bytes in network order.
pub(super) fn be16(bytes: &[u8], at: usize) -> Result<u16, Skipped> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(Skipped::Malformed)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// What follows a header.
pub(super) fn after(bytes: &[u8], header_bytes: usize) -> Result<&[u8], Skipped> {
    bytes.get(header_bytes..).ok_or(Skipped::Malformed)
}

/// `sent`: bytes of header and payload as the IP header has them.
#[inline(always)]
fn tcp(
    time: EventTime,
    [source, target]: [IpAddr; 2],
    body: &[u8],
    sent: Option<usize>,
    missing: u32,
) -> Result<Found<'_>, Skipped> {
    let header = TcpHeaderSlice::from_slice(body).map_err(|_| Skipped::Malformed)?;
    let header_bytes = header.slice().len();
    let payload = body.get(header_bytes..).ok_or(Skipped::Malformed)?;
    let missing = match sent {
        None => missing,
        Some(sent) => {
            let sent = sent.checked_sub(header_bytes).ok_or(Skipped::Malformed)?;
            u32::try_from(sent.saturating_sub(payload.len())).unwrap_or(u32::MAX)
        }
    };
    // They have the places that they have in the header.
    let flags = TcpFlags::from_bits_truncate(header.slice()[13]);
    Ok(Found::Segment(Segment {
        time,
        source: Endpoint::new(source, header.source_port()),
        target: Endpoint::new(target, header.destination_port()),
        // The same packet is often captured inside a tunnel and outside it, as `tcpdump -i any`
        // does on both devices: it must be the same flow. Ids of tunnels cannot tell flows apart
        // anyway, since the two directions need not have the same.
        scope: 0,
        seq: header.sequence_number(),
        ack: header.acknowledgment_number(),
        flags,
        payload,
        missing,
    }))
}

#[cfg(test)]
mod tests;
