//! The exchange's registry of keys: JSON lines or CSV.
//!
//! Fields beyond those that count are passed over, and no value is shown: an export may hold the keys
//! themselves.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use compact_str::CompactString;
use monitor_core::call::{KeyId, Operation};
use monitor_core::policy::{Moment, Registered};
use serde::Deserialize;
use serde_json::Value;

use crate::fault::Misuse;

/// Bytes of a registry: a million keys with 200 B each.
pub(super) const BYTES_MAX: u64 = 256 << 20;

/// Keys of a registry: as many as the Engine knows.
const KEYS_MAX: usize = 1_000_000;

/// A line, before its values are read.
#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    owner: Option<String>,
    class: Option<String>,
    created: Option<String>,
    revoked: Option<String>,
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Permissions {
    List(Vec<String>),
    Text(String),
}

/// Reads a registry file.
pub(super) fn load(path: &Path) -> Result<Vec<Registered>> {
    let text = read(path, BYTES_MAX, "the key registry")?;
    parse(&text, &path.display().to_string())
}

/// Reads a text file of a bounded size; `what` is how it is called.
pub(super) fn read(path: &Path, bytes_max: u64, what: &str) -> Result<String> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("cannot read {what}: {shown}"))?;
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {what}: {shown}"))?;
    if text.len() as u64 > bytes_max {
        let most = bytes_max >> 20;
        return Err(Misuse(format!("{what} is larger than {most} MiB: {shown}: shorten it")).into());
    }
    Ok(text)
}

/// Reads a registry; `name` is what faults call it.
pub(super) fn parse(text: &str, name: &str) -> Result<Vec<Registered>> {
    let wrong =
        |line: u64, what: &str| Misuse(format!("wrong key registry: {name}:{line}: {what}"));
    let mut registered = Vec::new();
    let mut add = |number: u64, line: Line| {
        if registered.len() == KEYS_MAX {
            return Err(wrong(number, "more than 1000000 keys: split it, or leave out dead keys"));
        }
        registered.push(key(line).map_err(|what| wrong(number, &what))?);
        Ok(())
    };
    if text.trim_start().starts_with('{') {
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() {
                continue;
            }
            // The reason would quote the line.
            let read =
                serde_json::from_str::<Value>(line).map_err(|_| wrong(number, "not JSON"))?;
            let what = "not a key: write {\"key\":\"k_…\",\"class\":\"…\",\"permissions\":[…]}";
            let read = serde_json::from_value(read).map_err(|_| wrong(number, what))?;
            add(number, read)?;
        }
        return Ok(registered);
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let has_key = reader.headers().is_ok_and(|names| names.iter().any(|name| name == "key"));
    if !has_key && !text.trim().is_empty() {
        return Err(wrong(1, "no column `key`: write a first line such as key,owner,class").into());
    }
    let headers = reader.headers().cloned().unwrap_or_default();
    let mut record = csv::StringRecord::new();
    loop {
        let number = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                return Err(wrong(number, "not as many fields as the first line names").into());
            }
        }
        let number = record.position().map_or(number, csv::Position::line);
        let field = |name: &str| {
            let place = headers.iter().position(|header| header == name)?;
            record.get(place).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let line = Line {
            key: field("key"),
            owner: field("owner"),
            class: field("class"),
            created: field("created"),
            revoked: field("revoked"),
            permissions: field("permissions").map(Permissions::Text),
        };
        add(number, line)?;
    }
    Ok(registered)
}

fn key(line: Line) -> Result<Registered, String> {
    let text = line.key.ok_or("no `key`")?;
    let key: KeyId = serde_json::from_value(Value::String(text)).map_err(
        |_| "`key` is no id of a key, which is k_ and 32 hex digits; `keywatch keys hash` gives it",
    )?;
    let moment = |name: &str, text: Option<String>| {
        let read = text.filter(|text| !text.is_empty()).map(Moment::try_from).transpose();
        read.map_err(|_| format!("`{name}` is no moment: write 2026-11-01 or 2026-11-01T12:00:00Z"))
    };
    let word = |text: Option<String>| text.filter(|it| !it.is_empty()).map(CompactString::from);
    Ok(Registered {
        key,
        owner: word(line.owner),
        class: word(line.class),
        created: moment("created", line.created)?,
        revoked: moment("revoked", line.revoked)?,
        permissions: line.permissions.map(operations).transpose()?,
    })
}

fn operations(permissions: Permissions) -> Result<Vec<Operation>, String> {
    let words: Vec<String> = match permissions {
        Permissions::List(words) => words,
        Permissions::Text(text) => {
            let words = text.split([' ', '|', ';', ',']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        }
    };
    let operation = |word: &String| {
        let word = word.to_ascii_lowercase();
        Operation::ALL.iter().find(|op| op.as_str() == word).copied().ok_or_else(|| {
            let all: Vec<&str> = Operation::ALL.iter().map(|op| op.as_str()).collect();
            format!("`permissions` has one that is not known: they are {}", all.join(", "))
        })
    };
    words.iter().map(operation).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "k_00000000000000000000000000000001";

    #[test]
    fn both_forms_say_the_same() {
        let csv = format!(
            "key, owner, extra, permissions, created, revoked, class\n\
             {KEY},\"desk, one\", x, read|Trade, 2026-01-01, , maker\n"
        );
        let json = format!(
            "{{\"key\":\"{KEY}\",\"owner\":\"desk, one\",\"permissions\":[\"read\",\"trade\"],\
             \"created\":\"2026-01-01\",\"revoked\":null,\"class\":\"maker\",\"more\":7}}\n\n"
        );
        let (csv, json) = (parse(&csv, "r").unwrap(), parse(&json, "r").unwrap());
        assert_eq!(csv, json);
        assert_eq!(csv[0].permissions, Some(vec![Operation::Read, Operation::Trade]));
        assert_eq!(parse("", "r").unwrap(), []);
    }

    #[test]
    fn each_fault_is_one_line_and_shows_no_value() {
        for (text, line) in [
            ("owner\ndesk", "r:1: no column `key`: write a first line such as key,owner,class"),
            (
                "key\nmade-up-raw-key",
                "r:2: `key` is no id of a key, which is k_ and 32 hex digits; `keywatch keys hash` \
                 gives it",
            ),
            ("key,owner\na,b,c", "r:2: not as many fields as the first line names"),
            ("{\"key\":\"made-up-raw-key\"", "r:1: not JSON"),
            (
                "{\"key\":7}",
                "r:1: not a key: write {\"key\":\"k_…\",\"class\":\"…\",\"permissions\":[…]}",
            ),
            ("{\"owner\":\"made-up-raw-key\"}", "r:1: no `key`"),
        ] {
            let fault = parse(text, "r").unwrap_err().to_string();
            assert_eq!(fault, format!("wrong key registry: {line}"), "{text}");
        }
        let text = format!("key,permissions\n{KEY},made-up-raw-key");
        let fault = parse(&text, "r").unwrap_err().to_string();
        assert!(fault.contains("r:2: `permissions` has one") && !fault.contains("made-up"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[key,owner{}\":\n\\[\\] a-f0-9_]{0,80}") {
            let _ = parse(&text, "r");
        }
    }
}
