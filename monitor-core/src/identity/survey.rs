//! What a set of profiles makes of traffic, for whoever writes one: how many requests it knows, by
//! what, and what looks like a secret and is not declared. Kept on demand only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use compact_str::{CompactString, format_compact};

use super::RequestHead;
use super::profile::{Parameter, Profiles};
use super::{Identified, Style};
use crate::plain::looks_secret;

/// Lines of each list; a report of more is read by nobody.
const LINES_MAX: usize = 1000;

/// Bytes of a credential, at the least.
const SECRET_BYTES_MIN: usize = 16;

/// Header fields that hold long random values and no secrets, or that every client has.
const HARMLESS: &[&str] = &[
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "if-none-match",
    "etag",
    "user-agent",
    "accept",
    "host",
    "sec-websocket-key",
    "idempotency-key",
    "content-type",
];

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Requests.
    pub requests: u64,
    /// Requests of each profile, and by which source their key was found; without one: empty.
    pub known: BTreeMap<(CompactString, CompactString), u64>,
    /// Requests that no exchange's profile knows, by method and path with ids left out.
    pub unknown: BTreeMap<(CompactString, CompactString), u64>,
    /// Requests of a profile of which no rule says what they do, the same way.
    pub unruled: BTreeMap<(CompactString, CompactString), u64>,
    /// Fields whose values look like secrets and that no profile names: where, and the name.
    pub suspects: BTreeMap<(&'static str, CompactString), u64>,
    /// Lines for which there was no room.
    pub beyond: u64,
}

impl Survey {
    pub(super) fn request(
        &mut self,
        profiles: &Profiles,
        head: &RequestHead<'_>,
        identified: &Identified,
        ruled: bool,
    ) {
        self.requests += 1;
        let of_key = identified.key.as_ref();
        // Who found the key comes before whose path it is.
        let name = of_key.map(|key| key.profile.clone());
        let name =
            name.or_else(|| profiles.profile(identified.style).map(|style| style.name.clone()));
        let source = of_key.map(|key| key.source.clone()).unwrap_or_default();
        let line = (CompactString::from(head.method), template(&identified.path));
        if identified.style == Style::GENERIC {
            add(&mut self.unknown, line, &mut self.beyond);
        } else if !ruled {
            add(&mut self.unruled, line, &mut self.beyond);
        }
        if let Some(name) = name {
            add(&mut self.known, (name, source), &mut self.beyond);
        }
        for header in head.headers {
            let is_secret =
                || profiles.names.of(header.name.as_bytes(), identified.style) == Parameter::Secret;
            let declared = profiles.headers.find(header.name).is_some() || is_secret();
            let harmless = HARMLESS.iter().any(|name| header.name.eq_ignore_ascii_case(name));
            if !declared && !harmless && is_suspect(header.value) {
                let name = CompactString::from(header.name).to_ascii_lowercase();
                add(&mut self.suspects, ("header", name), &mut self.beyond);
            }
        }
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&') {
            if let Some((name, value)) = pair.split_once('=') {
                self.field(profiles, "query", name.as_bytes(), value.as_bytes(), identified.style);
            }
        }
    }

    /// A parameter or member that no profile may have named.
    pub(super) fn field(
        &mut self,
        profiles: &Profiles,
        place: &'static str,
        name: &[u8],
        value: &[u8],
        style: Style,
    ) {
        let plain = profiles.names.of(name, style) == Parameter::Plain;
        // A name that looks like a secret itself is not shown.
        if plain
            && is_suspect(value)
            && !looks_secret(name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            add(&mut self.suspects, (place, name.chars().take(64).collect()), &mut self.beyond);
        }
    }
}

fn add<K: Ord>(lines: &mut BTreeMap<K, u64>, line: K, beyond: &mut u64) {
    let room = lines.len() < LINES_MAX;
    match lines.entry(line) {
        Entry::Occupied(mut known) => *known.get_mut() += 1,
        Entry::Vacant(free) if room => {
            free.insert(1);
        }
        Entry::Vacant(_) => *beyond += 1,
    }
}

/// A long value in no order, or a token.
fn is_suspect(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let text = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=%".contains(byte));
    // Times and numbers of orders are long, too.
    let number = value.iter().all(u8::is_ascii_digit);
    value.len() >= SECRET_BYTES_MIN && text && !number && looks_secret(value)
}

/// A path with `*` for what differs from call to call.
pub(super) fn template(path: &str) -> CompactString {
    let mut out = CompactString::default();
    for segment in path.split('/').skip(1).take(12) {
        let digits = segment.bytes().filter(u8::is_ascii_digit).count();
        let id = segment.len() > 3 && digits * 2 > segment.len()
            || digits == segment.len() && digits > 0
            || looks_secret(segment.as_bytes());
        out = format_compact!("{out}/{}", if id { "*" } else { segment });
    }
    out.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use httparse::Header;

    use super::super::{Identifier, RequestHead, Secret};
    use super::*;

    #[test]
    fn what_is_known_and_what_is_not() {
        let mut identifier = Identifier::new(Secret::new([7; 32]));
        identifier.begin_survey();
        let secret = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv";
        let ask = |method, target: &str, headers: &[(&str, &str)]| {
            let headers: Vec<Header<'_>> = headers
                .iter()
                .map(|(name, value)| Header { name, value: value.as_bytes() })
                .collect();
            identifier.identify(&RequestHead { method, target, headers: &headers });
        };
        let okx = [("OK-ACCESS-KEY", "k"), ("X-Odd", secret), ("X-Request-Id", secret)];
        ask("POST", "/api/v5/trade/order", &okx);
        ask("GET", "/api/v5/asset/balances", &okx);
        ask(
            "GET",
            &format!("/v1/orders/42?ref={secret}&signature={secret}&t=1700000000000000"),
            &[],
        );
        let survey = identifier.survey().unwrap();
        assert_eq!(survey.requests, 3);
        assert_eq!(survey.known[&("okx".into(), "header:ok-access-key".into())], 2);
        assert_eq!(survey.unruled[&("GET".into(), "/api/v5/asset/balances".into())], 1);
        assert_eq!(survey.unknown[&("GET".into(), "/v1/orders/*".into())], 1);
        let suspects: Vec<_> = survey.suspects.into_iter().collect();
        assert_eq!(suspects, [(("header", "x-odd".into()), 2), (("query", "ref".into()), 1)]);
    }

    #[test]
    fn its_lists_are_bounded() {
        let mut survey = Survey::default();
        for number in 0..2 * LINES_MAX {
            add(
                &mut survey.unknown,
                ("GET".into(), format_compact!("/{number}x")),
                &mut survey.beyond,
            );
        }
        assert_eq!((survey.unknown.len(), survey.beyond), (LINES_MAX, LINES_MAX as u64));
    }
}
