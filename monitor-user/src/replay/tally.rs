//! What was found in captures: every packet is counted in one place, and nothing is left out silently.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was found in one capture or several. Each packet is one of: `segments`, `not_tcp`,
/// `fragments`, `malformed`, `unread`, `recorded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Captures of which something was read.
    pub files: u64,
    /// Files in folders that are no captures.
    pub other_files: u64,
    /// Packets read.
    pub packets: u64,
    /// Packets that gave a TCP segment.
    pub segments: u64,
    /// Packets that are not TCP over IP.
    pub not_tcp: u64,
    /// Pieces of fragmented IP packets that are held, or were dropped; the last piece counts as what
    /// the whole packet is.
    pub fragments: u64,
    /// Packets with broken or cut headers; skipped.
    pub malformed: u64,
    /// Packets of link types that are not read.
    pub unread: u64,
    /// Packets whose comment was read instead of their bytes: what live capture knew and no packet
    /// can say.
    pub recorded: u64,
    /// Bytes read, headers and all, after decompression.
    pub bytes: u64,
    /// How fragmented packets fared.
    pub reassembly: Reassembly,
    /// Headers of tunnels taken off.
    pub tunnels: Tunnels,
    /// Packets of each link type that is not read, by its number.
    pub unread_links: BTreeMap<i32, u64>,
    /// Blocks of pcapng files.
    pub blocks: Blocks,
    /// Comments in pcapng files.
    pub comments: u64,
}

/// How fragmented IP packets fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reassembly {
    /// Packets put together.
    pub packets: u64,
    /// Packets of which not all pieces came in time.
    pub expired: u64,
    /// Packets given up because too many were waiting.
    pub evicted: u64,
    /// Pieces that say other bytes than earlier pieces did for the same place. The earlier stay.
    pub conflicts: u64,
    /// Pieces that fit into no packet: beyond its end or beyond the largest there can be.
    pub misfits: u64,
}

/// Headers of tunnels taken off, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tunnels {
    /// VXLAN and VXLAN-GPE.
    pub vxlan: u64,
    /// Geneve.
    pub geneve: u64,
    /// GRE, NVGRE and ERSPAN.
    pub gre: u64,
    /// IP in IP of either version.
    pub ip_in_ip: u64,
    /// GTP-U.
    pub gtp: u64,
    /// Teredo.
    pub teredo: u64,
    /// AYIYA.
    pub ayiya: u64,
    /// L2TP.
    pub l2tp: u64,
    /// PPPoE.
    pub pppoe: u64,
    /// MPLS label stacks.
    pub mpls: u64,
    /// MAC-in-MAC, EtherIP, NSH and TZSP.
    pub other: u64,
    /// Packets with more headers around each other than are taken off.
    pub too_deep: u64,
}

/// Blocks of pcapng files, by type. Broken ones are counted as broken only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// Section headers.
    pub section_header: u64,
    /// Interface descriptions.
    pub interface_description: u64,
    /// Enhanced packets.
    pub enhanced_packet: u64,
    /// Simple packets.
    pub simple_packet: u64,
    /// Packets as they were before enhanced ones.
    pub obsolete_packet: u64,
    /// Name resolution.
    pub name_resolution: u64,
    /// Interface statistics.
    pub interface_statistics: u64,
    /// Decryption secrets.
    pub decryption_secrets: u64,
    /// Custom blocks that may be copied.
    pub custom: u64,
    /// Custom blocks that may not.
    pub custom_no_copy: u64,
    /// Blocks of other types.
    pub unknown: u64,
    /// Blocks whose content contradicts itself; skipped by their length.
    pub broken: u64,
}

impl Tally {
    /// What was opened, for people.
    pub fn files(&self) -> [(&'static str, u64); 4] {
        [
            // One is what everybody expects.
            ("read", if self.files > 1 { self.files } else { 0 }),
            ("no captures", self.other_files),
            ("broken blocks", self.blocks.broken),
            ("comments", self.comments),
        ]
    }

    /// What became of the packets, for people.
    pub fn packets(&self) -> [(&'static str, u64); 6] {
        [
            ("read", self.packets),
            ("not TCP", self.not_tcp),
            ("fragments", self.fragments),
            ("malformed", self.malformed),
            ("of link types that are not read", self.unread),
            ("recorded events", self.recorded),
        ]
    }

    /// How fragmented packets fared, for people.
    pub fn reassembly(&self) -> [(&'static str, u64); 5] {
        let Reassembly { packets, expired, evicted, conflicts, misfits } = self.reassembly;
        [
            ("put together", packets),
            ("never complete", expired),
            ("given up for others", evicted),
            ("pieces that contradict others", conflicts),
            ("pieces that fit nowhere", misfits),
        ]
    }

    /// Tunnels, for people.
    pub fn tunnels(&self) -> [(&'static str, u64); 12] {
        let tunnels = &self.tunnels;
        [
            ("VXLAN", tunnels.vxlan),
            ("Geneve", tunnels.geneve),
            ("GRE", tunnels.gre),
            ("IP in IP", tunnels.ip_in_ip),
            ("GTP", tunnels.gtp),
            ("Teredo", tunnels.teredo),
            ("AYIYA", tunnels.ayiya),
            ("L2TP", tunnels.l2tp),
            ("PPPoE", tunnels.pppoe),
            ("MPLS", tunnels.mpls),
            ("others", tunnels.other),
            ("too many around each other", tunnels.too_deep),
        ]
    }

    /// A packet of a link type that is not read.
    pub(super) fn unread(&mut self, link_type: i32) {
        /// More link types than any capture has; a broken file could name 65,536.
        const LINK_TYPES_MAX: usize = 256;
        self.unread += 1;
        if self.unread_links.len() < LINK_TYPES_MAX || self.unread_links.contains_key(&link_type) {
            *self.unread_links.entry(link_type).or_default() += 1;
        }
    }
}
