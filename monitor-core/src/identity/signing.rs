//! What a client signed: a keyed fingerprint of the signature, the nonce and the time it states.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::percent;
use crate::call::{SignatureId, Signed};

/// What a field states about the signing of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stated {
    Signature,
    Nonce,
    Time,
}

/// Digits of the longest number that is a nonce or a time: nanoseconds have 19.
const DIGITS_MAX: usize = 20;
/// A time in words: RFC 3339 with nanoseconds takes 35.
const TIME_BYTES_MAX: usize = 40;

/// Makes fingerprints under a key of its own: they say that two signatures are one, and nothing of
/// either.
pub(super) struct Fingerprints {
    hash: SipHasher13,
    /// Under the secret before, while that is kept.
    former: Option<SipHasher13>,
}

impl Fingerprints {
    /// Keys must come from the secret, and from the one before it.
    pub(super) fn new(key: &[u8; 16], former: Option<&[u8; 16]>) -> Fingerprints {
        let former = former.map(SipHasher13::new_with_key);
        Fingerprints { hash: SipHasher13::new_with_key(key), former }
    }

    /// Notes what a field says that may be percent-encoded. The first of each kind counts.
    pub(super) fn note(&self, signed: &mut Signed, what: Stated, raw: &[u8]) {
        match what {
            Stated::Signature if signed.fingerprint.is_none() && !raw.is_empty() => {
                signed.fingerprint = Some(SignatureId(self.of(raw)));
                signed.former = self.former.map(|hash| SignatureId(hashed(hash, raw)));
            }
            Stated::Nonce if signed.nonce.is_none() => signed.nonce = number(raw.trim_ascii()),
            Stated::Time if signed.stated_ms.is_none() => {
                signed.stated_ms = time_ms(raw.trim_ascii());
            }
            Stated::Signature | Stated::Nonce | Stated::Time => {}
        }
    }

    /// Of what may be percent-encoded.
    pub(super) fn of(&self, raw: &[u8]) -> u64 {
        hashed(self.hash, raw)
    }
}

fn hashed(mut hash: SipHasher13, raw: &[u8]) -> u64 {
    if raw.contains(&b'%') {
        percent::decoded(raw).for_each(|(_, byte)| hash.write_u8(byte));
    } else {
        hash.write(raw);
    }
    hash.finish()
}

/// Digits and nothing else.
fn number(raw: &[u8]) -> Option<u64> {
    leading(raw).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

/// The number that a text begins with, and what follows it.
fn leading(raw: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut len) = (0_u64, 0);
    while let Some(digit) = raw.get(len).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        if len + 1 < DIGITS_MAX {
            number = number.wrapping_mul(10).wrapping_add(digit.into());
        } else if len + 1 == DIGITS_MAX {
            // All but the last of them fit.
            number = number.checked_mul(10)?.checked_add(digit.into())?;
        } else {
            return None;
        }
        len += 1;
    }
    (len > 0).then(|| (number, &raw[len..]))
}

/// Milliseconds since 1970 from seconds, with a fraction or not, from milli-, micro- or nanoseconds,
/// told by their size, or from RFC 3339. What is not from 1973 to 5138 is no time.
fn time_ms(raw: &[u8]) -> Option<u64> {
    let (whole, fraction) = match leading(raw) {
        Some((whole, [])) => (Some(whole), &[][..]),
        Some((whole, [b'.', fraction @ ..])) => (Some(whole), fraction),
        Some(_) | None => (None, &[][..]),
    };
    match whole {
        Some(n @ 100_000_000..100_000_000_000) => {
            let mut digits = fraction.iter().filter(|byte| byte.is_ascii_digit());
            let ms = (0..3).fold(0, |ms, _| {
                ms * 10 + digits.next().map_or(0, |digit| u64::from(digit - b'0'))
            });
            Some(n * 1_000 + ms)
        }
        Some(n @ 100_000_000_000..100_000_000_000_000) => Some(n),
        Some(n @ 100_000_000_000_000..100_000_000_000_000_000) => Some(n / 1_000),
        Some(n @ 100_000_000_000_000_000..) => Some(n / 1_000_000),
        Some(_) => None,
        None => written_ms(raw),
    }
}

/// `2026-11-24T09:08:57.715Z`, its colons percent-encoded or not.
fn written_ms(raw: &[u8]) -> Option<u64> {
    if !(20..=TIME_BYTES_MAX).contains(&raw.len()) || !raw[0].is_ascii_digit() {
        return None;
    }
    let text: compact_str::CompactString =
        percent::decoded(raw).map(|(_, byte)| char::from(byte)).collect();
    let time = humantime::parse_rfc3339_weak(&text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_unit_are_milliseconds() {
        let ms = |text: &str| time_ms(text.as_bytes());
        for text in [
            "1795464000123",
            "1795464000.123",
            "1795464000123456",
            "1795464000123456789",
            "2026-11-23T20:00:00.123Z",
            "2026-11-23T20%3A00%3A00.123Z",
        ] {
            assert_eq!(ms(text), Some(1_795_464_000_123), "{text}");
        }
        assert_eq!(ms("1795464000"), Some(1_795_464_000_000));
        assert_eq!(ms("1795464000.5"), Some(1_795_464_000_500));
        for text in
            ["", "1", "0", "x", "-5", "99999999999999999999999", "2026", "2026-99-99T99:99:99Z"]
        {
            assert_eq!(ms(text), None, "{text}");
        }
        assert_eq!(ms("18446744073709551615"), Some(18_446_744_073_709));
    }

    #[test]
    fn fingerprints_are_keyed_and_the_first_counts() {
        let of = |key: u8, texts: &[&str]| {
            let mut signed = Signed::default();
            let fingerprints = Fingerprints::new(&[key; 16], None);
            for text in texts {
                fingerprints.note(&mut signed, Stated::Signature, text.as_bytes());
            }
            signed.fingerprint
        };
        assert_eq!(of(1, &["made+up="]), of(1, &["made%2Bup%3d", "other"]));
        assert_ne!(of(1, &["made-up"]), of(2, &["made-up"]));
        assert_ne!(of(1, &["made-up"]), of(1, &["made-uq"]));
        assert_eq!(of(1, &[""]), None);
        let mut signed = Signed::default();
        Fingerprints::new(&[1; 16], None).note(&mut signed, Stated::Nonce, b"a1b2");
        assert_eq!(signed, Signed::default(), "a nonce that is no number is not kept");
    }
    #[test]
    fn what_a_signature_was_under_the_secret_before_is_told() {
        let note = |fingerprints: Fingerprints| {
            let mut signed = Signed::default();
            fingerprints.note(&mut signed, Stated::Signature, b"made%2Bup");
            signed
        };
        let before = note(Fingerprints::new(&[1; 16], None));
        let after = note(Fingerprints::new(&[2; 16], Some(&[1; 16])));
        assert_eq!((before.former, after.former), (None, before.fingerprint));
        assert_ne!(after.fingerprint, before.fingerprint);
    }
}
