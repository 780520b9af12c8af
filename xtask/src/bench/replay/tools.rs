//! What reads the captures: Keywatch and its peers, one thread each.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wait4::Wait4;

use super::captures::{Capture, PORT};
use crate::{process, setup};

/// A reader of captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// With detection; alerts are written.
    Keywatch,
    /// The same, and every call is written, as the peers write theirs.
    KeywatchCalls,
    /// One thread (runmode single), without rules and checksums.
    Suricata,
    /// One pass, method and status of each message.
    Tshark,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// From start to end.
    pub(super) secs: f64,
    /// The most that was resident, MB.
    pub(super) resident_mb_max: f64,
    /// Calls that were seen.
    pub(super) calls: u64,
}

/// Where tools are, and where they may write.
pub(super) struct Bench {
    pub(super) keywatch: PathBuf,
    pub(super) dir: PathBuf,
}

impl Tool {
    pub(super) const ALL: [Tool; 4] =
        [Tool::Keywatch, Tool::KeywatchCalls, Tool::Suricata, Tool::Tshark];

    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Keywatch => "keywatch",
            Tool::KeywatchCalls => "keywatch --calls",
            Tool::Suricata => "suricata",
            Tool::Tshark => "tshark",
        }
    }

    /// Whether it is on this machine.
    pub(super) fn is_there(self) -> bool {
        match self {
            Tool::Keywatch | Tool::KeywatchCalls => true,
            Tool::Suricata | Tool::Tshark => setup::find(self.name()).is_some(),
        }
    }

    /// The command that reads a capture, with its output in `dir`.
    pub(super) fn command(self, bench: &Bench, capture: &Path) -> Result<Command> {
        let dir = &bench.dir;
        Ok(match self {
            Tool::Keywatch | Tool::KeywatchCalls => {
                let mut keywatch = Command::new(&bench.keywatch);
                keywatch.args(["replay", "--port", &PORT.to_string(), "--summary", "json"]);
                keywatch.arg("--secret-file").arg(dir.join("secret"));
                keywatch.arg("--alerts").arg(dir.join("alerts"));
                if self == Tool::KeywatchCalls {
                    keywatch.arg("--calls").arg(dir.join("calls"));
                }
                keywatch.arg(capture);
                keywatch
            }
            Tool::Suricata => {
                let config = dir.join("suricata.yaml");
                fs::write(&config, SURICATA)?;
                // It appends.
                let _ = fs::remove_file(dir.join("eve.json"));
                let mut suricata = Command::new("suricata");
                suricata.args(["-k", "none", "-S", "/dev/null", "--runmode", "single", "-c"]);
                suricata.arg(config).arg("-l").arg(dir).arg("-r").arg(capture);
                suricata
            }
            Tool::Tshark => {
                let mut tshark = Command::new("tshark");
                tshark.args(["-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]);
                for field in TSHARK_FIELDS {
                    tshark.args(["-e", field]);
                }
                // It looks for HTTP/2 where it is told to.
                if capture.to_string_lossy().contains("http-2") {
                    tshark.args(["-d", &format!("tcp.port=={PORT},http2")]);
                }
                tshark.arg("-r").arg(capture);
                tshark
            }
        })
    }

    /// Runs it on a capture and counts what it saw.
    pub(super) fn run(self, bench: &Bench, capture: &Capture) -> Result<Run> {
        let mut command = self.command(bench, &capture.file)?;
        let (stdout, stderr) = (bench.dir.join("stdout"), bench.dir.join("stderr"));
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let start = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", self.name()))?;
        let used = child.wait4().with_context(|| format!("waiting for {}", self.name()))?;
        let secs = start.elapsed().as_secs_f64();
        process::check_interrupted()?;
        ensure!(
            used.status.success(),
            "{} ended with {}: {}",
            self.name(),
            used.status,
            fs::read_to_string(&stderr).unwrap_or_default()
        );
        let calls = match self {
            Tool::Keywatch | Tool::KeywatchCalls => calls_in_summary(&stderr, capture)?,
            Tool::Suricata => calls_in_eve(&bench.dir.join("eve.json"))?,
            Tool::Tshark => calls_in_fields(&stdout)?,
        };
        Ok(Run { secs, resident_mb_max: used.rusage.maxrss as f64 / 1e6, calls })
    }

    /// Instructions in user mode, where the processor counts them for us.
    pub(super) fn instructions(self, bench: &Bench, capture: &Path) -> Result<Option<u64>> {
        let command = self.command(bench, capture)?;
        let file = bench.dir.join("perf");
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "instructions:u", "-o"]).arg(&file).arg("--");
        perf.arg(command.get_program()).args(command.get_args());
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let counted = perf.status().is_ok_and(|status| status.success());
        let text = fs::read_to_string(&file).unwrap_or_default();
        let line = text.lines().find(|line| line.contains("instructions"));
        let count = line.and_then(|line| line.split(',').next()?.parse().ok());
        Ok(count.filter(|_| counted))
    }
}

