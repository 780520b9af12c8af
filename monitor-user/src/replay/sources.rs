//! Where captures come from: files, folders of them, and lists of either.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::reader;
use crate::fault::Misuse;

/// Standard input.
pub(super) const STDIN: &str = "-";

/// What is to be replayed, in order.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
    /// Files in folders that are no captures.
    pub(super) other_files: u64,
}

/// One capture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Found in a folder, or named.
    pub(super) found: bool,
    /// Why it cannot be read: a folder that cannot be listed, or has no captures in it.
    pub(super) trouble: Option<String>,
}

impl Sources {
    /// Those that are named, then those on the list.
    pub(super) fn find(named: &[PathBuf], list: Option<&Path>) -> Result<Sources> {
        let mut sources = Sources::default();
        for path in named {
            sources.add(path);
        }
        let Some(list) = list else { return Ok(sources) };
        let listed = read_list(list)?;
        if list == Path::new(STDIN) && named.iter().chain(&listed).any(|path| path == STDIN) {
            let text = "stdin is both a list and a capture: -: give one of them as a file";
            return Err(Misuse(text.into()).into());
        }
        for path in &listed {
            sources.add(path);
        }
        Ok(sources)
    }

    fn add(&mut self, path: &Path) {
        if path == Path::new(STDIN) || !path.is_dir() {
            return self.push(path, false, None);
        }
        let (before, others_before) = (self.files.len(), self.other_files);
        if let Err(error) = self.walk(path) {
            self.push(path, true, Some(format!("cannot list the folder: {error}")));
        } else if self.files.len() == before {
            let others = self.other_files - others_before;
            self.push(
                path,
                true,
                Some(format!("no captures in this folder ({others} other files)")),
            );
        }
    }

    fn push(&mut self, path: &Path, found: bool, trouble: Option<String>) {
        self.files.push(Source { path: path.into(), found, trouble });
    }

    /// The captures under a folder, by name. Links to folders are not followed: they can lead back.
    fn walk(&mut self, folder: &Path) -> io::Result<()> {
        let mut ahead = VecDeque::from([folder.to_path_buf()]);
        while let Some(path) = ahead.pop_front() {
            if path == folder || path.symlink_metadata()?.is_dir() {
                let entries = fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
                let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
                entries.sort();
                for entry in entries.into_iter().rev() {
                    ahead.push_front(entry);
                }
            } else if path.is_file() && !self.is_other(&path) {
                self.push(&path, true, None);
            }
        }
        Ok(())
    }

    /// Whether a file is no capture; it is counted then. One that cannot be read is told later.
    fn is_other(&mut self, path: &Path) -> bool {
        let mut start = Vec::new();
        let result = File::open(path)
            .and_then(|file| file.take(reader::MAGIC_BYTES).read_to_end(&mut start));
        let is_other = result.is_ok() && !reader::may_be_capture(&start);
        if is_other {
            tracing::debug!(file = %path.display(), "no capture; left out");
            self.other_files += 1;
        }
        is_other
    }
}

/// A path a line; empty lines are left out.
fn read_list(list: &Path) -> Result<Vec<PathBuf>> {
    let mut text = Vec::new();
    let result = if list == Path::new(STDIN) {
        io::stdin().read_to_end(&mut text).map(drop)
    } else {
        fs::read(list).map(|bytes| text = bytes)
    };
    result.with_context(|| format!("cannot read the list of files: {}", list.display()))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::*;

    fn names(sources: &Sources, root: &Path) -> Vec<String> {
        let name = |source: &Source| {
            source.path.strip_prefix(root).unwrap_or(&source.path).display().to_string()
        };
        sources.files.iter().map(name).collect()
    }

    #[test]
    fn a_folder_gives_its_captures_by_name() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let packets = capture(USUAL, &[]);
        fs::create_dir_all(dir.join("b/deeper")).unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        for name in ["c.pcap", "a.pcap", "b/2", "b/1", "b/deeper/x.pcapng"] {
            fs::write(dir.join(name), &packets).unwrap();
        }
        fs::write(dir.join("a.pcap.gz"), b"\x1f\x8b\x08\x00").unwrap();
        fs::write(dir.join("notes.txt"), b"notes").unwrap();
        fs::write(dir.join("nothing.pcap"), b"").unwrap();
        std::os::unix::fs::symlink(dir, dir.join("b/round")).unwrap();
        std::os::unix::fs::symlink(dir.join("c.pcap"), dir.join("d.pcap")).unwrap();

        let sources = Sources::find(&[dir.into()], None).unwrap();
        assert_eq!(
            names(&sources, dir),
            ["a.pcap", "a.pcap.gz", "b/1", "b/2", "b/deeper/x.pcapng", "c.pcap", "d.pcap"]
        );
        assert_eq!(sources.other_files, 2);
        assert!(sources.files.iter().all(|source| source.found && source.trouble.is_none()));

        let sources = Sources::find(&[dir.join("empty")], None).unwrap();
        let trouble = sources.files[0].trouble.as_deref();
        assert_eq!(trouble, Some("no captures in this folder (0 other files)"));
    }

    #[test]
    fn a_list_names_files_and_folders() {
        let root = tempfile::tempdir().unwrap();
        let list = root.path().join("list");
        fs::write(&list, "x.pcap\n\n-\nno such file").unwrap();
        let sources = Sources::find(&["first".into()], Some(&list)).unwrap();
        assert_eq!(names(&sources, root.path()), ["first", "x.pcap", "-", "no such file"]);
        assert!(sources.files.iter().all(|source| !source.found));
        let missing = Sources::find(&[], Some(&root.path().join("none"))).unwrap_err();
        assert!(format!("{missing:#}").starts_with("cannot read the list of files: /"));
    }
}
