//! What should not stand in a response: keys and passwords, and numbers of cards (OWASP API3:2023). Looked
//! for in what is read of a response anyway, its beginning, and only named: nothing of it is kept.

use std::sync::LazyLock;

use memchr::memchr2_iter;
use memchr::memmem::Finder;

use crate::call::Anomalies;

/// Words in names of members that hold a secret, and how such a name goes on.
const SECRETS: [(&str, &[&[u8]]); 3] = [
    ("secret", &[b"", b"_key", b"Key", b"key"]),
    ("passw", &[b"ord", b"d"]),
    ("private_key", &[b""]),
];

/// Each is made once: that takes longer than a search.
struct Finders {
    private_key: Finder<'static>,
    token: Finder<'static>,
    secrets: [(Finder<'static>, &'static [&'static [u8]]); SECRETS.len()],
}

static FINDERS: LazyLock<Finders> = LazyLock::new(|| Finders {
    private_key: Finder::new("PRIVATE KEY-----"),
    token: Finder::new("eyJ"),
    secrets: SECRETS.map(|(word, rest)| (Finder::new(word), rest)),
});

/// Digits of a card in groups: Visa, Mastercard and most others have sixteen (ISO/IEC 7812-1).
const CARD_DIGITS: usize = 16;

/// What the beginning of a response gives away.
pub fn leaks(text: &[u8]) -> Anomalies {
    let mut found = Anomalies::empty();
    if !is_suspect(text) {
        return found;
    }
    found.set(Anomalies::SECRET_IN_RESPONSE, has_secret(text));
    found.set(Anomalies::CARD_IN_RESPONSE, has_card(text));
    found
}

/// Places that are looked at at once: as many as there are bytes in a vector of every processor.
const PLACES: usize = 16;

/// They, and the two bytes behind the last of them.
const WINDOW: usize = PLACES + 2;

/// Whether there is a piece of any word that is looked for, or of a card's number: few texts have one.
fn is_suspect(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<WINDOW>() else {
        let mut window = [0; WINDOW];
        window[..text.len()].copy_from_slice(text);
        return has_piece(&window);
    };
    let windows = text.windows(WINDOW).step_by(PLACES).filter_map(<[u8]>::first_chunk);
    windows.fold(has_piece(last), |any, window| any | has_piece(window))
}

/// A letter of each word is enough where the two beside it are rare, so that three at each place are compared,
/// and without a branch many places at once.
fn has_piece(window: &[u8; WINDOW]) -> bool {
    let is = |byte: u8, sought: u8| u8::from(byte == sought);
    let digit = |byte: u8| u8::from(byte.wrapping_sub(b'0') < 10);
    let any = (0..PLACES).fold(0, |any, at| {
        let [one, two, three] = [window[at], window[at + 1], window[at + 2]];
        any | is(one, b'Y') & is(two, b'-')
            | is(one, b'y') & is(two, b'J')
            | is(one, b'e') & is(two, b'c') & is(three, b'r')
            | is(one, b's') & is(two, b'w')
            | is(one, b'e') & is(two, b'_') & is(three, b'k')
            | digit(one) & (is(two, b' ') | is(two, b'-')) & digit(three)
    });
    any != 0
}

fn has_secret(text: &[u8]) -> bool {
    let Finders { private_key, token, secrets } = &*FINDERS;
    private_key.find(text).is_some()
        || token.find_iter(text).any(|at| is_token(&text[at..]))
        || secrets.iter().any(|(word, rests)| {
            let has_value = |at: usize| holds_value(&text[at + word.needle().len()..], rests);
            word.find_iter(text).any(has_value)
        })
}

/// Whether a name goes on in one of these ways, and a text follows it as its value. Nothing, or stars in its
/// place, is no secret.
fn holds_value(text: &[u8], rests: &[&[u8]]) -> bool {
    let in_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let (rest, text) = text.split_at(text.iter().take_while(in_name).count());
    let value = text.strip_prefix(b"\":").map(<[u8]>::trim_ascii_start);
    let first = value.and_then(|value| value.strip_prefix(b"\"")).and_then(<[u8]>::first);
    rests.contains(&rest) && first.is_some_and(|byte| !matches!(byte, b'"' | b'*' | b'[' | b'<'))
}

/// A JSON web token, or the beginning of one (RFC 7519): two objects in base64 with a dot between them.
fn is_token(text: &[u8]) -> bool {
    let in_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let head = text.iter().take_while(|byte| in_base64(byte)).count();
    head >= 16 && text[head..].starts_with(b".eyJ")
}

/// A number of a card in four groups, `4111 1111 1111 1111`; without gaps it is as good as any order's.
fn has_card(text: &[u8]) -> bool {
    const LENGTH: usize = CARD_DIGITS + 3;
    memchr2_iter(b' ', b'-', text).any(|gap_at| {
        let Some(at) = gap_at.checked_sub(4) else { return false };
        let Some(window) = text.get(at..at + LENGTH) else { return false };
        if !matches!(window[0], b'2'..=b'6') {
            return false;
        }
        let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
        let stands_alone = !at.checked_sub(1).is_some_and(is_digit) && !is_digit(at + LENGTH);
        let in_groups = window.iter().enumerate().all(|(place, byte)| match place % 5 {
            4 => *byte == text[gap_at],
            _ => byte.is_ascii_digit(),
        });
        stands_alone && in_groups && is_luhn(window)
    })
}

/// The last digit checks the others (ISO/IEC 7812-1, annex B).
fn is_luhn(digits: &[u8]) -> bool {
    let digits = digits.iter().rev().filter(|byte| byte.is_ascii_digit());
    let sum: u32 = digits
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0') << (place % 2);
            if digit > 9 { digit - 9 } else { digit }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_gives_a_secret_away_is_named() {
        for text in [
            r#"{"error":"x","password":"hunter2"}"#,
            r#"{"user":{"client_secret":"s"}}"#,
            r#"{"secretKey": "s"}"#,
            "-----BEGIN RSA PRIVATE KEY-----\nMII",
            r#"{"msg":"bad token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"}"#,
        ] {
            assert_eq!(leaks(text.as_bytes()), Anomalies::SECRET_IN_RESPONSE, "{text}");
        }
        for text in [
            "",
            r#"{"password":"","secret":"***"}"#,
            r#"{"password":null}"#,
            r#"{"password_policy":"long","secretary":"x"}"#,
            r#"{"msg":"password is wrong"}"#,
            r#"{"key":"eyJub3QiOiJhIHRva2VuIn0"}"#,
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert_eq!(leaks(text.as_bytes()), Anomalies::empty(), "{text}");
        }
    }

    #[test]
    fn cards_are_told_by_groups_and_check_digit() {
        for text in ["{\"card\":\"4111 1111 1111 1111\"}", "5555-5555-5555-4444"] {
            assert_eq!(leaks(text.as_bytes()), Anomalies::CARD_IN_RESPONSE, "{text}");
        }
        for text in [
            "4111 1111 1111 1112",
            "4111-1111 1111-1111",
            "4111111111111111",
            "14111 1111 1111 1111",
            "4111 1111 1111 11119",
            "9111 1111 1111 1111",
            "2026-11-23 2026-11-2",
        ] {
            assert_eq!(leaks(text.as_bytes()), Anomalies::empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_found_is_suspect(
            text in "([eyJ.0-9 \"password:-]|secret|passw|private_key|\":\"|4111-1111-1111-1111){0,20}",
        ) {
            let text = text.as_bytes();
            prop_assert!(is_suspect(text) || !(has_secret(text) || has_card(text)));
            leaks(text);
        }
    }
}
