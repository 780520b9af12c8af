//! The agent's side: its sink and spool, when it and the brokers die at any moment and its disk fills.
//!
//! `keywatch replay --publish` of a capture full of attacks is killed and started again on the same spool.
//! Each run also writes its alerts to a file, after they are in the spool: whatever stands there has to
//! arrive in Kafka. Two runs after each other read the same capture, so that the second says again what the
//! first said; the next two read one of other keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use monitor_core::alert::Alert;

use super::brokers::Brokers;
use super::settings;
use crate::cases::capture::{Format, Link, pcap};
use crate::cases::conversation::Conversation;
use crate::cluster::Cluster;
use crate::disk::SmallDisk;
use crate::process::{self, Proc};
use crate::setup;

const ALERTS: &str = "agent.alerts";
const HEALTH: &str = "agent.health";
const PORT: u16 = 8080;
const SNAP_BYTES: usize = 262_144;
/// How long what waits may take to arrive once everything is mended.
const DRAIN_MAX: Duration = Duration::from_secs(180);

/// What came of it.
#[derive(Debug, Default)]
pub struct Delivered {
    done: String,
    gaps: usize,
    took: Duration,
    runs: usize,
    killed: usize,
    raised: usize,
    records: usize,
    distinct: usize,
    lost: usize,
    doubles: usize,
    unequal: usize,
    disordered: usize,
}

impl Delivered {
    /// For people.
    pub fn text(&self) -> String {
        format!(
            "agents: {}\n\
             runs of the agent          {:>9}\n\
             killed with -9             {:>9}\n\
             alerts that it raised      {:>9}\n\
             records in Kafka           {:>9}\n\
             distinct ones of them      {:>9}\n\
             events about dropped calls {:>9}\n\
             lost                       {:>9}\n\
             doubles with equal uid     {:>9}\n\
             equal uid, unequal alert   {:>9}\n\
             keys out of order          {:>9}\n\
             1,000,000 distinct take    {:>6} min\n",
            self.done,
            self.runs,
            self.killed,
            self.raised,
            self.records,
            self.distinct,
            self.gaps,
            self.lost,
            self.doubles,
            self.unequal,
            self.disordered,
            super::minutes(self.took, self.distinct, 1_000_000)
        )
    }

    /// Fails when an alert was lost, changed or overtaken.
    pub fn check(&self) -> Result<()> {
        ensure!(self.raised > 0, "the agent raised no alert");
        let wrong = self.lost + self.unequal + self.disordered;
        ensure!(wrong == 0, "alerts did not arrive as they should:\n{}", self.text());
        Ok(())
    }
}

/// Kills the agent and brokers for so many seconds, then lets everything arrive.
pub(super) fn deliver(
    brokers: &mut Brokers,
    keywatch: &Path,
    rng: &mut Rng,
    alerts: usize,
    seconds: u64,
) -> Result<Delivered> {
    let scratch = tempfile::Builder::new().prefix("keywatch-chaos.").tempdir()?;
    let dir = scratch.path();
    let bytes = disk_bytes(alerts);
    let disk = setup::is_root().then(|| SmallDisk::mount(&dir.join("spool"), bytes));
    let disk = disk.transpose()?;
    let agent = Agent::prepare(dir, keywatch, &brokers.cluster.bootstrap, bytes)?;
    let (many, none) = (dir.join("many.pcap"), dir.join("none.pcap"));
    fs::write(&none, attacks(0, 0)?)?;
    let (mut delivered, mut raised) = (Delivered::default(), HashMap::new());
    let begun = Instant::now();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // A run begins with brokers that answer, or it would end at once.
        brokers.mend()?;
        disk.as_ref().map_or(Ok(()), SmallDisk::free)?;
        if delivered.runs % 2 == 0 {
            fs::write(&many, attacks(delivered.runs / 2 * alerts, alerts)?)?;
        }
        let mut run = agent.start(&many, delivered.runs)?;
        delivered.runs += 1;
        sleep(rng, 3_000)?;
        match &disk {
            Some(disk) if rng.u8(0..3) == 0 => {
                disk.fill()?;
                brokers.note("disks filled");
            }
            _ => brokers.breaks(rng)?,
        }
        sleep(rng, 2_000)?;
        if run.is_running()? {
            delivered.killed += 1;
            run.kill()?;
        }
        agent.take_raised(delivered.runs - 1, &mut raised)?;
    }
    brokers.mend()?;
    disk.as_ref().map_or(Ok(()), SmallDisk::free)?;
    drain(&agent, &none, &mut delivered)?;
    delivered.took = begun.elapsed();
    delivered.raised = raised.len();
    delivered.done = brokers.done();
    delivered.gaps = brokers.cluster.read_topic(HEALTH).map_or(0, |gaps| gaps.len());
    compare(&raised, &brokers.cluster, &mut delivered)?;
    Ok(delivered)
}

/// The disk of the spool: a little, and room for what some runs raise while no broker takes it.
fn disk_bytes(alerts: usize) -> u64 {
    (48 << 20) + ((alerts as u64) << 14)
}

/// A moment of 200 ms to `most_ms`.
fn sleep(rng: &mut Rng, most_ms: u64) -> Result<()> {
    process::sleep_until(Instant::now() + Duration::from_millis(rng.u64(200..most_ms)))
}

/// Runs that add nothing, until one finds the spool empty at its end.
fn drain(agent: &Agent, none: &Path, delivered: &mut Delivered) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut run = agent.start(none, delivered.runs)?;
        delivered.runs += 1;
        let status = run.wait(DRAIN_MAX)?;
        let said = run.output();
        if status.success() && !said.contains(" wait for ") {
            return Ok(());
        }
        ensure!(begun.elapsed() < DRAIN_MAX, "the spool does not empty ({status}): {said}");
    }
}

