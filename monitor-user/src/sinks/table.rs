//! A table for people: a line for each call and each alert.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::Result;
use monitor_core::alert::{Alert, Entity, network_name};
use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Sink;
use super::jsonl::ReaderGone;
use crate::shown::{Bytes, Micros, harmless};

/// As large as what a pipe takes at once on Linux (pipe(7)).
const BUFFER_BYTES: usize = 64 << 10;
/// A narrow terminal gets fewer columns, so that so much is left for what was asked.
const WHAT_WIDTH_MIN: usize = 28;
/// So much of it stays, whatever was odd about the call.
const HOST_WIDTH_MIN: usize = 8;
/// What an alert's later lines are moved in by.
const INDENT: &str = "      ";

/// A column before the last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Time,
    Client,
    Key,
    Method,
    Status,
    Outcome,
    Latency,
    Bytes,
}

impl Column {
    const ALL: [Column; 8] = [
        Column::Time,
        Column::Client,
        Column::Key,
        Column::Method,
        Column::Status,
        Column::Outcome,
        Column::Latency,
        Column::Bytes,
    ];

    /// What a narrow terminal does without first.
    const DISPENSABLE: [Column; 5] =
        [Column::Bytes, Column::Outcome, Column::Key, Column::Latency, Column::Client];

    fn name(self) -> &'static str {
        match self {
            Column::Time => "time (UTC)",
            Column::Client => "client",
            Column::Key => "key",
            Column::Method => "method",
            Column::Status => "status",
            Column::Outcome => "outcome",
            Column::Latency => "latency",
            Column::Bytes => "up/down",
        }
    }

    fn width(self) -> usize {
        match self {
            Column::Time => "20:00:00.000".len(),
            Column::Client => "203.0.113.255:65535".len(),
            Column::Key => "k_00000000".len(),
            Column::Method => 7,
            Column::Status => 6,
            Column::Latency => "latency".len(),
            // Only that of an address that is not on the list is longer.
            Column::Outcome => "permission_denied".len(),
            Column::Bytes => "9.9k/9.9k".len(),
        }
    }
}

/// Writes the table.
pub struct Table<W: Write> {
    writer: BufWriter<W>,
    columns: Vec<Column>,
    /// Columns of the terminal; `None`: nothing is cut.
    width: Option<usize>,
    line: String,
    cell: String,
    /// Day of the last line, counted from 1970.
    day: Option<u64>,
}

impl Table<io::Stdout> {
    /// On stdout, as wide as the terminal if it is one.
    pub fn on_stdout() -> Table<io::Stdout> {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok());
        let width = size.flatten().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Table::new(stdout, width)
    }
}

impl<W: Write> Table<W> {
    fn new(writer: W, width: Option<usize>) -> Table<W> {
        let mut columns = Column::ALL.to_vec();
        let taken = |columns: &[Column]| columns.iter().map(|column| column.width() + 1).sum();
        for column in Column::DISPENSABLE {
            let taken: usize = taken(&columns);
            if width.is_some_and(|width| width < taken + WHAT_WIDTH_MIN) {
                columns.retain(|kept| *kept != column);
            }
        }
        let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        Table { writer, columns, width, line: String::new(), cell: String::new(), day: None }
    }

    /// The names of the columns, and each day when it begins.
    fn heads(&mut self, time: EventTime) -> Result<()> {
        const DAY_SECS: u64 = 86_400;
        let day = time.secs() / DAY_SECS;
        if self.day == Some(day) {
            return Ok(());
        }
        if self.day.is_none() {
            for place in 0..self.columns.len() {
                let column = self.columns[place];
                self.cell.push_str(column.name());
                self.put(column);
            }
            self.line.push_str("what");
            self.end()?;
        }
        self.day = Some(day);
        let time = time.to_string();
        self.line.push_str(time.split('T').next().unwrap_or(&time));
        self.end()
    }

