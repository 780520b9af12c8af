//! JSON as far as it must be looked into: members and elements one level at a time, nothing copied.
//!
//! The text is hostile and may be cut off. What is no JSON ends the walk; nothing is checked that is
//! not needed, and nothing recurses.

use memchr::memchr2;
use smallvec::SmallVec;

/// Members whose names are compared with each other: twice what orders have.
const MEMBERS_COMPARED_MAX: usize = 24;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    String,
    Number,
    True,
    False,
    Null,
    Object,
    Array,
}

/// A value as it stands in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Value<'t> {
    pub(crate) kind: Kind,
    /// Strings without their quotes and with their escapes, the rest as it is.
    pub(crate) raw: &'t [u8],
    /// Its end was seen.
    pub(crate) whole: bool,
}

impl<'t> Value<'t> {
    /// The text as a value; `None` when it is none.
    pub(crate) fn of(text: &'t [u8]) -> Option<Value<'t>> {
        Some(value(text)?.0)
    }

    /// Members of an object, in order; of anything else none.
    pub(crate) fn members(&self) -> Members<'t> {
        Members { rest: self.inside(Kind::Object) }
    }

    /// Elements of an array, in order; of anything else none.
    pub(crate) fn elements(&self) -> Elements<'t> {
        Elements { rest: self.inside(Kind::Array) }
    }

    /// Whether two of the first members of an object have one name.
    pub(crate) fn repeats(&self) -> bool {
        let mut names = Names::default();
        self.members().take(MEMBERS_COMPARED_MAX).for_each(|(name, _)| names.add(name));
        names.repeats
    }

    fn inside(&self, kind: Kind) -> &'t [u8] {
        if self.kind == kind { &self.raw[1..] } else { &[] }
    }

    /// A string that is whole.
    pub(crate) fn string(&self) -> Option<&'t [u8]> {
        (self.kind == Kind::String && self.whole).then_some(self.raw)
    }

    /// A string or number that is whole.
    pub(crate) fn scalar(&self) -> Option<&'t [u8]> {
        let is_scalar = matches!(self.kind, Kind::String | Kind::Number);
        (is_scalar && self.whole).then_some(self.raw)
    }

    /// A whole number, perhaps in quotes.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self.kind {
            Kind::Number | Kind::String if self.whole => {
                std::str::from_utf8(self.raw).ok()?.parse().ok()
            }
            Kind::Number
            | Kind::String
            | Kind::True
            | Kind::False
            | Kind::Null
            | Kind::Object
            | Kind::Array => None,
        }
    }

    /// Seconds since 1970, cut to whole ones (RFC 7519, 2: NumericDate).
    pub(crate) fn seconds(&self) -> Option<i64> {
        if self.kind != Kind::Number || !self.whole {
            return None;
        }
        let whole = self.raw.split(|byte| *byte == b'.').next()?;
        std::str::from_utf8(whole).ok()?.parse().ok()
    }

    /// Nothing, whatever form it has.
    pub(crate) fn is_empty(&self) -> bool {
        match self.kind {
            Kind::Null | Kind::False => true,
            Kind::String => self.whole && self.raw.is_empty(),
            Kind::Object | Kind::Array => {
                self.whole && self.raw[1..self.raw.len() - 1].trim_ascii().is_empty()
            }
            Kind::Number | Kind::True => false,
        }
    }
}

/// Names of an object's members, as they are met.
#[derive(Default)]
pub(crate) struct Names<'t> {
    /// With length and three bytes, so that whole names are seldom compared.
    known: SmallVec<[(u32, &'t [u8]); MEMBERS_COMPARED_MAX]>,
    /// Two of the first are one.
    pub(crate) repeats: bool,
}

impl<'t> Names<'t> {
    pub(crate) fn add(&mut self, name: &'t [u8]) {
        if self.repeats || self.known.len() == MEMBERS_COMPARED_MAX {
            return;
        }
        let byte = |at: usize| name.get(at).map_or(0, |byte| u32::from(*byte));
        let last = byte(name.len().saturating_sub(1));
        let mark = (name.len() as u32) << 24 | byte(0) << 16 | byte(name.len() / 2) << 8 | last;
        self.repeats = self.known.iter().any(|(held, known)| *held == mark && *known == name);
        self.known.push((mark, name));
    }
}

/// Members of an object.
pub(crate) struct Members<'t> {
    rest: &'t [u8],
}

