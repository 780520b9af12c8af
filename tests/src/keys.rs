//! `keywatch keys`: what keys did in a replay, beside what a registry and a policy let them do.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use xtask::build::workspace_root;

use crate::replay::{common_args, keywatch, run, scratch};
use crate::trial;

/// Withdrawals, orders and reads of five keys, some refused with status 200.
const CAPTURE: &str = "tests/cases/styles-that-answer-200/input.pcap";
const WRONG_USE: i32 = 2;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("keys::list", list),
        trial("keys::show", show),
        trial("keys::unused", unused),
        trial("keys::policy_before_registry", policy_before_registry),
        trial("keys::as_json", as_json),
        trial("keys::what_is_wrong_is_said", what_is_wrong_is_said),
        trial("keys::after_a_rotation", after_a_rotation),
    ]
}

/// Calls of the replay, and a registry of three of their keys and one that is never used.
struct Known {
    dir: TempDir,
    okx: String,
    bybit: String,
    kraken: String,
    idle: String,
}

impl Known {
    fn new() -> Result<Known> {
        let dir = scratch()?;
        replay(dir.path(), "calls.jsonl")?;
        let id = |raw: &str| hash(dir.path(), raw);
        let (okx, bybit) = (id("made-up-okx-key")?, id("made-up-bybit-key")?);
        let (kraken, idle) = (id("made-up-kraken-key")?, id("made-up-idle-key")?);
        let registry = format!(
            "key,owner,class,created,revoked,permissions\n\
             {okx},desk one,maker,2026-01-05,,read|trade|withdraw\n\
             {bybit},desk two,taker,2026-02-05,2026-11-20,trade\n\
             {idle},desk three,maker,2026-03-05,,read|key_management\n"
        );
        fs::write(dir.path().join("keys.csv"), registry)?;
        Ok(Known { dir, okx, bybit, kraken, idle })
    }

