//! JSON lines to a file or to stdout.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;
use monitor_core::connection::Connection;
use serde::Serialize;
use thiserror::Error;

use super::Sink;

/// Nobody reads stdout any more.
#[derive(Debug, Error)]
#[error("the reader is gone")]
pub struct ReaderGone;

/// Whether a file keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Live: earlier records stay.
    Append,
    /// Replay: the output is that of this replay.
    Truncate,
}

/// Kinds of records, as places in [`open`]'s array.
const CALLS: usize = 0;
const ALERTS: usize = 1;
const CONNECTIONS: usize = 2;

/// Writes records of one or more kinds.
pub struct JsonLines {
    name: String,
    writer: BufWriter<Box<dyn Write>>,
    line: Vec<u8>,
    /// Which kinds.
    kinds: [bool; 3],
    /// Something is written that nobody can read yet.
    dirty: bool,
}

/// Opens the files for calls, alerts and connections; one that is named twice gets whole lines of
/// both. `-` is stdout.
pub fn open(files: [Option<&Path>; 3], opening: Opening) -> Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    for (place, path) in files.iter().enumerate() {
        if let Some(path) = path
            && !files[..place].contains(&Some(path))
        {
            let kinds = files.map(|file| file == Some(path));
            sinks.push(Box::new(JsonLines::open(path, opening, kinds)?));
        }
    }
    Ok(sinks)
}

/// As large as what a pipe takes at once on Linux (pipe(7)).
const BUFFER_BYTES: usize = 64 << 10;

impl JsonLines {
    fn open(path: &Path, opening: Opening, kinds: [bool; 3]) -> Result<JsonLines> {
        let (name, writer): (_, Box<dyn Write>) = if path == Path::new("-") {
            ("stdout".into(), Box::new(io::stdout()))
        } else {
            let name = path.display().to_string();
            (
                name.clone(),
                Box::new(
                    open_file(path, opening).context(format!("cannot open the output: {name}"))?,
                ),
            )
        };
        Ok(JsonLines::new(name, writer, kinds))
    }

    fn new(name: String, writer: Box<dyn Write>, kinds: [bool; 3]) -> JsonLines {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        JsonLines { name, writer, line: Vec::new(), kinds, dirty: false }
    }

    fn write(&mut self, record: &impl Serialize) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record).context("cannot write a record as JSON")?;
        self.line.push(b'\n');
        self.dirty = true;
        let result = self.writer.write_all(&self.line);
        self.named(result)
    }

    fn named(&self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.name == "stdout" => {
                Err(ReaderGone.into())
            }
            result => Ok(result?),
        }
    }
}

fn open_file(path: &Path, opening: Opening) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.create(true);
    match opening {
        Opening::Append => options.append(true),
        // A pipe or a device cannot be cut to nothing, and need not.
        Opening::Truncate if is_special(path) => options.write(true),
        Opening::Truncate => options.write(true).truncate(true),
    };
    options.open(path)
}

fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| {
        let kind = about.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

impl Sink for JsonLines {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn call(&mut self, call: &ApiCall, _ordinal: u64) -> Result<()> {
        if self.kinds[CALLS] { self.write(call) } else { Ok(()) }
    }

    fn alert(&mut self, alert: &Alert) -> Result<()> {
        if !self.kinds[ALERTS] {
            return Ok(());
        }
        self.write(alert)?;
        self.flush()
    }

    fn connection(&mut self, connection: &Connection) -> Result<()> {
        if self.kinds[CONNECTIONS] { self.write(connection) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        let result = self.writer.flush();
        self.named(result)
    }

    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

/// Where `path` is written to, for the last lines of a run; `None` for stdout.
pub fn shown(path: &Path) -> Option<PathBuf> {
    (path != Path::new("-")).then(|| std::path::absolute(path).unwrap_or_else(|_| path.into()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let shared = Shared::default();
        let mut sink = JsonLines::new("test".into(), Box::new(shared.clone()), [true; 3]);
        let record = json!({ "text": "\"a\"\n\u{1b}[31m\u{0}\\" });
        sink.write(&record).unwrap();
        sink.write(&record).unwrap();
        sink.flush().unwrap();
        let text = String::from_utf8(shared.0.borrow().clone()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.bytes().any(|byte| byte < b' ' && byte != b'\n'));
        for line in text.lines() {
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap(), record);
        }
    }

    #[test]
    fn a_closed_stdout_is_not_a_full_disk() {
        let fails = |name: &str, kind| {
            let mut sink = JsonLines::new(name.into(), Box::new(Broken(kind)), [true; 3]);
            sink.write(&1).unwrap();
            sink.flush().unwrap_err().is::<ReaderGone>()
        };
        assert!(fails("stdout", io::ErrorKind::BrokenPipe));
        assert!(!fails("stdout", io::ErrorKind::StorageFull));
        assert!(!fails("calls.jsonl", io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn live_output_is_appended_and_replay_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.jsonl");
        let write = |opening| {
            let mut sink = JsonLines::open(&path, opening, [true; 3]).unwrap();
            sink.write(&1).unwrap();
            sink.finish().unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(write(Opening::Append), "1\n");
        assert_eq!(write(Opening::Append), "1\n1\n");
        assert_eq!(write(Opening::Truncate), "1\n");
    }
}
