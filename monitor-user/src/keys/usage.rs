//! What keys did, by calls that were written, beside what they may do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use compact_str::CompactString;
use monitor_core::alert::{network_name, network_of};
use monitor_core::call::{ApiCall, Key, KeyId, Operation, Outcome};
use monitor_core::policy::{Granted, Policy};
use monitor_core::time::EventTime;
use serde_json::{Value, json};

use crate::cli::UsageArgs;
use crate::history;

/// Networks of one key that are named; more are counted no further.
const NETWORKS_MAX: usize = 16;

/// Keys that are told apart: as many as the Engine knows.
const KEYS_MAX: usize = 1_000_000;

/// What one key did.
#[derive(Default)]
pub(super) struct Usage {
    first: EventTime,
    last: EventTime,
    calls: u64,
    ok: u64,
    profile: CompactString,
    /// Ids that it had under former secrets.
    former: Vec<KeyId>,
    /// Calls of each operation that went well.
    ops: BTreeMap<Operation, u64>,
    /// /24 or /48 of the clients.
    networks: BTreeSet<String>,
}

/// Reads what keys did. The keys that the policy names are there too, if only with nothing done.
pub(super) fn gather(args: &UsageArgs, policy: &Policy) -> Result<BTreeMap<KeyId, Usage>> {
    let mut keys: BTreeMap<KeyId, Usage> = BTreeMap::new();
    for path in &args.calls {
        history::each(path, |call| {
            let Some(key) = &call.key else { return };
            if keys.len() < KEYS_MAX || keys.contains_key(&key.id) {
                keys.entry(key.id).or_default().add(call, key);
            }
        })?;
    }
    let mut named: BTreeSet<KeyId> = policy.keys().collect();
    join(&mut keys, &mut named);
    for key in named {
        keys.entry(key).or_default();
    }
    Ok(keys)
}

/// What a key did under former ids belongs to its present one, and so does what is said of it.
fn join(keys: &mut BTreeMap<KeyId, Usage>, named: &mut BTreeSet<KeyId>) {
    let present: Vec<KeyId> = keys.keys().copied().collect();
    for id in present {
        // It may belong to another by now.
        let Some(mut usage) = keys.remove(&id) else { continue };
        let mut at = 0;
        // What is joined brings former ids of its own.
        while let Some(former) = usage.former.get(at).copied() {
            at += 1;
            named.remove(&former);
            if let Some(before) = keys.remove(&former) {
                usage.join(before);
            }
        }
        keys.insert(id, usage);
    }
}

impl Usage {
    fn add(&mut self, call: &ApiCall, key: &Key) {
        if self.calls == 0 {
            self.first = call.time;
            self.profile = key.profile.clone();
        }
        if key.former().len() > self.former.len() {
            self.former = key.former().to_vec();
        }
        self.first = self.first.min(call.time);
        self.last = self.last.max(call.time);
        self.calls += 1;
        if call.outcome == Some(Outcome::Ok) {
            self.ok += 1;
            *self.ops.entry(call.op).or_default() += 1;
        }
        if self.networks.len() < NETWORKS_MAX {
            self.networks.insert(network_name(network_of(call.client())));
        }
    }

    fn join(&mut self, before: Usage) {
        self.first = self.first.min(before.first);
        self.last = self.last.max(before.last);
        self.calls += before.calls;
        self.ok += before.ok;
        for (op, calls) in before.ops {
            *self.ops.entry(op).or_default() += calls;
        }
        for id in before.former {
            if !self.former.contains(&id) {
                self.former.push(id);
            }
        }
        let room = NETWORKS_MAX.saturating_sub(self.networks.len());
        self.networks.extend(before.networks.into_iter().take(room));
    }

    /// Ids that it had under former secrets.
    pub(super) fn former(&self) -> &[KeyId] {
        &self.former
    }

    /// When the key was last seen; the beginning of time when never.
    pub(super) fn last(&self) -> EventTime {
        self.last
    }

    /// What the key may do and never did; `None` when nothing says what it may do.
    pub(super) fn unused(&self, granted: &Granted<'_>) -> Option<Vec<Operation>> {
        let may = granted.operations()?;
        let mut unused: Vec<Operation> =
            may.iter().filter(|op| !self.ops.contains_key(op)).copied().collect();
        unused.sort();
        unused.dedup();
        Some(unused)
    }

