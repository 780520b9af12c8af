//! The Engine: API calls in, alerts out.

use crate::alert::Alert;
use crate::call::ApiCall;
use crate::time::EventTime;

/// Bounds and thresholds of the Engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Host name that alerts carry.
    pub host: String,
}

/// Capture itself is impaired.
#[derive(Clone, Debug, PartialEq)]
pub enum Impairment {
    /// Bytes were lost between kernel and user side.
    Lost {
        /// Payload bytes.
        bytes: u64,
        /// Records that did not fit.
        events: u64,
    },
    /// A kernel program is no longer attached.
    Detached {
        /// Its name.
        program: String,
    },
}

/// Learns how every key behaves and flags what does not fit.
pub struct Engine {
    _settings: Settings,
}

impl Engine {
    /// Without any history.
    pub fn new(settings: Settings) -> Engine {
        Engine { _settings: settings }
    }

    /// One call, roughly in order of time.
    pub fn handle_call(&mut self, _call: &ApiCall) {}

    /// One call of the past: learnt from, never alerted on.
    pub fn learn(&mut self, _call: &ApiCall) {}

    /// Trouble with capture itself (D28).
    pub fn handle_impairment(&mut self, _now: EventTime, _what: &Impairment) {}

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: EventTime) {}

    /// The next alert.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        None
    }

    /// No call follows: closes open windows and gives out what they show.
    pub fn finish(&mut self) {}
}
