//! Placeholder for live capture.

use std::path::PathBuf;

use anyhow::{Result, bail};
use monitor_core::input::Input;

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Server ports.
    pub ports: Vec<u16>,
    /// cgroup v2 directory; `None`: the root of the hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Ring buffer for payload, bytes.
    pub ring_bytes: u32,
    /// Ring buffer for control events, bytes.
    pub control_ring_bytes: u32,
    /// Level of the kernel programs' log; `None`: off.
    pub kernel_log: Option<String>,
    /// Whether first bytes are looked at.
    pub first_bytes: bool,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Events taken from the rings.
    pub events: u64,
    /// Payload bytes taken from the rings.
    pub payload_bytes: u64,
    /// Payload bytes that did not fit into the ring.
    pub lost_bytes: u64,
    /// Events that did not fit into the rings.
    pub lost_events: u64,
    /// Sockets seen.
    pub sockets: u64,
    /// Sockets with TLS, of which only lengths are seen.
    pub tls_sockets: u64,
    /// Programs that are no longer attached.
    pub detached: Vec<String>,
}

/// The kernel side, attached.
pub struct Capture {}

impl Capture {
    /// Loads and attaches.
    pub fn start(_options: &Options) -> Result<Capture> {
        bail!("live capture is not built in")
    }

    /// Waits until something may be there.
    pub async fn ready(&mut self) -> Result<()> {
        std::future::pending().await
    }

    /// Gives out at most `max` inputs; returns how many.
    pub fn drain(&mut self, _max: usize, _each: &mut dyn FnMut(Input<'_>)) -> usize {
        0
    }

    /// Totals since the start.
    pub fn health(&mut self) -> Health {
        Health::default()
    }

    /// Stops the kernel side; `drain` then gives out the rest.
    pub fn detach(&mut self) {}

    /// Where it is attached.
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::new()
    }
}
