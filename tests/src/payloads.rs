//! Attacks in text, and what is none, by lists that other projects published (`docs/accuracy.md`, Payloads).
//!
//! They lie where those of `cargo xtask conformance` do; without them these tests are left out and named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use monitor_core::call::{Payload, Request};
use monitor_core::identity::{Identifier, RequestHead, Secret};
use xtask::conformance;

use crate::trial;

type Run = fn(&Path) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, &str, Run); 2] = [
        (
            "public_payloads_are_told_from_ordinary_values",
            "http-params",
            public_payloads_are_told_from_ordinary_values,
        ),
        (
            "public_probes_are_hit_and_plain_texts_are_not",
            "gotestwaf",
            public_probes_are_hit_and_plain_texts_are_not,
        ),
    ];
    let corpora: Option<PathBuf> = conformance::root();
    tests
        .into_iter()
        .filter_map(|(name, set, run)| {
            let name = format!("payloads::{name}");
            let Some(corpora) = corpora.clone().filter(|it| it.join(set).is_dir()) else {
                println!("left out: {name}: no collection {set}");
                return None;
            };
            Some(trial(name, move || run(&corpora)))
        })
        .collect()
}

/// Says what is in a text, wherever it stands.
struct Judge(Identifier);

impl Judge {
    fn new() -> Judge {
        Judge(Identifier::new(Secret::new([7; 32])))
    }

    fn parameter(&self, value: &str) -> Option<Payload> {
        let target = format!("/search?a=1&q={}", encoded(value));
        let head = RequestHead { method: "GET", target: &target, headers: &[] };
        self.0.identify(&head).detail?.payload
    }

    fn body(&self, text: &str) -> Option<Payload> {
        let head = RequestHead { method: "POST", target: "/", headers: &[] };
        let mut identified = self.0.identify(&head);
        let request = Request {
            method: "POST".into(),
            host: None,
            target: "/".into(),
            path: "/".into(),
            user_agent: None,
            header_order: None,
            body_bytes: text.len() as u64,
        };
        self.0.read_body(&request, &mut identified, text.as_bytes());
        identified.detail?.payload
    }
}

/// Percent-encoded, as clients do.
fn encoded(value: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encode = |byte: u8| match safe(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}

/// HttpParamsDataset: `"payload","length","attack_type","label"`, quotes doubled.
fn http_params(text: &str) -> Vec<(String, String)> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    row.push(field);
    rows.push(row);
    let rows = rows.into_iter().skip(1).filter(|row| row.len() == 4);
    rows.map(|mut row| (row.swap_remove(0), row.swap_remove(2))).collect()
}

/// `docs/accuracy.md`, Payloads.
fn public_payloads_are_told_from_ordinary_values(corpora: &Path) -> Result<()> {
    let bytes = fs::read(corpora.join("http-params/payload_train.csv"))?;
    let judge = Judge::new();
    let mut counts: BTreeMap<(String, Option<Payload>), u32> = BTreeMap::new();
    for (value, class) in http_params(&String::from_utf8_lossy(&bytes)) {
        *counts.entry((class, judge.parameter(&value))).or_default() += 1;
    }
    let count = |class: Option<&str>, told: Option<Payload>| -> u32 {
        let fits = |key: &&(String, Option<Payload>)| {
            class.is_none_or(|class| key.0 == class) && (told.is_none() || key.1 == told)
        };
        counts.iter().filter(|(key, _)| fits(key)).map(|(_, n)| n).sum()
    };
    for (class, kind, recall_min) in [
        ("sqli", Payload::Sql, 0.99),
        ("xss", Payload::Script, 0.97),
        ("cmdi", Payload::Command, 0.65),
        ("path-traversal", Payload::Path, 0.78),
    ] {
        let (all, hit) = (count(Some(class), None), count(Some(class), Some(kind)));
        let recall = f64::from(hit) / f64::from(all);
        let precision = f64::from(hit) / f64::from(count(None, Some(kind)));
        println!("{class:15} {all:5} recall {recall:.4} precision {precision:.4}");
        ensure!(recall >= recall_min, "{class}: recall {recall}");
        ensure!(precision >= 0.97, "{class}: precision {precision}");
    }
    let false_alarms: u32 =
        counts.iter().filter(|(key, _)| key.0 == "norm" && key.1.is_some()).map(|(_, n)| n).sum();
    println!("ordinary values {} false alarms {false_alarms}", count(Some("norm"), None));
    ensure!(false_alarms <= 2, "{false_alarms} false alarms");
    Ok(())
}

/// Texts of a gotestwaf list, one a line: `  - 'text'`.
fn gotestwaf(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let items = text.lines().take_while(|line| !line.starts_with("encoder"));
    let items = items.filter_map(|line| line.strip_prefix("  - "));
    let bare = |item: &str| {
        let quoted = |quote| item.strip_prefix(quote).and_then(|it| it.strip_suffix(quote));
        match (quoted('\''), quoted('"')) {
            (Some(text), _) => text.replace("''", "'"),
            (None, Some(text)) => text.to_owned(),
            (None, None) => item.to_owned(),
        }
    };
    Ok(items.map(bare).collect())
}

/// The same of gotestwaf: hits on its attacks, silence on its probes for false alarms.
fn public_probes_are_hit_and_plain_texts_are_not(corpora: &Path) -> Result<()> {
    let judge = Judge::new();
    let folder = corpora.join("gotestwaf");
    let plain = gotestwaf(&folder.join("false-pos/texts.yml"))?;
    let ways = |text: &str| {
        let json = serde_json::json!({ "text": text }).to_string();
        let form = format!("a=1&text={}", encoded(text));
        [judge.parameter(text), judge.body(&json), judge.body(&form)]
    };
    for text in &plain {
        ensure!(ways(text) == [None; 3], "{text}: {:?}", ways(text));
    }
    let (mut all, mut hit) = (0, 0);
    for list in ["graphql", "graphql-post", "grpc", "non-crud", "rest", "soap"] {
        for text in gotestwaf(&folder.join(format!("owasp-api/{list}.yml")))? {
            all += 1;
            hit += u32::from(ways(&text).iter().all(Option::is_some));
        }
    }
    println!("gotestwaf: {hit} of {all} attacks in every place, 0 of {} plain texts", plain.len());
    ensure!(all > 0 && !plain.is_empty(), "the lists are empty");
    ensure!(hit == all, "{hit} of {all} attacks");
    Ok(())
}
