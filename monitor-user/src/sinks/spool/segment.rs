//! A segment: one file of a lane. A header, then records one after the other, each with a checksum.
//!
//! All numbers are little-endian. Header, 32 bytes: `KWSPOOL\n`, version (u16), lane (u8), 5 zeros,
//! number of the first record (u64), 4 zeros, CRC-32C of the 28 bytes before it (RFC 3720, B.4).
//! Record: length of its payload (u32), CRC-32C (u32), event time in nanoseconds (u64), kind (u8), 3
//! zeros, payload. The checksum covers the record's number as well, so that nothing left over from
//! another place passes for a record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Version that is written; an older one can always be read.
const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"KWSPOOL\n";
/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes before the payload of a record.
pub(super) const FRAME_BYTES: usize = 20;
/// A payload. Far more than an alert or a call can have (heads are bounded at 32 KiB), and little
/// enough that a damaged length costs no memory.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Why a segment is not used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    /// Not for this program to touch.
    #[error("it is of version {0}, and this keywatch knows {VERSION}")]
    Newer(u16),
    /// Nothing that can be read.
    #[error("its header is damaged")]
    Damaged,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a record is beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Event time, nanoseconds.
    pub(crate) time: u64,
    /// What the payload is; the spool does not care.
    pub(crate) kind: u8,
}

/// An open segment.
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    /// Number of the first record.
    pub(super) first: u64,
    /// Records in it.
    pub(super) records: u64,
    /// Bytes up to the end of the last record.
    pub(super) len: u64,
    /// Event times of the records: earliest and latest.
    pub(super) times: Option<(u64, u64)>,
}

