//! One partition: its Engine, and what is to be said of it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use monitor_core::alert::Entity;
use monitor_core::call::{ApiCall, KeyId, Operation, Outcome};
use monitor_core::engine::{Engine, Settings};
use monitor_core::time::EventTime;
use rdkafka::Message;
use rdkafka::message::Headers;

use super::Counts;
use crate::compact;
use crate::sinks::event::{Event, Writer};
use crate::sinks::record::View;

/// What a partition is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Calls by key: alerts about keys.
    Keys,
    /// Calls by network: alerts about clients and networks.
    Sources,
}

/// What is to be said.
pub(super) enum Said {
    /// An alert in its form.
    Alert(Box<Event>),
    /// A call for the other stage, in the compact form.
    Source { key: String, call: Vec<u8> },
}

/// See the module.
pub(super) struct Partition {
    stage: Stage,
    engine: Engine,
    late_max_ns: u64,
    /// Records before this one were dealt with by an earlier holder.
    new_from: i64,
    /// Offset behind the last record that was taken.
    pub(super) next: i64,
    /// Time of that record as Kafka has it, milliseconds.
    pub(super) last_ms: i64,
    latest: EventTime,
    second: EventTime,
    is_new: bool,
    passed_on: PassedOn,
    pub(super) waiting: Vec<Said>,
    calls: u64,
    warmed: u64,
    garbage: u64,
    late: u64,
}

impl Partition {
    pub(super) fn new(stage: Stage, new_from: i64, settings: &Settings) -> Partition {
        Partition {
            stage,
            engine: Engine::new(settings.clone()),
            late_max_ns: settings.late_max_s.saturating_mul(1_000_000_000),
            new_from,
            next: 0,
            last_ms: 0,
            latest: EventTime(0),
            second: EventTime(0),
            is_new: false,
            passed_on: PassedOn::new(settings.stuffing.window_s / 2),
            waiting: Vec::new(),
            calls: 0,
            warmed: 0,
            garbage: 0,
            late: 0,
        }
    }

    /// Whether there is anything that the brokers do not know yet.
    pub(super) fn has_news(&self) -> bool {
        self.is_new
    }

    /// Everything that waits was said. Returns how many of it were alerts.
    pub(super) fn said(&mut self) -> u64 {
        self.is_new = false;
        let alerts = self.waiting.iter().filter(|said| matches!(said, Said::Alert(_))).count();
        self.waiting.clear();
        alerts as u64
    }

    pub(super) fn add_to(&self, counts: &mut Counts) {
        counts.calls += self.calls;
        counts.warmed += self.warmed;
        counts.garbage += self.garbage;
        counts.late += self.late;
    }

    /// Takes the next record; an error says why it is no call.
    pub(super) fn take(&mut self, message: &impl Message, writer: &Writer) -> Result<(), String> {
        let is_new = message.offset() >= self.new_from;
        if is_new {
            self.is_new = true;
            self.next = message.offset() + 1;
            self.last_ms = message.timestamp().to_millis().unwrap_or(0);
        }
        let call = match read(message) {
            Ok(call) => call,
            Err(reason) => {
                self.garbage += u64::from(is_new);
                return if is_new { Err(reason) } else { Ok(()) };
            }
        };
        // What waited in a spool would have the Engine take it for a clock that was set back, and throw
        // running windows away. The agent has judged it already.
        if self.latest.0.saturating_sub(call.time.0) > self.late_max_ns {
            self.late += u64::from(is_new);
            return Ok(());
        }
        self.latest = self.latest.max(call.time);
        if is_new {
            self.calls += 1
        } else {
            self.warmed += 1
        }
        self.engine.handle_call(&call);
        if self.stage == Stage::Keys && self.passed_on.wants(&call) && is_new {
            let mut bytes = Vec::with_capacity(message.payload().map_or(0, <[u8]>::len));
            compact::encode(&call, &mut bytes);
            self.waiting.push(Said::Source { key: network(call.client()), call: bytes });
        }
        self.pump(is_new, writer);
        // As on a host: once a second of the calls' time.
        if call.time >= self.second {
            let second = EventTime(call.time.secs() * 1_000_000_000);
            self.second = EventTime(second.0.saturating_add(1_000_000_000));
            self.engine.handle_timeout(second);
            self.pump(is_new, writer);
        }
        Ok(())
    }

    fn pump(&mut self, is_new: bool, writer: &Writer) {
        while let Some(alert) = self.engine.poll_alert() {
            let is_ours = match alert.entity {
                Entity::Key(_) => self.stage == Stage::Keys,
                // Only the other stage has seen all that concerns them.
                Entity::Client(_) | Entity::Network(_) | Entity::Group(_) => {
                    self.stage == Stage::Sources
                }
                Entity::Host => false,
            };
            // What an earlier holder read, it also said.
            if is_new && is_ours {
                let mut event = Box::new(Event::default());
                writer.write(View::Alert(&alert), &mut event);
                self.waiting.push(Said::Alert(event));
            }
        }
    }
}

/// A call in the compact form, or as a line of JSON.
fn read(message: &impl Message) -> Result<ApiCall, String> {
    let kind = message.headers().and_then(|headers| {
        let kind = headers.iter().find(|header| header.key == "ce_type")?;
        std::str::from_utf8(kind.value?).ok()
    });
    if let Some(
        kind @ ("keywatch.call.ocsf.v1" | "keywatch.call.ecs.v1" | "keywatch.call.cef.v1"),
    ) = kind
    {
        return Err(format!(
            "its form is {kind}: set activity_format = \"compact\" under [sinks.kafka] of agents"
        ));
    }
    let bytes = message.payload().ok_or("it is empty")?;
    if bytes.first() == Some(&b'{') {
        // The reason would quote it.
        return serde_json::from_slice(bytes).map_err(|_| "it is not a call".into());
    }
    compact::decode(bytes).map_err(|error| error.to_string())
}

/// The first address of the network that an address is blamed with: records of one stay together.
fn network(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// Which calls concern addresses: refused credentials, and of those that were accepted the first of each
/// key and client in half a window, which is all that is counted of them.
struct PassedOn {
    half_s: u64,
    half: u64,
    seen: HashSet<(KeyId, IpAddr)>,
}

/// Above this all are passed on: it costs records, and nothing is missed. 16 MiB.
const SEEN_MAX: usize = 250_000;

impl PassedOn {
    fn new(half_s: u64) -> PassedOn {
        PassedOn { half_s: half_s.max(1), half: 0, seen: HashSet::new() }
    }

    fn wants(&mut self, call: &ApiCall) -> bool {
        let key = call.key.as_ref().map(|key| key.id);
        match call.outcome {
            Some(Outcome::BadKey | Outcome::BadSignature) => {
                key.is_some() || call.op == Operation::Auth
            }
            Some(Outcome::Ok) => {
                let Some(key) = key else { return false };
                let half = call.time.secs() / self.half_s;
                if half != self.half {
                    self.half = half;
                    self.seen.clear();
                }
                self.seen.len() >= SEEN_MAX || self.seen.insert((key, call.client()))
            }
            None
            | Some(
                Outcome::Skew
                | Outcome::ReplayedNonce
                | Outcome::IpDenied
                | Outcome::PermissionDenied
                | Outcome::MfaRequired
                | Outcome::AddressNotAllowed
                | Outcome::Throttled
                | Outcome::Banned
                | Outcome::Locked
                | Outcome::Error,
            ) => false,
        }
    }
}
