//! Every bound of the Decoder, in one place, each with where its number comes from.

use std::time::Duration;

/// Bounds on what the Decoder may hold. Each breach is counted in [`Counters`](crate::decode::Counters).
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Flows at once. 100,000 concurrent API connections is a large exchange edge host.
    pub flows_max: usize,
    /// Out-of-order bytes held per direction of a flow: a 1 MiB window is the usual largest in use.
    pub reorder_bytes_per_direction_max: usize,
    /// Out-of-order bytes held over all flows.
    pub reorder_bytes_max: usize,
    /// How long a hole is waited for before it counts as a gap: several retransmission time-outs.
    pub reorder_wait_max: Duration,
    /// A request or response head: four times nginx's `large_client_header_buffers` default of 8 KiB.
    /// Of a larger head the beginning counts, and whatever says how long the body is.
    pub head_bytes_max: usize,
    /// Header fields in one head: Apache's `LimitRequestFields` is 100. More are read and noted; the
    /// size of the head bounds them.
    pub headers_max: usize,
    /// Requests in flight on one connection: ten times what pipelining clients are seen to use.
    pub pipeline_max: usize,
    /// Bytes that a client sends ahead of the answer to a request that may change the protocol, kept
    /// until it is known whose they are: a first flight of TCP is ten segments (RFC 6928), 15 KiB.
    pub early_bytes_max: usize,
    /// Tunnels inside one another that are looked into. Chains of two proxies are common, of four are
    /// not.
    pub tunnels_max: u8,
    /// First bytes of an error body that are kept to read its code: they come in the first 100.
    pub body_prefix_bytes: usize,
    /// A flow without traffic is dropped after this; nginx's keep-alive default is 75 s.
    pub idle_max: Duration,
    /// A closed flow, or one without payload, is remembered so long: Linux's TIME_WAIT is 60 s.
    pub closed_max: Duration,
    /// Bytes held over all flows for heads, requests in flight and what is out of order; the flow
    /// used longest ago goes first. Twice what 100,000 flows with one request of 1 KiB each need.
    pub held_bytes_max: usize,
    /// First bytes of a WebSocket message that are kept and looked at: what a message is and which it
    /// answers stands in the first hundred, 4 KiB are a batch of orders.
    pub message_prefix_bytes: usize,
    /// What a compressed WebSocket message may inflate to: servers in common use refuse messages
    /// beyond 1 MiB, clients beyond 16 MiB.
    pub message_inflated_bytes_max: u64,
    /// WebSocket messages that wait for their reply on one connection: exchanges allow 5 to 100 orders
    /// a second and answer within one.
    pub replies_awaited_max: usize,
    /// How long a reply is waited for: client libraries give up after 5 to 30 s.
    pub reply_wait_max: Duration,
    /// Channels of one WebSocket connection that are counted by name: a screen of them.
    pub channels_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            flows_max: 131_072,
            reorder_bytes_per_direction_max: 1 << 20,
            reorder_bytes_max: 64 << 20,
            reorder_wait_max: Duration::from_secs(5),
            head_bytes_max: 32 << 10,
            headers_max: 128,
            pipeline_max: 1024,
            early_bytes_max: 16 << 10,
            tunnels_max: 4,
            body_prefix_bytes: 512,
            idle_max: Duration::from_secs(300),
            closed_max: Duration::from_secs(60),
            held_bytes_max: 256 << 20,
            message_prefix_bytes: 4 << 10,
            message_inflated_bytes_max: 16 << 20,
            replies_awaited_max: 256,
            reply_wait_max: Duration::from_secs(30),
            channels_max: 64,
        }
    }
}
