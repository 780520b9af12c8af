//! Message bodies (RFC 9112, 6 and 7): counted as they pass, never kept.

use super::odd::is_token;
use crate::call::Anomalies;

/// A body that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes follow.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked(Chunk),
    /// Everything until the connection ends.
    UntilClose,
}

/// Where in a chunked body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the digits of a chunk size.
    Size {
        /// Value so far.
        value: u64,
        /// How many digits.
        digits: u8,
    },
    /// After the digits, before the end of the line; `end` when the last byte was its CR.
    Extension {
        /// The size.
        value: u64,
        /// CR seen.
        end: bool,
        /// Where in an extension.
        at: Extension,
    },
    /// In the data: this many bytes follow.
    Data(u64),
    /// Before the line end that follows the data; true when its CR was seen.
    DataEnd(bool),
    /// In the trailer section.
    Trailer {
        /// Nothing but a CR in the current line.
        empty: bool,
        /// The last byte was a CR.
        end: bool,
    },
}

/// Where in a chunk extension the next byte is (RFC 9112, 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// Before its name.
    Start,
    Name,
    /// After the equals sign.
    Equals,
    Value,
    Quoted,
    /// After a backslash in a quoted value.
    Escaped,
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress<'a> {
    /// How many of them were of the body's framing or content.
    pub(super) used: usize,
    /// The content among them.
    pub(super) content: &'a [u8],
    /// Whether more follows.
    pub(super) end: End,
}

/// Whether a body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// More follows.
    More,
    /// It is complete.
    Complete,
    /// Its framing is broken: where it ends is not known.
    Broken,
}

/// How a gap left a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Content bytes in the gap.
    pub(super) content: u64,
    /// Whether more follows.
    pub(super) end: End,
    /// Bytes of the gap behind the end of the body.
    pub(super) beyond: u64,
}

impl Body {
    /// A chunked body at its start.
    pub(super) fn chunked() -> Body {
        Body::Chunked(Chunk::Size { value: 0, digits: 0 })
    }

    /// Takes bytes up to the end of the body, or of the next run of content.
    pub(super) fn advance<'a>(&mut self, bytes: &'a [u8], odd: &mut Anomalies) -> Progress<'a> {
        match self {
            Body::Length(left) => {
                let content = take(left, bytes);
                let end = if *left == 0 { End::Complete } else { End::More };
                Progress { used: content.len(), content, end }
            }
            Body::UntilClose => Progress { used: bytes.len(), content: bytes, end: End::More },
            Body::Chunked(chunk) => chunk.advance(bytes, odd),
        }
    }

    /// Bytes are missing here.
    pub(super) fn skip(&mut self, bytes: u64) -> Skipped {
        let left = match self {
            Body::UntilClose => return Skipped { content: bytes, end: End::More, beyond: 0 },
            Body::Length(left) | Body::Chunked(Chunk::Data(left)) => left,
            Body::Chunked(
                Chunk::Size { .. }
                | Chunk::Extension { .. }
                | Chunk::DataEnd(_)
                | Chunk::Trailer { .. },
            ) => return Skipped { content: 0, end: End::Broken, beyond: 0 },
        };
        let content = bytes.min(*left);
        *left -= content;
        let (beyond, done) = (bytes - content, *left == 0);
        let end = match self {
            Body::Length(_) if done => End::Complete,
            Body::Chunked(chunk) if done => {
                *chunk = Chunk::DataEnd(false);
                if beyond > 0 { End::Broken } else { End::More }
            }
            Body::Length(_) | Body::Chunked(_) | Body::UntilClose => End::More,
        };
        Skipped { content, end, beyond }
    }
}

/// Takes at most `left` bytes from the front.
fn take<'a>(left: &mut u64, bytes: &'a [u8]) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= count as u64;
    &bytes[..count]
}

