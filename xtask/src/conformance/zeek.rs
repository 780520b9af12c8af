//! Zeek's http.log: the rows that it reads out of a capture. A case agrees when the multiset of
//! method, target and status is the same; how far the other columns agree is printed beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::row::{Row, difference, redacted, text};
use super::{Score, folders, replayed};

/// Columns that both have, beside those of the score.
const COLUMNS: [&str; 5] =
    ["host", "version", "user_agent", "request_body_len", "response_body_len"];

/// Scores every trace.
pub(super) fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    let mut columns = [Agreement::default(); COLUMNS.len()];
    for case in folders(dir)? {
        let name = replayed::name(&case);
        let replayed = replayed::replay(&replayed::capture_of(&case)?, None)?;
        let expected = fs::read(case.join("expected.json")).with_context(|| name.clone())?;
        let expected: Vec<Value> =
            serde_json::from_slice(&expected).with_context(|| name.clone())?;
        let seen: Vec<(Row, &Value)> =
            replayed.calls.iter().filter_map(|call| Some((seen_row(call)?, call))).collect();
        let expected: Vec<(Row, &Value)> =
            expected.iter().map(|row| (expected_row(row), row)).collect();
        compare_columns(&seen, &expected, &mut columns);
        let rows =
            |list: &[(Row, &Value)]| list.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>();
        match difference(&rows(&seen), &rows(&expected)).or_else(|| replayed.unread()) {
            None => score.agree(),
            Some(how) => score.disagree(&name, &how),
        }
    }
    let shown: Vec<String> = COLUMNS
        .iter()
        .zip(columns)
        .map(|(name, column)| format!("{name} {} of {}", column.agreed, column.rows))
        .collect();
    println!("zeek: other columns of rows that agree: {}", shown.join(", "));
    Ok(score)
}

#[derive(Clone, Copy, Default)]
struct Agreement {
    rows: usize,
    agreed: usize,
}

/// The target as Zeek logs it: percent-encoding of what can be shown is taken off.
fn seen_row(call: &Value) -> Option<Row> {
    let mut row = Row::of(call)?;
    if row.target == "-" && !call["request"].is_null() {
        // The request was seen, and has no target.
        row.target.clear();
    }
    Some(Row { target: decoded(&row.target), ..row })
}

fn decoded(target: &str) -> String {
    let mut text = String::with_capacity(target.len());
    let mut rest = target;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_graphic() || *byte == b' ') {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push('%');
                rest = after;
            }
        }
    }
    text + rest
}

fn expected_row(row: &Value) -> Row {
    let method = column(row, "method");
    let target = match column(row, "uri") {
        uri if uri == "-" => uri,
        uri => redacted(&method, &uri),
    };
    // 0 is no status: it stands for an answer of HTTP/0.9.
    let status = match column(row, "status_code") {
        none if none == "0" => "-".to_owned(),
        status => status,
    };
    Row { target, status, method }
}

/// A column of Zeek's, which writes `(empty)` for a text without characters.
fn column(row: &Value, name: &str) -> String {
    match text(&row[name]) {
        empty if empty == "(empty)" => String::new(),
        text => text,
    }
}

/// The same columns of a call.
fn call_column(call: &Value, name: &str) -> String {
    let (request, response) = (&call["request"], &call["response"]);
    match name {
        "host" => text(&request["host"]),
        "user_agent" => text(&request["user_agent"]),
        "version" => text(&call["protocol"]).replace("http/", ""),
        "request_body_len" => request["body_bytes"].as_u64().unwrap_or(0).to_string(),
        "response_body_len" => response["body_bytes"].as_u64().unwrap_or(0).to_string(),
        _ => "-".to_owned(),
    }
}

/// Rows that agree, each taken with the one that has most in common with it.
fn compare_columns(
    seen: &[(Row, &Value)],
    expected: &[(Row, &Value)],
    columns: &mut [Agreement; COLUMNS.len()],
) {
    let mut left: BTreeMap<&Row, Vec<&Value>> = BTreeMap::new();
    for (row, call) in seen {
        left.entry(row).or_default().push(call);
    }
    for (row, expected) in expected {
        let Some(calls) = left.get_mut(row) else { continue };
        let agreeing =
            |call: &Value| COLUMNS.map(|name| call_column(call, name) == column(expected, name));
        let common = |call: &Value| agreeing(call).iter().filter(|same| **same).count();
        let Some((best, _)) = calls.iter().enumerate().max_by_key(|(_, call)| common(call)) else {
            continue;
        };
        let call = calls.swap_remove(best);
        for (count, same) in columns.iter_mut().zip(agreeing(call)) {
            count.rows += 1;
            count.agreed += usize::from(same);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_of_zeek_is_read_as_one_of_ours() {
        let row = json!({"method": "GET", "uri": "/?signature=1", "status_code": "200"});
        let row = expected_row(&row);
        assert_eq!((&*row.target, &*row.status), ("/?signature=[redacted]", "200"));
        let none = json!({"method": "-", "uri": "-", "status_code": "-"});
        assert_eq!(expected_row(&none).target, "-");
        let empty = json!({"method": "GET", "uri": "(empty)", "status_code": "200"});
        assert_eq!(expected_row(&empty).target, "");
    }

    #[test]
    fn targets_are_decoded_once_where_they_can_be_shown() {
        assert_eq!(decoded("/a%2Fb%2520%00%zz%"), "/a/b%20%00%zz%");
    }

    #[test]
    fn columns_are_compared_row_by_row() {
        let call = json!({"protocol": "http/1.1", "request": {"method": "GET", "target": "/",
                          "host": "a", "user_agent": null, "body_bytes": 0},
                          "response": {"status": 200, "body_bytes": 5}});
        let zeek = json!({"method": "GET", "uri": "/", "status_code": "200", "host": "a",
                          "version": "1.1", "user_agent": "-", "request_body_len": "0",
                          "response_body_len": "6"});
        let mut columns = [Agreement::default(); COLUMNS.len()];
        let seen = [(seen_row(&call).unwrap(), &call)];
        compare_columns(&seen, &[(expected_row(&zeek), &zeek)], &mut columns);
        let agreed: Vec<usize> = columns.iter().map(|column| column.agreed).collect();
        assert_eq!(agreed, [1, 1, 1, 1, 0]);
    }
}
