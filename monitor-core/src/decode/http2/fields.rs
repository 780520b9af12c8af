//! The header fields of one block, within their bounds, and what a call needs of them.

use std::net::IpAddr;

use compact_str::CompactString;
use httparse::Header;
use smallvec::SmallVec;

use super::hpack::Field;
use crate::call::{Anomalies, Quota, Request};
use crate::decode::Counters;
use crate::decode::content::ContentCoding;
use crate::decode::grpc;
use crate::identity::{Answer, Identified, Identifier, Order, RequestHead, is_redirect};
use crate::limits::Limits;

/// What a field counts besides its strings (RFC 9113, 6.5.2).
const FIELD_BYTES: usize = 32;

/// Fields are missing.
const NOT_ALL: Anomalies =
    Anomalies::UNKNOWN_HEADER.union(Anomalies::BAD_HEADER_BLOCK).union(Anomalies::HEAD_TOO_LARGE);

/// Header fields as they stood in a block. They hold credentials, so they are never printed.
#[derive(Default)]
pub(super) struct FieldList {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    count: usize,
    size: usize,
    /// What was odd about them.
    pub(super) odd: Anomalies,
}

/// Where a field stands in the bytes; a part that is not known is empty.
struct Piece {
    start: usize,
    name_end: usize,
    end: usize,
    name_known: bool,
    value_known: bool,
}

/// A request head.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) identified: Identified,
    /// CONNECT: what follows is no message.
    pub(super) tunnel: bool,
    pub(super) content_length: Option<u64>,
    pub(super) content_type: Option<CompactString>,
}

/// A response head, or trailers.
#[derive(Default)]
pub(super) struct Answered {
    /// `None` when it is not known.
    pub(super) status: Option<u16>,
    pub(super) content_length: Option<u64>,
    pub(super) content_type: Option<CompactString>,
    pub(super) coding: ContentCoding,
    pub(super) quota: Option<Quota>,
    pub(super) grpc_status: Option<u32>,
    pub(super) grpc_message: Option<Vec<u8>>,
    /// What a redirect carries.
    pub(super) redirect: Option<Box<Answer>>,
}

impl FieldList {
    /// Adds a field, unless the list is full.
    pub(super) fn push(&mut self, field: Field<'_>, limits: &Limits, counters: &mut Counters) {
        let (name, value) = (field.name.unwrap_or_default(), field.value.unwrap_or_default());
        if field.name.is_none() || field.value.is_none() {
            counters.http2_fields_unknown += 1;
            self.odd |= Anomalies::UNKNOWN_HEADER;
        }
        self.count += 1;
        if self.count == limits.headers_max + 1 {
            counters.headers_too_many += 1;
            self.odd |= Anomalies::TOO_MANY_HEADERS;
        }
        let size = name.len() + value.len() + FIELD_BYTES;
        if self.size + size > limits.head_bytes_max {
            if !self.odd.contains(Anomalies::HEAD_TOO_LARGE) {
                counters.heads_too_large += 1;
                self.odd |= Anomalies::HEAD_TOO_LARGE;
            }
            return;
        }
        self.size += size;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.pieces.push(Piece {
            start,
            name_end,
            end: self.bytes.len(),
            name_known: field.name.is_some(),
            value_known: field.value.is_some(),
        });
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }

