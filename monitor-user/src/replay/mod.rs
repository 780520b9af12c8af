//! Captures to [`Input`](monitor_core::input::Input): the offline twin of live capture.
//!
//! [`read`] goes through a file of any form: decompressed (`compressed`) it is a stream of packets
//! (`pcap`, `pcapng`), each of which is taken apart (`packet`, with `link` and `tunnel`) and its
//! fragments put together (`fragments`).

pub(crate) mod command;
mod compressed;
mod dissect;
mod extract;
mod fault;
#[cfg(test)]
mod fixture;
mod fragments;
mod link;
mod packet;
mod pcap;
mod pcapng;
mod progress;
mod reader;
pub(crate) mod reading;
pub(crate) mod recording;
mod sources;
mod tally;
mod tunnel;
mod window;

pub use fault::Fault;
pub use link::Link;
pub use reader::{Captures, Each, Recall, Recalled, Recorded, read};
pub use tally::{Blocks, Reassembly, Tally, Tunnels};