/// Alerts by their uid, each as a hash of all that it says.
type Raised = HashMap<String, u64>;

fn compare(raised: &Raised, cluster: &Cluster, delivered: &mut Delivered) -> Result<()> {
    let mut arrived = Raised::new();
    let mut latest: HashMap<String, u64> = HashMap::new();
    cluster.each_record(ALERTS, |key, line| {
        let alert: Alert = serde_json::from_str(line).with_context(|| format!("alert {line}"))?;
        delivered.records += 1;
        let (uid, says) = (uid(&alert), hash(&alert)?);
        delivered.unequal += usize::from(raised.get(&uid).is_some_and(|known| *known != says));
        match arrived.entry(uid) {
            Entry::Occupied(_) => delivered.doubles += 1,
            Entry::Vacant(new) => {
                new.insert(says);
                let before = latest.insert(key.to_owned(), alert.time.0);
                delivered.disordered += usize::from(before > Some(alert.time.0));
            }
        }
        Ok(())
    })?;
    delivered.distinct = arrived.len();
    delivered.lost = raised.keys().filter(|uid| !arrived.contains_key(*uid)).count();
    Ok(())
}

fn hash(alert: &Alert) -> Result<u64> {
    let text = serde_json::to_vec(alert)?;
    Ok(BuildHasherDefault::<DefaultHasher>::default().hash_one(text))
}

fn uid(alert: &Alert) -> String {
    format!("{}.{}", alert.id, alert.revision)
}

/// An agent that reads captures.
struct Agent {
    dir: PathBuf,
    keywatch: PathBuf,
}

impl Agent {
    fn prepare(dir: &Path, keywatch: &Path, bootstrap: &str, disk_bytes: u64) -> Result<Agent> {
        let set = settings();
        let brokers = format!("\"{}\"", bootstrap.replace(',', "\",\""));
        fs::write(
            dir.join("keywatch.toml"),
            format!(
                "[engine]\nhost = \"edge\"\nalerts_per_day_max = {}\nalerts_per_day_hard_max = {}\n\
                 [sinks.spool]\ndir = \"{}\"\nbytes_max = \"{}B\"\n\
                 alerts_reserve_bytes = \"{}B\"\n[sinks.kafka]\nbrokers = [{brokers}]\n\
                 format = \"native\"\nactivity_format = \"compact\"\nflush_max = \"60s\"\n\
                 alerts_topic = \"{ALERTS}\"\nactivity_topic = \"agent.activity\"\n\
                 health_topic = \"{HEALTH}\"\n",
                set.alerts_per_day_max,
                set.alerts_per_day_hard_max,
                dir.join("spool").display(),
                disk_bytes / 6 * 5,
                disk_bytes / 3
            ),
        )?;
        Ok(Agent { dir: dir.into(), keywatch: keywatch.into() })
    }

    fn alerts_file(&self, run: usize) -> PathBuf {
        self.dir.join(format!("alerts{run}.jsonl"))
    }

    /// Takes in what a run wrote that it raised; its file is done with.
    fn take_raised(&self, run: usize, raised: &mut Raised) -> Result<()> {
        let file = self.alerts_file(run);
        let text = fs::read_to_string(&file).unwrap_or_default();
        // The last line may have been cut off by the kill.
        for alert in text.lines().filter_map(|line| serde_json::from_str::<Alert>(line).ok()) {
            raised.insert(uid(&alert), hash(&alert)?);
        }
        if file.exists() {
            fs::remove_file(&file)?;
        }
        Ok(())
    }

    fn start(&self, capture: &Path, run: usize) -> Result<Proc> {
        let mut command = Command::new(&self.keywatch);
        command.arg("--config").arg(self.dir.join("keywatch.toml")).arg("replay").arg("--publish");
        command.arg("--secret-file").arg(self.dir.join("secret"));
        command.args(["--port", &PORT.to_string(), "--summary", "off", "--alerts"]);
        command.arg(self.alerts_file(run)).arg(capture);
        Proc::spawn("keywatch", &command, &self.dir.join(format!("agent{run}.log")))
    }
}

/// So many keys from the `first` on, each accepted once and then refused a withdrawal: an alert each.
fn attacks(first: usize, count: usize) -> Result<Vec<u8>> {
    let mut packets = Vec::new();
    for number in first..first + count {
        let [_, a, b, c] = u32::try_from(number)?.to_be_bytes();
        let mut talk = Conversation::between(
            &format!("10.{a}.{b}.{c}:40000"),
            &format!("198.51.100.5:{PORT}"),
        )
        .numbered(u32::from_be_bytes([0, a, b, c]).wrapping_mul(1000), 77)
        .at(Duration::from_millis(20 * number as u64));
        let head = format!(
            "Host: api.example.com\r\nX-MBX-APIKEY: made-up-key-{number:052}\r\nContent-Length: 0\r\n"
        );
        talk.open();
        talk.ask(format!("GET /api/v3/account?signature=00 HTTP/1.1\r\n{head}\r\n"));
        talk.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let refusal = r#"{"code":-1002,"msg":"You are not authorized to execute this request."}"#;
        let path = "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1&signature=00";
        talk.ask(format!("POST {path} HTTP/1.1\r\n{head}\r\n"));
        talk.answer(format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{refusal}",
            refusal.len()
        ));
        talk.close();
        packets.extend(talk.packets());
    }
    packets.sort_by_key(|packet| packet.time);
    pcap(&packets, Link::Raw, Format::BigNanos, SNAP_BYTES)
}