    /// No field was read.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<&[u8]>)> {
        self.pieces.iter().map(|piece| {
            let name = piece.name_known.then(|| &self.bytes[piece.start..piece.name_end]);
            let value = piece.value_known.then(|| &self.bytes[piece.name_end..piece.end]);
            (name, value)
        })
    }

    /// Pseudo-fields come first (RFC 9113, 8.3), and trailers have none: true when these fields can
    /// be the beginning of a message.
    pub(super) fn may_begin(&self) -> bool {
        self.iter().next().is_some_and(|(name, _)| name.is_none_or(|name| name.starts_with(b":")))
    }

    /// Reads a request of `peer`, `None` where that does not matter. What refers to unknown entries is left out.
    pub(super) fn request(&mut self, identifier: &Identifier, peer: Option<IpAddr>) -> Asked {
        let mut odd = Anomalies::empty();
        let (mut method, mut path, mut authority, mut protocol) = (None, None, None, None);
        let (mut host, mut user_agent, mut raw_authority) = (None, None, None);
        let (mut content_length, mut content_type) = (None, None);
        let mut order = Order::default();
        let mut headers = SmallVec::<[Header<'_>; 32]>::new();
        for (name, value) in self.iter() {
            let (Some(name), Some(value)) = (name, value) else { continue };
            if let Some(pseudo) = name.strip_prefix(b":") {
                order.add(name);
                // They come first and once (RFC 9113, 8.3).
                let place = match pseudo {
                    b"method" => &mut method,
                    b"path" => &mut path,
                    b"authority" => &mut authority,
                    b"protocol" => &mut protocol,
                    _ => continue,
                };
                if place.is_some() || !headers.is_empty() {
                    odd |= Anomalies::LENIENT;
                }
                place.get_or_insert(text(value, &mut odd));
                if pseudo == b"authority" {
                    // For whom the style of an exchange is told by its host.
                    raw_authority.get_or_insert(value);
                }
                continue;
            }
            if name.iter().any(u8::is_ascii_uppercase) {
                odd |= Anomalies::LENIENT;
            }
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    host.get_or_insert_with(|| text(value, &mut odd));
                }
                10 if name.eq_ignore_ascii_case(b"user-agent") => {
                    user_agent.get_or_insert_with(|| text(value, &mut odd));
                }
                12 if name.eq_ignore_ascii_case(b"content-type") => {
                    content_type.get_or_insert_with(|| CompactString::from_utf8_lossy(value));
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    length(value, &mut content_length, &mut odd);
                }
                _ => {}
            }
            if let Ok(name) = str::from_utf8(name) {
                headers.push(Header { name, value });
            }
        }
        let order = order.of(&headers);
        if let Some(value) = raw_authority {
            headers.push(Header { name: "host", value });
        }
        let tunnel = method.as_deref() == Some("CONNECT");
        let extended = protocol.is_some();
        let authority = authority.map(without_user);
        let target = match (&path, &authority) {
            (None, Some(authority)) if tunnel && !extended => Some(authority.as_str()),
            _ => path.as_deref(),
        };
        if !self.odd.intersects(Anomalies::UNKNOWN_HEADER | Anomalies::BAD_HEADER_BLOCK)
            && (method.is_none() || target.is_none_or(str::is_empty))
        {
            odd |= Anomalies::BAD_HEAD;
        }
        // An extended CONNECT asks for a path as GET does (RFC 8441, 4).
        let as_method = match &method {
            Some(_) if tunnel && extended => "GET",
            Some(method) => method,
            None => "",
        };
        let head =
            RequestHead { method: as_method, target: target.unwrap_or(""), headers: &headers };
        let mut identified = identifier.identify_from(&head, peer, order);
        drop(headers);
        let is_seen = target.is_some();
        let request = Request {
            host: authority.or(host),
            target: std::mem::take(&mut identified.target),
            path: if is_seen { std::mem::take(&mut identified.path) } else { "".into() },
            method: method.unwrap_or_default(),
            user_agent,
            header_order: identified.header_order.filter(|_| !self.odd.intersects(NOT_ALL)),
            body_bytes: 0,
        };
        self.odd |= odd | identified.anomalies;
        Asked { request, identified, tunnel, content_length, content_type }
    }

    /// Reads a response head or trailers.
    pub(super) fn response(&mut self, identifier: &Identifier) -> Answered {
        let mut odd = Anomalies::empty();
        let mut answered = Answered::default();
        for (name, value) in self.iter() {
            let (Some(name), Some(value)) = (name, value) else { continue };
            if let Ok(name) = str::from_utf8(name) {
                identifier.count(name, value, &mut answered.quota);
            }
            match name.len() {
                7 if name == b":status" => match status(value) {
                    Some(status) => answered.status = Some(status),
                    None => odd |= Anomalies::BAD_HEAD,
                },
                8 if is_redirect(answered.status) && name.eq_ignore_ascii_case(b"location") => {
                    answered.redirect = Answer::of(value);
                }
                11 if name.eq_ignore_ascii_case(b"grpc-status") => {
                    answered.grpc_status = grpc::status(value);
                }
                12 if name.eq_ignore_ascii_case(b"content-type") => {
                    answered.content_type = Some(CompactString::from_utf8_lossy(value));
                }
                12 if name.eq_ignore_ascii_case(b"grpc-message") => {
                    answered.grpc_message = Some(value.into());
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    length(value, &mut answered.content_length, &mut odd);
                }
                16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                    answered.coding.add(value);
                }
                _ => {}
            }
        }
        self.odd |= odd;
        answered
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

/// A user name and password before the host are credentials and left out.
fn without_user(authority: CompactString) -> CompactString {
    match authority.rsplit_once('@') {
        Some((_, host)) => host.into(),
        None => authority,
    }
}

fn status(value: &[u8]) -> Option<u16> {
    let digits = value.len() == 3 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

fn length(value: &[u8], length: &mut Option<u64>, odd: &mut Anomalies) {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let parsed = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    if parsed.is_none() || length.is_some_and(|length| Some(length) != parsed) {
        *odd |= Anomalies::BAD_CONTENT_LENGTH;
    }
    *length = length.or(parsed);
}