impl<'t> Iterator for Members<'t> {
    /// The name as it stands there, and the value.
    type Item = (&'t [u8], Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = after_comma(self.rest);
        self.rest = &[];
        let inside = text.strip_prefix(b"\"")?;
        let end = string_end(inside)?;
        let text = inside[end + 1..].trim_ascii_start().strip_prefix(b":")?;
        let (value, rest) = value(text)?;
        self.rest = rest;
        Some((&inside[..end], value))
    }
}

/// Elements of an array.
pub(crate) struct Elements<'t> {
    rest: &'t [u8],
}

impl<'t> Iterator for Elements<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Value<'t>> {
        let (value, rest) = value(after_comma(std::mem::take(&mut self.rest)))?;
        self.rest = rest;
        Some(value)
    }
}

fn after_comma(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_start();
    text.strip_prefix(b",").map_or(text, <[u8]>::trim_ascii_start)
}

/// The value at the beginning of a text, and what follows it.
fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let text = text.trim_ascii_start();
    let kind = match text.first()? {
        b'"' => {
            let inside = &text[1..];
            let end = string_end(inside);
            let raw = &inside[..end.unwrap_or(inside.len())];
            let rest = end.map_or(&[][..], |end| &inside[end + 1..]);
            return Some((Value { kind: Kind::String, raw, whole: end.is_some() }, rest));
        }
        b'{' | b'[' => {
            let kind = if text[0] == b'{' { Kind::Object } else { Kind::Array };
            let end = nested_end(text);
            let (raw, rest) = text.split_at(end.unwrap_or(text.len()));
            return Some((Value { kind, raw, whole: end.is_some() }, rest));
        }
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    };
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    let end = text.iter().position(ends);
    let (raw, rest) = text.split_at(end.unwrap_or(text.len()));
    Some((Value { kind, raw, whole: end.is_some() }, rest))
}

/// Where the quote stands that ends a string.
#[inline]
fn string_end(text: &[u8]) -> Option<usize> {
    // Within a word, nearly always.
    let Some(word) = text.first_chunk() else { return string_end_from(text, 0) };
    let found = quotes_and_escapes(*word);
    if found == 0 {
        return string_end_from(text, WORD_BYTES);
    }
    let at = found.trailing_zeros() as usize / 8;
    if word[at] == b'"' { Some(at) } else { string_end_from(text, at) }
}

fn string_end_from(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += quote_or_escape(text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Bytes of a string that are looked at in words before more are left to [`memchr2`], which takes as long
/// to begin as this many: names, and most values, are shorter.
const SHORT_BYTES: usize = 32;

const WORD_BYTES: usize = size_of::<u64>();

/// Where the first quote or backslash stands.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < SHORT_BYTES
        && let Some(word) = text[at..].first_chunk()
    {
        let found = quotes_and_escapes(*word);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += WORD_BYTES;
    }
    Some(at + memchr2(b'"', b'\\', &text[at..])?)
}

/// The highest bit of the first quote or backslash, and perhaps of some bytes after it.
fn quotes_and_escapes(word: [u8; WORD_BYTES]) -> u64 {
    let word = u64::from_le_bytes(word);
    zeros(word ^ word_of(b'"')) | zeros(word ^ word_of(b'\\'))
}

const fn word_of(byte: u8) -> u64 {
    u64::from_le_bytes([byte; WORD_BYTES])
}

/// The highest bit of the first byte that is zero, and perhaps of some after it.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(word_of(0x01)) & !word & word_of(0x80)
}

