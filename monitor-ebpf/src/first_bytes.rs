//! What the first bytes of a packet tell of its connection.

use aya_ebpf::bindings::__sk_buff;

use crate::headers::{Headers, load};

/// The first eight payload bytes of a packet; with fewer, the first two or one and spaces.
pub struct FirstBytes {
    bytes: [u8; 8],
    payload_len: u32,
}

impl FirstBytes {
    /// `None` without payload.
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff, headers: &Headers) -> Option<FirstBytes> {
        let payload_len = headers.payload_len;
        let bytes = if payload_len >= 8 {
            load(skb, headers.payload_offset)?
        } else if payload_len >= 2 {
            let [first, second]: [u8; 2] = load(skb, headers.payload_offset)?;
            [first, second, b' ', b' ', b' ', b' ', b' ', b' ']
        } else {
            let [first]: [u8; 1] = load(skb, headers.payload_offset)?;
            [first, b' ', b' ', b' ', b' ', b' ', b' ', b' ']
        };
        Some(FirstBytes { bytes, payload_len })
    }

    /// A TLS record: content type 20 to 23, legacy version 3.x (RFC 8446, 5.1).
    #[inline(always)]
    pub fn begin_tls(&self) -> bool {
        let [first, second, ..] = self.bytes;
        (20..=23).contains(&first) && second == 3
    }

    /// HTTP, an HTTP/2 preface, FIX, the PROXY protocol.
    #[inline(always)]
    pub fn begin_api(&self) -> bool {
        let [first, second, third, ..] = self.bytes;
        // A line end may come before a request (RFC 9112, 2.2); a PROXY header begins with one too.
        // A FIX message begins with `8=FIX`.
        let begins_otherwise = first == b'\r' || (first == b'8' && second == b'=' && third == b'F');
        begins_otherwise || self.are_a_token_of_capitals()
    }

    /// A method as servers know them (`GET `, `PROPFIND`), `HTTP/1.1`, `PRI * HT` or `PROXY TC`.
    #[inline(always)]
    fn are_a_token_of_capitals(&self) -> bool {
        let mut letters = 0;
        while letters < 8 && self.bytes[letters].is_ascii_uppercase() {
            letters += 1;
        }
        letters > 0 && (letters == 8 || matches!(self.bytes[letters], b' ' | b'/' | b'-' | b'_'))
    }

    /// A SETTINGS frame, with which a server of HTTP/2 may begin before its client does (RFC 9113, 3.4).
    #[inline(always)]
    pub fn are_settings(&self) -> bool {
        matches!(self.bytes, [0, _, _, 4, 0, 0, 0, 0])
    }

    /// The head of an HTTP/2 frame, in the middle of a connection (RFC 9113, 4.1 and 6). One in a million
    /// others looks like it.
    #[inline(always)]
    pub fn begin_http2_frame(&self) -> bool {
        let [length, _, _, kind, flags, stream, ..] = self.bytes;
        let flags_allowed = match kind {
            // DATA: PADDED, END_STREAM.
            0 => 0x09,
            // HEADERS: PRIORITY and END_HEADERS too.
            1 => 0x2d,
            // SETTINGS, PING: ACK.
            4 | 6 => 0x01,
            // PUSH_PROMISE: PADDED, END_HEADERS.
            5 => 0x0c,
            // CONTINUATION: END_HEADERS.
            9 => 0x04,
            2 | 3 | 7 | 8 => 0,
            _ => return false,
        };
        length == 0 && flags & !flags_allowed == 0 && stream & 0x80 == 0
    }

    /// A WebSocket frame that fills the packet, in the middle of a connection (RFC 6455, 5.2).
    #[inline(always)]
    pub fn are_of_a_websocket_frame(&self, to_server: bool) -> bool {
        let [first, second, third, fourth, ..] = self.bytes;
        let is_masked = second & 0x80 != 0;
        let head = if is_masked { 6 } else { 2 };
        let frame_len = match second & 0x7f {
            126 => head + 2 + u32::from(u16::from_be_bytes([third, fourth])),
            // Longer than a packet.
            127 => return false,
            length => head + u32::from(length),
        };
        // The first reserved bit says that it is compressed (RFC 7692, 6).
        first & 0x30 == 0
            && matches!(first & 0x0f, 0..=2 | 8..=10)
            && is_masked == to_server
            && frame_len == self.payload_len
    }
}
