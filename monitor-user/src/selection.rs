//! Which calls, connections and alerts of a replay are shown and written.

use std::collections::HashSet;
use std::time::Duration;

use monitor_core::alert::{Alert, Entity};
use monitor_core::call::{Anomalies, ApiCall, FlowId, KeyId, Operation, Outcome, Protocol};
use monitor_core::connection::Connection;
use monitor_core::time::EventTime;

use crate::cli::SelectArgs;
use crate::fault::Misuse;

/// Connections that are remembered for a selected call until they end: eight times what the Decoder
/// holds at once.
const FLOWS_MAX: usize = 1 << 20;

/// What was asked for: of each kind any, of all kinds every.
pub(crate) struct Selection {
    keys: Vec<KeyPrefix>,
    hosts: Vec<HostPattern>,
    since: Option<Moment>,
    until: Option<Moment>,
    protocols: Vec<Protocol>,
    flows: Vec<FlowId>,
    statuses: Vec<(u16, u16)>,
    operations: Vec<Operation>,
    outcomes: Vec<Outcome>,
    paths: Vec<String>,
    anomalies: Anomalies,
    /// Time of the first input.
    start: Option<EventTime>,
    /// Connections that have carried a selected call.
    carriers: HashSet<FlowId>,
}

/// The first digits of a key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyPrefix {
    digits: u32,
    value: u128,
}

/// A host, or all below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    /// In lower case.
    Exact(String),
    /// In lower case, from the dot on.
    Below(String),
}

/// A time, or one counted from the capture's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(EventTime),
    After(Duration),
}

