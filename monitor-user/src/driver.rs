//! Joins the two state machines and the sinks: inputs in, records out, in one thread.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;

use monitor_core::call::ApiCall;
use monitor_core::decode::{Counters, Decoder};
use monitor_core::engine::{Engine, Feedback, Impairment};
use monitor_core::input::Input;
use monitor_core::time::EventTime;

use crate::baseline::Keeper;
use crate::capture::Health;
use crate::fault::tell;
use crate::live::{self, Listener};
use crate::metrics::{Board, Figures};
use crate::policy;
use crate::profiles;
use crate::record::Recorder;
use crate::replay::reading::Taker;
use crate::secret;
use crate::selection::Selection;
use crate::sinks::{Sink, Sinks};
use crate::summary::Summary;

/// Decoder, Engine and sinks as one.
pub struct Driver {
    decoder: Decoder,
    /// Room for finished calls; empty but while they are handed on.
    calls: VecDeque<ApiCall>,
    engine: Engine,
    sinks: Sinks,
    summary: Summary,
    /// Writes down what comes in, before it is decoded.
    recorder: Option<Recorder>,
    /// Writes down what the Engine learns.
    keeper: Option<Keeper>,
    /// Folder of profiles that are read again when that is asked for, and the file of the secret.
    profiles: Option<PathBuf>,
    secret: Option<PathBuf>,
    /// The same of the policy; its registry may be asked for changes.
    policy: Option<policy::Source>,
    /// What is written and summed up; `None`: everything.
    selection: Option<Selection>,
    /// Where figures are shown.
    board: Option<Board>,
    /// True once the recorder has failed.
    recording_failed: bool,
    /// Event time of the last input that has one.
    last: EventTime,
    /// Event time at which the Engine hears next that time has passed.
    timeout: EventTime,
}

impl Driver {
    /// `engine` may have learnt before.
    pub fn new(decoder: Decoder, engine: Engine, sinks: Sinks) -> Driver {
        Driver {
            decoder,
            calls: VecDeque::new(),
            engine,
            sinks,
            summary: Summary::default(),
            recorder: None,
            keeper: None,
            profiles: None,
            secret: None,
            policy: None,
            selection: None,
            board: None,
            recording_failed: false,
            last: EventTime(0),
            timeout: EventTime(0),
        }
    }

    /// Writes down what comes in from now on.
    pub(crate) fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Writes down what is learnt from now on.
    pub(crate) fn keep(&mut self, keeper: Keeper) {
        self.keeper = Some(keeper);
    }

    /// Where profiles and the secret are that are read again when that is asked for.
    pub(crate) fn read_again(&mut self, profiles: Option<PathBuf>, secret: PathBuf) {
        (self.profiles, self.secret) = (profiles, Some(secret));
    }

    /// Judges by a policy, which may change.
    pub(crate) fn set_policy(&mut self, source: policy::Source) {
        self.engine.set_policy(source.policy());
        self.policy = Some(source);
    }

    /// Asks the policy's registry for changes from now on.
    pub(crate) fn watch_policy(&mut self) {
        if let Some(source) = &mut self.policy {
            source.watch();
        }
    }

    /// Writes and sums up only what is selected.
    pub(crate) fn select(&mut self, selection: Option<Selection>) {
        self.selection = selection;
    }

    /// Shows figures there, a few times a second.
    pub(crate) fn show_on(&mut self, board: Board) {
        self.board = Some(board);
    }

    /// For what goes to the Decoder alone.
    pub(crate) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// Checks that what is written can be gone on with when rights have been given up.
    pub(crate) fn check_rights(&self) -> anyhow::Result<()> {
        self.recorder.as_ref().map_or(Ok(()), Recorder::check_rights)
    }

    /// Ports that are known to belong to servers, besides those known before.
    pub(crate) fn add_server_ports(&mut self, ports: &[u16]) {
        self.decoder.add_server_ports(ports);
    }

    /// Adds a place for records; it gets those that come from now on.
    pub fn add_sink(&mut self, sink: Box<dyn Sink>) {
        self.sinks.add(sink);
    }

