//! `keywatch policy`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use monitor_core::call::{ApiCall, KeyId, Outcome};
use monitor_core::policy::{Granted, Policy};

use super::Source;
use crate::cli::PolicyCommand;
use crate::commands::{self, print};
use crate::config::Config;
use crate::fault::AlreadyTold;
use crate::replay::reading::each_call;
use crate::secret;

/// Keys that a report names; the others are counted.
const KEYS_MAX: usize = 100_000;

/// Does what was asked.
pub(crate) fn policy(what: &PolicyCommand, config: &Config) -> Result<()> {
    let PolicyCommand::Check { file, against, registry, ports, secret_file } = what;
    let mut set = config.policy.clone();
    set.file = Some(file.clone());
    if let Some(place) = registry {
        set.registry = place.clone();
    }
    let Some(source) = Source::open(&set)? else { return Ok(()) };
    let policy = source.policy();
    if against.is_empty() {
        let keys = policy.keys().count();
        return print(format!("{}: ok: {keys} keys named\n", file.display()).as_bytes());
    }
    check(policy, against, ports, secret_file.as_deref(), config)
}

fn check(
    policy: Arc<Policy>,
    against: &[PathBuf],
    ports: &[u16],
    secret_file: Option<&Path>,
    config: &Config,
) -> Result<()> {
    // One that is made now would give ids that no policy has.
    let secret = secret::read(&secret::path(secret_file, config))?;
    let identifier = commands::identifier(secret, config)?;
    let ports = commands::ports(ports, config);
    let decoder = commands::decoder(identifier, &ports, config)?;
    let mut checker = Checker { policy, keys: BTreeMap::new(), calls: 0, without: 0 };
    let (_, all_read) = each_call(against, &ports, decoder, |call| checker.call(call))?;
    print(checker.report().as_bytes())?;
    if all_read { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// Holds calls against the policy.
struct Checker {
    policy: Arc<Policy>,
    keys: BTreeMap<KeyId, Tally>,
    calls: u64,
    /// Calls that went well and had no key.
    without: u64,
}

/// What is said of one key.
#[derive(Default)]
struct Tally {
    former: Box<[KeyId]>,
    calls: u64,
    minute: u64,
    in_minute: u32,
    breaches: BTreeMap<String, u64>,
}

impl Checker {
    fn call(&mut self, call: &ApiCall) {
        self.calls += 1;
        if call.outcome != Some(Outcome::Ok) {
            return;
        }
        let Some(key) = &call.key else {
            self.without += 1;
            return;
        };
        if self.keys.len() == KEYS_MAX && !self.keys.contains_key(&key.id) {
            return;
        }
        let granted = self.policy.of(key.id, key.former());
        let tally = self
            .keys
            .entry(key.id)
            .or_insert_with(|| Tally { former: key.former().into(), ..Tally::default() });
        tally.calls += 1;
        let minute = call.time.secs() / 60;
        if minute != tally.minute {
            (tally.minute, tally.in_minute) = (minute, 0);
        }
        tally.in_minute += 1;
        for breach in breaches(call, &granted, tally.in_minute) {
            *tally.breaches.entry(breach).or_default() += 1;
        }
    }

    fn report(&self) -> String {
        let mut text = String::new();
        let broken = self.keys.values().filter(|tally| !tally.breaches.is_empty()).count();
        let known: std::collections::HashSet<KeyId> = self.policy.keys().collect();
        let is_known = |key: &KeyId, tally: &Tally| {
            known.contains(key) || tally.former.iter().any(|id| known.contains(id))
        };
        let unnamed = self.keys.iter().filter(|(key, tally)| !is_known(key, tally)).count();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} calls, {} keys: {broken} break the policy, {unnamed} are not named in it; {} calls \
             went well without a key",
            self.calls,
            self.keys.len(),
            self.without
        );
        for (key, tally) in &self.keys {
            let granted = self.policy.of(*key, &tally.former);
            let is_known = is_known(key, tally);
            if tally.breaches.is_empty() && is_known {
                continue;
            }
            let class = granted.class().map(|name| format!(", class {name}")).unwrap_or_default();
            let named = if is_known { "" } else { ", not named" };
            let _ = writeln!(text, "{key}: {} calls went well{class}{named}", tally.calls);
            for (breach, times) in &tally.breaches {
                let _ = writeln!(text, "  {times} x {breach}");
            }
        }
        text
    }
}

fn breaches(call: &ApiCall, granted: &Granted<'_>, in_minute: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |broken: bool, what: &dyn Fn() -> String| {
        if broken {
            found.push(what());
        }
    };
    check(!granted.allows(call.op), &|| format!("operation {}", call.op));
    check(!granted.allows_from(call.client()), &|| format!("from {}", call.client()));
    if let Some(symbol) = &call.symbol {
        check(!granted.allows_symbol(symbol), &|| format!("symbol {symbol}"));
    }
    let account = call.detail.as_ref().and_then(|detail| detail.account.as_deref());
    let foreign = account.and_then(|account| granted.allows_account(account)) == Some(false);
    check(foreign, &|| "account of others".into());
    if let Some(hours) = granted.outside_hours(call.time) {
        check(true, &|| format!("outside {hours} UTC"));
    }
    if let Some(most) = granted.calls_per_minute_max() {
        check(in_minute > most, &|| format!("more than {most} calls a minute"));
    }
    if let Some(revoked) = granted.revoked() {
        check(call.time > revoked.time(), &|| format!("revoked since {revoked}"));
    }
    check(granted.overdue(call.time).is_some(), &|| "past its rotation age".into());
    found
}
