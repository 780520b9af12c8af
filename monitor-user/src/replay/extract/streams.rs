//! Both directions of a connection as files: each byte at its place in the stream.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use monitor_core::decode::Tapped;
use monitor_core::input::{Direction, Endpoint, Input, TcpFlags};

/// A segment this far from what came before is not of this connection: the largest window that TCP
/// can offer is 1 GiB (RFC 7323, 2.3).
const JUMP_BYTES_MAX: i64 = 1 << 30;
/// Runs of bytes with holes between them. Each packet may leave one; so many are 4 MiB of memory.
const RUNS_MAX: usize = 65_536;
/// Holes that are named one by one.
const HOLES_SHOWN: usize = 4;

/// The files of both directions.
pub(super) struct Streams {
    /// The client's, then the server's.
    ends: [Stream; 2],
    dir: PathBuf,
    /// What was inside its encryption, in order; made when there is some.
    plain: [Option<Plain>; 2],
}

struct Plain {
    name: &'static str,
    file: BufWriter<File>,
    bytes: u64,
}

struct Stream {
    name: &'static str,
    file: File,
    /// Sequence number of the first byte, once known.
    first: Option<u32>,
    /// Where runs of bytes that are there begin, and where they end; never touching.
    runs: BTreeMap<u64, u64>,
    /// End of what is known to have been sent.
    end: u64,
    /// Bytes that came before the first, or far from all others, or when there were too many holes.
    left_out: u64,
}

impl Streams {
    /// Makes the folder, if need be, and the files in it; they must not be there.
    pub(super) fn create(dir: &Path) -> Result<Streams> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error.into());
            }
            Ok(()) | Err(_) => {}
        }
        let open = |name| -> Result<Stream> {
            let file = make(dir, name)?;
            let (first, runs) = (None, BTreeMap::new());
            Ok(Stream { name, file, first, runs, end: 0, left_out: 0 })
        };
        let ends = [open("client.bin")?, open("server.bin")?];
        Ok(Streams { ends, dir: dir.into(), plain: [None, None] })
    }

    /// Takes what the encryption held.
    pub(super) fn plain(&mut self, tapped: &Tapped) -> Result<()> {
        let name = match tapped.direction {
            Direction::ToServer => "client.plain.bin",
            Direction::ToClient => "server.plain.bin",
        };
        let place = &mut self.plain[tapped.direction as usize];
        let plain = match place {
            Some(plain) => plain,
            None => {
                let file = BufWriter::new(make(&self.dir, name)?);
                place.insert(Plain { name, file, bytes: 0 })
            }
        };
        plain.bytes += tapped.bytes.len() as u64;
        plain.file.write_all(&tapped.bytes).with_context(|| name)
    }

    /// Takes an input of the connection.
    pub(super) fn take(&mut self, input: &Input<'_>, client: Endpoint) -> Result<()> {
        match input {
            Input::Segment(segment) => {
                let syn = segment.flags.contains(TcpFlags::SYN);
                let seq = segment.seq.wrapping_add(u32::from(syn));
                let stream = &mut self.ends[usize::from(segment.source != client)];
                stream.put(seq, segment.payload, segment.missing)
            }
            Input::Open(open) => {
                let [client, server] = &mut self.ends;
                client.first.get_or_insert(open.client_next);
                server.first.get_or_insert(open.server_next);
                Ok(())
            }
            Input::Owner { .. } | Input::Lost { .. } | Input::Close { .. } => Ok(()),
            // The Decoder gives it out again.
            Input::Plain(_) => Ok(()),
            Input::Secrets(_) | Input::Tick(_) => Ok(()),
        }
    }

    /// Makes the files as long as what was sent.
    pub(super) fn finish(&mut self) -> Result<()> {
        for stream in &mut self.ends {
            stream.file.set_len(stream.end).with_context(|| stream.name)?;
        }
        for plain in self.plain.iter_mut().flatten() {
            plain.file.flush().with_context(|| plain.name)?;
        }
        Ok(())
    }

    /// What is in each file, and what is missing.
    pub(super) fn lines(&self) -> Vec<String> {
        let plain = self.plain.iter().flatten();
        let plain = plain.map(|plain| format!("{}: {} bytes", plain.name, plain.bytes));
        self.ends.iter().map(Stream::line).chain(plain).collect()
    }
}

/// A new file. Raw traffic holds credentials: for its owner alone.
fn make(dir: &Path, name: &'static str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(dir.join(name)).with_context(|| name)
}

