//! gRPC and gRPC-Web: messages in bodies, and how a call ended.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> and `PROTOCOL-WEB.md` beside it.

use super::protobuf::Numbers;
use crate::call::{Fields, Grpc, Messages, Outcome};
use crate::identity::{Identifier, Style};

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Marks a message that is compressed.
const COMPRESSED: u8 = 1;

/// Marks the trailers in a gRPC-Web body.
const TRAILERS: u8 = 0x80;

/// Trailers in a body that are read: a status and a short message.
const TRAILER_BYTES_MAX: usize = 4096;

/// How messages stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Flavour {
    /// Each with its prefix; the status is in the trailers.
    Plain,
    /// The same, with the trailers as the last message.
    Web,
    /// The same again, in base64.
    WebText,
}

impl Flavour {
    /// From a content type; `None` when it is another.
    pub(in crate::decode) fn of(content_type: &str) -> Option<Flavour> {
        let kind = content_type.split(';').next()?.trim_ascii();
        let rest = kind.get("application/grpc".len()..)?;
        if !kind[..kind.len() - rest.len()].eq_ignore_ascii_case("application/grpc") {
            return None;
        }
        let name = rest.split('+').next()?.to_ascii_lowercase();
        match name.as_str() {
            "" => Some(Flavour::Plain),
            "-web" => Some(Flavour::Web),
            "-web-text" => Some(Flavour::WebText),
            _ => None,
        }
    }

    /// The same where only gRPC-Web can be spoken: over HTTP/1, whose trailers hardly anybody passes on.
    pub(in crate::decode) fn of_http1(content_type: &[u8]) -> Option<Flavour> {
        let flavour = Flavour::of(str::from_utf8(content_type).ok()?)?;
        (flavour != Flavour::Plain).then_some(flavour)
    }
}

/// A status as it stands in a field.
pub(in crate::decode) fn status(value: &[u8]) -> Option<u32> {
    str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Both directions of a gRPC call.
pub(in crate::decode) struct Talk {
    sent: Body,
    received: Body,
    status: Option<u32>,
    message: Option<Vec<u8>>,
}

impl Talk {
    /// With the client's content type.
    pub(in crate::decode) fn new(sent: Flavour) -> Talk {
        let asked = Body { first: Some(Numbers::new()), ..Body::new(sent) };
        Talk { sent: asked, received: Body::new(sent), status: None, message: None }
    }

    /// The server's content type, before its first content.
    pub(in crate::decode) fn answers_in(&mut self, received: Flavour) {
        self.received = Body::new(received);
    }

    /// The server does not speak gRPC after all.
    pub(in crate::decode) fn answers_otherwise(&mut self) {
        self.received.part = Part::Lost;
    }

    /// Content of the client.
    pub(in crate::decode) fn send(&mut self, content: &[u8]) {
        self.sent.take(content);
    }

    /// Content of the server.
    pub(in crate::decode) fn receive(&mut self, content: &[u8]) {
        self.received.take(content);
        if let Some(trailers) = self.received.trailers.take() {
            self.read_trailers(&trailers);
        }
    }

    /// Content of the client that is missing.
    pub(in crate::decode) fn miss_sent(&mut self, bytes: u64) {
        self.sent.miss(bytes);
    }

    /// Content of the server that is missing.
    pub(in crate::decode) fn miss_received(&mut self, bytes: u64) {
        self.received.miss(bytes);
    }

    /// Status and message of the trailers, or of the only head.
    pub(in crate::decode) fn end(&mut self, status: Option<u32>, message: Option<Vec<u8>>) {
        self.status = self.status.or(status);
        self.message = self.message.take().or(message);
    }

    /// Memory held, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        size_of::<Talk>() + self.sent.held_bytes() + self.received.held_bytes()
    }

    /// The most that it may come to hold, bytes.
    pub(in crate::decode) const HELD_BYTES_MAX: usize = size_of::<Talk>() + 2 * TRAILER_BYTES_MAX;

    /// How the call ended. `status` is the HTTP status; `is_over`: nothing of the answer is missing.
    pub(in crate::decode) fn outcome(
        &self,
        identifier: &Identifier,
        style: Style,
        status: Option<u16>,
        is_over: bool,
    ) -> Option<Outcome> {
        let message = self.message.as_deref().unwrap_or_default();
        match (self.status, status) {
            (Some(code), _) => Some(identifier.outcome(style, as_http(code), message)),
            (None, Some(status)) if status >= 400 => Some(identifier.outcome(style, status, &[])),
            // An answer without a status is a failed one.
            (None, Some(_)) if is_over => Some(Outcome::Error),
            (None, _) => None,
        }
    }

    /// The record; the path is `/package.Service/Method`.
    pub(in crate::decode) fn record(&self, path: &str) -> Grpc {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
        Grpc {
            service: service.into(),
            method: method.into(),
            status: self.status,
            sent: self.sent.messages,
            received: self.received.messages,
        }
    }

    /// Numbers of the fields of the client's first message, as names; `None` where they are not known.
    pub(in crate::decode) fn fields(&self, identifier: &Identifier) -> Option<Fields> {
        let first = self.sent.first.as_ref().filter(|_| self.sent.has_read_first())?;
        identifier.numbered(first.numbers())
    }

    fn read_trailers(&mut self, trailers: &[u8]) {
        for line in trailers.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"grpc-status") {
                self.end(status(value), None);
            } else if name.eq_ignore_ascii_case(b"grpc-message") {
                self.end(None, Some(value.into()));
            }
        }
    }
}

