//! Fuzz targets: bytes that nobody sends in good faith, and what must hold whatever they are.
//!
//! Each target is a function of bytes, in [`TARGETS`]; the programs in `targets` hand it to libFuzzer,
//! `cargo xtask fuzz run` runs them, and a test replays the seeds in `seeds/TARGET`. A target fails by
//! a panic. Memory is held by libFuzzer's limit, by that of the Decoder here, and by short inputs.

mod captures;
mod conversations;
mod inputs;
mod reassembly;
mod script;
mod wire;

pub use captures::{capture_file, packet};
pub use conversations::{fix, hpack, http1, http2, tls_records, websocket};
pub use inputs::decoder;
pub use reassembly::reassembly;
pub use script::{Turn, write};

/// A target.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 10] = [
    ("capture_file", capture_file),
    ("packet", packet),
    ("reassembly", reassembly),
    ("http1", http1),
    ("http2", http2),
    ("hpack", hpack),
    ("websocket", websocket),
    ("tls_records", tls_records),
    ("fix", fix),
    ("decoder", decoder),
];
