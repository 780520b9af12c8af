//! What is flagged: one file a detector, all of them in one list.

mod bulk_read;
mod capture_loss;
mod clock_drift;
mod concurrent_use;
mod dormant;
mod enumeration;
mod error_burst;
mod faulty_token;
mod first_use;
mod foreign_account;
mod latency;
mod new_agent;
mod new_network;
mod new_symbol;
mod no_step_up;
mod oauth;
mod odd_parameter;
mod odd_sequence;
mod open_endpoint;
mod operation_mix;
mod policy;
mod quote_stuffing;
mod rate_spike;
mod refused;
mod replay;
mod scanner;
mod shared_session;
mod slow_drift;
mod stuffing;
pub(crate) mod synchrony;
mod token_reuse;

pub(crate) use capture_loss::Capture;
pub(crate) use refused::is_refusal;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use crate::alert::{Entity, GroupId, Severity};
use crate::baseline::{Across, Fleet, Inventory, KeyState, Named, Owners, Place, Sources, prefix};
use crate::call::{ApiCall, Key, KeyId, Operation, Outcome};
use crate::engine::{Impairment, Joined, Settings};
use crate::policy::{Granted, Policy};
use crate::time::EventTime;

/// Every detector, in the order in which they see a call.
pub(crate) static DETECTORS: &[&dyn Detector] = &[
    &rate_spike::RateSpike,
    &error_burst::ErrorBurst,
    &stuffing::Stuffing,
    // Before those that learn what is new.
    &synchrony::Synchrony,
    &dormant::Dormant,
    &new_network::NewNetwork,
    &new_agent::NewAgent,
    &concurrent_use::ConcurrentUse,
    &operation_mix::OperationMix,
    &first_use::FirstUse,
    &new_symbol::NewSymbol,
    &refused::Refused,
    &enumeration::Enumeration,
    &scanner::Scanner,
    &latency::Latency,
    &replay::Replay,
    &clock_drift::ClockDrift,
    &faulty_token::FaultyToken,
    &no_step_up::NoStepUp,
    &policy::Forbidden,
    &foreign_account::ForeignAccount,
    &open_endpoint::OpenEndpoint,
    // After those that count calls of endpoints.
    &odd_parameter::OddParameter,
    &shared_session::SharedSession,
    &token_reuse::TokenReuse,
    &oauth::Grants,
    &quote_stuffing::QuoteStuffing,
    &slow_drift::SlowDrift,
    &bulk_read::BulkRead,
    &odd_sequence::OddSequence,
    &capture_loss::CaptureLoss,
];

/// Looks at one call or one impairment, learns from it, and reports what does not fit.
pub(crate) trait Detector: Sync {
    /// Looks at a call.
    fn on_call(&self, _scene: &mut Scene<'_>, _report: &mut Report) {}

    /// Looks at trouble with capture.
    fn on_impairment(
        &self,
        _now: EventTime,
        _what: &Impairment,
        _capture: &mut Capture,
        _settings: &Settings,
        _report: &mut Report,
    ) {
    }
}

/// What a detector is, as in the list of detectors.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) layer: Layer,
    /// MITRE ATT&CK techniques.
    pub(crate) attack: &'static [&'static str],
    /// OWASP API Security 2023 and automated threats.
    pub(crate) owasp: &'static [&'static str],
}

/// What a detector's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Layer {
    /// A rule: may alert by itself.
    Invariant,
    /// Something new: never alerts by itself.
    Novelty,
    /// Unlike what is usual: alerts when there is enough of it.
    Behaviour,
}

/// A call and all that is known around it.
pub(crate) struct Scene<'a> {
    pub(crate) call: &'a ApiCall,
    pub(crate) time: EventTime,
    /// The same, seconds.
    pub(crate) now_s: u32,
    /// Since when calls are seen without a hole, seconds.
    pub(crate) watched_since_s: u32,
    /// Place of the operation in tables.
    pub(crate) op: usize,
    /// Client address.
    pub(crate) address: [u8; 16],
    /// What evidence from this call is worth: 1, or half when not all of it was seen.
    pub(crate) weight: f32,
    /// What the request names.
    pub(crate) named: Named,
    /// True unless the credential itself was refused.
    pub(crate) is_authentic: bool,
    /// The key, if it was ever accepted.
    pub(crate) key: Option<(KeyId, &'a mut KeyState)>,
    /// What the address means for the key.
    pub(crate) place: Place,
    /// How rare the client program is that the key was never used with, from 0 to 1; 0 when it is known.
    pub(crate) agent_rarity: f32,
    /// Keys with full state.
    pub(crate) keys: usize,
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) sources: &'a mut Sources,
    pub(crate) across: &'a mut Across,
    /// For an Engine that sees what all keys come to.
    pub(crate) joined: Option<&'a mut VecDeque<Joined>>,
    pub(crate) policy: &'a Policy,
    pub(crate) owners: &'a mut Owners,
    pub(crate) inventory: &'a mut Inventory,
    pub(crate) settings: &'a Settings,
}

