//! Live capture: kernel events of watched sockets become [`Input`].

pub mod cgroup;
mod clock;
mod events;
mod keylog;
mod object;
mod owner;
pub mod privilege;
mod secrets;
pub mod tls;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use monitor_common::Counter;
use monitor_core::input::Input;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::capture::events::Events;
use crate::capture::object::{Loaded, Programs};

/// What to capture, and with how much memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Ports to watch.
    pub ports: Ports,
    /// The cgroup whose sockets are watched; the root of the cgroup v2 hierarchy when not given.
    pub cgroup: Option<PathBuf>,
    /// Bytes of the payload ring; rounded up to a power of two of whole pages.
    pub ring_bytes: u32,
    /// Bytes of the lifecycle ring; rounded likewise.
    pub control_ring_bytes: u32,
    /// Level of the kernel side's own log: `error`, `warn`, `info`, `debug` or `trace`.
    pub kernel_log: Option<String>,
    /// Whether the first bytes of a connection decide if it is of interest.
    pub first_bytes: bool,
    /// How TLS is looked into.
    pub tls: InsideTls,
}

/// Server ports whose connections are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Of this host's servers.
    pub own: Vec<u16>,
    /// Of servers elsewhere that processes of this host call.
    pub called: Vec<u16>,
}

impl Ports {
    /// The server's port of a socket that is watched.
    fn watched(&self, local: u16, remote: u16) -> Option<u16> {
        let own = self.own.contains(&local).then_some(local);
        own.or_else(|| self.called.contains(&remote).then_some(remote))
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<u16> {
        let mut all = [&self.own[..], &self.called].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// How TLS is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsideTls {
    /// Not at all.
    Off,
    /// At the TLS libraries of the servers.
    Libraries {
        /// Where they derive the secrets that open a connection, if that is known; else, as without it, at
        /// the calls that pass plaintext on.
        secrets: bool,
        /// Bytes of one call that are carried; what is beyond them is missing.
        call_bytes_max: u32,
    },
    /// By the secrets that servers write to these files: packets are decrypted here.
    KeyLogs(Vec<PathBuf>),
}

impl InsideTls {
    /// The servers' processes are looked into.
    fn at_libraries(&self) -> bool {
        matches!(self, InsideTls::Libraries { .. })
    }

    /// Secrets are taken there.
    fn takes_secrets(&self) -> bool {
        matches!(self, InsideTls::Libraries { secrets: true, .. })
    }
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Records delivered.
    pub events: u64,
    /// Payload bytes delivered.
    pub payload_bytes: u64,
    /// Records that did not fit into the payload ring.
    pub lost_events: u64,
    /// Payload bytes that did not fit.
    pub lost_bytes: u64,
    /// Records that did not fit into the lifecycle ring.
    pub lost_controls: u64,
    /// Connections in plain text that are decoded.
    pub sockets: u64,
    /// Connections that speak TLS.
    pub sockets_tls: u64,
    /// Plaintext bytes that TLS libraries passed on.
    pub tls_bytes: u64,
    /// Plaintext bytes that were not carried: beyond the bound of a call, or not in memory.
    pub tls_bytes_missing: u64,
    /// Plaintext bytes of connections that were not known, or no more.
    pub tls_bytes_unknown: u64,
    /// Secrets that TLS libraries derived, of connections that are watched.
    pub tls_secrets: u64,
    /// Others, which were dropped.
    pub tls_secrets_unknown: u64,
    /// TLS connections that could belong to more than one socket.
    pub tls_ambiguous: u64,
    /// Calls into TLS libraries that could not be followed to their end.
    pub tls_calls_missed: u64,
    /// TLS connections that ended without that anything was seen inside, failed handshakes among them.
    pub tls_sealed: u64,
    /// Files with a TLS library that is looked into.
    pub tls_libraries: u64,
    /// Processes whose TLS is not looked into, and why.
    pub tls_unseen: Vec<String>,
    /// Connections that speak something else.
    pub sockets_ignored: u64,
    /// Packets whose headers could not be read.
    pub malformed: u64,
    /// Payload bytes passed over until a connection that was open before the start told what it is.
    pub skipped_bytes: u64,
    /// Packets of sockets for which the kernel had no memory.
    pub untracked: u64,
    /// Programs that are no longer attached.
    pub detached: Vec<String>,
}

/// Shortest pause between two looks at the rings: a compromise of 500 wake-ups a second under load
/// and at most 2 ms of delay.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// Longest pause, when nothing comes: 30 wake-ups a second cost nothing that can be measured.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// The kernel side at work, and the reader of its rings.
pub struct Capture {
    programs: Option<Programs>,
    data: AsyncFd<RingBuf<MapData>>,
    counters: PerCpuArray<MapData, u64>,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    events: Events,
    pause: Duration,
    cgroup: PathBuf,
}

impl Capture {
    /// Loads and attaches the kernel side. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// One line that says what is missing and the mend: rights, cgroup mount, kernel features.
    pub fn start(options: &Options) -> anyhow::Result<Capture> {
        privilege::require()?;
        let cgroup = match &options.cgroup {
            Some(path) => path.clone(),
            None => cgroup::root()?,
        };
        let directory = File::open(&cgroup).with_context(|| {
            format!("cgroup {}: cannot be opened; mount cgroup2 or name another", cgroup.display())
        })?;
        cgroup::require_v2(&directory, &cgroup)?;
        let Loaded { programs, data, control, counters, unwanted, logger } =
            object::load_and_attach(options, &directory)
                .with_context(|| format!("attaching to cgroup {}", cgroup.display()))?;
        Ok(Capture {
            programs: Some(programs),
            data: polled(data)?,
            counters,
            logger,
            events: Events::new(control, unwanted, &options.tls),
            pause: PAUSE_MIN,
            cgroup,
        })
    }

    /// The cgroup whose sockets are watched.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Waits until it is worth calling [`drain`](Capture::drain).
    ///
    /// # Errors
    ///
    /// When the ring can no longer be polled.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        if self.pause.is_zero() {
            return Ok(());
        }
        tokio::select! {
            woken = self.data.readable() => woken.context("polling the ring buffer")?.clear_ready(),
            () = tokio::time::sleep(self.pause) => {}
        }
        Ok(())
    }

