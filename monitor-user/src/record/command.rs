//! `keywatch record`: live capture, written down and not decoded.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, Result};
use monitor_core::engine::Impairment;
use monitor_core::input::Input;
use monitor_core::time::EventTime;

use super::{Recorder, Rotation, Totals};
use crate::capture::{Capture, Health, privilege};
use crate::cli::{RecordArgs, RecordingArgs};
use crate::config::Config;
use crate::fault::tell;
use crate::live::{self, Listener, Stop};
use crate::notify::notify;
use crate::{run, secret};

/// Records until a signal, the end of `--duration`, or a failure.
pub(crate) fn record(args: &RecordArgs, config: &Config, quiet: bool) -> Result<()> {
    let ports = run::watched_ports(&args.ports, config)?;
    privilege::require()?;
    let recorder = recorder(&args.out, &args.recording, &ports.all())?;
    let options = run::options(&args.live, config, ports);
    let runtime = run::runtime()?;
    let _inside = runtime.enter();
    let stop = Stop::new(args.live.duration)?;
    let capture = Capture::start(&options)?;
    privilege::drop_all_but_reading()?;
    recorder.check_rights()?;
    live::announce(&options, &capture);
    let mut tape = Tape { recorder, health: Health::default(), failed: None };
    let watched = runtime.block_on(live::watch(capture, stop, &mut tape));
    notify("STOPPING=1");
    let finished = tape.recorder.finish();
    if !quiet {
        tape.summarise();
    }
    watched?;
    let failed = tape.failed.map_or(finished, Err);
    failed.context("the recording ends here")
}

/// Opens the recording that the arguments describe.
pub(crate) fn recorder(path: &Path, args: &RecordingArgs, ports: &[u16]) -> Result<Recorder> {
    let rotation = Rotation { bytes: args.rotate_size, time: args.rotate_time, keep: args.keep };
    Recorder::create(path, rotation, args.zstd, secret::random_seed()?, ports)
}

/// A recorder at work, until it fails.
struct Tape {
    recorder: Recorder,
    health: Health,
    failed: Option<anyhow::Error>,
}

impl Tape {
    fn try_to(&mut self, work: impl FnOnce(&mut Recorder) -> Result<()>) -> ControlFlow<()> {
        if self.failed.is_some() {
            return ControlFlow::Break(());
        }
        match work(&mut self.recorder) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn summarise(&self) {
        let Totals { packets, bytes, files } = self.recorder.totals();
        let plural = if files == 1 { "" } else { "s" };
        tell(&format!(
            "{packets} packets, {bytes} bytes before compression, in {files} file{plural}; the \
             last is {}",
            self.recorder.path().display()
        ));
        let Health { lost_events, lost_bytes, lost_controls, .. } = self.health;
        if lost_events + lost_controls > 0 {
            tell(&format!(
                "lost: bytes {lost_bytes}, events {}; a larger ring_bytes may help",
                lost_events + lost_controls
            ));
        }
    }
}

impl Listener for Tape {
    fn handle(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self.try_to(|recorder| recorder.input(&input))
    }

    fn tick(&mut self, now: EventTime) -> ControlFlow<()> {
        self.try_to(|recorder| {
            if live::is_silent(recorder.now(), now) {
                recorder.input(&Input::Tick(now))?;
            }
            recorder.flush()
        })
    }

    fn impairment(&mut self, now: EventTime, what: &Impairment) {
        // A failure is met again, and told, with the next input.
        let _ = self.try_to(|recorder| recorder.impairment(now, what));
    }

    fn health(&mut self, health: Health) {
        self.health = health;
    }
}
