//! llhttp's own tests: Markdown with the bytes of a message and the parser's callbacks.
//!
//! A block agrees when llhttp takes it and the Decoder gives the same methods, targets and statuses
//! without an anomaly that means malformed, or when llhttp refuses it and the Decoder names an anomaly
//! or refuses it too. Blocks for llhttp's lenient modes take what is malformed on purpose: there an
//! anomaly is no disagreement. Blocks in which llhttp's user tells it to pass over a body are left
//! out: nothing on the wire says so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use monitor_core::call::{Anomalies, ApiCall};
use monitor_core::decode::{Counters, Decoder};
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::{Endpoint, Input, Segment, TcpFlags};
use monitor_core::limits::Limits;
use monitor_core::time::EventTime;

use super::Score;

/// What means malformed to llhttp as well; it does not look at hosts or charsets.
const MALFORMED: Anomalies = Anomalies::HEAD_TOO_LARGE
    .union(Anomalies::TOO_MANY_HEADERS)
    .union(Anomalies::BAD_HEAD)
    .union(Anomalies::BAD_CONTENT_LENGTH)
    .union(Anomalies::LENGTH_AND_CHUNKED)
    .union(Anomalies::BAD_TRANSFER_ENCODING)
    .union(Anomalies::BAD_CHUNK)
    .union(Anomalies::LENIENT)
    .union(Anomalies::OBS_FOLD)
    .union(Anomalies::BARE_LF)
    .union(Anomalies::BARE_CR)
    .union(Anomalies::CONTROL_BYTE)
    .union(Anomalies::BAD_FIELD_NAME)
    .union(Anomalies::BAD_VERSION);

/// Error codes that are pauses: on CONNECT, on an upgrade, on the HTTP/2 preface.
const PAUSES: [&str; 3] = ["21", "22", "23"];

/// A request that a response block answers.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Scores every block under `dir/request` and `dir/response`.
pub fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    for kind in ["request", "response"] {
        for file in files(&dir.join(kind))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            for block in blocks(&text).into_iter().filter(|block| !block.skips_body) {
                score.cases += 1;
                match block.compare() {
                    None => score.agreed += 1,
                    Some(why) => {
                        score.disagreed.push(format!("{kind}/{stem} - {}: {why}", block.title));
                    }
                }
            }
        }
    }
    ensure!(score.cases > 0, "no blocks under {}", dir.display());
    Ok(score)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|it| Ok(it?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    Ok(files)
}

/// One test.
#[derive(Default)]
struct Block {
    title: String,
    /// `request`, `response-lenient-headers`, …
    mode: String,
    skips_body: bool,
    bytes: Vec<u8>,
    log: Vec<String>,
}

/// What llhttp says of a block.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    messages: Vec<Message>,
    is_refused: bool,
    /// What follows is not read by it.
    is_paused: bool,
}

/// A message whose head is whole.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    method: String,
    url: String,
    status: Option<u16>,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut block) = (Vec::new(), Block::default());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix('#') {
            block.title = title.trim_start_matches('#').trim().to_owned();
        } else if line.starts_with("<!--") && line.contains("meta=") {
            block.mode = field(line, "\"type\"").unwrap_or_default().to_owned();
            block.skips_body = line.contains("\"skipBody\": true");
        } else if line == "```http" {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            block.bytes = unescape(&body.join("\n"));
        } else if line == "```log" {
            let log = lines.by_ref().take_while(|line| *line != "```");
            block.log = log.map(str::to_owned).collect();
            let title = block.title.clone();
            blocks.push(std::mem::replace(&mut block, Block { title, ..Block::default() }));
        }
    }
    blocks
}

/// The text between the quotes that follow a name.
fn field<'t>(line: &'t str, name: &str) -> Option<&'t str> {
    line.split_once(name)?.1.split('"').nth(1)
}

/// Line ends stand for CRLF; an escaped line end for nothing; `\r`, `\n`, `\t`, `\f` and `\xhh` for
/// themselves.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (first, more.first()) {
            (b'\n', _) => bytes.extend_from_slice(b"\r\n"),
            (b'\\', Some(escaped)) => {
                rest = &more[1..];
                match escaped {
                    b'\n' => {}
                    b'r' => bytes.push(b'\r'),
                    b'n' => bytes.push(b'\n'),
                    b't' => bytes.push(b'\t'),
                    b'f' => bytes.push(0x0c),
                    b'x' => {
                        let digits = rest.get(..2).and_then(|digits| str::from_utf8(digits).ok());
                        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                        rest = rest.get(2..).unwrap_or_default();
                        bytes.extend(byte);
                    }
                    other => bytes.extend_from_slice(&[b'\\', *other]),
                }
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    bytes
}

