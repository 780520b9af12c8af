//! The one record between the Decoder and the Engine: what a client asked and how it ended.

use std::fmt;
use std::sync::Arc;

use bitflags::bitflags;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::input::Endpoint;
use crate::time::EventTime;

/// One API call. A field that was not seen is `None`, never invented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiCall {
    /// First byte of the request; of the response when the request was not seen.
    pub time: EventTime,
    /// The connection that carried it.
    pub flow: Arc<Flow>,
    /// What was spoken.
    pub protocol: Protocol,
    /// What was asked; `None` when only the response was seen.
    pub request: Option<Request>,
    /// What was answered; `None` when only the request was seen.
    pub response: Option<Response>,
    /// From the last byte of the request to the first of the response, microseconds; 0 when the
    /// response began first.
    pub latency_us: Option<u64>,
    /// Who asked.
    pub key: Option<Key>,
    /// What kind of thing was asked.
    pub op: Operation,
    /// Traded instrument.
    pub symbol: Option<CompactString>,
    /// Ids of objects that the call names.
    pub object_ids: Vec<CompactString>,
    /// How it ended; `None` without a response.
    pub outcome: Option<Outcome>,
    /// HTTP/2 stream that carried it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<u32>,
    /// What gRPC says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Box<Grpc>>,
    /// What its bearer token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<Token>>,
    /// What else it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
    /// True when every byte of request and response was seen.
    pub complete: bool,
    /// What was odd about the bytes.
    pub anomalies: Anomalies,
}

impl ApiCall {
    /// Who asked: the client of the connection, or whom a proxy that is trusted has named.
    pub fn client(&self) -> std::net::IpAddr {
        let named = self.detail.as_ref().and_then(|detail| detail.forwarded_for);
        named.unwrap_or_else(|| self.flow.client.ip())
    }
}

/// A connection. Shared by its calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Derived from addresses and the client's initial sequence number.
    pub id: FlowId,
    /// Who connected.
    pub client: Endpoint,
    /// Who listened.
    pub server: Endpoint,
    /// Whether the wire carried TLS.
    pub tls: bool,
    /// Server name of the TLS hello (RFC 6066, 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<CompactString>,
    /// JA4 fingerprint of the TLS hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ja4: Option<CompactString>,
    /// Command name of the server's process.
    pub process: Option<CompactString>,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its container.
    pub container: Option<CompactString>,
}

/// 64 bits of a SHA-256; shown as `f_` and 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// A keyed hash of a credential; shown as `k_` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u128);

macro_rules! hex_id {
    ($type:ident, $prefix:literal, $format:literal, $digits:literal, $int:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text = crate::ascii::Ascii::<{ $prefix.len() + $digits }>::new();
                text.text($prefix);
                text.hex(u128::from(self.0), $digits);
                serializer.serialize_str(text.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text =
                    <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.strip_prefix($prefix)
                    .filter(|digits| digits.len() == $digits)
                    .and_then(|digits| <$int>::from_str_radix(digits, 16).ok())
                    .map($type)
                    .ok_or_else(|| {
                        serde::de::Error::custom(concat!(
                            "expected ",
                            $prefix,
                            " and ",
                            $digits,
                            " hex digits"
                        ))
                    })
            }
        }
    };
}
pub(crate) use hex_id;
hex_id!(FlowId, "f_", "f_{:016x}", 16, u64);
hex_id!(KeyId, "k_", "k_{:032x}", 32, u128);

/// Application protocol of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// A request line without a version, an answer without a head (RFC 1945, 4.1).
    #[serde(rename = "http/0.9")]
    Http09,
    /// RFC 1945.
    #[serde(rename = "http/1.0")]
    Http10,
    /// RFC 9112.
    #[serde(rename = "http/1.1")]
    Http11,
    /// RFC 9113.
    #[serde(rename = "http/2")]
    Http2,
    /// gRPC over HTTP/2, and grpc-web over HTTP/1.1 too.
    #[serde(rename = "grpc")]
    Grpc,
    /// RFC 6455: one message of the client.
    #[serde(rename = "websocket")]
    WebSocket,
    /// FIX: one message of the client.
    #[serde(rename = "fix")]
    Fix,
}

impl Protocol {
    /// Every protocol, in order.
    pub const ALL: [Protocol; 7] = [
        Protocol::Http09,
        Protocol::Http10,
        Protocol::Http11,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::WebSocket,
        Protocol::Fix,
    ];

    /// Name as it stands in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http09 => "http/0.9",
            Protocol::Http10 => "http/1.0",
            Protocol::Http11 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
            Protocol::WebSocket => "websocket",
            Protocol::Fix => "fix",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The client's half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// HTTP method; empty, and null in JSON, when it was not seen ([`Anomalies::UNKNOWN_HEADER`]).
    #[serde(with = "unseen")]
    pub method: CompactString,
    /// `Host` header, or the authority of an absolute target.
    pub host: Option<CompactString>,
    /// Request target with credentials replaced; empty, and null in JSON, when it was not seen.
    #[serde(with = "unseen")]
    pub target: CompactString,
    /// Path part of the target; empty, and null in JSON, when it was not seen or there is none.
    #[serde(with = "unseen")]
    pub path: CompactString,
    /// `User-Agent` header.
    pub user_agent: Option<CompactString>,
    /// Body bytes after transfer decoding, seen or not.
    pub body_bytes: u64,
}

