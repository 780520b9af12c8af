//! Calls that were written earlier, for the Engine to learn from.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use monitor_core::call::ApiCall;
use monitor_core::engine::Engine;

/// Feeds a file of JSON lines to the Engine. Returns how many calls it held.
pub(crate) fn learn(engine: &mut Engine, path: &Path) -> Result<u64> {
    each(path, |call| engine.learn(call))
}

/// Reads a file of JSON lines, call by call. Returns how many calls it held.
pub(crate) fn each(path: &Path, mut take: impl FnMut(&ApiCall)) -> Result<u64> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read the history: {shown}"))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    let mut calls = 0;
    for number in 1_u64.. {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_BYTES_MAX);
        let got = bounded
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read the history: {shown}"))?;
        if got == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Ok(call) = serde_json::from_slice::<ApiCall>(&line) else {
            // The reason would quote the line.
            bail!("the history is broken: {shown}:{number}: not a call as --calls writes them");
        };
        take(&call);
        calls += 1;
    }
    Ok(calls)
}

/// Longer than any call with the default limits (a head of 32 KiB, escaped).
const LINE_BYTES_MAX: u64 = 1 << 20;
