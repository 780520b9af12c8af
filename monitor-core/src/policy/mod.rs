//! What the exchange says that keys and hosts may do: rules for keys, classes of keys and hosts.
//!
//! What a key's own entry says comes before what its class says, and that before the default. What
//! nobody says is not judged.

mod terms;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use compact_str::CompactString;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

pub use terms::{Age, Hours, Moment, Route};

use crate::call::{KeyId, Operation};
use crate::identity::{FORMER_SECRETS_MAX, Network};
use crate::time::EventTime;

/// Rules of one host: more than an API has, and few enough to be gone through for each call.
pub const ROUTES_MAX: usize = 4096;

/// What keys may do. `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Kinds of calls.
    pub operations: Option<Vec<Operation>>,
    /// Where calls may come from.
    pub networks: Option<Vec<Network>>,
    /// Instruments, as calls name them.
    pub symbols: Option<Vec<CompactString>>,
    /// Accounts that may be named.
    pub accounts: Option<Vec<CompactString>>,
    /// When, UTC.
    pub hours: Option<Hours>,
    /// Calls in a minute of the clock.
    pub calls_per_minute_max: Option<u32>,
    /// How old a key may become.
    pub rotation_age_max: Option<Age>,
    /// Whether withdrawals and the like need a second factor shortly before.
    pub step_up: Option<bool>,
    /// From when on no call may be taken any more.
    pub revoked: Option<Moment>,
}

/// A key, as the policy file names it: [`Rules`] of its own, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedKey {
    /// Class whose rules count where the key has none.
    pub class: Option<CompactString>,
    /// Whose it is; shown to people.
    pub owner: Option<CompactString>,
    /// When it was made.
    pub created: Option<Moment>,
    operations: Option<Vec<Operation>>,
    networks: Option<Vec<Network>>,
    symbols: Option<Vec<CompactString>>,
    accounts: Option<Vec<CompactString>>,
    hours: Option<Hours>,
    calls_per_minute_max: Option<u32>,
    rotation_age_max: Option<Age>,
    step_up: Option<bool>,
    revoked: Option<Moment>,
}

/// What a host's API is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostRules {
    /// `aud` of tokens that it may take; any one of them does. Empty: not said.
    pub audience: Vec<CompactString>,
    /// `iss` of tokens that it may take, `https://` left out or not. Empty: not said.
    pub issuer: Vec<CompactString>,
    /// Every endpoint that it has. Empty: not said.
    pub endpoints: Vec<Route>,
    /// Endpoints that are no longer to answer.
    pub retired: Vec<Route>,
}

/// The policy file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    /// For every key, where neither it nor its class says anything.
    pub default: Rules,
    /// By name.
    pub classes: BTreeMap<CompactString, Rules>,
    /// By id.
    pub keys: BTreeMap<KeyId, NamedKey>,
    /// By name of the host, without a port.
    pub hosts: BTreeMap<CompactString, HostRules>,
}

/// A key, as the exchange's registry knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// Which.
    pub key: KeyId,
    /// Whose it is.
    pub owner: Option<CompactString>,
    /// Its class; one that the policy file does not have has no rules.
    pub class: Option<CompactString>,
    /// When it was made.
    pub created: Option<Moment>,
    /// From when on no call may be taken any more.
    pub revoked: Option<Moment>,
    /// What it may do.
    pub permissions: Option<Vec<Operation>>,
}

/// Something in the policy file that cannot be: under which key, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `keys.k_….class`.
    pub key: String,
    /// What is wrong, and the mend.
    pub reason: String,
}

/// A policy, ready for use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    default: Rules,
    classes: Vec<(CompactString, Rules)>,
    keys: HashMap<KeyId, Entry, FixedState>,
    hosts: Vec<(CompactString, HostRules)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    class: Option<u32>,
    owner: Option<CompactString>,
    created: Option<Moment>,
    rules: Rules,
}

/// What is said of one key.
#[derive(Clone, Copy, Debug)]
pub struct Granted<'a> {
    /// Under its id and its former ones, in that order.
    entries: [Option<&'a Entry>; 1 + FORMER_SECRETS_MAX],
    class: Option<&'a (CompactString, Rules)>,
    default: &'a Rules,
}