impl Selection {
    /// From the command line; `None` when nothing is selected.
    pub(crate) fn new(args: &SelectArgs) -> Result<Option<Selection>, Misuse> {
        if *args == SelectArgs::default() {
            return Ok(None);
        }
        Ok(Some(Selection {
            keys: all(
                &args.keys,
                "--key",
                "a key id such as k_1f2e3d4c, or its first digits",
                key,
            )?,
            hosts: all(&args.hosts, "--host", "a host, or a domain such as .example.com", host)?,
            since: one(args.since.as_deref(), "--since")?,
            until: one(args.until.as_deref(), "--until")?,
            protocols: all(
                &args.protocols,
                "--protocol",
                &names(&Protocol::ALL.map(Protocol::as_str)),
                |text| Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == text),
            )?,
            flows: all(&args.flows, "--flow", FLOW_FORM, flow)?,
            statuses: all(
                &args.statuses,
                "--status",
                "a status such as 404, a class such as 5xx, or a range such as 400-499",
                status,
            )?,
            operations: all(
                &args.ops,
                "--op",
                &names(&Operation::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>()),
                |text| Operation::ALL.iter().copied().find(|it| it.as_str() == text),
            )?,
            outcomes: all(
                &args.outcomes,
                "--outcome",
                &names(&Outcome::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>()),
                |text| Outcome::ALL.iter().copied().find(|it| it.as_str() == text),
            )?,
            paths: args.paths.clone(),
            anomalies: all(
                &args.anomalies,
                "--anomaly",
                "the name of one as it stands in records, such as gap",
                |text| Anomalies::from_name(&text.to_uppercase()),
            )?
            .into_iter()
            .collect(),
            start: None,
            carriers: HashSet::new(),
        }))
    }

    /// The time of an input; the first is the capture's start.
    pub(crate) fn begin(&mut self, time: EventTime) {
        self.start.get_or_insert(time);
    }

    pub(crate) fn call(&mut self, call: &ApiCall) -> bool {
        let selected = self.is_in_time(call.time) && self.matches(call);
        if selected && self.carriers.len() < FLOWS_MAX {
            self.carriers.insert(call.flow.id);
        }
        selected
    }

    /// A connection is selected by its own facts, or with a call that it carried.
    pub(crate) fn connection(&mut self, connection: &Connection) -> bool {
        let carried = self.carriers.remove(&connection.flow.id);
        if self.asks_for_calls() {
            return carried;
        }
        let flow = self.flows.is_empty() || self.flows.contains(&connection.flow.id);
        let spoken = connection.protocol.is_some_and(|it| self.protocols.contains(&it));
        carried
            || flow
                && (self.protocols.is_empty() || spoken)
                && self.begins_before_end(connection.time)
                && self.ends_after_start(connection.end)
    }

    /// Alerts are about keys: only key and time select them.
    pub(crate) fn alert(&self, alert: &Alert) -> bool {
        let key = match alert.entity {
            Entity::Key(id) => self.keys.is_empty() || self.is_key(id),
            Entity::Client(_) | Entity::Network(_) | Entity::Group(_) | Entity::Host => {
                self.keys.is_empty()
            }
        };
        key && self.is_in_time(alert.time)
    }

    /// Whether anything is asked that only a call can answer.
    fn asks_for_calls(&self) -> bool {
        !self.keys.is_empty()
            || !self.hosts.is_empty()
            || !self.statuses.is_empty()
            || !self.operations.is_empty()
            || !self.outcomes.is_empty()
            || !self.paths.is_empty()
            || !self.anomalies.is_empty()
    }

    fn matches(&self, call: &ApiCall) -> bool {
        let request = call.request.as_ref();
        let host = request.and_then(|request| request.host.as_deref());
        let path = request.map(|request| request.path.as_str());
        let status = call.response.as_ref().and_then(|response| response.status);
        let any = |paths: &[String]| {
            path.is_some_and(|path| paths.iter().any(|prefix| path.starts_with(prefix.as_str())))
        };
        (self.flows.is_empty() || self.flows.contains(&call.flow.id))
            && (self.keys.is_empty()
                || call.key.as_ref().is_some_and(|key| {
                    self.is_key(key.id) || key.former().iter().any(|id| self.is_key(*id))
                }))
            && (self.protocols.is_empty() || self.protocols.contains(&call.protocol))
            && (self.operations.is_empty() || self.operations.contains(&call.op))
            && (self.outcomes.is_empty()
                || call.outcome.is_some_and(|outcome| self.outcomes.contains(&outcome)))
            && (self.statuses.is_empty()
                || status.is_some_and(|status| {
                    self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
                }))
            && (self.anomalies.is_empty() || call.anomalies.intersects(self.anomalies))
            && (self.hosts.is_empty()
                || host.is_some_and(|host| self.hosts.iter().any(|it| it.is_of(host))))
            && (self.paths.is_empty() || any(&self.paths))
    }

    fn is_key(&self, id: KeyId) -> bool {
        self.keys.iter().any(|prefix| prefix.is_of(id))
    }

    fn is_in_time(&self, time: EventTime) -> bool {
        self.ends_after_start(time) && self.begins_before_end(time)
    }

    fn ends_after_start(&self, time: EventTime) -> bool {
        self.since.is_none_or(|since| time >= self.resolved(since))
    }

    fn begins_before_end(&self, time: EventTime) -> bool {
        self.until.is_none_or(|until| time < self.resolved(until))
    }

    fn resolved(&self, moment: Moment) -> EventTime {
        match moment {
            Moment::At(time) => time,
            Moment::After(duration) => self.start.unwrap_or_default().after(duration),
        }
    }
}

/// How a flow is named.
const FLOW_FORM: &str = "the id of a connection, such as f_0123456789abcdef";

/// The flow that an option names.
pub(crate) fn flow_of(option: &str, text: &str) -> Result<FlowId, Misuse> {
    flow(text).ok_or_else(|| unknown(option, text, FLOW_FORM))
}

