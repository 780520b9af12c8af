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
    /// Bytes of either side before TLS begins inside another protocol: a greeting with a banner and a list
    /// of capabilities have 2 KiB.
    pub preamble_bytes_max: usize,
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
    /// A message of a TLS handshake: OpenSSL takes certificate chains of up to 100 KiB.
    pub tls_message_bytes_max: usize,
    /// TLS secrets at once, the oldest go first: five each of 200,000 connections, 150 MB.
    pub tls_secrets_max: usize,
    /// Encrypted records in a direction for which keys may still come: a handshake has less than ten.
    pub tls_waiting_records_max: u32,
    /// Bytes of such records that are kept until the keys come, in a direction: a server derives the client's
    /// when it reads the client's Finished, behind which requests come, as many as its receive buffer takes
    /// before it is read. Linux begins with 128 KiB (`net.ipv4.tcp_rmem`).
    pub tls_waiting_bytes_max: usize,
    /// Sequence numbers that may be tried in vain in a direction before no more is hoped for; what is
    /// opened counts one back. A lost window of 1 MiB has at least 64 records.
    pub tls_trials_max: u32,
    /// Early data that waits for the server to take it: four times OpenSSL's default of 16 KiB.
    pub tls_early_bytes_max: usize,
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
    /// Of HTTP/2.
    pub http2: Http2Limits,
}

/// Bounds of one HTTP/2 connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Http2Limits {
    /// Streams open at once; the oldest goes. Go's net/http2 allows 250, nginx 128, nghttp2 100.
    pub streams_max: usize,
    /// Entries of a header table that are held: browsers allow 64 KiB, others the default of 4 KiB.
    pub table_bytes_max: usize,
    /// Bytes held of one direction to find where a frame begins: four frames of the usual largest.
    pub search_bytes_max: usize,
    /// CONTINUATION frames of one header block: nghttp2's default.
    pub continuations_max: u32,
    /// Streams that one side may reset at once: the usual most that are open at once.
    pub resets_burst: u32,
    /// Streams that it may reset every second after that: nghttp2's default.
    pub resets_per_second: u32,
    /// SETTINGS, PING or empty frames that one side may send at once: nghttp2 gives up a peer whose
    /// frames make it queue a thousand answers.
    pub controls_burst: u32,
    /// The same, every second after that: ten times what probes of the round-trip time need.
    pub controls_per_second: u32,
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
            preamble_bytes_max: 16 << 10,
            tunnels_max: 4,
            body_prefix_bytes: 512,
            idle_max: Duration::from_secs(300),
            closed_max: Duration::from_secs(60),
            held_bytes_max: 256 << 20,
            tls_message_bytes_max: 128 << 10,
            tls_secrets_max: 1 << 20,
            tls_waiting_records_max: 64,
            tls_waiting_bytes_max: 256 << 10,
            tls_trials_max: 4096,
            tls_early_bytes_max: 64 << 10,
            message_prefix_bytes: 4 << 10,
            message_inflated_bytes_max: 16 << 20,
            replies_awaited_max: 256,
            reply_wait_max: Duration::from_secs(30),
            channels_max: 64,
            http2: Http2Limits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Http2Limits {
        Http2Limits {
            streams_max: 256,
            table_bytes_max: 64 << 10,
            search_bytes_max: 64 << 10,
            continuations_max: 8,
            resets_burst: 100,
            resets_per_second: 33,
            controls_burst: 1000,
            controls_per_second: 100,
        }
    }
}
