//! `cargo xtask fuzz`: runs the targets of `fuzz/` under libFuzzer.
//!
//! What a run finds of new inputs stays in `target/fuzz-corpus`; an input that fails is in
//! `fuzz/artifacts`, and belongs into `fuzz/seeds` once it is mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::workspace_root;
use crate::setup::{self, Purpose};
use crate::{build, process};

/// What to fuzz, and for how long.
#[derive(clap::Subcommand)]
pub enum Fuzz {
    /// Run one target.
    Run {
        /// Its name: a file in fuzz/targets
        target: String,
        /// How long
        #[command(flatten)]
        effort: Effort,
    },
    /// Run every target, one after the other.
    All {
        /// How long each
        #[command(flatten)]
        effort: Effort,
    },
}

/// How long, and with what.
#[derive(clap::Args)]
pub struct Effort {
    /// Minutes for a target
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Folder with further inputs to begin with, such as captures; repeatable
    #[arg(long, value_name = "DIR")]
    extra: Vec<PathBuf>,
    /// Build only
    #[arg(long)]
    build: bool,
}

/// Seconds that an input may take: with instrumentation a long one takes some milliseconds.
const TIMEOUT_SECS: u32 = 10;
/// Resident memory, MB; the targets hold a few, instrumentation and corpus some hundred.
const RSS_MB_MAX: u32 = 2048;
/// Length of an input: enough for a conversation, and quick.
const INPUT_BYTES_MAX: u32 = 16_384;

/// Runs what is asked for; fails when a target fails.
pub fn run(fuzz: &Fuzz) -> Result<ExitCode> {
    process::catch_interrupts()?;
    setup::ensure_for(&[Purpose::Build])?;
    let (targets, effort) = match fuzz {
        Fuzz::Run { target, effort } => (vec![target.clone()], effort),
        Fuzz::All { effort } => (targets()?, effort),
    };
    let cargo_fuzz = cargo_fuzz()?;
    let mut failed = Vec::new();
    for target in targets {
        ensure!(self::targets()?.contains(&target), "no target `{target}` in fuzz/targets");
        println!("fuzz: {target}");
        let status = command(&cargo_fuzz, &target, effort)?.status().context("cargo-fuzz")?;
        process::check_interrupted()?;
        if !status.success() {
            println!("fuzz: {target} FAILED: the input is in fuzz/artifacts/{target}");
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("fuzz: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Names of the targets.
fn targets() -> Result<Vec<String>> {
    let dir = workspace_root().join("fuzz/targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn command(cargo_fuzz: &Path, target: &str, effort: &Effort) -> Result<Command> {
    let root = workspace_root();
    let mut command = Command::new(cargo_fuzz);
    // Instrumentation is there in a stable compiler, behind this switch.
    command.current_dir(root).env("RUSTC_BOOTSTRAP", "1").stdin(Stdio::null());
    command.arg(if effort.build { "build" } else { "run" });
    command.args(["--fuzz-dir", "fuzz", "--target-dir", "target/fuzz", "--features", "libfuzzer"]);
    if !has_address_sanitizer() {
        println!("fuzz: this compiler brings no address sanitizer; running without");
        command.args(["--sanitizer", "none"]);
    }
    command.arg(target);
    if effort.build {
        return Ok(command);
    }
    // New inputs go to the first folder.
    let corpus = root.join("target/fuzz-corpus").join(target);
    fs::create_dir_all(&corpus)?;
    command.arg(corpus).arg(root.join("fuzz/seeds").join(target)).args(&effort.extra);
    command.arg("--").args([
        format!("-max_total_time={}", effort.minutes * 60),
        format!("-timeout={TIMEOUT_SECS}"),
        format!("-rss_limit_mb={RSS_MB_MAX}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]);
    Ok(command)
}

/// Whether the compiler has the library that instrumented programs are linked with.
fn has_address_sanitizer() -> bool {
    let print = process::run(Command::new("rustc").args(["--print", "target-libdir"]));
    let files = print.ok().and_then(|dir| fs::read_dir(dir.trim()).ok());
    files.into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name.to_string_lossy().ends_with("_rt.asan.a")
    })
}

/// cargo-fuzz, built once and kept in the user's cache.
fn cargo_fuzz() -> Result<PathBuf> {
    if let Some(found) = setup::find("cargo-fuzz") {
        return Ok(found);
    }
    let root = setup::cache()?.join("cargo-fuzz");
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        println!("fuzz: building cargo-fuzz, once");
        let mut install = build::cargo();
        install.args(["install", "cargo-fuzz", "--locked", "--quiet", "--root"]).arg(&root);
        let built = install.status().context("running cargo install cargo-fuzz")?;
        ensure!(built.success() && program.exists(), "cargo-fuzz could not be built: {built}");
    }
    Ok(program)
}
