//! The files of a recording: one, or a sequence that is turned by size and time; plain or zstd.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// When a file is full, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes before compression.
    pub(crate) bytes: Option<u64>,
    /// Event time.
    pub(crate) time: Option<Duration>,
    /// Files kept; older ones are deleted.
    pub(crate) keep: Option<u64>,
}

impl Rotation {
    fn turns(&self) -> bool {
        self.bytes.is_some() || self.time.is_some()
    }
}

/// A second of fast traffic comes in hundreds of writes, not in hundreds of thousands.
const BUFFER_BYTES: usize = 256 << 10;

/// Raw traffic holds credentials: for its owner alone.
const MODE: u32 = 0o600;

/// Where packets go.
pub(super) struct Files {
    place: Place,
    output: Option<Output>,
    zstd: bool,
    keep: Option<u64>,
    bytes: u64,
    /// Something was written since the last flush.
    dirty: bool,
}

enum Place {
    Stdout,
    One(PathBuf),
    Sequence(Sequence),
}

enum Output {
    Plain(BufWriter<Box<dyn Write>>),
    Zstd(zstd::Encoder<'static, BufWriter<Box<dyn Write>>>),
}

impl Files {
    pub(super) fn create(path: &Path, rotation: Rotation, zstd: bool) -> Result<Files> {
        let place = if path == Path::new("-") {
            Place::Stdout
        } else if rotation.turns() {
            Place::Sequence(Sequence::after_those_of(path)?)
        } else {
            Place::One(path.into())
        };
        let zstd = zstd || path.extension().is_some_and(|extension| extension == "zst");
        let mut files =
            Files { place, output: None, zstd, keep: rotation.keep, bytes: 0, dirty: false };
        files.output = Some(files.open()?);
        files.prune();
        Ok(files)
    }

    /// The present file.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Stdout => "stdout".into(),
            Place::One(path) => path.clone(),
            Place::Sequence(sequence) => sequence.path(sequence.last),
        }
    }

    /// Its name, for messages.
    pub(super) fn shown(&self) -> String {
        self.path().display().to_string()
    }

    pub(super) fn check_rights(&self) -> Result<()> {
        use rustix::fs::{Access, access};
        let Place::Sequence(sequence) = &self.place else { return Ok(()) };
        access(&sequence.dir, Access::WRITE_OK | Access::EXEC_OK).with_context(|| {
            format!(
                "the next file of the recording could not be made in {} after rights are given up; \
                 chown it to this user",
                sequence.dir.display()
            )
        })
    }

    /// Bytes in the present file that count towards its size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn count_from_here(&mut self) {
        self.bytes = 0;
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.dirty = true;
        match &mut self.output {
            Some(Output::Plain(writer)) => writer.write_all(bytes),
            Some(Output::Zstd(encoder)) => encoder.write_all(bytes),
            None => Err(io::Error::other("the recording is closed")),
        }
    }

    /// What was written can be read, even if nothing follows: a zstd block is ended, too.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        match &mut self.output {
            Some(Output::Plain(writer)) => writer.flush(),
            Some(Output::Zstd(encoder)) => encoder.flush(),
            None => Ok(()),
        }
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self.output.take() {
            Some(Output::Plain(mut writer)) => writer.flush(),
            Some(Output::Zstd(encoder)) => encoder.finish()?.flush(),
            None => Ok(()),
        }
    }

    /// Ends the present file and begins the next.
    pub(super) fn next(&mut self) -> Result<()> {
        self.finish()?;
        if let Place::Sequence(sequence) = &mut self.place {
            sequence.last += 1;
        }
        self.output = Some(self.open()?);
        self.bytes = 0;
        self.prune();
        Ok(())
    }

    fn open(&self) -> Result<Output> {
        let writer: Box<dyn Write> = match &self.place {
            Place::Stdout => Box::new(io::stdout()),
            Place::One(path) => Box::new(make(path)?),
            Place::Sequence(sequence) => Box::new(make(&sequence.path(sequence.last))?),
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        if !self.zstd {
            return Ok(Output::Plain(writer));
        }
        let mut encoder = zstd::Encoder::new(writer, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Output::Zstd(encoder))
    }

    /// Deletes the oldest files. One that cannot be deleted is no reason to stop recording.
    fn prune(&mut self) {
        let (Some(keep), Place::Sequence(sequence)) = (self.keep, &mut self.place) else { return };
        let oldest = (sequence.last + 1).saturating_sub(keep.max(1));
        let gone = sequence.there.partition_point(|number| *number < oldest);
        for number in sequence.there.drain(..gone) {
            let path = sequence.stem.path(number);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "an old recording stays");
            }
        }
        sequence.there.push(sequence.last);
    }
}

