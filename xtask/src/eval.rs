//! `cargo xtask eval`: how well the detectors do in simulated worlds, beside simple rivals.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::build::{cargo, workspace_root};
use crate::suite::Tally;

/// What to measure and what to do with it.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Two small worlds only, as CI does
    #[arg(long)]
    quick: bool,
    /// Worlds of these seeds instead of the usual ones
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// Keys a world
    #[arg(long)]
    keys: Option<u32>,
    /// Say of each miss and each false alarm what it was
    #[arg(long)]
    explain: bool,
    /// Put the tables into docs/accuracy.md
    #[arg(long, conflicts_with_all = ["quick", "check"])]
    write: bool,
    /// Fail when recall or precision is below its floor by more than the margin
    #[arg(long)]
    check: bool,
}

const BEGIN: &str = "<!-- eval: begin -->\n";
const END: &str = "<!-- eval: end -->";

/// What must hold of the quick worlds, in `monitor-sim/floors.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    margin: f64,
    recall: f64,
    public_recall: f64,
    precision: f64,
}

/// One set of seeds.
#[derive(Deserialize)]
struct Measured {
    set: String,
    recall: f64,
    public_recall: f64,
    precision: f64,
    false_alarms_a_key_day: f64,
}

/// Measures, prints, and writes or checks as it was told.
pub fn run(options: &Options) -> Result<()> {
    if options.check {
        return check().map(drop);
    }
    let mut arguments = Vec::new();
    if options.quick {
        arguments.push("--quick".to_owned());
    }
    if let Some(seeds) = &options.seeds {
        arguments.extend(["--seeds".to_owned(), seeds.clone()]);
    }
    if let Some(keys) = options.keys {
        arguments.extend(["--keys".to_owned(), keys.to_string()]);
    }
    if options.explain {
        arguments.push("--explain".to_owned());
    }
    let tables = measured(&arguments)?;
    print!("{tables}");
    if options.write {
        write(&tables, &arguments)?;
    }
    Ok(())
}

/// The quick worlds against the floors.
pub fn check() -> Result<Tally> {
    let path = workspace_root().join("monitor-sim/floors.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let floors: Floors = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let lines = measured(&["--quick".into(), "--json".into()])?;
    for line in lines.lines() {
        let seen: Measured = serde_json::from_str(line).context("what eval printed")?;
        println!(
            "{}: recall {:.2}, of public incidents {:.2}, precision {:.2}, {:.4} false alarms a key-day",
            seen.set, seen.recall, seen.public_recall, seen.precision, seen.false_alarms_a_key_day
        );
        for (what, seen, floor) in [
            ("recall", seen.recall, floors.recall),
            ("recall of public incidents", seen.public_recall, floors.public_recall),
            ("precision", seen.precision, floors.precision),
        ] {
            ensure!(
                seen >= floor - floors.margin,
                "{what} is {seen:.2}, and was {floor:.2}; `cargo xtask eval --quick --explain` says of each miss what it was"
            );
        }
    }
    ensure!(!lines.is_empty(), "eval printed nothing");
    Ok(Tally { passed: 1, failed: 0 })
}

fn measured(arguments: &[String]) -> Result<String> {
    let mut command = cargo();
    command.args([
        "run",
        "--quiet",
        "--profile",
        "eval",
        "--package",
        "monitor-sim",
        "--bin",
        "eval",
        "--",
    ]);
    let output =
        command.args(arguments).stderr(Stdio::inherit()).output().context("starting cargo")?;
    if !output.status.success() {
        bail!("eval ended with {}", output.status);
    }
    String::from_utf8(output.stdout).context("what eval printed")
}

/// Replaces what stands between the marks.
fn write(tables: &str, arguments: &[String]) -> Result<()> {
    let path: PathBuf = workspace_root().join("docs/accuracy.md");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let command = [&["cargo xtask eval --write".to_owned()], arguments].concat().join(" ");
    let text = between(&text, &format!("`{command}` made these tables.\n\n{tables}"))
        .with_context(|| format!("{} has no marks `{}`", path.display(), BEGIN.trim_end()))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn between(text: &str, middle: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{middle}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(between(&text, "new\n"), Some(format!("a\n{BEGIN}new\n{END}\nb\n")));
        assert_eq!(between("a", "new"), None);
    }
}
