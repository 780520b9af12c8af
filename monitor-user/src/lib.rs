//! The IO shell of Keywatch.

mod baseline;
mod breakdown;
pub mod capture;
pub mod cli;
mod clock;
mod commands;
pub mod compact;
pub mod config;
mod database;
pub mod doctor;
pub mod driver;
pub mod fault;
mod fleet;
mod history;
mod http;
mod keys;
mod live;
mod metrics;
mod notify;
mod policy;
mod profiles;
mod record;
pub mod replay;
mod run;
pub mod secret;
mod selection;
mod shown;
mod simulate;
pub mod sinks;
pub mod summary;
mod tail;

use std::process::ExitCode;

use clap::Parser;

/// The `keywatch` command, from arguments to exit code.
pub fn main() -> ExitCode {
    fault::conclude(commands::dispatch(cli::Cli::parse()))
}
