//! Attacks on what stands behind the API, by the text that a client sends: told by words and a few
//! shapes, each with points, of which ten are an attack (DETECTORS.md, D25).
//!
//! Nearly all calls have nothing in them that an attack needs, and cost one look at each byte.

mod words;

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use smallvec::SmallVec;

use crate::call::Payload;
use words::{COMMANDS, WORDS};

/// First bytes of a text that are looked at: the longest attacks in public lists have 500.
const BYTES_MAX: usize = 1024;

/// Points of an attack.
const ENOUGH: u16 = 10;

static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::Standard).kind(Some(AhoCorasickKind::DFA));
    builder.build(WORDS.iter().map(|(word, _, _)| word)).ok()
});

/// Most targets and bodies are this short.
type Folded = SmallVec<[u8; 256]>;

/// What a request target attacks.
pub(super) fn of_target(target: &str) -> Option<Payload> {
    let bytes = target.as_bytes();
    // `+` is a space, and in a row of words nothing else is odd.
    if !bytes.contains(&b'+') && is_plain_target(bytes) {
        return None;
    }
    let text = fold(&bytes[..bytes.len().min(BYTES_MAX)], true);
    // Each parameter by itself: points of many do not add up.
    let mut worst = judge_parts(&text, |byte| matches!(byte, b'&' | b'?'));
    if worst.is_none() {
        // An attack that has such signs itself.
        let query = text.iter().position(|byte| *byte == b'?').map_or(&text[..], |at| &text[at..]);
        worst = judge(query);
    }
    worst
}

/// What a body attacks, or a message.
pub(super) fn of_body(body: &[u8]) -> Option<Payload> {
    let body = &body[..body.len().min(BYTES_MAX)];
    let is_form = !matches!(body.first(), Some(b'{' | b'[' | b'<'));
    if is_form && !body.contains(&b'%') && !body.contains(&b'+') && is_plain_body(body) {
        return None;
    }
    if !is_form && is_plain_body(body) {
        return None;
    }
    let text = fold(body, is_form);
    if is_form && let found @ Some(_) = judge_parts(&text, |byte| byte == b'&') {
        return found;
    }
    judge_as(&text, body.first() == Some(&b'<'))
}

fn judge_parts(text: &[u8], is_end: impl Fn(u8) -> bool) -> Option<Payload> {
    let value = |part: &[u8]| part.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1);
    text.split(|byte| is_end(*byte)).map(|part| &part[value(part)..]).find_map(judge)
}

/// Nothing but letters, digits and the signs that every target has; one `.` at a time.
#[inline]
fn is_plain_target(text: &[u8]) -> bool {
    // Without a branch in it, this is done sixteen bytes at a time.
    let odd = text.iter().fold(0, |odd, byte| odd | is_code(*byte) | u8::from(*byte == b'%'));
    if odd != 0 {
        return is_plain_decoded(text);
    }
    !has_dots(text)
}

/// What is encoded is most often a time, a list or a signature.
fn is_plain_decoded(text: &[u8]) -> bool {
    if !text.contains(&b'%') {
        return false;
    }
    let mut decoded = Folded::new();
    decode(text, &mut decoded, false);
    let odd = decoded.iter().fold(0, |odd, byte| odd | is_code(*byte) | u8::from(*byte == b'%'));
    odd == 0 && !has_dots(&decoded)
}

/// 1 of signs that code has and names have not, `+` aside.
#[inline]
fn is_code(byte: u8) -> u8 {
    u8::from(byte <= b'$') | is_sign(byte) | u8::from(byte.wrapping_sub(b'{') < 3)
}

/// 1 of signs that neither names nor documents have.
#[inline]
fn is_sign(byte: u8) -> u8 {
    u8::from(byte.wrapping_sub(b'\'') < 4)
        | u8::from(byte == b';')
        | u8::from(byte == b'<')
        | u8::from(byte == b'>')
        | u8::from(byte == b'\\')
        | u8::from(byte == b'`')
}

/// Nothing but what JSON and forms are made of, and no words in a row.
#[inline]
fn is_plain_body(text: &[u8]) -> bool {
    let odd = |byte: u8| u8::from(byte == b'$') | is_sign(byte) | u8::from(byte == b'|');
    let any = text.iter().fold(0, |any, byte| any | odd(*byte));
    let letter = |byte: u8| {
        u8::from((byte | 0x20).wrapping_sub(b'a') < 26) | u8::from(byte.wrapping_sub(b'0') < 10)
    };
    let words = |one: u8, two: u8| u8::from(two == b' ') & letter(one);
    let braces = |one: u8, two: u8| u8::from(one == b'{') & u8::from(two == b'{');
    any == 0 && !has_dots(text) && !has_pair(text, |one, two| words(one, two) | braces(one, two))
}

