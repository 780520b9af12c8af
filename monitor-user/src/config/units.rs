//! Sizes and durations as people write them: `"16MiB"`, `"15m"`.

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes, for `#[serde(with = "units::size")]` on any integer field.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S, T>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Copy + TryInto<u64>,
    {
        let bytes = (*bytes).try_into().unwrap_or(u64::MAX);
        serializer.collect_str(&super::show_size(bytes))
    }

    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64>,
    {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).and_then(|bytes| T::try_from(bytes).ok()).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is not a size; write a whole number and B, KiB, MiB or GiB, such as \
                     \"16MiB\""
            ))
        })
    }
}

/// Durations, for `#[serde(with = "units::duration")]`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*time).to_string().replace(' ', ""))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|_| {
            de::Error::custom(format_args!(
                "`{text}` is not a duration; write a number and ms, s, m, h or d, such as \"15m\""
            ))
        })
    }
}

/// An empty string for what is not set, for `#[serde(with = "units::unset")]`.
pub(super) mod unset {
    use serde::de::value::StringDeserializer;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, T: Serialize>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(s),
            None => "".serialize(s),
        }
    }

    pub(crate) fn deserialize<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        let text = String::deserialize(d)?;
        if text.is_empty() {
            return Ok(None);
        }
        T::deserialize(StringDeserializer::new(text)).map(Some)
    }
}

/// The largest unit that leaves a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes >= *unit);
    let (name, unit) = whole.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

fn parse_size(text: &str) -> Option<u64> {
    let (name, unit) = UNITS.iter().find(|(name, _)| text.ends_with(name))?;
    let digits = text.strip_suffix(name)?.trim_end();
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_print() {
        for bytes in [0, 1, 1023, 1024, 1536, 16 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_size(16 << 20), "16MiB");
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "B", "16", "16MB", "-1B", "1.5GiB", "17179869184GiB", "16 mib"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
