//! Names that may be shown, and those that may not: a listen key is a channel's name too.

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::json::unescape;

/// Stands for a name that looks like a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// Bytes of a name. The longest in use name an instrument, an interval and a depth: 50.
const NAME_BYTES_MAX: usize = 64;

/// Letters and digits in a row of which a name is made; keys and tokens are longer than any word.
const WORD_BYTES_MAX: usize = 32;

/// From here on a word must look like one.
pub(crate) const RANDOM_BYTES_MIN: usize = 16;

/// A name as it stands in JSON, if it is short and plain and looks like no secret.
pub(crate) fn plain(raw: &[u8]) -> Option<CompactString> {
    let decoded;
    let name = if raw.contains(&b'\\') {
        decoded = unescape(raw);
        &decoded[..]
    } else {
        raw
    };
    let shows = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@!#~+*()|,^".contains(byte))
        && !looks_secret(name);
    if shows { CompactString::from_utf8(name).ok() } else { None }
}

/// Words of a text, those replaced that look like secrets; `None` for what is no short plain text.
pub(crate) fn plain_words(text: &str) -> Option<CompactString> {
    let mut out = CompactString::default();
    for word in text.split(' ') {
        if word.contains(|it: char| it.is_control()) {
            return None;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(if looks_secret(word.as_bytes()) { REDACTED } else { word });
    }
    (!out.is_empty()).then_some(out)
}

/// Keys, tokens, signatures and UUIDs: long runs of letters and digits in no order.
pub(crate) fn looks_secret(name: &[u8]) -> bool {
    let hyphens = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-' && *byte != b'_';
    name.split(|byte| !byte.is_ascii_alphanumeric()).any(is_random)
        || name.split(hyphens).any(is_long_hex)
}

/// The number of a payment card (ISO/IEC 7812-1): the length and first digits of those in use, and a
/// check digit that fits. Times and most ids begin otherwise.
pub(crate) fn is_card(text: &[u8]) -> bool {
    // Most values are shorter than the shortest number, or begin otherwise, as times do.
    if text.len() < 13 || !matches!(text[0], b'2'..=b'6') {
        return false;
    }
    let mut digits = SmallVec::<[u8; 19]>::new();
    for byte in text {
        match byte {
            b'0'..=b'9' if digits.len() < 19 => digits.push(byte - b'0'),
            b' ' | b'-' | b'+' if !digits.is_empty() => {}
            _ => return false,
        }
    }
    let first =
        |count: usize| digits.iter().take(count).fold(0_u32, |sum, it| sum * 10 + u32::from(*it));
    let is_issued = match digits.len() {
        13 | 19 => first(1) == 4,
        14 => matches!(first(2), 30 | 36 | 38 | 39),
        15 => matches!(first(2), 34 | 37),
        16 => {
            first(1) == 4
                || matches!(first(2), 35 | 51..=55 | 60 | 62 | 64 | 65)
                || matches!(first(4), 2221..=2720)
        }
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit @ 5..) => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    is_issued && sum.is_multiple_of(10)
}

fn is_random(word: &[u8]) -> bool {
    if word.len() < RANDOM_BYTES_MIN {
        return false;
    }
    if word.len() > WORD_BYTES_MAX {
        return true;
    }
    let class = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        _ => 2,
    };
    let (mut down, mut changes) = (0, 0);
    for pair in word.windows(2) {
        match (class(&pair[0]), class(&pair[1])) {
            (a, b) if a == b => {}
            // `camelCase`: a capital begins a word.
            (1, 2) | (2, 1) => down += 1,
            _ => changes += 1,
        }
    }
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    // A symbol has a number before or behind its letters, a contract one between them.
    changes > 3 || digits == word.len() || digits > 8 || down > word.len() / 3
}

/// Hexadecimal digits, in groups or not, too many for a number.
fn is_long_hex(word: &[u8]) -> bool {
    let digits = word.iter().filter(|byte| **byte != b'-' && **byte != b'_');
    let hex = digits.clone().all(u8::is_ascii_hexdigit);
    hex && digits.clone().count() >= RANDOM_BYTES_MIN && digits.clone().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_exchanges_are_shown() {
        for name in [
            "btcusdt@depth20@100ms",
            "!miniTicker@arr",
            "orderbook.50.BTCUSDT",
            "book.BTC-PERPETUAL.raw",
            "ticker.BTC-29DEC23-42000-C.100ms",
            "/contractMarket/tickerV2:XBTUSDM",
            "spot.order_book_update",
            "balance-and-position",
            "trades:1m:tBTCUSD",
            "market.btcusdt.kline.1min",
            "1000000MOGUSDT",
            "ORDER_TRADE_UPDATE",
            "outboundAccountPosition",
            "userTrades.option.any",
            "kline_60.ETH_USDT_230630",
            "private/get_positions",
            "deribit_price_index.btc_usd",
        ] {
            assert_eq!(plain(name.as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(plain(br"public\/auth").as_deref(), Some("public/auth"));
    }

    #[test]
    fn secrets_are_not() {
        for name in [
            "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1",
            "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv",
            "7c5a9b2e41d0f3866b1f",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "user.4f1e9c2ab37d4c0e8a11",
            "kLmNoPqRsTuVwXyZaBcDeF",
            "1234567890123456",
            "two words",
            "",
        ] {
            assert_eq!(plain(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn cards_are_known_by_their_check_digit() {
        // Numbers that card schemes publish for tests.
        for card in
            ["4111111111111111", "5555555555554444", "378282246310005", "4111 1111-1111+1111"]
        {
            assert!(is_card(card.as_bytes()), "{card}");
        }
        for other in
            ["4111111111111112", "1795464000123", "42", "", "4111111111111111x", "0000000000000000"]
        {
            assert!(!is_card(other.as_bytes()), "{other}");
        }
        assert!(!is_card(&b"4".repeat(100_000)));
    }

    #[test]
    fn reasons_keep_their_words() {
        let text = "listen key vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv is not known";
        assert_eq!(plain_words(text).as_deref(), Some("listen key [redacted] is not known"));
        assert_eq!(plain_words("a\nb"), None);
        assert_eq!(plain_words(""), None);
    }
}
