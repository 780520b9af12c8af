//! How far a replay is, on a terminal, for captures that take their time.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::sources::{STDIN, Sources};
use crate::fault::write_stderr;
use crate::shown::{Bytes, harmless};

const INTERVAL: Duration = Duration::from_millis(500);
/// Erases the line.
const CLEAR: &str = "\r\x1b[K";

/// Over all captures.
pub(super) struct Progress {
    shared: Rc<Shared>,
    files: usize,
    /// The capture that is read, from 1.
    number: usize,
}

struct Shared {
    visible: bool,
    /// Bytes of all captures; `None` when that is not known.
    total: Option<u64>,
    done: Cell<u64>,
    calls: Rc<Cell<u64>>,
    started: Instant,
    next: Cell<Instant>,
    shown: Cell<bool>,
}

impl Progress {
    /// `busy`: the terminal is written to anyway.
    pub(super) fn new(sources: &Sources, quiet: bool, busy: bool) -> Progress {
        let visible = !quiet && !busy && io::stderr().is_terminal();
        let length = |path: &Path| {
            let about = path.metadata().ok().filter(|about| about.is_file() && path != STDIN);
            about.map(|about| about.len())
        };
        let lengths = sources.files.iter().filter(|source| source.trouble.is_none());
        let total = if visible { lengths.map(|source| length(&source.path)).sum() } else { None };
        let started = Instant::now();
        let shared = Shared {
            visible,
            total,
            done: Cell::new(0),
            calls: Rc::default(),
            started,
            next: Cell::new(started + INTERVAL),
            shown: Cell::new(false),
        };
        Progress { shared: Rc::new(shared), files: sources.files.len(), number: 0 }
    }

    /// Where calls are counted.
    pub(super) fn calls(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.shared.calls)
    }

    /// Begins the next capture.
    pub(super) fn watch<R: Read>(&mut self, path: &Path, reader: R) -> Watched<R> {
        self.number += 1;
        let place = match self.files {
            1 => String::new(),
            files => format!("{} of {files}: ", self.number),
        };
        let name = format!("{place}{}", harmless(&path.to_string_lossy()));
        Watched { reader, name, shared: Rc::clone(&self.shared) }
    }

    /// Takes it from the terminal.
    pub(super) fn clear(&self) {
        if self.shared.shown.take() {
            write_stderr(CLEAR);
        }
    }
}

/// A capture that is read.
pub(super) struct Watched<R> {
    reader: R,
    name: String,
    shared: Rc<Shared>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        let shared = &self.shared;
        shared.done.set(shared.done.get() + got as u64);
        if shared.visible {
            let now = Instant::now();
            if now >= shared.next.get() {
                shared.next.set(now + INTERVAL);
                shared.shown.set(true);
                let elapsed = now.duration_since(shared.started);
                let state = state(shared.done.get(), shared.total, shared.calls.get(), elapsed);
                write_stderr(&format!("{CLEAR}keywatch: {}: {state}", self.name));
            }
        }
        Ok(got)
    }
}

/// `42 %, 310 MB/s, 12345 calls, 7 s left`.
fn state(done: u64, total: Option<u64>, calls: u64, elapsed: Duration) -> String {
    let pace = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let rest = format!("{}B/s, {calls} calls", Bytes(pace as u64));
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{}B, {rest}", Bytes(done));
    };
    // A file may grow while it is read.
    let done = done.min(total);
    let percent = u128::from(done) * 100 / u128::from(total);
    let left = (total - done) as f64 / pace.max(1.0);
    format!("{percent} %, {rest}, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_people_ask() {
        let two = Duration::from_secs(2);
        for (done, total, text) in [
            (500_000_000, Some(2_000_000_000), "25 %, 250MB/s, 7 calls, 6 s left"),
            (500_000_000, None, "500MB, 250MB/s, 7 calls"),
            (10, Some(5), "100 %, 5B/s, 7 calls, 0 s left"),
            (0, Some(0), "0B, 0B/s, 7 calls"),
            (0, Some(10), "0 %, 0B/s, 7 calls, 10 s left"),
        ] {
            assert_eq!(state(done, total, 7, two), text);
        }
    }
}
