//! `cargo xtask test`: every test of the workspace, added up.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::build::cargo;
use crate::setup::{self, Purpose};

/// How to run the tests.
#[derive(clap::Args)]
pub struct Options {
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// What the random tests begin with: the same number gives the same cases.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// The same each time, so that a failure comes from what was changed.
pub const SEED: u64 = 1;

/// How many of something went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Went well.
    pub passed: usize,
    /// Did not.
    pub failed: usize,
}

/// Sets up, builds, runs, and prints the tally as the last line.
pub fn run(options: &Options) -> Result<ExitCode> {
    let tally = run_all(options.filter.as_deref(), options.seed, false)?;
    println!("{tally}");
    Ok(tally.exit_code())
}

/// The same without the last line. `require_live` makes live tests that cannot run here fail.
pub fn run_all(filter: Option<&str>, seed: u64, require_live: bool) -> Result<Tally> {
    setup::ensure_for(&[Purpose::Build])?;
    if let Err(error) = setup::ensure_for(&[Purpose::Live, Purpose::Kafka]) {
        println!("Tests that need more are left out: {error:#}");
    }
    let mut tests = cargo();
    tests.args(["test", "--no-fail-fast"]).args(filter.map(|name| ["--", name]).iter().flatten());
    tests.env("PROPTEST_RNG_SEED", seed.to_string());
    if require_live {
        tests.env("KEYWATCH_REQUIRE_LIVE", "1");
    }
    let mut child = tests.stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let mut tally = Tally::default();
    let mut left_out = BTreeSet::new();
    let mut failures = Failures::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("reading what cargo test prints")?;
            tally.add(Tally::of_result_line(&line).unwrap_or_default());
            if line.starts_with("left out: ") {
                left_out.insert(line.clone());
            }
            failures.read(&line);
            println!("{line}");
        }
    }
    let status = child.wait()?;
    // What does not build or dies without a result line is a failure too.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    for line in left_out.iter().chain(&failures.said) {
        println!("{line}");
    }
    Ok(tally)
}

/// What failed tests said: told once more at the end, where it is found.
#[derive(Default)]
struct Failures {
    said: Vec<String>,
    is_said_here: bool,
}

impl Failures {
    /// The next line of what `cargo test` prints. `failures:` stands before what they said, and again before
    /// their names.
    fn read(&mut self, line: &str) {
        /// A record or two, and not a whole log.
        const CHARS_MAX: usize = 600;
        if line == "failures:" {
            self.is_said_here = !self.is_said_here;
        } else if self.is_said_here && !line.is_empty() {
            self.said.push(line.chars().take(CHARS_MAX).collect());
        }
    }
}

impl Tally {
    /// `test result: ok. 12 passed; 0 failed; ...`
    fn of_result_line(line: &str) -> Option<Tally> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(what))?;
            part.trim().parse().ok()
        };
        Some(Tally { passed: count(" passed")?, failed: count(" failed")? })
    }

    /// Adds another.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Failure when anything failed, or when there was nothing at all.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Tally { passed: 0, .. } => ExitCode::FAILURE,
            Tally { failed: 0, .. } => ExitCode::SUCCESS,
            Tally { .. } => ExitCode::FAILURE,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_both_test_runners() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 4 filtered \
                    out; finished in 0.00s";
        assert_eq!(Tally::of_result_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(Tally::of_result_line("test a ... ok"), None);
    }

    #[test]
    fn tells_of_failures_once_more() {
        let one = "test a ... FAILED\n\nfailures:\n\n---- a ----\n3 calls, 4 made\n\n\nfailures:\n    a\n\n\
                   test result: FAILED. 0 passed; 1 failed; 0 ignored";
        let mut failures = Failures::default();
        one.lines().chain(one.lines()).for_each(|line| failures.read(line));
        assert_eq!(failures.said, ["---- a ----", "3 calls, 4 made"].repeat(2));
    }
}
