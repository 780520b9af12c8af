//! `keywatch profile`.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use monitor_core::decode::Decoder;
use monitor_core::engine::Impairment;
use monitor_core::identity::{Identifier, Profiles, Secret};
use monitor_core::input::Input;
use monitor_core::time::EventTime;

use super::report::Report;
use crate::cli::ProfileCommand;
use crate::commands::{self, print};
use crate::config::Config;
use crate::fault::{AlreadyTold, Misuse};
use crate::replay::reading::{Taker, over};
use crate::secret;

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
    let decoder = Decoder::new((&config.limits).into(), identifier, &ports)
        .with_hash_seed(secret::random_seed()?);
    let mut surveyor = Surveyor { decoder, report: Report::new(&own) };
    let all_read = over(against, &ports, &mut surveyor)?;
    surveyor.decoder.finish();
    surveyor.take();
    let survey = surveyor.decoder.identifier().survey().unwrap_or_default();
    print(surveyor.report.text(&survey).as_bytes())?;
    if all_read { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// Decodes, and counts what comes of it.
struct Surveyor {
    decoder: Decoder,
    report: Report,
}

impl Surveyor {
    fn take(&mut self) {
        while let Some(call) = self.decoder.poll_call() {
            self.report.call(&call);
        }
        while self.decoder.poll_connection().is_some() {}
    }
}

impl Taker for Surveyor {
    fn input(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self.decoder.handle_input(input);
        self.take();
        ControlFlow::Continue(())
    }

    fn impairment(&mut self, _time: EventTime, _what: &Impairment) {}

    fn ports(&mut self, ports: &[u16]) {
        self.decoder.add_server_ports(ports);
    }

    fn calls(&self) -> u64 {
        self.decoder.counters().calls
    }
}
