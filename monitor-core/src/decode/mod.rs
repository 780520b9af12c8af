//! The Decoder: captured bytes in, API calls out.

use serde::Serialize;

use crate::call::ApiCall;
use crate::identity::Identifier;
use crate::input::Input;
use crate::limits::Limits;

/// What the Decoder did and where it met a bound; nothing is dropped without a count here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls given out.
    pub calls: u64,
    /// Payload bytes that the kernel side could not deliver.
    pub lost_bytes: u64,
}

/// Turns [`Input`] into [`ApiCall`]s. State per flow.
pub struct Decoder {
    counters: Counters,
}

impl Decoder {
    /// `server_ports`: which ports belong to servers, to tell client from server where no handshake
    /// was seen; empty when not known.
    pub fn new(_limits: Limits, _identifier: Identifier, _server_ports: &[u16]) -> Decoder {
        Decoder { counters: Counters::default() }
    }

    /// Takes one input, in order of capture.
    pub fn handle_input(&mut self, _input: Input<'_>) {}

    /// The next finished call.
    pub fn poll_call(&mut self) -> Option<ApiCall> {
        None
    }

    /// No input follows: gives out what is still open, as incomplete as it is.
    pub fn finish(&mut self) {}

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