/// The server's half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// HTTP status code, or the one that a WebSocket reply carries; `None` where there is none.
    pub status: Option<u16>,
    /// Body bytes after transfer decoding, seen or not.
    pub body_bytes: u64,
    /// Calls used and allowed, as the server counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// A gRPC call (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grpc {
    /// Package and service.
    pub service: CompactString,
    /// Method.
    pub method: CompactString,
    /// `grpc-status` of the trailers; `None` when they were not seen.
    pub status: Option<u32>,
    /// Messages of the client.
    pub sent: Messages,
    /// Messages of the server.
    pub received: Messages,
}

/// Messages of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// How many began.
    pub count: u64,
    /// Bytes in them, without their prefixes, as they stood on the wire.
    pub bytes: u64,
}

/// Who asked, without the credential itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Keyed hash of the credential.
    pub id: KeyId,
    /// Where it stood: `header:x-mbx-apikey`, `query:api_key`.
    pub source: CompactString,
    /// Which API style it belongs to.
    pub profile: CompactString,
}

/// What a JSON web token says of itself (RFC 7519, 4.1; OpenID Connect Core 1.0, 2). Nothing of it is
/// proven: the server may have taken it or not. Its subject is in the key's id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// `alg` of its header.
    pub algorithm: Option<CompactString>,
    /// `iss`, without `https://`.
    pub issuer: Option<CompactString>,
    /// `client_id`, `azp` or `cid`.
    pub client: Option<CompactString>,
    /// `aud`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<CompactString>,
    /// `scope` or `scp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<CompactString>,
    /// `exp`, seconds since 1970.
    pub expires: Option<i64>,
    /// `nbf`, seconds since 1970.
    pub not_before: Option<i64>,
    /// `iat`, seconds since 1970.
    pub issued: Option<i64>,
    /// When the user last logged in: `auth_time`, seconds since 1970.
    pub auth_time: Option<i64>,
    /// Authentication context class: `acr`.
    pub acr: Option<CompactString>,
    /// Authentication methods: `amr` (RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<CompactString>,
}

/// What not every call says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The address that a trusted proxy in front has named as the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_for: Option<std::net::IpAddr>,
    /// Account or sub-account that is acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<CompactString>,
    /// How much, as it stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<CompactString>,
    /// Orders in a batch; `None` where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    /// Name of a remote call or GraphQL operation in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CompactString>,
}

/// Calls used of those allowed, as the server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Used so far in the server's window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
    /// Allowed in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Left in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
}

macro_rules! snake_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }
        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// Name as it stands in records.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

snake_enum! {
    /// What kind of thing a call does, whatever the exchange calls it.
    Operation {
        /// Market data and other calls that need no key.
        Public = "public",
        /// Reads of the key's own data.
        Read = "read",
        /// Places or changes an order.
        Trade = "trade",
        /// Cancels orders.
        Cancel = "cancel",
        /// Moves funds inside the exchange.
        Transfer = "transfer",
        /// Moves funds out.
        Withdraw = "withdraw",
        /// Changes where funds may go.
        AddressBook = "address_book",
        /// Makes or changes API keys.
        KeyManagement = "key_management",
        /// Makes or changes sub-accounts.
        Subaccount = "subaccount",
        /// Logs in, refreshes tokens.
        Auth = "auth",
    }
}

snake_enum! {
    /// How a call ended, whatever status the exchange used for it.
    Outcome {
        /// Done.
        Ok = "ok",
        /// The key is not known.
        BadKey = "bad_key",
        /// The signature does not fit.
        BadSignature = "bad_signature",
        /// The time stamp is outside the window.
        Skew = "skew",
        /// The nonce was used before.
        ReplayedNonce = "replayed_nonce",
        /// The key may not be used from this address.
        IpDenied = "ip_denied",
        /// The key may not do this.
        PermissionDenied = "permission_denied",
        /// A second factor is missing.
        MfaRequired = "mfa_required",
        /// The withdrawal address is not on the list.
        AddressNotAllowed = "address_not_allowed",
        /// Over the rate limit.
        Throttled = "throttled",
        /// Shut out for a time.
        Banned = "banned",
        /// The account is locked.
        Locked = "locked",
        /// Failed in another way.
        Error = "error",
    }
}

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

/// Text that is empty when it was not seen, and null in JSON.
mod unseen {
    use compact_str::CompactString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        text: &CompactString,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match text.as_str() {
            "" => serializer.serialize_none(),
            text => serializer.serialize_some(text),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<CompactString, D::Error> {
        Option::<CompactString>::deserialize(deserializer).map(Option::unwrap_or_default)
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
    fn ids_survive_json() {
        let flow: FlowId = serde_json::from_str("\"f_00000000000000ff\"").unwrap();
        assert_eq!((flow.0, flow.to_string()), (255, "f_00000000000000ff".into()));
        assert!(serde_json::from_str::<FlowId>("\"f_ff\"").is_err());
        assert!(serde_json::from_str::<KeyId>("\"f_00000000000000ff\"").is_err());
    }

    #[test]
    fn protocols_print_as_they_stand_in_records() {
        for protocol in Protocol::ALL {
            let json = serde_json::to_string(&protocol).unwrap();
            assert_eq!(json, format!("\"{protocol}\""));
        }
    }

    #[test]
    fn anomalies_are_a_list_of_names() {
        let set = Anomalies::GAP | Anomalies::BAD_CHUNK;
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["gap","bad_chunk"]"#);
        assert_eq!(serde_json::from_str::<Anomalies>(&json).unwrap(), set);
        assert!(serde_json::from_str::<Anomalies>(r#"["odd"]"#).is_err());
    }
}
