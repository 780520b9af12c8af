//! HTTP/2 (RFC 9113), its header compression and gRPC, as seen from beside the wire.

pub mod frame;
pub mod hpack;