/// A new file for its owner alone. What is there already is evidence, and stays; a pipe or a device
/// is written to.
fn make(path: &Path) -> Result<File> {
    use std::os::unix::fs::FileTypeExt;
    let special = path.metadata().is_ok_and(|about| {
        let kind = about.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket()
    });
    let mut options = OpenOptions::new();
    options.write(true).mode(MODE).create_new(!special);
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("it is there already; name another or move it away")
        }
        _ => error.into(),
    })
}

/// `traffic.pcapng` becomes `traffic.000001.pcapng`, `traffic.000002.pcapng`, ...
struct Sequence {
    stem: Stem,
    dir: PathBuf,
    /// Number of the present file.
    last: u64,
    /// Numbers of the files that are there, oldest first.
    there: Vec<u64>,
}

/// Parts of a name around its number.
struct Stem {
    dir: PathBuf,
    before: String,
    after: String,
}

impl Stem {
    fn of(path: &Path) -> Result<Stem> {
        let name = path.file_name().context("it has no name")?;
        let name = name.to_str().context("its name is not text")?;
        let (rest, zst) = match name.strip_suffix(".zst") {
            Some(rest) => (rest, ".zst"),
            None => (name, ""),
        };
        let (before, extension) = match rest.rsplit_once('.') {
            Some((before, extension)) if !before.is_empty() => (before, format!(".{extension}")),
            Some(_) | None => (rest, String::new()),
        };
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.into(),
            Some(_) | None => PathBuf::from("."),
        };
        Ok(Stem { dir, before: before.into(), after: format!("{extension}{zst}") })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}.{number:06}{}", self.before, self.after))
    }

    /// The number in a file's name.
    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.before)?.strip_prefix('.')?;
        let digits = digits.strip_suffix(&self.after)?;
        let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    }
}

impl Sequence {
    /// The files that follow those which earlier runs left.
    fn after_those_of(path: &Path) -> Result<Sequence> {
        let stem = Stem::of(path)?;
        let entries = std::fs::read_dir(&stem.dir)?;
        let mut there: Vec<u64> =
            entries.filter_map(|entry| stem.number(entry.ok()?.file_name().to_str()?)).collect();
        there.sort_unstable();
        let last = there.last().map_or(1, |last| last.saturating_add(1));
        Ok(Sequence { dir: stem.dir.clone(), stem, last, there })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.stem.path(number)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn one_file_is_for_its_owner_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        let mut files = Files::create(&path, Rotation::default(), false).unwrap();
        files.write(b"one").unwrap();
        files.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Files::create(&path, Rotation::default(), false).err().unwrap();
        assert!(refused.to_string().contains("there already"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_sequence_goes_on_where_it_was_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng.zst");
        for name in ["a.000007.pcapng.zst", "a.7.pcapng.zst", "a.pcapng", "b.000009.pcapng.zst"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let rotation = Rotation { bytes: Some(1), time: None, keep: Some(2) };
        let mut files = Files::create(&path, rotation, false).unwrap();
        assert_eq!(files.path(), dir.path().join("a.000008.pcapng.zst"));
        assert!(names(dir.path()).contains(&"a.000007.pcapng.zst".into()));
        files.next().unwrap();
        files.next().unwrap();
        files.finish().unwrap();
        let expected = [
            "a.000009.pcapng.zst",
            "a.000010.pcapng.zst",
            "a.7.pcapng.zst",
            "a.pcapng",
            "b.000009.pcapng.zst",
        ];
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn what_was_flushed_can_be_read_from_a_zstd_file_that_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        let mut files = Files::create(&path, Rotation::default(), true).unwrap();
        files.write(b"flushed").unwrap();
        files.flush().unwrap();
        files.write(b"not flushed").unwrap();
        let mut read = Vec::new();
        let mut decoder = zstd::Decoder::new(File::open(&path).unwrap()).unwrap();
        io::Read::read_to_end(&mut decoder, &mut read).unwrap_err();
        assert_eq!(read, b"flushed");
    }
}