impl Policy {
    /// From the policy file.
    ///
    /// # Errors
    ///
    /// A fault for each class that a key names and that is not there, and for each host with more
    /// than [`ROUTES_MAX`] routes.
    pub fn new(file: PolicyFile) -> Result<Policy, Vec<Fault>> {
        let mut faults = Vec::new();
        let classes: Vec<(CompactString, Rules)> = file.classes.into_iter().collect();
        let mut keys: HashMap<KeyId, Entry, FixedState> = HashMap::default();
        for (id, key) in file.keys {
            let class = key.class.as_ref().and_then(|name| {
                let place = classes.iter().position(|(known, _)| known == name);
                if place.is_none() {
                    let names: Vec<&str> = classes.iter().map(|(name, _)| name.as_str()).collect();
                    let mend = match names.as_slice() {
                        [] => "there are no classes: add [classes.NAME]".to_owned(),
                        names => format!("the classes are {}", names.join(", ")),
                    };
                    let reason = format!("no class `{name}`; {mend}");
                    faults.push(Fault { key: format!("keys.{id}.class"), reason });
                }
                place.and_then(|place| u32::try_from(place).ok())
            });
            let (owner, created) = (key.owner.clone(), key.created);
            keys.insert(id, Entry { class, owner, created, rules: key.rules() });
        }
        for (name, host) in &file.hosts {
            if host.endpoints.len() > ROUTES_MAX || host.retired.len() > ROUTES_MAX {
                let reason = format!("more than {ROUTES_MAX} routes: write `/v1/**` for all below");
                faults.push(Fault { key: format!("hosts.{name}"), reason });
            }
        }
        let hosts = file.hosts.into_iter().map(|(name, mut rules)| {
            for issuer in &mut rules.issuer {
                if let Some(rest) = issuer.strip_prefix("https://") {
                    *issuer = rest.into();
                }
            }
            (name.to_lowercase(), rules)
        });
        let hosts = hosts.collect();
        if faults.is_empty() {
            Ok(Policy { default: file.default, classes, keys, hosts })
        } else {
            Err(faults)
        }
    }

    /// Adds what the exchange's registry says. What the policy file says of a key stays.
    pub fn register(&mut self, registered: Vec<Registered>) {
        let mut places: HashMap<CompactString, u32> = HashMap::new();
        for (place, (name, _)) in self.classes.iter().enumerate() {
            places.insert(name.clone(), u32::try_from(place).unwrap_or(u32::MAX));
        }
        for key in registered {
            let class = key.class.map(|name| {
                *places.entry(name).or_insert_with_key(|name| {
                    self.classes.push((name.clone(), Rules::default()));
                    u32::try_from(self.classes.len() - 1).unwrap_or(u32::MAX)
                })
            });
            let entry = self.keys.entry(key.key).or_default();
            entry.class = entry.class.or(class);
            entry.owner = entry.owner.take().or(key.owner);
            entry.created = entry.created.or(key.created);
            entry.rules.revoked = entry.rules.revoked.or(key.revoked);
            entry.rules.operations = entry.rules.operations.take().or(key.permissions);
        }
    }

    /// Keys that are named.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.keys.keys().copied()
    }

    /// What is said of a key, be it under an id that it had under a former secret.
    pub fn of(&self, key: KeyId, former: &[KeyId]) -> Granted<'_> {
        let mut entries = [None; 1 + FORMER_SECRETS_MAX];
        for (entry, id) in entries.iter_mut().zip([key].iter().chain(former)) {
            *entry = self.keys.get(id);
        }
        let class = entries.iter().flatten().find_map(|entry| entry.class);
        let class = class.and_then(|place| self.classes.get(place as usize));
        Granted { entries, class, default: &self.default }
    }

    /// What is said of a host; a port makes no difference.
    pub fn host(&self, host: &str) -> Option<&HostRules> {
        if self.hosts.is_empty() {
            return None;
        }
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let name = match host.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) | None => host,
        };
        let mut hosts = self.hosts.iter();
        hosts.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, rules)| rules)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        let Policy { default, classes, keys, hosts } = self;
        classes.is_empty() && keys.is_empty() && hosts.is_empty() && default.is_silent()
    }
}

impl Rules {
    /// Whether they say nothing.
    fn is_silent(&self) -> bool {
        let Rules {
            operations,
            networks,
            symbols,
            accounts,
            hours,
            calls_per_minute_max,
            rotation_age_max,
            step_up,
            revoked,
        } = self;
        operations.is_none()
            && networks.is_none()
            && symbols.is_none()
            && accounts.is_none()
            && hours.is_none()
            && calls_per_minute_max.is_none()
            && rotation_age_max.is_none()
            && step_up.is_none()
            && revoked.is_none()
    }
}

