//! Key logs that servers go on writing: their new lines, in time for the records that they open.
//!
//! The form is NSS's (<https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html>). A server
//! writes a secret when it makes it. That is before it sends what the secret protects, but of TLS 1.3 after
//! its client has sent: the client's secret is made when its Finished is read, which the first request
//! comes with. So records wait a moment before the files are read for them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The longest line that is one: label, random and secret have less than 300 bytes. Of longer ones only
/// the end is read, which is no line of a key log, and so counted.
const LINE_BYTES_MAX: usize = 4096;

/// Read at once; five lines of a connection have a kilobyte.
const CHUNK_BYTES: usize = 64 << 10;

/// Read of one file before its records are gone on with, a thousand connections.
const LOOK_BYTES_MAX: usize = 1 << 20;

/// Of what a file holds at the start: handshakes that are under way. Older connections cannot be read.
const START_BYTES_MAX: u64 = 64 << 10;

/// Every key log that is followed.
pub(super) struct KeyLogs {
    files: Vec<KeyLog>,
    buffer: Zeroizing<Vec<u8>>,
}

/// One of them.
struct KeyLog {
    path: PathBuf,
    open: Option<Open>,
    /// The file that had the name before: a server may go on writing to it.
    before: Option<Open>,
    /// Whether it was looked for before.
    begun: bool,
    trouble: Option<String>,
}

struct Open {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    /// How far it was read, bytes.
    at: u64,
    /// The begin of a line whose end is not written yet.
    rest: Zeroizing<Vec<u8>>,
}

impl KeyLogs {
    pub(super) fn new(paths: &[PathBuf]) -> KeyLogs {
        let file = |path: &PathBuf| KeyLog {
            path: path.clone(),
            open: None,
            before: None,
            begun: false,
            trouble: None,
        };
        KeyLogs {
            files: paths.iter().map(file).collect(),
            buffer: Zeroizing::new(vec![0; CHUNK_BYTES]),
        }
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Gives what is new.
    pub(super) fn read(&mut self, lines: &mut dyn FnMut(&[u8])) {
        for file in &mut self.files {
            file.read(&mut self.buffer, lines);
        }
    }

    /// What keeps them from being read, a line each.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.files.iter().filter_map(|file| file.trouble.clone()).collect()
    }
}

impl KeyLog {
    fn read(&mut self, buffer: &mut [u8], lines: &mut dyn FnMut(&[u8])) {
        self.trouble = self.try_read(buffer, lines).err().map(|error| {
            let mend = if error.kind() == io::ErrorKind::PermissionDenied {
                "; make it readable for the user that Keywatch runs as, which has given up its rights"
            } else if error.kind() == io::ErrorKind::NotFound {
                "; connections are not seen inside until a server makes it"
            } else {
                ""
            };
            format!("key log {}: {error}{mend}", self.path.display())
        });
    }

    fn try_read(&mut self, buffer: &mut [u8], lines: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        for open in [&mut self.before, &mut self.open].into_iter().flatten() {
            open.read(buffer, lines)?;
        }
        let about = match std::fs::metadata(&self.path) {
            Ok(about) => about,
            // Within a rotation, or after it: a server makes a new one when it needs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.open.is_some() => {
                return Ok(());
            }
            Err(error) => {
                self.begun = true;
                return Err(error);
            }
        };
        let id = (about.dev(), about.ino());
        if self.open.as_ref().is_some_and(|open| open.id == id) {
            return Ok(());
        }
        let mut open = Open::new(&self.path, !self.begun)?;
        self.begun = true;
        open.read(buffer, lines)?;
        self.before = self.open.replace(open);
        Ok(())
    }
}

/// Whether a file can be followed.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    Open::new(path, false).map(drop)
}

impl Open {
    /// `late`: it may have been written for long already.
    fn new(path: &Path, late: bool) -> io::Result<Open> {
        // Opening a pipe would wait for its writer.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        let at = if late { about.len().saturating_sub(START_BYTES_MAX) } else { 0 };
        let mut open =
            Open { file, id: (about.dev(), about.ino()), at, rest: Zeroizing::default() };
        if at > 0 {
            open.skip_line()?;
        }
        Ok(open)
    }

    /// Goes on behind the next end of a line.
    fn skip_line(&mut self) -> io::Result<()> {
        let mut line = Zeroizing::new([0; LINE_BYTES_MAX]);
        let got = self.file.read_at(&mut line[..], self.at)?;
        let end = memchr::memchr(b'\n', &line[..got]).map_or(got, |end| end + 1);
        self.at += end as u64;
        Ok(())
    }