impl Chunk {
    fn advance<'a>(&mut self, bytes: &'a [u8], odd: &mut Anomalies) -> Progress<'a> {
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            if let Chunk::Data(left) = self {
                let content = take(left, &bytes[used..]);
                if *left == 0 {
                    *self = Chunk::DataEnd(false);
                }
                return Progress { used: used + content.len(), content, end: End::More };
            }
            used += 1;
            match self.step(byte, odd) {
                End::More => {}
                end @ (End::Complete | End::Broken) => {
                    return Progress { used, content: &[], end };
                }
            }
        }
        Progress { used, content: &[], end: End::More }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8, odd: &mut Anomalies) -> End {
        match (*self, byte) {
            (Chunk::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // Sixteen digits are 64 bits.
                if digits == 16 {
                    return broken(odd);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                *self = Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 };
            }
            (Chunk::Size { digits: 0, .. }, _) => return broken(odd),
            (Chunk::Size { value, .. }, b'\r') => {
                *self = Chunk::Extension { value, end: true, at: Extension::Value };
            }
            (Chunk::Size { value, .. }, b'\n') => {
                *odd |= Anomalies::BARE_LF;
                *self = Chunk::begin(value);
            }
            (Chunk::Size { value, .. }, b';') => {
                *self = Chunk::Extension { value, end: false, at: Extension::Start };
            }
            (Chunk::Size { value, .. }, b' ' | b'\t') => {
                *odd |= Anomalies::LENIENT;
                *self = Chunk::Extension { value, end: false, at: Extension::Value };
            }
            (Chunk::Size { .. }, _) => return broken(odd),
            (Chunk::Extension { value, end, at }, b'\n') => {
                if !end {
                    *odd |= Anomalies::BARE_LF;
                }
                if !matches!(at, Extension::Name | Extension::Value) {
                    *odd |= Anomalies::LENIENT;
                }
                *self = Chunk::begin(value);
            }
            (Chunk::Extension { value, end, at }, _) => {
                *odd |= odd_byte(byte, end);
                let at = at.step(byte).unwrap_or_else(|| {
                    *odd |= Anomalies::LENIENT;
                    at
                });
                *self = Chunk::Extension { value, end: byte == b'\r', at };
            }
            (Chunk::DataEnd(false), b'\r') => *self = Chunk::DataEnd(true),
            (Chunk::DataEnd(cr), b'\n') => {
                if !cr {
                    *odd |= Anomalies::BARE_LF;
                }
                *self = Chunk::Size { value: 0, digits: 0 };
            }
            (Chunk::DataEnd(_), _) => return broken(odd),
            (Chunk::Trailer { empty, end }, b'\n') => {
                if !end {
                    *odd |= Anomalies::BARE_LF;
                }
                if empty {
                    return End::Complete;
                }
                *self = Chunk::Trailer { empty: true, end: false };
            }
            (Chunk::Trailer { empty, end }, _) => {
                *odd |= odd_byte(byte, end);
                let cr = byte == b'\r';
                *self = Chunk::Trailer { empty: empty && cr && !end, end: cr };
            }
            (Chunk::Data(_), _) => {}
        }
        End::More
    }

    /// What follows the size line.
    fn begin(value: u64) -> Chunk {
        if value == 0 { Chunk::Trailer { empty: true, end: false } } else { Chunk::Data(value) }
    }
}

impl Extension {
    /// After one more byte; `None` when it does not belong there.
    fn step(self, byte: u8) -> Option<Extension> {
        Some(match (self, byte) {
            (Extension::Quoted, b'"') => Extension::Value,
            (Extension::Quoted, b'\\') => Extension::Escaped,
            (Extension::Quoted | Extension::Escaped, _) => Extension::Quoted,
            // The line end, and space around signs.
            (_, b'\r' | b' ' | b'\t') => self,
            (Extension::Name | Extension::Value, b';') => Extension::Start,
            (Extension::Name, b'=') => Extension::Equals,
            (Extension::Equals, b'"') => Extension::Quoted,
            (Extension::Start | Extension::Name, _) if is_token(byte) => Extension::Name,
            (Extension::Equals | Extension::Value, _) if is_token(byte) => Extension::Value,
            (Extension::Start | Extension::Name | Extension::Equals | Extension::Value, _) => {
                return None;
            }
        })
    }
}

/// What is odd about a byte within a line, after a CR or not.
fn odd_byte(byte: u8, after_cr: bool) -> Anomalies {
    let cr = if after_cr { Anomalies::BARE_CR } else { Anomalies::empty() };
    match byte {
        b'\t' | b'\r' => cr,
        0..=0x1f | 0x7f => cr | Anomalies::CONTROL_BYTE,
        _ => cr,
    }
}