impl Segment {
    /// Makes an empty one; an older file of this name is what a crash left of nothing.
    pub(super) fn create(path: PathBuf, lane: u8, first: u64) -> io::Result<Segment> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(0o600);
        let file = options.open(&path)?;
        if let Err(error) = file.write_all_at(&header(lane, first), 0) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Segment {
            file: Arc::new(file),
            path,
            first,
            records: 0,
            len: HEADER_BYTES as u64,
            times: None,
        })
    }

    /// Opens one that is there and reads it through. Also returns how many bytes at its end are not
    /// whole records, which are as good as not there.
    pub(super) fn open(path: &Path) -> Result<(Segment, u64), Unusable> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut head = [0; HEADER_BYTES];
        if read_at(&file, &mut head, 0)? < HEADER_BYTES {
            return Err(Unusable::Damaged);
        }
        let first = parse_header(&head)?;
        let total = file.metadata()?.len();
        let mut segment = Segment {
            file: Arc::new(file),
            path: path.to_owned(),
            first,
            records: 0,
            len: HEADER_BYTES as u64,
            times: None,
        };
        segment.scan()?;
        let torn = total.saturating_sub(segment.len);
        Ok((segment, torn))
    }

    /// Number of the record after the last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records
    }

    /// Notes a record that was written at the end.
    pub(super) fn note(&mut self, head: Head, bytes: u64) {
        self.records += 1;
        self.len += bytes;
        let (earliest, latest) = self.times.unwrap_or((head.time, head.time));
        self.times = Some((earliest.min(head.time), latest.max(head.time)));
    }

    /// Where the record with this number begins.
    pub(super) fn offset_of(&self, number: u64) -> io::Result<u64> {
        let mut at = HEADER_BYTES as u64;
        let mut frame = [0; FRAME_BYTES];
        for _ in self.first..number.min(self.end()) {
            if read_at(&self.file, &mut frame, at)? < FRAME_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += (FRAME_BYTES + length(&frame)) as u64;
        }
        Ok(at)
    }

    fn scan(&mut self) -> io::Result<()> {
        // Read at once what is at hand; a segment has a few megabytes.
        let mut buffer = vec![0; 1 << 20];
        let mut filled = read_at(&self.file, &mut buffer, self.len)?;
        let mut at = 0;
        loop {
            match parse(&buffer[at..filled], self.end()) {
                Parsed::Record { head, payload: _, bytes } => {
                    self.note(head, bytes as u64);
                    at += bytes;
                }
                Parsed::Damaged => return Ok(()),
                Parsed::Short(needed) => {
                    if buffer.len() < needed {
                        buffer.resize(needed, 0);
                    }
                    let had = filled - at;
                    filled = read_at(&self.file, &mut buffer, self.len)?;
                    at = 0;
                    if filled <= had {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// What stands at the beginning of some bytes.
pub(super) enum Parsed<'a> {
    /// A record of so many bytes in all.
    Record { head: Head, payload: &'a [u8], bytes: usize },
    /// So many bytes are needed to tell.
    Short(usize),
    /// No record with this number.
    Damaged,
}

/// Reads the record `number`.
pub(super) fn parse(bytes: &[u8], number: u64) -> Parsed<'_> {
    let Some(frame) = bytes.first_chunk::<FRAME_BYTES>() else {
        return Parsed::Short(FRAME_BYTES);
    };
    let payload_bytes = length(frame);
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Parsed::Damaged;
    }
    let total = FRAME_BYTES + payload_bytes;
    let Some(payload) = bytes.get(FRAME_BYTES..total) else {
        return Parsed::Short(total);
    };
    if checksum(frame, payload, number) != word(frame, 4) {
        return Parsed::Damaged;
    }
    let time = u64::from(word(frame, 8)) | u64::from(word(frame, 12)) << 32;
    Parsed::Record { head: Head { time, kind: frame[16] }, payload, bytes: total }
}

/// Adds the record `number` to `out`.
///
/// # Panics
///
/// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: callers check that first.
pub(super) fn write(out: &mut Vec<u8>, head: Head, payload: &[u8], number: u64) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[8..16].copy_from_slice(&head.time.to_le_bytes());
    frame[16] = head.kind;
    let sum = checksum(&frame, payload, number);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&frame);
    out.extend_from_slice(payload);
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn header(lane: u8, first: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = lane;
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let sum = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Result<u64, Unusable> {
    if header[..8] != MAGIC {
        return Err(Unusable::Damaged);
    }
    // Before the checksum: another version may have it elsewhere.
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version > VERSION {
        return Err(Unusable::Newer(version));
    }
    if crc32c::crc32c(&header[..28]) != word(header, 28) || version == 0 {
        return Err(Unusable::Damaged);
    }
    Ok(u64::from(word(header, 16)) | u64::from(word(header, 20)) << 32)
}

fn length(frame: &[u8; FRAME_BYTES]) -> usize {
    word(frame, 0) as usize
}

fn checksum(frame: &[u8; FRAME_BYTES], payload: &[u8], number: u64) -> u32 {
    let sum = crc32c::crc32c(&number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &frame[..4]);
    let sum = crc32c::crc32c_append(sum, &frame[8..]);
    crc32c::crc32c_append(sum, payload)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { time: 0x0102_0304_0506_0708, kind: 3 };

    #[test]
    fn the_bytes_on_disk_are_those_of_version_1() {
        // Written down once: what lies on disks must stay readable.
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&header(1, 258)),
            "4b5753504f4f4c0a0100010000000000020100000000000000000000df5a5962"
        );
        let mut out = Vec::new();
        write(&mut out, HEAD, b"abc", 258);
        assert_eq!(hex(&out), "030000005de0b930080706050403020103000000616263");
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let mut good = Vec::new();
        write(&mut good, HEAD, b"payload", 9);
        assert!(matches!(parse(&good, 9), Parsed::Record { payload: b"payload", head: HEAD, .. }));
        assert!(matches!(parse(&good, 10), Parsed::Damaged), "another number");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse(&bad, 9), Parsed::Record { .. }), "bit {bit}");
        }
        let whole = header(0, 7);
        assert_eq!(parse_header(&whole).unwrap(), 7);
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = whole;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_header(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = header(0, 0);
        newer[8] = 2;
        assert!(matches!(parse_header(&newer), Err(Unusable::Newer(2))));
    }
}
