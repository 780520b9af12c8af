//! Captures to [`Input`](monitor_core::input::Input): the offline twin of live capture.

pub(crate) mod command;
#[cfg(test)]
mod fixture;
mod packet;
mod pcap;
pub(crate) mod recording;

pub use packet::Link;
pub use pcap::{Fault, Tally, read};
