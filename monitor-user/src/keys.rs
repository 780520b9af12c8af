//! `keywatch keys`: the ids of raw keys, for policies and for whoever looks for a key in records.

use std::io::Read;

use anyhow::{Context, Result};
use monitor_core::identity::Identifier;
use zeroize::Zeroizing;

use crate::cli::KeysCommand;
use crate::commands::print;
use crate::config::Config;
use crate::fault::Misuse;
use crate::secret;

/// Bytes of a key: four times the longest token in use.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Does what was asked.
pub(crate) fn keys(what: &KeysCommand, config: &Config) -> Result<()> {
    match what {
        KeysCommand::Hash { secret_file } => {
            let file = secret_file.clone().or_else(|| config.identity.secret_file.clone());
            // One that is made now would give ids that nothing else has.
            let secret = secret::read(&file.unwrap_or_else(secret::default_path))?;
            let key = read()?;
            let id = Identifier::new(secret).key_id(&key);
            let id = id.context("the key cannot be hashed")?;
            print(format!("{id}\n").as_bytes())
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
