//! Wrong input of a person: one clear line, the right exit code, never a panic.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use xtask::build::workspace_root;

use crate::replay::{common_args, keywatch, run, scratch};
use crate::trial;

/// Done, failed, wrong use or config.
const FAILED: i32 = 1;
const WRONG_USE: i32 = 2;

/// One test a mistake.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cli::garbage_capture", || {
            let dir = scratch()?;
            let file = dir.path().join("garbage.pcap");
            fs::write(&file, b"this is no capture at all, whatever its name says")?;
            fails(dir.path(), &["replay", &text(&file)], FAILED, "garbage.pcap")
        }),
        trial("cli::empty_capture", || {
            let dir = scratch()?;
            let file = dir.path().join("empty.pcap");
            fs::write(&file, b"")?;
            fails(dir.path(), &["replay", &text(&file)], FAILED, "empty.pcap")
        }),
        trial("cli::missing_capture", || {
            let dir = scratch()?;
            let file = dir.path().join("nowhere.pcap");
            fails(dir.path(), &["replay", &text(&file)], FAILED, "nowhere.pcap")
        }),
        trial("cli::damaged_record", damaged_record),
        trial("cli::unknown_config_key", || config("colour = \"red\"\n", "colour")),
        trial("cli::wrong_config_type", || {
            config("[sinks.kafka]\nbrokers = 7\nalerts_topic = \"a\"\n", "brokers")
        }),
        trial("cli::webhook_without_a_scheme", || {
            config("[sinks.webhook]\nurl = \"example.com/token\"\n", "sinks.webhook.url")
        }),
        trial("cli::syslog_without_a_port", || {
            config("[sinks.syslog]\naddress = \"siem\"\n", "sinks.syslog.address")
        }),
        trial("cli::spool_too_small", || {
            let set = "[sinks.spool]\nbytes_max = \"1MiB\"\nalerts_reserve_bytes = \"0B\"\n";
            config(set, "sinks.spool.bytes_max")
        }),
        trial("cli::tail_of_nothing", || tail_fails(&[], WRONG_USE, "nothing to read")),
        trial("cli::tail_of_no_file", || {
            tail_fails(&["no-such-file"], FAILED, "cannot read alerts")
        }),
        trial("cli::spool_of_a_newer_version", spool_of_a_newer_version),
        trial("cli::config_is_not_toml", || config("this is = = not toml", "keywatch.toml")),
        trial("cli::missing_config", || {
            let dir = scratch()?;
            fs::remove_file(dir.path().join("keywatch.toml"))?;
            let capture = everyday();
            fails(dir.path(), &["replay", &text(&capture)], WRONG_USE, "keywatch.toml")
        }),
        trial("cli::secret_is_not_hex", || {
            let dir = scratch()?;
            fs::write(dir.path().join("secret"), "not a secret")?;
            fails(dir.path(), &["replay", &text(&everyday())], FAILED, "secret")
        }),
        trial("cli::secret_that_others_can_read", || {
            use std::os::unix::fs::PermissionsExt;
            let dir = scratch()?;
            let open = fs::Permissions::from_mode(0o644);
            fs::set_permissions(dir.path().join("secret"), open)?;
            fails(dir.path(), &["replay", &text(&everyday())], FAILED, "secret")
        }),
        trial("cli::unwritable_output", || {
            let dir = scratch()?;
            let capture = text(&everyday());
            let args = ["replay", "--calls", "/nowhere/calls.jsonl", &capture];
            fails(dir.path(), &args, FAILED, "/nowhere/calls.jsonl")
        }),
        trial("cli::unknown_flag", || {
            let output = run(Command::new(keywatch()?).args(["run", "--frobnicate"]))?;
            ensure!(output.status.code() == Some(WRONG_USE), "ended with {}", output.status);
            ensure!(String::from_utf8_lossy(&output.stderr).contains("--frobnicate"), "not named");
            Ok(())
        }),
        trial("cli::help_and_version", || {
            for flag in ["--help", "--version"] {
                let output = run(Command::new(keywatch()?).arg(flag))?;
                ensure!(output.status.success(), "{flag}: {}", output.status);
                ensure!(!output.stdout.is_empty(), "{flag} says nothing");
            }
            Ok(())
        }),
    ]
}