    /// Adds the cell to the line.
    fn put(&mut self, column: Column) {
        let cell = match self.width {
            Some(_) => cut(&self.cell, column.width()),
            None => (self.cell.as_str(), ""),
        };
        self.line.push_str(cell.0);
        self.line.push_str(cell.1);
        let taken = cell.0.width() + cell.1.width();
        self.line.extend(std::iter::repeat_n(' ', column.width().saturating_sub(taken) + 1));
        self.cell.clear();
    }

    /// Writes the line.
    fn end(&mut self) -> Result<()> {
        let line = self.line.trim_end();
        let (line, more) = self.width.map_or((line, ""), |width| cut(line, width));
        let parts = [line, more, "\n"];
        let result = parts.iter().try_for_each(|part| self.writer.write_all(part.as_bytes()));
        self.line.clear();
        named(result)
    }

    fn fill(&mut self, column: Column, call: &ApiCall) {
        let cell = &mut self.cell;
        let response = call.response.as_ref();
        // Writing to a String cannot fail.
        let _ = match column {
            Column::Time => {
                let time = call.time.to_string();
                write!(cell, "{}", time.get(11..23).unwrap_or(&time))
            }
            Column::Client => write!(cell, "{}", call.flow.client),
            Column::Key => match &call.key {
                Some(key) => write!(cell, "{}", &key.id.to_string()[..Column::Key.width()]),
                None => write!(cell, "-"),
            },
            Column::Method => match &call.request {
                Some(request) => write!(cell, "{}", harmless(&request.method)),
                None => write!(cell, "-"),
            },
            Column::Status => {
                let status = response.and_then(|response| response.status);
                let grpc = call.grpc.as_ref().and_then(|grpc| grpc.status);
                match (status, grpc) {
                    (Some(status), Some(grpc)) => write!(cell, "{status}/{grpc}"),
                    (Some(status), None) => write!(cell, "{status}"),
                    (None, Some(grpc)) => write!(cell, "-/{grpc}"),
                    (None, None) => write!(cell, "-"),
                }
            }
            Column::Outcome => write!(cell, "{}", call.outcome.map_or("-", |it| it.as_str())),
            Column::Latency => match call.latency_us {
                Some(latency_us) => write!(cell, "{}", Micros(latency_us)),
                None => write!(cell, "-"),
            },
            Column::Bytes => match &call.request {
                Some(request) => write!(cell, "{}/", Bytes(request.body_bytes)),
                None => write!(cell, "-/"),
            }
            .and_then(|()| match response {
                Some(response) => write!(cell, "{}", Bytes(response.body_bytes)),
                None => write!(cell, "-"),
            }),
        };
    }

    /// Host and path, then what was odd, which is not cut off first.
    fn what(&mut self, call: &ApiCall) {
        let mut odd = String::new();
        for (name, _) in call.anomalies.iter_names() {
            let separator = if odd.is_empty() { " [" } else { "," };
            let _ = write!(odd, "{separator}{}", name.to_lowercase());
        }
        if odd.is_empty() && !call.complete {
            odd.push_str(" [incomplete");
        }
        if !odd.is_empty() {
            odd.push(']');
        }
        let what = match &call.request {
            Some(request) => {
                let host = request.host.as_deref().unwrap_or_default();
                let (host, path) = (harmless(host), harmless(&request.path));
                format!("{host}{}{path}", if path.starts_with('/') { "" } else { " " })
            }
            None => "(request not seen)".to_owned(),
        };
        let what = what.trim_start();
        let left = self
            .width
            .map(|width| width.saturating_sub(self.line.width() + odd.width()).max(HOST_WIDTH_MIN));
        let (what, more) = left.map_or((what, ""), |left| cut(what, left));
        self.line.extend([what, more, &odd]);
    }
}

impl<W: Write> Sink for Table<W> {
    fn name(&self) -> String {
        "stdout".into()
    }

    fn call(&mut self, call: &ApiCall, _ordinal: u64) -> Result<()> {
        self.heads(call.time)?;
        for place in 0..self.columns.len() {
            let column = self.columns[place];
            self.fill(column, call);
            self.put(column);
        }
        self.what(call);
        self.end()
    }

