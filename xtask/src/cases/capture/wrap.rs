//! What networks do to frames on their way: put them into others, or cut them.

use anyhow::{Context, Result, ensure};
use etherparse::{
    Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder,
};

/// RFC 7348, 5.
const VXLAN_PORT: u16 = 4789;
/// Content of a fragment; all but the last must have a multiple of eight.
const FRAGMENT_BYTES: usize = 64;

/// A frame in VXLAN, between two switches.
pub(super) fn vxlan(frame: &[u8]) -> Result<Vec<u8>> {
    // The flag that says that the network's number is there, and that number: 42.
    let header = [8, 0, 0, 0, 0, 0, 42, 0];
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2])
        .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        .udp(50_000, VXLAN_PORT)
        .write(&mut bytes, &[header.as_slice(), frame].concat())
        .context("building a packet")?;
    Ok(bytes)
}

/// The fragments of an Ethernet frame's IP packet, the last one first.
pub(super) fn fragments(frame: &[u8], number: u32) -> Result<Vec<Vec<u8>>> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).context("an Ethernet frame")?;
    ensure!(rest.len() > 20, "no IP packet");
    let ends = |content: &[u8]| {
        let starts = (0..content.len()).step_by(FRAGMENT_BYTES);
        starts.map(|from| (from, (from + FRAGMENT_BYTES).min(content.len()))).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    if rest[0] >> 4 == 4 {
        let (ip, content) = Ipv4Header::from_slice(rest).context("an IPv4 packet")?;
        for (from, to) in ends(content) {
            let mut ip = ip.clone();
            ip.identification = number as u16;
            ip.dont_fragment = false;
            ip.more_fragments = to < content.len();
            ip.fragment_offset = IpFragOffset::try_new((from / 8) as u16)?;
            ip.set_payload_len(to - from)?;
            ip.header_checksum = ip.calc_header_checksum();
            all.push([&ethernet.to_bytes()[..], &ip.to_bytes()[..], &content[from..to]].concat());
        }
    } else {
        let (ip, content) = Ipv6Header::from_slice(rest).context("an IPv6 packet")?;
        for (from, to) in ends(content) {
            let offset = IpFragOffset::try_new((from / 8) as u16)?;
            let more = to < content.len();
            let part = Ipv6FragmentHeader::new(ip.next_header, offset, more, number).to_bytes();
            let mut ip = ip.clone();
            ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            ip.set_payload_length(part.len() + to - from)?;
            let headers = [&ethernet.to_bytes()[..], &ip.to_bytes()[..], &part[..]].concat();
            all.push([&headers[..], &content[from..to]].concat());
        }
    }
    all.reverse();
    Ok(all)
}
