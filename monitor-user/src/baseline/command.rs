//! `keywatch baseline` and `keywatch alert`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use monitor_core::alert::{AlertId, Entity};
use monitor_core::call::KeyId;
use monitor_core::engine::{Engine, Feedback, KeyView, Past, Said};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::{self, Batch, Lock};
use super::{feedback, feedback_path, path, read};
use crate::cli::{AlertCommand, BaselineCommand, BaselineFile};
use crate::clock::now;
use crate::commands::print;
use crate::config::Config;
use crate::database;
use crate::fault::{Misuse, tell};

/// Form of an export.
const EXPORT_VERSION: u32 = 1;
/// Longer than any state: 2 KiB, five times as long as JSON.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Keys that are written at once.
const BATCH_KEYS: usize = 10_000;

/// First line of an export.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    keywatch_baseline: u32,
}

/// Every other line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: KeyId,
    state: Value,
}

/// What `show` prints.
#[derive(Serialize)]
struct Shown {
    key: KeyId,
    #[serde(flatten)]
    view: KeyView,
}

/// Does what was asked.
pub(crate) fn baseline(what: &BaselineCommand, config: &Config) -> Result<()> {
    match what {
        BaselineCommand::List { file } => list(&load(file, config)?),
        BaselineCommand::Show { key, file } => {
            let engine = load(file, config)?;
            let key = find(&engine, key)?;
            let view = engine.view_key(key).context("the key is gone")?;
            let text = serde_json::to_string_pretty(&Shown { key, view })?;
            print(format!("{text}\n").as_bytes())
        }
        BaselineCommand::Export { to, file } => export(&load(file, config)?, to),
        BaselineCommand::Import { from, file } => import(from, file, config),
    }
}

/// Does what was asked.
pub(crate) fn alert(what: &AlertCommand, config: &Config) -> Result<()> {
    match what {
        AlertCommand::List { file } => {
            let lines: String = load(file, config)?.past_alerts().iter().map(alert_line).collect();
            print(lines.as_bytes())
        }
        AlertCommand::Dismiss { alert, reason, file } => {
            let id: AlertId =
                serde_json::from_value(Value::String(alert.clone())).map_err(|_| {
                    Misuse(format!("`{alert}` is no alert: write a_ and 16 hexadecimal digits"))
                })?;
            if reason.trim().is_empty() || reason.len() > feedback::REASON_BYTES_MAX {
                return Err(Misuse("--reason: write a sentence, at most 1 KiB".into()).into());
            }
            let known = load(file, config)?.past_alerts().into_iter().any(|past| past.id == id);
            if !known {
                bail!("{}", monitor_core::engine::UnknownAlert(id));
            }
            let said = Said::Dismiss { alert: id, reason: reason.clone() };
            say(said, file, config)
        }
        AlertCommand::Mute { key, time, detector, file } => {
            let key = find(&load(file, config)?, key)?;
            if let Some(detector) = detector
                && !is_detector(detector)
            {
                let mend = "write its id as alerts carry it, such as D5";
                return Err(Misuse(format!("`{detector}` is no detector: {mend}")).into());
            }
            let until = now().after(*time);
            say(Said::Mute { key, detector: detector.clone(), until }, file, config)
        }
    }
}

fn load(file: &BaselineFile, config: &Config) -> Result<Engine> {
    let mut engine = Engine::new(config.engine_settings());
    read(&path(file.path.as_deref(), config), &mut engine)?;
    Ok(engine)
}

/// The key that is meant by an id or the beginning of one.
fn find(engine: &Engine, text: &str) -> Result<KeyId> {
    let is_it = |id: &KeyId| id.to_string().starts_with(text);
    let mut found = engine.key_ids().filter(is_it);
    match (found.next(), found.next()) {
        (Some(id), None) if text.starts_with("k_") && text.len() > 2 => Ok(id),
        (Some(_), Some(_)) => bail!("several keys begin with {text}: write more digits"),
        (Some(_), None) | (None, _) => {
            bail!("no such key: {text}: `keywatch baseline list` shows those that are known")
        }
    }
}

