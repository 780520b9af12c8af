//! Files of the newer format: sections of blocks (draft-ietf-opsawg-pcapng).

use std::io::Read;
use std::ops::ControlFlow;

use monitor_core::input::Input;
use monitor_core::time::EventTime;
use pcap_parser::{
    Block, CB_MAGIC, DCB_MAGIC, DSB_MAGIC, EPB_MAGIC, EnhancedPacketBlock, IDB_MAGIC, ISB_MAGIC,
    InterfaceDescriptionBlock, NRB_MAGIC, OptionCode, PcapNGOption, SHB_MAGIC, SPB_MAGIC,
    SecretsType, SectionHeaderBlock, SimplePacketBlock, parse_block_be, parse_block_le,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_option_be, parse_option_le,
};

use super::dissect::{self, Captured, Dissector};
use super::fault::Fault;
use super::link::Link;
use super::reader::{Each, Recall, Recalled, Recorded};
use super::tally::Tally;
use super::window::Window;

/// The type of a section header, the same in both byte orders: what each file begins with.
pub(super) const MAGIC: [u8; 4] = SHB_MAGIC.to_be_bytes();
/// A packet as it was before enhanced ones.
const OPB_MAGIC: u32 = 2;
/// Of blocks that are looked into: sixteen packets of the largest size, or the secrets of 100,000
/// connections. Others are passed over whatever their length.
const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// Type and both lengths.
const BLOCK_BYTES_MIN: u32 = 12;
/// The obsolete packet block numbers interfaces with 16 bits.
const INTERFACES_MAX: usize = 1 << 16;
/// What recordings of Keywatch name as the program that wrote them, and begin their comments with.
const OWN_PROGRAM: &str = "keywatch";
const OWN_COMMENT: &str = "keywatch: ";

/// Reads a file from its first section header on.
pub(super) fn read<R: Read>(
    window: &mut Window<R>,
    dissector: &mut Dissector,
    tally: &mut Tally,
    recall: &mut Recall<'_>,
    each: &mut Each<'_>,
) -> Result<(), Fault> {
    let mut section = Section::default();
    let mut broken: Option<Broken> = None;
    let mut block = 0;
    loop {
        block += 1;
        let offset = window.offset();
        let Some(next) = next_block(window, &mut section, block)? else { break };
        let taken = match next {
            Next::Whole { kind, bytes } => {
                let content = &window.data()[..bytes];
                let taken = section.block(kind, content, dissector, tally, recall, each);
                window.consume(bytes);
                taken
            }
            Next::PassedOver { kind } => count(kind, tally),
            Next::Broken => None,
        };
        match taken {
            Some(ControlFlow::Continue(())) => {}
            Some(ControlFlow::Break(())) => return Ok(()),
            None => {
                tally.blocks.broken += 1;
                tracing::debug!(block, offset, "a broken block");
                broken.get_or_insert(Broken { count: 0, block, offset }).count += 1;
            }
        }
    }
    match broken {
        None => Ok(()),
        Some(Broken { count, block, offset }) => Err(Fault::BrokenBlocks { count, block, offset }),
    }
}

/// Blocks that were passed over as broken.
struct Broken {
    count: u64,
    /// The first of them.
    block: u64,
    offset: u64,
}

/// What comes next in the file.
enum Next {
    /// So many bytes of the window are a block.
    Whole { kind: u32, bytes: usize },
    /// A block that is not looked into is behind us.
    PassedOver { kind: u32 },
    /// So is one whose two lengths differ, or that is larger than any can be.
    Broken,
}

