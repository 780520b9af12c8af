//! What is recorded while it is watched gives, when it is replayed, the same bytes as the live run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use monitor_core::call::ApiCall;
use rustix::process::Signal;
use xtask::agent;
use xtask::http::{Connection, request};
use xtask::process::Proc;

use super::compare::{all_whole, same_calls};
use super::rig::{Rig, capture_set};
use crate::replay::{common_args, keywatch, replay, run};

/// Calls, connections and alerts: the kinds of records that a run writes.
const KINDS: [&str; 3] = ["calls", "connections", "alerts"];

/// Long and short connections side by side, bodies both ways, sendfile, pipelining, and a list of
/// keys being tried.
pub(crate) fn replay_gives_the_same_bytes() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("large", 3_000_000)?;
    start(&mut rig, &[])?;
    traffic(&rig)?;
    let calls = rig.stop_agent()?;
    ensure!(calls.len() == CALLS, "{} calls", calls.len());
    all_whole(&calls)?;
    ensure!(lines(&rig, "alerts")? > 0, "no alert to compare");
    ensure!(lines(&rig, "connections")? > 0, "no connection to compare");
    same_bytes(&rig, &[rig.dir().join("traffic.pcapng")])
}

/// A ring that is far too small: what was lost then is lost again.
pub(crate) fn losses_are_replayed() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("large", 20_000_000)?;
    capture_set(rig.dir(), "ring_bytes = \"64KiB\"\n")?;
    start(&mut rig, &[])?;
    for _ in 0..5 {
        Connection::open(rig.server)?.call("GET", "/files/large", "", b"")?;
    }
    Connection::open(rig.server)?.call("GET", "/ok", "", b"")?;
    let calls = rig.stop_agent()?;
    ensure!(calls.iter().any(|call| !call.complete), "nothing was lost");
    let alerts = agent::read_alerts(&rig.dir().join("alerts.jsonl"))?;
    ensure!(!alerts.is_empty(), "no alert of the loss");
    same_bytes(&rig, &[rig.dir().join("traffic.pcapng")])
}

/// A connection that was open before the start, over IPv4 and IPv6, and quiet seconds, in which only
/// time goes on.
pub(crate) fn midstream_and_silence_are_replayed() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let mut four = Connection::open(rig.server)?;
    let mut six = Connection::open(rig.server_v6)?;
    for connection in [&mut four, &mut six] {
        connection.call("GET", "/api/before", "", b"")?;
    }
    start(&mut rig, &["--zstd"])?;
    for number in 0..10 {
        four.call("GET", &format!("/api/{number}"), "", b"")?;
        six.call("POST", "/note", "", b"six")?;
    }
    let recording = rig.dir().join("traffic.pcapng");
    // A tick is on the disk as soon as it is recorded.
    let before = recording.metadata()?.len();
    xtask::process::wait_until("time to go on", Duration::from_secs(20), || {
        Ok(recording.metadata()?.len() > before)
    })?;
    four.call("GET", "/ok", "", b"")?;
    let calls = rig.stop_agent()?;
    ensure!(calls.len() == 21, "{} calls", calls.len());
    same_bytes(&rig, &[recording])
}

/// New files in the middle of connections: all in order are as one, and each opens by itself.
pub(crate) fn rotated_files_are_one_recording() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.file("large", 300_000)?;
    start(&mut rig, &["--rotate-size", "200kB"])?;
    traffic(&rig)?;
    let calls = rig.stop_agent()?;
    let files = recorded(rig.dir())?;
    ensure!(files.len() > 4, "{} files", files.len());
    same_bytes(&rig, &files)?;
    // A call whose answer is in the next file is a half of one in each.
    let mut alone = 0;
    for file in &files {
        let replayed = replay(&[file], &[])?;
        let seen: Vec<ApiCall> =
            replayed.calls.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let known = |call: &&ApiCall| calls.iter().any(|whole| whole.flow.id == call.flow.id);
        let stranger = seen.iter().find(|call| !known(call));
        ensure!(stranger.is_none(), "a connection of another name: {stranger:?}");
        // Half a call may come before its connection's process, and so may a call that was live.
        let unowned = |call: &ApiCall| {
            let same = |whole: &ApiCall| whole.time == call.time && whole.flow.id == call.flow.id;
            call.flow.pid.is_none()
                && call.complete
                && calls.iter().any(|whole| same(whole) && whole.flow.pid.is_some())
        };
        let unowned = seen.iter().find(|call| unowned(call));
        ensure!(unowned.is_none(), "a connection without its process: {unowned:?}");
        alone += seen.len();
    }
    ensure!(alone >= calls.len(), "{alone} calls file by file, {} at once", calls.len());
    Ok(())
}

