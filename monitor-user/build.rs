//! Chooses the kernel object that goes into `keywatch`: the one that `KEYWATCH_BPF_OBJECT` names, or
//! the checked-in one when it was made from the sources that are here.

#[path = "../monitor-ebpf/build/digest.rs"]
mod digest;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    match object() {
        Ok(object) => println!("cargo::rustc-env=KEYWATCH_BPF_OBJECT={}", object.display()),
        Err(fault) => {
            println!("cargo::error={fault}");
            process::exit(1);
        }
    }
}

fn object() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=KEYWATCH_BPF_OBJECT");
    if let Some(named) = env::var_os("KEYWATCH_BPF_OBJECT") {
        let named = PathBuf::from(named);
        println!("cargo::rerun-if-changed={}", named.display());
        return named
            .canonicalize()
            .map_err(|error| format!("KEYWATCH_BPF_OBJECT={}: {error}", named.display()));
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("not run by cargo")?);
    let workspace = here.parent().unwrap_or(Path::new("/")).to_path_buf();
    for watched in ["monitor-ebpf", "monitor-common"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    let object = workspace.join("monitor-ebpf/prebuilt/keywatch.bpf.o");
    let made_from = object.with_extension("o.sources");
    let made_from = fs::read_to_string(&made_from)
        .map_err(|error| format!("{}: {error}", made_from.display()))?;
    let here_now = digest::sources(&workspace).map_err(|error| format!("eBPF sources: {error}"))?;
    if made_from.trim() != here_now {
        return Err(format!(
            "{} was made from other sources than those in monitor-ebpf and monitor-common; \
             run `cargo xtask ebpf` to make it anew",
            object.display()
        ));
    }
    Ok(object)
}
