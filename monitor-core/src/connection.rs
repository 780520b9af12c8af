//! What a connection amounted to: one record when it is over.

use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::call::{Anomalies, Flow, Protocol};
use crate::time::EventTime;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One connection that carried payload, when nothing of it follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// First payload byte.
    pub time: EventTime,
    /// Last segment.
    pub end: EventTime,
    /// Which.
    pub flow: Arc<Flow>,
    /// What was spoken last; `None` when nothing that is decoded.
    pub protocol: Option<Protocol>,
    /// Calls that were given out.
    pub calls: u64,
    /// Times that bytes came again and were not the same; the first ones counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overlap_conflicts: u64,
    /// Payload bytes from the client, retransmissions aside. Live, of TLS that is looked into: those of
    /// the handshake, and what was inside after it.
    pub bytes_to_server: u64,
    /// Payload bytes from the server.
    pub bytes_to_client: u64,
    /// Payload bytes that are missing, both directions.
    pub missing_bytes: u64,
    /// What TLS said in the clear, and what else was read of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<Tls>>,
    /// What its HTTP/2 amounted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<Box<Http2>>,
    /// What was spoken of WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Box<WebSocket>>,
    /// What was spoken of FIX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Box<Fix>>,
}

/// What a FIX session amounted to. No content of messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// `BeginString`: `FIX.4.4`, `FIXT.1.1`.
    pub version: Option<CompactString>,
    /// `TargetCompID` of the client's logon.
    pub target: Option<CompactString>,
    /// From the client.
    pub sent: FixTraffic,
    /// From the server.
    pub received: FixTraffic,
    /// Rejects of no message that was seen or still waited for one.
    pub answers_unpaired: u64,
}

/// One direction of a FIX session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixTraffic {
    /// Messages of every kind.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Heartbeats among them.
    pub heartbeats: u64,
    /// Requests to send messages again.
    pub resends: u64,
    /// Messages whose number was not the next one.
    pub sequence_breaks: u64,
    /// Messages whose checksum was wrong.
    pub bad_checksums: u64,
}

/// A TLS connection. What was not seen is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// The version that is spoken; until the server has answered, none.
    pub version: Option<CompactString>,
    /// Cipher suite, by its name in the IANA registry.
    pub cipher: Option<CompactString>,
    /// Server name of the client's hello; of the front, where the hello proper is encrypted.
    pub server_name: Option<CompactString>,
    /// Protocol that the server took; in TLS 1.3 known only when decrypted.
    pub alpn: Option<CompactString>,
    /// Fingerprint of the client's hello.
    pub ja4: Option<CompactString>,
    /// The older fingerprint, hashed.
    pub ja3: Option<CompactString>,
    /// The hello proper is encrypted (ECH, or ESNI before it).
    pub encrypted_hello: bool,
    /// Whether the bytes within were read.
    pub decrypted: Decrypted,
    /// Why not, or not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// Certificate of the server; in TLS 1.3 known only when decrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Certificate of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Certificate>,
}

/// How much of a TLS connection was decrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decrypted {
    /// Nothing.
    #[default]
    No,
    /// Some records could not be.
    Partly,
    /// All that was captured.
    Yes,
}

/// Why records were not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealed {
    /// No secret of this connection is known.
    NoKeys,
    /// A hello was not seen.
    NoHandshake,
    /// The version is not one that is decrypted.
    Version,
    /// The cipher suite is not one that is decrypted.
    Cipher,
    /// Records are compressed.
    Compression,
    /// What should be a record is none, or the secrets do not fit.
    DoesNotFit,
    /// Bytes of them are missing.
    Loss,
}

/// An X.509 certificate (RFC 5280).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom it is for: `C=US, O=Example, CN=www.example.com`.
    pub subject: Option<CompactString>,
    /// Who signed it.
    pub issuer: Option<CompactString>,
    /// Serial number: upper-case hexadecimal bytes with colons.
    pub serial: Option<CompactString>,
    /// Valid from, RFC 3339.
    pub not_before: Option<CompactString>,
    /// Valid until, RFC 3339.
    pub not_after: Option<CompactString>,
    /// SHA-1 of it: hexadecimal bytes with colons.
    pub sha1: CompactString,
    /// SHA-256 of it.
    pub sha256: CompactString,
}

