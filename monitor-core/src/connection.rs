//! What a connection amounted to: one record when it is over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::{Flow, Protocol};
use crate::time::EventTime;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One connection that carried payload, when nothing of it follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// First payload byte.
    pub time: EventTime,
    /// Last segment.
    pub end: EventTime,
    /// Which.
    pub flow: Arc<Flow>,
    /// What was spoken last; `None` when nothing that is decoded.
    pub protocol: Option<Protocol>,
    /// Calls that were given out.
    pub calls: u64,
    /// Times that bytes came again and were not the same; the first ones counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overlap_conflicts: u64,
    /// Payload bytes from the client, retransmissions aside.
    pub bytes_to_server: u64,
    /// Payload bytes from the server.
    pub bytes_to_client: u64,
    /// Payload bytes that are missing, both directions.
    pub missing_bytes: u64,
}
