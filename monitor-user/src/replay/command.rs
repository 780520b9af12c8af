//! `keywatch replay`: captures in, the same records out as when they were live.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use monitor_core::identity::{Identifier, Secret};

use super::extract::Extractor;
use super::keylog;
use super::progress::Progress;
use super::reading::{self, Read};
use super::sources::{Source, Sources};
use crate::baseline::Baseline;
use crate::cli::ReplayArgs;
use crate::commands::{self, Outputs};
use crate::config::Config;
use crate::fault::{AlreadyTold, Misuse};
use crate::secret::Count;
use crate::selection::{self, Selection};
use crate::sinks::table::Table;
use crate::sinks::{OnFailure, WhenFull, jsonl, kafka};

/// Replays all files as one stream. A file that cannot be read does not stop the others.
pub(crate) fn replay(args: &ReplayArgs, config: &Config, quiet: bool) -> Result<()> {
    if let Some(flow) = &args.extract {
        return extract(args, flow, config, quiet);
    }
    let ports = commands::ports(&args.common.ports, config);
    if args.publish {
        if !commands::has_sinks(&config.sinks) {
            return Err(Misuse(
                "nowhere to publish: --publish: set brokers under [sinks.kafka] in the config"
                    .into(),
            )
            .into());
        }
        if !config.sinks.kafka.brokers.is_empty() {
            kafka::reach(&config.sinks.kafka, KAFKA_WAIT_MAX)?;
        }
    }
    let selection = Selection::new(&args.select)?;
    let outputs = Outputs {
        calls: args.common.calls.clone(),
        connections: args.common.connections.clone(),
        alerts: args.common.alerts.clone(),
        baseline: args.baseline.clone().map_or(Baseline::None, Baseline::Read),
        opening: jsonl::Opening::Truncate,
        on_failure: OnFailure::Stop,
        secrets: Count::All,
    };
    let sources = Sources::find(&args.files, args.files_from.as_deref())?;
    refuse_overwriting(&sources.files, &args.keylog, &outputs)?;
    let table = wants_table(args, &outputs)?;
    let mut driver = commands::driver(&args.common, config, &ports, &outputs)?;
    driver.select(selection);
    if table {
        driver.add_sink(Box::new(Table::on_stdout()));
    }
    if args.publish {
        commands::add_sinks(&mut driver, config, WhenFull::Wait)?;
    }
    for path in &args.keylog {
        keylog::read(path, driver.decoder())?;
    }
    let progress = Progress::new(&sources, quiet, table && io::stdout().is_terminal());
    let Read { tally, other_ports, all_read } =
        reading::read_all(&sources, &ports, progress, &mut driver);
    let all_written = driver.finish();
    driver.summary().other_ports = other_ports;
    driver.summary().replayed = Some(tally);
    commands::summarise(&mut driver, args.common.summary, quiet);
    // Each fault has had its line.
    if all_read && all_written { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// Writes one connection's traffic and nothing else.
fn extract(args: &ReplayArgs, flow: &str, config: &Config, quiet: bool) -> Result<()> {
    let flow = selection::flow_of("--extract", flow)?;
    let Some(out) = &args.out else {
        return Err(
            Misuse("nowhere to extract to: --extract: name a place with --out".into()).into()
        );
    };
    let ports = commands::ports(&args.common.ports, config);
    let sources = Sources::find(&args.files, args.files_from.as_deref())?;
    // Keys are of no interest here: no secret is made or read.
    let identifier = Identifier::new(Secret::new([0; 32]));
    let mut decoder = commands::decoder(identifier, &ports, config)?;
    for path in &args.keylog {
        keylog::read(path, &mut decoder)?;
    }
    let mut extractor = Extractor::create(flow, decoder, out)?;
    let progress = Progress::new(&sources, quiet, false);
    let Read { all_read, .. } = reading::read_all(&sources, &ports, progress, &mut extractor);
    extractor.finish(out, quiet)?;
    if all_read { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// The table comes when it is asked for, or nothing else is.
fn wants_table(args: &ReplayArgs, outputs: &Outputs) -> Result<bool> {
    let files = [&outputs.calls, &outputs.alerts, &outputs.connections];
    let taken = files.into_iter().flatten().any(|path| path == Path::new("-"));
    if args.table && taken {
        bail!(Misuse("stdout is taken: --table: write the JSON lines to a file".into()));
    }
    let alone = !args.publish && files.iter().all(|file| file.is_none());
    Ok(args.table || (alone && !args.no_table))
}

/// A metadata request to a broker in reach takes milliseconds.
const KAFKA_WAIT_MAX: Duration = Duration::from_secs(5);

/// A replay would cut its own input to nothing.
fn refuse_overwriting(sources: &[Source], keylogs: &[PathBuf], outputs: &Outputs) -> Result<()> {
    let inputs = || sources.iter().map(|source| &source.path).chain(keylogs);
    for output in [&outputs.calls, &outputs.alerts, &outputs.connections].into_iter().flatten() {
        let same = |input: &PathBuf| match (input.canonicalize(), output.canonicalize()) {
            (Ok(input), Ok(output)) => input == output,
            (Ok(_), Err(_)) | (Err(_), _) => false,
        };
        if inputs().any(same) {
            let output = output.display();
            bail!(Misuse(format!("the output is also an input: {output}: write to another file")));
        }
    }
    Ok(())
}
