//! The words of a policy: moments, ages, hours and routes, as people write them.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::time::EventTime;

/// A moment: `2026-11-01` or `2026-11-01T12:00:00Z`, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Moment(EventTime);

/// TOML has dates of its own, JSON and CSV have not.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Date(toml::value::Datetime),
    Text(String),
}

impl TryFrom<Written> for Moment {
    type Error = String;

    fn try_from(written: Written) -> Result<Moment, String> {
        match written {
            Written::Date(date) => date.to_string().try_into(),
            Written::Text(text) => text.try_into(),
        }
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Moment, String> {
        let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.clone() };
        let time = humantime::parse_rfc3339(&whole).ok();
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanos = since.and_then(|since| u64::try_from(since.as_nanos()).ok());
        nanos.map(|nanos| Moment(EventTime(nanos))).ok_or_else(|| {
            format!("`{text}` is no moment; write 2026-11-01 or 2026-11-01T12:00:00Z (UTC)")
        })
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.to_string()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_secs(self.0.secs());
        let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + seconds).to_string();
        f.write_str(text.strip_suffix("T00:00:00Z").unwrap_or(&text))
    }
}

impl Moment {
    /// As event time.
    pub fn time(self) -> EventTime {
        self.0
    }
}

/// A span: `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Age(Duration);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Age, String> {
        humantime::parse_duration(&text)
            .map(Age)
            .map_err(|_| format!("`{text}` is no age; write a number and d or h, such as \"90d\""))
    }
}

impl From<Age> for String {
    fn from(age: Age) -> String {
        humantime::format_duration(age.0).to_string().replace(' ', "")
    }
}

impl Age {
    /// The span.
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// Hours of every day, UTC: `08:00-18:00`, or over midnight `22:00-06:00`. The end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from_minute: u16,
    to_minute: u16,
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Hours, String> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            let is_one = minute < 60 && (hour < 24 || (hour, minute) == (24, 0));
            is_one.then_some(hour * 60 + minute)
        };
        let read = || {
            let (from, to) = text.split_once('-')?;
            let (from_minute, to_minute) = (minute(from)?, minute(to)?);
            (from_minute != to_minute).then_some(Hours { from_minute, to_minute })
        };
        read().ok_or_else(|| format!("`{text}` are no hours; write \"08:00-18:00\" (UTC)"))
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> String {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from_minute, self.to_minute);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Hours {
    /// Whether a moment is in them.
    pub fn contains(self, time: EventTime) -> bool {
        let minute = time.secs() / 60 % 1440;
        let (from, to) = (u64::from(self.from_minute), u64::from(self.to_minute));
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// An endpoint: `POST /orders`, `/orders/*` for any method and any one part, `/v1/**` for all below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route {
    method: Option<CompactString>,
    path: CompactString,
}

impl TryFrom<String> for Route {
    type Error = String;

    fn try_from(text: String) -> Result<Route, String> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method), path.trim_start()),
            None => (None, text.as_str()),
        };
        let is_method = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_uppercase());
        if !path.starts_with('/') || !method.is_none_or(is_method) {
            return Err(format!(
                "`{text}` is no endpoint; write \"POST /orders\", \"/orders/*\" or \"/v1/**\""
            ));
        }
        Ok(Route { method: method.map(CompactString::from), path: path.into() })
    }
}

impl From<Route> for String {
    fn from(route: Route) -> String {
        match route.method {
            Some(method) => format!("{method} {}", route.path),
            None => route.path.into(),
        }
    }
}

impl Route {
    /// Whether a request is to it.
    pub fn is(&self, method: &str, path: &str) -> bool {
        if self.method.as_ref().is_some_and(|own| own != method) {
            return false;
        }
        let mut seen = path.split('/');
        for want in self.path.split('/') {
            match (want, seen.next()) {
                ("**", _) => return true,
                ("*", Some(part)) if !part.is_empty() => {}
                (want, Some(part)) if want == part => {}
                (_, _) => return false,
            }
        }
        seen.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_print_as_they_are_written() {
        for text in ["2026-11-01", "2026-11-01T12:00:00Z"] {
            assert_eq!(Moment::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["08:00-18:00", "22:30-06:00", "00:00-24:00"] {
            assert_eq!(Hours::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["POST /orders", "/v1/**"] {
            assert_eq!(String::from(Route::try_from(text.to_owned()).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for text in ["", "yesterday", "2026-13-01", "1969-01-01", "2026-11-01T12:00:00"] {
            assert!(Moment::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["", "8-18", "08:00", "08:00-08:00", "25:00-26:00", "08:61-09:00", "24:01-1:00"]
        {
            assert!(Hours::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["", "orders", "post /orders", " /orders", "POST orders"] {
            assert!(Route::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert!(Age::try_from("soon".to_owned()).is_err());
    }
}
