//! `cargo xtask conformance`: captures and cases that other projects published, and how far Keywatch
//! agrees with what those projects say about them.
//!
//! The collections are not part of this repository. They are looked for in the folder that
//! `KEYWATCH_CORPORA` names, then in `../shared/corpora`; each folder in it is a set.

mod eve;
mod floor;
mod hpack;
mod http2_frames;
mod known;
mod llhttp;
mod ndpi;
mod pcapng;
mod replayed;
mod row;
mod suricata;
mod tshark;
mod wireshark;
mod zeek;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::build::workspace_root;
use crate::process;
use crate::setup::{self, Purpose};
use crate::suite::Tally;
use floor::Floors;

/// Scores the set in a folder.
type Scorer = fn(&Path) -> Result<Score>;

/// Every set that is scored, by the name of its folder.
const SETS: &[(&str, Scorer)] = &[
    ("zeek", zeek::score),
    ("suricata-verify", suricata::score),
    ("wireshark", wireshark::score),
    ("ndpi", ndpi::score),
    ("llhttp", llhttp::score),
    ("hpack", hpack::score),
    ("http2-frames", http2_frames::score),
    ("pcapng", pcapng::score),
];

/// Folders that hold attack payloads to detect, not captures to decode.
const NOT_DECODING: [&str; 2] = ["gotestwaf", "http-params"];

/// What to score and how to show it.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Sets to score; all when not given
    sets: Vec<String>,
    /// Show what was seen and expected where they differ
    #[arg(long)]
    verbose: bool,
    /// Take the result as the new floor, which CI holds from then on
    #[arg(long)]
    bless: bool,
}

/// How far a set agrees.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Cases looked at.
    pub cases: usize,
    /// Cases that agree.
    pub agreed: usize,
    /// The others, by name; after `: ` what was seen and what was expected.
    pub disagreed: Vec<String>,
}

impl Score {
    /// Adds a case that agrees.
    pub fn agree(&mut self) {
        self.cases += 1;
        self.agreed += 1;
    }

    /// Adds a case that does not, and in what.
    pub fn disagree(&mut self, case: &str, how: &str) {
        self.cases += 1;
        self.disagreed.push(format!("{case}: {how}"));
    }

    /// Names of the cases that disagree.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.disagreed.iter().map(|line| line.split_once(": ").map_or(&**line, |(name, _)| name))
    }
}

/// Scores what is there and prints a table; a set below its floor is a failure.
pub fn run(options: &Options) -> Result<ExitCode> {
    process::catch_interrupts()?;
    let fallen = score_and_print(options)?;
    Ok(if fallen == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same as a step of CI.
pub fn check() -> Result<Tally> {
    let fallen = score_and_print(&Options::default())?;
    Ok(Tally { passed: usize::from(fallen == 0), failed: fallen })
}

/// How many sets are below their floor.
fn score_and_print(options: &Options) -> Result<usize> {
    let Some(root) = root() else {
        println!("conformance: no collections here (mend: KEYWATCH_CORPORA=DIR)");
        return Ok(0);
    };
    if let Err(error) = setup::ensure_for(&[Purpose::Build, Purpose::Conformance]) {
        println!("conformance: {error:#}");
    }
    let scores = score_sets(&root, &options.sets)?;
    let known = known::read()?;
    print_table(&scores, &known);
    if options.verbose {
        print_disagreements(&scores, &known);
    }
    if options.bless {
        floor::write(&scores)?;
        return Ok(0);
    }
    let fallen = Floors::read()?.fallen(&scores);
    for line in &fallen {
        println!("conformance: {line}");
    }
    Ok(fallen.len())
}

type Scores = BTreeMap<String, Score>;

/// The folder with the collections, when there is one.
pub fn root() -> Option<PathBuf> {
    let named = std::env::var_os("KEYWATCH_CORPORA").map(PathBuf::from);
    let root = named.or_else(|| Some(workspace_root().parent()?.join("shared/corpora")))?;
    root.is_dir().then_some(root)
}

fn score_sets(root: &Path, chosen: &[String]) -> Result<Scores> {
    for name in chosen {
        let names: Vec<&str> = SETS.iter().map(|(name, _)| *name).collect();
        ensure!(names.contains(&&**name), "no set `{name}`; there are: {}", names.join(", "));
    }
    let mut scores = Scores::new();
    for (name, score) in SETS {
        if !chosen.is_empty() && !chosen.iter().any(|it| it == name) {
            continue;
        }
        let dir = root.join(name);
        if dir.is_dir() {
            let score = score(&dir).with_context(|| format!("scoring {name}"))?;
            scores.insert((*name).to_owned(), score);
        } else {
            println!("conformance: {name} is not there");
        }
    }
    for dir in folders(root)? {
        let name = replayed::name(&dir);
        let scored = SETS.iter().any(|(set, _)| *set == name);
        if chosen.is_empty() && !scored && !NOT_DECODING.contains(&&*name) {
            println!("conformance: nothing here scores {name}");
        }
    }
    Ok(scores)
}

/// The folders in a folder, in order of name.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(dir)?;
    found.retain(|path| path.is_dir());
    Ok(found)
}

/// What is in a folder, in order of name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut found: Vec<PathBuf> = read.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

fn print_table(scores: &Scores, known: &known::Known) {
    println!("\n{:<18} {:>6} {:>7} {:>6}  disagreed", "set", "cases", "agreed", "known");
    for (set, score) in scores {
        let (reasoned, open): (Vec<&str>, Vec<&str>) =
            score.names().partition(|name| known.reason(set, name).is_some());
        println!(
            "{set:<18} {:>6} {:>7} {:>6}  {}",
            score.cases,
            score.agreed,
            reasoned.len(),
            open.join(", ")
        );
    }
    println!("(known: Keywatch is right, and docs/conformance.md says why)");
}

fn print_disagreements(scores: &Scores, known: &known::Known) {
    for (set, score) in scores {
        for (name, line) in score.names().zip(&score.disagreed) {
            println!("\n{set}/{line}");
            if let Some(reason) = known.reason(set, name) {
                println!("  known: {reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_where_the_difference_begins() {
        let mut score = Score::default();
        score.agree();
        score.disagree("one", "seen 1: expected 2");
        assert_eq!((score.cases, score.agreed), (2, 1));
        assert_eq!(score.names().collect::<Vec<_>>(), ["one"]);
    }
}
