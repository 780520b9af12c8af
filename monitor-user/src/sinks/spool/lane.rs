//! A lane: records in order, in segments on disk, until each is confirmed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{self, Head, Parsed, Segment, Unusable};

/// A segment is left for a new one at this size: small enough that confirmed ones are gone from the
/// page cache before the kernel writes them out, large enough that files are made seldom.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Or at this part of the bound, if that is more: every segment is an open file.
pub(super) const SEGMENTS_MAX: u64 = 64;
/// Read at once: some hundreds to thousands of records.
const READ_BYTES: usize = 256 << 10;

/// See the module.
pub(super) struct Lane {
    dir: PathBuf,
    name: &'static str,
    id: u8,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// Records that come behind the last segment's, not written yet.
    pending: Pending,
    /// Number of the next record that is appended.
    next: u64,
    /// Number of the next record that is handed out.
    sent: u64,
    /// Where that stands in its segment, if known.
    sent_at: Option<u64>,
    /// Records handed out, and whether each is confirmed.
    in_flight: VecDeque<(u64, bool)>,
    /// Bytes on disk and pending.
    bytes: u64,
    /// Files with something that power loss would take.
    unsynced: Vec<Arc<File>>,
    /// The folder, in which a new file has to be safe as well.
    folder: Arc<File>,
    cursor: File,
    /// What the cursor file says.
    noted: Option<(u64, bool)>,
    /// Records that were damaged on disk after they had been written.
    damaged: u64,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Of each record: what it is and its bytes.
    heads: Vec<(Head, u32)>,
}

/// Records that were handed out together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    records: Vec<(u64, Head, Range<usize>)>,
}

impl Batch {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The record at `place`: its number, what it is, its payload.
    pub(crate) fn record(&self, place: usize) -> Option<(u64, Head, &[u8])> {
        let (number, head, range) = self.records.get(place)?;
        Some((*number, *head, &self.bytes[range.clone()]))
    }
}

/// Records that were given up to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) records: u64,
    /// Earliest and latest event time.
    pub(super) times: Option<(u64, u64)>,
}

/// What was found when a lane was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// It was not closed properly: records that were still in memory are gone.
    pub(super) unclean: bool,
    /// What could not be read, a line each.
    pub(super) troubles: Vec<String>,
}

