//! What a connection amounted to: one record when it is over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::{Anomalies, Flow, Protocol};
use crate::time::EventTime;

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
    /// Payload bytes from the client, retransmissions aside.
    pub bytes_to_server: u64,
    /// Payload bytes from the server.
    pub bytes_to_client: u64,
    /// Payload bytes that are missing, both directions.
    pub missing_bytes: u64,
    /// What its HTTP/2 amounted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<Box<Http2>>,
}

/// An HTTP/2 connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Http2 {
    /// What the client sent.
    pub client: Http2Side,
    /// What the server sent.
    pub server: Http2Side,
    /// What was odd, calls aside.
    pub anomalies: Anomalies,
}

/// What one side of an HTTP/2 connection sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Http2Side {
    /// Settings by id, as they stood last; at most 16.
    pub settings: Vec<(u16, u32)>,
    /// Frames.
    pub frames: u64,
    /// Streams begun.
    pub streams: u64,
    /// Streams reset.
    pub resets: u64,
    /// PING frames, answers aside.
    pub pings: u64,
    /// Content bytes, padding aside.
    pub data_bytes: u64,
    /// Error codes of GOAWAY frames; at most the first four.
    pub goaway: Vec<u32>,
}
