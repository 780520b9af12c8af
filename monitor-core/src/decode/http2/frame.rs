//! Frames (RFC 9113, 4 and 6): the head, and the fields that stand before the content.

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;

/// Content of a frame that every receiver must take (RFC 9113, 4.2).
pub const CONTENT_BYTES_DEFAULT: u32 = 16_384;

/// Bytes of a setting: its id and its value.
pub const SETTING_BYTES: usize = 6;

/// Flags; their meaning depends on the kind.
const END_STREAM: u8 = 0x01;
const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// What a frame is there for (RFC 9113, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Content of a stream.
    Data,
    /// Begins a header block.
    Headers,
    /// Advice that nobody follows any more.
    Priority,
    /// Ends a stream at once.
    ResetStream,
    /// What the sender is prepared for.
    Settings,
    /// A request that the server answers unasked.
    PushPromise,
    /// Asks for an echo.
    Ping,
    /// No new streams.
    GoAway,
    /// Room for more content.
    WindowUpdate,
    /// Goes on with a header block.
    Continuation,
    /// An extension.
    Other(u8),
}

impl Kind {
    fn of(number: u8) -> Kind {
        match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::ResetStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            other => Kind::Other(other),
        }
    }
}

/// The nine bytes that each frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes that follow.
    pub length: u32,
    /// What it is there for.
    pub kind: Kind,
    /// Flags as they stood on the wire.
    pub flags: u8,
    /// The stream; 0 for the connection. The reserved bit is left out.
    pub stream: u32,
}

/// What is wrong with a frame, by the error that its receiver answers with (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `PROTOCOL_ERROR`.
    #[error("a frame that does not belong there")]
    Protocol,
    /// `FRAME_SIZE_ERROR`.
    #[error("a frame of a wrong size")]
    Size,
}

impl Fault {
    /// Its error code.
    pub fn code(self) -> u32 {
        match self {
            Fault::Protocol => 1,
            Fault::Size => 6,
        }
    }
}

impl Head {
    /// From the wire.
    pub fn parse(bytes: &[u8; HEAD_BYTES]) -> Head {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Head {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::of(kind),
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// The last frame of this sender in the stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    /// The last frame of a header block.
    pub fn ends_headers(&self) -> bool {
        self.has_block() && self.flags & END_HEADERS != 0
    }

    /// An answer to the other side's `SETTINGS` or `PING`.
    pub fn is_ack(&self) -> bool {
        matches!(self.kind, Kind::Settings | Kind::Ping) && self.flags & ACK != 0
    }

    /// Its content belongs to a header block.
    pub fn has_block(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::PushPromise | Kind::Continuation)
    }

    fn is_padded(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise)
            && self.flags & PADDED != 0
    }

    /// Bytes of the fields before the content.
    pub fn fields_bytes(&self) -> usize {
        let padded = usize::from(self.is_padded());
        match self.kind {
            Kind::Headers if self.flags & PRIORITY != 0 => padded + 5,
            Kind::PushPromise => padded + 4,
            Kind::Priority => 5,
            Kind::ResetStream | Kind::WindowUpdate => 4,
            Kind::Ping | Kind::GoAway => 8,
            Kind::Data | Kind::Headers => padded,
            Kind::Settings | Kind::Continuation | Kind::Other(_) => 0,
        }
    }

    /// Whether length and stream fit the kind. `content_bytes_max`: what the receiver takes.
    pub fn check(&self, content_bytes_max: u32) -> Result<(), Fault> {
        let of_stream = match self.kind {
            Kind::Data
            | Kind::Headers
            | Kind::Priority
            | Kind::ResetStream
            | Kind::PushPromise
            | Kind::Continuation => Some(true),
            Kind::Settings | Kind::Ping | Kind::GoAway => Some(false),
            Kind::WindowUpdate | Kind::Other(_) => None,
        };
        if of_stream.is_some_and(|of_stream| of_stream != (self.stream != 0)) {
            return Err(Fault::Protocol);
        }
        let (length, fields) = (self.length as usize, self.fields_bytes());
        let fits = match self.kind {
            Kind::Priority | Kind::ResetStream | Kind::Ping | Kind::WindowUpdate => {
                length == fields
            }
            Kind::Settings if self.is_ack() => length == 0,
            Kind::Settings => length.is_multiple_of(SETTING_BYTES),
            Kind::Data
            | Kind::Headers
            | Kind::PushPromise
            | Kind::GoAway
            | Kind::Continuation
            | Kind::Other(_) => length >= fields,
        };
        if fits && self.length <= content_bytes_max { Ok(()) } else { Err(Fault::Size) }
    }
}

/// Where a stream stood in the sender's order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// Alone below that stream.
    pub exclusive: bool,
    /// The stream that goes first.
    pub dependency: u32,
    /// 1 to 256.
    pub weight: u16,
}

/// What the fields before the content say, besides padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// There are none.
    None,
    /// Of `PRIORITY`, and of `HEADERS` with that flag.
    Priority(Priority),
    /// Error code of `RST_STREAM`.
    Code(u32),
    /// The stream that `PUSH_PROMISE` begins.
    Promised(u32),
    /// What `PING` wants back.
    Opaque([u8; 8]),
    /// Of `GOAWAY`.
    GoAway {
        /// The last stream that will be answered.
        last_stream: u32,
        /// Error code.
        code: u32,
    },
    /// Of `WINDOW_UPDATE`.
    Increment(u32),
}

