//! The fuzz targets on their committed seeds, without a fuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use keywatch_fuzz::{TARGETS, Target};
use libtest_mimic::Trial;
use xtask::build::workspace_root;

use crate::seeds;
use crate::trial;

/// A test for each target, and one that the seeds are those that are generated.
pub(crate) fn trials() -> Vec<Trial> {
    let replay = |(name, target): (&'static str, Target)| {
        trial(format!("fuzz::{name}"), move || seeds_hold(name, target))
    };
    let mut trials: Vec<Trial> = TARGETS.into_iter().map(replay).collect();
    trials.push(trial("fuzz::seeds_are_as_generated", seeds_are_as_generated));
    trials
}

fn seeds_hold(name: &str, target: Target) -> Result<()> {
    let dir = seeds_of(name);
    let mut count = 0;
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let file = entry?.path();
        let bytes = fs::read(&file)?;
        let held = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        ensure!(held.is_ok(), "{} fails", file.display());
        count += 1;
    }
    ensure!(count > 0, "no seeds in {}", dir.display());
    Ok(())
}

/// Other seeds may stand beside them: inputs that failed once.
fn seeds_are_as_generated() -> Result<()> {
    let bless = std::env::var_os("KEYWATCH_BLESS").is_some();
    for seed in seeds::all()? {
        let file = seeds_of(seed.target).join(&seed.name);
        if bless {
            write(&file, &seed.bytes)?;
        }
        let stored = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(stored == seed.bytes, "{} differs (mend: KEYWATCH_BLESS=1)", file.display());
    }
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(file.parent().context("a folder")?)?;
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

fn seeds_of(target: &str) -> PathBuf {
    workspace_root().join("fuzz/seeds").join(target)
}
