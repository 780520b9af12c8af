//! HTTP/2 (RFC 9113), its header compression and gRPC, as seen from beside the wire.

mod bucket;
mod connection;
mod fields;
pub mod frame;
pub mod hpack;
mod midstream;
mod reader;
mod resync;
mod stream;
mod streams;

pub(super) use self::connection::Connection;
pub(super) use self::midstream::{Midstream, Verdict};
