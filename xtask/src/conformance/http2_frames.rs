//! HTTP/2 frames: each must give its fields, or one of the errors named.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use monitor_core::decode::http2::frame::{
    CONTENT_BYTES_DEFAULT, Fields, Frame, Head, Kind, SETTING_BYTES, setting,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Score;
use super::hpack::{bytes, files};

#[derive(Deserialize)]
struct Case {
    wire: String,
    /// Codes of which one is to be given.
    error: Option<Vec<u32>>,
    frame: Option<Map<String, Value>>,
}

/// Every file below `dir`.
pub fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    for file in files(dir)? {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let case: Case =
            serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(dir).unwrap_or(&file).with_extension("");
        match compare(&case) {
            Ok(()) => score.agree(),
            Err(how) => score.disagree(&name.display().to_string(), &how.to_string()),
        }
    }
    Ok(score)
}

fn compare(case: &Case) -> Result<()> {
    let wire = bytes(&case.wire)?;
    let parsed =
        Frame::parse(&wire, CONTENT_BYTES_DEFAULT).context("bytes missing or left over")?;
    match (parsed, &case.error, &case.frame) {
        (Err(fault), Some(codes), _) => {
            ensure!(codes.contains(&fault.code()), "error {}, expected {codes:?}", fault.code());
        }
        (Ok(frame), None, Some(expected)) => {
            let seen = describe(&frame);
            ensure!(seen == *expected, "seen {seen:?}, expected {expected:?}");
        }
        (seen, error, _) => bail!("seen {seen:?}, expected error {error:?}"),
    }
    Ok(())
}

/// In the words of the cases.
fn describe(frame: &Frame<'_>) -> Map<String, Value> {
    let Frame { head, opening, content, .. } = frame;
    let block = ("header_block_fragment", text(content));
    let of_padding = [
        ("padding_length", json!(opening.padding_bytes)),
        ("padding", opening.padding_bytes.map_or(Value::Null, |_| text(frame.padding))),
    ];
    let mut payload: Vec<(&str, Value)> = match head.kind {
        Kind::Data => vec![("data", text(content))],
        Kind::Headers | Kind::Continuation => vec![block],
        Kind::PushPromise => vec![block],
        Kind::Settings => {
            let settings = content.as_chunks::<SETTING_BYTES>().0.iter().map(setting);
            vec![("settings", json!(settings.collect::<Vec<_>>()))]
        }
        Kind::GoAway => vec![("additional_debug_data", text(content))],
        Kind::Priority | Kind::ResetStream | Kind::Ping | Kind::WindowUpdate | Kind::Other(_) => {
            vec![]
        }
    };
    match opening.fields {
        Fields::None if head.kind == Kind::Headers => payload.extend([
            ("exclusive", Value::Null),
            ("stream_dependency", Value::Null),
            ("weight", Value::Null),
        ]),
        Fields::None => {}
        Fields::Priority(priority) => payload.extend([
            ("exclusive", json!(priority.exclusive)),
            ("stream_dependency", json!(priority.dependency)),
            ("weight", json!(priority.weight)),
        ]),
        Fields::Code(code) => payload.push(("error_code", json!(code))),
        Fields::Promised(stream) => payload.push(("promised_stream_id", json!(stream))),
        Fields::Opaque(bytes) => payload.push(("opaque_data", text(&bytes))),
        Fields::GoAway { last_stream, code } => {
            payload.extend([("last_stream_id", json!(last_stream)), ("error_code", json!(code))]);
        }
        Fields::Increment(bytes) => payload.push(("window_size_increment", json!(bytes))),
    }
    // The cases name padding for PRIORITY too, which has none.
    if matches!(head.kind, Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Priority) {
        payload.extend(of_padding);
    }
    let payload: Map<String, Value> =
        payload.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let fields = [
        ("length", json!(head.length)),
        ("type", json!(number(head))),
        ("flags", json!(head.flags)),
        ("stream_identifier", json!(head.stream)),
        ("frame_payload", Value::Object(payload)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn number(head: &Head) -> u8 {
    match head.kind {
        Kind::Data => 0,
        Kind::Headers => 1,
        Kind::Priority => 2,
        Kind::ResetStream => 3,
        Kind::Settings => 4,
        Kind::PushPromise => 5,
        Kind::Ping => 6,
        Kind::GoAway => 7,
        Kind::WindowUpdate => 8,
        Kind::Continuation => 9,
        Kind::Other(number) => number,
    }
}

fn text(bytes: &[u8]) -> Value {
    json!(String::from_utf8_lossy(bytes))
}