    /// Gives up to `max` payload records, and the lifecycle events around them, to `each`. Returns
    /// how many records there were: fewer than `max` when the ring is empty.
    pub fn drain(&mut self, max: usize, each: &mut dyn FnMut(Input<'_>)) -> usize {
        let records = self.events.drain(self.data.get_mut(), max, self.programs.is_none(), each);
        for pid in self.events.processes() {
            if let Some(programs) = &self.programs {
                programs.look_into(pid);
            }
        }
        self.pause = match records {
            0 => (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX),
            // There may be more.
            _ if records == max => Duration::ZERO,
            _ => PAUSE_MIN,
        };
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        records
    }

    /// Totals so far.
    pub fn health(&mut self) -> Health {
        let total = |counter: Counter| {
            self.counters.get(&(counter as u32), 0).map_or(0, |slots| slots.iter().sum())
        };
        Health {
            events: self.events.records(),
            payload_bytes: self.events.payload_bytes(),
            lost_events: total(Counter::LostRecords),
            lost_bytes: total(Counter::LostBytes),
            lost_controls: total(Counter::LostControls),
            sockets: total(Counter::SocketsWatched),
            sockets_tls: total(Counter::SocketsTls),
            tls_bytes: self.events.plain_bytes(),
            tls_bytes_missing: total(Counter::TlsBytesMissing),
            tls_bytes_unknown: self.events.plain_bytes_unknown(),
            tls_secrets: self.events.secrets(),
            tls_secrets_unknown: self.events.secrets_unknown(),
            tls_ambiguous: total(Counter::TlsAmbiguous),
            tls_calls_missed: total(Counter::TlsCallsMissed),
            tls_libraries: self.programs.as_ref().map_or(0, Programs::tls_libraries),
            tls_sealed: self.events.sealed().connections(),
            tls_unseen: self.unseen(),
            sockets_ignored: total(Counter::SocketsIgnored),
            malformed: total(Counter::Malformed),
            skipped_bytes: total(Counter::SkippedBytes),
            untracked: total(Counter::Untracked),
            detached: self.programs.as_ref().map(Programs::detached).unwrap_or_default(),
        }
    }

    fn unseen(&self) -> Vec<String> {
        let mut unseen = self.programs.as_ref().map(Programs::tls_unseen).unwrap_or_default();
        // What has a library that cannot be attached to needs no second line.
        let more = self.events.sealed().unseen();
        let subject = |line: &str| line.split("): ").next().map(str::to_owned);
        let known: Vec<_> = unseen.iter().map(|line| subject(line)).collect();
        unseen.extend(more.into_iter().filter(|line| !known.contains(&subject(line))));
        unseen.extend(self.events.keylog_troubles());
        unseen
    }

    /// Takes the kernel side down. What is in the rings stays there for [`drain`](Capture::drain).
    pub fn detach(&mut self) {
        if self.programs.take().is_some() {
            // A program that runs on another CPU right now ends within microseconds.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn polled(ring: RingBuf<MapData>) -> anyhow::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, which does not change and stays open as long as it.
    let polled = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    polled.map_err(|error| anyhow::anyhow!("polling the ring buffer: {error}"))
}

/// Tries to open a key log as it is followed.
pub fn probe_keylog(path: &Path) -> io::Result<()> {
    keylog::probe(path)
}

/// Tries each part of the kernel side by itself: its name, and what went wrong.
pub fn probe() -> Vec<(String, Result<(), String>)> {
    object::probe()
}