    /// The same for one that keeps what is to outlive a kill: it gets records before the others.
    pub(crate) fn add_sink_first(&mut self, sink: Box<dyn Sink>) {
        self.sinks.add_first(sink);
    }

    /// Takes one input and writes what comes of it. Breaks when nobody reads the output any more.
    pub fn handle(&mut self, input: Input<'_>) -> ControlFlow<()> {
        let time = time_of(&input);
        self.tape(|recorder| recorder.input(&input));
        if let (Some(selection), Some(time)) = (&mut self.selection, time) {
            selection.begin(time);
        }
        if let Some(now) = time {
            self.last = now;
        }
        self.decoder.handle_input(input);
        self.pump();
        if let Some(now) = time {
            self.advance(now);
        }
        self.sinks.flow()
    }

    /// The wall clock says `now`: an input where nothing else told the time for long. Writes out
    /// what waits in buffers.
    pub fn tick(&mut self, now: EventTime) -> ControlFlow<()> {
        if live::is_silent(self.last, now) {
            // That nobody reads any more is known below as well.
            let _ = self.handle(Input::Tick(now));
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.tick(now, &mut self.engine);
        }
        self.tape_said();
        if let Some(policy) = self.policy.as_mut().and_then(policy::Source::changed) {
            self.engine.set_policy(policy);
        }
        self.tape(Recorder::flush);
        self.sinks.flush();
        self.show();
        self.sinks.flow()
    }

    /// Capture is impaired.
    pub fn impairment(&mut self, now: EventTime, what: &Impairment) {
        self.tape(|recorder| recorder.impairment(now, what));
        match what {
            Impairment::Lost { bytes, events } => {
                let Summary { lost_bytes, lost_events, .. } = &mut self.summary;
                *lost_bytes = lost_bytes.saturating_add(*bytes);
                *lost_events = lost_events.saturating_add(*events);
            }
            Impairment::Detached { program: _ } | Impairment::Unseen { what: _ } => {}
        }
        self.engine.handle_impairment(now, what);
        self.alerts();
    }

    /// Somebody said something of an alert, at this place of a recording. Where the replay has no such alert,
    /// because it began with another baseline, it is named and passed over.
    pub(crate) fn said(&mut self, feedback: &Feedback) {
        self.tape(|recorder| recorder.feedback(feedback));
        if let Err(error) = self.engine.handle_feedback(feedback) {
            tell(&format!("feedback of the recording is passed over: {error}"));
        }
    }

    /// No input follows: gives out what is still open, and waits for the sinks as long as they are
    /// allowed to take. True when every sink has everything.
    pub fn finish(&mut self) -> bool {
        // Flow by flow: all that many of them still have to say would take more memory than they do.
        while self.decoder.finish_one() {
            self.pump();
        }
        self.pump();
        self.engine.finish();
        self.alerts();
        self.tape(Recorder::finish);
        let keeper = self.keeper.take();
        let is_kept = keeper.is_none_or(|keeper| keeper.finish(&mut self.engine));
        self.sinks.finish() && !self.recording_failed && is_kept
    }

    /// What happened so far.
    pub fn summary(&mut self) -> &mut Summary {
        self.summary.dropped_calls = self.sinks.dropped();
        self.summary.sinks = self.sinks.tallies();
        &mut self.summary
    }

    /// What the Decoder did and where it met a bound.
    pub fn counters(&self) -> &Counters {
        self.decoder.counters()
    }

    fn show(&mut self) {
        let Some(board) = &self.board else { return };
        let mut figures = Figures::default();
        figures.decoder(self.decoder.counters());
        figures.engine(&self.engine);
        if let Some(health) = &self.summary.capture {
            figures.capture(health);
        }
        figures.counter("dropped_calls", "Calls that reached no sink", self.sinks.dropped());
        figures.sinks(&self.sinks.tallies());
        board.show(figures);
    }

    /// A recording that fails ends; everything else goes on.
    fn tape(&mut self, work: impl FnOnce(&mut Recorder) -> anyhow::Result<()>) {
        let Some(recorder) = &mut self.recorder else { return };
        if let Err(error) = work(recorder) {
            tell(&format!("output failed: {error:#}: the recording ends; all else goes on"));
            self.recorder = None;
            self.recording_failed = true;
        }
    }