impl Lane {
    /// Opens or makes a lane in `dir`. What an earlier run left comes first.
    pub(super) fn open(
        dir: &Path,
        name: &'static str,
        id: u8,
        bytes_max: u64,
    ) -> Result<(Lane, Found), (PathBuf, Unusable)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| (path, Unusable::Io(error))
        };
        let cursor_path = dir.join(format!("{name}.cursor"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let cursor = options.open(&cursor_path).map_err(at(&cursor_path))?;
        let noted = read_cursor(&cursor).map_err(at(&cursor_path))?;
        let mut lane = Lane {
            dir: dir.to_owned(),
            name,
            id,
            segment_bytes: SEGMENT_BYTES_MIN.max(bytes_max / SEGMENTS_MAX),
            segments: VecDeque::new(),
            pending: Pending::default(),
            next: 0,
            sent: 0,
            sent_at: None,
            in_flight: VecDeque::new(),
            bytes: 0,
            unsynced: Vec::new(),
            folder: Arc::new(File::open(dir).map_err(at(dir))?),
            cursor,
            noted,
            damaged: 0,
        };
        let mut found = Found::default();
        let paths = segment_paths(dir, name).map_err(at(dir))?;
        let last = paths.len().saturating_sub(1);
        for (place, path) in paths.iter().enumerate() {
            lane.adopt(path, place == last, &mut found).map_err(|error| (path.clone(), error))?;
        }
        let (done, clean) = noted.unwrap_or((0, true));
        found.unclean = !clean;
        let end = lane.segments.back().map_or(0, Segment::end);
        lane.next = end.max(done);
        lane.sent = done.min(lane.next);
        lane.forget_done().map_err(at(dir))?;
        lane.note_cursor(false).map_err(at(&cursor_path))?;
        Ok((lane, found))
    }

    /// Takes over a segment that is there.
    fn adopt(&mut self, path: &Path, is_last: bool, found: &mut Found) -> Result<(), Unusable> {
        let shown = path.display();
        let (segment, torn) = match Segment::open(path) {
            Ok(opened) => opened,
            Err(Unusable::Damaged) => {
                let aside = path.with_extension("damaged");
                fs::rename(path, &aside)?;
                let empty = aside.metadata()?.len() < segment::HEADER_BYTES as u64;
                // Less than a header is what a crash left of a new file: nothing was in it.
                if !(is_last && empty) {
                    found.troubles.push(format!(
                        "a part of the spool cannot be read: {shown}: it is kept as {}",
                        aside.display()
                    ));
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if torn > 0 && is_last {
            // What a crash left of a record that was being written.
            segment.file.set_len(segment.len)?;
        } else if torn > 0 {
            found
                .troubles
                .push(format!("a part of the spool cannot be read: {shown}: {torn} bytes of it"));
        }
        if self.segments.back().is_some_and(|before| segment.first < before.end()) {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside)?;
            found.troubles.push(format!(
                "a part of the spool does not fit the others: it is kept as {}",
                aside.display()
            ));
            return Ok(());
        }
        self.bytes += segment.len;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Adds a record; [`Lane::write`] brings it to the file.
    pub(super) fn append(&mut self, head: Head, payload: &[u8]) {
        let before = self.pending.bytes.len();
        segment::write(&mut self.pending.bytes, head, payload, self.next);
        let bytes = self.pending.bytes.len() - before;
        self.pending.heads.push((head, bytes as u32));
        self.next += 1;
        self.bytes += bytes as u64;
    }

    /// Writes what is pending. After an error it is still pending, and can be written again.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let count = self.pending.heads.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let first = self.next - count;
        let fits = |last: &Segment| last.len < self.segment_bytes && last.end() == first;
        if !self.segments.back().is_some_and(fits) {
            let path = self.dir.join(format!("{}-{first:020}.seg", self.name));
            let made = Segment::create(path, self.id, first)?;
            self.bytes += made.len;
            self.segments.push_back(made);
            note_unsynced(&mut self.unsynced, &self.folder);
        }
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        last.file.write_all_at(&self.pending.bytes, last.len)?;
        for (head, bytes) in self.pending.heads.drain(..) {
            last.note(head, u64::from(bytes));
        }
        self.pending.bytes.clear();
        note_unsynced(&mut self.unsynced, &last.file);
        Ok(())
    }

    /// Gives up what is pending.
    pub(super) fn drop_pending(&mut self) -> Dropped {
        let mut dropped = Dropped { records: self.pending.heads.len() as u64, times: None };
        for (head, _) in &self.pending.heads {
            let (earliest, latest) = dropped.times.unwrap_or((head.time, head.time));
            dropped.times = Some((earliest.min(head.time), latest.max(head.time)));
        }
        self.next -= dropped.records;
        self.bytes -= self.pending.bytes.len() as u64;
        self.pending = Pending::default();
        // A part of it may have been written. Where that cannot be cut off now, later records with the
        // same numbers are written over it.
        if let Some(last) = self.segments.back() {
            let _ = last.file.set_len(last.len);
        }
        dropped
    }

    /// Gives up the oldest segment of which nothing was handed out.
    pub(super) fn drop_oldest(&mut self) -> io::Result<Option<Dropped>> {
        let unread = |segment: &Segment| segment.first >= self.sent && segment.records > 0;
        let Some(place) = self.segments.iter().position(unread) else { return Ok(None) };
        let segment = &self.segments[place];
        fs::remove_file(&segment.path)?;
        let dropped = Dropped { records: segment.records, times: segment.times };
        self.bytes -= segment.len;
        let file = Arc::clone(&segment.file);
        self.unsynced.retain(|other| !Arc::ptr_eq(other, &file));
        self.segments.remove(place);
        self.sent_at = None;
        Ok(Some(dropped))
    }

    /// Hands out the next records that are written, some hundred kilobytes of them.
    pub(super) fn take(&mut self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        while batch.len() == 0 {
            let Some(segment) = self.segments.iter().find(|s| s.end() > self.sent) else {
                self.take_pending(batch);
                return Ok(());
            };
            if self.sent < segment.first {
                // Those between were given up.
                self.sent = segment.first;
                self.sent_at = None;
            }
            let at = match self.sent_at {
                Some(at) if self.sent > segment.first => at,
                Some(_) | None => segment.offset_of(self.sent)?,
            };
            let left = usize::try_from(segment.len - at).unwrap_or(usize::MAX);
            let mut span = READ_BYTES.min(left);
            let used = loop {
                batch.bytes.resize(span, 0);
                let got = segment::read_at(&segment.file, &mut batch.bytes, at)?;
                let (used, needed) = split(&batch.bytes[..got], self.sent, &mut batch.records);
                match needed {
                    // One record is larger than what is usually read.
                    Some(needed) if used == 0 && got == span && span < needed => span = needed,
                    Some(_) | None => break used,
                }
            };
            if used == 0 {
                // The disk has changed what was written: what follows in this segment is lost.
                self.damaged += segment.end() - self.sent;
                self.sent = segment.end();
                self.sent_at = None;
                continue;
            }
            self.sent += batch.len() as u64;
            self.sent_at = Some(at + used as u64);
            self.in_flight.extend(batch.records.iter().map(|(number, ..)| (*number, false)));
        }
        Ok(())
    }

    /// Hands out what no disk has room for.
    fn take_pending(&mut self, batch: &mut Batch) {
        let first = self.next - self.pending.heads.len() as u64;
        let skipped = usize::try_from(self.sent.saturating_sub(first)).unwrap_or(usize::MAX);
        let heads = self.pending.heads.iter().take(skipped);
        let at: usize = heads.map(|(_, bytes)| *bytes as usize).sum();
        self.sent = self.sent.max(first);
        batch.bytes.clear();
        batch.bytes.extend_from_slice(&self.pending.bytes[at..]);
        split(&batch.bytes, self.sent, &mut batch.records);
        self.sent += batch.len() as u64;
        self.sent_at = None;
        self.in_flight.extend(batch.records.iter().map(|(number, ..)| (*number, false)));
    }

    /// The record has arrived, or needs to go no further.
    pub(super) fn confirm(&mut self, number: u64) -> io::Result<()> {
        if let Ok(place) = self.in_flight.binary_search_by_key(&number, |(number, _)| *number) {
            self.in_flight[place].1 = true;
        }
        while let Some((_, true)) = self.in_flight.front() {
            self.in_flight.pop_front();
        }
        if self.done() == self.next {
            // What was handed out from memory needs no disk any more.
            self.bytes -= self.pending.bytes.len() as u64;
            self.pending = Pending::default();
        }
        self.forget_done()
    }

    /// Hands out everything again that is not confirmed, in order.
    pub(super) fn rewind(&mut self) {
        self.sent = self.done();
        self.sent_at = None;
        self.in_flight.clear();
    }

    /// Records handed out and not confirmed.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every record is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && !self.has_next()
    }

    /// Whether some record can be handed out.
    pub(super) fn has_next(&self) -> bool {
        let is_pending = !self.pending.heads.is_empty() && self.next > self.sent;
        is_pending || self.segments.back().is_some_and(|last| last.end() > self.sent)
    }

    /// Bytes on disk and pending.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that are not written yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.bytes.len()
    }

    /// Records found damaged since the last call.
    pub(super) fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Files to sync without holding the lane.
    pub(super) fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        std::mem::take(&mut self.unsynced)
    }

    /// Notes on disk how far delivery is; `clean` says that nothing is left in memory.
    pub(super) fn note_cursor(&mut self, clean: bool) -> io::Result<()> {
        let note = (self.done(), clean);
        if self.noted == Some(note) {
            return Ok(());
        }
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..8].copy_from_slice(&note.0.to_le_bytes());
        bytes[8] = u8::from(clean);
        let sum = crc32c::crc32c(&bytes[..12]);
        bytes[12..].copy_from_slice(&sum.to_le_bytes());
        self.cursor.write_all_at(&bytes, 0)?;
        self.noted = Some(note);
        Ok(())
    }

    /// Writes everything, removes what is confirmed, syncs. Returns how many records are left.
    pub(super) fn close(&mut self) -> io::Result<u64> {
        self.write()?;
        self.rewind();
        let waiting = |s: &Segment| s.end() - self.sent.clamp(s.first, s.end());
        let left: u64 = self.segments.iter().map(waiting).sum();
        if left == 0 {
            for segment in self.segments.drain(..) {
                fs::remove_file(&segment.path)?;
            }
            self.bytes = 0;
            self.unsynced.clear();
        }
        for file in self.take_unsynced() {
            file.sync_all()?;
        }
        self.note_cursor(true)?;
        self.cursor.sync_all()?;
        Ok(left)
    }

    fn done(&self) -> u64 {
        self.in_flight.front().map_or(self.sent, |(number, _)| *number)
    }

    /// Removes segments of which every record is confirmed, but one that is still to be written to.
    fn forget_done(&mut self) -> io::Result<()> {
        let done = self.done();
        while let Some(oldest) = self.segments.front() {
            let is_written_to = self.segments.len() == 1 && oldest.len < self.segment_bytes;
            if oldest.end() > done || is_written_to {
                return Ok(());
            }
            let Some(segment) = self.segments.pop_front() else { break };
            self.bytes -= segment.len;
            self.unsynced.retain(|other| !Arc::ptr_eq(other, &segment.file));
            fs::remove_file(&segment.path)?;
        }
        Ok(())
    }
}

