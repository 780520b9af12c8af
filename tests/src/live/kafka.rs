//! Alerts in a real Apache Kafka, read back by a consumer that is not ours.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::http::Connection;
use xtask::kafka::Kafka;
use xtask::process;

use super::compare::same_calls;
use super::rig::Rig;

const TOPIC: &str = "keywatch.alerts";
const ACTIVITY: &str = "keywatch.activity";
/// Far beyond what writing a line takes on a busy machine.
const FILE_WAIT: Duration = Duration::from_secs(30);

/// Each line of the alerts file is in the topic, each call in the other, and nothing else.
pub(crate) fn alerts_reach_kafka() -> Result<()> {
    let kafka = Kafka::start()?;
    let mut rig = Rig::without_agent()?;
    configure(&rig, &kafka.bootstrap)?;
    rig.start_agent(&[])?;
    let alerts_file = rig.agent()?.alerts_file();
    let calls_file = rig.agent()?.calls_file();
    stuff(rig.server, 0..400)?;
    rig.stop_agent()?;
    let alerts = lines(&alerts_file)?;
    ensure!(!alerts.is_empty(), "no alert was raised");
    ensure!(kafka.read_topic(TOPIC)? == alerts, "the alert topic differs from the file");
    let (mut activity, mut calls) = (kafka.read_topic(ACTIVITY)?, lines(&calls_file)?);
    ensure!(calls.len() == 400, "{} calls", calls.len());
    activity.sort_unstable();
    calls.sort_unstable();
    ensure!(activity == calls, "the activity topic differs from the file");
    Ok(())
}

/// The broker dies in the middle: calls and alerts go on to the files, and every alert is in Kafka
/// in the end, once and in order.
pub(crate) fn goes_and_comes_back() -> Result<()> {
    let mut kafka = Kafka::start()?;
    let mut rig = Rig::without_agent()?;
    configure(&rig, &kafka.bootstrap)?;
    rig.start_agent(&[])?;
    let alerts_file = rig.agent()?.alerts_file();
    let calls_file = rig.agent()?.calls_file();
    stuff(rig.server, 0..300)?;
    wait_for_lines(&alerts_file, 1)?;
    kafka.kill()?;
    let before = lines(&alerts_file)?.len();
    denied_withdrawals(rig.server)?;
    wait_for_lines(&calls_file, 303)?;
    wait_for_lines(&alerts_file, before + 1)?;
    kafka.restart()?;
    stuff(rig.server, 300..400)?;
    let calls = rig.stop_agent()?;
    let alerts = lines(&alerts_file)?;
    ensure!(kafka.read_topic(TOPIC)? == alerts, "the alert topic differs from the file");
    let logged = rig.logged()?;
    ensure!(logged.len() == 403, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)
}

/// Killed with alerts in the spool and no broker: the next run delivers every one, in order.
pub(crate) fn killed_before_the_broker_came() -> Result<()> {
    let port = process::free_port()?;
    let mut rig = Rig::without_agent()?;
    configure(&rig, &SocketAddr::from(([127, 0, 0, 1], port)).to_string())?;
    rig.start_agent(&[])?;
    let alerts_file = rig.agent()?.alerts_file();
    stuff(rig.server, 0..300)?;
    denied_withdrawals(rig.server)?;
    wait_for_lines(&alerts_file, 2)?;
    rig.take_agent()?.kill()?;
    let before = lines(&alerts_file)?;
    let kafka = Kafka::start_on(port)?;
    rig.start_agent(&[])?;
    stuff(rig.server, 300..700)?;
    rig.stop_agent()?;
    let alerts = lines(&alerts_file)?;
    ensure!(alerts.len() >= before.len(), "the file lost lines");
    let mut arrived = kafka.read_topic(TOPIC)?;
    // What was confirmed just before a kill may come twice.
    arrived.dedup();
    // One more than the file has: the kill may have come before it was written there.
    let missing: Vec<usize> =
        (0..alerts.len()).filter(|place| !arrived.contains(&alerts[*place])).collect();
    ensure!(missing.is_empty(), "missing {missing:?}, {} before the kill", before.len());
    ensure!(arrived.len() <= alerts.len() + 1, "{} of {}", arrived.len(), alerts.len());
    arrived.retain(|line| alerts.contains(line));
    ensure!(arrived == alerts, "the order is another");
    // How many calls the kill took from memory nobody knows, and that is said.
    let health = kafka.read_topic("keywatch.health")?;
    let gap = health.iter().find(|line| line.contains("activity_gap"));
    let gap = gap.context("the kill left no gap event")?;
    ensure!(gap.contains("\"calls\":null") && gap.contains("killed"), "{gap}");
    Ok(())
}

/// No broker at all: a line says so, capture and files go on, and the end is clean.
pub(crate) fn is_not_there() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let nobody = SocketAddr::from(([127, 0, 0, 1], process::free_server_port()?));
    configure(&rig, &nobody.to_string())?;
    rig.start_agent(&[])?;
    stuff(rig.server, 0..300)?;
    let (alerts_file, calls_file) = (rig.agent()?.alerts_file(), rig.agent()?.calls_file());
    wait_for_lines(&calls_file, 300)?;
    wait_for_lines(&alerts_file, 1)?;
    let (calls, logged) = rig.finish()?;
    same_calls(&calls, &logged)
}

fn configure(rig: &Rig, bootstrap: &str) -> Result<()> {
    let config = format!(
        "[engine]\nhost = \"test\"\n[sinks.spool]\ndir = \"{}\"\n[sinks.kafka]\n\
         brokers = [\"{bootstrap}\"]\nformat = \"native\"\npartitions = 1\nflush_max = \"30s\"\nalerts_topic = \"{TOPIC}\"\nactivity_topic = \"{ACTIVITY}\"\nactivity = true\n",
        rig.dir().join("spool").display()
    );
    fs::write(rig.dir().join("keywatch.toml"), config).context("writing the config")
}

/// Calls with keys that the server does not know, one each.
fn stuff(server: SocketAddr, numbers: std::ops::Range<u32>) -> Result<()> {
    let mut connection = Connection::open(server)?;
    for number in numbers {
        let key = format!("X-MBX-APIKEY: {number:064}\r\n");
        let reply = connection.call("GET", "/api/v3/account", &key, b"")?;
        ensure!(reply.status == 401, "answered {}", reply.status);
    }
    Ok(())
}

/// A key that is good and two withdrawals that it may not make: an alert about it, whatever else
/// there is.
fn denied_withdrawals(server: SocketAddr) -> Result<()> {
    let mut connection = Connection::open(server)?;
    let key = "X-MBX-APIKEY: somebody-elses-key-0123456789\r\n";
    connection.call("GET", "/api/account", key, b"")?;
    for _ in 0..2 {
        let target = "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1";
        let reply = connection.call("POST", target, key, b"")?;
        ensure!(reply.status == 403, "answered {}", reply.status);
    }
    Ok(())
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Waits until a file that is being written has so many lines.
fn wait_for_lines(file: &Path, count: usize) -> Result<()> {
    let what = format!("{count} lines in {}", file.display());
    process::wait_until(&what, FILE_WAIT, || Ok(lines(file)?.len() >= count))
}
