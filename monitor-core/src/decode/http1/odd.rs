//! Heads that are not by the letter (RFC 9112): read as far as they go, each fault named.
//!
//! Where readers differ on what bytes mean, the reading is the one that most servers take, and the
//! name of the fault says that others may see another message.

use httparse::Header;

use crate::ascii::marked;
use crate::call::Anomalies;

/// A head cut into its lines.
pub(super) struct OddHead<'b> {
    /// The first line without its end.
    pub(super) first: &'b [u8],
    /// Fields that have a name and a value, in order.
    pub(super) headers: Vec<Header<'b>>,
    /// What is odd about the lines.
    pub(super) odd: Anomalies,
}

/// A request line in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'b> {
    pub(super) method: &'b str,
    pub(super) target: &'b [u8],
    pub(super) version: Version,
    pub(super) odd: Anomalies,
}

/// A status line in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    pub(super) version: Version,
    /// `None` when it is not three digits.
    pub(super) status: Option<u16>,
    pub(super) odd: Anomalies,
}

/// What stands for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Nothing.
    None,
    /// `HTTP/1.0`.
    Http10,
    /// `HTTP/1.1`.
    Http11,
    /// Another one of HTTP.
    Other,
    /// One of another protocol.
    Foreign,
}

/// Joins folded lines in place: the line end before them becomes spaces (RFC 9112, 5.2).
pub(super) fn unfold(bytes: &mut [u8]) -> Anomalies {
    let mut odd = Anomalies::empty();
    let mut line = 0;
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]).map(|end| at + end) {
        at = end + 1;
        line += 1;
        if !matches!(bytes.get(at), Some(b' ' | b'\t')) {
            continue;
        }
        odd |= Anomalies::OBS_FOLD;
        // Space after the first line continues nothing: see `split`.
        if line > 1 {
            bytes[end] = b' ';
            match end.checked_sub(1).and_then(|before| bytes.get_mut(before)) {
                Some(before) if *before == b'\r' => *before = b' ',
                Some(_) | None => odd |= Anomalies::BARE_LF,
            }
        }
    }
    odd
}

/// Cuts an unfolded head into its lines.
pub(super) fn split(bytes: &[u8]) -> OddHead<'_> {
    let mut head = OddHead { first: b"", headers: Vec::new(), odd: Anomalies::empty() };
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = head.end_line(line);
        match number {
            0 => head.first = line,
            // Read by nobody (RFC 9112, 2.2), and named by `unfold`.
            1 if matches!(line, [b' ' | b'\t', ..]) => {}
            _ if line.is_empty() => {}
            _ => head.add(line),
        }
    }
    head
}

impl<'b> OddHead<'b> {
    /// The line without its end, looked through.
    fn end_line(&mut self, line: &'b [u8]) -> &'b [u8] {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None => {
                self.odd |= Anomalies::BARE_LF;
                line
            }
        };
        self.odd |= control_bytes(line);
        line
    }

    fn add(&mut self, line: &'b [u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            self.odd |= Anomalies::BAD_FIELD_NAME;
            return;
        };
        let (name, value) = (trim(&line[..colon]), trim(&line[colon + 1..]));
        if name.len() != colon || name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            self.odd |= Anomalies::BAD_FIELD_NAME;
        }
        match str::from_utf8(name) {
            Ok(name) => self.headers.push(Header { name, value }),
            Err(_) => self.odd |= Anomalies::NOT_UTF8,
        }
    }
}

