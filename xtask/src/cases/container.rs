//! How a capture is kept: as it is, compressed, or as pcapng with all that a reader must pass over.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::capture::{Link, Packet, frame};

/// What the file of a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// pcap.
    Pcap,
    /// The same, in gzip (RFC 1952).
    Gzip,
    /// The same, in zstd (RFC 8878).
    Zstd,
    /// pcapng with the byte order of most machines.
    PcapngLittle,
    /// pcapng with that of the network.
    PcapngBig,
}

/// Level of compression: what the tools use when not told.
const LEVEL: i32 = 3;

impl Container {
    /// Name of the file in its folder.
    pub fn file_name(self) -> &'static str {
        match self {
            Container::Pcap => "input.pcap",
            Container::Gzip => "input.pcap.gz",
            Container::Zstd => "input.pcap.zst",
            Container::PcapngLittle | Container::PcapngBig => "input.pcapng",
        }
    }

    /// The file, of packets that are a pcap file already.
    pub(super) fn pack(self, pcap: Vec<u8>, packets: &[Packet]) -> Result<Vec<u8>> {
        match self {
            Container::Pcap => Ok(pcap),
            Container::Gzip => {
                let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
                gzip.write_all(&pcap).and_then(|()| gzip.finish()).context("compressing")
            }
            Container::Zstd => zstd::encode_all(&pcap[..], LEVEL).context("compressing"),
            Container::PcapngLittle => Pcapng { big_endian: false }.file(packets),
            Container::PcapngBig => Pcapng { big_endian: true }.file(packets),
        }
    }
}

/// A writer of pcapng (draft-ietf-opsawg-pcapng, 4): two interfaces, whose packets take turns, of other
/// link types and units of time, with comments wherever one may stand.
struct Pcapng {
    big_endian: bool,
}

/// Ethernet in microseconds, bare IP in nanoseconds (`if_tsresol`, a power of ten).
const INTERFACES: [(Link, u8); 2] = [(Link::Ethernet, 6), (Link::Raw, 9)];

const COMMENT: u16 = 1;
const IF_TSRESOL: u16 = 9;

impl Pcapng {
    fn file(&self, packets: &[Packet]) -> Result<Vec<u8>> {
        let comment = self.option(COMMENT, b"made for a test");
        // Magic, version 1.0, a section length that is not known.
        let start =
            [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8], &comment].concat();
        let mut file = self.block(0x0a0d_0d0a, &start)?;
        for (link, resolution) in INTERFACES {
            let options = [comment.clone(), self.option(IF_TSRESOL, &[resolution])].concat();
            let number = self.u16(u16::try_from(link.number())?);
            let fields = [&number[..], &self.u16(0), &self.u32(0), &options].concat();
            file.extend(self.block(1, &fields)?);
        }
        // A block that nobody knows.
        file.extend(self.block(0x4b57_0001, b"pass over")?);
        for (packet, interface) in packets.iter().zip((0_u32..2).cycle()) {
            let (link, resolution) = INTERFACES[interface as usize];
            let bytes = frame(packet, link)?;
            let length = self.u32(u32::try_from(bytes.len())?);
            let time = packet.time.0 / 10_u64.pow(9 - u32::from(resolution));
            let fields = [
                &self.u32(interface)[..],
                &self.u32((time >> 32) as u32),
                &self.u32(time as u32),
                &length,
                &length,
                &padded(&bytes),
                &comment,
            ];
            file.extend(self.block(6, &fields.concat())?);
        }
        Ok(file)
    }

    fn block(&self, kind: u32, body: &[u8]) -> Result<Vec<u8>> {
        let body = padded(body);
        let length = self.u32(u32::try_from(body.len() + 12)?);
        Ok([&self.u32(kind)[..], &length, &body, &length].concat())
    }

    /// One option; none says that it is the last, which may be left out (3.5).
    fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = self.u16(value.len() as u16);
        [&self.u16(code)[..], &length, &padded(value)].concat()
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// To 32 bits.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