/// Number of the first record that is not confirmed (u64), whether nothing was in memory (u8), 3
/// zeros, CRC-32C.
const CURSOR_BYTES: usize = 16;

/// `None` when it says nothing that can be relied on: then everything that is there counts as not
/// confirmed.
fn read_cursor(file: &File) -> io::Result<Option<(u64, bool)>> {
    let mut bytes = [0; CURSOR_BYTES];
    let got = segment::read_at(file, &mut bytes, 0)?;
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    let whole = got == CURSOR_BYTES && crc32c::crc32c(&bytes[..12]).to_le_bytes() == bytes[12..];
    Ok(whole.then(|| (u64::from_le_bytes(number), bytes[8] == 1)))
}

fn note_unsynced(unsynced: &mut Vec<Arc<File>>, file: &Arc<File>) {
    if !unsynced.iter().any(|known| Arc::ptr_eq(known, file)) {
        unsynced.push(Arc::clone(file));
    }
}

/// Segments of a lane, oldest first.
fn segment_paths(dir: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = file.strip_suffix(".seg").and_then(|file| file.strip_prefix(name));
        let digits = digits.and_then(|digits| digits.strip_prefix('-'));
        if digits.is_some_and(|d| d.len() == 20 && d.bytes().all(|b| b.is_ascii_digit())) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Adds every whole record in `bytes`, the first of which is `number`. Returns the bytes used, and how
/// many bytes the next record needs if it is not whole.
fn split(
    bytes: &[u8],
    mut number: u64,
    records: &mut Vec<(u64, Head, Range<usize>)>,
) -> (usize, Option<usize>) {
    let mut at = 0;
    loop {
        match segment::parse(&bytes[at..], number) {
            Parsed::Record { head, payload, bytes } => {
                let end = at + bytes;
                records.push((number, head, end - payload.len()..end));
                number += 1;
                at = end;
            }
            Parsed::Short(needed) => return (at, Some(needed)),
            Parsed::Damaged => return (at, None),
        }
    }
}