/// The HTTP status that means what a gRPC status does
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).
fn as_http(code: u32) -> u16 {
    match code {
        0 => 200,
        7 => 403,
        8 => 429,
        16 => 401,
        _ => 500,
    }
}

/// Messages of one direction.
struct Body {
    part: Part,
    messages: Messages,
    web: bool,
    text: Option<Base64>,
    /// Fields of the first message, where they are wanted and can be read.
    first: Option<Numbers>,
    /// Trailers that have come to their end.
    trailers: Option<Vec<u8>>,
}

enum Part {
    Prefix {
        bytes: [u8; PREFIX_BYTES],
        count: usize,
    },
    Message {
        left: u64,
    },
    Trailers {
        left: u64,
        held: Vec<u8>,
    },
    /// It is not known where the next message begins.
    Lost,
}

impl Part {
    const START: Part = Part::Prefix { bytes: [0; PREFIX_BYTES], count: 0 };
}

impl Body {
    fn new(flavour: Flavour) -> Body {
        Body {
            part: Part::START,
            messages: Messages::default(),
            web: flavour != Flavour::Plain,
            text: (flavour == Flavour::WebText).then(Base64::default),
            first: None,
            trailers: None,
        }
    }

    /// The first message has come to its end.
    fn has_read_first(&self) -> bool {
        match self.part {
            Part::Prefix { .. } | Part::Trailers { .. } => self.messages.count > 0,
            Part::Message { .. } | Part::Lost => self.messages.count > 1,
        }
    }

    fn held_bytes(&self) -> usize {
        match &self.part {
            Part::Trailers { held, .. } => held.capacity(),
            Part::Prefix { .. } | Part::Message { .. } | Part::Lost => 0,
        }
    }

    fn take(&mut self, content: &[u8]) {
        match self.text.take() {
            None => self.take_plain(content),
            Some(mut text) => {
                let mut decoded = [0; 1536];
                for piece in content.chunks(2048) {
                    match text.decode(piece, &mut decoded) {
                        Some(count) => self.take_plain(&decoded[..count]),
                        None => self.part = Part::Lost,
                    }
                }
                self.text = Some(text);
            }
        }
    }

    fn take_plain(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            match &mut self.part {
                Part::Lost => return,
                Part::Prefix { bytes, count } => {
                    bytes[*count] = content[0];
                    *count += 1;
                    content = &content[1..];
                    if *count == PREFIX_BYTES {
                        let [flags, length @ ..] = *bytes;
                        self.begin(flags, u64::from(u32::from_be_bytes(length)));
                    }
                }
                Part::Message { left } => {
                    let taken = content.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    self.messages.bytes += taken as u64;
                    if self.messages.count == 1
                        && let Some(first) = &mut self.first
                    {
                        first.take(&content[..taken]);
                    }
                    content = &content[taken..];
                    if *left == 0 {
                        self.part = Part::START;
                    }
                }
                Part::Trailers { left, held } => {
                    let taken = content.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    let room = TRAILER_BYTES_MAX.saturating_sub(held.len()).min(taken);
                    held.extend_from_slice(&content[..room]);
                    content = &content[taken..];
                    if *left == 0 {
                        self.trailers = Some(std::mem::take(held));
                        self.part = Part::START;
                    }
                }
            }
        }
    }

    fn begin(&mut self, flags: u8, left: u64) {
        let trailers = self.web && flags & TRAILERS != 0;
        self.messages.count += u64::from(!trailers);
        if self.messages.count == 1 && flags & COMPRESSED != 0 {
            self.first = None;
        }
        self.part = match (trailers, left) {
            (_, 0) => Part::START,
            (true, left) => Part::Trailers { left, held: Vec::new() },
            (false, left) => Part::Message { left },
        };
    }

    fn miss(&mut self, bytes: u64) {
        if !self.has_read_first() {
            self.first = None;
        }
        // How many bytes base64 stood for is known, but not where its groups begin.
        let is_text = self.text.is_some();
        match &mut self.part {
            Part::Message { left } if *left >= bytes && !is_text => {
                *left -= bytes;
                self.messages.bytes += bytes;
                if *left == 0 {
                    self.part = Part::START;
                }
            }
            Part::Message { .. } | Part::Prefix { .. } | Part::Trailers { .. } | Part::Lost => {
                self.part = Part::Lost;
            }
        }
    }
}

