//! Where records go. A sink that fails does not stop the others.

mod courier;
mod delay;
pub(crate) mod event;
pub(crate) mod file;
mod format;
pub mod jsonl;
pub mod kafka;
mod network;
pub(crate) mod record;
mod reducer;
pub(crate) mod seldom;
mod spool;
pub(crate) mod syslog;
pub mod table;
mod tls;
pub(crate) mod webhook;

pub(crate) use delay::BOUNDS_MS as DELAY_BOUNDS_MS;
pub use delay::DelayCounts;
pub use format::Format;
pub use network::Route;
pub use record::Kind;
pub use spool::WhenFull;
pub(crate) use spool::{Bounds, lock};

use std::ops::ControlFlow;

use anyhow::Result;
use monitor_core::alert::Alert;
use monitor_core::call::ApiCall;
use monitor_core::connection::Connection;
use monitor_core::time::EventTime;
use serde::Serialize;

use crate::fault::tell;

#[cfg(test)]
pub(crate) mod examples {
    //! Records for tests elsewhere.

    use super::Format;
    use super::event::tests::alert;
    use super::event::{Event, Writer};
    use super::record::View;

    /// The alert with this number in each form that has it whole.
    pub(crate) fn alert_in_every_form(number: u64) -> Vec<Vec<u8>> {
        let forms = [Format::Native, Format::Ocsf, Format::Ecs].map(|format| {
            let mut event = Event::default();
            Writer::new(format, "edge 1").write(View::Alert(&alert(number)), &mut event);
            event.body
        });
        forms.into()
    }
}

/// A place for records. An error means that the sink is done for.
pub trait Sink {
    /// Name for messages.
    fn name(&self) -> String;

    /// Takes a call; `ordinal` counts the calls of this run from 0.
    fn call(&mut self, call: &ApiCall, ordinal: u64) -> Result<()>;

    /// Takes a connection that is over; most sinks have no use for it.
    fn connection(&mut self, _connection: &Connection) -> Result<()> {
        Ok(())
    }

    /// The alerts that follow came of bytes of this time.
    fn seen(&mut self, _time: EventTime) {}

    /// Takes an alert and sees to it that it arrives soon.
    fn alert(&mut self, alert: &Alert) -> Result<()>;

    /// Writes out what waits in buffers.
    fn flush(&mut self) -> Result<()>;

    /// Nothing follows: waits, within the sink's own bound, until everything has arrived.
    fn finish(&mut self) -> Result<()>;

    /// Calls that were dropped because a queue was full.
    fn dropped(&self) -> u64 {
        0
    }

    /// What it did so far, where that is more than writing.
    fn tally(&self) -> Option<Tally> {
        None
    }
}

/// What a sink that delivers over a network did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Which: `kafka`.
    pub sink: &'static str,
    /// Records that arrived.
    pub arrived: u64,
    /// Records that the other side will never take, which were put aside.
    pub refused: u64,
    /// Times that delivery had to begin anew.
    pub failures: u64,
    /// The slowest delivery of those that were timed, microseconds: one is at any time.
    pub slowest_us: u64,
    /// Calls that had no room in the spool.
    pub dropped_calls: u64,
    /// Alerts that even the spool had no room for.
    pub lost_alerts: u64,
    /// Bytes that wait in the spool.
    pub waiting_bytes: u64,
    /// How long alerts took, from the last byte behind them until they were confirmed.
    #[serde(skip)]
    pub delays: DelayCounts,
}

/// What a failing sink means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The others go on: live, what is not watched now is gone.
    Continue,
    /// Everything ends: a replay can be repeated.
    Stop,
}

/// All sinks of a run.
pub struct Sinks {
    sinks: Vec<Box<dyn Sink>>,
    on_failure: OnFailure,
    ordinal: u64,
    dropped: u64,
    failed: bool,
    flow: ControlFlow<()>,
}

impl Sinks {
    /// None at all is fine.
    pub fn new(sinks: Vec<Box<dyn Sink>>, on_failure: OnFailure) -> Sinks {
        Sinks {
            sinks,
            on_failure,
            ordinal: 0,
            dropped: 0,
            failed: false,
            flow: ControlFlow::Continue(()),
        }
    }

    pub(crate) fn add(&mut self, sink: Box<dyn Sink>) {
        self.sinks.push(sink);
    }

    /// Adds one that has records before all others: what can be read anywhere is in its spool already,
    /// and outlives a kill.
    pub(crate) fn add_first(&mut self, sink: Box<dyn Sink>) {
        self.sinks.insert(0, sink);
    }

    /// Break: there is no more use in going on.
    pub fn flow(&self) -> ControlFlow<()> {
        self.flow
    }

    pub(crate) fn call(&mut self, call: &ApiCall) {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        self.each(|sink| sink.call(call, ordinal));
    }

    pub(crate) fn connection(&mut self, connection: &Connection) {
        self.each(|sink| sink.connection(connection));
    }

    /// `seen` is the time of the bytes that it came of.
    pub(crate) fn alert(&mut self, alert: &Alert, seen: EventTime) {
        self.each(|sink| {
            sink.seen(seen);
            sink.alert(alert)
        });
    }

    pub(crate) fn flush(&mut self) {
        self.each(|sink| sink.flush());
    }

    /// True when no sink failed.
    pub(crate) fn finish(&mut self) -> bool {
        self.each(|sink| sink.finish());
        !self.failed
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.sinks.iter().map(|sink| sink.dropped()).sum::<u64>()
    }

    /// What each sink did that delivers over a network.
    pub(crate) fn tallies(&self) -> Vec<Tally> {
        self.sinks.iter().filter_map(|sink| sink.tally()).collect()
    }

    fn each(&mut self, mut work: impl FnMut(&mut dyn Sink) -> Result<()>) {
        let mut place = 0;
        while let Some(sink) = self.sinks.get_mut(place) {
            match work(sink.as_mut()) {
                Ok(()) => place += 1,
                Err(error) => self.remove(place, &error),
            }
        }
    }

    fn remove(&mut self, place: usize, error: &anyhow::Error) {
        let sink = self.sinks.remove(place);
        self.dropped += sink.dropped();
        if error.is::<jsonl::ReaderGone>() {
            // As `keywatch … | head` ends: nobody listens, and that is no failure.
            self.flow = ControlFlow::Break(());
            return;
        }
        self.failed = true;
        let going_on = !self.sinks.is_empty() && self.on_failure == OnFailure::Continue;
        let mend = if going_on { "the other outputs go on" } else { "free the place and repeat" };
        tell(&format!("output failed: {}: {error:#}: {mend}", sink.name()));
        match self.on_failure {
            OnFailure::Continue => {}
            OnFailure::Stop => self.flow = ControlFlow::Break(()),
        }
    }
}
