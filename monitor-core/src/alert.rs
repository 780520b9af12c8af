//! What the analyst gets: one incident on one entity, with what was expected and what was seen.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::baseline::prefix;
use crate::call::{FlowId, KeyId};
use crate::input::Endpoint;
use crate::time::EventTime;

/// An incident, or a later state of one: the same `id` with a higher `revision` replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Derived from host, entity and the time of the first finding: the same in every replay.
    pub id: AlertId,
    /// 0 when first raised, one more with each update.
    pub revision: u32,
    /// Event time of the call that raised or changed it.
    pub time: EventTime,
    /// How bad it is.
    pub severity: Severity,
    /// How sure, from 0 to 1.
    pub confidence: f32,
    /// Whom it is about.
    pub entity: Entity,
    /// A few words.
    pub title: String,
    /// One sentence that a tired analyst understands.
    pub explanation: String,
    /// What to do first.
    pub first_step: Cow<'static, str>,
    /// What each detector found, strongest first.
    pub findings: Vec<Finding>,
    /// Event time of the first call behind it.
    pub first_seen: EventTime,
    /// Event time of the last.
    pub last_seen: EventTime,
    /// Connections behind it, oldest first; cut at a limit.
    pub flows: Vec<FlowId>,
    /// Calls behind it.
    pub calls: u64,
    /// True when no bytes were lost around it.
    pub complete: bool,
    /// Host that saw it.
    pub host: String,
    /// Whom the alert is about that tells of this key with others: no more follows here but what is this
    /// key's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<Entity>,
}

/// What one detector found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Id in the list of detectors: `D3`.
    pub detector: Cow<'static, str>,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Event time of the call that completed it.
    pub time: EventTime,
    /// What the baseline or rule expects.
    pub expected: String,
    /// What came.
    pub seen: String,
    /// Log-odds evidence, natural logarithm, capped.
    pub evidence: f32,
    /// How bad it is by itself.
    pub severity: Severity,
    /// MITRE ATT&CK technique ids.
    pub attack: Vec<Cow<'static, str>>,
    /// OWASP API Security 2023 and automated-threat ids.
    pub owasp: Vec<Cow<'static, str>>,
}

/// How bad, in the order of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// Act now.
    Critical,
}

/// Whom an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Entity {
    /// An API key.
    Key(KeyId),
    /// A client address.
    Client(IpAddr),
    /// The /24 (IPv4) or /48 (IPv6) that begins with this address.
    Network(IpAddr),
    /// Keys that did the same at the same time.
    Group(GroupId),
    /// This host: capture itself is impaired.
    Host,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entity::Key(id) => write!(f, "{id}"),
            Entity::Client(ip) => write!(f, "{ip}"),
            Entity::Network(first) => f.write_str(&network_name(*first)),
            Entity::Group(id) => write!(f, "{id}"),
            Entity::Host => f.write_str("this host"),
        }
    }
}

/// The first address of the network that an address is counted with.
pub fn network_of(address: IpAddr) -> IpAddr {
    let first = prefix(&Endpoint::new(address, 0).addr);
    Endpoint { addr: first, port: 0 }.ip()
}

/// A network by its first address, as it is shown: `192.0.2.0/24`.
pub fn network_name(first: IpAddr) -> String {
    let bits = if first.is_ipv4() { 24 } else { 48 };
    format!("{first}/{bits}")
}

/// 64 bits of a hash of what the keys have in common, the same at every host; shown as `g_` and 16
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);
crate::call::hex_id!(GroupId, "g_", "g_{:016x}", 16, u64);

/// 64 bits of a hash; shown as `a_` and 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlertId(pub u64);
crate::call::hex_id!(AlertId, "a_", "a_{:016x}", 16, u64);
