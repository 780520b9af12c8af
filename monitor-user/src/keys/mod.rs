//! `keywatch keys`: the ids of raw keys, for policies and for whoever looks for a key in records; and
//! what keys did, beside what they may do.

mod usage;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result};
use monitor_core::call::KeyId;
use monitor_core::identity::Identifier;
use monitor_core::policy::Policy;
use zeroize::Zeroizing;

use crate::cli::{KeysCommand, UsageArgs};
use crate::commands::print;
use crate::config::Config;
use crate::fault::Misuse;
use crate::{policy, secret};
use usage::Usage;

/// Bytes of a key: four times the longest token in use.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Does what was asked.
pub(crate) fn keys(what: &KeysCommand, config: &Config) -> Result<()> {
    match what {
        KeysCommand::Hash { secret_file } => {
            // One that is made now would give ids that nothing else has.
            let secret = secret::read(&secret::path(secret_file.as_deref(), config))?;
            let key = read()?;
            let id = Identifier::new(secret).key_id(&key);
            let id = id.context("the key cannot be hashed")?;
            print(format!("{id}\n").as_bytes())
        }
        KeysCommand::List(args) => {
            let (policy, keys) = known(args, config)?;
            let mut keys: Vec<_> = keys.iter().collect();
            keys.sort_by_key(|(key, usage)| (std::cmp::Reverse(usage.last()), **key));
            let head = format!(
                "{:<34}  {:<16}  {:>9}  {:<16}  did\n",
                "key", "last seen", "calls", "class"
            );
            let mut text = if args.json { String::new() } else { head };
            for (key, usage) in keys {
                let granted = policy.of(*key, usage.former());
                text.push_str(&match args.json {
                    true => format!("{}\n", usage.json(*key, &granted)),
                    false => usage.line(*key, &granted),
                });
            }
            print(text.as_bytes())
        }
        KeysCommand::Show { key, usage: args } => {
            let (policy, keys) = known(args, config)?;
            let (key, usage) = one(&keys, key)?;
            let granted = policy.of(key, usage.former());
            print(
                match args.json {
                    true => format!("{}\n", usage.json(key, &granted)),
                    false => usage.text(key, &granted),
                }
                .as_bytes(),
            )
        }
        KeysCommand::Unused(args) => {
            let (policy, keys) = known(args, config)?;
            let mut text = String::new();
            for (key, usage) in &keys {
                let granted = policy.of(*key, usage.former());
                let Some(unused) = usage.unused(&granted).filter(|unused| !unused.is_empty())
                else {
                    continue;
                };
                text.push_str(&match args.json {
                    true => format!("{}\n", usage.json(*key, &granted)),
                    false => format!("{key}  {}\n", usage::list(&unused)),
                });
            }
            print(text.as_bytes())
        }
    }
}

/// What is said of keys, and what they did.
fn known(args: &UsageArgs, config: &Config) -> Result<(Arc<Policy>, BTreeMap<KeyId, Usage>)> {
    let mut set = config.policy.clone();
    set.file = args.policy.clone().or(set.file);
    set.registry = args.registry.clone().unwrap_or(set.registry);
    let policy = policy::Source::open(&set)?.map(|source| source.policy()).unwrap_or_default();
    let keys = usage::gather(args, &policy)?;
    Ok((policy, keys))
}

/// The key whose id begins so.
fn one<'a>(keys: &'a BTreeMap<KeyId, Usage>, begins: &str) -> Result<(KeyId, &'a Usage)> {
    let mut found = keys.iter().filter(|(key, _)| key.to_string().starts_with(begins));
    match (found.next(), found.next()) {
        (Some((key, usage)), None) => Ok((*key, usage)),
        (Some(_), Some(_)) => {
            let what = format!("more than one key begins so: {begins}: write more of it");
            Err(Misuse(what).into())
        }
        (None, _) => {
            let what = format!(
                "no such key in the calls or the policy: {begins}: `keywatch keys list` \
                                names all"
            );
            Err(Misuse(what).into())
        }
    }
}

/// The first line of stdin. It shows in no error.
fn read() -> Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(KEY_BYTES_MAX)? + 1));
    let stdin = std::io::stdin().lock();
    stdin
        .take(KEY_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .context("cannot read the key from stdin")?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() {
        return Err(Misuse("no key on stdin: write it on the first line".into()).into());
    }
    if line.len() as u64 > KEY_BYTES_MAX {
        return Err(
            Misuse("the key on stdin is longer than 16 KiB: write the key alone".into()).into()
        );
    }
    Ok(Zeroizing::new(line.to_vec()))
}
