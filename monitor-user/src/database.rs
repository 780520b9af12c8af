//! redb files of ours: one program writes them, and each value has a checksum besides those of redb.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use redb::Database;
use redb::backends::FileBackend;

/// What redb keeps in memory while it writes.
pub(crate) const CACHE_BYTES: usize = 8 << 20;

/// Opens a file to write to it, and makes it, for its owner alone, when it is not there.
pub(crate) fn open(path: &Path) -> Result<Database> {
    make_dir(path)?;
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(FileBackend::new(file)?)?)
}

/// Makes the folder that a file is to be in.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// With its checksum (CRC-32C) in front.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&crc32c::crc32c(bytes).to_le_bytes(), bytes].concat()
}

/// What [`sealed`] was given.
pub(crate) fn opened(sealed: &[u8]) -> Result<&[u8]> {
    match sealed.split_first_chunk::<4>() {
        Some((sum, bytes)) if crc32c::crc32c(bytes) == u32::from_le_bytes(*sum) => Ok(bytes),
        Some(_) | None => bail!("a checksum is wrong"),
    }
}