/// Base64 that comes in pieces, each of which may end with padding (RFC 4648, 4).
#[derive(Default)]
struct Base64 {
    bits: u32,
    /// Characters of the present group.
    count: u32,
    /// Padding characters of it.
    padding: u32,
}

impl Base64 {
    /// Decodes at most four thirds of what `out` holds; `None` for what is none.
    fn decode(&mut self, text: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        for byte in text {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                b'=' => {
                    self.padding += 1;
                    0
                }
                b'\r' | b'\n' => continue,
                _ => return None,
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.count += 1;
            if self.count == 4 {
                let bytes = 3_usize.checked_sub(self.padding as usize)?;
                let [_, group @ ..] = self.bits.to_be_bytes();
                out.get_mut(filled..filled + bytes)?.copy_from_slice(&group[..bytes]);
                filled += bytes;
                *self = Base64::default();
            }
        }
        Some(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;

    fn message(flags: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flags];
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// Count and bytes, and the status of trailers, of a body in pieces of every size.
    fn read(flavour: Flavour, body: &[u8]) -> (u64, u64, Option<u32>) {
        let mut results: Vec<_> = [1, 2, 3, 5, 1000]
            .map(|size| {
                let mut talk = Talk::new(flavour);
                body.chunks(size).for_each(|piece| talk.receive(piece));
                let grpc = talk.record("/a.B/C");
                assert_eq!((grpc.service.as_str(), grpc.method.as_str()), ("a.B", "C"));
                (grpc.received.count, grpc.received.bytes, grpc.status)
            })
            .into();
        results.dedup();
        assert_eq!(results.len(), 1);
        results[0]
    }

    #[test]
    fn messages_are_counted_across_pieces() {
        let body = [message(0, b"abc"), message(1, b""), message(0, &[7; 300])].concat();
        assert_eq!(read(Flavour::Plain, &body), (3, 303, None));
        assert_eq!(read(Flavour::Plain, &body[..body.len() - 1]), (3, 302, None));
    }

    #[test]
    fn trailers_of_grpc_web_are_no_message() {
        let trailers = message(0x80, b"grpc-status: 7\r\ngrpc-message: no\r\n");
        let body = [message(0, b"abc"), trailers].concat();
        assert_eq!(read(Flavour::Web, &body), (1, 3, Some(7)));
    }

    #[test]
    fn base64_may_end_and_go_on() {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let parts = [message(0, b"abcd"), message(0x80, b"grpc-status:0\r\n")];
        let body = parts.map(|part| encode(&part)).concat();
        assert_eq!(read(Flavour::WebText, body.as_bytes()), (1, 4, Some(0)));
        assert_eq!(read(Flavour::WebText, b"AAAA!AAAA"), (0, 0, None));
        assert_eq!(read(Flavour::WebText, b"A====AA"), (0, 0, None));
    }

    #[test]
    fn missing_content_of_a_message_is_counted_through() {
        let mut talk = Talk::new(Flavour::Plain);
        talk.send(&message(0, &[0; 10])[..7]);
        talk.miss_sent(8);
        talk.send(&message(0, b"x"));
        assert_eq!(talk.record("").sent, Messages { count: 2, bytes: 11 });
        talk.miss_sent(1);
        talk.send(&message(0, b"x"));
        assert_eq!(talk.record("").sent, Messages { count: 2, bytes: 11 });
    }

    #[test]
    fn content_types() {
        let cases = [
            ("application/grpc", Some(Flavour::Plain)),
            ("Application/gRPC+proto; x=y", Some(Flavour::Plain)),
            ("application/grpc-web+json", Some(Flavour::Web)),
            ("application/grpc-web-text", Some(Flavour::WebText)),
            ("application/grpcx", None),
            ("application/json", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Flavour::of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_status_is_an_outcome() {
        let identifier = Identifier::new(Secret::new([0; 32]));
        let outcome = |status, message: &str| {
            let mut talk = Talk::new(Flavour::Plain);
            talk.end(status, Some(message.into()));
            talk.outcome(&identifier, Style::GENERIC, Some(200), true)
        };
        assert_eq!(outcome(Some(0), ""), Some(Outcome::Ok));
        assert_eq!(outcome(Some(16), ""), Some(Outcome::BadKey));
        assert_eq!(outcome(Some(16), "invalid signature"), Some(Outcome::BadSignature));
        assert_eq!(outcome(Some(7), ""), Some(Outcome::PermissionDenied));
        assert_eq!(outcome(Some(8), ""), Some(Outcome::Throttled));
        assert_eq!(outcome(Some(14), ""), Some(Outcome::Error));
        assert_eq!(outcome(None, ""), Some(Outcome::Error));
    }
}
