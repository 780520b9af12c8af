//! `keywatch profile check`: what a profile makes of a capture.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use xtask::build::workspace_root;

use crate::replay::{keywatch, run, scratch};
use crate::trial;

/// Orders and reads of five styles, three of them with this header field.
const CAPTURE: &str = "tests/cases/styles-that-answer-200/input.pcap";
const WRONG_USE: i32 = 2;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("profiles::what_matches_and_what_does_not", what_matches_and_what_does_not),
        trial("profiles::what_looks_like_a_secret", what_looks_like_a_secret),
        trial("profiles::every_fault_is_a_line", every_fault_is_a_line),
    ]
}

/// Output of a check of this text, and its exit code.
fn check(profile: &str, capture: &str) -> Result<(String, Option<i32>)> {
    let dir = scratch()?;
    let file = dir.path().join("desk.toml");
    fs::write(&file, profile)?;
    let capture = workspace_root().join(capture);
    let mut command = Command::new(keywatch()?);
    command.arg("profile").arg("check").arg(&file).arg("--against").arg(&capture);
    let output = run(command.args(["--port", "8080"]))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8(text).context("its output is text")?, output.status.code()))
}

fn has(text: &str, lines: &[&str]) -> Result<()> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in lines {
        ensure!(text.lines().any(|it| words(it) == *line), "{line} is not in it:\n{text}");
    }
    Ok(())
}

fn what_matches_and_what_does_not() -> Result<()> {
    let profile = "name = \"desk\"\n\
                   keys = [{ header = \"OK-ACCESS-KEY\" }, { header = \"X-Desk-Key\" }]\n";
    let (text, code) = check(profile, CAPTURE)?;
    ensure!(code == Some(0), "{text}");
    has(
        &text,
        &[
            "desk: 3 of 10 requests are of this profile",
            "3 desk header:ok-access-key",
            "2 bybit header:x-bapi-api-key",
            "places without a key in any call:",
            "0 header:x-desk-key",
            "operations of its 3 calls with a key:",
            "1 withdraw",
            "1 address_not_allowed",
            "no rule says what these do:",
            "1 GET /api/v5/account/balance",
        ],
    )?;
    let (text, _) = check(profile, "tests/cases/key-styles/input.pcap")?;
    has(&text, &["of no profile of an exchange:", "4 GET /v1/me"])
}

fn what_looks_like_a_secret() -> Result<()> {
    let profile = "name = \"desk\"\nkeys = [{ header = \"X-Desk-Key\" }]\n";
    let (text, _) = check(profile, "tests/cases/undeclared-secrets/input.pcap")?;
    has(
        &text,
        &[
            "desk: 1 of 1 requests are of this profile",
            "look like secrets and are not declared:",
            "1 header x-desk-proof",
            "1 json proof",
            "1 query voucher",
        ],
    )?;
    ensure!(!text.contains("kQ7fL2pX9vT4"), "a value is shown:\n{text}");
    let (text, _) = check(
        "name = \"desk\"\nkeys = [{ header = \"X-Desk-Key\" }]\n\
         [fields]\nsecret = [\"X-Desk-Proof\", \"proof\", \"voucher\"]\n",
        "tests/cases/undeclared-secrets/input.pcap",
    )?;
    ensure!(!text.contains("look like secrets"), "they are declared:\n{text}");
    Ok(())
}

fn every_fault_is_a_line() -> Result<()> {
    let (text, code) = check("name = \"desk\"\nkeys = [{}]\nodd = 1\n", CAPTURE)?;
    ensure!(code == Some(WRONG_USE), "{text}");
    ensure!(text.lines().count() == 1 && text.contains("desk.toml:"), "{text}");
    Ok(())
}