fn all<T>(
    texts: &[String],
    option: &str,
    form: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Misuse> {
    texts.iter().map(|text| read(text).ok_or_else(|| unknown(option, text, form))).collect()
}

fn one(text: Option<&str>, option: &str) -> Result<Option<Moment>, Misuse> {
    let form = "a time such as 2026-11-23T20:00:00Z, or +10m from the capture's start";
    text.map(|text| moment(text).ok_or_else(|| unknown(option, text, form))).transpose()
}

fn unknown(option: &str, text: &str, form: &str) -> Misuse {
    Misuse(format!("unknown value: {option} {text}: write {form}"))
}

fn names(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

fn key(text: &str) -> Option<KeyPrefix> {
    let digits = text.strip_prefix("k_").unwrap_or(text);
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(1..=32).contains(&digits.len()) {
        return None;
    }
    let value = u128::from_str_radix(digits, 16).ok()?;
    Some(KeyPrefix { digits: u32::try_from(digits.len()).ok()?, value })
}

impl KeyPrefix {
    fn is_of(self, id: KeyId) -> bool {
        // One to 32 digits: shifts by less than 128 bits.
        id.0 >> (128 - 4 * self.digits) == self.value
    }
}

fn host(text: &str) -> Option<HostPattern> {
    let text = text.to_ascii_lowercase();
    let below = text.strip_prefix('*').unwrap_or(&text);
    match below.strip_prefix('.') {
        Some("") => None,
        Some(_) => Some(HostPattern::Below(below.into())),
        None if below.is_empty() || below.contains('*') || text.starts_with('*') => None,
        None => Some(HostPattern::Exact(text)),
    }
}

impl HostPattern {
    /// Whatever the port, unless the pattern names one.
    fn is_of(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
            Some(_) | None => &host,
        };
        match self {
            HostPattern::Exact(pattern) => host == *pattern || bare == pattern,
            HostPattern::Below(end) => host.ends_with(end.as_str()) || bare.ends_with(end.as_str()),
        }
    }
}

fn flow(text: &str) -> Option<FlowId> {
    let is_hex = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = text.strip_prefix("f_").filter(|digits| digits.len() == 16).filter(is_hex)?;
    u64::from_str_radix(digits, 16).ok().map(FlowId)
}

fn status(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some((low, high))
}

fn moment(text: &str) -> Option<Moment> {
    if let Some(after) = text.strip_prefix('+') {
        return humantime::parse_duration(after).ok().map(Moment::After);
    }
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok().map(|ns| Moment::At(EventTime(ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_their_first_digits() {
        let id = KeyId(0x1f2e << 112);
        for (text, fits) in [
            ("k_1f2e", true),
            ("1f", true),
            ("K", false),
            ("2", false),
            ("k_1f2e0000000000000000000000000000", true),
            ("k_1f2e0000000000000000000000000001", false),
            ("k_1F2E", true),
        ] {
            assert_eq!(key(text).is_some_and(|prefix| prefix.is_of(id)), fits, "{text}");
        }
        for text in ["", "k_", "k_xyz", "+1", "k_1f2e00000000000000000000000000001"] {
            assert_eq!(key(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_are_exact_or_below_a_domain() {
        for (pattern, name, fits) in [
            ("api.example.com", "API.example.com:8443", true),
            ("api.example.com:80", "api.example.com", false),
            ("api.example.com:80", "api.example.com:80", true),
            ("example.com", "api.example.com", false),
            (".example.com", "api.example.com:1", true),
            ("*.Example.com", "a.b.example.com", true),
            (".example.com", "example.com", false),
            (".example.com", "badexample.com", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(host(pattern).unwrap().is_of(name), fits, "{pattern} {name}");
        }
        for pattern in ["", "*", ".", "*.", "*example.com", "a.*.com"] {
            assert_eq!(host(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn statuses_are_single_a_class_or_a_range() {
        assert_eq!(status("404"), Some((404, 404)));
        assert_eq!(status("5xx"), Some((500, 599)));
        assert_eq!(status("400-499"), Some((400, 499)));
        for text in ["", "xx", "0xx", "10xx", "5XX", "499-400", "-1", "70000"] {
            assert_eq!(status(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_absolute_or_counted_from_the_start() {
        let at = Some(Moment::At(EventTime(1_795_464_000_000_000_000)));
        for text in ["2026-11-23T20:00:00Z", "2026-11-23 20:00:00", "2026-11-23T20:00:00.000Z"] {
            assert_eq!(moment(text), at, "{text}");
        }
        assert_eq!(moment("+10m"), Some(Moment::After(Duration::from_secs(600))));
        for text in ["", "+", "10m", "yesterday", "1969-01-01T00:00:00Z", "+-1s"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