/// An HTTP/2 connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Http2 {
    /// What the client sent.
    pub client: Http2Side,
    /// What the server sent.
    pub server: Http2Side,
    /// What was odd, calls aside.
    pub anomalies: Anomalies,
}

/// What one side of an HTTP/2 connection sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Http2Side {
    /// Settings by id, as they stood last; at most 16.
    pub settings: Vec<(u16, u32)>,
    /// Frames.
    pub frames: u64,
    /// Streams begun.
    pub streams: u64,
    /// Streams reset.
    pub resets: u64,
    /// PING frames, answers aside.
    pub pings: u64,
    /// Content bytes, padding aside.
    pub data_bytes: u64,
    /// Error codes of GOAWAY frames; at most the first four.
    pub goaway: Vec<u32>,
}

/// What a WebSocket connection amounted to (RFC 6455). No content of messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WebSocket {
    /// From the client.
    pub sent: Traffic,
    /// From the server.
    pub received: Traffic,
    /// permessage-deflate as agreed; `None` when it was not, or that was not seen.
    pub deflate: Option<Deflate>,
    /// The first close frame.
    pub close: Option<Close>,
    /// Channels that were subscribed to or pushed, in order of appearance.
    pub channels: Vec<Channel>,
    /// Pushes on channels for which there was no room in the list.
    pub channels_beyond: u64,
    /// Replies to no message that was seen or still waited for one.
    pub replies_unpaired: u64,
    /// What was odd, in messages and between them.
    pub anomalies: Anomalies,
}

/// One direction of a WebSocket connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames of every kind.
    pub frames: u64,
    /// Messages of text, whole or cut.
    pub text_messages: u64,
    /// Messages of bytes.
    pub binary_messages: u64,
    /// Payload of messages, after inflating where that was possible.
    pub payload_bytes: u64,
    /// First frames of text messages.
    pub text: Frames,
    /// First frames of binary messages.
    pub binary: Frames,
    /// Frames that go on with a message.
    pub continuation: Frames,
    /// Close frames.
    pub close: Frames,
    /// Pings.
    pub ping: Frames,
    /// Pongs.
    pub pong: Frames,
    /// Frames whose opcode means nothing.
    pub reserved: Frames,
    /// Messages that were compressed.
    pub compressed_messages: u64,
    /// Payload bytes of them on the wire.
    pub compressed_bytes: u64,
    /// Payload bytes of them after inflating, as far as they could be.
    pub inflated_bytes: u64,
    /// Messages whose content could not be read.
    pub unreadable_messages: u64,
    /// Bytes that belong to no frame that could be told.
    pub undecoded_bytes: u64,
    /// Bytes after the close frame.
    pub bytes_after_close: u64,
}

/// Frames of one opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// How many.
    pub count: u64,
    /// Payload bytes, as their heads say.
    pub bytes: u64,
}

impl Frames {
    /// One more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// permessage-deflate (RFC 7692, 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deflate {
    /// Each message of the client stands for itself.
    pub client_no_context_takeover: bool,
    /// Each message of the server stands for itself.
    pub server_no_context_takeover: bool,
    /// Base-2 logarithm of the client's window.
    pub client_max_window_bits: u8,
    /// The same of the server's.
    pub server_max_window_bits: u8,
}

/// How a WebSocket connection was closed (RFC 6455, 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Who sent the first close frame.
    pub by: Peer,
    /// Its status code; `None` when it has none.
    pub code: Option<u16>,
    /// Its reason, where that is short plain text; what looks like a secret in it is replaced.
    pub reason: Option<CompactString>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Who connected.
    Client,
    /// Who listened.
    Server,
}

/// What a server pushes under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// As client or server name it; `[redacted]` for names that look like secrets.
    pub name: CompactString,
    /// Times that the client subscribed to it.
    pub subscriptions: u64,
    /// Messages pushed.
    pub pushes: u64,
    /// Payload bytes in them.
    pub bytes: u64,
}