impl Block {
    /// What differs.
    fn compare(&self) -> Option<String> {
        let expected = self.expected();
        let is_request = self.mode.starts_with("request");
        let (calls, counters) = self.decode(&expected);
        if expected.is_refused {
            let named = calls.iter().any(|call| call.anomalies.intersects(MALFORMED));
            let refused = counters.heads_bad > 0 || counters.flows_not_http > 0;
            return (!named && !refused).then(|| format!("refused there, here {}", show(&calls)));
        }
        let seen: Vec<Message> =
            calls.iter().filter_map(|call| message(call, is_request)).collect();
        let messages: Vec<&Message> =
            expected.messages.iter().filter(|message| message.is_final()).collect();
        let same = messages.len() <= seen.len()
            && (expected.is_paused || calls[messages.len()..].iter().all(is_cut))
            && messages.iter().zip(&seen).all(|(there, here)| there.is(here));
        if !same {
            return Some(format!("there {messages:?}, here {}", show(&calls)));
        }
        let read = &calls[..messages.len().min(calls.len())];
        let named = read.iter().any(|call| call.anomalies.intersects(MALFORMED));
        let lenient = self.mode.contains("lenient");
        (named && !lenient).then(|| format!("taken there, here {}", show(&calls)))
    }

    fn expected(&self) -> Expected {
        let mut expected = Expected { messages: Vec::new(), is_refused: false, is_paused: false };
        let mut message = Message::default();
        for line in &self.log {
            if line.ends_with("message begin") {
                message = Message::default();
            } else if let Some(text) = span(line, "method") {
                message.method += &text;
            } else if let Some(text) = span(line, "url") {
                message.url += &text;
            } else if line.contains(" headers complete ") {
                let status = line.split("status=").nth(1).and_then(|rest| rest.split(' ').next());
                message.status = status.and_then(|status| status.parse().ok());
                expected.messages.push(std::mem::take(&mut message));
            } else if let Some((_, rest)) = line.split_once("error code=") {
                let code = rest.split(' ').next().unwrap_or_default();
                expected.is_paused |= PAUSES.contains(&code);
                expected.is_refused |= !PAUSES.contains(&code);
            }
        }
        expected
    }

    /// What the Decoder makes of the bytes, in a connection of their own.
    fn decode(&self, expected: &Expected) -> (Vec<ApiCall>, Counters) {
        let mut wire = Wire::new();
        if self.mode.starts_with("request") {
            wire.send(true, &self.bytes);
        } else {
            // As many requests as are answered, one after the other.
            let answers = expected.messages.iter().filter(|message| message.is_final()).count();
            wire.send(true, &REQUEST.repeat(answers.max(1)));
            wire.send(false, &self.bytes);
        }
        wire.finish()
    }
}

impl Message {
    /// Interim responses are no calls.
    fn is_final(&self) -> bool {
        !matches!(self.status, Some(100 | 102..=199))
    }

    /// Whether they are the same, where credentials were not taken out.
    fn is(&self, here: &Message) -> bool {
        let same_url = self.url == here.url || here.url.contains("[redacted]");
        self.method == here.method && same_url && self.status == here.status
    }
}

/// The text of a callback.
fn span(line: &str, name: &str) -> Option<String> {
    let quoted = line.split_once(&format!(" span[{name}]=\""))?.1.strip_suffix('"')?;
    Some(String::from_utf8_lossy(&unescape(quoted)).into_owned())
}

fn message(call: &ApiCall, is_request: bool) -> Option<Message> {
    if is_request {
        let request = call.request.as_ref()?;
        let (method, url) = (request.method.to_string(), request.target.to_string());
        return Some(Message { method, url, status: None });
    }
    let status = call.response.as_ref()?.status;
    Some(Message { status, ..Message::default() })
}

/// A call of a head that does not end: no message there.
fn is_cut(call: &ApiCall) -> bool {
    call.anomalies.contains(Anomalies::TRUNCATED)
}

