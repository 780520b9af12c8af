//! Every capture in order, as one stream of inputs.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Result;
use monitor_core::call::ApiCall;
use monitor_core::decode::Decoder;
use monitor_core::engine::{Feedback, Impairment};
use monitor_core::input::Input;
use monitor_core::time::EventTime;

use super::progress::Progress;
use super::recording::{Aside, Recording};
use super::sources::{STDIN, Source, Sources};
use super::{Captures, Fault, Recall, Tally};
use crate::fault::tell;

/// Takes what the captures hold.
pub(crate) trait Taker {
    /// Takes one input. Breaks when it is enough.
    fn input(&mut self, input: Input<'_>) -> ControlFlow<()>;

    /// Capture was impaired while a recording was made.
    fn impairment(&mut self, time: EventTime, what: &Impairment);

    /// A recording says which ports are servers'.
    fn ports(&mut self, ports: &[u16]);

    /// Somebody said something of an alert.
    fn said(&mut self, _feedback: &Feedback) {}

    /// Calls so far.
    fn calls(&self) -> u64;
}

/// What came of reading.
pub(super) struct Read {
    pub(super) tally: Tally,
    /// Segments that are of none of the ports.
    pub(super) other_ports: u64,
    /// False when a capture could not be read to its end; it was told.
    pub(super) all_read: bool,
}

/// Gives each call to `each`, without a word on how far it has come. Gives back the Decoder, and false
/// when a capture could not be read.
pub(crate) fn each_call(
    files: &[PathBuf],
    ports: &[u16],
    decoder: Decoder,
    each: impl FnMut(&ApiCall),
) -> Result<(Decoder, bool)> {
    let sources = Sources::find(files, None)?;
    let progress = Progress::new(&sources, true, false);
    let mut calls = Calls { decoder, each };
    let Read { all_read, .. } = read_all(&sources, ports, progress, &mut calls);
    while calls.decoder.finish_one() {
        calls.take();
    }
    calls.take();
    Ok((calls.decoder, all_read))
}

/// Decodes, and hands on what comes of it.
struct Calls<F> {
    decoder: Decoder,
    each: F,
}

impl<F: FnMut(&ApiCall)> Calls<F> {
    fn take(&mut self) {
        while let Some(call) = self.decoder.poll_call() {
            (self.each)(&call);
        }
        while self.decoder.poll_connection().is_some() {}
    }
}

impl<F: FnMut(&ApiCall)> Taker for Calls<F> {
    fn input(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self.decoder.handle_input(input);
        self.take();
        ControlFlow::Continue(())
    }

    fn impairment(&mut self, _time: EventTime, _what: &Impairment) {}

    fn ports(&mut self, ports: &[u16]) {
        self.decoder.add_server_ports(ports);
    }

    fn calls(&self) -> u64 {
        self.decoder.counters().calls
    }
}

/// Reads all; a file that cannot be read does not stop the others.
pub(super) fn read_all(
    sources: &Sources,
    ports: &[u16],
    progress: Progress,
    taker: &mut dyn Taker,
) -> Read {
    let tally = Tally { other_files: sources.other_files, ..Tally::default() };
    let mut reading = Reading {
        captures: Captures::default(),
        recording: Recording::default(),
        ports,
        progress,
        tally,
        other_ports: 0,
    };
    let mut all_read = true;
    for source in &sources.files {
        let trouble = match &source.trouble {
            Some(trouble) => trouble.clone(),
            None => match reading.file(source, taker) {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => break,
                Err(fault) if source.found && fault.is_other_file() => {
                    tracing::debug!(file = %source.path.display(), %fault, "no capture; left out");
                    reading.tally.other_files += 1;
                    continue;
                }
                Err(fault) => fault.to_string(),
            },
        };
        reading.progress.clear();
        tell(&format!("cannot replay: {}: {trouble}", source.path.display()));
        all_read = false;
    }
    reading.progress.clear();
    let Reading { mut captures, mut tally, other_ports, .. } = reading;
    captures.finish(&mut tally);
    Read { tally, other_ports, all_read }
}

/// What goes on from file to file.
struct Reading<'a> {
    captures: Captures,
    recording: Recording,
    ports: &'a [u16],
    progress: Progress,
    tally: Tally,
    other_ports: u64,
}

impl Reading<'_> {
    fn file(&mut self, source: &Source, taker: &mut dyn Taker) -> Result<ControlFlow<()>, Fault> {
        let reader: Box<dyn io::Read> = if source.path == Path::new(STDIN) {
            Box::new(io::stdin())
        } else {
            let file = File::open(&source.path);
            Box::new(file.map_err(|error| Fault::Read { offset: 0, error })?)
        };
        let reader = self.progress.watch(&source.path, reader);
        let calls = self.progress.calls();
        let (recording, ports, other_ports) =
            (&mut self.recording, self.ports, &mut self.other_ports);
        let asides = RefCell::new(Vec::new());
        let mut last = ControlFlow::Continue(());
        let recall: &mut Recall<'_> =
            &mut |packet| recording.recall(packet, &mut asides.borrow_mut());
        let mut each = |input: Input<'_>| {
            tell_asides(&asides, taker);
            if is_of(&input, ports) {
                last = taker.input(input);
                calls.set(taker.calls());
            } else {
                *other_ports += 1;
            }
            last
        };
        let result = self.captures.read(reader, &mut self.tally, recall, &mut each);
        tell_asides(&asides, taker);
        result.map(|()| last)
    }
}

/// What was told since the last input.
fn tell_asides(asides: &RefCell<Vec<Aside>>, taker: &mut dyn Taker) {
    if asides.borrow().is_empty() {
        return;
    }
    for aside in asides.borrow_mut().drain(..) {
        match aside {
            Aside::Impairment(time, what) => taker.impairment(time, &what),
            Aside::Ports(ports) => taker.ports(&ports),
            Aside::Said(feedback) => taker.said(&feedback),
        }
    }
}

/// Whether one of the two ends is watched; with no ports all are.
fn is_of(input: &Input<'_>, ports: &[u16]) -> bool {
    let watched = |port| ports.is_empty() || ports.contains(&port);
    match input {
        Input::Segment(segment) => watched(segment.target.port) || watched(segment.source.port),
        Input::Open(open) => watched(open.flow.server.port),
        Input::Plain(plain) => watched(plain.flow.server.port),
        Input::Owner { flow, .. } | Input::Lost { flow, .. } | Input::Close { flow, .. } => {
            watched(flow.server.port)
        }
        Input::Secrets(_) | Input::Tick(_) => true,
    }
}
