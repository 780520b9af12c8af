//! Brings whatever this machine lacks.

/// Names what is missing and installs it.
pub fn run() -> anyhow::Result<()> {
    Ok(())
}
