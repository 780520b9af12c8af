//! Files of the pcapng format: so many blocks of each type as the text beside a file says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Score, replayed};

/// What the texts call the blocks that Keywatch counts by themselves, and what its summary does.
const NAMES: [(&str, &str); 10] = [
    ("SHB", "section_header"),
    ("IDB", "interface_description"),
    ("EPB", "enhanced_packet"),
    ("SPB", "simple_packet"),
    ("PB", "obsolete_packet"),
    ("NRB", "name_resolution"),
    ("ISB", "interface_statistics"),
    ("DSB", "decryption_secrets"),
    ("CB", "custom"),
    ("DCB", "custom_no_copy"),
];

/// Blocks by type, in the names of the summary. Types of which there are none are left out.
type Counts = BTreeMap<String, u64>;

/// Every file below `dir` that has a text beside it.
pub(super) fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    for file in captures(dir)? {
        let text = fs::read_to_string(file.with_extension("txt"))
            .with_context(|| format!("reading the text beside {}", file.display()))?;
        let expected = expected(&text).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(dir).unwrap_or(&file).with_extension("");
        let replayed = replayed::replay(&file, None)?;
        let seen = seen(&replayed.summary);
        if replayed.exit != Some(0) {
            let how = format!("ended with {:?}: {}", replayed.exit, replayed.said.trim());
            score.disagree(&name.display().to_string(), &how);
        } else if seen == expected {
            score.agree();
        } else {
            let how = format!("seen {seen:?}, expected {expected:?}");
            score.disagree(&name.display().to_string(), &how);
        }
    }
    Ok(score)
}

/// In order of name.
fn captures(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in super::entries(dir)? {
        if path.is_dir() {
            found.extend(captures(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "pcapng") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The lines after `Block counts:`, each `TYPE: COUNT`.
fn expected(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    let lines = text.lines().skip_while(|line| line.trim() != "Block counts:").skip(1);
    for line in lines.take_while(|line| !line.trim().is_empty()) {
        let (kind, count) = line.trim().split_once(": ").with_context(|| line.to_owned())?;
        let count: u64 = count.parse().with_context(|| line.to_owned())?;
        let name = NAMES.iter().find(|(short, _)| *short == kind);
        *counts.entry(name.map_or("unknown", |(_, name)| name).to_owned()).or_default() += count;
    }
    ensure!(!counts.is_empty(), "no counts of blocks");
    Ok(counts)
}

/// Broken blocks are among them: none is expected.
fn seen(summary: &Value) -> Counts {
    let blocks = summary["replayed"]["blocks"].as_object().into_iter().flatten();
    let counts = blocks.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_read_from_the_text() {
        let text = "Category: x\n\nBlock counts:\n\tDCB: 2\n\tSHB: 1\n\tAB: 3\n\tBA: 1\n\nEPB: 9\n";
        let read = expected(text).unwrap();
        let counts = [("custom_no_copy", 2), ("section_header", 1), ("unknown", 4)];
        assert_eq!(read, counts.map(|(name, count)| (name.to_owned(), count)).into());
        assert!(expected("Block counts:\n\n").is_err());
        assert!(expected("Block counts:\n\tSHB: many\n").is_err());
    }

    #[test]
    fn broken_blocks_are_seen_and_missing_ones_are_not() {
        let blocks = json!({"broken": 1, "custom": 0, "section_header": 2});
        let counts = seen(&json!({"replayed": {"blocks": blocks}}));
        let expected = [("broken", 1), ("section_header", 2)];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
        assert_eq!(seen(&Value::Null), Counts::new());
    }
}