    fn alert(&mut self, alert: &Alert) -> Result<()> {
        self.heads(alert.time)?;
        let severity = format!("{:?}", alert.severity).to_uppercase();
        let again = if alert.revision > 0 { " (changed)" } else { "" };
        let entity = match alert.entity {
            Entity::Key(id) => id.to_string(),
            Entity::Client(ip) => format!("client {ip}"),
            Entity::Network(first) => format!("network {}", network_name(first)),
            Entity::Group(id) => format!("group {id}"),
            Entity::Host => "this host".to_owned(),
        };
        let title = harmless(&alert.title);
        self.line = format!("ALERT {severity}{again}: {title}: {entity}");
        self.end()?;
        for text in [&alert.explanation, alert.first_step.as_ref()] {
            self.line = format!("{INDENT}{}", harmless(text));
            self.wrapped()?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let result = self.writer.flush();
        named(result)
    }

    fn finish(&mut self) -> Result<()> {
        self.flush()
    }
}

impl<W: Write> Table<W> {
    /// Writes a line of words that may be longer than the terminal is wide.
    fn wrapped(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.line);
        let width = self.width.unwrap_or(usize::MAX);
        self.line.push_str(INDENT);
        for word in text.split_whitespace() {
            let begun = self.line.len() > INDENT.len();
            if begun && self.line.width() + 1 + word.width() > width {
                self.end()?;
                self.line.push_str(INDENT);
            } else if begun {
                self.line.push(' ');
            }
            self.line.push_str(word);
        }
        self.end()
    }
}

/// As much of a text as fits, and what shows that it was cut.
fn cut(text: &str, width: usize) -> (&str, &'static str) {
    if text.width() <= width {
        return (text, "");
    }
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        // One column is for the mark.
        taken >= width
    });
    (&text[..end.map_or(text.len(), |(at, _)| at)], if width == 0 { "" } else { "…" })
}

