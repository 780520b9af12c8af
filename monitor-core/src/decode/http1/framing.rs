//! How long a message is (RFC 9112, 6.3), read from its header fields.

use super::odd::trim;
use crate::ascii::is_name;
use crate::call::Anomalies;

/// What the header fields say about the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// `Content-Length`, the first when they disagree.
    pub(super) length: Option<u64>,
    /// What the `Transfer-Encoding` fields come to.
    pub(super) coding: Coding,
    /// What is odd about it.
    pub(super) odd: Anomalies,
}

/// Transfer codings, as far as framing needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// None named.
    #[default]
    None,
    /// `chunked` comes last: the body says where it ends.
    Chunked,
    /// Another one comes last: it does not.
    Other,
}

impl Framing {
    /// Takes one header field.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        if is_name(name, b"Content-Length") {
            self.add_length(value);
        } else if is_name(name, b"Transfer-Encoding") {
            self.add_coding(value);
        } else {
            return;
        }
        if self.length.is_some() && self.coding != Coding::None {
            self.odd |= Anomalies::LENGTH_AND_CHUNKED;
        }
    }

    /// A list of equal numbers counts as one (RFC 9110, 8.6), for those who take it.
    fn add_length(&mut self, value: &[u8]) {
        for item in value.split(|byte| *byte == b',') {
            let item = trim(item);
            let number = str::from_utf8(item).ok().filter(|_| item.iter().all(u8::is_ascii_digit));
            match (number.and_then(|digits| digits.parse::<u64>().ok()), self.length) {
                (Some(length), None) => self.length = Some(length),
                (Some(length), Some(known)) if length == known => self.odd |= Anomalies::LENIENT,
                (Some(_) | None, _) => self.odd |= Anomalies::BAD_CONTENT_LENGTH,
            }
        }
    }

    fn add_coding(&mut self, value: &[u8]) {
        if trim(value).is_empty() {
            self.odd |= Anomalies::BAD_TRANSFER_ENCODING;
        }
        for item in value.split(|byte| *byte == b',').map(trim) {
            if item.is_empty() {
                continue;
            }
            if self.coding == Coding::Chunked {
                self.odd |= Anomalies::BAD_TRANSFER_ENCODING;
            }
            self.coding =
                if item.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], length: Option<u64>, coding: Coding, odd: Anomalies) {
        let mut framing = Framing::default();
        for (name, value) in fields {
            framing.add(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(framing, Framing { length, coding, odd }, "{fields:?}");
    }

    #[test]
    fn lengths() {
        let (none, bad) = (Anomalies::empty(), Anomalies::BAD_CONTENT_LENGTH);
        check(&[("Content-Length", "5")], Some(5), Coding::None, none);
        let lenient = Anomalies::LENIENT;
        check(&[("content-length", "5, 5")], Some(5), Coding::None, lenient);
        check(&[("CONTENT-LENGTH", "5"), ("Content-Length", "5")], Some(5), Coding::None, lenient);
        check(&[("Content-Length", "5"), ("Content-Length", "6")], Some(5), Coding::None, bad);
        for value in ["+5", "-1", "0x5", "", "5 5", "18446744073709551616"] {
            check(&[("Content-Length", value)], None, Coding::None, bad);
        }
    }

    #[test]
    fn codings() {
        let none = Anomalies::empty();
        check(&[("Transfer-Encoding", "chunked")], None, Coding::Chunked, none);
        check(&[("Transfer-Encoding", "gzip, Chunked")], None, Coding::Chunked, none);
        check(&[("Transfer-Encoding", "gzip")], None, Coding::Other, none);
        let twice = Anomalies::BAD_TRANSFER_ENCODING;
        check(&[("Transfer-Encoding", "chunked, chunked")], None, Coding::Chunked, twice);
        check(
            &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "x")],
            None,
            Coding::Other,
            twice,
        );
        for value in ["xchunked", "\x0bchunked", "\"chunked\"", "chunked;q=1", "identity"] {
            check(&[("Transfer-Encoding", value)], None, Coding::Other, none);
        }
        check(&[("Transfer-Encoding", " ")], None, Coding::None, twice);
        let both = Anomalies::LENGTH_AND_CHUNKED;
        let fields = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")];
        check(&fields, Some(5), Coding::Chunked, both);
    }
}
