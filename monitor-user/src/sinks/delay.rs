//! How long alerts took from the last byte behind them until the other side had confirmed them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use monitor_core::time::EventTime;

/// Upper ends of the buckets, milliseconds; a last one has the rest. Around the second that is promised.
pub(crate) const BOUNDS_MS: [u64; 12] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000];

/// Counts of delays, to be added to by one thread and read by others.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayCounts {
    /// In each bucket, the rest last.
    pub(crate) buckets: [u64; BOUNDS_MS.len() + 1],
    /// All of them together, microseconds.
    pub(crate) sum_us: u64,
}

impl Delays {
    /// Something of `time` was confirmed now. What lies in the future, by a clock that was set back since,
    /// took no time.
    pub(crate) fn note(&self, time: EventTime) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time.0);
        self.add(SystemTime::now().duration_since(time).unwrap_or_default());
    }

    fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_MS.partition_point(|bound| bound * 1_000 < us);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> DelayCounts {
        DelayCounts {
            buckets: std::array::from_fn(|place| self.buckets[place].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_its_upper_end() {
        let delays = Delays::default();
        for us in [0, 5_000, 5_001, 60_000_000, 60_000_001, u64::MAX / 2] {
            delays.add(Duration::from_micros(us));
        }
        let counts = delays.counts().buckets;
        assert_eq!((counts[0], counts[1], counts[11], counts[12]), (2, 1, 1, 2));
        assert_eq!(counts.iter().sum::<u64>(), 6);
        delays.note(EventTime(u64::MAX));
        assert_eq!(delays.counts().buckets[0], 3, "the future took no time");
    }
}
