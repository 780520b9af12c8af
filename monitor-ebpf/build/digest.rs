//! Digest of the sources that the kernel object is made from; shared by the build script of
//! monitor-user and by xtask.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

/// What the object is made from, relative to the workspace.
const SOURCES: [&str; 4] = [
    "monitor-common/src",
    "monitor-common/Cargo.toml",
    "monitor-ebpf/src",
    "monitor-ebpf/Cargo.toml",
];

/// SHA-256, in hexadecimal, over names and contents of every source file, in order of name.
///
/// # Errors
///
/// When a source cannot be read.
pub fn sources(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file)?;
        let name = file.strip_prefix(workspace).unwrap_or(&file).to_string_lossy();
        for part in [name.as_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
