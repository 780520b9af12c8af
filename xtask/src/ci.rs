//! `cargo xtask ci`: everything that must hold before a change is taken.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::build::cargo;
use crate::setup::{self, Purpose};
use crate::suite::{self, Tally};
use crate::{conformance, ebpf, eval, passive};

/// Runs every step, whatever the ones before gave; one line a step, and the tally last: each step
/// counts as one check, each test as another.
pub fn run() -> Result<ExitCode> {
    let mut tally = Tally::default();
    let mut steps = Vec::new();
    let mut step = |name: &'static str, run: &dyn Fn() -> Result<Tally>| {
        let start = Instant::now();
        let done = run();
        let secs = start.elapsed().as_secs_f64();
        let line = match &done {
            Ok(tally) if tally.failed == 0 => format!("ok    {name} ({secs:.1} s)"),
            Ok(tally) => format!("FAIL  {name} ({secs:.1} s): {tally}"),
            Err(error) => format!("FAIL  {name} ({secs:.1} s): {error:#}"),
        };
        println!("ci: {line}");
        steps.push(line);
        tally.add(done.unwrap_or(FAILED));
    };
    step("set-up", &|| {
        let all = [Purpose::Build, Purpose::Ebpf, Purpose::Live, Purpose::Kafka];
        setup::ensure_for(&all).map(|()| PASSED)
    });
    step("format", &|| succeed(cargo().args(["fmt", "--all", "--check"])));
    step("lints", &|| {
        succeed(cargo().args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))
    });
    step("docs", &|| {
        let mut doc = cargo();
        doc.args(["doc", "--quiet", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        succeed(&mut doc)
    });
    step("kernel object is fresh", &|| ebpf::verify_digest().map(|()| PASSED));
    step("kernel object from source, passive", &|| {
        let built = ebpf::run(false)?;
        passive::run(&built)?;
        passive::run(&ebpf::prebuilt())?;
        Ok(PASSED)
    });
    step("conformance", &conformance::check);
    step("accuracy", &eval::check);
    // Last: what failed tests said stands just before the list of steps.
    step("tests", &|| suite::run_all(None, suite::SEED, true));
    println!();
    for line in steps {
        println!("{line}");
    }
    println!("{tally}");
    Ok(tally.exit_code())
}

const PASSED: Tally = Tally { passed: 1, failed: 0 };
const FAILED: Tally = Tally { passed: 0, failed: 1 };

fn succeed(command: &mut Command) -> Result<Tally> {
    let status = command.status().context("starting cargo")?;
    ensure!(status.success(), "ended with {status}");
    Ok(PASSED)
}
