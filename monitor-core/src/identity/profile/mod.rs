//! API styles: where an exchange puts key, signature and symbol, what its paths and messages do, and
//! how its replies say what came of them. Each is a TOML file in `profiles/`.
//!
//! All of them are compiled into tables once; a call is looked up in those and touches no profile of
//! another style. Where several places hold a key, the first in the order of the profiles counts.

mod compile;
mod file;
mod headers;
mod member;
mod names;
mod paths;

use std::sync::{Arc, LazyLock};

use compact_str::CompactString;
use smallvec::SmallVec;

pub use file::Fault;
pub(super) use headers::Headers;
pub(super) use member::Member;
pub(super) use names::{Names, Parameter, same_name};
use paths::Paths;

use super::signing::Stated;
use super::{Style, percent};
use crate::call::{Operation, Outcome};

/// Profiles in order: those of exchanges before those of none.
pub(super) const BUILTIN: [(&str, &str); 22] = {
    macro_rules! files {
        ($($name:literal,)+) => {
            [$((
                concat!($name, ".toml"),
                include_str!(concat!("../../../../profiles/", $name, ".toml")),
            ),)+]
        };
    }
    files![
        "binance",
        "okx",
        "bybit",
        "coinbase-advanced",
        "coinbase-exchange",
        "kraken-futures",
        "kraken",
        "deribit",
        "bitfinex",
        "kucoin",
        "gate",
        "bitmex",
        "x-api-key",
        "jwt",
        "bearer",
        "basic",
        "query-key",
        "client-certificate",
        "body-key",
        "session",
        "fix",
        "common",
    ]
};

/// A set of profiles, ready for use.
#[derive(Debug)]
pub struct Profiles {
    list: Vec<Profile>,
    /// Places of keys in order of precedence.
    pub(super) sources: Vec<Source>,
    pub(super) headers: Headers<InRequest>,
    pub(super) counts: Headers<Count>,
    pub(super) names: Names,
    /// Beginnings of paths, longest first.
    prefixes: Vec<(Box<str>, Style)>,
    hosts: Vec<(Box<str>, Style)>,
    /// `TargetCompID` of FIX.
    fix_targets: Vec<(Box<str>, Style)>,
    /// Sources in messages.
    pub(super) in_messages: Vec<u16>,
    /// Codes that mean one thing wherever they are used: those of four digits and a sign.
    plain_codes: Vec<(Box<str>, Outcome)>,
}

/// One style.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub name: CompactString,
    /// What it is.
    pub title: String,
    /// Where it comes from: a file, or none for those built in.
    pub text: String,
    /// Of an exchange: it says more than where a key is.
    pub(super) is_exchange: bool,
    paths: Paths,
    rpc: Vec<(Box<str>, Operation)>,
    pub(super) logout: Vec<Box<str>>,
    pub(super) replies: Replies,
}

/// How replies are read.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) code: Vec<Member>,
    pub(super) ok: Vec<Box<str>>,
    pub(super) failed: Vec<(Member, Box<str>)>,
    pub(super) status: Vec<(u16, Outcome)>,
    pub(super) codes: Vec<(Box<str>, Outcome)>,
    /// In lower case.
    pub(super) words: Vec<(Box<str>, Outcome)>,
}

impl Replies {
    /// Whether a reply with a good status may be a failure.
    pub(super) fn reads_good(&self) -> bool {
        !self.ok.is_empty() || !self.failed.is_empty()
    }
}

/// A place where a key may stand.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) style: Style,
    pub(super) place: Place,
    /// As records show it: `header:x-mbx-apikey`.
    pub(super) shown: CompactString,
    /// It counts on the hosts and paths of its style only.
    pub(super) on_paths: bool,
    /// It is the connection's key from then on.
    pub(super) stays: bool,
    /// It is a JSON web token.
    pub(super) token: bool,
    /// Of one of these issuers; none: of any.
    pub(super) issuers: Vec<Box<str>>,
}

/// Where.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Beside another field, or alone.
    Header {
        name: Box<str>,
        with: Option<Box<str>>,
    },
    /// Of `Authorization`: the credentials, or a parameter of them.
    Scheme {
        name: Box<str>,
        parameter: Option<Box<str>>,
    },
    Query(Box<str>),
    Form(Box<str>),
    Cookie(Box<str>),
    Fix(u16),
    /// Of a message with this name, or of any.
    Member {
        message: Option<Box<str>>,
        at: Member,
    },
}

