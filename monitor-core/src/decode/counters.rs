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
    /// Segments whose sequence number is more than 1 GiB from what is expected, and plaintext said to
    /// come more than 1 TiB later.
    segments_absurd,
    /// Plaintext bytes of TLS connections that were given by libraries.
    plain_bytes,
    /// Bytes among them of connections that do not speak TLS as far as was seen.
    plain_bytes_astray,
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
    /// Bytes that came after they had been given up.
    late_bytes,
    /// Payload bytes of SYNs that the server did not take.
    syn_bytes_refused,
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
    /// TLS secrets taken.
    tls_secrets,
    /// Lines of key logs that nothing is decrypted with.
    tls_secrets_unused,
    /// Lines of key logs that are none.
    tls_secrets_bad,
    /// TLS secrets dropped because there were too many.
    tls_secrets_evicted,
    /// TLS records decrypted.
    tls_records_opened,
    /// TLS records for which keys were there and did not open them, and those cut by a gap.
    tls_records_unopened,
    /// Times that the next TLS record had to be searched for.
    tls_resyncs,
    /// Directions of TLS connections given up because nothing could be opened.
    tls_given_up,
    /// Messages of TLS handshakes larger than the limit.
    tls_messages_too_large,
    /// Bytes of early data that the server did not take, or more than the limit.
    tls_early_bytes_dropped,
    /// Connections that speak HTTP/2.
    http2_connections,
    /// HTTP/2 frames.
    http2_frames,
    /// HTTP/2 frames of a wrong size or in a wrong place.
    http2_frames_bad,
    /// HTTP/2 frames larger than the receiver takes.
    http2_frames_too_large,
    /// HTTP/2 header blocks that could not be read to their end.
    http2_blocks_bad,
    /// HTTP/2 header fields of which name or value refers to what was not seen.
    http2_fields_unknown,
    /// Entries of HTTP/2 header tables that were not held because the table is too large.
    http2_entries_dropped,
    /// HTTP/2 streams given up because too many were open.
    http2_streams_evicted,
    /// HTTP/2 frames beyond the rates at which honest peers send them.
    http2_floods,
    /// HTTP/2 frames of streams that are over.
    http2_frames_late,
    /// Flows that speak WebSocket.
    websocket_flows,
    /// Connections of FIX.
    fix_flows,
    /// Messages of FIX.
    fix_messages,
    /// Bytes between messages of FIX that belong to none.
    fix_skipped_bytes,
    /// Connections of FIX in its binary encoding (SBE), which are not decoded.
    sbe_flows,
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
