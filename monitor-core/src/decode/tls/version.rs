//! Protocol versions by their number on the wire.

use std::fmt;

/// A version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Version(pub(super) u16);

impl Version {
    pub(super) const SSL2: Version = Version(0x0002);
    pub(super) const SSL3: Version = Version(0x0300);
    pub(super) const TLS10: Version = Version(0x0301);
    pub(super) const TLS11: Version = Version(0x0302);
    pub(super) const TLS12: Version = Version(0x0303);
    pub(super) const TLS13: Version = Version(0x0304);

    /// Number of the draft of TLS 1.3 that it is.
    pub(super) fn draft(self) -> Option<u8> {
        match self.0.to_be_bytes() {
            [0x7f, draft] => Some(draft),
            _ => None,
        }
    }

    /// TLS 1.3 or a draft of it.
    pub(super) fn is_13(self) -> bool {
        self == Version::TLS13 || self.draft().is_some()
    }

    /// A draft before the one with this number.
    pub(super) fn is_before_draft(self, number: u8) -> bool {
        self.draft().is_some_and(|draft| draft < number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Version::SSL2 => f.write_str("SSLv2"),
            Version::SSL3 => f.write_str("SSLv3"),
            Version::TLS10 => f.write_str("TLS 1.0"),
            Version::TLS11 => f.write_str("TLS 1.1"),
            Version::TLS12 => f.write_str("TLS 1.2"),
            Version::TLS13 => f.write_str("TLS 1.3"),
            version => match version.draft() {
                Some(draft) => write!(f, "TLS 1.3 draft-{draft}"),
                None => write!(f, "0x{:04x}", self.0),
            },
        }
    }
}

/// Whether a number stands only for itself (RFC 8701): suites, extensions, groups and versions.
pub(super) fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
