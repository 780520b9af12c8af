//! The committed floor: what agreed once must go on agreeing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Score, Scores};
use crate::build::workspace_root;

/// Floor of each set, by its name.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Floors(BTreeMap<String, Floor>);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    /// Cases that the set had.
    cases: usize,
    /// How many agreed.
    agreed: usize,
    /// The others.
    disagreed: Vec<String>,
}

impl Floors {
    /// As committed.
    pub(super) fn read() -> Result<Floors> {
        let file = path();
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }

    /// A line for each set that is below its floor.
    pub(super) fn fallen(&self, scores: &Scores) -> Vec<String> {
        let lines = scores.iter().filter_map(|(set, score)| {
            let how = self.0.get(set)?.fallen(score)?;
            Some(format!("{set} has fallen below its floor: {how}"))
        });
        lines.collect()
    }
}

impl Floor {
    /// More cases than at that time may disagree, but no fewer may agree. Fewer cases are another
    /// collection, of which the floor says nothing.
    fn fallen(&self, score: &Score) -> Option<String> {
        if score.cases < self.cases {
            return None;
        }
        if score.cases == self.cases {
            let new: Vec<&str> =
                score.names().filter(|name| !self.disagreed.iter().any(|it| it == name)).collect();
            return (!new.is_empty()).then(|| format!("{} agreed before", new.join(", ")));
        }
        (score.agreed < self.agreed)
            .then(|| format!("{} agree, before it was {}", score.agreed, self.agreed))
    }
}

/// Takes the scores as the floor of their sets.
pub(super) fn write(scores: &Scores) -> Result<()> {
    let mut floors = if path().exists() { Floors::read()? } else { Floors::default() };
    for (set, score) in scores {
        let disagreed = score.names().map(str::to_owned).collect();
        let floor = Floor { cases: score.cases, agreed: score.agreed, disagreed };
        floors.0.insert(set.clone(), floor);
    }
    let text = toml::to_string_pretty(&floors).context("writing the floor")?;
    let about =
        "# What agreed when this was written: `cargo xtask conformance --bless` writes it.\n\n";
    fs::write(path(), format!("{about}{text}")).context("writing the floor")
}

fn path() -> PathBuf {
    workspace_root().join("xtask/src/conformance/floor.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(agreed: usize, disagreed: &[&str]) -> Score {
        let disagreed: Vec<String> = disagreed.iter().map(|name| format!("{name}: x")).collect();
        Score { cases: agreed + disagreed.len(), agreed, disagreed }
    }

    #[test]
    fn what_agreed_must_go_on_agreeing() {
        let floor = Floor { cases: 3, agreed: 2, disagreed: vec!["a".into()] };
        assert_eq!(floor.fallen(&score(3, &[])), None, "better");
        assert_eq!(floor.fallen(&score(2, &["a"])), None, "the same");
        assert!(floor.fallen(&score(2, &["b"])).is_some(), "another one");
        assert!(floor.fallen(&score(1, &["a", "b"])).is_some(), "one more");
        assert_eq!(floor.fallen(&score(2, &["a", "new"])), None, "a new case");
        assert!(floor.fallen(&score(1, &["a", "new", "b"])).is_some(), "fewer of more");
        assert_eq!(floor.fallen(&score(1, &["b"])), None, "another collection");
    }
}
