//! Case folders: a capture, its config, and the lines that must come out, exactly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::{Map, Value};
use xtask::build::workspace_root;
use xtask::cases::capture::{Packet, pcap};
use xtask::cases::{self, Case};

use crate::replay::{Replayed, replay_however as replay};
use crate::trial;

/// Ways in which each capture is cut anew.
const RECHUNKINGS: u64 = 3;

/// `case.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What the case is there for.
    #[serde(rename = "about")]
    _about: String,
    /// The capture: its name says what kind of file it is.
    #[serde(default = "pcap_file")]
    input: PathBuf,
    /// Arguments of `keywatch replay`; `{dir}` is the folder of the case.
    #[serde(default)]
    args: Vec<String>,
    /// What `expected.jsonl` holds.
    outputs: Vec<Kind>,
    /// Exit code of `keywatch replay`.
    #[serde(default)]
    exit: i32,
}

fn pcap_file() -> PathBuf {
    PathBuf::from("input.pcap")
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Calls,
    Connections,
    Alerts,
}

/// A test for each folder, and those over all generated captures.
pub(crate) fn trials() -> Vec<Trial> {
    let root = workspace_root().join("tests/cases");
    let mut dirs: Vec<PathBuf> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    dirs.sort();
    let mut trials: Vec<Trial> = dirs
        .into_iter()
        .map(|dir| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            trial(format!("cases::{name}"), move || as_expected(&dir))
        })
        .collect();
    trials.push(trial("cases::captures_are_as_generated", captures_are_as_generated));
    trials.push(trial("cases::no_credential_in_any_output", no_credential_in_any_output));
    for case in cases::all() {
        let name = format!("cases::{}::twice_gives_the_same_bytes", case.name);
        let path = case.dir();
        trials.push(trial(name, move || {
            let Config { input: capture, args, .. } = read_config(&path)?;
            let (once, again) = (replay(&[&capture], &args)?, replay(&[&capture], &args)?);
            same("the second replay", &again, &once)
        }));
        if case.is_whole() {
            let name = format!("cases::{}::rechunked_gives_the_same_bytes", case.name);
            trials.push(trial(name, move || rechunked(&case)));
        }
    }
    trials
}

fn as_expected(dir: &Path) -> Result<()> {
    let config = read_config(dir)?;
    let replayed = replay(&[&config.input], &config.args)?;
    ensure!(replayed.exit == config.exit, "exit code {}, not {}", replayed.exit, config.exit);
    let mut seen = String::new();
    for kind in &config.outputs {
        seen.push_str(match kind {
            Kind::Calls => &replayed.calls,
            Kind::Connections => &replayed.connections,
            Kind::Alerts => &replayed.alerts,
        });
    }
    let file = dir.join("expected.jsonl");
    if std::env::var_os("KEYWATCH_BLESS").is_some() {
        return fs::write(&file, seen).context("writing the expected lines");
    }
    let expected = fs::read_to_string(&file).with_context(|| {
        format!("reading {} (mend: KEYWATCH_BLESS=1, then look at it)", file.display())
    })?;
    same_text("the output", &seen, &expected)
}

