//! Joins the two state machines and the sinks: inputs in, records out, in one thread.

use std::ops::ControlFlow;

use monitor_core::call::ApiCall;
use monitor_core::decode::{Counters, Decoder};
use monitor_core::engine::{Engine, Impairment};
use monitor_core::input::Input;
use monitor_core::time::EventTime;

use crate::sinks::{Sink, Sinks};
use crate::summary::Summary;

/// Decoder, Engine and sinks as one.
pub struct Driver {
    decoder: Decoder,
    engine: Engine,
    sinks: Sinks,
    summary: Summary,
    /// Event time at which the Engine hears next that time has passed.
    timeout: EventTime,
}

impl Driver {
    /// `engine` may have learnt before.
    pub fn new(decoder: Decoder, engine: Engine, sinks: Sinks) -> Driver {
        Driver { decoder, engine, sinks, summary: Summary::default(), timeout: EventTime(0) }
    }

    /// Adds a place for records; it gets those that come from now on.
    pub fn add_sink(&mut self, sink: Box<dyn Sink>) {
        self.sinks.add(sink);
    }

    /// Takes one input and writes what comes of it. Breaks when nobody reads the output any more.
    pub fn handle(&mut self, input: Input<'_>) -> ControlFlow<()> {
        let time = time_of(&input);
        self.decoder.handle_input(input);
        self.pump();
        if let Some(now) = time {
            self.advance(now);
        }
        self.sinks.flow()
    }

    /// Time has passed, with or without traffic. Writes out what waits in buffers.
    pub fn tick(&mut self, now: EventTime) -> ControlFlow<()> {
        let flow = self.handle(Input::Tick(now));
        self.sinks.flush();
        flow
    }

    /// Capture is impaired.
    pub fn impairment(&mut self, now: EventTime, what: &Impairment) {
        match what {
            Impairment::Lost { bytes, events } => {
                self.summary.lost_bytes += bytes;
                self.summary.lost_events += events;
            }
            Impairment::Detached { program: _ } => {}
        }
        self.engine.handle_impairment(now, what);
        self.alerts();
    }

    /// No input follows: gives out what is still open, and waits for the sinks as long as they are
    /// allowed to take. True when every sink has everything.
    pub fn finish(&mut self) -> bool {
        self.decoder.finish();
        self.pump();
        self.engine.finish();
        self.alerts();
        self.sinks.finish()
    }

    /// What happened so far.
    pub fn summary(&mut self) -> &mut Summary {
        self.summary.dropped_calls = self.sinks.dropped();
        &mut self.summary
    }

    /// What the Decoder did and where it met a bound.
    pub fn counters(&self) -> &Counters {
        self.decoder.counters()
    }

    fn pump(&mut self) {
        while let Some(call) = self.decoder.poll_call() {
            self.take(&call);
        }
        while let Some(connection) = self.decoder.poll_connection() {
            self.sinks.connection(&connection);
        }
    }

    fn take(&mut self, call: &ApiCall) {
        self.summary.call(call);
        self.sinks.call(call);
        self.engine.handle_call(call);
        self.alerts();
    }

    fn alerts(&mut self) {
        while let Some(alert) = self.engine.poll_alert() {
            self.summary.alert(&alert);
            self.sinks.alert(&alert);
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

fn time_of(input: &Input<'_>) -> Option<EventTime> {
    match input {
        Input::Open(open) => Some(open.time),
        Input::Owner { flow: _, owner: _ } | Input::Secrets(_) => None,
        Input::Segment(segment) => Some(segment.time),
        Input::Lost { time, .. } | Input::Close { time, .. } => Some(*time),
        Input::Tick(time) => Some(*time),
    }
}
