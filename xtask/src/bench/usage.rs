//! What a process has used, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Time in user mode, seconds.
    pub(super) user_secs: f64,
    /// Time in the kernel, seconds.
    pub(super) system_secs: f64,
    /// Resident memory, MB.
    pub(super) resident_mb: f64,
    /// The most that was resident, MB.
    pub(super) resident_mb_max: f64,
}

impl Usage {
    /// Processor time, seconds.
    pub(super) fn secs(&self) -> f64 {
        self.user_secs + self.system_secs
    }

    /// Of a process that runs.
    pub(super) fn of(pid: u32) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading its usage")?;
        // The command name in parentheses may hold anything; fields are counted after it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks_per_sec = rustix::param::clock_ticks_per_second() as f64;
        let secs = |index: usize| -> Result<f64> {
            let ticks: f64 = fields.get(index).context("a short /proc/PID/stat")?.parse()?;
            Ok(ticks / ticks_per_sec)
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(0.0) * 1024.0 / 1e6
        };
        Ok(Usage {
            // proc(5): utime is field 14, stime 15; the first after the name is field 3.
            user_secs: secs(11)?,
            system_secs: secs(12)?,
            resident_mb: megabytes("VmRSS:"),
            resident_mb_max: megabytes("VmHWM:"),
        })
    }
}
