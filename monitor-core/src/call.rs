//! The one record between the Decoder and the Engine: what a client asked and how it ended.

mod anomalies;
mod parameters;

use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use anomalies::Anomalies;
pub(crate) use parameters::list_name;
pub use parameters::{Fields, PARAMETERS_MAX};

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
        named.unwrap_or_else(|| self.flow.peer())
    }

    /// The same in network order, IPv4 as IPv4-mapped IPv6.
    pub(crate) fn client_address(&self) -> [u8; 16] {
        let named = self.detail.as_ref().and_then(|detail| detail.forwarded_for);
        let named = named.map(|ip| Endpoint::new(ip, 0));
        named.unwrap_or_else(|| self.flow.proxied_for.unwrap_or(self.flow.client)).addr
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
    /// For whom a proxy that is trusted says it has connected, in a header before all else (PROXY
    /// protocol).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied_for: Option<Endpoint>,
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

impl Flow {
    /// Who is behind the connection, as far as a proxy that is trusted has said so before all else.
    pub fn peer(&self) -> std::net::IpAddr {
        self.proxied_for.unwrap_or(self.client).ip()
    }
}

/// 64 bits of a SHA-256; shown as `f_` and 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// A keyed hash of a credential; shown as `k_` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u128);

/// A keyed fingerprint of a signature; shown as `s_` and 16 hexadecimal digits. It says that two
/// signatures are the same, and nothing else of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignatureId(pub u64);

/// A hash, without a key, of the names of a request's header fields in their order; shown as `o_` and 8
/// hexadecimal digits. It says that two requests were written by programs that write alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderOrder(pub u32);

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
hex_id!(SignatureId, "s_", "s_{:016x}", 16, u64);
hex_id!(HeaderOrder, "o_", "o_{:08x}", 8, u32);
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// In which order its header fields stood, those aside that vary; `None` where not all were seen, or
    /// a proxy that is trusted wrote them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_order: Option<HeaderOrder>,
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
    /// Its ids under secrets that were in use before, the latest first; `None`: there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Arc<[KeyId]>>,
}

impl Key {
    /// Its ids under secrets that were in use before.
    pub fn former(&self) -> &[KeyId] {
        self.former.as_deref().unwrap_or_default()
    }

    /// The id that stays longest when the secret changes: under the oldest one that is still kept.
    pub fn lasting(&self) -> KeyId {
        self.former().last().copied().unwrap_or(self.id)
    }
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
    /// What its client signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// What its text attacks, at a guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// What the fields of its body are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// What it names of OAuth 2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<Box<OAuth>>,
}

/// What a request of OAuth 2.0 names besides its grant (RFC 6749, 4.1.1; RFC 8628, 3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuth {
    /// Of the client's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SignatureId>,
    /// Where the answer is to go: without user part and query; `?` where that is no plain address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<CompactString>,
    /// Of the code that a person types to let a device in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<SignatureId>,
    /// Where the server sent the answer, named as `redirect` is, when that carries one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<CompactString>,
    /// What is in that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<Carried>,
}

/// How a client signed its request, as far as it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<SignatureId>,
    /// Of the same under the secret before, while that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<SignatureId>,
    /// The nonce, when it is a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// When it was signed by the client's clock, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_ms: Option<u64>,
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
    /// What a text attacks that stands behind an API, the worst first.
    Payload {
        /// A logger that looks things up (CVE-2021-44228).
        Lookup = "lookup",
        /// A reader of XML with entities.
        XmlEntity = "xml_entity",
        /// A shell.
        Command = "command",
        /// A database that is asked in SQL.
        Sql = "sql",
        /// A template engine.
        Template = "template",
        /// A document store.
        Nosql = "nosql",
        /// A directory.
        Ldap = "ldap",
        /// A file system.
        Path = "path",
        /// A browser.
        Script = "script",
        /// Nothing yet: it asks what the API is made of.
        Introspection = "introspection",
    }
}

snake_enum! {
    /// What a redirect of OAuth 2.0 carries (RFC 6749, 4.1.2 and 4.2.2; OpenID Connect Core 1.0, 3.3.2.5), the
    /// worst first.
    Carried {
        /// A token.
        Token = "token",
        /// A code that is good for tokens.
        Code = "code",
        /// Neither: what went wrong.
        Error = "error",
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

impl Operation {
    /// How much it matters: of several things that are asked for at once the largest stands for all.
    pub(crate) fn weight(self) -> u8 {
        match self {
            Operation::Public => 0,
            Operation::Read => 1,
            Operation::Auth => 2,
            Operation::Cancel => 3,
            Operation::Trade => 4,
            Operation::Transfer => 5,
            Operation::Subaccount => 6,
            Operation::AddressBook => 7,
            Operation::KeyManagement => 8,
            Operation::Withdraw => 9,
        }
    }
}

impl Outcome {
    /// Whether the credential itself was refused; anybody can bring that about for any key.
    pub fn refuses_credential(self) -> bool {
        self == Outcome::BadKey || self == Outcome::BadSignature
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
}
