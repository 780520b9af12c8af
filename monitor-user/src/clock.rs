//! The wall clock: the event time of what has no packet.

use std::time::{SystemTime, UNIX_EPOCH};

use monitor_core::time::EventTime;

/// Now; 0 where the clock is set to before 1970.
pub(crate) fn now() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