/// Where the object or array ends that begins here.
fn nested_end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at += 1 + string_end(&text[at + 1..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// A string as it is meant: escapes of ASCII characters are replaced (RFC 8259, 7), others stay.
pub(crate) fn unescape(raw: &[u8]) -> SmallVec<[u8; 64]> {
    let mut out = SmallVec::new();
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let meant = match (byte, after) {
            (b'\\', [b'u', digits @ ..]) => {
                let code = digits.get(..4).and_then(|hex| std::str::from_utf8(hex).ok());
                let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                code.filter(u8::is_ascii).map(|code| (code, 5))
            }
            (b'\\', [escaped, ..]) => Some(match escaped {
                b'n' => (b'\n', 1),
                b't' => (b'\t', 1),
                b'r' => (b'\r', 1),
                b'b' => (8, 1),
                b'f' => (12, 1),
                other => (*other, 1),
            }),
            _ => None,
        };
        match meant {
            Some((meant, used)) => {
                out.push(meant);
                rest = &after[used..];
            }
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_of_one_name_are_told() {
        let repeats = |text: &str| Value::of(text.as_bytes()).unwrap().repeats();
        assert!(repeats(r#"{"symbol":"A","side":1,"symbol":"B"}"#));
        assert!(repeats(r#"{"":1,"":2}"#));
        assert!(!repeats(r#"{"symbol":{"symbol":1},"Symbol":2,"symbal":3}"#));
        assert!(!repeats(r#"["a","a"]"#));
        let many: Vec<String> = (0..5_000).map(|n| format!("\"n{n}\":1")).collect();
        assert!(!repeats(&format!("{{{},\"n0\":1}}", many.join(","))), "bounded");
    }

    #[test]
    fn members_and_elements() {
        let text = br#" { "id" : 7 ,"a\"b":"c\\", "n":{"x":[1,"]}"]},"t":true , "l":null}"#;
        let value = Value::of(text).unwrap();
        let members: Vec<_> = value
            .members()
            .map(|(name, it)| (String::from_utf8_lossy(name), it.kind, it.raw))
            .collect();
        assert_eq!(
            members,
            [
                ("id".into(), Kind::Number, &b"7"[..]),
                (r#"a\"b"#.into(), Kind::String, br"c\\"),
                ("n".into(), Kind::Object, br#"{"x":[1,"]}"]}"#),
                ("t".into(), Kind::True, b"true"),
                ("l".into(), Kind::Null, b"null"),
            ]
        );
        let value = Value::of(b"[1, \"a\", [2], {}]").unwrap();
        let kinds: Vec<Kind> = value.elements().map(|it| it.kind).collect();
        assert_eq!(kinds, [Kind::Number, Kind::String, Kind::Array, Kind::Object]);
        assert!(value.members().next().is_none());
    }

    #[test]
    fn a_text_that_is_cut_off_gives_what_was_before() {
        let text = br#"{"op":"subscribe","args":[{"channel":"ti"#;
        let members: Vec<_> = Value::of(text).unwrap().members().collect();
        assert_eq!(members[0].1.string(), Some(&b"subscribe"[..]));
        assert!(!members[1].1.whole);
        let first = members[1].1.elements().next().unwrap();
        let (_, channel) = first.members().next().unwrap();
        assert_eq!((channel.raw, channel.string()), (&b"ti"[..], None));
    }

    #[test]
    fn strings_end_where_they_do_whatever_their_length() {
        for length in 0..100 {
            for byte in [0, b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                let plain = vec![byte; length];
                assert_eq!(string_end(&plain), None);
                assert_eq!(string_end(&[&plain, &b"\""[..]].concat()), Some(length));
                let escaped = [&plain, &br#"\""#[..], &plain, br#"\\"x""#].concat();
                assert_eq!(string_end(&escaped), Some(2 * length + 4), "{length} of {byte}");
            }
        }
    }

    #[test]
    fn escapes_hide_nothing() {
        assert_eq!(
            &unescape(br"m\u0065thod\/\n\u00e9\u12")[..],
            br"method/".iter().chain(b"\n\\u00e9\\u12").copied().collect::<Vec<u8>>()
        );
    }

    #[test]
    fn depth_costs_no_stack() {
        let text = b"[".repeat(1_000_000);
        assert!(!Value::of(&text).unwrap().whole);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(text in "[\\[\\]{}\":,a-c0-2\\\\ ntf]{0,60}") {
            let Some(value) = Value::of(text.as_bytes()) else { return Ok(()) };
            for (name, value) in value.members() {
                unescape(name);
                value.is_empty();
                value.integer();
            }
            value.elements().for_each(|value| { value.members().count(); });
        }

        #[test]
        fn what_is_json_is_read_as_such(
            members in prop::collection::btree_map("[a-z\"\\\\{]{1,5}", "[a-z\"\\\\\\[]{0,8}", 0..6),
        ) {
            let text = serde_json::to_string(&members).unwrap();
            let value = Value::of(text.as_bytes()).unwrap();
            prop_assert!(value.whole);
            let read: std::collections::BTreeMap<String, String> = value
                .members()
                .map(|(name, value)| {
                    let text = |raw| String::from_utf8(unescape(raw).to_vec()).unwrap();
                    (text(name), text(value.string().unwrap()))
                })
                .collect();
            prop_assert_eq!(read, members);
        }
    }
}