/// A record whose length is absurd: what came before it is given out, and the exit code tells.
fn damaged_record() -> Result<()> {
    let dir = scratch()?;
    let mut bytes = fs::read(everyday())?;
    bytes.extend([0xff; 64]);
    let file = dir.path().join("damaged.pcap");
    fs::write(&file, bytes)?;
    let calls = dir.path().join("calls.jsonl");
    let args = ["replay", "--calls", &text(&calls), &text(&file)];
    fails(dir.path(), &args, FAILED, "damaged.pcap")?;
    let written = fs::read_to_string(calls)?.lines().count();
    ensure!(written == 2, "{written} of 2 calls before the damage were written");
    Ok(())
}

/// `check-config` and `replay` both refuse it, with code 2 and the name of what is wrong.
fn config(content: &str, names: &str) -> Result<()> {
    let dir = scratch()?;
    let file = dir.path().join("keywatch.toml");
    fs::write(&file, content)?;
    let output = run(Command::new(keywatch()?).arg("check-config").arg(&file))?;
    one_line(&String::from_utf8_lossy(&output.stderr), names)?;
    ensure!(output.status.code() == Some(WRONG_USE), "check-config: {}", output.status);
    fails(dir.path(), &["replay", &text(&everyday())], WRONG_USE, names)
}

fn fails(dir: &Path, args: &[&str], code: i32, names: &str) -> Result<()> {
    let mut command = Command::new(keywatch()?);
    command.arg("--quiet").arg(args[0]).args(common_args(dir)).args(&args[1..]);
    let output = run(&mut command)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "not {code}: {}; {stderr}", output.status);
    one_line(&stderr, names)
}

fn one_line(stderr: &str, names: &str) -> Result<()> {
    ensure!(stderr.lines().count() == 1, "not one line on stderr: {stderr}");
    ensure!(stderr.contains(names), "`{names}` is not named: {stderr}");
    ensure!(!stderr.contains("panicked"), "a panic: {stderr}");
    Ok(())
}

fn everyday() -> std::path::PathBuf {
    workspace_root().join("tests/cases/link-ethernet/input.pcap")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn tail_fails(args: &[&str], code: i32, names: &str) -> Result<()> {
    let dir = scratch()?;
    let mut command = Command::new(keywatch()?);
    command.arg("tail").args(&common_args(dir.path())[..2]).args(args);
    let output = run(&mut command)?;
    ensure!(output.status.code() == Some(code), "not {code}: {}", output.status);
    one_line(&String::from_utf8_lossy(&output.stderr), names)
}

/// Refused with a line, and left as it is.
fn spool_of_a_newer_version() -> Result<()> {
    let dir = scratch()?;
    let spool = dir.path().join("spool/syslog");
    fs::create_dir_all(&spool)?;
    let segment = spool.join("alerts-00000000000000000000.seg");
    let mut bytes = b"KWSPOOL\n".to_vec();
    bytes.extend([2, 0]);
    bytes.resize(64, 0);
    fs::write(&segment, &bytes)?;
    let config = format!(
        "[sinks.spool]\ndir = \"{}\"\n[sinks.syslog]\naddress = \"127.0.0.1:1\"\n",
        dir.path().join("spool").display()
    );
    fs::write(dir.path().join("keywatch.toml"), config)?;
    let args = ["replay", "--publish", "--no-table", &text(&everyday())];
    fails(dir.path(), &args, FAILED, "it is of version 2")?;
    ensure!(fs::read(&segment)? == bytes, "it was changed");
    Ok(())
}