impl Stream {
    fn put(&mut self, seq: u32, payload: &[u8], missing: u32) -> Result<()> {
        let first = *self.first.get_or_insert(seq);
        let bytes = payload.len() as u64;
        if bytes == 0 && missing == 0 {
            return Ok(());
        }
        // The distance from the end of what was sent, on a circle of 32 bits.
        let expected = first.wrapping_add(self.end as u32);
        let ahead = i64::from(seq.wrapping_sub(expected) as i32);
        let place = i64::try_from(self.end).unwrap_or(i64::MAX).saturating_add(ahead);
        let Ok(place) = u64::try_from(place) else {
            self.left_out += bytes;
            return Ok(());
        };
        if ahead > JUMP_BYTES_MAX || self.runs.len() >= RUNS_MAX {
            self.left_out += bytes;
            return Ok(());
        }
        let end = place + bytes;
        self.end = self.end.max(end + u64::from(missing));
        // The bytes that came first stay.
        for (from, to) in self.fresh(place, end) {
            let [from_at, to_at] =
                [from - place, to - place].map(|at| usize::try_from(at).unwrap_or(0));
            let written = self.file.write_all_at(&payload[from_at..to_at], from);
            written.with_context(|| self.name)?;
        }
        self.join(place, end);
        Ok(())
    }

    /// The parts of a run that are not there yet.
    fn fresh(&self, begin: u64, end: u64) -> Vec<(u64, u64)> {
        let mut fresh = Vec::new();
        let mut at = begin;
        let before = self.runs.range(..=begin).next_back();
        for (&from, &to) in before.into_iter().chain(self.runs.range(begin + 1..end.max(begin + 1)))
        {
            if from > at {
                fresh.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            fresh.push((at, end));
        }
        fresh
    }

    /// Adds a run to those that are there.
    fn join(&mut self, mut begin: u64, mut end: u64) {
        if begin == end {
            return;
        }
        while let Some((&from, &to)) = self.runs.range(..=end).next_back() {
            if to < begin {
                break;
            }
            (begin, end) = (begin.min(from), end.max(to));
            self.runs.remove(&from);
        }
        self.runs.insert(begin, end);
    }

    fn line(&self) -> String {
        let mut holes = Vec::new();
        let mut at = 0;
        for (&from, &to) in self.runs.iter().chain([(&self.end, &self.end)]) {
            if from > at {
                holes.push((at, from));
            }
            at = to;
        }
        let mut line = format!("{}: {} bytes", self.name, self.end);
        if !holes.is_empty() {
            let missing: u64 = holes.iter().map(|(from, to)| to - from).sum();
            let named: Vec<String> = holes
                .iter()
                .take(HOLES_SHOWN)
                .map(|(from, to)| format!("{from} to {to}"))
                .collect();
            let more = match holes.len().saturating_sub(HOLES_SHOWN) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            line.push_str(&format!(
                ", of which {missing} are missing and stand as zeros: {}{more}",
                named.join(", ")
            ));
        }
        if self.left_out > 0 {
            line.push_str(&format!(", {} left out that are out of place", self.left_out));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream() -> (tempfile::TempDir, Stream) {
        let dir = tempfile::tempdir().unwrap();
        let [client, _] = Streams::create(dir.path()).unwrap().ends;
        (dir, client)
    }

    fn content(dir: &tempfile::TempDir, stream: &Stream) -> Vec<u8> {
        stream.file.set_len(stream.end).unwrap();
        std::fs::read(dir.path().join("client.bin")).unwrap()
    }

    #[test]
    fn bytes_come_to_their_place_and_the_first_stay() {
        let (dir, mut stream) = stream();
        let near_wrap = u32::MAX - 3;
        stream.put(near_wrap, b"0123", 0).unwrap();
        stream.put(near_wrap.wrapping_add(8), b"89", 0).unwrap();
        stream.put(near_wrap.wrapping_add(2), b"XX45XX", 0).unwrap();
        stream.put(near_wrap.wrapping_add(12), b"cd", 2).unwrap();
        stream.put(near_wrap.wrapping_sub(5), b"before", 0).unwrap();
        assert_eq!(content(&dir, &stream), b"012345XX89\0\0cd\0\0");
        assert_eq!(
            stream.line(),
            "client.bin: 16 bytes, of which 4 are missing and stand as zeros: 10 to 12, 14 to 16, \
             6 left out that are out of place"
        );
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        Streams::create(dir.path()).unwrap();
        let error = Streams::create(dir.path()).err().unwrap();
        assert!(format!("{error:#}").starts_with("client.bin: File exists"), "{error:#}");
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_stream(
            pieces in prop::collection::vec((0_usize..200, 1_usize..60), 1..40),
            first: u32,
        ) {
            let whole: Vec<u8> = (0..=255).collect();
            let (dir, mut stream) = stream();
            stream.first = Some(first);
            let mut there = vec![false; 256];
            for (at, len) in pieces {
                let end = (at + len).min(whole.len());
                stream.put(first.wrapping_add(at as u32), &whole[at..end], 0).unwrap();
                there[at..end].fill(true);
            }
            let content = content(&dir, &stream);
            prop_assert_eq!(content.len(), there.iter().rposition(|it| *it).unwrap() + 1);
            for (at, byte) in content.iter().enumerate() {
                prop_assert_eq!(*byte, if there[at] { whole[at] } else { 0 });
            }
            let runs = stream.runs.iter().map(|(from, to)| to - from).sum::<u64>();
            prop_assert_eq!(runs, there.iter().filter(|it| **it).count() as u64);
        }
    }
}
