//! A file of alerts, also while it is written and rotated.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Take;

/// Longer than any alert; a longer line is passed over.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// How often a file is looked at: well within the second in which an alert is to be seen.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Gives every line to `take`, and with `follow` those that are still to come.
pub(super) fn read(path: &Path, follow: bool, take: &mut Take<'_>) -> Result<()> {
    let context = || format!("cannot read alerts: {}", path.display());
    if path == Path::new("-") {
        return lines(&mut BufReader::new(std::io::stdin().lock()), true, take)
            .map(drop)
            .context("cannot read alerts: stdin");
    }
    let mut file = BufReader::new(File::open(path).with_context(context)?);
    loop {
        if lines(&mut file, !follow, take).with_context(context)?.is_break() || !follow {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
        // Rotated: what is left of the old one comes first, which was just read.
        let old = file.get_ref().metadata().with_context(context)?;
        match path.metadata() {
            Ok(new) if new.ino() != old.ino() || new.dev() != old.dev() => {
                if lines(&mut file, true, take).with_context(context)?.is_break() {
                    return Ok(());
                }
                file = BufReader::new(File::open(path).with_context(context)?);
            }
            Ok(new) if new.len() < file.stream_position().with_context(context)? => {
                // Cut to nothing and begun anew.
                file.seek(SeekFrom::Start(0)).with_context(context)?;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Reads up to the end; a line without its end is given out only where nothing follows, and otherwise
/// read again later.
fn lines<R: BufRead + Rewind>(
    file: &mut R,
    is_last: bool,
    take: &mut Take<'_>,
) -> Result<ControlFlow<()>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let got = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n");
        if got == 0 || (!is_whole && !is_last && (got as u64) < LINE_BYTES_MAX) {
            file.back(got)?;
            return Ok(ControlFlow::Continue(()));
        }
        if take(&line)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// Goes back some bytes.
trait Rewind {
    fn back(&mut self, bytes: usize) -> std::io::Result<()>;
}

impl Rewind for BufReader<File> {
    fn back(&mut self, bytes: usize) -> std::io::Result<()> {
        self.seek_relative(-i64::try_from(bytes).unwrap_or(0))
    }
}

impl Rewind for BufReader<std::io::StdinLock<'_>> {
    fn back(&mut self, _bytes: usize) -> std::io::Result<()> {
        // Only at its end, after which nothing follows.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_whole_and_through_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut got = Vec::new();
        // Each line that is seen makes the next change.
        read(&path, true, &mut |line| {
            got.push(String::from_utf8_lossy(line).trim_end().to_owned());
            let append = |text: &str| {
                let mut file = File::options().append(true).open(&path).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            };
            match got.len() {
                1 => append("o\n"),
                2 => {
                    append("three\n");
                    std::fs::rename(&path, dir.path().join("alerts.jsonl.1")).unwrap();
                    std::fs::write(&path, "four\n").unwrap();
                }
                4 => return Ok(ControlFlow::Break(())),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(got, ["one", "two", "three", "four"]);
    }
}
