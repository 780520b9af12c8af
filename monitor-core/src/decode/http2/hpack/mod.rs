//! HPACK (RFC 7541), for someone who listens in and may have come late.
//!
//! A header block refers to entries of a table that both ends built up together. Who did not see the
//! beginning lacks entries, and who lost bytes lacks them from then on. Such references give a
//! [`Field`] whose name and value are `None`, never those of another entry; what is inserted from
//! then on is known, and counts from the newest, so that references to it are right however much
//! lies behind.

mod decoder;
mod huffman;
mod table;

pub use self::decoder::{Bounds, Decoder, Error, Field};
pub use self::huffman::{BadHuffman, decode as huffman_decode};
