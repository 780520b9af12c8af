//! From the kernel's monotonic clock to event time.

use std::time::{Duration, Instant};

use monitor_core::time::EventTime;

/// Keeps the distance between the monotonic clock, which kernel events carry, and UTC.
pub(super) struct Clock {
    utc_at_boot_ns: u64,
    measured: Instant,
}

/// A clock that is stepped or slewed is followed at this pace.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// A smaller change is jitter of the measurement and would only make times uneven.
const JITTER_NS: u64 = 100_000;

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { utc_at_boot_ns: utc_at_boot_ns(), measured: Instant::now() }
    }

    /// Measures anew when the last measurement is old.
    pub(super) fn refresh(&mut self) {
        if self.measured.elapsed() < MEASURE_EVERY {
            return;
        }
        self.measured = Instant::now();
        let now = utc_at_boot_ns();
        if now.abs_diff(self.utc_at_boot_ns) > JITTER_NS {
            self.utc_at_boot_ns = now;
        }
    }

    pub(super) fn event_time(&self, monotonic_ns: u64) -> EventTime {
        EventTime(self.utc_at_boot_ns.saturating_add(monotonic_ns))
    }
}

/// UTC less the monotonic clock, nanoseconds.
fn utc_at_boot_ns() -> u64 {
    let utc = read_ns(libc::CLOCK_REALTIME);
    utc.saturating_sub(now_ns())
}

/// The monotonic clock, nanoseconds.
pub(super) fn now_ns() -> u64 {
    read_ns(libc::CLOCK_MONOTONIC)
}

fn read_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to be filled; both clocks exist on every kernel.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_is_utc() {
        let clock = Clock::new();
        let utc = read_ns(libc::CLOCK_REALTIME);
        let event = clock.event_time(now_ns());
        // Both were read within this test; a minute allows for any pause of the machine.
        assert!(event.0.abs_diff(utc) < 60_000_000_000);
    }
}