impl<'b> RequestLine<'b> {
    /// `None` when it does not begin with a method and a space.
    pub(super) fn read(line: &'b [u8]) -> Option<RequestLine<'b>> {
        let method_end = line.iter().position(|byte| !is_token(*byte))?;
        let method = str::from_utf8(&line[..method_end]).ok().filter(|it| !it.is_empty())?;
        let rest = &line[method_end..];
        let mut odd = match rest {
            [b' ', b' ' | b'\t' | b'\r', ..] => Anomalies::LENIENT,
            [b' ', ..] => Anomalies::empty(),
            [b'\t', ..] => Anomalies::LENIENT,
            _ => return None,
        };
        let all = trim(rest);
        if all.len() < rest.len() - 1 {
            odd |= Anomalies::LENIENT;
        }
        let last = all.iter().rposition(|byte| is_space(*byte)).map_or(0, |space| space + 1);
        let version = Version::read(&all[last..]);
        let target = if version == Version::None { all } else { trim(&all[..last]) };
        if version != Version::None && target.len() + 1 < last {
            odd |= Anomalies::LENIENT;
        }
        if target.is_empty() {
            odd |= Anomalies::BAD_HEAD;
        }
        if target.iter().any(|byte| is_space(*byte)) {
            // Another reader ends the target at the first of them.
            odd |= Anomalies::LENIENT;
        }
        if matches!(version, Version::Other | Version::Foreign) {
            odd |= Anomalies::BAD_VERSION;
        }
        Some(RequestLine { method, target, version, odd })
    }

    /// Whether the target is of a form that HTTP has (RFC 9112, 3.2).
    pub(super) fn asks_for_path(&self) -> bool {
        let scheme = self.target.get(..4).unwrap_or_default();
        matches!(self.target, [b'/', ..] | [b'*']) || scheme.eq_ignore_ascii_case(b"http")
    }

    /// Whether it asks in the way of HTTP/0.9 (RFC 1945, 4.1): the line is the request.
    pub(super) fn is_simple(&self) -> bool {
        self.version == Version::None
            && self.method.eq_ignore_ascii_case("GET")
            && self.asks_for_path()
    }
}

impl StatusLine {
    /// `None` when it does not begin with a version.
    pub(super) fn read(line: &[u8]) -> Option<StatusLine> {
        let end = line.iter().position(|byte| is_space(*byte)).unwrap_or(line.len());
        let version = Version::read(&line[..end]);
        let mut odd = match version {
            Version::None | Version::Foreign => return None,
            Version::Other => Anomalies::BAD_VERSION,
            Version::Http10 | Version::Http11 => Anomalies::empty(),
        };
        let rest = &line[end..];
        let code = trim_start(rest);
        if rest.len() != code.len() + 1 || rest.first() != Some(&b' ') {
            odd |= Anomalies::LENIENT;
        }
        let status = match code {
            [a, b, c] | [a, b, c, b' ' | b'\t' | b'\r', ..]
                if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) =>
            {
                let digit = |byte: &u8| u16::from(*byte - b'0');
                Some(digit(a) * 100 + digit(b) * 10 + digit(c))
            }
            _ => None,
        };
        if status.is_none() {
            odd |= Anomalies::BAD_HEAD;
        }
        Some(StatusLine { version, status, odd })
    }
}

impl Version {
    /// A name, a slash and a number; anything else is none.
    fn read(word: &[u8]) -> Version {
        match word {
            b"HTTP/1.0" => return Version::Http10,
            b"HTTP/1.1" => return Version::Http11,
            _ => {}
        }
        let name = word.iter().position(|byte| *byte == b'/').map(|slash| &word[..slash]);
        match name {
            // Whatever follows `HTTP/` was meant to be one.
            Some(name) if name.eq_ignore_ascii_case(b"HTTP") => Version::Other,
            Some(name)
                if !name.is_empty()
                    && name.iter().all(u8::is_ascii_alphabetic)
                    && word[name.len() + 1..].first().is_some_and(u8::is_ascii_digit)
                    && word[name.len() + 1..].iter().all(|b| b.is_ascii_digit() || *b == b'.') =>
            {
                Version::Foreign
            }
            Some(_) | None => Version::None,
        }
    }
}

