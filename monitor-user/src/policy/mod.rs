//! The policy from its file and the registry of keys, and how both are read again.

pub(crate) mod command;
mod endpoint;
mod registry;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use monitor_core::policy::{Policy, PolicyFile, Registered};

use crate::config;
use crate::config::read::{Faults, typed, wrong};
use crate::fault::{Misuse, tell};
use endpoint::Endpoint;

/// Bytes of a policy file: a hundred thousand keys with rules of their own.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Where a policy comes from, and the last good one.
pub(crate) struct Source {
    file: Option<PathBuf>,
    registry: Option<Registry>,
    poll: Duration,
    /// Of the file alone.
    base: Policy,
    /// Of the registry.
    registered: Vec<Registered>,
    policy: Arc<Policy>,
}

enum Registry {
    File(PathBuf),
    Endpoint(Endpoint),
}

impl Source {
    /// What the config names; `None` when it names neither file nor registry.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is wrong. A registry at an address that does not answer is told, and
    /// asked again later.
    pub(crate) fn open(set: &config::Policy) -> Result<Option<Source>> {
        if set.file.is_none() && set.registry.is_empty() {
            return Ok(None);
        }
        let base = match &set.file {
            Some(path) => load(path)?,
            None => Policy::default(),
        };
        let (registry, registered) = if endpoint::is_address(&set.registry) {
            let mut endpoint = Endpoint::new(&set.registry);
            let registered = endpoint.ask().unwrap_or_else(|error| {
                tell(&format!("{error:#}: it is asked again later"));
                None
            });
            (Some(Registry::Endpoint(endpoint)), registered.unwrap_or_default())
        } else if set.registry.is_empty() {
            (None, Vec::new())
        } else {
            let path = PathBuf::from(&set.registry);
            let registered = registry::load(&path)?;
            (Some(Registry::File(path)), registered)
        };
        let (file, poll) = (set.file.clone(), set.registry_poll);
        let mut source = Source { file, registry, poll, base, registered, policy: Arc::default() };
        source.join();
        Ok(Some(source))
    }

    /// The last good one.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// Reads the files again. What is wrong is told, and what was in use stays.
    pub(crate) fn read_again(&mut self) -> Option<Arc<Policy>> {
        let mut changed = false;
        if let Some(path) = &self.file {
            match load(path) {
                Ok(base) => {
                    tell(&format!("policy read again: {}", path.display()));
                    self.base = base;
                    changed = true;
                }
                Err(error) => tell(&format!("{error:#}: the policy in use stays")),
            }
        }
        if let Some(Registry::File(path)) = &self.registry {
            match registry::load(path) {
                Ok(registered) => {
                    tell(&format!("key registry read again: {}", path.display()));
                    self.registered = registered;
                    changed = true;
                }
                Err(error) => tell(&format!("{error:#}: the registry in use stays")),
            }
        }
        changed.then(|| self.join())
    }

    /// Starts asking the registry's address, if it has one, from time to time.
    pub(crate) fn watch(&mut self) {
        if let Some(Registry::Endpoint(endpoint)) = &mut self.registry {
            endpoint.watch(self.poll);
        }
    }

    /// The policy, when the registry has changed.
    pub(crate) fn changed(&mut self) -> Option<Arc<Policy>> {
        let Some(Registry::Endpoint(endpoint)) = &mut self.registry else { return None };
        self.registered = endpoint.news()?;
        tell(&format!("key registry read again: {} keys", self.registered.len()));
        Some(self.join())
    }

    fn join(&mut self) -> Arc<Policy> {
        let mut policy = self.base.clone();
        policy.register(self.registered.clone());
        self.policy = Arc::new(policy);
        Arc::clone(&self.policy)
    }
}

/// Reads and checks a policy file. Each fault is a line; the last one is the error's.
pub(crate) fn load(path: &Path) -> Result<Policy> {
    let name = path.display().to_string();
    let text = registry::read(path, FILE_BYTES_MAX, "the policy")?;
    parse(&text, &name).map_err(|Faults(faults)| {
        let (last, others) = match faults.split_last() {
            Some((last, others)) => (last.clone(), others),
            None => (String::new(), &[][..]),
        };
        others.iter().for_each(|fault| tell(fault));
        Misuse(last).into()
    })
}