    fn replay(&self, calls: &str) -> Result<String> {
        replay(self.dir.path(), calls)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `keywatch keys WHAT`, with the calls and the registry.
    fn keys(&self, what: &[&str]) -> Result<Output> {
        let mut command = Command::new(keywatch()?);
        command.args(&common_args(self.dir.path())[..2]).arg("keys").args(what);
        command.arg("--calls").arg(self.file("calls.jsonl"));
        run(command.arg("--registry").arg(self.file("keys.csv")))
    }

    fn says(&self, what: &[&str]) -> Result<String> {
        let output = self.keys(what)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Replays the capture; gives the calls that are now in this file.
fn replay(dir: &Path, calls: &str) -> Result<String> {
    let mut replay = Command::new(keywatch()?);
    replay.arg("replay").args(common_args(dir)).args(["--port", "8080"]);
    replay.arg("--calls").arg(dir.join(calls));
    let output = run(replay.arg(workspace_root().join(CAPTURE)))?;
    ensure!(output.status.success(), "replay: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read_to_string(dir.join(calls))?)
}

/// The id of a raw key, as the command gives it.
fn hash(dir: &Path, raw: &str) -> Result<String> {
    let mut command = Command::new(keywatch()?);
    let args = common_args(dir);
    command.args(&args[..2]).args(["keys", "hash"]).args(&args[2..]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(format!("{raw}\n").as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "keys hash: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// One line a key: the one seen last first, those that were never seen at the end.
fn list() -> Result<()> {
    let known = Known::new()?;
    let text = known.says(&["list"])?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 1 + 5 + 1, "a head, five keys of calls and one of the registry: {text}");
    ensure!(lines[0].starts_with("key ") && lines[0].ends_with("did"), "head: {}", lines[0]);
    let words = |id: &str| -> Result<Vec<&str>> {
        let line = lines.iter().find(|line| line.starts_with(id)).context("not listed")?;
        Ok(line.split_whitespace().skip(1).collect())
    };
    ensure!(words(&known.okx)? == ["2026-11-23", "20:00", "3", "maker", "trade"], "{text}");
    ensure!(
        words(&known.bybit)? == ["2026-11-23", "20:00", "2", "taker", "trade", "revoked"],
        "{text}"
    );
    ensure!(words(&known.kraken)? == ["2026-11-23", "20:00", "2", "-", "trade"], "{text}");
    ensure!(words(&known.idle)? == ["never", "0", "maker", "-"], "{text}");
    ensure!(lines[6].starts_with(&known.idle), "what was never seen is not last: {text}");
    let place = |id: &str| lines.iter().position(|line| line.starts_with(id));
    ensure!(place(&known.kraken) < place(&known.okx), "not the last one seen first: {text}");
    ensure!(!text.contains("made-up"), "a raw key is shown");
    Ok(())
}

/// By the beginning of its id; what it did, from where, and what it may do.
fn show() -> Result<()> {
    let known = Known::new()?;
    let text = known.says(&["show", &known.okx[..12]])?;
    let expected = format!(
        "{}\n  owner        desk one\n  class        maker\n  style        okx\n  \
         created      2026-01-05\n  \
         first seen   2026-11-23T20:00:00.003000000Z\n  \
         last seen    2026-11-23T20:00:00.007000000Z\n  calls        3, 1 went well\n  \
         did          trade 1\n  from         203.0.113.0/24\n  may          read, trade, withdraw\n  \
         never did    read, withdraw\n",
        known.okx
    );
    ensure!(text == expected, "{text}\ninstead of\n{expected}");
    let text = known.says(&["show", &known.idle])?;
    ensure!(text.contains("  seen         never\n"), "{text}");
    ensure!(text.contains("  never did    read, key_management\n"), "{text}");
    let text = known.says(&["show", &known.kraken])?;
    ensure!(!text.contains("may") && !text.contains("never did"), "nothing says what: {text}");
    Ok(())
}

/// Only keys of which something is said, and that do less than they may.
fn unused() -> Result<()> {
    let known = Known::new()?;
    let text = known.says(&["unused"])?;
    let mut expected = [
        format!("{}  read, withdraw\n", known.okx),
        format!("{}  read, key_management\n", known.idle),
    ];
    expected.sort();
    ensure!(text == expected.concat(), "{text}\ninstead of\n{}", expected.concat());
    Ok(())
}

/// A class gives operations to keys of which the registry says only the class; what the policy says of a
/// key comes first.
fn policy_before_registry() -> Result<()> {
    let known = Known::new()?;
    let policy = format!(
        "[default]\noperations = [\"read\"]\n\
         [classes.bot]\noperations = [\"trade\", \"cancel\"]\n\
         [keys.{}]\nclass = \"bot\"\n[keys.{}]\noperations = [\"trade\"]\n",
        known.kraken, known.okx
    );
    fs::write(known.file("policy.toml"), policy)?;
    let file = known.file("policy.toml").display().to_string();
    let text = known.says(&["unused", "--policy", &file])?;
    ensure!(text.contains(&format!("{}  cancel\n", known.kraken)), "by its class: {text}");
    ensure!(!text.contains(&known.okx), "it does all that the policy lets it: {text}");
    ensure!(text.contains(&format!("{}  read, key_management\n", known.idle)), "{text}");
    ensure!(text.lines().count() == 4, "two more keys have the default alone: {text}");
    Ok(())
}

/// The same facts for programs, one object a line.
fn as_json() -> Result<()> {
    let known = Known::new()?;
    let text = known.says(&["list", "--json"])?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 6, "{text}");
    let of = |id: &str| lines.iter().find(|line| line["key"] == id).context("not listed");
    let okx = of(&known.okx)?;
    ensure!(okx["calls"] == 3 && okx["ok"] == 1 && okx["operations"]["trade"] == 1, "{okx}");
    ensure!(okx["profile"] == "okx" && okx["owner"] == "desk one", "{okx}");
    ensure!(okx["unused"] == serde_json::json!(["read", "withdraw"]), "{okx}");
    ensure!(okx["networks"] == serde_json::json!(["203.0.113.0/24"]), "{okx}");
    let idle = of(&known.idle)?;
    ensure!(idle["last_seen"].is_null() && idle["calls"] == 0, "{idle}");
    let kraken = of(&known.kraken)?;
    ensure!(kraken["may"].is_null() && kraken["unused"].is_null(), "{kraken}");
    Ok(())
}

/// One line, the right exit code.
fn what_is_wrong_is_said() -> Result<()> {
    let known = Known::new()?;
    let fails = |args: &[&str], code: i32, names: &str| -> Result<()> {
        let output = known.keys(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{args:?}: {}: {stderr}", output.status);
        ensure!(stderr.lines().count() == 1 && stderr.contains(names), "{args:?}: {stderr}");
        Ok(())
    };
    fails(&["show", "k_"], WRONG_USE, "more than one key begins so: k_")?;
    fails(&["show", "k_nothing"], WRONG_USE, "no such key")?;
    fails(&["list", "--policy", "/nowhere/policy.toml"], 1, "/nowhere/policy.toml")?;
    fails(&["list", "--calls", "/nowhere/calls.jsonl"], 1, "/nowhere/calls.jsonl")?;
    fs::write(known.file("keys.csv"), "key,owner\nmade-up-okx-key,desk one\n")?;
    fails(&["list"], WRONG_USE, "keys.csv:2: `key` is no id of a key")?;
    Ok(())
}

/// A secret that is replaced between two replays: calls of both are one key's, and what the registry says of
/// its former id counts. `keywatch secret` shows no secret.
fn after_a_rotation() -> Result<()> {
    let known = Known::new()?;
    let secret = |what: &[&str]| -> Result<String> {
        let mut command = Command::new(keywatch()?);
        command.args(&common_args(known.dir.path())[..2]).arg("secret").args(what);
        let output = run(command.arg("--secret-file").arg(known.file("secret")))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    let before = secret(&["show"])?;
    let rotated = secret(&["rotate", "--keep", "30d"])?;
    let check = |text: &str, line: usize| -> Result<String> {
        let line = text.lines().nth(line).context("no such line")?;
        Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
    };
    ensure!(check(&before, 1)? == check(&rotated, 2)?, "{before}{rotated}");
    ensure!(rotated.contains("in use") && rotated.contains("counts until 20"), "{rotated}");
    let written = fs::read_to_string(known.file("secret"))?;
    for line in written.lines() {
        ensure!(!rotated.contains(&line[..16]) && !before.contains(&line[..16]), "a secret shown");
    }
    let okx = hash(known.dir.path(), "made-up-okx-key")?;
    ensure!(okx != known.okx, "the same id under another secret");
    let again = known.replay("again.jsonl")?;
    ensure!(again.contains(&format!("\"id\":\"{okx}\"")), "not under the new id");
    ensure!(again.contains(&format!("\"former\":[\"{}\"]", known.okx)), "not under the former");
    let calls = known.file("again.jsonl").display().to_string();
    let text = known.says(&["show", &okx, "--calls", &calls])?;
    ensure!(text.contains("  calls        6, 2 went well\n"), "not counted together: {text}");
    ensure!(text.contains("  owner        desk one\n"), "the registry has its former id: {text}");
    ensure!(text.contains("  never did    read, withdraw\n"), "{text}");
    let list = known.says(&["list", "--calls", &calls])?;
    ensure!(list.lines().count() == 7 && !list.contains(&known.okx), "listed twice: {list}");
    // At once, without going back.
    secret(&["rotate", "--keep", "0s"])?;
    ensure!(fs::read_to_string(known.file("secret"))?.lines().count() == 1, "one is kept");
    Ok(())
}
