//! Header blocks by several encoders: each must give its header list, in order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use monitor_core::decode::http2::hpack::{Bounds, Decoder};
use serde::Deserialize;

use super::Score;

/// Larger than anything that the stories hold.
const BOUNDS: Bounds = Bounds { table_bytes_max: 1 << 20, string_bytes_max: 1 << 20 };

/// A connection: what an encoder wrote, block after block.
#[derive(Deserialize)]
struct Story {
    cases: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    seqno: u64,
    wire: String,
    /// What the receiver had allowed just before.
    header_table_size: Option<u32>,
    headers: Vec<BTreeMap<String, String>>,
}

/// Every block of every story in the folders below `dir`, one folder an encoder.
pub fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    for file in files(dir)? {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let story: Story =
            serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(dir).unwrap_or(&file).with_extension("");
        let mut decoder = Decoder::new(BOUNDS);
        for block in &story.cases {
            match compare(&mut decoder, block) {
                Ok(()) => score.agree(),
                Err(how) => {
                    score
                        .disagree(&format!("{}#{}", name.display(), block.seqno), &how.to_string());
                }
            }
        }
    }
    Ok(score)
}

fn compare(decoder: &mut Decoder, block: &Block) -> Result<()> {
    if let Some(bytes) = block.header_table_size {
        decoder.allow(bytes);
    }
    let mut seen = Vec::new();
    let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or(b"?")).into_owned();
    decoder
        .decode(&bytes(&block.wire)?, |field| seen.push((text(field.name), text(field.value))))?;
    let expected: Vec<(String, String)> = block.headers.iter().flatten().map(owned).collect();
    ensure!(seen == expected, "seen {seen:?}, expected {expected:?}");
    Ok(())
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

/// The JSON files below a folder, in order.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes from their hexadecimal digits.
pub(super) fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.trim().as_bytes();
    ensure!(digits.len().is_multiple_of(2), "an odd count of hexadecimal digits");
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(byte).collect()
}
