//! Certificates (RFC 5280) of a handshake.

use std::time::{Duration, UNIX_EPOCH};

use compact_str::{CompactString, format_compact};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cursor::Cursor;
use crate::connection::Certificate;

/// The sender's own certificate out of a Certificate message: the first one.
pub(super) fn leaf(body: &[u8], tls13: bool) -> Option<Certificate> {
    let mut cursor = Cursor(body);
    if tls13 {
        // Which request it answers (RFC 8446, 4.4.2).
        cursor.vector8()?;
    }
    let der = cursor.vector24()?.vector24()?.0;
    describe(der)
}

fn describe(der: &[u8]) -> Option<Certificate> {
    if der.is_empty() {
        return None;
    }
    let mut certificate = Certificate {
        sha1: colons(&Sha1::digest(der), false),
        sha256: colons(&Sha256::digest(der), false),
        ..Certificate::default()
    };
    // One that does not parse still has its fingerprints.
    if let Ok((_, parsed)) = X509Certificate::from_der(der) {
        certificate.subject = Some(text(&parsed.subject().to_string()));
        certificate.issuer = Some(text(&parsed.issuer().to_string()));
        certificate.serial = Some(colons(parsed.raw_serial(), true));
        certificate.not_before = time(parsed.validity().not_before.timestamp());
        certificate.not_after = time(parsed.validity().not_after.timestamp());
    }
    Some(certificate)
}

/// In RFC 3339, as far as the years between 1970 and 9999 go.
fn time(seconds: i64) -> Option<CompactString> {
    const YEAR_10000_SECS: u64 = 253_402_300_800;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds < YEAR_10000_SECS)?;
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    Some(format_compact!("{}", humantime::format_rfc3339_seconds(time)))
}

/// The longest name that is kept: those in use have less than 300 characters.
const NAME_CHARS_MAX: usize = 1024;

fn text(name: &str) -> CompactString {
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// The longest number that is kept: serial numbers have at most 20 bytes (RFC 5280, 4.1.2.2).
const NUMBER_BYTES_MAX: usize = 64;

fn colons(bytes: &[u8], upper: bool) -> CompactString {
    let mut text = CompactString::default();
    for byte in bytes.iter().take(NUMBER_BYTES_MAX) {
        if !text.is_empty() {
            text.push(':');
        }
        let pair = super::ja4::hex(&[*byte]);
        text.push_str(&if upper { pair.to_ascii_uppercase() } else { pair });
    }
    text
}
