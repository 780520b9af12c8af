//! What was learnt outlives a kill: the next run needs no new learning.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use monitor_core::alert::Alert;
use monitor_core::identity::{Identifier, Secret};
use serde_json::{Value, json};
use xtask::agent;
use xtask::http::Connection;
use xtask::process;

use super::rig::Rig;
use crate::replay::{SECRET, common_args, keywatch, run};

/// Made up.
const KEY: &str = "a-key-that-reads-every-hour-0123456789";
/// Far beyond what any step takes on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

/// Learns, is killed, starts again without a history, and knows the thief; what an analyst says of the
/// alert outlives the next kill.
pub(crate) fn outlives_a_kill() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let history = rig.dir().join("history.jsonl");
    fs::write(&history, ten_days()?)?;
    rig.start_agent(&["--history".into(), history.display().to_string()])?;
    let id = key_id()?.to_string();
    wait(&rig, &["baseline", "show", &id], "\"calls\": 240")?;
    rig.take_agent()?.kill()?;

    rig.start_agent(&[])?;
    steal(rig.server)?;
    let alerts = rig.agent()?.alerts_file();
    process::wait_until("an alert", WAIT, || Ok(!agent::read_alerts(&alerts)?.is_empty()))?;
    let alert = last_about(&alerts, &id)?;
    let detectors: Vec<&str> = alert.findings.iter().map(|found| &*found.detector).collect();
    for needed in ["D5", "D9"] {
        ensure!(detectors.contains(&needed), "{needed} takes a baseline: {detectors:?}");
    }

    let alert_id = alert.id.to_string();
    wait(&rig, &["alert", "list"], &alert_id)?;
    let said = say(&rig, &["alert", "dismiss", &alert_id, "--reason", "the owner moved"])?;
    ensure!(said.0, "{}", said.1);
    rig.agent()?.reload()?;
    process::wait_until("the dismissal", WAIT, || {
        Ok(rig.agent()?.output().contains("feedback taken"))
    })?;
    wait(&rig, &["alert", "list"], "[dismissed: the owner moved]")?;
    let before = fs::read_to_string(&alerts)?.lines().count();
    rig.take_agent()?.kill()?;

    rig.start_agent(&[])?;
    steal(rig.server)?;
    rig.stop_agent()?;
    let after = fs::read_to_string(&alerts)?.lines().count();
    ensure!(after == before, "{} alerts more", after - before);
    Ok(())
}

/// Another network, and a kind of call that the key never made.
fn steal(server: SocketAddr) -> Result<()> {
    let mut connection = Connection::open(server)?;
    let key = format!("X-MBX-APIKEY: {KEY}\r\n");
    let target = "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1";
    let reply = connection.call("POST", target, &key, b"")?;
    ensure!(reply.status == 403, "answered {}", reply.status);
    Ok(())
}

fn last_about(alerts: &Path, id: &str) -> Result<Alert> {
    let about =
        |alert: &Alert| serde_json::to_string(&alert.entity).is_ok_and(|it| it.contains(id));
    agent::read_alerts(alerts)?.into_iter().rfind(about).context("no alert about the key")
}

/// What `keywatch` says beside the running agent, with its state directory.
fn say(rig: &Rig, args: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(keywatch()?);
    command.args(&common_args(rig.dir())[..2]).args(args);
    command.env("STATE_DIRECTORY", rig.dir().join("state"));
    let output = run(&mut command)?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn wait(rig: &Rig, args: &[&str], text: &str) -> Result<()> {
    process::wait_until(&format!("{text} of {args:?}"), WAIT, || {
        Ok(say(rig, args)?.1.contains(text))
    })
}

fn key_id() -> Result<monitor_core::call::KeyId> {
    let digits = SECRET.trim();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16);
    let mut secret = [0; 32];
    for (at, place) in secret.iter_mut().enumerate() {
        *place = byte(at)?;
    }
    Identifier::new(Secret::new(secret)).key_id(KEY.as_bytes()).context("no id")
}

/// A read each hour from one address, as `--calls` writes them; the last one a minute ago.
fn ten_days() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = u64::try_from(now.as_nanos())?;
    let id = key_id()?;
    let mut lines = String::new();
    for hour in (0..240_u64).rev() {
        let time = monitor_core::time::EventTime(now - hour * 3_600_000_000_000 - 60_000_000_000);
        let call: Value = json!({
            "time": time,
            "flow": {"id": "f_0000000000000001", "client": "198.51.100.7:40000",
                     "server": "10.0.0.5:443", "tls": false},
            "protocol": "http/1.1",
            "request": null, "response": null, "latency_us": null,
            "key": {"id": id, "source": "header:x-mbx-apikey", "profile": "binance"},
            "op": "read", "symbol": null, "object_ids": [], "outcome": "ok",
            "complete": true, "anomalies": [],
        });
        lines += &format!("{call}\n");
    }
    Ok(lines)
}