/// The next block, or `None` at the end of the file.
fn next_block<R: Read>(
    window: &mut Window<R>,
    section: &mut Section,
    block: u64,
) -> Result<Option<Next>, Fault> {
    let offset = window.offset();
    let reading = |error| Fault::reading(offset, error);
    let cut_off = Fault::CutOff { unit: "block", number: block, offset };
    if !window.fill(BLOCK_BYTES_MIN as usize).map_err(reading)? {
        return if window.data().is_empty() { Ok(None) } else { Err(cut_off) };
    }
    if window.data().starts_with(&MAGIC) {
        // The byte order may change with each section.
        section.big_endian = match window.data()[8..12] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(Fault::SectionHeader { offset }),
        };
    }
    let (kind, bytes) = (section.u32(window.data(), 0), section.u32(window.data(), 4));
    if bytes < BLOCK_BYTES_MIN || bytes % 4 != 0 {
        return Err(Fault::BlockLength { block, offset, bytes });
    }
    let looked_into =
        matches!(kind, SHB_MAGIC | IDB_MAGIC | EPB_MAGIC | SPB_MAGIC | OPB_MAGIC | DSB_MAGIC);
    if looked_into && bytes <= BLOCK_BYTES_MAX {
        // At most 16 MiB: fits.
        let whole = bytes as usize;
        if !window.fill(whole).map_err(reading)? {
            return Err(cut_off);
        }
        if section.u32(window.data(), whole - 4) == bytes {
            return Ok(Some(Next::Whole { kind, bytes: whole }));
        }
        window.consume(whole);
        return Ok(Some(Next::Broken));
    }
    let there = window.skip(u64::from(bytes) - 4).map_err(reading)?;
    if !there || !window.fill(4).map_err(reading)? {
        return Err(cut_off);
    }
    let same = section.u32(window.data(), 0) == bytes;
    window.consume(4);
    Ok(Some(if same && !looked_into { Next::PassedOver { kind } } else { Next::Broken }))
}

/// Counts a block that is not looked into.
fn count(kind: u32, tally: &mut Tally) -> Option<ControlFlow<()>> {
    let counter = match kind {
        NRB_MAGIC => &mut tally.blocks.name_resolution,
        ISB_MAGIC => &mut tally.blocks.interface_statistics,
        CB_MAGIC => &mut tally.blocks.custom,
        DCB_MAGIC => &mut tally.blocks.custom_no_copy,
        _ => &mut tally.blocks.unknown,
    };
    *counter += 1;
    Some(ControlFlow::Continue(()))
}

/// What holds until the next section header.
#[derive(Default)]
struct Section {
    big_endian: bool,
    /// Whether Keywatch recorded it.
    own: bool,
    interfaces: Vec<Interface>,
    /// Time of the last packet; simple packets have none of their own.
    last: EventTime,
}

/// Where packets came from.
#[derive(Clone, Copy)]
struct Interface {
    /// Or the number of a link type that is not read.
    link: Result<Link, i32>,
    units: Units,
    /// Added to each time.
    offset_secs: i64,
    /// 0: none.
    snap_bytes: u32,
}

/// A packet block of any kind.
struct PacketBlock<'a> {
    /// Number of the interface.
    number: u32,
    interface: Interface,
    time: EventTime,
    bytes: &'a [u8],
    missing: u32,
    options: &'a [PcapNGOption<'a>],
}

impl Section {
    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// One block, whole and with equal lengths. `None` when its content is broken.
    fn block(
        &mut self,
        kind: u32,
        bytes: &[u8],
        dissector: &mut Dissector,
        tally: &mut Tally,
        recall: &mut Recall<'_>,
        each: &mut Each<'_>,
    ) -> Option<ControlFlow<()>> {
        if kind == OPB_MAGIC {
            let options =
                self.options(bytes.get(28 + padded(self.u32(bytes, 20))?..bytes.len() - 4)?);
            let packet = self.obsolete(bytes, &options)?;
            tally.blocks.obsolete_packet += 1;
            return Some(self.packet(&packet, dissector, tally, recall, each));
        }
        if kind == EPB_MAGIC {
            // The usual block has a way of its own: it is what a file consists of.
            let parse = if self.big_endian {
                parse_enhancedpacketblock_be
            } else {
                parse_enhancedpacketblock_le
            };
            let (_, block) = parse(bytes).ok()?;
            let packet = self.enhanced(&block)?;
            tally.blocks.enhanced_packet += 1;
            return Some(self.packet(&packet, dissector, tally, recall, each));
        }
        let parsed = if self.big_endian { parse_block_be(bytes) } else { parse_block_le(bytes) };
        let Ok((_, parsed)) = parsed else {
            self.broken(kind);
            return None;
        };
        match parsed {
            Block::SimplePacket(block) => {
                let packet = self.simple(&block)?;
                tally.blocks.simple_packet += 1;
                return Some(self.packet(&packet, dissector, tally, recall, each));
            }
            Block::SectionHeader(block) => {
                self.begin(&block)?;
                tally.blocks.section_header += 1;
                tally.comments += comments(&block.options).count() as u64;
            }
            Block::InterfaceDescription(block) => {
                self.describe(&block)?;
                tally.blocks.interface_description += 1;
                tally.comments += comments(&block.options).count() as u64;
            }
            Block::DecryptionSecrets(block) => {
                let secrets = block.data.get(..block.secrets_len as usize)?;
                tally.blocks.decryption_secrets += 1;
                if block.secrets_type == SecretsType::TlsKeyLog {
                    return Some(each(Input::Secrets(secrets)));
                }
            }
            Block::EnhancedPacket(_)
            | Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::ProcessInformation(_)
            | Block::Custom(_)
            | Block::Unknown(_) => {}
        }
        Some(ControlFlow::Continue(()))
    }

