//! How often something may happen: so many at once, so many every second after that.

use crate::time::EventTime;

const SECOND: u64 = 1_000_000_000;

/// A leaky bucket in time of the capture.
#[derive(Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When all that happened is paid for.
    paid: u64,
}

impl Bucket {
    /// It happens; false when it does so too often.
    pub(super) fn take(&mut self, now: EventTime, burst: u32, per_second: u32) -> bool {
        let cost = SECOND / u64::from(per_second.max(1));
        let paid = self.paid.max(now.0);
        if paid - now.0 >= cost.saturating_mul(u64::from(burst)) {
            return false;
        }
        self.paid = paid.saturating_add(cost);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let mut bucket = Bucket::default();
        let mut taken = |now| {
            let times = 0..1000;
            times.filter(|_| bucket.take(EventTime(now), 5, 2)).count()
        };
        assert_eq!(taken(SECOND), 5);
        assert_eq!(taken(SECOND), 0);
        assert_eq!(taken(2 * SECOND), 2);
        assert_eq!(taken(SECOND), 0, "time that stands behind");
        assert_eq!(taken(1000 * SECOND), 5);
    }
}
