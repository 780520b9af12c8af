//! `cargo xtask bench replay`: how fast captures are read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{median, table};
use crate::build::{self, Profile};
use crate::cases::capture::{Format, Link, append, file_header};
use crate::cases::conversation::Conversation;
use crate::process;
use crate::setup::{self, Purpose};

const SNAP_BYTES: usize = 262_144;
const CALLS_PER_CONNECTION: u32 = 200;
/// Clients and keys that the calls are spread over.
const KEYS: u32 = 1000;
const LARGE_BODY_BYTES: usize = 1 << 20;
const LARGE_BODIES: u32 = 400;
const ROUNDS: u32 = 5;

/// How much.
#[derive(clap::Args)]
pub struct Options {
    /// Small calls in the capture.
    #[arg(long, default_value_t = 500_000)]
    calls: u32,
}

/// Makes two captures, replays each a few times, and prints the medians.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure_for(&[Purpose::Build])?;
    println!("Building keywatch ...");
    let keywatch = build::keywatch(Profile::Release)?;
    let dir = tempfile::Builder::new().prefix("keywatch-bench.").tempdir()?;
    let small = dir.path().join("small.pcap");
    write_small(&small, options.calls)?;
    let large = dir.path().join("large.pcap");
    write_large(&large)?;
    let (small_calls, small_bytes) = rates(&keywatch, &small, options.calls)?;
    let (_, large_bytes) = rates(&keywatch, &large, LARGE_BODIES)?;
    table(&[
        ("small calls, calls/s".into(), format!("{small_calls:.0}"), "at least 600,000"),
        ("small calls, MB/s of capture".into(), format!("{:.0}", small_bytes / 1e6), ""),
        (
            "large bodies, MB/s of capture".into(),
            format!("{:.0}", large_bytes / 1e6),
            "at least 1,000",
        ),
    ]);
    Ok(())
}

/// Calls and capture bytes a second: the median of some rounds.
fn rates(keywatch: &Path, capture: &Path, calls: u32) -> Result<(f64, f64)> {
    let bytes = capture.metadata()?.len() as f64;
    let alerts = capture.with_extension("alerts");
    let secret = capture.with_file_name("secret");
    let mut secs = Vec::new();
    for round in 0..=ROUNDS {
        let mut replay = Command::new(keywatch);
        replay.args(["replay", "--port", "8080", "--alerts"]).arg(&alerts);
        replay.arg("--secret-file").arg(&secret).args(["--summary", "json"]).arg(capture);
        let start = Instant::now();
        let output = replay.output().context("starting keywatch")?;
        let took = start.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "keywatch replay: {said}");
        ensure!(said.contains(&format!("\"calls\":{calls},")), "not {calls} calls: {said}");
        process::check_interrupted()?;
        // The first reads the file into memory.
        if round > 0 {
            secs.push(took);
        }
    }
    let took = median(&secs);
    Ok((f64::from(calls) / took, bytes / took))
}

/// Ordinary small calls: 1000 keys, each on connections of 200 calls.
fn write_small(file: &Path, calls: u32) -> Result<()> {
    let body = r#"{"symbol":"BTCUSDT","price":"97250.10000000"}"#;
    let reply = format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: keep-alive\r\n\r\n{body}",
        body.len()
    );
    write(file, calls.div_ceil(CALLS_PER_CONNECTION), |number| {
        let key = number % KEYS;
        let request = format!(
            "GET /api/v3/account?recvWindow=5000&timestamp=1795464000000&signature=00112233 HTTP/1.1\r\n\
             Host: api.example.com\r\nUser-Agent: desk/1.0\r\nAccept: */*\r\n\
             X-MBX-APIKEY: bench-key-{key:054}\r\n\r\n"
        );
        let mut talk = client(number);
        talk.open();
        for _ in 0..CALLS_PER_CONNECTION.min(calls - number * CALLS_PER_CONNECTION) {
            talk.ask(&request).answer(&reply);
        }
        talk.close();
        talk
    })
}

fn write_large(file: &Path) -> Result<()> {
    let body = "x".repeat(LARGE_BODY_BYTES);
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BODY_BYTES}\r\n\r\n{body}");
    write(file, LARGE_BODIES, |number| {
        let mut talk = client(number);
        talk.open().ask("GET /export HTTP/1.1\r\nHost: api.example.com\r\n\r\n").answer(&reply);
        talk.close();
        talk
    })
}

fn client(number: u32) -> Conversation {
    let [_, high, middle, low] = (number % KEYS).to_be_bytes();
    let port = 20_000 + number / KEYS;
    Conversation::between(&format!("10.{high}.{middle}.{low}:{port}"), "198.51.100.5:8080")
        .numbered(number.wrapping_mul(2_654_435_761), 1)
        .at(std::time::Duration::from_millis(u64::from(number) * 400))
}

fn write(file: &Path, connections: u32, talk: impl Fn(u32) -> Conversation) -> Result<()> {
    let (link, format) = (Link::Ethernet, Format::LittleMicros);
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&file_header(link, format, SNAP_BYTES)?)?;
    for number in 0..connections {
        let mut bytes = Vec::new();
        append(&mut bytes, &talk(number).packets(), link, format, SNAP_BYTES)?;
        out.write_all(&bytes)?;
        process::check_interrupted()?;
    }
    out.flush().context("writing a capture")
}