/// What a detector has to say about an entity.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entity: Entity,
    pub(crate) rule: &'static Rule,
    /// Natural log-odds.
    pub(crate) evidence: f32,
    pub(crate) severity: Severity,
    /// Needs no other detector.
    pub(crate) alone: bool,
    /// Worth an update of an alert that already has this detector.
    pub(crate) grown: bool,
    /// No bytes were lost around it.
    pub(crate) complete: bool,
    /// Calls behind it.
    pub(crate) calls: u64,
    pub(crate) expected: String,
    pub(crate) seen: String,
    /// What the entity did, to follow "This key", "This address" and so on.
    pub(crate) clause: String,
    pub(crate) title: &'static str,
    pub(crate) first_step: &'static str,
}

/// Takes what detectors find. While history is learnt it takes nothing, and nothing is put in words.
pub(crate) struct Report {
    is_open: bool,
    pub(crate) found: SmallVec<[Found; 2]>,
}

impl Report {
    pub(crate) fn new(is_open: bool) -> Report {
        Report { is_open, found: SmallVec::new() }
    }

    pub(crate) fn add(&mut self, found: impl FnOnce() -> Found) {
        if self.is_open {
            self.found.push(found());
        }
    }
}

/// What the policy says of a key, under any id that it has in a call.
fn granted<'p>(policy: &'p Policy, id: KeyId, call: &ApiCall) -> Granted<'p> {
    match &call.key {
        // A connection that logged on before the secret changed.
        Some(key) if key.id != id => policy.of(id, &[key.id]),
        Some(key) => policy.of(id, key.former()),
        None => policy.of(id, &[]),
    }
}

/// An address as it is shown.
fn ip(address: &[u8; 16]) -> IpAddr {
    Ipv6Addr::from(*address).to_canonical()
}

/// A network behind the edge: what comes from there may be passed on (RFC 1918, 4193, 3927).
pub(crate) fn is_inside(address: &[u8; 16]) -> bool {
    match ip(address) {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// A hash of the network of a client, to know it again; `None` of one behind the edge.
fn outside_network(address: &[u8; 16]) -> Option<u64> {
    (!is_inside(address)).then(|| FixedState::with_seed(0).hash_one(prefix(address)))
}

/// Keys by their ids, for an alert that is about `all` keys and names some.
fn examples(keys: &[KeyId], all: u64) -> String {
    let mut names: Vec<String> = keys.iter().map(KeyId::to_string).collect();
    if all > names.len() as u64 {
        names.push("…".into());
    }
    names.join(", ")
}

/// All keys that did something, as one: the same on every host and day.
pub(crate) fn group(kind: &[u8], target: u64) -> GroupId {
    GroupId(FixedState::with_seed(target).hash_one(kind))
}

/// Moves funds out, or changes who may do so and where to.
pub(crate) fn is_sensitive(op: Operation) -> bool {
    match op {
        Operation::Withdraw | Operation::AddressBook | Operation::KeyManagement => true,
        Operation::Public
        | Operation::Read
        | Operation::Trade
        | Operation::Cancel
        | Operation::Transfer
        | Operation::Subaccount
        | Operation::Auth => false,
    }
}

/// Whether a call changes something.
pub(crate) fn changes(op: Operation) -> bool {
    match op {
        Operation::Public | Operation::Read | Operation::Auth => false,
        Operation::Trade
        | Operation::Cancel
        | Operation::Transfer
        | Operation::Withdraw
        | Operation::AddressBook
        | Operation::KeyManagement
        | Operation::Subaccount => true,
    }
}

/// Whether a person's session makes the call, and no API key.
fn is_login(call: &ApiCall) -> bool {
    let is_cookie = |key: &Key| key.source.starts_with("cookie:");
    call.token.is_some() || call.key.as_ref().is_some_and(is_cookie)
}

/// The operation in words, after "made" or "was refused".
fn op_words(op: Operation) -> &'static str {
    match op {
        Operation::Public => "a public call",
        Operation::Read => "a read",
        Operation::Trade => "an order",
        Operation::Cancel => "a cancellation",
        Operation::Transfer => "a transfer",
        Operation::Withdraw => "a withdrawal",
        Operation::AddressBook => "a change of withdrawal addresses",
        Operation::KeyManagement => "a change of API keys",
        Operation::Subaccount => "a change of sub-accounts",
        Operation::Auth => "a login",
    }
}

/// Whether the credential itself was refused; anybody can bring that about for any key.
pub(crate) fn refuses_credential(outcome: Option<Outcome>) -> bool {
    outcome.is_some_and(Outcome::refuses_credential)
}

/// A span in words: `20 s`, `14 min`, `3 h`, `14 days`; never 0.
fn span(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => "1 s".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}
