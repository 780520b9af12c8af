//! Captures of another project (Zeek's) with what that project read out of them, where they are
//! present: `KEYWATCH_CORPORA` or `../shared/corpora`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use monitor_core::call::ApiCall;
use serde::Deserialize;
use xtask::build::workspace_root;

use crate::replay::replay;
use crate::trial;

/// Traces that agreed when this was written; docs/conformance.md says of the others.
const AGREE_MIN: usize = 11;

/// Blocks of llhttp's tests that agreed when this was written; docs/conformance.md says of the others.
const LLHTTP_PERCENT_MIN: usize = 95;

/// The row of one call: method, target, status; `-` where not seen.
type Row = (String, String, String);

#[derive(Deserialize)]
struct ZeekRow {
    method: String,
    uri: String,
    status_code: String,
}

/// One test, when the captures are there.
pub(crate) fn trials() -> Vec<Trial> {
    let Some(root) = root() else {
        println!("left out: corpus::zeek: no captures (mend: KEYWATCH_CORPORA=DIR)");
        return Vec::new();
    };
    let llhttp_root = root.clone();
    vec![
        trial("corpus::zeek", move || zeek(&root)),
        trial("corpus::llhttp", move || llhttp(&llhttp_root)),
    ]
}

fn root() -> Option<PathBuf> {
    let named = std::env::var_os("KEYWATCH_CORPORA").map(PathBuf::from);
    let root = named.or_else(|| Some(workspace_root().parent()?.join("shared/corpora")))?;
    root.join("zeek").is_dir().then_some(root)
}

fn llhttp(root: &Path) -> Result<()> {
    let score = xtask::conformance::llhttp::score(&root.join("llhttp"))?;
    score.disagreed.iter().for_each(|what| println!("corpus::llhttp: {what}"));
    println!("corpus::llhttp: {} of {} blocks agree", score.agreed, score.cases);
    ensure!(score.agreed * 100 >= score.cases * LLHTTP_PERCENT_MIN, "fewer than before");
    Ok(())
}

fn zeek(root: &Path) -> Result<()> {
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(root.join("zeek"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    dirs.sort();
    let mut agree = 0;
    for dir in &dirs {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (seen, expected) = (seen(dir)?, expected(dir)?);
        if seen == expected {
            agree += 1;
        } else {
            println!("corpus::zeek: {name}: seen {}, Zeek {}", show(&seen), show(&expected));
        }
    }
    println!("corpus::zeek: {agree} of {} traces agree", dirs.len());
    ensure!(agree >= AGREE_MIN, "{agree} of {} agree, less than {AGREE_MIN}", dirs.len());
    Ok(())
}

fn expected(dir: &Path) -> Result<Vec<Row>> {
    let rows: Vec<ZeekRow> = serde_json::from_slice(&fs::read(dir.join("expected.json"))?)?;
    // An empty string is written out there.
    let uri = |uri: String| if uri == "(empty)" { String::new() } else { uri };
    let mut rows: Vec<Row> =
        rows.into_iter().map(|row| (row.method, uri(row.uri), row.status_code)).collect();
    rows.sort_unstable();
    Ok(rows)
}

fn seen(dir: &Path) -> Result<Vec<Row>> {
    let replayed = replay(&[&dir.join("input.pcap")], &[])?;
    let mut rows = Vec::new();
    for line in replayed.calls.lines() {
        let call: ApiCall = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let (method, target) = call.request.map_or_else(
            || ("-".into(), "-".into()),
            |request| (request.method.to_string(), request.target.to_string()),
        );
        let status = call.response.and_then(|reply| reply.status);
        let status = status.map_or_else(|| "-".into(), |status| status.to_string());
        rows.push((method, target, status));
    }
    rows.sort_unstable();
    Ok(rows)
}

/// Few enough to read.
fn show(rows: &[Row]) -> String {
    let first: Vec<String> = rows
        .iter()
        .take(2)
        .map(|(method, target, status)| format!("{method} {target:.60} {status}"))
        .collect();
    format!("{} [{}]", rows.len(), first.join(", "))
}
