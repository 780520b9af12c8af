//! First lines by the letter (RFC 9112, 3 and 4).
//!
//! Plain ones, as nearly all are, are taken apart at a glance. Of others httparse judges, and of the
//! plain ones it would say the same.

use httparse::{ParserConfig, Status};

use super::odd::is_token;
use crate::call::Protocol;

/// Method, target and protocol of a request line with its end.
pub(super) fn request(bytes: &[u8]) -> Option<(&str, &str, Protocol)> {
    plain_request(bytes).or_else(|| judged_request(bytes))
}

/// Protocol and status of a status line with its end.
pub(super) fn status(bytes: &[u8]) -> Option<(Protocol, u16)> {
    plain_status(bytes).or_else(|| judged_status(bytes))
}

fn plain_request(bytes: &[u8]) -> Option<(&str, &str, Protocol)> {
    let (line, protocol) = match bytes.strip_suffix(b" HTTP/1.1\r\n") {
        Some(line) => (line, Protocol::Http11),
        None => (bytes.strip_suffix(b" HTTP/1.0\r\n")?, Protocol::Http10),
    };
    let end = line.iter().position(|byte| !is_token(*byte))?;
    let (method, rest) = line.split_at(end);
    let target = rest.strip_prefix(b" ")?;
    // Without a way out: so it is done for many bytes at a time.
    let is_plain = target.iter().fold(true, |all, byte| all & byte.is_ascii_graphic());
    if method.is_empty() || target.is_empty() || !is_plain {
        return None;
    }
    Some((str::from_utf8(method).ok()?, str::from_utf8(target).ok()?, protocol))
}

fn judged_request(bytes: &[u8]) -> Option<(&str, &str, Protocol)> {
    let mut request = httparse::Request::new(&mut []);
    // Fields, or their end, are still to come.
    let is_read = request.parse_with_uninit_headers(bytes, &mut []) == Ok(Status::Partial);
    is_read.then(|| of_request(&request))?
}

fn plain_status(bytes: &[u8]) -> Option<(Protocol, u16)> {
    let [minor, b' ', a, b, c, b' ', reason @ .., b'\r', b'\n'] = bytes.strip_prefix(b"HTTP/1.")?
    else {
        return None;
    };
    let minor = matches!(minor, b'0' | b'1').then(|| minor - b'0')?;
    let is_plain = [a, b, c].into_iter().all(u8::is_ascii_digit)
        && reason.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let status = [a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit & 15));
    is_plain.then(|| (protocol(minor), status))
}

fn judged_status(bytes: &[u8]) -> Option<(Protocol, u16)> {
    let mut response = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let read = config.parse_response_with_uninit_headers(&mut response, bytes, &mut []);
    (read == Ok(Status::Partial)).then(|| of_response(&response))?
}

/// What httparse read of a request line; `None` when it is not whole.
pub(super) fn of_request<'b>(
    request: &httparse::Request<'_, 'b>,
) -> Option<(&'b str, &'b str, Protocol)> {
    Some((request.method?, request.path?, protocol(request.version?)))
}

/// The same of a status line.
pub(super) fn of_response(response: &httparse::Response<'_, '_>) -> Option<(Protocol, u16)> {
    Some((protocol(response.version?), response.code?))
}

fn protocol(minor: u8) -> Protocol {
    match minor {
        0 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines, and each with one byte changed, left out or put in.
    fn with_neighbours(lines: &[&[u8]], mut check: impl FnMut(&[u8])) {
        for line in lines {
            check(line);
            for at in 0..line.len() {
                let (before, after) = line.split_at(at);
                check(&[before, &after[1..]].concat());
                for byte in 0..=u8::MAX {
                    check(&[before, &[byte], &after[1..]].concat());
                    check(&[before, &[byte], after].concat());
                }
            }
        }
    }

    #[test]
    fn of_plain_request_lines_httparse_says_the_same() {
        let lines: [&[u8]; 3] = [
            b"GET /a?b=c&d=%20#e HTTP/1.1\r\n",
            b"M-SEARCH * HTTP/1.0\r\n",
            b"CONNECT a.b:443 HTTP/1.1\r\n",
        ];
        let (mut plain, mut all) = (0, 0);
        with_neighbours(&lines, |line| {
            let found = plain_request(line);
            assert!(found.is_none() || found == judged_request(line), "{}", line.escape_ascii());
            (plain, all) = (plain + usize::from(found.is_some()), all + 1);
        });
        assert!(lines.iter().all(|line| plain_request(line).is_some()));
        assert!(plain > all / 10 && plain < all, "{plain} of {all}");
        assert_eq!(request(lines[1]), Some(("M-SEARCH", "*", Protocol::Http10)));
        assert_eq!(request("GET /ä HTTP/1.1\r\n".as_bytes()).map(|line| line.1), Some("/ä"));
    }

    #[test]
    fn of_plain_status_lines_httparse_says_the_same() {
        let lines: [&[u8]; 3] =
            [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404 Not Found\r\n", b"HTTP/1.1 999 \r\n"];
        let (mut plain, mut all) = (0, 0);
        with_neighbours(&lines, |line| {
            let found = plain_status(line);
            assert!(found.is_none() || found == judged_status(line), "{}", line.escape_ascii());
            (plain, all) = (plain + usize::from(found.is_some()), all + 1);
        });
        assert!(lines.iter().all(|line| plain_status(line).is_some()));
        assert!(plain > all / 20 && plain < all, "{plain} of {all}");
        assert_eq!(status(lines[1]), Some((Protocol::Http10, 404)));
        assert_eq!(status(b"HTTP/1.1 200\n"), Some((Protocol::Http11, 200)));
    }
}
