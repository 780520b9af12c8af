//! Profiles from files: how the styles of APIs are read.

pub(crate) mod command;
mod report;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use monitor_core::identity::{Fault, Profiles};

use crate::fault::{Misuse, tell};

/// Bytes of a profile; those that come with Keywatch have up to 4 KiB.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Profiles of a folder.
const FILES_MAX: usize = 150;

/// Those of a folder, by name, and those that come with Keywatch.
pub(crate) fn load(dir: &Path) -> Result<Arc<Profiles>> {
    let shown = dir.display();
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read the folder of profiles: {shown}"))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path =
            entry.with_context(|| format!("cannot read the folder of profiles: {shown}"))?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        let count = paths.len();
        return Err(Misuse(format!(
            "too many profiles: {shown}: {count} files, at most {FILES_MAX} can be used"
        ))
        .into());
    }
    paths.sort();
    Ok(Arc::new(with(&paths)?))
}

/// Those of some files and those that come with Keywatch. Each fault is a line; the last one is the
/// error's.
pub(crate) fn with(paths: &[PathBuf]) -> Result<Profiles> {
    let mut files = Vec::new();
    for path in paths {
        files.push((path.display().to_string(), read(path)?));
    }
    Profiles::with(&files).map_err(|faults| {
        let (last, others) = match faults.split_last() {
            Some((last, others)) => (line(last), others),
            None => (String::new(), &[][..]),
        };
        others.iter().for_each(|fault| tell(&line(fault)));
        Misuse(last).into()
    })
}

fn line(fault: &Fault) -> String {
    format!("wrong profile: {fault}")
}

fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("cannot read the profile: {shown}"))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the profile: {shown}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Misuse(format!("the profile is larger than 256 KiB: {shown}: split it")).into());
    }
    Ok(text)
}
