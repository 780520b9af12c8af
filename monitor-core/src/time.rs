//! Event time: when something happened on the wire, never when it was looked at.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ascii::Ascii;

/// Nanoseconds since the Unix epoch (UTC), as captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub u64);

impl EventTime {
    /// Time from `earlier` to `self`; zero when `earlier` is later, as it may be between CPUs.
    pub fn since(self, earlier: EventTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same in whole microseconds.
    pub(crate) fn micros_since(self, earlier: EventTime) -> u64 {
        u64::try_from(self.since(earlier).as_micros()).unwrap_or(u64::MAX)
    }

    /// The time `duration` later; stays at the end of time rather than wrap.
    pub fn after(self, duration: Duration) -> EventTime {
        EventTime(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn text(self) -> Ascii<TEXT_BYTES> {
        let (days, second) = (self.secs() / 86_400, (self.secs() % 86_400) as u32);
        let (year, month, day) = date(days);
        let mut text = Ascii::new();
        text.padded(year, 4);
        for (before, number) in [
            (b'-', month),
            (b'-', day),
            (b'T', second / 3600),
            (b':', second / 60 % 60),
            (b':', second % 60),
        ] {
            text.byte(before);
            text.padded(number, 2);
        }
        text.byte(b'.');
        text.padded((self.0 % 1_000_000_000) as u32, 9);
        text.byte(b'Z');
        text
    }

    /// Whole seconds since the Unix epoch.
    pub fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

/// RFC 3339, UTC, nanoseconds: `2026-11-23T20:00:00.123456789Z`.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// Bytes of a time in RFC 3339 with nanoseconds.
const TEXT_BYTES: usize = 30;

/// Year, month and day, so many days after the first of 1970. Years begin with March here, so that
/// the day of a leap year comes last (Hinnant, chrono-Compatible Low-Level Date Algorithms).
fn date(days: u64) -> (u32, u32, u32) {
    let since = days + 719_468;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let of_year = |year: u64| 365 * year + year / 4 - year / 100;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - of_year(year);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((era * 400 + year + later) as u32, month as u32, day_of_month as u32)
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
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
    fn every_day_has_its_date() {
        // Two ends of each day until the year 2554, as humantime has them.
        for day in 0..213_503_u64 {
            for nanos in [0, 86_399_000_000_001] {
                let time = EventTime(day * 86_400_000_000_000 + nanos);
                let expected = UNIX_EPOCH + Duration::from_nanos(time.0);
                let expected = humantime::format_rfc3339_nanos(expected).to_string();
                assert_eq!(time.to_string(), expected);
            }
        }
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
