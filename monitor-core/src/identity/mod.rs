//! Who asks for what: credentials become keyed hashes here and go no further.

mod credential;
mod known;
mod operation;
mod outcome;
mod parameter;
mod percent;
mod target;

use std::fmt;

use compact_str::CompactString;
use httparse::Header;
use zeroize::Zeroizing;

use crate::call::{Anomalies, Key, Operation, Outcome};
use credential::{Hasher, Keyring};
use parameter::Parameter;
use target::Scan;

/// The HMAC-SHA-256 secret under which credentials are hashed. Never printed; wiped when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// From 32 random bytes that are kept outside the data.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(Zeroizing::new(bytes))
    }
}

/// A request head as it stood on the wire.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method token.
    pub method: &'a str,
    /// Request target, credentials and all.
    pub target: &'a str,
    /// Header fields, in order.
    pub headers: &'a [Header<'a>],
}

/// Sizes only: target and headers hold credentials.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method_bytes", &self.method.len())
            .field("target_bytes", &self.target.len())
            .field("headers", &self.headers.len())
            .finish()
    }
}

/// What a request says about itself, without its credentials.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who asks.
    pub key: Option<Key>,
    /// The target with credentials replaced, cut at [`TARGET_BYTES_MAX`].
    pub target: CompactString,
    /// The path part of it; empty for CONNECT.
    pub path: CompactString,
    /// What kind of thing is asked.
    pub op: Operation,
    /// Traded instrument.
    pub symbol: Option<CompactString>,
    /// Objects named, at most [`OBJECT_IDS_MAX`].
    pub object_ids: Vec<CompactString>,
    /// Oddities of the credentials.
    pub anomalies: Anomalies,
    /// How replies in this API style are read.
    pub style: Style,
}

/// Bytes of a target that go into a record, the mark of the cut aside. Browsers and proxies have
/// long treated 2 KiB as the longest URL to rely on; longer ones are seldom read by a person.
pub const TARGET_BYTES_MAX: usize = 2048;

/// Object ids of one call: batch endpoints name more, and eight show which object was meant.
pub const OBJECT_IDS_MAX: usize = 8;

/// API style that decides how an outcome is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Status code, and a few words of the body.
    Generic,
    /// Binance error codes in the body.
    Binance,
}

/// What a member of a message holds, as far as records show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The traded instrument.
    Symbol,
    /// The id of an object.
    Object,
    /// Anything else.
    Other,
}

/// Finds credentials, hashes them, classifies calls.
///
/// Where a request carries more than one credential, the first of these counts: `X-MBX-APIKEY`,
/// `X-API-Key`, `Authorization`, a query parameter. What names one API comes before what a gateway
/// in front may have added. Credentials that disagree set [`Anomalies::KEY_CONFLICT`].
pub struct Identifier {
    hasher: Hasher,
}

impl Identifier {
    /// With the secret for key ids.
    pub fn new(secret: Secret) -> Identifier {
        Identifier { hasher: Hasher::new(&secret.0) }
    }

    /// Who asks for what.
    pub fn identify(&self, head: &RequestHead<'_>) -> Identified {
        let mut keyring = Keyring::new(&self.hasher);
        keyring.read_headers(head.headers);
        let scanned = Scan::run(head, &mut keyring);
        let anomalies = if keyring.conflict { Anomalies::KEY_CONFLICT } else { Anomalies::empty() };
        let style = if keyring.is_binance() || operation::is_binance(scanned.raw_path) {
            Style::Binance
        } else {
            Style::Generic
        };
        let key = keyring.into_key();
        let op = operation::classify(head.method, scanned.raw_path, key.is_some());
        Identified {
            key,
            target: scanned.target,
            path: scanned.path,
            op,
            symbol: scanned.symbol,
            object_ids: scanned.object_ids,
            anomalies,
            style,
        }
    }

    /// What a message asks for by name: `order.place`, `private/withdraw`. `positional`: of a style
    /// that shortens names, `on` for a new order.
    pub(crate) fn message_operation(
        &self,
        name: &[u8],
        positional: bool,
        has_key: bool,
    ) -> Operation {
        operation::classify_message(name, positional, has_key)
    }

    /// What a member of this name holds.
    pub(crate) fn names(name: &[u8]) -> Named {
        match Parameter::of(name) {
            Parameter::Symbol => Named::Symbol,
            Parameter::Object => Named::Object,
            Parameter::Key | Parameter::Secret | Parameter::Plain => Named::Other,
        }
    }

    /// How a message ended to which the reply begins with `body`. `failed`: the reply says so.
    pub(crate) fn reply_outcome(
        &self,
        style: Style,
        status: Option<u16>,
        failed: bool,
        body: &[u8],
    ) -> Outcome {
        outcome::read_reply(style, status, failed, body)
    }

    /// How a call ended. `body` is the beginning of the response body, kept only when status is 400
    /// or above.
    pub fn outcome(&self, style: Style, status: u16, body: &[u8]) -> Outcome {
        outcome::read(style, status, body)
    }
}

#[cfg(test)]
mod canary;
