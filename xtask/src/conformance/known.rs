//! Disagreements that are known, each with the reason why Keywatch is right: the table in
//! `docs/conformance.md`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::build::workspace_root;

/// Reasons by set and case.
#[derive(Default)]
pub(super) struct Known(BTreeMap<(String, String), String>);

impl Known {
    /// Why a case of a set disagrees, if that is known.
    pub(super) fn reason(&self, set: &str, case: &str) -> Option<&str> {
        self.0.get(&(set.to_owned(), case.to_owned())).map(String::as_str)
    }
}

/// From the document.
pub(super) fn read() -> Result<Known> {
    let file = workspace_root().join("docs/conformance.md");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(parse(&text))
}

/// Rows of three cells: set, case, reason. Heads and rulers of tables match no case.
fn parse(text: &str) -> Known {
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let (set, rest) = inner.split_once('|')?;
        let (case, reason) = rest.split_once('|')?;
        Some(((cell(set), cell(case)), cell(reason)))
    };
    Known(text.lines().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_set_case_and_reason() {
        let known =
            parse("# T\n| set | case | why |\n|---|---|---|\n| `zeek` | one.pcap | as it is |\n");
        assert_eq!(known.reason("zeek", "one.pcap"), Some("as it is"));
        assert_eq!(known.reason("zeek", "two.pcap"), None);
    }
}