    pub(super) fn json(&self, key: KeyId, granted: &Granted<'_>) -> Value {
        let seen = |time: EventTime| (self.calls > 0).then(|| time.to_string());
        let ops: serde_json::Map<String, Value> =
            self.ops.iter().map(|(op, calls)| (op.to_string(), json!(calls))).collect();
        json!({
            "key": key.to_string(),
            "former": self.former,
            "owner": granted.owner(),
            "class": granted.class(),
            "profile": (!self.profile.is_empty()).then(|| self.profile.as_str()),
            "created": granted.created().map(|at| at.to_string()),
            "revoked": granted.revoked().map(|at| at.to_string()),
            "first_seen": seen(self.first),
            "last_seen": seen(self.last),
            "calls": self.calls,
            "ok": self.ok,
            "operations": ops,
            "networks": self.networks,
            "may": granted.operations(),
            "unused": self.unused(granted),
        })
    }

    /// A line of the list.
    pub(super) fn line(&self, key: KeyId, granted: &Granted<'_>) -> String {
        let last = if self.calls == 0 { "never".into() } else { short(self.last) };
        let ops: Vec<&str> = self.ops.keys().map(|op| op.as_str()).collect();
        let class = granted.class().unwrap_or("-");
        let dead = if granted.revoked().is_some() { "  revoked" } else { "" };
        format!(
            "{key}  {last:<16}  {:>9}  {class:<16}  {}{dead}\n",
            self.calls,
            if ops.is_empty() { "-".to_owned() } else { ops.join(",") }
        )
    }

    /// All that is known.
    pub(super) fn text(&self, key: KeyId, granted: &Granted<'_>) -> String {
        let mut text = format!("{key}\n");
        let mut say = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "  {name:<12} {value}");
            }
        };
        say("owner", granted.owner().map(str::to_owned));
        say("class", granted.class().map(str::to_owned));
        say("style", Some(self.profile.to_string()));
        say("created", granted.created().map(|at| at.to_string()));
        say("revoked", granted.revoked().map(|at| at.to_string()));
        if self.calls == 0 {
            say("seen", Some("never".into()));
        } else {
            say("first seen", Some(self.first.to_string()));
            say("last seen", Some(self.last.to_string()));
            say("calls", Some(format!("{}, {} went well", self.calls, self.ok)));
        }
        let did: Vec<String> = self.ops.iter().map(|(op, calls)| format!("{op} {calls}")).collect();
        say("did", Some(did.join(", ")));
        say("from", Some(self.networks.iter().cloned().collect::<Vec<_>>().join(", ")));
        say("may", granted.operations().map(list));
        say("never did", self.unused(granted).map(|unused| list(&unused)));
        text
    }
}

/// Names, with commas.
pub(super) fn list(ops: &[Operation]) -> String {
    let names: Vec<&str> = ops.iter().map(|op| op.as_str()).collect();
    names.join(", ")
}

/// To the minute.
fn short(time: EventTime) -> String {
    time.to_string().chars().take(16).collect::<String>().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_did_under_every_id_is_one_whatever_their_order() {
        for [first, second, third] in [[1, 2, 3], [3, 2, 1], [1, 3, 2], [2, 1, 3]] {
            // The first secret was over by the time of the third.
            let usage = |former: Option<u128>, at| Usage {
                first: EventTime(at),
                last: EventTime(at),
                calls: 1,
                former: former.map(KeyId).into_iter().collect(),
                ..Usage::default()
            };
            let mut keys = BTreeMap::from([
                (KeyId(first), usage(None, 10)),
                (KeyId(second), usage(Some(first), 20)),
                (KeyId(third), usage(Some(second), 30)),
            ]);
            let mut named = BTreeSet::from([KeyId(first), KeyId(9)]);
            join(&mut keys, &mut named);
            let ids: Vec<&KeyId> = keys.keys().collect();
            assert_eq!(ids, [&KeyId(third)], "{first} {second} {third}");
            let whole = &keys[&KeyId(third)];
            assert_eq!((whole.calls, whole.first, whole.last), (3, EventTime(10), EventTime(30)));
            assert_eq!(whole.former(), [KeyId(second), KeyId(first)], "the registry has it by one");
            assert_eq!(named, BTreeSet::from([KeyId(9)]));
        }
    }
}