fn parse(text: &str, name: &str) -> Result<Policy, Faults> {
    let (file, lines) = typed::<PolicyFile>(text, name)?;
    Policy::new(file).map_err(|faults| {
        let line = |fault: &monitor_core::policy::Fault| {
            wrong(&fault.key, name, lines.of(&fault.key), &fault.reason)
        };
        Faults(faults.iter().map(line).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k_00000000000000000000000000000001";

    #[test]
    fn each_fault_is_one_line_with_its_mend() {
        for (text, line) in [
            (
                "[classes.a]\noperatons = []".to_owned(),
                "unknown key classes.a.operatons: p.toml:2: did you mean `operations`?",
            ),
            (
                "[default]\nnetworks = [\"10.0.0.0/33\"]".to_owned(),
                "wrong value of default.networks: p.toml:2: `10.0.0.0/33` is no network: write \
                 10.0.0.0/8, 2001:db8::/32 or an address",
            ),
            (
                "[default]\noperations = [\"read\", \"buy\"]".to_owned(),
                "wrong value of default.operations: p.toml:2: unknown variant `buy`, expected one \
                 of `public`, `read`, `trade`, `cancel`, `transfer`, `withdraw`, `address_book`, \
                 `key_management`, `subaccount`, `auth`",
            ),
            (
                "[default]\n\nhours = \"9-17\"".to_owned(),
                "wrong value of default.hours: p.toml:3: `9-17` are no hours; write \
                 \"08:00-18:00\" (UTC)",
            ),
            (
                format!("[classes.maker]\n[keys.{KEY}]\nclass = \"makre\""),
                "wrong value of keys.k_00000000000000000000000000000001.class: p.toml:3: no class \
                 `makre`; the classes are maker",
            ),
            (
                format!("[keys.{KEY}]\nrevoked = \"soon\""),
                "wrong value of keys.k_00000000000000000000000000000001.revoked: p.toml:2: `soon` \
                 is no moment; write 2026-11-01 or 2026-11-01T12:00:00Z (UTC)",
            ),
        ] {
            assert_eq!(parse(&text, "p.toml").unwrap_err().to_string(), line, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_no_id_is_not_shown_whole() {
        let fault = parse("[keys.made-up-raw-key]\n", "p.toml").unwrap_err().to_string();
        assert!(fault.contains("p.toml:1: expected k_ and 32 hex digits"), "{fault}");
    }

    #[test]
    fn a_broken_file_leaves_the_policy_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let (file, keys) = (dir.path().join("policy.toml"), dir.path().join("keys.csv"));
        std::fs::write(&file, format!("[keys.{KEY}]\noperations = [\"read\"]\n")).unwrap();
        std::fs::write(&keys, format!("key,owner\n{KEY},desk\n")).unwrap();
        let set = config::Policy {
            file: Some(file.clone()),
            registry: keys.display().to_string(),
            ..config::Policy::default()
        };
        let mut source = Source::open(&set).unwrap().unwrap();
        let id = source.policy().keys().next().unwrap();
        let says = |policy: &Policy| {
            let granted = policy.of(id, &[]);
            (granted.operations().map(<[_]>::len), granted.owner().map(str::to_owned))
        };
        assert_eq!(says(&source.policy()), (Some(1), Some("desk".into())));
        std::fs::write(&file, "nonsense = [").unwrap();
        std::fs::write(&keys, format!("key,owner\n{KEY},other\n")).unwrap();
        let policy = source.read_again().unwrap();
        assert_eq!(says(&policy), (Some(1), Some("other".into())));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&keys, "no registry").unwrap();
        let policy = source.read_again().unwrap();
        assert_eq!(says(&policy), (None, Some("other".into())));
        std::fs::write(&file, "nonsense = [").unwrap();
        assert!(source.read_again().is_none());
    }
}