fn read_config(dir: &Path) -> Result<Config> {
    let file = dir.join("case.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut config: Config = toml::from_str(&text).with_context(|| file.display().to_string())?;
    config.input = dir.join(config.input);
    for arg in &mut config.args {
        *arg = arg.replace("{dir}", &dir.display().to_string());
    }
    Ok(config)
}

fn captures_are_as_generated() -> Result<()> {
    for case in cases::all() {
        let stored = fs::read(case.input())?;
        ensure!(stored == case.file()?, "{} differs (mend: cargo xtask make-cases)", case.name);
        if let Some(keys) = case.keys {
            let stored = fs::read_to_string(case.dir().join("keys.log"))?;
            ensure!(stored == keys, "the keys of {} differ (as above)", case.name);
        }
    }
    Ok(())
}

/// The credentials that the captures hold, and parts of them. None may come out, whatever the case.
fn no_credential_in_any_output() -> Result<()> {
    const CREDENTIALS: [&str; 12] = [
        "vmPUZE6mv9SD5VNHk4",
        "y14y7Ju91duEh8A",
        "00112233445566778899",
        "tok-3f9a1c77d2",
        "ZGVzazpzM2NyM3Q",
        "desk:s3cr3t",
        "s3cr3t",
        "live-0a1b2c3d4e5f",
        "live-one",
        "live-two",
        "sig-one",
        "pass-one",
    ];
    let mut lines = 0;
    for case in cases::all() {
        let dir = case.dir();
        let replayed = replay(&[&case.input()], &read_config(&dir)?.args)?;
        lines += replayed.calls.lines().count();
        for (number, secret) in CREDENTIALS.iter().enumerate() {
            let leaks = [&replayed.calls, &replayed.connections, &replayed.alerts]
                .iter()
                .any(|output| output.contains(secret));
            ensure!(!leaks, "{}: credential {number} of the list came out", case.name);
        }
    }
    ensure!(lines > 100, "only {lines} lines were looked at");
    Ok(())
}

/// The same bytes in other segments at the same times: TCP promises no boundaries.
fn rechunked(case: &Case) -> Result<()> {
    let args = read_config(&case.dir())?.args;
    let expected = without_counts_of_segments(replay(&[&case.input()], &args)?)?;
    let dir = tempfile::tempdir()?;
    for seed in 0..RECHUNKINGS {
        let mut rng = Rng::with_seed(seed);
        let packets: Vec<Packet> =
            case.packets.iter().flat_map(|packet| pieces(packet, &mut rng)).collect();
        let file = dir.path().join("input.pcap");
        fs::write(&file, pcap(&packets, case.link, case.format, case.snap_bytes)?)?;
        let seen = without_counts_of_segments(replay(&[&file], &args)?)?;
        same(&format!("re-chunking {seed}"), &seen, &expected)?;
    }
    Ok(())
}

/// How often bytes came again and were not the same is counted by segment: that alone may differ.
fn without_counts_of_segments(mut replayed: Replayed) -> Result<Replayed> {
    let mut connections = String::new();
    for line in replayed.connections.lines() {
        let mut connection: Map<String, Value> = serde_json::from_str(line)?;
        connection.remove("overlap_conflicts");
        connections.push_str(&serde_json::to_string(&connection)?);
        connections.push('\n');
    }
    replayed.connections = connections;
    Ok(replayed)
}

/// A segment cut at random places. FIN stays with the last piece, where it belongs.
fn pieces(packet: &Packet, rng: &mut Rng) -> Vec<Packet> {
    use monitor_core::input::TcpFlags;
    if packet.flags.contains(TcpFlags::SYN) {
        return vec![packet.clone()];
    }
    let len = packet.payload.len();
    let mut cuts: Vec<usize> = (0..rng.usize(0..4)).map(|_| rng.usize(0..=len)).collect();
    cuts.extend([0, len]);
    cuts.sort_unstable();
    cuts.dedup();
    if len == 0 {
        return vec![packet.clone()];
    }
    cuts.windows(2)
        .map(|cut| {
            let mut piece = packet.clone();
            piece.payload = packet.payload[cut[0]..cut[1]].to_vec();
            piece.seq = packet.seq.wrapping_add(u32::try_from(cut[0]).unwrap_or_default());
            if cut[1] < len {
                piece.flags.remove(TcpFlags::FIN);
            }
            piece
        })
        .collect()
}

/// All outputs of two replays are the same bytes.
pub(crate) fn same(what: &str, seen: &Replayed, expected: &Replayed) -> Result<()> {
    same_text(&format!("{what}, calls"), &seen.calls, &expected.calls)?;
    same_text(&format!("{what}, connections"), &seen.connections, &expected.connections)?;
    same_text(&format!("{what}, alerts"), &seen.alerts, &expected.alerts)?;
    ensure!(seen.exit == expected.exit, "{what}: exit code {}", seen.exit);
    Ok(())
}

/// Names the first line that differs.
fn same_text(what: &str, seen: &str, expected: &str) -> Result<()> {
    if seen == expected {
        return Ok(());
    }
    let (mut one, mut other) = (seen.lines(), expected.lines());
    let mut number = 1;
    loop {
        let (seen, expected) = (one.next(), other.next());
        ensure!(
            seen == expected && seen.is_some(),
            "{what} differs at line {number}\n   seen: {}\nexpected: {}",
            seen.unwrap_or("(end)"),
            expected.unwrap_or("(end)")
        );
        number += 1;
    }
}