impl NamedKey {
    fn rules(self) -> Rules {
        Rules {
            operations: self.operations,
            networks: self.networks,
            symbols: self.symbols,
            accounts: self.accounts,
            hours: self.hours,
            calls_per_minute_max: self.calls_per_minute_max,
            rotation_age_max: self.rotation_age_max,
            step_up: self.step_up,
            revoked: self.revoked,
        }
    }
}

impl<'a> Granted<'a> {
    /// Whose it is.
    pub fn owner(&self) -> Option<&'a str> {
        self.entries().find_map(|entry| entry.owner.as_deref())
    }

    /// Its class.
    pub fn class(&self) -> Option<&'a str> {
        self.class.map(|(name, _)| name.as_str())
    }

    /// When it was made.
    pub fn created(&self) -> Option<Moment> {
        self.entries().find_map(|entry| entry.created)
    }

    /// From when on no call may be taken.
    pub fn revoked(&self) -> Option<Moment> {
        self.first(|rules| rules.revoked.as_ref()).copied()
    }

    /// How long ago it should have been replaced; `None` when it need not be yet.
    pub fn overdue(&self, now: EventTime) -> Option<std::time::Duration> {
        let most = self.first(|rules| rules.rotation_age_max.as_ref())?;
        now.since(self.created()?.time()).checked_sub(most.duration()).filter(|by| !by.is_zero())
    }

    /// Operations it may do; `None`: not said.
    pub fn operations(&self) -> Option<&'a [Operation]> {
        self.first(|rules| rules.operations.as_ref()).map(Vec::as_slice)
    }

    /// Whether it may do this.
    pub fn allows(&self, op: Operation) -> bool {
        self.operations().is_none_or(|ops| ops.contains(&op))
    }

    /// Whether it may be used from there.
    pub fn allows_from(&self, address: IpAddr) -> bool {
        let networks = self.first(|rules| rules.networks.as_ref());
        networks.is_none_or(|them| them.iter().any(|network| network.contains(address)))
    }

    /// Whether it may trade this.
    pub fn allows_symbol(&self, symbol: &str) -> bool {
        let symbols = self.first(|rules| rules.symbols.as_ref());
        symbols.is_none_or(|them| them.iter().any(|it| it.eq_ignore_ascii_case(symbol)))
    }

    /// Whether it may name this account; `None`: not said.
    pub fn allows_account(&self, account: &str) -> Option<bool> {
        let accounts = self.first(|rules| rules.accounts.as_ref())?;
        Some(accounts.iter().any(|it| it == account))
    }

    /// The hours in which it may be used, when this is not one of them.
    pub fn outside_hours(&self, now: EventTime) -> Option<Hours> {
        self.first(|rules| rules.hours.as_ref()).filter(|hours| !hours.contains(now)).copied()
    }

    /// Calls in a minute of the clock.
    pub fn calls_per_minute_max(&self) -> Option<u32> {
        self.first(|rules| rules.calls_per_minute_max.as_ref()).copied()
    }

    /// Whether withdrawals and the like need a second factor shortly before.
    pub fn needs_step_up(&self) -> bool {
        self.first(|rules| rules.step_up.as_ref()).is_some_and(|it| *it)
    }

    fn entries(&self) -> impl Iterator<Item = &'a Entry> {
        self.entries.into_iter().flatten()
    }

    fn first<T>(&self, of: impl Fn(&'a Rules) -> Option<&'a T>) -> Option<&'a T> {
        let own = self.entries().find_map(|entry| of(&entry.rules));
        own.or_else(|| self.class.and_then(|(_, rules)| of(rules))).or_else(|| of(self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [default]
        operations = ["public", "read"]
        [classes.maker]
        operations = ["read", "trade", "cancel"]
        networks = ["203.0.113.0/24"]
        rotation_age_max = "90d"
        [keys.k_00000000000000000000000000000001]
        class = "maker"
        created = 2026-01-01
        symbols = ["BTCUSDT"]
        hours = "22:00-06:00"
        [hosts."API.example.com"]
        issuer = ["https://login.example.com"]
        endpoints = ["POST /orders", "/orders/*", "/docs/**"]
    "#;

    fn policy() -> Policy {
        Policy::new(toml::from_str(FILE).unwrap()).unwrap()
    }

    fn at(text: &str) -> EventTime {
        Moment::try_from(text.to_owned()).unwrap().time()
    }

    #[test]
    fn own_rules_come_before_those_of_the_class_and_those_before_the_default() {
        let policy = policy();
        let (known, other) = (policy.of(KeyId(1), &[]), policy.of(KeyId(2), &[]));
        assert!(known.allows(Operation::Trade) && !known.allows(Operation::Withdraw));
        assert!(!other.allows(Operation::Trade) && other.allows(Operation::Read));
        assert!(known.allows_symbol("btcusdt") && !known.allows_symbol("ETHUSDT"));
        assert!(other.allows_symbol("ETHUSDT"));
        assert!(known.allows_from("203.0.113.7".parse().unwrap()));
        assert!(!known.allows_from("192.0.2.1".parse().unwrap()));
        assert_eq!(known.outside_hours(at("2026-11-23T23:00:00Z")), None);
        assert_eq!(known.outside_hours(at("2026-11-23T05:59:59Z")), None);
        assert!(known.outside_hours(at("2026-11-23T06:00:00Z")).is_some());
        assert_eq!(known.overdue(at("2026-03-31")), None);
        assert_eq!(known.overdue(at("2026-04-01")), None, "on the day itself");
        assert_eq!(known.overdue(at("2026-04-03")).unwrap().as_secs(), 2 * 86_400);
    }

    #[test]
    fn hosts_are_found_with_their_ports_and_in_any_case() {
        let policy = policy();
        let host = policy.host("api.EXAMPLE.com:8443").unwrap();
        assert_eq!(host.issuer, ["login.example.com"]);
        assert!(policy.host("example.com").is_none());
        let has = |method: &str, path: &str| host.endpoints.iter().any(|it| it.is(method, path));
        assert!(has("POST", "/orders") && !has("GET", "/orders"));
        assert!(has("DELETE", "/orders/7") && !has("DELETE", "/orders/7/8"));
        assert!(has("GET", "/docs/a/b") && has("GET", "/docs") && !has("GET", "/doc"));
    }

    #[test]
    fn the_registry_adds_and_does_not_override() {
        let mut policy = policy();
        let registered = |key| Registered {
            key: KeyId(key),
            owner: Some("desk".into()),
            class: Some("taker".into()),
            created: None,
            revoked: Some(Moment::try_from("2026-11-01".to_owned()).unwrap()),
            permissions: Some(vec![Operation::Withdraw]),
        };
        policy.register(vec![registered(1), registered(2)]);
        let (known, other) = (policy.of(KeyId(1), &[]), policy.of(KeyId(2), &[]));
        assert_eq!((known.class(), other.class()), (Some("maker"), Some("taker")));
        assert!(known.allows(Operation::Withdraw), "its own entry named no operations");
        assert!(other.allows(Operation::Withdraw) && !other.allows(Operation::Read));
        assert!(known.revoked().is_some() && known.owner() == Some("desk"));
        assert_eq!(policy.keys().count(), 2);
    }

    #[test]
    fn what_is_said_of_a_former_id_counts_where_nothing_is_said_of_the_present_one() {
        let mut policy = policy();
        policy.register(vec![Registered {
            key: KeyId(9),
            owner: Some("desk".into()),
            class: Some("taker".into()),
            created: None,
            revoked: None,
            permissions: Some(vec![Operation::Withdraw]),
        }]);
        let former = [KeyId(7), KeyId(1)];
        let (alone, known) = (policy.of(KeyId(8), &former), policy.of(KeyId(9), &former));
        assert!(alone.allows_symbol("BTCUSDT") && !alone.allows_symbol("ETHUSDT"));
        assert_eq!((alone.class(), alone.created().is_some()), (Some("maker"), true));
        assert!(known.allows(Operation::Withdraw) && !known.allows_symbol("ETHUSDT"));
        assert_eq!((known.class(), known.owner()), (Some("taker"), Some("desk")));
        assert!(policy.of(KeyId(8), &[KeyId(7)]).allows_symbol("ETHUSDT"));
    }

    #[test]
    fn an_unknown_class_is_named() {
        let text = FILE.replace("class = \"maker\"", "class = \"makers\"");
        let faults = Policy::new(toml::from_str(&text).unwrap()).unwrap_err();
        assert_eq!(faults[0].key, "keys.k_00000000000000000000000000000001.class");
        assert_eq!(faults[0].reason, "no class `makers`; the classes are maker");
    }
}
