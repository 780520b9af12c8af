//! Request and response heads, as far as a call needs them.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use compact_str::CompactString;
use httparse::{Error, Header, ParserConfig, Status};

use super::body::Body;
use super::framing::{Coding, Framing};
use super::head::{Parse, Parsed};
use super::line;
use super::odd::{OddHead, RequestLine, StatusLine, Version, is_token, trim};
use super::switch::{Agreement, Offer};
use crate::ascii::{is_name, marked};
use crate::call::{Anomalies, HeaderOrder, Protocol, Quota, Request};
use crate::decode::content::ContentCoding;
use crate::decode::grpc::{self, Flavour};
use crate::identity::{self, Identified, Identifier, Order, RequestHead, is_redirect};

/// A request head.
pub(super) struct Asked {
    /// `None` when it does not parse. On the heap, because it is passed on from hand to hand.
    pub(super) parts: Option<Box<(Request, Identified)>>,
    pub(super) protocol: Protocol,
    pub(super) kind: Kind,
    /// Another protocol that it offers to change to.
    pub(super) offer: Option<Box<Offer>>,
    /// Its body is that of a gRPC-Web call.
    pub(super) grpc: Option<Flavour>,
    /// It says that none follows.
    pub(super) is_last: bool,
    pub(super) framing: Framing,
}

/// What the fields of a request come to.
#[derive(Clone, Default)]
pub(super) struct RequestFields {
    framing: Framing,
    /// The first `Host`.
    host: Option<CompactString>,
    user_agent: Option<CompactString>,
    /// There is an `Upgrade`.
    upgrade: bool,
    /// What `Connection` says of the requests that follow: that there are none.
    is_last: Option<bool>,
    /// Of a gRPC-Web call whose content is not coded.
    grpc: Option<Flavour>,
    /// In which order they stand.
    order: Option<HeaderOrder>,
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
    /// `None` when it does not parse.
    pub(super) status: Option<u16>,
    pub(super) protocol: Protocol,
    /// Of a 101.
    pub(super) agreement: Option<Box<Agreement>>,
    /// How a body is coded.
    pub(super) coding: ContentCoding,
    pub(super) grpc: GrpcAnswer,
    pub(super) quota: Option<Quota>,
    /// What a redirect carries.
    pub(super) redirect: Option<Box<identity::Answer>>,
    /// It says that none follows.
    pub(super) is_last: bool,
    pub(super) framing: Framing,
}

/// What the fields of a response come to.
#[derive(Clone, Default)]
pub(super) struct ResponseFields {
    framing: Framing,
    coding: ContentCoding,
    grpc: GrpcAnswer,
    quota: Option<Quota>,
    /// What `Connection` says of the responses that follow: that there are none.
    is_last: Option<bool>,
}

/// What a response head says to a gRPC-Web call.
#[derive(Clone, Default)]
pub(super) struct GrpcAnswer {
    pub(super) flavour: Option<Flavour>,
    /// Its body is coded: messages cannot be told apart.
    pub(super) is_coded: bool,
    /// Status and message of an answer that is nothing but its head.
    pub(super) status: Option<u32>,
    pub(super) message: Option<Vec<u8>>,
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
    /// Not all of its fields were read.
    pub(super) fn forget_order(&mut self) {
        if let Some((request, _)) = self.parts.as_deref_mut() {
            request.header_order = None;
        }
    }

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
            (Some(101), _) | (Some(200..=299), Kind::Connect) => Content::Tunnel,
            (Some(100..=199), _) => Content::Interim,
            (Some(204 | 304), _) | (_, Kind::Head) => Content::Nothing,
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
pub(super) struct Requests<'a> {
    pub(super) identifier: &'a Identifier,
    /// Who sends them, where that matters.
    pub(super) peer: Option<IpAddr>,
}

