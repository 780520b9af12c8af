//! Event time: when something happened on the wire, never when it was looked at.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds since the Unix epoch (UTC), as captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub u64);

impl EventTime {
    /// Time from `earlier` to `self`; zero when `earlier` is later, as it may be between CPUs.
    pub fn since(self, earlier: EventTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time `duration` later; stays at the end of time rather than wrap.
    pub fn after(self, duration: Duration) -> EventTime {
        EventTime(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Whole seconds since the Unix epoch.
    pub fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

/// RFC 3339, UTC, nanoseconds: `2026-11-23T20:00:00.123456789Z`.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(self.0)).fmt(f)
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EventTime, D::Error> {
        struct Rfc3339;
        impl de::Visitor<'_> for Rfc3339 {
            type Value = EventTime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time in UTC between 1970 and 2554")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<EventTime, E> {
                let parsed = humantime::parse_rfc3339(text).map_err(E::custom)?;
                let since = parsed.duration_since(UNIX_EPOCH).map_err(E::custom)?;
                u64::try_from(since.as_nanos()).map(EventTime).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Rfc3339)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_rfc3339() {
        let time = EventTime(1_795_464_000_123_456_789);
        assert_eq!(time.to_string(), "2026-11-23T20:00:00.123456789Z");
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<EventTime>(&json).unwrap(), time);
    }

    #[test]
    fn the_end_of_time_still_prints() {
        assert_eq!(EventTime(u64::MAX).to_string(), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn earlier_than_the_epoch_is_refused() {
        assert!(serde_json::from_str::<EventTime>("\"1969-01-01T00:00:00Z\"").is_err());
    }
}