/// Methods of requests, whether a WebSocket frame is masked, statuses.
const TSHARK_FIELDS: [&str; 5] = [
    "http.request.method",
    "http2.headers.method",
    "websocket.mask",
    "http.response.code",
    "http2.headers.status",
];
/// How many of those are methods.
const TSHARK_METHODS: usize = 2;

/// Debian's configuration, with nothing written but the records of calls.
const SURICATA: &str = "\
%YAML 1.1
---
include: /etc/suricata/suricata.yaml
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types:
        - http:
            extended: yes
        - http2
        - tls
stats:
  enabled: no
";

/// Calls in the summary of a replay, handshakes of WebSocket aside.
fn calls_in_summary(stderr: &Path, capture: &Capture) -> Result<u64> {
    let text = fs::read_to_string(stderr)?;
    let line = text.lines().find(|line| line.starts_with('{'));
    let summary: Value = serde_json::from_str(line.context("no summary")?)?;
    let calls = summary["calls"].as_u64().context("a summary without calls")?;
    Ok(calls.saturating_sub(capture.handshakes))
}

/// Requests in Suricata's log; stream 0 of HTTP/2 is none.
fn calls_in_eve(eve: &Path) -> Result<u64> {
    let mut calls = 0;
    for line in BufReader::new(File::open(eve)?).lines() {
        let line = line?;
        calls +=
            u64::from(line.contains(r#""event_type":"http""#) && line.contains(r#""http_method""#));
    }
    Ok(calls)
}

fn calls_in_fields(fields: &Path) -> Result<u64> {
    let mut calls = 0;
    let mut messages = 0;
    for line in BufReader::new(File::open(fields)?).lines() {
        let line = line?;
        let mut fields = line.split('\t');
        calls += fields.by_ref().take(TSHARK_METHODS).map(values).sum::<u64>();
        // A frame that is masked is a message of a client.
        let masked = fields.next().unwrap_or_default();
        messages += masked.split(',').filter(|mask| matches!(*mask, "1" | "True")).count() as u64;
    }
    // The handshake before them is a request too.
    Ok(if messages > 0 { messages } else { calls })
}

fn values(field: &str) -> u64 {
    if field.is_empty() { 0 } else { field.split(',').count() as u64 }
}

/// httparse alone over the packets, built as a program of its own: calls a second.
pub(super) fn floor(program: &Path, capture: &Path) -> Result<f64> {
    let text = process::run(Command::new(program).arg(capture))?;
    let (calls, nanos) = text.trim().split_once(' ').context("httparse_floor says nothing")?;
    Ok(calls.parse::<f64>()? / (nanos.parse::<f64>()? / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_field_are_counted() {
        assert_eq!((values(""), values("GET"), values("GET,POST")), (0, 1, 2));
    }
}
