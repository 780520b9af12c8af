//! Request and response heads, as far as a call needs them.

use std::mem::MaybeUninit;

use compact_str::CompactString;
use httparse::{Error, Header, ParserConfig, Status};

use super::body::Body;
use super::framing::{Coding, Framing};
use super::head::{Mode, Parse};
use super::switch::{Agreement, Offer};
use crate::call::{Anomalies, Protocol, Request};
use crate::decode::content::ContentCoding;
use crate::identity::{Identified, Identifier, RequestHead};

/// A request head.
pub(super) struct Asked {
    /// `None` when it does not parse.
    pub(super) parts: Option<(Request, Identified)>,
    pub(super) protocol: Protocol,
    pub(super) kind: Kind,
    /// Another protocol that it offers to change to.
    pub(super) offer: Option<Box<Offer>>,
    pub(super) framing: Framing,
}

/// What a method means for the length of the response (RFC 9112, 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The response has no body.
    Head,
    /// A good response ends the protocol.
    Connect,
    /// Nothing special.
    Other,
}

/// A response head.
pub(super) struct Answered {
    /// 0 when it does not parse.
    pub(super) status: u16,
    pub(super) protocol: Protocol,
    /// Of a 101.
    pub(super) agreement: Option<Box<Agreement>>,
    /// How an error body is coded; not looked at otherwise.
    pub(super) coding: ContentCoding,
    pub(super) framing: Framing,
}

/// What follows a response head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// An interim response: the real one follows.
    Interim,
    /// Nothing.
    Nothing,
    /// A body.
    Body(Body),
    /// Another protocol.
    Tunnel,
}

impl Asked {
    /// The body that follows; `Err` when its end cannot be known (RFC 9112, 6.3, item 4).
    pub(super) fn body(&mut self) -> Result<Option<Body>, ()> {
        match (self.framing.coding, self.framing.length) {
            (Coding::Chunked, _) => Ok(Some(Body::chunked())),
            (Coding::Other, _) => {
                self.framing.odd |= Anomalies::BAD_TRANSFER_ENCODING;
                Err(())
            }
            (Coding::None, None | Some(0)) => Ok(None),
            (Coding::None, Some(length)) => Ok(Some(Body::Length(length))),
        }
    }
}

impl Answered {
    /// What follows, as an answer to a request of this kind.
    pub(super) fn content(&self, kind: Kind) -> Content {
        match (self.status, kind) {
            (101, _) | (200..=299, Kind::Connect) => Content::Tunnel,
            (100..=199, _) => Content::Interim,
            (204 | 304, _) | (_, Kind::Head) => Content::Nothing,
            (_, Kind::Connect | Kind::Other) => match (self.framing.coding, self.framing.length) {
                (Coding::Chunked, _) => Content::Body(Body::chunked()),
                (Coding::Other, _) | (Coding::None, None) => Content::Body(Body::UntilClose),
                (Coding::None, Some(0)) => Content::Nothing,
                (Coding::None, Some(length)) => Content::Body(Body::Length(length)),
            },
        }
    }
}

/// Parses requests.
pub(super) struct Requests<'a>(pub(super) &'a Identifier);

impl Parse for Requests<'_> {
    type Head = Asked;

    fn parse<'b>(
        &self,
        bytes: &'b [u8],
        mode: Mode,
        headers: &mut [MaybeUninit<Header<'b>>],
    ) -> Result<Status<(Asked, usize)>, Error> {
        let mut config = ParserConfig::default();
        match mode {
            Mode::Strict => {}
            Mode::Lenient => {
                config.allow_multiple_spaces_in_request_line_delimiters(true);
                config.ignore_invalid_headers_in_requests(true);
            }
        }
        let mut request = httparse::Request::new(&mut []);
        let status = config.parse_request_with_uninit_headers(&mut request, bytes, headers)?;
        let Status::Complete(used) = status else { return Ok(Status::Partial) };
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Ok(Status::Partial);
        };
        let head = RequestHead { method, target, headers: request.headers };
        Ok(Status::Complete((self.asked(&head, version), used)))
    }

    fn unreadable(&self) -> Asked {
        Asked {
            parts: None,
            protocol: Protocol::Http11,
            kind: Kind::Other,
            offer: None,
            framing: Framing { odd: Anomalies::BAD_HEAD, ..Framing::default() },
        }
    }

    fn framing<'h>(&self, head: &'h mut Asked) -> &'h mut Framing {
        &mut head.framing
    }

    /// A method token and a space (RFC 9110, 5.6.2 and 9.1).
    fn plausible(&self, start: &[u8]) -> bool {
        match start.iter().position(|byte| !is_token(*byte)) {
            Some(end) => end > 0 && start[end] == b' ',
            None => start.len() < 32,
        }
    }
}