/// `..`, `./`.
#[inline]
fn has_dots(text: &[u8]) -> bool {
    has_pair(text, |one, two| {
        u8::from(one == b'.') & (u8::from(two == b'.') | u8::from(two == b'/'))
    })
}

#[inline]
fn has_pair(text: &[u8], is: impl Fn(u8, u8) -> u8) -> bool {
    let Some(rest) = text.get(1..) else { return false };
    text.iter().zip(rest).fold(0, |any, (one, two)| any | is(*one, *two)) != 0
}

/// In lower case, decoded as servers do, with comments and runs of space as one space each.
fn fold(text: &[u8], is_encoded: bool) -> Folded {
    let mut once = Folded::new();
    if is_encoded {
        decode(text, &mut once, true);
    } else {
        once.extend_from_slice(text);
    }
    // Attacks are encoded twice to pass a filter in front.
    let mut twice = Folded::new();
    if once.contains(&b'%') {
        decode(&once, &mut twice, false);
    } else {
        twice = once;
    }
    let mut out = Folded::new();
    let mut at = 0;
    while at < twice.len() {
        let rest = &twice[at..];
        let (byte, width) = match rest {
            // A comment in place of a space.
            [b'/', b'*', ..] => {
                let end = rest.windows(2).skip(2).position(|pair| pair == b"*/");
                (b' ', end.map_or(2, |end| end + 4))
            }
            [b'\\', b'u', hex @ ..] => match unicode(hex) {
                Some(byte) => (byte, 6),
                None => (b'\\', 1),
            },
            [b'\\', b'"', ..] => (b'"', 2),
            [b'\\', b'n' | b'r' | b't', ..] => (b' ', 2),
            [0, ..] => {
                at += 1;
                continue;
            }
            [byte, ..] if byte.is_ascii_whitespace() => (b' ', 1),
            [byte, ..] => (byte.to_ascii_lowercase(), 1),
            [] => break,
        };
        if byte != b' ' || out.last() != Some(&b' ') {
            out.push(byte);
        }
        at += width;
    }
    out
}

