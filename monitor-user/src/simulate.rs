//! `keywatch simulate`: calls of an exchange that does not exist, and the truth about its attacks.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use monitor_sim::{Kind, Plan, World};

use crate::fault::{Misuse, write_stderr};

/// What to simulate, and where to write it.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The same number gives the same calls
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// How many days
    #[arg(long, default_value_t = 15, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,

    /// How many API keys
    #[arg(long, default_value_t = 200, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys: u32,

    /// Days at the start without attacks [default: all but the last]
    #[arg(long, value_name = "D")]
    pub quiet_days: Option<u32>,

    /// Attacks, each once: their names, `all`, `public` or `none`
    #[arg(long, default_value = "all", value_name = "NAME", value_delimiter = ',')]
    pub attacks: Vec<String>,

    /// Write calls here as JSON lines; `-` is stdout
    #[arg(short, long, default_value = "-", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,

    /// Write the truth about the attacks here as JSON lines
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub labels: Option<PathBuf>,
}

/// Calls between two lines about how far it is.
const PROGRESS_CALLS: u64 = 1_000_000;

/// Writes calls and truth.
pub(crate) fn simulate(args: &SimulateArgs, quiet: bool) -> Result<()> {
    let quiet_days = args.quiet_days.unwrap_or(args.days - 1);
    if quiet_days >= args.days {
        let days = args.days;
        return Err(Misuse(format!(
            "--quiet-days {quiet_days} leaves no day for attacks of --days {days}: give fewer"
        ))
        .into());
    }
    let attacks = attacks(&args.attacks)?;
    let plan = Plan { seed: args.seed, keys: args.keys, days: args.days, quiet_days, attacks };
    let world = World::new(&plan);
    if let Some(path) = &args.labels {
        let mut file = open(path)?;
        for truth in world.truths() {
            serde_json::to_writer(&mut file, truth).context("writing labels")?;
            file.write_all(b"\n").context("writing labels")?;
        }
        file.flush().with_context(|| format!("cannot write {}", path.display()))?;
    }
    match write_calls(world, &mut *open(&args.output)?, quiet) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.with_context(|| format!("cannot write {}", args.output.display())),
    }
}

fn write_calls(world: World, out: &mut dyn Write, quiet: bool) -> io::Result<()> {
    let mut count = 0u64;
    for call in world {
        serde_json::to_writer(&mut *out, &call)?;
        out.write_all(b"\n")?;
        count += 1;
        if count.is_multiple_of(PROGRESS_CALLS) && !quiet {
            write_stderr(&format!(
                "keywatch: {} million calls, until {}\n",
                count / PROGRESS_CALLS,
                call.time
            ));
        }
    }
    out.flush()
}

fn open(path: &Path) -> Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

fn attacks(names: &[String]) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => kinds.extend(Kind::ALL),
            "public" => kinds.extend(Kind::ALL.iter().filter(|kind| kind.is_public())),
            "none" => {}
            name => {
                let kind =
                    Kind::ALL.iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
                        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                        let known = known.join(", ");
                        Misuse(format!(
                            "no attack is called {name:?}; there are: all, public, none, {known}"
                        ))
                    })?;
                kinds.push(*kind);
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use monitor_core::call::ApiCall;
    use monitor_sim::Truth;

    use super::*;

    #[test]
    fn calls_and_labels_read_back_as_they_were_simulated() {
        let dir = tempfile::tempdir().unwrap();
        let (output, labels) = (dir.path().join("calls"), dir.path().join("labels"));
        let args = SimulateArgs {
            seed: 4,
            days: 1,
            keys: 30,
            quiet_days: Some(0),
            attacks: vec!["public".into(), "path_scan".into()],
            output: output.clone(),
            labels: Some(labels.clone()),
        };
        simulate(&args, true).unwrap();
        let attacks = attacks(&args.attacks).unwrap();
        let plan = Plan { seed: 4, keys: 30, days: 1, quiet_days: 0, attacks };
        let mut world = World::new(&plan);
        let text = std::fs::read_to_string(labels).unwrap();
        let read: Vec<Truth> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, world.truths());
        let text = std::fs::read_to_string(output).unwrap();
        let mut lines = text.lines();
        for call in world.by_ref() {
            assert_eq!(serde_json::from_str::<ApiCall>(lines.next().unwrap()).unwrap(), call);
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn what_is_no_attack_is_misuse() {
        let error = attacks(&["theft".into()]).unwrap_err();
        assert!(error.is::<Misuse>() && error.to_string().contains("theft_spike"), "{error}");
        assert_eq!(attacks(&["none".into()]).unwrap(), []);
        assert_eq!(attacks(&["all".into()]).unwrap().len(), Kind::ALL.len());
    }
}
