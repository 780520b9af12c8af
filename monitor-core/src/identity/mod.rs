//! Who asks for what: credentials become keyed hashes here and go no further.

use compact_str::CompactString;
use httparse::Header;
use zeroize::Zeroizing;

use crate::call::{Anomalies, Key, Operation, Outcome};

/// The HMAC-SHA-256 secret under which credentials are hashed. Never printed; wiped when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// From 32 random bytes that are kept outside the data.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(Zeroizing::new(bytes))
    }
}

/// A request head as it stood on the wire.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method token.
    pub method: &'a str,
    /// Request target, credentials and all.
    pub target: &'a str,
    /// Header fields, in order.
    pub headers: &'a [Header<'a>],
}

/// What a request says about itself, without its credentials.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who asks.
    pub key: Option<Key>,
    /// The target with credentials replaced.
    pub target: CompactString,
    /// The path part of it.
    pub path: CompactString,
    /// What kind of thing is asked.
    pub op: Operation,
    /// Traded instrument.
    pub symbol: Option<CompactString>,
    /// Objects named.
    pub object_ids: Vec<CompactString>,
    /// Oddities of the credentials.
    pub anomalies: Anomalies,
    /// How replies in this API style are read.
    pub style: Style,
}

/// API style that decides how an outcome is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Status code alone.
    Generic,
    /// Binance error codes in the body.
    Binance,
}

/// Finds credentials, hashes them, classifies calls.
pub struct Identifier {
    _secret: Secret,
}

impl Identifier {
    /// With the secret for key ids.
    pub fn new(secret: Secret) -> Identifier {
        Identifier { _secret: secret }
    }

    /// Who asks for what.
    pub fn identify(&self, head: &RequestHead<'_>) -> Identified {
        let path = head.target.split('?').next().unwrap_or_default();
        Identified {
            key: None,
            target: path.into(),
            path: path.into(),
            op: Operation::Public,
            symbol: None,
            object_ids: Vec::new(),
            anomalies: Anomalies::empty(),
            style: Style::Generic,
        }
    }

    /// How a call ended. `body` is the beginning of the response body, kept only when status is 400
    /// or above.
    pub fn outcome(&self, _style: Style, status: u16, _body: &[u8]) -> Outcome {
        if status < 400 { Outcome::Ok } else { Outcome::Error }
    }
}