fn show(calls: &[ApiCall]) -> String {
    let line = |call: &ApiCall| {
        let request = call.request.as_ref();
        let request = request.map(|request| format!("{} {}", request.method, request.target));
        let status = call.response.as_ref().and_then(|response| response.status);
        format!("{request:?} {status:?} {:?}", call.anomalies)
    };
    let lines: Vec<String> = calls.iter().map(line).collect();
    format!("[{}]", lines.join(", "))
}

/// A connection between made-up ends.
struct Wire {
    decoder: Decoder,
    ends: [Endpoint; 2],
    next: [u32; 2],
    time: u64,
}

impl Wire {
    fn new() -> Wire {
        let identifier = Identifier::new(Secret::new([0; 32]));
        let ends = [
            Endpoint::new([203, 0, 113, 9].into(), 51_512),
            Endpoint::new([198, 51, 100, 5].into(), 8080),
        ];
        let decoder = Decoder::new(Limits::default(), identifier, &[8080]);
        let mut wire = Wire { decoder, ends, next: [1, 1], time: 0 };
        wire.segment(0, TcpFlags::SYN, b"");
        wire.segment(1, TcpFlags::SYN | TcpFlags::ACK, b"");
        wire.segment(0, TcpFlags::ACK, b"");
        wire
    }

    fn send(&mut self, to_server: bool, bytes: &[u8]) {
        self.segment(usize::from(!to_server), TcpFlags::ACK, bytes);
    }

    fn finish(mut self) -> (Vec<ApiCall>, Counters) {
        self.segment(1, TcpFlags::FIN | TcpFlags::ACK, b"");
        self.segment(0, TcpFlags::FIN | TcpFlags::ACK, b"");
        self.decoder.finish();
        let calls = std::iter::from_fn(|| self.decoder.poll_call()).collect();
        (calls, self.decoder.counters().clone())
    }

    fn segment(&mut self, from: usize, flags: TcpFlags, payload: &[u8]) {
        self.time += 1_000_000;
        self.decoder.handle_input(Input::Segment(Segment {
            time: EventTime(self.time),
            source: self.ends[from],
            target: self.ends[1 - from],
            scope: 0,
            seq: self.next[from],
            ack: self.next[1 - from],
            flags,
            payload,
            missing: 0,
        }));
        let length = u32::try_from(payload.len()).unwrap_or_default();
        let counts = flags.intersects(TcpFlags::SYN | TcpFlags::FIN);
        self.next[from] = self.next[from].wrapping_add(length + u32::from(counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(mode: &str, http: &str, log: &str) -> Block {
        let text = format!(
            "### Title\n\n<!-- meta={{\"type\": \"{mode}\"}} -->\n```http\n{http}\n```\n\n\
             ```log\n{log}\n```\n"
        );
        blocks(&text).remove(0)
    }

    #[test]
    fn a_block_is_compared_by_its_messages() {
        let log = "off=0 message begin\noff=0 len=3 span[method]=\"GET\"\n\
                   off=4 len=1 span[url]=\"/\"\noff=5 len=1 span[url]=\"a\"\n\
                   off=18 headers complete method=1 v=1/1 flags=0 content_length=0";
        let same = |http| block("request", http, log).compare();
        assert_eq!(same("GET /a HTTP/1.1\n\n"), None);
        assert!(same("GET /b HTTP/1.1\n\n").is_some());
        assert!(same("GET  /a HTTP/1.1\n\n").is_some());
        assert_eq!(block("request-lenient-all", "GET  /a HTTP/1.1\n\n", log).compare(), None);
        let refused = format!("{log}\noff=9 error code=9 reason=\"x\"");
        assert!(block("request", "GET /a HTTP/1.1\n\n", &refused).compare().is_some());
        assert_eq!(block("request", "GET /a HTTP/1.x\n\n", &refused).compare(), None);
    }

    #[test]
    fn responses_are_compared_by_status() {
        let log = "off=0 message begin\noff=9 headers complete status=204 v=1/1 flags=0";
        assert_eq!(block("response", "HTTP/1.1 204 x\n\n", log).compare(), None);
        assert!(block("response", "HTTP/1.1 304 x\n\n", log).compare().is_some());
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape("a\\\nb\nc\\r\\n\\t\\f\\xff\\y"), b"ab\r\nc\r\n\t\x0c\xff\\y");
    }
}
