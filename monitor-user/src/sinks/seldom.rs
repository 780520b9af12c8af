//! Says a thing at most once in a while, and how often it was held back.

use std::time::{Duration, Instant};

/// At most one line per interval.
#[derive(Debug)]
pub(crate) struct Seldom {
    interval: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// Lets the first through, and then one per `interval`.
    pub(crate) fn new(interval: Duration) -> Seldom {
        Seldom { interval, last: None, held_back: 0 }
    }

    /// `Some` when it may be said now, with how many were held back since the last time.
    pub(crate) fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval() {
        let start = Instant::now();
        let mut seldom = Seldom::new(Duration::from_secs(10));
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(seldom.allow(at(0)), Some(0));
        assert_eq!(seldom.allow(at(1)), None);
        assert_eq!(seldom.allow(at(9)), None);
        assert_eq!(seldom.allow(at(10)), Some(2));
        assert_eq!(seldom.allow(at(20)), Some(0));
    }
}
