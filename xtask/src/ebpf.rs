//! Builds the kernel object from source, and keeps the checked-in one true to its sources.

#[path = "../../monitor-ebpf/build/digest.rs"]
mod digest;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, ensure};

use crate::setup::{self, EbpfToolchain};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object; checks it in when its sources have changed, or when `always` says so. Returns
/// where the fresh build is.
///
/// # Errors
///
/// When the toolchain cannot be had or the build fails.
pub fn run(always: bool) -> anyhow::Result<PathBuf> {
    let toolchain = setup::ebpf_toolchain()?;
    let object = build(&toolchain)?;
    if always || verify_digest().is_err() {
        let prebuilt = prebuilt();
        fs::create_dir_all(prebuilt.parent().unwrap_or(Path::new(".")))?;
        fs::copy(&object, &prebuilt).with_context(|| format!("writing {}", prebuilt.display()))?;
        fs::write(sources_of(&prebuilt), digest::sources(&workspace())? + "\n")?;
        println!("ebpf: {} is new: commit it with its sources", prebuilt.display());
    }
    println!("ebpf: {}", object.display());
    Ok(object)
}

/// Whether the checked-in object was made from the sources that are here.
///
/// # Errors
///
/// When it was not, with the mend.
pub fn verify_digest() -> anyhow::Result<()> {
    let file = sources_of(&prebuilt());
    let made_from =
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let here = digest::sources(&workspace()).context("reading the eBPF sources")?;
    ensure!(
        made_from.trim() == here,
        "the checked-in kernel object is stale: run `cargo xtask ebpf` and commit what it writes"
    );
    Ok(())
}

/// The checked-in object.
pub fn prebuilt() -> PathBuf {
    workspace().join("monitor-ebpf/prebuilt/keywatch.bpf.o")
}

fn sources_of(object: &Path) -> PathBuf {
    object.with_extension("o.sources")
}

fn build(toolchain: &EbpfToolchain) -> anyhow::Result<PathBuf> {
    let workspace = workspace();
    let target = workspace.join("target/bpf");
    // Line information names source files: by where they are in the project, not on this machine.
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| home + "/.cargo"));
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("--remap-path-prefix={}=keywatch", workspace.display()),
        format!("--remap-path-prefix={}=cargo", home.unwrap_or_default()),
        format!("--remap-path-prefix={}=rust", toolchain.sources.display()),
    ];
    let status = Command::new("cargo")
        .current_dir(&workspace)
        .args(["build", "--quiet", "--package", "monitor-ebpf", "--profile", "bpf"])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the kernel object does not build: {status}");
    let linked = target.join(TARGET).join("bpf/keywatch-bpf");
    let object = target.join("keywatch.bpf.o");
    let stripped = Command::new(&toolchain.objcopy)
        .arg("--strip-debug")
        .args([&linked, &object])
        .status()
        .with_context(|| format!("running {}", toolchain.objcopy.display()))?;
    ensure!(stripped.success(), "stripping the kernel object: {stripped}");
    Ok(object)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
}