    /// Gives whole lines.
    fn read(&mut self, buffer: &mut [u8], lines: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        // Cut to begin anew (logrotate's copytruncate).
        if self.file.metadata()?.len() < self.at {
            self.at = 0;
            self.rest.clear();
        }
        let mut read = 0;
        while read < LOOK_BYTES_MAX {
            let got = self.file.read_at(buffer, self.at)?;
            if got == 0 {
                break;
            }
            self.at += got as u64;
            read += got;
            self.take(&buffer[..got], lines);
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], lines: &mut dyn FnMut(&[u8])) {
        let Some(last) = memchr::memrchr(b'\n', bytes) else { return self.keep(bytes) };
        let (whole, begun) = bytes.split_at(last + 1);
        if self.rest.is_empty() {
            lines(whole);
        } else {
            self.rest.extend_from_slice(whole);
            lines(&self.rest);
            self.rest.clear();
        }
        self.keep(begun);
    }

    fn keep(&mut self, begun: &[u8]) {
        self.rest.extend_from_slice(begun);
        let beyond = self.rest.len().saturating_sub(LINE_BYTES_MAX);
        self.rest.drain(..beyond);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use super::*;

    struct Followed {
        dir: tempfile::TempDir,
        logs: KeyLogs,
    }

    impl Followed {
        fn new() -> Followed {
            let dir = tempfile::tempdir().unwrap();
            let logs = KeyLogs::new(&[dir.path().join("keys.log")]);
            Followed { dir, logs }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("keys.log")
        }

        fn append(&self, text: &str) {
            let file = OpenOptions::new().append(true).create(true).open(self.path());
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn read(&mut self) -> String {
            let mut text = String::new();
            self.logs.read(&mut |lines| text.push_str(std::str::from_utf8(lines).unwrap()));
            text
        }
    }

    #[test]
    fn lines_come_once_and_whole() {
        let mut followed = Followed::new();
        assert_eq!(followed.read(), "");
        assert!(
            followed.logs.troubles()[0].contains("No such file"),
            "{:?}",
            followed.logs.troubles()
        );
        followed.append("one\ntw");
        assert_eq!(followed.read(), "one\n");
        assert_eq!(followed.logs.troubles(), Vec::<String>::new());
        followed.append("o");
        assert_eq!(followed.read(), "");
        followed.append("\nthree\n");
        assert_eq!(followed.read(), "two\nthree\n");
        assert_eq!(followed.read(), "");
    }

    #[test]
    fn rotation_loses_nothing() {
        let mut followed = Followed::new();
        followed.append("one\n");
        assert_eq!(followed.read(), "one\n");
        followed.append("two\n");
        fs::rename(followed.path(), followed.dir.path().join("keys.log.1")).unwrap();
        assert_eq!(followed.read(), "two\n");
        assert_eq!(followed.logs.troubles(), Vec::<String>::new());
        followed.append("three\n");
        assert_eq!(followed.read(), "three\n");
        // A server that has the first one open still.
        let before = followed.dir.path().join("keys.log.1");
        let mut before = OpenOptions::new().append(true).open(before).unwrap();
        before.write_all(b"late\n").unwrap();
        assert_eq!(followed.read(), "late\n");
        // Cut in place.
        fs::write(followed.path(), "").unwrap();
        followed.append("4\n");
        assert_eq!(followed.read(), "4\n");
    }

    #[test]
    fn of_an_old_file_only_the_end_counts() {
        let mut followed = Followed::new();
        let line = "x".repeat(99) + "\n";
        followed.append(&line.repeat(10_000));
        let text = followed.read();
        assert!(text.len() <= START_BYTES_MAX as usize && text.len() > 60_000, "{}", text.len());
        assert!(text.lines().all(|line| line.len() == 99));
        // A new one of that name counts from its beginning.
        fs::remove_file(followed.path()).unwrap();
        followed.append(&line.repeat(10_000));
        assert_eq!(followed.read().len(), 1_000_000);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let mut followed = Followed::new();
        assert_eq!(followed.read(), "");
        for _ in 0..50 {
            followed.append(&"y".repeat(10_000));
            assert_eq!(followed.read(), "");
        }
        assert!(followed.logs.files[0].open.as_ref().unwrap().rest.len() <= LINE_BYTES_MAX);
        followed.append("\nz\n");
        assert!(followed.read().ends_with("y\nz\n"));
    }

    #[test]
    fn what_is_no_file_is_said() {
        let mut followed = Followed::new();
        fs::create_dir(followed.path()).unwrap();
        assert_eq!(followed.read(), "");
        assert!(followed.logs.troubles()[0].ends_with("keys.log: no regular file"));
    }

    #[test]
    fn what_is_no_file_is_not_followed() {
        let followed = Followed::new();
        assert!(probe(&followed.path()).is_err(), "it is not there");
        assert!(probe(followed.dir.path()).is_err(), "a folder");
        fs::write(followed.path(), "").unwrap();
        assert!(probe(&followed.path()).is_ok());
    }
}
