//! What one flow says inside its encryption, for who asks for it.

use std::collections::VecDeque;

use crate::call::FlowId;
use crate::input::Direction;

/// Plaintext of a flow, in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Tapped {
    /// Which way it went.
    pub direction: Direction,
    /// What it was.
    pub bytes: Box<[u8]>,
}

/// Takes the plaintext of a flow. It waits to be polled after each input, and is no more than what
/// one input brings.
pub(super) struct Tap {
    pub(super) flow: FlowId,
    pub(super) waiting: VecDeque<Tapped>,
}
