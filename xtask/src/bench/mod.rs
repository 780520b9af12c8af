//! `cargo xtask bench`.

/// What to measure.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// The live path.
    Live,
}

/// Measures.
pub fn run(_bench: &Bench) -> anyhow::Result<()> {
    Ok(())
}
