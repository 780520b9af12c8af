//! Values as people read them, and text from the wire made harmless for terminals.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Text with everything escaped that would not show as itself: control characters, which could
/// drive a terminal, and those that are invisible or turn the direction of what follows.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_deceptive) {
        return text.into();
    }
    let escaped = text.chars().map(|c| {
        if is_deceptive(c) {
            Cow::Owned(c.escape_unicode().to_string())
        } else {
            c.to_string().into()
        }
    });
    escaped.collect::<String>().into()
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A time of microseconds in three digits or so: `63us`, `1.25ms`, `12.5s`.
pub(crate) struct Micros(pub(crate) u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{}us", self.0),
            1_000..9_995 => write!(f, "{:.2}ms", us / 1e3),
            9_995..99_950 => write!(f, "{:.1}ms", us / 1e3),
            99_950..999_500 => write!(f, "{:.0}ms", us / 1e3),
            999_500..9_995_000 => write!(f, "{:.2}s", us / 1e6),
            9_995_000..99_950_000 => write!(f, "{:.1}s", us / 1e6),
            _ => write!(f, "{:.0}s", us / 1e6),
        }
    }
}

/// So many bytes in three digits or so: `318`, `1.2k`, `45M`; units of a thousand.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "";
        for next in ["k", "M", "G", "T", "P", "E"] {
            if value < 999.5 {
                break;
            }
            (value, unit) = (value / 1e3, next);
        }
        if unit.is_empty() {
            write!(f, "{}", self.0)
        } else if value < 9.95 {
            write!(f, "{value:.1}{unit}")
        } else {
            write!(f, "{value:.0}{unit}")
        }
    }
}

/// Milliseconds below ten seconds, whole seconds from there on.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.3} s", duration.as_secs_f64()),
        secs => humantime::format_duration(Duration::from_secs(secs)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_could_drive_it() {
        assert!(matches!(harmless("/api/v3/ö?x=漢"), Cow::Borrowed(_)));
        assert_eq!(harmless("a\x1b[2J\u{9b}b"), "a\\u{1b}[2J\\u{9b}b");
        assert_eq!(harmless("user\u{202e}gnp.exe\r\n"), "user\\u{202e}gnp.exe\\u{d}\\u{a}");
        for c in (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_control()) {
            assert!(!harmless(&c.to_string()).contains(c));
        }
    }

    #[test]
    fn times_have_three_digits() {
        for (us, text) in [
            (0, "0us"),
            (999, "999us"),
            (1_250, "1.25ms"),
            (9_994, "9.99ms"),
            (9_995, "10.0ms"),
            (99_949, "99.9ms"),
            (99_950, "100ms"),
            (999_499, "999ms"),
            (999_500, "1.00s"),
            (12_500_000, "12.5s"),
            (3_600_000_000, "3600s"),
        ] {
            assert_eq!(Micros(us).to_string(), text);
        }
    }

    #[test]
    fn bytes_have_units_of_a_thousand() {
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (9_940, "9.9k"),
            (9_960, "10k"),
            (999_600, "1.0M"),
            (45_000_000, "45M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
