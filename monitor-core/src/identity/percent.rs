//! Percent-encoding (RFC 3986, 2.1), decoded one level as servers do, a byte at a time.

/// The byte that stands at `at`, decoded, and how many raw bytes it takes. A `%` that begins no
/// valid triplet stands for itself. `at` must lie within `raw`.
#[inline]
pub(super) fn decode_at(raw: &[u8], at: usize) -> (u8, usize) {
    let byte = raw[at];
    if byte == b'%'
        && let Some(&[high, low]) = raw.get(at + 1..at + 3)
        && let (Some(high), Some(low)) = (hex(high), hex(low))
    {
        return (high << 4 | low, 3);
    }
    (byte, 1)
}

/// Every byte of `raw`, decoded, with the place where it stood.
pub(super) fn decoded(raw: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= raw.len() {
            return None;
        }
        let (byte, width) = decode_at(raw, at);
        let place = at;
        at += width;
        Some((place, byte))
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_one_level_and_keeps_what_is_not_encoded() {
        let text = |raw: &str| {
            String::from_utf8(decoded(raw.as_bytes()).map(|(_, byte)| byte).collect()).unwrap()
        };
        assert_eq!(text("api%4bey%4B%6b"), "apiKeyKk");
        assert_eq!(text("100%"), "100%");
        assert_eq!(text("%zz%4"), "%zz%4");
        assert_eq!(text("%2541"), "%41");
    }
}
