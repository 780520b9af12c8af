//! A profile as it stands in its file, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use toml::Spanned;

use crate::call::{Operation, Outcome};

/// What is wrong with a profile, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and the mend.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) title: String,
    /// Servers that speak it: a name, or a domain with all below it (`.example.com`).
    #[serde(default)]
    pub(super) hosts: Vec<Spanned<String>>,
    /// Beginnings of paths that no other style has.
    #[serde(default)]
    pub(super) paths: Vec<Spanned<String>>,
    /// `TargetCompID` of its servers' FIX sessions.
    #[serde(default)]
    pub(super) fix_targets: Vec<String>,
    /// Where the key may stand, the best place first.
    #[serde(default)]
    pub(super) keys: Vec<Spanned<KeyFile>>,
    /// Messages after which a connection has no key.
    #[serde(default)]
    pub(super) logout: Vec<String>,
    #[serde(default)]
    pub(super) fields: FieldsFile,
    #[serde(default)]
    pub(super) signing: SigningFile,
    /// `METHOD /path` (`*`: any segment, `**`: all that follow, as a method any), or `rpc name`.
    #[serde(default)]
    pub(super) operations: BTreeMap<Operation, Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) outcome: OutcomeFile,
    #[serde(default)]
    pub(super) limits: LimitsFile,
}

/// A place of a key: exactly one of the first seven.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    pub(super) header: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) query: Option<String>,
    pub(super) form: Option<String>,
    pub(super) cookie: Option<String>,
    pub(super) fix: Option<u16>,
    /// A path into JSON, or after `scheme` a parameter of the credentials.
    pub(super) member: Option<String>,
    /// The name of the message in which `member` stands.
    pub(super) message: Option<String>,
    /// Another header field that must be there too.
    pub(super) with: Option<String>,
    /// It counts on the profile's hosts, paths and FIX targets only.
    #[serde(default)]
    pub(super) on_paths: bool,
    /// It is the connection's key from then on.
    #[serde(default)]
    pub(super) stays: bool,
    /// It is a JSON web token, or else no key of this kind.
    #[serde(default)]
    pub(super) token: bool,
    /// Such a token, of one of these issuers.
    #[serde(default)]
    pub(super) issuer: Vec<String>,
}

/// What parameters and members hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FieldsFile {
    pub(super) secret: Vec<String>,
    pub(super) secret_ends: Vec<String>,
    pub(super) symbol: Vec<String>,
    pub(super) object: Vec<String>,
    pub(super) account: Vec<String>,
    pub(super) amount: Vec<String>,
}

/// Header fields, parameters and members that say how a request is signed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SigningFile {
    pub(super) signature: Vec<String>,
    /// A number that must grow from request to request.
    pub(super) nonce: Vec<String>,
    pub(super) time: Vec<String>,
}

/// How a reply is read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OutcomeFile {
    /// Members that may hold a code, the best first.
    pub(super) code: Vec<Spanned<String>>,
    /// Codes that say all went well.
    pub(super) ok: Vec<String>,
    /// A member and its value with which a reply says that it failed.
    pub(super) failed: BTreeMap<Spanned<String>, String>,
    pub(super) status: BTreeMap<Spanned<String>, Outcome>,
    pub(super) codes: BTreeMap<Outcome, Vec<String>>,
    pub(super) words: BTreeMap<Outcome, Vec<String>>,
}

/// Header fields that count calls.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsFile {
    pub(super) used: Vec<String>,
    pub(super) limit: Vec<String>,
    pub(super) remaining: Vec<String>,
}

/// A text and what to say about its places.
pub(super) struct Text<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// Parses it; the first fault ends it.
    pub(super) fn parse(&self) -> Result<File, Fault> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.fault(at, error.message().replace('\n', ", "))
        })
    }

    /// A fault at a byte.
    pub(super) fn fault(&self, at: usize, what: impl Into<String>) -> Fault {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Fault { file: self.name.into(), line, what: what.into() }
    }
}
