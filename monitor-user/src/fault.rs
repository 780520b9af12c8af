//! How an error ends the program: one line on stderr and an exit code.

use std::io::Write;
use std::process::ExitCode;

use thiserror::Error;

/// Wrong use or a wrong config: ends the program with exit code 2. Everything else gives 1.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// Something failed after its own line was written already: exit code 1, nothing more to say.
#[derive(Debug, Error)]
#[error("failed")]
pub struct AlreadyTold;

/// Reports how a command ended: one line for an error, and the exit code.
pub fn conclude(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if !error.is::<AlreadyTold>() {
        tell(&format!("{error:#}"));
    }
    ExitCode::from(if error.is::<Misuse>() { 2 } else { 1 })
}

/// Writes `keywatch: …` to stderr as one line, whatever is in `text`.
pub fn tell(text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    write_stderr(&format!("keywatch: {line}\n"));
}

/// Writes to stderr. Nothing can be done, or said, when that fails; `eprint!` would panic.
pub(crate) fn write_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