    /// Writes down what the Engine was told that people said, before anything that follows it.
    fn tape_said(&mut self) {
        let said = self.keeper.as_mut().map_or_else(Vec::new, Keeper::take_said);
        for feedback in said {
            self.tape(|recorder| recorder.feedback(&feedback));
        }
    }

    fn pump(&mut self) {
        if self.decoder.take_calls(&mut self.calls) {
            let mut calls = std::mem::take(&mut self.calls);
            for call in &calls {
                self.take(call);
            }
            calls.clear();
            self.calls = calls;
        }
        while let Some(connection) = self.decoder.poll_connection() {
            if self.selection.as_mut().is_none_or(|it| it.connection(&connection)) {
                self.summary.connection(&connection);
                self.sinks.connection(&connection);
            }
        }
    }

    fn take(&mut self, call: &ApiCall) {
        if self.selection.as_mut().is_none_or(|it| it.call(call)) {
            self.summary.call(call);
            self.sinks.call(call);
        }
        self.engine.handle_call(call);
        self.alerts();
    }

    fn alerts(&mut self) {
        while let Some(alert) = self.engine.poll_alert() {
            if let Some(keeper) = &mut self.keeper {
                keeper.hurry();
            }
            if self.selection.as_ref().is_none_or(|it| it.alert(&alert)) {
                self.summary.alert(&alert);
                self.sinks.alert(&alert, self.last);
            }
        }
    }

    /// Tells the Engine the time once a second of event time, live and replayed alike.
    fn advance(&mut self, now: EventTime) {
        if now >= self.timeout {
            let second = EventTime(now.secs() * 1_000_000_000);
            self.timeout = EventTime(second.0.saturating_add(1_000_000_000));
            self.engine.handle_timeout(second);
            self.alerts();
        }
    }
}

impl Listener for Driver {
    fn handle(&mut self, input: Input<'_>) -> ControlFlow<()> {
        Driver::handle(self, input)
    }

    fn tick(&mut self, now: EventTime) -> ControlFlow<()> {
        Driver::tick(self, now)
    }

    fn impairment(&mut self, now: EventTime, what: &Impairment) {
        Driver::impairment(self, now, what);
    }

    fn reload(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.read_feedback(&mut self.engine);
        }
        self.tape_said();
        if let Some(policy) = self.policy.as_mut().and_then(policy::Source::read_again) {
            self.engine.set_policy(policy);
        }
        if let Some(path) = &self.secret {
            match secret::load(path, secret::Count::Now) {
                Ok(secret) => {
                    tell(&format!("secret read again: {}", path.display()));
                    self.decoder.identifier().set_secret(&secret);
                }
                Err(error) => tell(&format!("{error:#}: the secret in use stays")),
            }
        }
        let Some(dir) = &self.profiles else { return };
        match profiles::load(dir) {
            Ok(profiles) => {
                tell(&format!("profiles read again: {}", dir.display()));
                self.decoder.identifier().set_profiles(profiles);
            }
            Err(error) => tell(&format!("{error:#}: the profiles in use stay")),
        }
    }

    fn health(&mut self, health: Health) {
        self.summary.capture = Some(health);
    }
}

impl Taker for Driver {
    fn input(&mut self, input: Input<'_>) -> ControlFlow<()> {
        Driver::handle(self, input)
    }

    fn impairment(&mut self, time: EventTime, what: &Impairment) {
        Driver::impairment(self, time, what);
    }

    fn ports(&mut self, ports: &[u16]) {
        self.add_server_ports(ports);
    }

    fn said(&mut self, feedback: &Feedback) {
        Driver::said(self, feedback);
    }

    fn calls(&self) -> u64 {
        self.decoder.counters().calls
    }
}

fn time_of(input: &Input<'_>) -> Option<EventTime> {
    match input {
        Input::Open(open) => Some(open.time),
        Input::Owner { flow: _, owner: _ } | Input::Secrets(_) => None,
        Input::Segment(segment) => Some(segment.time),
        Input::Plain(plain) => Some(plain.time),
        Input::Lost { time, .. } | Input::Close { time, .. } => Some(*time),
        Input::Tick(time) => Some(*time),
    }
}
