//! `keywatch profile`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use monitor_core::identity::{Identifier, Profiles, Secret};

use super::report::Report;
use crate::cli::ProfileCommand;
use crate::commands::{self, print};
use crate::config::Config;
use crate::fault::{AlreadyTold, Misuse};
use crate::replay::reading::each_call;

/// Does what was asked.
pub(crate) fn profile(what: &ProfileCommand, config: &Config) -> Result<()> {
    match what {
        ProfileCommand::List => list(&*in_use(config)?),
        ProfileCommand::Show { name } => show(&*in_use(config)?, name),
        ProfileCommand::Check { file, against, ports } => check(file, against, ports, config),
    }
}

fn in_use(config: &Config) -> Result<Arc<Profiles>> {
    match &config.identity.profiles {
        Some(dir) => super::load(dir),
        None => Ok(Profiles::builtin()),
    }
}

fn list(profiles: &Profiles) -> Result<()> {
    let mut text = String::new();
    for profile in profiles.iter() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<20} {}", profile.name, profile.title);
    }
    print(text.as_bytes())
}

fn show(profiles: &Profiles, name: &str) -> Result<()> {
    match profiles.iter().find(|profile| profile.name == name) {
        Some(profile) => print(profile.text.as_bytes()),
        None => {
            let what =
                format!("no profile of this name: {name}: `keywatch profile list` names all");
            Err(Misuse(what).into())
        }
    }
}

fn check(file: &Path, against: &[PathBuf], ports: &[u16], config: &Config) -> Result<()> {
    let profiles = Arc::new(super::with(&[file.to_owned()])?);
    let Some(own) = profiles.iter().next().map(|profile| profile.name.clone()) else {
        return print(format!("{}: ok\n", file.display()).as_bytes());
    };
    if against.is_empty() {
        return print(format!("{}: ok\n", file.display()).as_bytes());
    }
    // Ids are of no interest here: no secret is made or read.
    let mut identifier = Identifier::new(Secret::new([0; 32]));
    identifier.set_profiles(Arc::clone(&profiles));
    identifier.begin_survey();
    let ports = commands::ports(ports, config);
    let decoder = commands::decoder(identifier, &ports, config)?;
    let mut report = Report::new(&own, profiles.places(&own).cloned().collect());
    let (mut decoder, all_read) = each_call(against, &ports, decoder, |call| report.call(call))?;
    let survey = decoder.identifier().survey().unwrap_or_default();
    print(report.text(&survey).as_bytes())?;
    if all_read { Ok(()) } else { Err(AlreadyTold.into()) }
}