fn list(engine: &Engine) -> Result<()> {
    let stdout = io::stdout().lock();
    let mut out = BufWriter::new(stdout);
    let result = engine.key_ids().try_for_each(|id| {
        let Some(view) = engine.view_key(id) else { return Ok(()) };
        let ops: Vec<&str> = view.operations.iter().map(|used| used.op.as_str()).collect();
        let since = &view.first_seen.to_string()[..19];
        let (calls, networks) = (view.calls, view.networks);
        writeln!(
            out,
            "{id}  {since}Z  {calls:>10} calls  {networks:>2} networks  {}",
            ops.join(" ")
        )
    });
    match result.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

fn alert_line(past: &Past) -> String {
    let entity = if let Entity::Key(id) = past.entity {
        id.to_string()
    } else {
        serde_json::to_string(&past.entity).unwrap_or_default()
    };
    let time = &past.first_seen.to_string()[..19];
    let severity = format!("{:?}", past.severity).to_lowercase();
    let detectors = past.detectors.join(" ");
    let mut end = past.part_of.map_or_else(String::new, |group| format!("  [part of {group}]"));
    if let Some(reason) = &past.dismissed {
        end = format!("{end}  [dismissed: {reason}]");
    }
    let line = format!(
        "{}  {time}Z  {severity:<8}  {entity}  {detectors}: {}{end}",
        past.id, past.explanation
    );
    // Whatever a reason holds, it is one line.
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\n']).collect()
}

fn export(engine: &Engine, to: &Path) -> Result<()> {
    let stdout;
    let out: Box<dyn Write> = if to == Path::new("-") {
        stdout = io::stdout().lock();
        Box::new(stdout)
    } else {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        Box::new(file.with_context(|| format!("cannot write the export: {}", to.display()))?)
    };
    let mut out = BufWriter::new(out);
    let mut line = |value: Vec<u8>| out.write_all(&value).and_then(|()| out.write_all(b"\n"));
    let mut result = line(serde_json::to_vec(&Head { keywatch_baseline: EXPORT_VERSION })?);
    for key in engine.key_ids() {
        let state = engine.export_key(key).context("a key has no form")?;
        result = result.and(line(serde_json::to_vec(&Line { key, state })?));
    }
    result
        .and_then(|()| out.flush())
        .with_context(|| format!("cannot write the export: {}", to.display()))
}

fn import(from: &Path, file: &BaselineFile, config: &Config) -> Result<()> {
    let path = path(file.path.as_deref(), config);
    let Some(_lock) = Lock::take(&path)? else {
        bail!("an agent writes the baseline: {}: stop it first", path.display());
    };
    let mut engine = Engine::new(config.engine_settings());
    let feedback = store::load(&path, &mut engine)?.map_or(0, |loaded| loaded.feedback);
    engine.note_changes();
    let keys = take_lines(from, &mut engine)?;
    let database = database::open(&path)?;
    loop {
        let changes = engine.take_changes(BATCH_KEYS);
        let is_last = engine.changed() == 0;
        let common = is_last.then(|| (engine.save_common(), feedback));
        let batch = Batch { keys: changes.keys, gone: changes.gone, common };
        store::write(&database, &batch)
            .with_context(|| format!("cannot write the baseline: {}", path.display()))?;
        if is_last {
            break;
        }
    }
    tell(&format!("{keys} keys imported into {}", path.display()));
    Ok(())
}

/// All lines, or none: nothing is written before the last was read.
fn take_lines(from: &Path, engine: &mut Engine) -> Result<u64> {
    let shown = from.display();
    let input: Box<dyn Read> = if from == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(from).with_context(|| format!("cannot read the export: {shown}"))?)
    };
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut keys = 0;
    for number in 1_u64.. {
        line.clear();
        let mut bounded = (&mut input).take(LINE_BYTES_MAX);
        let got = bounded.read_until(b'\n', &mut line);
        if got.with_context(|| format!("cannot read the export: {shown}"))? == 0 {
            if number == 1 {
                bail!("the export is empty: {shown}");
            }
            break;
        }
        let wrong = |why: &str| format!("the export is broken: {shown}:{number}: {why}");
        if number == 1 {
            let head: Head = serde_json::from_slice(&line)
                .with_context(|| wrong("not as `keywatch baseline export` writes it"))?;
            if head.keywatch_baseline > EXPORT_VERSION {
                bail!(wrong("a newer Keywatch wrote it"));
            }
            continue;
        }
        let parsed: Line = serde_json::from_slice(&line)
            .with_context(|| wrong("not as `keywatch baseline export` writes it"))?;
        engine.import_key(parsed.key, parsed.state).with_context(|| wrong("no state of a key"))?;
        keys += 1;
    }
    Ok(keys)
}

fn say(said: Said, file: &BaselineFile, config: &Config) -> Result<()> {
    let path = feedback_path(&path(file.path.as_deref(), config));
    feedback::append(&path, &Feedback { time: now(), said })?;
    tell("noted; an agent that runs takes it within a minute, or at SIGHUP");
    Ok(())
}

/// `D` and a number.
fn is_detector(text: &str) -> bool {
    let number = text.strip_prefix('D').and_then(|digits| digits.parse::<u8>().ok());
    number.is_some_and(|number| number > 0)
}
