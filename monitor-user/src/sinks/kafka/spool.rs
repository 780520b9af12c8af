//! The file in which alerts stand until Kafka has confirmed them: a queue that outlives the program.
//!
//! Every alert is appended before it is sent. When all are confirmed the file is cut to nothing. A
//! crash may lead to an alert being sent again, never to one being lost; consumers tell repeats by
//! id and revision.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Positions are bytes ever appended, so that they stay valid when the file is cut.
pub(super) struct Spool {
    file: File,
    path: PathBuf,
    rejected: PathBuf,
    /// Held as long as the spool is.
    _lock: File,
    /// Position of the first byte in the file.
    base: u64,
    /// Everything before this is confirmed.
    done: u64,
    /// Everything before this was handed out.
    sent: u64,
    /// End of the last alert.
    end: u64,
    /// Alerts handed out: where each ends, and whether it is confirmed.
    in_flight: VecDeque<(u64, bool)>,
    unsynced: bool,
}

/// Confirmed alerts are dropped from the front of the file when there is this much of them.
const DEAD_BYTES_MAX: u64 = 16 << 20;
/// A million alerts of a kilobyte. A monitor must not fill the disk of the host that it guards.
const SPOOL_BYTES_MAX: u64 = 1 << 30;

impl Spool {
    /// Opens or makes `alerts.jsonl` in `dir`. What an earlier run left in it is handed out first.
    pub(super) fn open(dir: &Path) -> Result<Spool> {
        let shown = dir.display();
        let context = || format!("cannot open the spool: {shown}");
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)?;
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true).mode(0o600);
            options.open(dir.join(name)).with_context(context)
        };
        let lock = open("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another keywatch uses the spool: {shown}: stop it or set sinks.kafka.spool_dir"
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        let file = open("alerts.jsonl")?;
        let end = file.metadata().with_context(context)?.len();
        let mut spool = Spool {
            file,
            path: dir.join("alerts.jsonl"),
            rejected: dir.join("rejected.jsonl"),
            _lock: lock,
            base: 0,
            done: 0,
            sent: 0,
            end,
            in_flight: VecDeque::new(),
            unsynced: false,
        };
        spool.mend_tail().with_context(context)?;
        Ok(spool)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an alert: one line with its newline.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.end - self.base + line.len() as u64 > SPOOL_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has 1 GiB"));
        }
        if self.done - self.base > DEAD_BYTES_MAX {
            self.compact()?;
        }
        self.file.write_all_at(line, self.end - self.base)?;
        self.end += line.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// The next alert that was not handed out, with its ticket, without the newline.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        if self.sent == self.end {
            return Ok(None);
        }
        // Most alerts have 1 to 2 KB.
        let mut buffer = vec![0; 4096];
        let length = loop {
            let got = read_at(&self.file, &mut buffer, self.sent - self.base)?;
            if let Some(length) = buffer[..got].iter().position(|byte| *byte == b'\n') {
                break length;
            }
            if got < buffer.len() {
                // Somebody has cut the file.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer.resize(buffer.len() * 2, 0);
        };
        buffer.truncate(length);
        self.sent += length as u64 + 1;
        self.in_flight.push_back((self.sent, false));
        Ok(Some((self.sent, buffer)))
    }

    /// The alert with this ticket has arrived, or needs to go no further.
    pub(super) fn confirm(&mut self, ticket: u64) -> io::Result<()> {
        if let Ok(place) = self.in_flight.binary_search_by_key(&ticket, |(end, _)| *end) {
            self.in_flight[place].1 = true;
        }
        while let Some((end, true)) = self.in_flight.front() {
            self.done = *end;
            self.in_flight.pop_front();
        }
        if self.done == self.end && self.end > self.base {
            self.file.set_len(0)?;
            self.base = self.end;
            self.unsynced = true;
        }
        Ok(())
    }

    /// Hands out everything again that is not confirmed, in order.
    pub(super) fn rewind(&mut self) {
        self.in_flight.clear();
        self.sent = self.done;
    }

    /// Alerts handed out and not confirmed.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every alert is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.done == self.end
    }

    /// Whether some alert waits to be handed out.
    pub(super) fn has_next(&self) -> bool {
        self.sent < self.end
    }

    /// A handle to sync without holding the spool, when there is something to sync.
    pub(super) fn take_unsynced(&mut self) -> io::Result<Option<File>> {
        match std::mem::take(&mut self.unsynced) {
            true => self.file.try_clone().map(Some),
            false => Ok(None),
        }
    }

    /// Puts a line aside that Kafka will never take, where a person can look at it.
    pub(super) fn reject(&self, line: &[u8]) -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&self.rejected)?;
        file.write_all(&[line, b"\n"].concat())?;
        file.sync_data()
    }

    /// Drops what is confirmed from the file and syncs the rest. Returns how many alerts are left.
    pub(super) fn close(&mut self) -> io::Result<u64> {
        self.rewind();
        self.compact()?;
        let mut left = 0;
        while self.next()?.is_some() {
            left += 1;
        }
        Ok(left)
    }

    fn compact(&mut self) -> io::Result<()> {
        if self.done > self.base {
            let draft_path = self.path.with_extension("new");
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).read(true).write(true).mode(0o600);
            let draft = options.open(&draft_path)?;
            let mut buffer = vec![0; 64 << 10];
            let mut at = self.done;
            while at < self.end {
                let got = read_at(&self.file, &mut buffer, at - self.base)?;
                if got == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                draft.write_all_at(&buffer[..got], at - self.done)?;
                at += got as u64;
            }
            draft.sync_all()?;
            fs::rename(&draft_path, &self.path)?;
            self.file = draft;
            self.base = self.done;
        }
        self.file.sync_all()
    }

    /// Half a line at the end is what a crash left of an alert: put aside.
    fn mend_tail(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut whole = self.end;
        while whole > 0 {
            let from = whole.saturating_sub(buffer.len() as u64);
            let span = usize::try_from(whole - from).unwrap_or(buffer.len());
            let got = read_at(&self.file, &mut buffer[..span], from)?;
            match buffer[..got].iter().rposition(|byte| *byte == b'\n') {
                Some(place) => {
                    whole = from + place as u64 + 1;
                    break;
                }
                None => whole = from,
            }
        }
        if whole < self.end {
            let mut torn = vec![0; usize::try_from(self.end - whole).unwrap_or(0)];
            let got = read_at(&self.file, &mut torn, whole)?;
            self.reject(&torn[..got])?;
            self.file.set_len(whole)?;
            self.end = whole;
        }
        Ok(())
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(spool: &mut Spool) -> Vec<(u64, String)> {
        std::iter::from_fn(|| spool.next().unwrap())
            .map(|(ticket, line)| (ticket, String::from_utf8(line).unwrap()))
            .collect()
    }

    fn lines(spool: &mut Spool) -> Vec<String> {
        drain(spool).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn what_is_not_confirmed_comes_again_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        for line in ["a\n", "bb\n", "ccc\n"] {
            spool.append(line.as_bytes()).unwrap();
        }
        let sent = drain(&mut spool);
        assert_eq!(sent.len(), 3);
        // The second is confirmed before the first: neither is done until the first is.
        spool.confirm(sent[1].0).unwrap();
        spool.rewind();
        assert_eq!(lines(&mut spool), ["a", "bb", "ccc"]);
        spool.confirm(sent[0].0).unwrap();
        assert_eq!(spool.close().unwrap(), 2);
        drop(spool);
        assert_eq!(fs::read_to_string(dir.path().join("alerts.jsonl")).unwrap(), "bb\nccc\n");
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(lines(&mut spool), ["bb", "ccc"]);
    }

    #[test]
    fn nothing_is_left_when_all_is_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        for round in 0..3 {
            spool.append(b"one\n").unwrap();
            spool.append(b"two\n").unwrap();
            let sent = drain(&mut spool);
            assert_eq!(sent.len(), 2, "round {round}");
            for (ticket, _) in sent.iter().rev() {
                assert!(!spool.is_empty());
                spool.confirm(*ticket).unwrap();
            }
            assert!(spool.is_empty());
            assert_eq!(fs::metadata(spool.path()).unwrap().len(), 0);
        }
    }

    #[test]
    fn confirmed_alerts_do_not_pile_up_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        let line = [vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
        spool.append(&line).unwrap();
        for _ in 0..40 {
            // There is always one that is not confirmed.
            spool.append(&line).unwrap();
            let (ticket, _) = spool.next().unwrap().unwrap();
            spool.confirm(ticket).unwrap();
        }
        let bytes = fs::metadata(spool.path()).unwrap().len();
        assert!(bytes <= DEAD_BYTES_MAX + 3 * line.len() as u64, "{bytes}");
        assert_eq!(spool.close().unwrap(), 1);
    }

    #[test]
    fn half_a_line_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("alerts.jsonl"), "whole\n{\"half").unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(lines(&mut spool), ["whole"]);
        let rejected = fs::read_to_string(dir.path().join("rejected.jsonl")).unwrap();
        assert_eq!(rejected, "{\"half\n");
    }

    #[test]
    fn two_programs_do_not_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let first = Spool::open(dir.path()).unwrap();
        let error = Spool::open(dir.path()).err().unwrap().to_string();
        assert!(error.starts_with("another keywatch uses the spool: "), "{error}");
        drop(first);
        assert!(Spool::open(dir.path()).is_ok());
    }
}