    /// The blocks after a broken one must still mean what they say.
    fn broken(&mut self, kind: u32) {
        match kind {
            // Interfaces are numbered in order: this one is there, and nothing is known of it.
            IDB_MAGIC => self.interfaces.push(Interface::UNKNOWN),
            SHB_MAGIC => self.interfaces.clear(),
            _ => {}
        }
    }

    fn begin(&mut self, block: &SectionHeaderBlock<'_>) -> Option<()> {
        self.interfaces.clear();
        let program = block.shb_userappl().and_then(Result::ok).unwrap_or_default();
        // The version follows.
        self.own = program.split(' ').next() == Some(OWN_PROGRAM);
        // No other version has been defined; what its blocks would mean cannot be known.
        (block.major_version == 1).then_some(())
    }

    fn describe(&mut self, block: &InterfaceDescriptionBlock<'_>) -> Option<()> {
        if self.interfaces.len() == INTERFACES_MAX {
            return None;
        }
        let mut interface = Interface {
            link: Link::from_number(block.linktype.0).ok_or(block.linktype.0),
            units: Units::MICROSECONDS,
            offset_secs: 0,
            snap_bytes: block.snaplen,
        };
        for option in &block.options {
            match (option.code, option.value()) {
                (OptionCode::IfTsresol, [resolution, ..]) => {
                    interface.units = Units::from_resolution(*resolution);
                }
                (OptionCode::IfTsoffset, value) => {
                    let Some(bytes) = value.first_chunk::<8>() else { continue };
                    interface.offset_secs = if self.big_endian {
                        i64::from_be_bytes(*bytes)
                    } else {
                        i64::from_le_bytes(*bytes)
                    };
                }
                _ => {}
            }
        }
        self.interfaces.push(interface);
        Some(())
    }

    fn enhanced<'a>(&mut self, block: &'a EnhancedPacketBlock<'_>) -> Option<PacketBlock<'a>> {
        let interface = *self.interfaces.get(block.if_id as usize)?;
        self.last = interface.time(block.ts_high, block.ts_low);
        Some(PacketBlock {
            number: block.if_id,
            interface,
            time: self.last,
            bytes: block.data.get(..block.caplen as usize)?,
            missing: block.origlen.saturating_sub(block.caplen),
            options: &block.options,
        })
    }