/// `keywatch record` alone: a replay has every call that the server logged.
pub(crate) fn record_without_decoding() -> Result<()> {
    let rig = Rig::without_agent()?;
    rig.file("large", 300_000)?;
    let file = rig.dir().join("traffic.pcapng");
    let mut command = Command::new(keywatch()?);
    command.args(["record", "--port", &rig.server.port().to_string(), "--out"]).arg(&file);
    command.args(["--config"]).arg(rig.dir().join("keywatch.toml"));
    let mut recorder = Proc::spawn("keywatch", &command, &rig.dir().join("record.log"))?;
    recorder.wait_for_line("keywatch: watching port", Duration::from_secs(120))?;
    traffic(&rig)?;
    recorder.signal(Signal::TERM)?;
    let status = recorder.wait(Duration::from_secs(60))?;
    ensure!(status.code() == Some(0), "keywatch record ended with {status}: {}", recorder.output());
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the recording has mode {mode:o}");
    let replayed = replay(&[&file], &[])?;
    let calls: Vec<ApiCall> =
        replayed.calls.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    all_whole(&calls)?;
    ensure!(calls.iter().all(|call| call.flow.process.as_deref() == Some("nginx")), "no process");
    same_calls(&calls, &rig.logged()?)
}

/// A recording that cannot be written ends; the run goes on, and says so at its end.
pub(crate) fn a_full_disk_ends_the_recording_alone() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.start_agent(&["--record".to_owned(), "/dev/full".to_owned()])?;
    for number in 0..20 {
        Connection::open(rig.server)?.call("GET", &format!("/api/{number}"), "", b"")?;
    }
    let agent = rig.take_agent()?;
    let (file, log) = (agent.calls_file(), agent.output());
    let status = agent.stop()?;
    ensure!(status.code() == Some(1), "ended with {status}");
    let calls = agent::read_calls(&file)?;
    ensure!(calls.len() == 20, "{} calls: {log}", calls.len());
    let log = fs::read_to_string(rig.dir().join("keywatch.log"))?;
    let line = "keywatch: output failed: /dev/full: No space left on device (os error 28): the \
                recording ends; all else goes on";
    ensure!(log.lines().filter(|said| *said == line).count() == 1, "{log}");
    Ok(())
}

/// Starts Keywatch so that it records and writes every kind of record.
fn start(rig: &mut Rig, more: &[&str]) -> Result<()> {
    let port = rig.server.port();
    start_on(rig, port, more)
}

/// The same on another port.
pub(super) fn start_on(rig: &mut Rig, port: u16, more: &[&str]) -> Result<()> {
    let file = |name: &str| rig.dir().join(name).display().to_string();
    let mut args = vec![
        "--record".to_owned(),
        file("traffic.pcapng"),
        "--connections".to_owned(),
        file("connections.jsonl"),
    ];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    rig.start_agent_on(&[port], &args)
}

/// What [`traffic`] makes.
const CALLS: usize = CLIENTS * ROUNDS * (CALLS_A_ROUND + 2) + 2 + 3 + KEYS;
const CLIENTS: usize = 6;
const ROUNDS: usize = 5;
const CALLS_A_ROUND: usize = 8;
const KEYS: usize = 40;

fn traffic(rig: &Rig) -> Result<()> {
    let server = rig.server;
    std::thread::scope(|scope| {
        let client = |number: usize| -> Result<()> {
            for round in 0..ROUNDS {
                let mut connection = Connection::open(server)?;
                for call in 0..CALLS_A_ROUND {
                    let key = format!("X-MBX-APIKEY: key-{number}\r\n");
                    let target = format!("/api/{number}/{round}/{call}");
                    connection.call("GET", &target, &key, b"")?;
                }
                connection.call("POST", "/note", "", &vec![b'n'; number * 3000])?;
                connection.call("GET", "/denied", "", b"")?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..CLIENTS).map(|it| scope.spawn(move || client(it))).collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })?;
    let mut connection = Connection::open(server)?;
    for _ in 0..2 {
        connection.call("GET", "/files/large", "", b"")?;
    }
    let three: Vec<u8> =
        ["/ok", "/denied", "/ok"].iter().flat_map(|to| request("GET", to, "", b"")).collect();
    connection.send(&three)?;
    for _ in 0..3 {
        connection.reply("GET")?;
    }
    for number in 0..KEYS {
        let key = format!("X-MBX-APIKEY: tried-{number}\r\n");
        Connection::open(server)?.call("GET", "/api/v3/account", &key, b"")?;
    }
    Ok(())
}

/// The numbered files of a recording, in order.
fn recorded(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcapng"))
        .collect();
    files.sort();
    Ok(files)
}

fn lines(rig: &Rig, kind: &str) -> Result<usize> {
    Ok(fs::read_to_string(rig.dir().join(format!("{kind}.jsonl")))?.lines().count())
}

/// Replays and compares every kind of record with what the live run wrote.
pub(super) fn same_bytes(rig: &Rig, recording: &[PathBuf]) -> Result<()> {
    let dir = rig.dir();
    let mut command = Command::new(keywatch()?);
    command.arg("replay").args(common_args(dir));
    for kind in KINDS {
        command.arg(format!("--{kind}")).arg(dir.join(format!("{kind}.again")));
    }
    let output = run(command.args(recording))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "keywatch replay ended with {}: {stderr}", output.status);
    for kind in KINDS {
        let read = |end: &str| {
            let file = dir.join(format!("{kind}.{end}"));
            fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        let (live, again) = (read("jsonl")?, read("again")?);
        if live != again {
            let pair = live.lines().zip(again.lines()).find(|(live, again)| live != again);
            bail!(
                "{kind}: live {} lines, replayed {}; the first that differ: {pair:#?}",
                live.lines().count(),
                again.lines().count()
            );
        }
    }
    Ok(())
}
