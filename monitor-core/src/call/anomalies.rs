//! What can be odd about the bytes behind a call.

use std::fmt;

use bitflags::bitflags;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

bitflags! {
    /// Named oddities of the bytes behind a call; shown as a list of names.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Anomalies: u64 {
        /// Bytes are missing within the call.
        const GAP = 1 << 0;
        /// The capture began after the connection did.
        const MIDSTREAM = 1 << 1;
        /// The connection ended before the message did.
        const TRUNCATED = 1 << 2;
        /// Retransmitted bytes differ from the first ones (which count).
        const OVERLAP_CONFLICT = 1 << 3;
        /// Urgent data, of which the receiver may have left out a byte (RFC 6093, 3.1).
        const URGENT_DATA = 1 << 26;
        /// A head larger than the limit.
        const HEAD_TOO_LARGE = 1 << 4;
        /// More header fields than the limit.
        const TOO_MANY_HEADERS = 1 << 5;
        /// A head that does not parse.
        const BAD_HEAD = 1 << 6;
        /// Content-Length headers that do not parse or disagree.
        const BAD_CONTENT_LENGTH = 1 << 7;
        /// Content-Length beside Transfer-Encoding (RFC 9112, 6.1).
        const LENGTH_AND_CHUNKED = 1 << 8;
        /// A Transfer-Encoding that is not understood.
        const BAD_TRANSFER_ENCODING = 1 << 9;
        /// A chunk size or chunk end that does not parse.
        const BAD_CHUNK = 1 << 10;
        /// A response to no request that was seen.
        const UNPAIRED_RESPONSE = 1 << 11;
        /// More requests in flight than the limit, or more bytes ahead of the answer to an upgrade.
        const PIPELINE_OVERFLOW = 1 << 12;
        /// The protocol changed (101 or CONNECT) to one that is not decoded.
        const UPGRADED = 1 << 13;
        /// State was evicted to keep a bound.
        const EVICTED = 1 << 14;
        /// Two credentials that disagree.
        const KEY_CONFLICT = 1 << 15;
        /// Bytes that are not text where text belongs.
        const NOT_UTF8 = 1 << 16;
        /// A first line, fields, a body or another message in a form that lenient servers take and strict ones refuse.
        const LENIENT = 1 << 17;
        /// A header field that goes on in the next line, or space before the first one (obs-fold,
        /// RFC 9112, 2.2 and 5.2): some readers join the lines, others see another field.
        const OBS_FOLD = 1 << 18;
        /// A line of a head or of chunk framing that ends in LF without CR (RFC 9112, 2.2).
        const BARE_LF = 1 << 19;
        /// CR without LF in a head or in chunk framing: a line end to some readers.
        const BARE_CR = 1 << 20;
        /// NUL or another control byte in a head or in chunk framing.
        const CONTROL_BYTE = 1 << 21;
        /// A field name with space before its colon, or with bytes that no name has (RFC 9112, 5.1),
        /// or a line without a colon: some readers drop such a field, others take it.
        const BAD_FIELD_NAME = 1 << 22;
        /// No `Host` in an HTTP/1.1 request, more than one, or one that is no host (RFC 9112, 3.2).
        const BAD_HOST = 1 << 23;
        /// A version that is not HTTP/1.0 or HTTP/1.1, or none.
        const BAD_VERSION = 1 << 24;
        /// A Content-Encoding that does not decode, or expands without measure.
        const BAD_CONTENT_CODING = 1 << 25;
        /// A header field of which name or value refers to something sent before the capture began,
        /// or lost: what it would have said is missing from the call.
        const UNKNOWN_HEADER = 1 << 30;
        /// An HTTP/2 frame of a wrong size or in a wrong place; a WebSocket frame with reserved bits or
        /// opcode, or a control frame too long or in parts.
        const BAD_FRAME = 1 << 31;
        /// An HTTP/2 header block that could not be read to its end.
        const BAD_HEADER_BLOCK = 1 << 32;
        /// The stream was reset.
        const STREAM_RESET = 1 << 33;
        /// The server answered unasked (RFC 9113, 8.4).
        const PUSHED = 1 << 34;
        /// Streams were reset faster than honest peers do (CVE-2023-44487).
        const RAPID_RESET = 1 << 35;
        /// A header block in more CONTINUATION frames than the limit (VU#421644).
        const CONTINUATION_FLOOD = 1 << 36;
        /// SETTINGS frames faster than honest peers send them (CVE-2019-9515).
        const SETTINGS_FLOOD = 1 << 37;
        /// PING frames faster than honest peers send them (CVE-2019-9512).
        const PING_FLOOD = 1 << 38;
        /// Empty frames faster than honest peers send them (CVE-2019-9518).
        const EMPTY_FRAMES = 1 << 39;
        /// More streams open at once than the limit.
        const TOO_MANY_STREAMS = 1 << 40;
        /// An HTTP/2 frame larger than its receiver takes.
        const FRAME_TOO_LARGE = 1 << 41;
        /// A WebSocket client's frame without a mask, or a server's with one (RFC 6455, 5.1).
        const BAD_MASKING = 1 << 42;
        /// Parts of WebSocket messages out of order (RFC 6455, 5.4).
        const BAD_FRAGMENT = 1 << 44;
        /// A WebSocket length in more bytes than it needs (RFC 6455, 5.2).
        const LENGTH_NOT_MINIMAL = 1 << 45;
        /// A compressed WebSocket message refers to what was not seen or not kept.
        const CONTENT_UNKNOWN = 1 << 46;
        /// A compressed WebSocket message that does not inflate.
        const BAD_DEFLATE = 1 << 47;
        /// A compressed WebSocket message that inflates to more than the limit.
        const DEFLATE_BOMB = 1 << 48;
        /// A WebSocket close frame with a bad code or reason, or bytes after it (RFC 6455, 7.4).
        const BAD_CLOSE = 1 << 49;
        /// A TLS record within the call, or just before it, could not be decrypted.
        const TLS_UNOPENED = 1 << 50;
        /// The request came as TLS early data, which others can send again (RFC 8446, 8).
        const EARLY_DATA = 1 << 51;
        /// A FIX message whose checksum is another than it says.
        const BAD_CHECKSUM = 1 << 52;
        /// A FIX message whose sequence number is not the next one, or that has none.
        const BAD_SEQUENCE = 1 << 53;
        /// A FIX message that is sent again.
        const RESENT = 1 << 54;
        /// A header of the PROXY protocol that is malformed, or that the server did not wait for.
        const BAD_PROXY_HEADER = 1 << 55;
        /// A header of the PROXY protocol, or a client's certificate in a header field, from who is no
        /// trusted proxy: it counts for nothing.
        const UNTRUSTED_PROXY_HEADER = 1 << 56;
        /// An authorization code that is exchanged without a verifier, by a client that shows no secret
        /// beside it (RFC 7636; RFC 9700, 2.1.1).
        const NO_PKCE = 1 << 57;
        /// A key, a token or a password in the part of the response that is read.
        const SECRET_IN_RESPONSE = 1 << 58;
        /// The number of a card in the part of the response that is read.
        const CARD_IN_RESPONSE = 1 << 59;
        /// A JSON object of the request has two members of one name: some readers take the first, others
        /// the last (RFC 8259, 4).
        const DUPLICATE_MEMBER = 1 << 60;
    }
}

impl Serialize for Anomalies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter_names().map(|(name, _)| Lower(name)))
    }
}

impl<'de> Deserialize<'de> for Anomalies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Anomalies, D::Error> {
        let names = Vec::<CompactString>::deserialize(deserializer)?;
        names.iter().try_fold(Anomalies::empty(), |all, name| {
            Anomalies::from_name(&name.to_uppercase())
                .map(|one| all | one)
                .ok_or_else(|| de::Error::custom(format_args!("no anomaly is named `{name}`")))
        })
    }
}

/// Serialises a constant's name in lower case without allocating.
struct Lower(&'static str);

impl fmt::Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| fmt::Write::write_char(f, c.to_ascii_lowercase()))
    }
}

impl Serialize for Lower {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_a_list_of_names() {
        let set = Anomalies::GAP | Anomalies::BAD_CHUNK;
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["gap","bad_chunk"]"#);
        assert_eq!(serde_json::from_str::<Anomalies>(&json).unwrap(), set);
        assert!(serde_json::from_str::<Anomalies>(r#"["odd"]"#).is_err());
    }
}