/// What a request's header field is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InRequest {
    /// A key, by the source of this number.
    Key(u16),
    /// How the request is signed.
    Signing(Stated),
    Authorization,
    Cookie,
    Host,
}

/// What a response's header field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Used,
    Limit,
    Remaining,
}

impl Profiles {
    /// Those that come with Keywatch.
    pub fn builtin() -> Arc<Profiles> {
        static SET: LazyLock<Arc<Profiles>> = LazyLock::new(|| {
            match Profiles::with(&[]) {
                Ok(set) => Arc::new(set),
                // A test reads them all.
                Err(faults) => unreachable!("{}", faults[0]),
            }
        });
        Arc::clone(&SET)
    }

    /// Those that come with Keywatch and others, as names and texts of their files. Others come
    /// before; one with the name of one that comes with Keywatch takes its place.
    pub fn with(others: &[(String, String)]) -> Result<Profiles, Vec<Fault>> {
        compile::compile(others)
    }

    /// Every profile, in order of precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.list.iter()
    }

    /// Where a profile says that keys are, as calls show it: `header:x-mbx-apikey`.
    pub fn places(&self, name: &str) -> impl Iterator<Item = &CompactString> {
        let style = self.style(name);
        let own = self.sources.iter().filter(move |source| Some(source.style) == style);
        own.map(|source| &source.shown)
    }

    /// One, by name.
    pub(super) fn profile(&self, style: Style) -> Option<&Profile> {
        self.list.get(usize::from(style.0))
    }

    /// The style of this name.
    pub fn style(&self, name: &str) -> Option<Style> {
        let at = self.list.iter().position(|profile| profile.name == name)?;
        u8::try_from(at).ok().map(Style)
    }

    /// The style that a server or a path belongs to, whatever key is used.
    pub(super) fn of_place(&self, host: Option<&[u8]>, path: &[u8]) -> Style {
        let host = host.map(without_port);
        if let Some(host) = host
            && let Some((_, style)) = self.hosts.iter().find(|(name, _)| is_host(host, name))
        {
            return *style;
        }
        // One byte tells most of them apart, the one behind the slash.
        let begins = |(start, _): &&(Box<str>, Style)| {
            let second = start.as_bytes().get(1);
            second.is_none_or(|byte| path.get(1) == Some(byte))
                && path.starts_with(start.as_bytes())
        };
        self.prefixes.iter().find(begins).map_or(Style::GENERIC, |(_, style)| *style)
    }

    /// The style of a FIX session with this counterparty.
    pub(super) fn of_fix(&self, target: &[u8]) -> Style {
        let known = self.fix_targets.iter().find(|(name, _)| name.as_bytes() == target);
        known.map_or(Style::GENERIC, |(_, style)| *style)
    }

    /// What a method and path do in a style, if it says so.
    pub(super) fn operation(&self, style: Style, method: &str, path: &[u8]) -> Option<Operation> {
        let profile = self.profile(style)?;
        let bits = paths::method(method);
        if !path.contains(&b'%') {
            return profile.paths.find(bits, path);
        }
        let decoded: SmallVec<[u8; 256]> = percent::decoded(path).map(|(_, byte)| byte).collect();
        profile.paths.find(bits, &decoded)
    }

    /// What a message of this name does in a style, if it says so.
    pub(super) fn message(&self, style: Style, name: &[u8]) -> Option<Operation> {
        let rpc = &self.profile(style)?.rpc;
        rpc.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, op)| *op)
    }

    /// What a code means that nobody else uses for another thing.
    pub(super) fn plain_code(&self, code: &str) -> Option<Outcome> {
        self.plain_codes.iter().find(|(known, _)| **known == *code).map(|(_, outcome)| *outcome)
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    let end = host.iter().rposition(|byte| *byte == b':').filter(|at| !host[*at..].contains(&b']'));
    &host[..end.unwrap_or(host.len())]
}

/// Whether a host without its port is the one or below the domain.
fn is_host(host: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    match name {
        [b'.', domain @ ..] => {
            host.eq_ignore_ascii_case(domain)
                || host.len() > name.len()
                    && host[host.len() - name.len()..].eq_ignore_ascii_case(name)
        }
        name => host.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests;