impl Parse for Requests<'_> {
    type Head = Asked;

    /// Method, target, protocol.
    type Line<'b> = (&'b str, &'b str, Protocol);

    type Fields = RequestFields;

    fn parse<'h, 'b>(
        bytes: &'b [u8],
        headers: &'h mut [MaybeUninit<Header<'b>>],
    ) -> Result<Status<Parsed<'h, 'b, Self::Line<'b>>>, Error> {
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(bytes, headers)?;
        let (Status::Complete(used), Some(line)) = (status, line::of_request(&request)) else {
            return Ok(Status::Partial);
        };
        Ok(Status::Complete(Parsed { line, headers: request.headers, used }))
    }

    fn parse_line(bytes: &[u8]) -> Option<Self::Line<'_>> {
        line::request(bytes)
    }

    fn needs_fields(_line: &Self::Line<'_>) -> bool {
        true
    }

    fn fields(&self, headers: &[Header<'_>]) -> RequestFields {
        RequestFields::read(headers)
    }

    fn head(
        &self,
        &(method, target, protocol): &Self::Line<'_>,
        fields: RequestFields,
        headers: &[Header<'_>],
    ) -> Asked {
        self.asked(&RequestHead { method, target, headers }, protocol, fields)
    }

    fn parse_odd(&self, head: &OddHead<'_>) -> Option<Asked> {
        let line = RequestLine::read(head.first)?;
        let protocol = match line.version {
            // Lines of other protocols look much the same: it must ask for something of HTTP's.
            Version::Foreign => return None,
            Version::None if !line.asks_for_path() => return None,
            Version::None => Protocol::Http09,
            Version::Http10 => Protocol::Http10,
            Version::Http11 | Version::Other => Protocol::Http11,
        };
        let mut odd = line.odd;
        if protocol == Protocol::Http09 && !(line.is_simple() && head.headers.is_empty()) {
            odd |= Anomalies::BAD_VERSION;
        }
        let target = text(line.target, &mut odd);
        let head = RequestHead { method: line.method, target: &target, headers: &head.headers };
        let mut asked = self.asked(&head, protocol, RequestFields::read(head.headers));
        asked.framing.odd |= odd;
        if let Some((request, _)) = asked.parts.as_deref_mut()
            && target.is_empty()
        {
            request.path = CompactString::default();
        }
        Some(asked)
    }

    fn unreadable(&self) -> Asked {
        Asked {
            parts: None,
            protocol: Protocol::Http11,
            kind: Kind::Other,
            offer: None,
            grpc: None,
            is_last: false,
            framing: Framing { odd: Anomalies::BAD_HEAD, ..Framing::default() },
        }
    }

    fn framing<'h>(&self, head: &'h mut Asked) -> &'h mut Framing {
        &mut head.framing
    }

    /// A method token and a space (RFC 9110, 5.6.2 and 9.1).
    fn plausible(&self, start: &[u8]) -> bool {
        match start.iter().position(|byte| !is_token(*byte)) {
            Some(end) => end > 0 && matches!(start[end], b' ' | b'\t'),
            None => start.len() < 32,
        }
    }

    fn is_whole(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        RequestLine::read(line).is_some_and(|line| line.is_simple())
    }

    fn is_enough(&self, line: &[u8]) -> bool {
        matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
    }
}

impl Requests<'_> {
    fn asked(&self, head: &RequestHead<'_>, protocol: Protocol, fields: RequestFields) -> Asked {
        let RequestFields { mut framing, host, user_agent, upgrade, is_last, grpc, order } = fields;
        // A connection of HTTP/1.0 ends with its message unless it says otherwise (RFC 9112, 9.3).
        let is_last = is_last.unwrap_or(protocol == Protocol::Http10);
        if host.is_none() && protocol == Protocol::Http11 {
            framing.odd |= Anomalies::BAD_HOST;
        }
        if protocol == Protocol::Http10 && framing.coding != Coding::None {
            // It did not know them (RFC 9112, 6.1).
            framing.odd |= Anomalies::BAD_TRANSFER_ENCODING;
        }
        let mut identified = self.identifier.identify_from(head, self.peer, order);
        let request = Request {
            method: head.method.into(),
            host: authority(head.target).map(CompactString::from).or(host),
            target: std::mem::take(&mut identified.target),
            path: std::mem::take(&mut identified.path),
            user_agent,
            header_order: identified.header_order,
            body_bytes: 0,
        };
        let kind = match head.method {
            "HEAD" => Kind::Head,
            "CONNECT" => Kind::Connect,
            method => {
                if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                    // Methods are told apart by case (RFC 9110, 9.1); some servers do not.
                    framing.odd |= Anomalies::LENIENT;
                }
                Kind::Other
            }
        };
        if !head.target.is_ascii() {
            // Such bytes should have been encoded (RFC 3986, 2.5).
            framing.odd |= Anomalies::LENIENT;
        }
        let offer = if upgrade { Offer::read(head.headers) } else { None };
        framing.odd |= identified.anomalies;
        let parts = Some(Box::new((request, identified)));
        Asked { parts, protocol, kind, offer, grpc, is_last, framing }
    }
}