fn broken(odd: &mut Anomalies) -> End {
    *odd |= Anomalies::BAD_CHUNK;
    End::Broken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, rest, end and anomalies of a chunked body fed in pieces of `step` bytes.
    fn decode(input: &str, step: usize) -> (String, usize, End, Anomalies) {
        let (mut body, mut odd, mut text) = (Body::chunked(), Anomalies::empty(), String::new());
        let mut fed = 0;
        for piece in input.as_bytes().chunks(step) {
            let mut at = 0;
            while at < piece.len() {
                let progress = body.advance(&piece[at..], &mut odd);
                text.push_str(str::from_utf8(progress.content).unwrap());
                at += progress.used;
                if progress.end != End::More {
                    return (text, input.len() - fed - at, progress.end, odd);
                }
            }
            fed += at;
        }
        (text, 0, End::More, odd)
    }

    fn check(input: &str, content: &str, rest: usize, end: End, odd: Anomalies) {
        for step in 1..=input.len() {
            assert_eq!(decode(input, step), (content.into(), rest, end, odd), "step {step}");
        }
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let none = Anomalies::empty();
        check("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET", "Wikipedia", 3, End::Complete, none);
        check("4;a=\"b\"\r\nWiki\r\n00\r\nX: y\r\n\r\n", "Wiki", 0, End::Complete, none);
        check(
            "A\r\n0123456789\r\n0;x\r\nX:\r\nY: z\r\n\r\nHTTP",
            "0123456789",
            4,
            End::Complete,
            none,
        );
        check("4\r\nWi", "Wi", 0, End::More, none);
    }

    #[test]
    fn lenient_forms_are_noted() {
        check("4 \r\nWiki\r\n0\r\n\r\n", "Wiki", 0, End::Complete, Anomalies::LENIENT);
        check("4\nWiki\n0\n\n", "Wiki", 0, End::Complete, Anomalies::BARE_LF);
        check("4;a\nWiki\r\n0\r\n\r\n", "Wiki", 0, End::Complete, Anomalies::BARE_LF);
        check("4\r\nWiki\r\n0\r\nX: y\n\r\n", "Wiki", 0, End::Complete, Anomalies::BARE_LF);
        check("4;a\rb\r\nWiki\r\n0\r\n\r\n", "Wiki", 0, End::Complete, Anomalies::BARE_CR);
        let odd = Anomalies::CONTROL_BYTE | Anomalies::LENIENT;
        check("4;a\0\r\nWiki\r\n0\r\n\r\n", "Wiki", 0, End::Complete, odd);
        for extension in [";", ";=a", ";a=\"b", ";a==b", ";a b(", ";a=\"b\\\""] {
            let body = format!("4{extension}\r\nWiki\r\n0\r\n\r\n");
            check(&body, "Wiki", 0, End::Complete, Anomalies::LENIENT);
        }
        for extension in ["; a", ";a;b", ";a = \"b\\\";\"", ";a=b ; c"] {
            let body = format!("4{extension}\r\nWiki\r\n0\r\n\r\n");
            check(&body, "Wiki", 0, End::Complete, Anomalies::empty());
        }
        check("0\r\nX: y\rz\r\n\r\n", "", 0, End::Complete, Anomalies::BARE_CR);
        check("0\r\n\r\r\n\r\n", "", 0, End::Complete, Anomalies::BARE_CR);
    }

    #[test]
    fn broken_framing_ends_the_body() {
        let bad = Anomalies::BAD_CHUNK;
        check("xyz", "", 2, End::Broken, bad);
        check("4\r\nWikiX", "Wiki", 0, End::Broken, bad);
        check("\r\n", "", 1, End::Broken, bad);
        check("11112222333344445\r\n", "", 2, End::Broken, bad);
        check("4 x", "", 0, End::More, Anomalies::LENIENT);
    }

    #[test]
    fn gaps_within_counted_bytes_are_harmless() {
        let skipped = |content, end, beyond| Skipped { content, end, beyond };
        let mut body = Body::Length(10);
        assert_eq!(body.skip(4), skipped(4, End::More, 0));
        assert_eq!(body.skip(8), skipped(6, End::Complete, 2));
        let mut body = Body::Chunked(Chunk::Data(10));
        assert_eq!(body.skip(4), skipped(4, End::More, 0));
        assert_eq!(body.skip(6), skipped(6, End::More, 0));
        assert_eq!(body, Body::Chunked(Chunk::DataEnd(false)));
        assert_eq!(body.skip(1), skipped(0, End::Broken, 0));
        assert_eq!(Body::Chunked(Chunk::Data(10)).skip(11), skipped(10, End::Broken, 1));
        assert_eq!(Body::UntilClose.skip(99), skipped(99, End::More, 0));
    }
}
