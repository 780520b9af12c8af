//! What the Decoder counts.

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What the Decoder did and where it met a bound; nothing is dropped without a count here.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Every counter with its name, in the order in which they are declared.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Segments taken.
    segments,
    /// Payload bytes in them.
    payload_bytes,
    /// Segments of connections of which no payload is known, and without payload themselves.
    segments_unknown,
    /// Segments whose sequence number is more than 1 GiB from what is expected.
    segments_absurd,
    /// Calls given out.
    calls,
    /// Calls among them without a response.
    requests_unanswered,
    /// Calls among them without a request.
    responses_unpaired,
    /// Payload bytes that the kernel side could not deliver.
    lost_bytes,
    /// Runs of bytes that are missing from streams.
    gaps,
    /// Bytes missing from streams.
    gap_bytes,
    /// Payload bytes that came again.
    retransmitted_bytes,
    /// Times that bytes came again and were not the same.
    overlap_conflicts,
    /// Holes given up early because too many bytes were waiting behind them.
    reorder_evictions,
    /// Holes given up because the time was over.
    reorder_timeouts,
    /// Flows begun.
    flows_opened,
    /// Flows whose beginning was not seen.
    flows_midstream,
    /// Flows in use that were dropped because there were too many, or they held too much.
    flows_evicted,
    /// Flows among them dropped because of memory held.
    flows_evicted_for_memory,
    /// Flows that were dropped after a time without traffic.
    flows_expired,
    /// Flows that do not speak HTTP/1, TLS aside.
    flows_not_http,
    /// Flows that speak TLS.
    tls_flows,
    /// Flows that went over to another protocol.
    upgraded_flows,
    /// Bytes after that.
    tunnel_bytes,
    /// Tunnels within more tunnels than are looked into.
    tunnels_too_deep,
    /// Times that a client sent more ahead of an answer that may change the protocol than is kept.
    early_overflows,
    /// Resets out of place.
    resets_ignored,
    /// Handshakes in the middle of a connection that nobody answered.
    syns_ignored,
    /// Owners of flows that are not known.
    owners_unknown,
    /// Heads larger than the limit.
    heads_too_large,
    /// Heads with more fields than the limit.
    headers_too_many,
    /// Heads that do not parse.
    heads_bad,
    /// Heads that were begun and never ended.
    heads_cut,
    /// Requests that found too many before them in flight.
    pipeline_overflows,
    /// Times that the next message had to be searched for.
    resyncs,
    /// Bytes passed over in such searches.
    skipped_bytes,
    /// Flows that speak WebSocket.
    websocket_flows,
    /// WebSocket messages, both directions.
    websocket_messages,
    /// WebSocket messages whose content could not be read.
    websocket_unreadable,
    /// WebSocket messages among them that inflate to more than the limit.
    websocket_bombs,
    /// Bytes of WebSocket connections that belong to no frame that could be told.
    websocket_undecoded_bytes,
    /// WebSocket messages given out unanswered because too many waited for a reply.
    replies_overflows,
    /// WebSocket messages given out unanswered because the time was over.
    replies_timeouts,
    /// Pushes on channels for which there was no room.
    channels_overflows,
    /// Windows of compressed connections that were dropped because too much was held.
    windows_dropped,
}