/// What is odd about a line that is cut short.
pub(super) fn cut_line(line: &[u8]) -> Anomalies {
    let fold = match line {
        [b' ' | b'\t', ..] => Anomalies::OBS_FOLD,
        _ => Anomalies::empty(),
    };
    fold | control_bytes(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Bytes that do not belong into a line.
fn control_bytes(line: &[u8]) -> Anomalies {
    let odd = |byte: &u8| match byte {
        b'\r' => Anomalies::BARE_CR,
        b'\t' => Anomalies::empty(),
        0..=0x1f | 0x7f => Anomalies::CONTROL_BYTE,
        _ => Anomalies::empty(),
    };
    line.iter().map(odd).collect()
}

/// Token characters (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

const TOKEN: [bool; 256] =
    marked(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without optional whitespace (RFC 9110, 5.6.3) at both ends; other control bytes stay.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let start = trim_start(bytes);
    let end = start.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
    &start[..end]
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, expected: Option<(&str, &str, Version, Anomalies)>) {
        let read = RequestLine::read(line.as_bytes());
        let seen = read.as_ref().map(|read| {
            (read.method, str::from_utf8(read.target).unwrap(), read.version, read.odd)
        });
        assert_eq!(seen, expected, "{line:?}");
    }

    #[test]
    fn request_lines() {
        let none = Anomalies::empty();
        let (lenient, version) = (Anomalies::LENIENT, Anomalies::BAD_VERSION);
        let (v11, other) = (Version::Http11, Version::Other);
        check_line("GET /a HTTP/1.1", Some(("GET", "/a", v11, none)));
        check_line("GET  /a HTTP/1.1", Some(("GET", "/a", v11, lenient)));
        check_line("GET\t/a HTTP/1.1", Some(("GET", "/a", v11, lenient)));
        check_line("GET /a  HTTP/1.1", Some(("GET", "/a", v11, lenient)));
        check_line("GET /a HTTP/1.1 ", Some(("GET", "/a", v11, lenient)));
        check_line("GET /a b HTTP/1.1", Some(("GET", "/a b", v11, lenient)));
        check_line("GET /a HTTP/3.7", Some(("GET", "/a", other, version)));
        check_line("GET /a HTTP/", Some(("GET", "/a", other, version)));
        check_line("GET /a http/1.1", Some(("GET", "/a", other, version)));
        check_line("GET /a RTSP/1.0", Some(("GET", "/a", Version::Foreign, version)));
        check_line("GET HTTP/1.1", Some(("GET", "", v11, Anomalies::BAD_HEAD)));
        check_line("GET /a", Some(("GET", "/a", Version::None, none)));
        check_line("GET /a/1.0", Some(("GET", "/a/1.0", Version::None, none)));
        check_line("GET", None);
        check_line("(GET) /a HTTP/1.1", None);
        check_line(" GET /a HTTP/1.1", None);
    }

    #[test]
    fn only_a_get_of_a_path_is_a_simple_request() {
        let is_simple = |line: &str| RequestLine::read(line.as_bytes()).unwrap().is_simple();
        assert!(is_simple("GET /") && is_simple("GET http://a/"));
        for line in ["GET / HTTP/1.0", "POST /", "HELO there", "GET a", "GET "] {
            assert!(!is_simple(line), "{line}");
        }
    }

    #[test]
    fn status_lines() {
        let check = |line: &str, version, status, odd| {
            let expected = Some(StatusLine { version, status, odd });
            assert_eq!(StatusLine::read(line.as_bytes()), expected, "{line}");
        };
        let none = Anomalies::empty();
        let (lenient, bad) = (Anomalies::LENIENT, Anomalies::BAD_HEAD);
        let v11 = Version::Http11;
        check("HTTP/1.1 200 OK", v11, Some(200), none);
        check("HTTP/1.1 200", v11, Some(200), none);
        check("HTTP/1.1  200 OK", v11, Some(200), lenient);
        check("HTTP/1.1\t200 OK", v11, Some(200), lenient);
        check("HTTP/1.1 20 OK", v11, None, bad);
        check("HTTP/1.1 2000 OK", v11, None, bad);
        check("HTTP/1.1 OK", v11, None, bad);
        check("HTTP/1.1", v11, None, bad | lenient);
        check("HTTP/2 200", Version::Other, Some(200), Anomalies::BAD_VERSION);
        assert_eq!(StatusLine::read(b"220 smtp ready"), None);
    }

    fn check_fields(head: &str, fields: &[(&str, &str)], odd: Anomalies) {
        let mut bytes = head.as_bytes().to_vec();
        let folded = unfold(&mut bytes);
        let split = split(&bytes);
        let seen: Vec<_> = split
            .headers
            .iter()
            .map(|header| (header.name, str::from_utf8(header.value).unwrap()))
            .collect();
        assert_eq!(seen, fields, "{head:?}");
        assert_eq!(split.odd | folded, odd, "{head:?}");
        assert_eq!(split.first, b"x");
    }

    #[test]
    fn fields_and_their_faults() {
        let (fold, lf) = (Anomalies::OBS_FOLD, Anomalies::BARE_LF);
        let name = Anomalies::BAD_FIELD_NAME;
        check_fields("x\r\nA: b\r\nC:\t d \r\n\r\n", &[("A", "b"), ("C", "d")], Anomalies::empty());
        check_fields("x\r\nA: b\r\n c\r\nD: e\r\n\r\n", &[("A", "b   c"), ("D", "e")], fold);
        check_fields("x\r\nA: b\n\tc\r\n\r\n", &[("A", "b \tc")], fold | lf);
        check_fields("x\r\n A: b\r\nC: d\r\n\r\n", &[("C", "d")], fold);
        check_fields("x\r\n A: b\r\n e\r\nC: d\r\n\r\n", &[("C", "d")], fold);
        check_fields("x\nA: b\r\n\r\n", &[("A", "b")], lf);
        check_fields("x\r\nA: b\rC: d\r\n\r\n", &[("A", "b\rC: d")], Anomalies::BARE_CR);
        check_fields("x\r\nA: \0b\r\n\r\n", &[("A", "\0b")], Anomalies::CONTROL_BYTE);
        check_fields("x\r\nA : b\r\n\r\n", &[("A", "b")], name);
        check_fields("x\r\nA(: b\r\n\r\n", &[("A(", "b")], name);
        check_fields("x\r\n: b\r\n\r\n", &[("", "b")], name);
        check_fields("x\r\nno colon\r\n\r\n", &[], name);
    }
}
