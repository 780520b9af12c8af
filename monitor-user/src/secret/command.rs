//! `keywatch secret`: which secrets there are, and a new one.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use monitor_core::policy::Moment;
use monitor_core::time::EventTime;

use super::file::Epochs;
use super::{is_after, path, rotate};
use crate::cli::SecretCommand;
use crate::clock;
use crate::commands::print;
use crate::config::Config;

/// Does what was asked.
pub(crate) fn secret(what: &SecretCommand, config: &Config) -> Result<()> {
    match what {
        SecretCommand::Show { secret_file } => {
            let path = path(secret_file.as_deref(), config);
            print(listed(&Epochs::read(&path)?, &path).as_bytes())
        }
        SecretCommand::Rotate { secret_file, keep } => {
            let path = path(secret_file.as_deref(), config);
            let keep = keep.unwrap_or(config.identity.former_secret_max);
            let until = (!keep.is_zero()).then(|| from_now(keep)).transpose()?;
            let (epochs, dropped) = rotate(&path, until)?;
            let mut text = listed(&epochs, &path);
            if dropped > 0 {
                let _ = writeln!(
                    text,
                    "{dropped} that still counted had to go: keys last seen under it begin anew"
                );
            }
            text.push_str("agents take it at SIGHUP, or when they start\n");
            print(text.as_bytes())
        }
    }
}

fn from_now(span: Duration) -> Result<Moment> {
    let span = u64::try_from(span.as_nanos()).ok();
    let nanos = span.and_then(|span| clock::now().0.checked_add(span));
    let nanos = nanos.context("the time is too long")?;
    // To the second, as it is written.
    let text = EventTime(nanos / 1_000_000_000 * 1_000_000_000).to_string();
    Moment::try_from(text).map_err(anyhow::Error::msg)
}

/// A line for each secret, by what tells it from others.
fn listed(epochs: &Epochs, path: &Path) -> String {
    let mut text = format!("{}\n", path.display());
    // Writing to a string does not fail.
    let _ = writeln!(text, "  {:08x}  in use", epochs.current.check());
    let now = clock::now();
    for (epoch, until) in &epochs.former {
        let over = if is_after(*until, now) { "" } else { ", which is over" };
        let _ = writeln!(text, "  {:08x}  counts until {until}{over}", epoch.check());
    }
    text
}