fn decode(text: &[u8], out: &mut Folded, plus_is_space: bool) {
    let mut at = 0;
    while at < text.len() {
        let byte = match text[at..] {
            [b'%', high, low, ..] if let (Some(high), Some(low)) = (hex(high), hex(low)) => {
                at += 2;
                high << 4 | low
            }
            [b'+', ..] if plus_is_space => b' ',
            [byte, ..] => byte,
            [] => break,
        };
        out.push(byte);
        at += 1;
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// `\u003c` of ASCII.
fn unicode(digits: &[u8]) -> Option<u8> {
    let [b'0', b'0', high, low, ..] = digits else { return None };
    Some((hex(*high)? << 4 | hex(*low)?).to_ascii_lowercase())
}

/// The first kind with points enough, in the order of badness.
fn judge(text: &[u8]) -> Option<Payload> {
    judge_as(text, false)
}

/// The same; `is_markup`: elements are what the text is made of.
fn judge_as(text: &[u8], is_markup: bool) -> Option<Payload> {
    let mut points = [0_u16; Payload::ALL.len()];
    let mut seen = [false; WORDS.len()];
    let finder = FINDER.as_ref()?;
    for found in finder.find_overlapping_iter(text) {
        let at = found.pattern().as_usize();
        if !std::mem::replace(&mut seen[at], true) {
            let (word, kind, worth) = WORDS[at];
            if is_markup && kind == Payload::Script && word.starts_with('<') {
                continue;
            }
            points[kind as usize] += u16::from(worth);
        }
    }
    points[Payload::Sql as usize] += sql_shape(text);
    points[Payload::Script as usize] += script_shape(text);
    points[Payload::Command as usize] += command_shape(text);
    points[Payload::Template as usize] += template_shape(text);
    // Prose has these words too: without a sign of code they are no query.
    let has_code = text.iter().any(|byte| b"'\"();=#*|,".contains(byte)) || text.contains(&b'-');
    if !has_code && !seen.iter().zip(WORDS).any(|(seen, word)| *seen && word.2 >= 10) {
        points[Payload::Sql as usize] = 0;
    }
    Payload::ALL.iter().copied().find(|kind| points[*kind as usize] >= ENOUGH)
}

/// A condition that is added to a query, and the end of what it was added to.
fn sql_shape(text: &[u8]) -> u16 {
    let mut points = 0;
    let ends_early = text.ends_with(b"--")
        || text.ends_with(b"-- ")
        || text.ends_with(b"#")
        || text.windows(4).any(|it| it == b"-- -");
    points += if ends_early { 4 } else { 0 };
    // `1'`, `-5")`: a value that ends in the middle.
    let digits = text.iter().skip(usize::from(text.first() == Some(&b'-')));
    let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
    let count = count + usize::from(text.first() == Some(&b'-') && count > 0);
    let rest = &text[count..];
    let rest = rest.strip_prefix(b"%").unwrap_or(rest);
    if count > 0 && matches!(rest.first(), Some(b'\'' | b'"' | b')')) {
        points += 4;
    }
    points += u16::from(text.first() == Some(&b'-') && count > 3) * 4;
    for word in [&b" or "[..], b" and ", b" having ", b" where ", b"||", b" xor ", b" or("] {
        let mut from = 0;
        while let Some(at) = find(&text[from..], word) {
            from += at + word.len();
            if is_comparison(&text[from..]) {
                return points + 6;
            }
        }
    }
    if let Some(at) = find(text, b"order by ") {
        let digit = text.get(at + 9).is_some_and(u8::is_ascii_digit);
        points += if digit { 4 } else { 0 };
    }
    points
}

/// `1=1`, `('a'='a`, `"x" like "x`.
fn is_comparison(text: &[u8]) -> bool {
    let wraps = |byte: &u8| b"('\" )%".contains(byte);
    let names = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let text = &text[text.iter().take_while(|byte| wraps(byte)).count()..];
    let name = text.iter().take_while(|byte| names(byte)).count();
    let text = &text[name..];
    let text = &text[text.iter().take_while(|byte| wraps(byte)).count()..];
    name <= 16 && (matches!(text.first(), Some(b'=' | b'<' | b'>')) || text.starts_with(b"like "))
}

/// ` onload=`: what a page does at an event.
fn script_shape(text: &[u8]) -> u16 {
    let event = text.windows(3).enumerate().any(|(at, three)| {
        let begins = b" \"'/>`;".contains(&three[0]) && &three[1..] == b"on";
        let rest = &text[at + 3..];
        let letters = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
        let rest = &rest[letters..];
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        begins && (3..20).contains(&letters) && rest.first() == Some(&b'=')
    });
    // `javascript:` and code, not a title.
    let code = find(text, b"javascript:")
        .is_some_and(|at| text.get(at + 11).is_some_and(|byte| *byte != b' '));
    u16::from(event) * 10 + u16::from(code) * 4
}

/// A command after a sign of the shell, or before a pipe.
fn command_shape(text: &[u8]) -> u16 {
    let letters = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let is_command = |text: &[u8]| {
        let len = letters(text);
        COMMANDS.iter().any(|known| known.as_bytes() == &text[..len])
    };
    let pipes = |text: &[u8]| matches!(text.first(), Some(b'|' | b';')) && text.len() <= 2;
    let is_word = |text: &[u8]| [&b"true"[..], b"false", b"set", b"env"].contains(&text);
    if is_command(text) && !is_word(&text[..letters(text)]) && pipes(&text[letters(text)..]) {
        return 10;
    }
    let mut points = 0;
    for (at, byte) in text.iter().enumerate() {
        let rest = &text[at + 1..];
        let sign = match byte {
            b'|' | b'`' => true,
            b';' | b'\n' => true,
            b'&' => at == 0 || text[at - 1] == b'&',
            b'(' => at > 0 && text[at - 1] == b'$',
            _ => false,
        };
        if !sign {
            continue;
        }
        let spaced = rest.first() == Some(&b' ');
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let path = rest.strip_prefix(b"/").unwrap_or(rest);
        if !is_command(path) {
            continue;
        }
        let after = &path[letters(path)..];
        let ends = match after.first() {
            None | Some(b'|' | b';' | b'`' | b')' | b'/' | b'&' | b'>' | b'\'' | b'"') => true,
            Some(b' ') => {
                // An option, a path or a number: prose goes on with letters.
                !spaced || !after.get(1).is_some_and(u8::is_ascii_lowercase)
            }
            Some(_) => false,
        };
        points = points.max(if ends { 10 } else { 0 });
    }
    points
}

/// `{{7*7}}`: sums that a template does.
fn template_shape(text: &[u8]) -> u16 {
    let sums = |begin: &[u8]| {
        find(text, begin).is_some_and(|at| {
            let rest = &text[at + begin.len()..];
            let rest = rest.strip_prefix(b" ").unwrap_or(rest);
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            digits > 0 && matches!(rest.get(digits), Some(b'*' | b'+' | b'-'))
        })
    };
    u16::from(sums(b"{{") || sums(b"${") || sums(b"#{") || sums(b"*{")) * 10
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, word)
}

#[cfg(test)]
mod tests;