/// A frame up to its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Bytes after the content that mean nothing.
    pub padding_bytes: Option<u8>,
    /// The rest.
    pub fields: Fields,
    /// Bytes of content that follow.
    pub content_bytes: u32,
}

impl Opening {
    /// From the [`Head::fields_bytes`] after a head that has been checked.
    pub fn parse(head: &Head, fields: &[u8]) -> Result<Opening, Fault> {
        let (padding_bytes, rest) = match fields.split_first() {
            Some((length, rest)) if head.is_padded() => (Some(*length), rest),
            Some(_) | None => (None, fields),
        };
        let taken = fields.len() as u32 + u32::from(padding_bytes.unwrap_or(0));
        let content_bytes = head.length.checked_sub(taken).ok_or(Fault::Protocol)?;
        let fields = match (head.kind, rest) {
            (Kind::Headers | Kind::Priority, &[a, b, c, d, weight]) => {
                let word = u32::from_be_bytes([a, b, c, d]);
                Fields::Priority(Priority {
                    exclusive: word >> 31 != 0,
                    dependency: word & 0x7fff_ffff,
                    weight: u16::from(weight) + 1,
                })
            }
            (Kind::ResetStream, &[a, b, c, d]) => Fields::Code(u32::from_be_bytes([a, b, c, d])),
            (Kind::PushPromise, &[a, b, c, d]) => {
                let stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
                // Streams of the server have even numbers (RFC 9113, 5.1.1).
                if stream == 0 || stream % 2 == 1 {
                    return Err(Fault::Protocol);
                }
                Fields::Promised(stream)
            }
            (Kind::WindowUpdate, &[a, b, c, d]) => {
                let increment = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
                if increment == 0 {
                    return Err(Fault::Protocol);
                }
                Fields::Increment(increment)
            }
            (Kind::Ping, &[a, b, c, d, e, f, g, h]) => Fields::Opaque([a, b, c, d, e, f, g, h]),
            (Kind::GoAway, &[a, b, c, d, e, f, g, h]) => Fields::GoAway {
                last_stream: u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff,
                code: u32::from_be_bytes([e, f, g, h]),
            },
            _ => Fields::None,
        };
        Ok(Opening { padding_bytes, fields, content_bytes })
    }
}

/// A frame whose bytes are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its first nine bytes.
    pub head: Head,
    /// What comes before the content.
    pub opening: Opening,
    /// Data, a piece of a header block, settings, or what else it brings.
    pub content: &'a [u8],
    /// Bytes that mean nothing.
    pub padding: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame and nothing else; `None` when bytes are missing or left over.
    pub fn parse(bytes: &'a [u8], content_bytes_max: u32) -> Option<Result<Frame<'a>, Fault>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let head = Head::parse(head);
        if let Err(fault) = head.check(content_bytes_max) {
            return Some(Err(fault));
        }
        if rest.len() != head.length as usize {
            return None;
        }
        let (fields, rest) = rest.split_at_checked(head.fields_bytes())?;
        Some(Opening::parse(&head, fields).map(|opening| {
            let (content, padding) = rest.split_at(opening.content_bytes as usize);
            Frame { head, opening, content, padding }
        }))
    }
}

/// A setting as it stands in `SETTINGS` (RFC 9113, 6.5.1).
pub fn setting(bytes: &[u8; SETTING_BYTES]) -> (u16, u32) {
    let [a, b, c, d, e, f] = *bytes;
    (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Option<Result<Frame<'_>, Fault>> {
        Frame::parse(bytes, CONTENT_BYTES_DEFAULT)
    }

    #[test]
    fn padding_and_priority_stand_around_the_content() {
        let bytes = [0, 0, 10, 1, 0x2d, 0x80, 0, 0, 3, 2, 0x80, 0, 0, 1, 15, b'h', b'i', 0, 0];
        let frame = parse(&bytes).unwrap().unwrap();
        assert_eq!((frame.content, frame.padding, frame.head.stream), (&b"hi"[..], &[0, 0][..], 3));
        let priority = Priority { exclusive: true, dependency: 1, weight: 16 };
        assert_eq!(frame.opening.fields, Fields::Priority(priority));
        assert!(frame.head.ends_stream() && frame.head.ends_headers());
    }

    #[test]
    fn faults() {
        let check = |bytes: &[u8], fault| assert_eq!(parse(bytes), Some(Err(fault)), "{bytes:?}");
        check(&[0, 0, 1, 0, 8, 0, 0, 0, 1, 1], Fault::Protocol);
        check(&[0, 0, 0, 0, 8, 0, 0, 0, 1], Fault::Size);
        check(&[0, 0, 0, 0, 0, 0, 0, 0, 0], Fault::Protocol);
        check(&[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5], Fault::Size);
        check(&[0, 0x40, 1, 0, 0, 0, 0, 0, 1], Fault::Size);
        check(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x80, 0, 0, 0], Fault::Protocol);
        assert_eq!(parse(&[0, 0, 1, 0, 0, 0, 0, 0, 1]), None);
        assert!(parse(&[0, 0, 0, 0xfe, 0xff, 0, 0, 0, 0]).unwrap().is_ok());
    }
}