fn named(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use monitor_core::alert::{AlertId, Severity};
    use monitor_core::call::{
        Anomalies, Flow, FlowId, Grpc, Key, KeyId, Operation, Outcome, Protocol, Request, Response,
    };
    use monitor_core::input::Endpoint;

    use super::*;

    fn call(path: &str, anomalies: Anomalies) -> ApiCall {
        ApiCall {
            time: EventTime(1_795_464_000_123_456_789),
            flow: Arc::new(Flow {
                id: FlowId(1),
                client: Endpoint::new([203, 0, 113, 9].into(), 51_512),
                server: Endpoint::new([10, 0, 0, 5].into(), 443),
                proxied_for: None,
                tls: false,
                server_name: None,
                ja4: None,
                process: None,
                pid: None,
                container: None,
            }),
            protocol: Protocol::Http11,
            request: Some(Request {
                method: "GET".into(),
                host: Some("api.example.com".into()),
                target: path.into(),
                path: path.into(),
                user_agent: None,
                header_order: None,
                body_bytes: 0,
            }),
            response: Some(Response { status: Some(200), body_bytes: 1234, quota: None }),
            latency_us: Some(1250),
            key: Some(Key {
                id: KeyId(0x1f2e_3d4c << 96),
                source: "header:x-api-key".into(),
                profile: "generic".into(),
                former: None,
            }),
            op: Operation::Read,
            symbol: None,
            object_ids: Vec::new(),
            outcome: Some(Outcome::Ok),
            stream_id: None,
            grpc: None,
            token: None,
            detail: None,
            complete: true,
            anomalies,
        }
    }

    /// The table without its two head lines.
    fn table(width: Option<usize>, calls: &[ApiCall]) -> Vec<String> {
        let mut table = Table::new(Vec::new(), width);
        for (ordinal, call) in calls.iter().enumerate() {
            table.call(call, ordinal as u64).unwrap();
        }
        let text = String::from_utf8(table.writer.into_inner().unwrap()).unwrap();
        text.lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn a_call_is_a_line_that_fits_the_terminal() {
        let call = call("/api/v3/account", Anomalies::GAP | Anomalies::MIDSTREAM);
        let whole = "20:00:00.123 203.0.113.9:51512   k_1f2e3d4c GET     200    ok                \
                     1.25ms  0/1.2k    api.example.com/api/v3/account [gap,midstream]";
        for (width, expected) in [
            (None, whole),
            (Some(160), whole),
            (
                Some(128),
                "20:00:00.123 203.0.113.9:51512   k_1f2e3d4c GET     200    ok                \
                 1.25ms  0/1.2k    api.example.com/… [gap,midstream]",
            ),
            (
                Some(80),
                "20:00:00.123 203.0.113.9:51512   GET     200    api.example.com… [gap,midstream]",
            ),
            (Some(50), "20:00:00.123 GET     200    api.exa… [gap,midstre…"),
            (Some(10), "20:00:00.…"),
        ] {
            let lines = table(width, std::slice::from_ref(&call));
            assert_eq!(lines, [expected], "{width:?}");
        }
    }

    #[test]
    fn hostile_text_does_not_reach_the_terminal() {
        let mut hostile = call("/\u{1b}]0;owned\u{7}\n\u{202e}/漢字", Anomalies::empty());
        if let Some(request) = &mut hostile.request {
            request.host = Some("a\r\nb".into());
            request.method = "G\u{9b}2J".into();
        }
        for width in [None, Some(200), Some(80), Some(41), Some(3), Some(1)] {
            let lines = table(width, std::slice::from_ref(&hostile));
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].chars().any(|c| c.is_control() || c == '\u{202e}'), "{lines:?}");
            assert!(width.is_none_or(|width| lines[0].width() <= width), "{lines:?}");
        }
    }

    #[test]
    fn what_was_not_seen_is_a_dash() {
        let mut half = call("/", Anomalies::empty());
        (half.request, half.key, half.latency_us, half.outcome) = (None, None, None, None);
        half.complete = false;
        let expected = "20:00:00.123 203.0.113.9:51512   -          -       200    -                 \
                        -       -/1.2k    (request not seen) [incomplete]";
        assert_eq!(table(None, &[half]), [expected]);
        let mut grpc = call("/shop.Orders/Place", Anomalies::empty());
        grpc.grpc = Some(Box::new(Grpc { status: Some(5), ..Grpc::default() }));
        assert!(table(None, &[grpc])[0].contains(" 200/5  ok "));
    }

    #[test]
    fn days_are_told_when_they_begin() {
        let mut late = call("/", Anomalies::empty());
        late.time = EventTime(late.time.0 + 5 * 3_600_000_000_000);
        let lines = table(None, &[call("/", Anomalies::empty()), late]);
        assert_eq!(lines[1], "2026-11-24");
        assert!(lines[2].starts_with("01:00:00.123 "), "{lines:?}");
    }

    #[test]
    fn alerts_are_wrapped_between_words() {
        let alert = Alert {
            id: AlertId(1),
            revision: 1,
            time: EventTime(1_795_464_000_123_456_789),
            severity: Severity::High,
            confidence: 0.9,
            entity: Entity::Network([192, 0, 2, 0].into()),
            title: "Many keys are being tried".into(),
            explanation: "It tried 20 different keys in 2 s, all refused.\u{1b}".into(),
            first_step: "Block it".into(),
            findings: Vec::new(),
            first_seen: EventTime(0),
            last_seen: EventTime(0),
            flows: Vec::new(),
            calls: 0,
            complete: true,
            host: "test".into(),
            part_of: None,
        };
        let mut table = Table::new(Vec::new(), Some(30));
        table.alert(&alert).unwrap();
        let text = String::from_utf8(table.writer.into_inner().unwrap()).unwrap();
        let lines: Vec<_> = text.lines().skip(2).collect();
        let expected = [
            "ALERT HIGH (changed): Many ke…",
            "      It tried 20 different",
            "      keys in 2 s, all",
            "      refused.\\u{1b}",
            "      Block it",
        ];
        assert_eq!(lines, expected);
    }
}