impl RequestFields {
    fn read(headers: &[Header<'_>]) -> RequestFields {
        let mut fields = RequestFields::default();
        let (framing, mut is_coded) = (&mut fields.framing, false);
        for header in headers {
            let name = header.name.as_bytes();
            // Few lengths out of many: most fields are passed over by length alone.
            match name.len() {
                4 if is_name(name, b"Host") => {
                    let is_host = header.value.iter().all(|byte| HOST_BYTES[usize::from(*byte)]);
                    if fields.host.is_some() || !is_host {
                        framing.odd |= Anomalies::BAD_HOST;
                    }
                    if fields.host.is_none() {
                        fields.host = Some(text(header.value, &mut framing.odd));
                    }
                }
                7 => fields.upgrade |= name.eq_ignore_ascii_case(b"upgrade"),
                10 if fields.user_agent.is_none() && is_name(name, b"User-Agent") => {
                    fields.user_agent = Some(text(header.value, &mut framing.odd));
                }
                10 => fields.is_last = closes(header).or(fields.is_last),
                12 if is_grpc(header) => fields.grpc = Flavour::of_http1(header.value),
                14 | 17 => framing.add(name, header.value),
                16 => is_coded |= codes(header),
                _ => {}
            }
        }
        fields.grpc = fields.grpc.filter(|_| !is_coded);
        fields.order = Order::default().of(headers);
        fields
    }
}

/// Parses responses.
pub(super) struct Responses<'a>(pub(super) &'a Identifier);

