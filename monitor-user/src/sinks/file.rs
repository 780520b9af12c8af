//! A file in any form, left for a new one when it is large enough; or stdout.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;

use super::Sink;
use super::event::{Event, Writer};
use super::jsonl::ReaderGone;
use super::network::Route;
use super::record::{Kind, View};
use crate::config;

/// As large as what a pipe takes at once on Linux (pipe(7)).
const BUFFER_BYTES: usize = 64 << 10;

/// See the module.
pub(crate) struct Lines {
    name: String,
    writer: BufWriter<Box<dyn Write>>,
    /// `None`: stdout.
    rotation: Option<Rotation>,
    events: Writer,
    route: Route,
    event: Event,
}

struct Rotation {
    path: PathBuf,
    bytes: u64,
    bytes_max: u64,
    keep: u32,
}

impl Lines {
    /// Goes on with a file that is there.
    pub(crate) fn file(set: &config::File, path: &Path, host: &str) -> Result<Lines> {
        let file = open(path)?;
        let bytes = file.metadata().context("cannot look at the output")?.len();
        Ok(Lines {
            name: path.display().to_string(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, Box::new(file)),
            rotation: Some(Rotation {
                path: path.into(),
                bytes,
                bytes_max: set.rotate_bytes,
                keep: set.keep,
            }),
            events: Writer::new(set.format, host),
            route: set.route(),
            event: Event::default(),
        })
    }

    /// Writes to stdout.
    pub(crate) fn stdout(set: &config::Stdout, host: &str) -> Lines {
        Lines {
            name: "stdout".into(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, Box::new(io::stdout())),
            rotation: None,
            events: Writer::new(set.format, host),
            route: set.route(),
            event: Event::default(),
        }
    }

    fn write(&mut self, record: View<'_>) -> Result<()> {
        self.events.write(record, &mut self.event);
        self.event.body.push(b'\n');
        let bytes = self.event.body.len() as u64;
        if let Some(rotation) = &mut self.rotation {
            if rotation.bytes > 0 && rotation.bytes + bytes > rotation.bytes_max {
                self.writer.flush()?;
                let file = rotation.turn()?;
                self.writer = BufWriter::with_capacity(BUFFER_BYTES, Box::new(file));
            }
            rotation.bytes += bytes;
        }
        let result = self.writer.write_all(&self.event.body);
        self.named(result)
    }

    fn named(&self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.rotation.is_none() => {
                Err(ReaderGone.into())
            }
            result => Ok(result?),
        }
    }
}

impl Rotation {
    /// `alerts.jsonl` becomes `alerts.jsonl.1`, that becomes `.2`, and the oldest goes.
    fn turn(&mut self) -> Result<File> {
        for number in (1..self.keep).rev() {
            let from = self.numbered(number);
            if from.exists() {
                std::fs::rename(&from, self.numbered(number + 1)).context("cannot rotate")?;
            }
        }
        match self.keep {
            0 => std::fs::remove_file(&self.path),
            _ => std::fs::rename(&self.path, self.numbered(1)),
        }
        .context("cannot rotate")?;
        self.bytes = 0;
        open(&self.path)
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o640).open(path);
    file.with_context(|| format!("cannot open the output: {}", path.display()))
}

impl Sink for Lines {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn call(&mut self, call: &ApiCall, ordinal: u64) -> Result<()> {
        match self.route.takes(Kind::Activity, None) {
            true => self.write(View::Call { call, ordinal }),
            false => Ok(()),
        }
    }

    fn alert(&mut self, alert: &Alert) -> Result<()> {
        if !self.route.takes(Kind::Alert, Some(alert.severity)) {
            return Ok(());
        }
        self.write(View::Alert(alert))?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let result = self.writer.flush();
        self.named(result)
    }

    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::alert::Severity;

    use super::*;
    use crate::sinks::event::tests::alert;

    #[test]
    fn files_are_left_when_full_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        let set = config::File { rotate_bytes: 6000, keep: 2, ..config::File::default() };
        let mut sink = Lines::file(&set, &path, "edge").unwrap();
        let before = Lines::file(&set, &path, "edge").unwrap();
        drop(before);
        for number in 0..20 {
            sink.alert(&alert(number)).unwrap();
        }
        sink.finish().unwrap();
        let names = ["alerts.jsonl.2", "alerts.jsonl.1", "alerts.jsonl"];
        let mut ids = Vec::new();
        for name in names {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() <= 6000, "{name}: {}", text.len());
            for line in text.lines() {
                let finding: serde_json::Value = serde_json::from_str(line).unwrap();
                ids.push(finding["finding_info"]["uid"].as_str().unwrap().to_owned());
            }
        }
        assert!(!dir.path().join("alerts.jsonl.3").exists());
        // What is left is the newest, whole and in order.
        let first = 20 - ids.len() as u64;
        let expected: Vec<_> = (first..20).map(|number| format!("a_{number:016x}")).collect();
        assert_eq!(ids, expected);
        assert!(ids.len() >= 6);
    }

    #[test]
    fn only_what_is_routed_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        let set = config::File { severity_min: Severity::High, ..config::File::default() };
        let mut sink = Lines::file(&set, &path, "edge").unwrap();
        for (number, severity) in
            [Severity::Low, Severity::Medium, Severity::High, Severity::Critical].iter().enumerate()
        {
            sink.alert(&Alert { severity: *severity, ..alert(number as u64) }).unwrap();
        }
        sink.call(&crate::compact::tests::full(), 0).unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
