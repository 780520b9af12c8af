//! The row of one HTTP call, as every reader of captures has it: method, target, status.

use std::collections::BTreeMap;

use monitor_core::identity::{Identifier, RequestHead, Secret};
use serde_json::Value;

use super::replayed::SECRET;

/// Method, target, status; `-` where not seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) status: String,
}

impl Row {
    /// Of a call of any version of HTTP; `None` of a WebSocket message.
    pub(super) fn of(call: &Value) -> Option<Row> {
        let spoken = call["protocol"].as_str()?;
        (spoken.starts_with("http/") || spoken == "grpc").then(|| Row {
            method: text(&call["request"]["method"]),
            target: text(&call["request"]["target"]),
            status: text(&call["response"]["status"]),
        })
    }

    /// Nothing of it was seen.
    pub(super) fn is_blank(&self) -> bool {
        [&self.method, &self.target, &self.status].into_iter().all(|column| column == "-")
    }
}

/// A value as a column: `-` where there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A target as Keywatch shows it: credentials replaced.
pub(super) fn redacted(method: &str, target: &str) -> String {
    thread_local! {
        static IDENTIFIER: Identifier = Identifier::new(Secret::new(SECRET));
    }
    let head = RequestHead { method, target, headers: &[] };
    IDENTIFIER.with(|identifier| identifier.identify(&head).target.into())
}

/// How two multisets of rows differ; `None` when they do not.
pub(super) fn difference(seen: &[Row], expected: &[Row]) -> Option<String> {
    let mut counts: BTreeMap<&Row, i64> = BTreeMap::new();
    for row in seen {
        *counts.entry(row).or_default() += 1;
    }
    for row in expected {
        *counts.entry(row).or_default() -= 1;
    }
    let list = |sign: i64| {
        let differing = counts.iter().filter(|(_, count)| **count * sign > 0);
        let rows = differing.map(|(row, count)| {
            let times =
                if count.abs() > 1 { format!("{} times ", count.abs()) } else { String::new() };
            format!("\n    {times}{} {:.100} {}", row.method, row.target, row.status)
        });
        rows.take(SHOWN_MAX).collect::<String>()
    };
    let (more, less) = (list(1), list(-1));
    if more.is_empty() && less.is_empty() {
        return None;
    }
    Some(format!(
        "{} rows seen, {} expected\n  only seen:{more}\n  only expected:{less}",
        seen.len(),
        expected.len()
    ))
}

/// Few enough to read.
const SHOWN_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, target: &str, status: &str) -> Row {
        Row { method: method.into(), target: target.into(), status: status.into() }
    }

    #[test]
    fn rows_are_compared_as_multisets() {
        let (one, other) = (row("GET", "/1", "200"), row("GET", "/2", "-"));
        let both = [one.clone(), other.clone()];
        assert_eq!(difference(&both, &[other.clone(), one.clone()]), None);
        let twice = difference(&[one.clone(), one], &both).unwrap();
        assert!(twice.contains("only seen:\n    GET /1 200"), "{twice}");
        assert!(twice.contains("only expected:\n    GET /2 -"), "{twice}");
    }

    #[test]
    fn expected_targets_are_redacted_as_seen_ones_are() {
        assert_eq!(redacted("GET", "/a?b=1"), "/a?b=1");
        assert_eq!(redacted("GET", "/a?signature=1"), "/a?signature=[redacted]");
    }

    #[test]
    fn what_was_not_seen_is_a_dash() {
        let call = serde_json::json!({"protocol": "http/1.1", "request": null,
                                      "response": {"status": 204}});
        assert_eq!(Row::of(&call), Some(row("-", "-", "204")));
        assert_eq!(Row::of(&serde_json::json!({"protocol": "websocket"})), None);
    }
}