impl Requests<'_> {
    fn asked(&self, head: &RequestHead<'_>, version: u8) -> Asked {
        let mut framing = Framing::default();
        let (mut host, mut user_agent, mut upgrade) = (None, None, false);
        for header in head.headers {
            let name = header.name.as_bytes();
            // Five lengths out of many: most fields are passed over by length alone.
            match name.len() {
                4 if host.is_none() && name.eq_ignore_ascii_case(b"host") => {
                    host = Some(text(header.value, &mut framing.odd));
                }
                7 => upgrade |= name.eq_ignore_ascii_case(b"upgrade"),
                10 if user_agent.is_none() && name.eq_ignore_ascii_case(b"user-agent") => {
                    user_agent = Some(text(header.value, &mut framing.odd));
                }
                14 | 17 => framing.add(name, header.value),
                _ => {}
            }
        }
        let mut identified = self.0.identify(head);
        let request = Request {
            method: head.method.into(),
            host: authority(head.target).map(CompactString::from).or(host),
            target: std::mem::take(&mut identified.target),
            path: std::mem::take(&mut identified.path),
            user_agent,
            body_bytes: 0,
        };
        let kind = match head.method {
            "HEAD" => Kind::Head,
            "CONNECT" => Kind::Connect,
            _ => Kind::Other,
        };
        let offer = if upgrade { Offer::read(head.headers) } else { None };
        framing.odd |= identified.anomalies;
        let parts = Some((request, identified));
        Asked { parts, protocol: protocol(version), kind, offer, framing }
    }
}

/// Parses responses.
pub(super) struct Responses;

impl Parse for Responses {
    type Head = Answered;

    fn parse<'b>(
        &self,
        bytes: &'b [u8],
        mode: Mode,
        headers: &mut [MaybeUninit<Header<'b>>],
    ) -> Result<Status<(Answered, usize)>, Error> {
        let mut config = ParserConfig::default();
        match mode {
            Mode::Strict => {}
            Mode::Lenient => {
                config.allow_multiple_spaces_in_response_status_delimiters(true);
                config.allow_obsolete_multiline_headers_in_responses(true);
                config.allow_spaces_after_header_name_in_responses(true);
                config.ignore_invalid_headers_in_responses(true);
            }
        }
        let mut response = httparse::Response::new(&mut []);
        let status = config.parse_response_with_uninit_headers(&mut response, bytes, headers)?;
        let (Status::Complete(used), Some(status), Some(version)) =
            (status, response.code, response.version)
        else {
            return Ok(Status::Partial);
        };
        let mut framing = Framing::default();
        for header in &*response.headers {
            if matches!(header.name.len(), 14 | 17) {
                framing.add(header.name.as_bytes(), header.value);
            }
        }
        let agreement = (status == 101).then(|| Agreement::read(response.headers));
        let mut coding = ContentCoding::default();
        if status >= 400 {
            let coded = |header: &&Header<'_>| header.name.eq_ignore_ascii_case("content-encoding");
            response.headers.iter().filter(coded).for_each(|header| coding.add(header.value));
        }
        let head = Answered { status, protocol: protocol(version), agreement, coding, framing };
        Ok(Status::Complete((head, used)))
    }

    fn unreadable(&self) -> Answered {
        Answered {
            status: 0,
            protocol: Protocol::Http11,
            agreement: None,
            coding: ContentCoding::default(),
            framing: Framing { odd: Anomalies::BAD_HEAD, ..Framing::default() },
        }
    }

    fn framing<'h>(&self, head: &'h mut Answered) -> &'h mut Framing {
        &mut head.framing
    }

    fn plausible(&self, start: &[u8]) -> bool {
        start.iter().zip(b"HTTP/1.").all(|(seen, sought)| seen == sought)
    }
}

/// Token characters (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn protocol(minor: u8) -> Protocol {
    match minor {
        0 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

fn text(value: &[u8], odd: &mut Anomalies) -> CompactString {
    match str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => {
            *odd |= Anomalies::NOT_UTF8;
            CompactString::from_utf8_lossy(value)
        }
    }
}

/// Host and port of an absolute target, which counts more than `Host` (RFC 9112, 3.2.2). A user name
/// and password before it are credentials and left out.
fn authority(target: &str) -> Option<&str> {
    let scheme = target.get(..8)?;
    let rest = if scheme.eq_ignore_ascii_case("https://") {
        &target[8..]
    } else if scheme.get(..7)?.eq_ignore_ascii_case("http://") {
        &target[7..]
    } else {
        return None;
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit('@').next().unwrap_or(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_an_absolute_target_leaves_out_credentials() {
        let cases = [
            ("http://a.b:80/c", Some("a.b:80")),
            ("HTTPS://user:pass@a.b?x", Some("a.b")),
            ("/http://a.b/", None),
            ("http:/", None),
            ("*", None),
        ];
        for (target, expected) in cases {
            assert_eq!(authority(target), expected, "{target}");
        }
    }

    #[test]
    fn what_follows_a_response() {
        let answered = |status, length| Answered {
            status,
            protocol: Protocol::Http11,
            agreement: None,
            coding: ContentCoding::default(),
            framing: Framing { length, ..Framing::default() },
        };
        let body = |body| Content::Body(body);
        assert_eq!(answered(200, Some(5)).content(Kind::Other), body(Body::Length(5)));
        assert_eq!(answered(200, Some(5)).content(Kind::Head), Content::Nothing);
        assert_eq!(answered(304, Some(5)).content(Kind::Other), Content::Nothing);
        assert_eq!(answered(200, None).content(Kind::Other), body(Body::UntilClose));
        assert_eq!(answered(200, None).content(Kind::Connect), Content::Tunnel);
        assert_eq!(answered(403, Some(1)).content(Kind::Connect), body(Body::Length(1)));
        assert_eq!(answered(100, None).content(Kind::Other), Content::Interim);
        assert_eq!(answered(101, None).content(Kind::Other), Content::Tunnel);
    }
}
