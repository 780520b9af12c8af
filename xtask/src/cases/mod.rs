//! The captures of the case folders.

/// Writes them all.
pub fn write_all() -> anyhow::Result<()> {
    Ok(())
}