impl Parse for Responses<'_> {
    type Head = Answered;

    /// Protocol, status.
    type Line<'b> = (Protocol, u16);

    type Fields = ResponseFields;

    fn parse<'h, 'b>(
        bytes: &'b [u8],
        headers: &'h mut [MaybeUninit<Header<'b>>],
    ) -> Result<Status<Parsed<'h, 'b, Self::Line<'b>>>, Error> {
        let mut response = httparse::Response::new(&mut []);
        let config = ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut response, bytes, headers)?;
        let (Status::Complete(used), Some(line)) = (status, line::of_response(&response)) else {
            return Ok(Status::Partial);
        };
        Ok(Status::Complete(Parsed { line, headers: response.headers, used }))
    }

    fn parse_line(bytes: &[u8]) -> Option<Self::Line<'_>> {
        line::status(bytes)
    }

    /// Where the protocol changes, or an answer goes elsewhere.
    fn needs_fields(&(_, status): &Self::Line<'_>) -> bool {
        status == 101 || is_redirect(Some(status))
    }

    fn fields(&self, headers: &[Header<'_>]) -> ResponseFields {
        ResponseFields { quota: self.0.quota(headers), ..ResponseFields::read(headers) }
    }

    fn head(
        &self,
        &(protocol, status): &Self::Line<'_>,
        fields: ResponseFields,
        headers: &[Header<'_>],
    ) -> Answered {
        Answered::new(protocol, Some(status), fields, headers)
    }

    fn parse_odd(&self, head: &OddHead<'_>) -> Option<Answered> {
        let line = StatusLine::read(head.first)?;
        let protocol = match line.version {
            Version::Http10 => Protocol::Http10,
            Version::None | Version::Foreign | Version::Http11 | Version::Other => Protocol::Http11,
        };
        let fields = self.fields(&head.headers);
        let mut answered = Answered::new(protocol, line.status, fields, &head.headers);
        answered.framing.odd |= line.odd;
        Some(answered)
    }

    fn unreadable(&self) -> Answered {
        let mut answered = Answered::bare(Protocol::Http11, None);
        answered.framing.odd |= Anomalies::BAD_HEAD;
        answered
    }

    fn framing<'h>(&self, head: &'h mut Answered) -> &'h mut Framing {
        &mut head.framing
    }

    fn plausible(&self, start: &[u8]) -> bool {
        start.iter().zip(b"HTTP/").all(|(seen, sought)| seen == sought)
    }

    fn is_whole(&self, _line: &[u8]) -> bool {
        false
    }

    /// The reason phrase says nothing.
    fn is_enough(&self, line: &[u8]) -> bool {
        matches!(line, [b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', _, _, _, b' ', ..])
    }
}

impl Answered {
    /// Without any fields.
    pub(super) fn bare(protocol: Protocol, status: Option<u16>) -> Answered {
        Answered::new(protocol, status, ResponseFields::default(), &[])
    }

    fn new(
        protocol: Protocol,
        status: Option<u16>,
        fields: ResponseFields,
        headers: &[Header<'_>],
    ) -> Answered {
        let ResponseFields { mut framing, coding, grpc, quota, is_last } = fields;
        if status.is_some_and(|status| !(100..=599).contains(&status)) {
            // No class of its own (RFC 9110, 15).
            framing.odd |= Anomalies::LENIENT;
        }
        let is_last = is_last.unwrap_or(protocol == Protocol::Http10);
        let agreement = (status == Some(101)).then(|| Agreement::read(headers));
        let redirect = if is_redirect(status) { redirect(headers) } else { None };
        Answered { status, protocol, agreement, coding, grpc, quota, redirect, is_last, framing }
    }
}

impl ResponseFields {
    fn read(headers: &[Header<'_>]) -> ResponseFields {
        let mut fields = ResponseFields::default();
        let grpc = &mut fields.grpc;
        for header in headers {
            match header.name.len() {
                10 => fields.is_last = closes(header).or(fields.is_last),
                11 if header.name.eq_ignore_ascii_case("grpc-status") => {
                    grpc.status = grpc::status(header.value);
                }
                12 if is_grpc(header) => grpc.flavour = Flavour::of_http1(header.value),
                12 if header.name.eq_ignore_ascii_case("grpc-message") => {
                    grpc.message = Some(header.value.into());
                }
                14 | 17 => fields.framing.add(header.name.as_bytes(), header.value),
                16 if header.name.eq_ignore_ascii_case("content-encoding") => {
                    grpc.is_coded |= codes(header);
                    fields.coding.add(header.value);
                }
                _ => {}
            }
        }
        fields
    }
}

/// What the answer carries that is sent elsewhere.
fn redirect(headers: &[Header<'_>]) -> Option<Box<identity::Answer>> {
    let location = headers.iter().find(|it| it.name.eq_ignore_ascii_case("location"))?;
    identity::Answer::of(location.value)
}

/// Whether a field says that the connection ends, or goes on (RFC 9112, 9.3).
fn closes(header: &Header<'_>) -> Option<bool> {
    // As nearly all write it.
    let usual = header.name == "Connection" || header.name == "connection";
    if !usual && !header.name.eq_ignore_ascii_case("connection") {
        return None;
    }
    if header.value == b"keep-alive" {
        return Some(false);
    }
    let mut items = header.value.split(|byte| *byte == b',').map(trim);
    items.find_map(|item| {
        let is_close = item.eq_ignore_ascii_case(b"close");
        (is_close || item.eq_ignore_ascii_case(b"keep-alive")).then_some(is_close)
    })
}

/// Whether a field is a content type of gRPC: no other type begins so.
fn is_grpc(header: &Header<'_>) -> bool {
    header.value.get(12..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"grpc"))
        && header.name.eq_ignore_ascii_case("content-type")
}

/// Whether a field says that the content is compressed.
fn codes(header: &Header<'_>) -> bool {
    header.name.eq_ignore_ascii_case("content-encoding")
        && !trim(header.value).eq_ignore_ascii_case(b"identity")
}

/// What a host and port are made of (RFC 3986, 3.2.2 and 3.2.3), international names aside.
static HOST_BYTES: [bool; 256] = {
    let mut bytes = marked(b"-._~%!$&'()*+,;=:[]");
    let mut byte = 0;
    while byte < 256 {
        if byte >= 0x80 || (byte as u8).is_ascii_alphanumeric() {
            bytes[byte] = true;
        }
        byte += 1;
    }
    bytes
};

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
        let answered = |status, length| {
            let framing = Framing { length, ..Framing::default() };
            Answered { framing, ..Answered::bare(Protocol::Http11, Some(status)) }
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