    fn simple<'a>(&self, block: &SimplePacketBlock<'a>) -> Option<PacketBlock<'a>> {
        let interface = *self.interfaces.first()?;
        let mut kept = (block.origlen as usize).min(block.data.len());
        if interface.snap_bytes > 0 {
            kept = kept.min(interface.snap_bytes as usize);
        }
        let bytes = &block.data[..kept];
        // `kept` is at most `origlen`.
        let missing = block.origlen - u32::try_from(kept).unwrap_or(block.origlen);
        Some(PacketBlock { number: 0, interface, time: self.last, bytes, missing, options: &[] })
    }

    fn obsolete<'a>(
        &mut self,
        block: &'a [u8],
        options: &'a [PcapNGOption<'a>],
    ) -> Option<PacketBlock<'a>> {
        let number = self.u16(block, 8).into();
        let interface = *self.interfaces.get(number as usize)?;
        let (captured, original) = (self.u32(block, 20), self.u32(block, 24));
        let bytes = block.get(28..block.len() - 4)?.get(..captured as usize)?;
        self.last = interface.time(self.u32(block, 12), self.u32(block, 16));
        let missing = original.saturating_sub(captured);
        Some(PacketBlock { number, interface, time: self.last, bytes, missing, options })
    }

    fn options<'a>(&self, mut bytes: &'a [u8]) -> Vec<PcapNGOption<'a>> {
        type Parsed<'a> = Result<(&'a [u8], PcapNGOption<'a>), pcap_parser::nom::Err<()>>;
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let parsed: Parsed<'a> =
                if self.big_endian { parse_option_be(bytes) } else { parse_option_le(bytes) };
            let Ok((rest, option)) = parsed else { break };
            options.push(option);
            bytes = rest;
        }
        options
    }

    fn packet(
        &self,
        packet: &PacketBlock<'_>,
        dissector: &mut Dissector,
        tally: &mut Tally,
        recall: &mut Recall<'_>,
        each: &mut Each<'_>,
    ) -> ControlFlow<()> {
        let PacketBlock { number, interface, time, bytes, missing, options } = *packet;
        tally.packets += 1;
        tally.comments += comments(options).count() as u64;
        let link = match interface.link {
            Ok(link) => link,
            Err(number) => {
                tally.unread(number);
                return ControlFlow::Continue(());
            }
        };
        let captured = Captured { link, time, bytes, missing };
        if self.own {
            let comment = comments(options).find(|text| text.starts_with(OWN_COMMENT));
            let segment = dissect::plain_segment(captured);
            tally.recorded += u64::from(comment.is_some());
            match recall(Recorded { time, interface: number, comment, segment }) {
                Recalled::Input(input) => {
                    tally.segments += u64::from(matches!(input, Input::Segment(_)));
                    return each(input);
                }
                Recalled::Done => return ControlFlow::Continue(()),
                Recalled::Packet => {}
            }
        }
        dissector.packet(captured, tally, each)
    }
}

/// Comments before the end of the options.
fn comments<'a>(options: &'a [PcapNGOption<'a>]) -> impl Iterator<Item = &'a str> {
    let options = options.iter().take_while(|option| option.code != OptionCode::EndOfOpt);
    let comments = options.filter(|option| option.code == OptionCode::Comment);
    comments.filter_map(|option| option.as_str().ok())
}

/// Everything in a block is padded to 32 bits.
fn padded(bytes: u32) -> Option<usize> {
    usize::try_from(bytes.checked_next_multiple_of(4)?).ok()
}

impl Interface {
    /// Of a broken description. Link types have 16 bits: this is none of them.
    const UNKNOWN: Interface =
        Interface { link: Err(-1), units: Units::MICROSECONDS, offset_secs: 0, snap_bytes: 0 };

    fn time(&self, high: u32, low: u32) -> EventTime {
        let ns = self.units.nanoseconds(u64::from(high) << 32 | u64::from(low));
        if self.offset_secs == 0 {
            return EventTime(ns);
        }
        let offset = i128::from(self.offset_secs) * 1_000_000_000;
        let time = (i128::from(ns) + offset).clamp(0, i128::from(u64::MAX));
        EventTime(u64::try_from(time).unwrap_or(u64::MAX))
    }
}

/// What times of an interface count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// So many nanoseconds each.
    Longer(u64),
    /// So many of them in a nanosecond.
    Shorter(u64),
    /// 2 to the power of minus this, seconds.
    Binary(u32),
}

impl Units {
    const MICROSECONDS: Units = Units::Longer(1_000);

    /// From the option `if_tsresol`: a negative power of ten, or of two with the highest bit set.
    fn from_resolution(resolution: u8) -> Units {
        let power = u32::from(resolution & 0x7f);
        match (resolution & 0x80, power) {
            (0, 0..=9) => Units::Longer(10_u64.pow(9 - power)),
            // So short that 64 bits hold less than a nanosecond of them: all times are 0.
            (0, _) => Units::Shorter(10_u64.checked_pow(power - 9).unwrap_or(u64::MAX)),
            _ => Units::Binary(power),
        }
    }

    fn nanoseconds(self, count: u64) -> u64 {
        match self {
            Units::Longer(ns) => count.saturating_mul(ns),
            Units::Shorter(in_one) => count / in_one,
            Units::Binary(power) => {
                let ns = (u128::from(count) * 1_000_000_000) >> power;
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests;
