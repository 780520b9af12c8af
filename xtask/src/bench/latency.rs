//! From the last byte of a call to the alert about it in the hands of a Kafka consumer, under load.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::host;
use crate::agent::{Agent, Setup};
use crate::http::Connection;
use crate::kafka::{self, Kafka};
use crate::nginx::{Nginx, Role};
use crate::process;
use crate::setup;

/// An alert that is not there by then is counted as late, and not waited for.
const LATE: Duration = Duration::from_secs(10);
/// Between two attacks: a few hundred in half a minute.
const PAUSE: Duration = Duration::from_millis(20);
const REFUSED: &str = r#"{"code":-1002,"msg":"You are not authorized to execute this request."}"#;
/// Finds refused withdrawals.
const DETECTOR: &str = "\"D10\"";

/// Measures for so many seconds at so many calls a second.
pub(super) fn measure(
    keywatch: &Path,
    kafka: &Kafka,
    dir: &Path,
    seconds: u32,
    rate: u32,
) -> Result<Vec<(String, String, &'static str)>> {
    ensure!(setup::is_root(), "attaching to the kernel needs root (mend: run it with sudo -E)");
    let server = SocketAddr::from(([127, 0, 0, 1], process::free_server_port()?));
    let (nginx_dir, agent_dir) = (dir.join("nginx"), dir.join("agent"));
    for dir in [&nginx_dir, &agent_dir] {
        fs::create_dir_all(dir)?;
    }
    let block = format!(
        "    default_type application/json;\n\
         \x20   location /sapi/ {{ return 403 '{REFUSED}'; }}\n\
         \x20   location / {{ return 200 '{{\"price\":\"97250.10\"}}'; }}\n"
    );
    let nginx = Nginx::start(&[server.into()], &Role::Block(block), &nginx_dir, None)?;
    let config = agent_dir.join("keywatch.toml");
    fs::write(
        &config,
        format!(
            "[engine]\nalerts_per_day_max = 100000\nalerts_per_day_hard_max = 1000000\n\
             [sinks.kafka]\nbrokers = [\"{}\"]\nactivity_format = \"compact\"\nformat = \"native\"\n",
            kafka.bootstrap
        ),
    )?;
    let args: Vec<String> = [
        "--config",
        &config.display().to_string(),
        "--summary",
        "json",
        "--secret-file",
        &dir.join("secret").display().to_string(),
    ]
    .map(str::to_owned)
    .into();
    let ports = [server.port()];
    let agent = Agent::start(&Setup {
        keywatch,
        dir: &agent_dir,
        ports: &ports,
        args: &args,
        calls: false,
    })?;
    println!("{rate} calls a second for {seconds} s, and attacks among them ...");
    let mut load = host::steady_load(&format!("http://{server}"), rate, seconds, dir)?;
    let load = std::thread::spawn(move || process::run(&mut load).map(drop));
    let mut attacks = Attacks { server, number: 0 };
    attacks.one()?;
    // The agent makes the topic.
    process::wait_until("the topic of alerts", LATE, || {
        Ok(kafka.kcat(&["-b", &kafka.bootstrap, "-L"])?.contains("\"keywatch.alerts\""))
    })?;
    let (mut consumer, alerts) = consumer(kafka)?;
    alerts.recv_timeout(LATE).context("no alert arrives")?;
    let (mut took, mut late) = (Vec::new(), 0);
    while !load.is_finished() {
        alerts.try_iter().for_each(drop);
        let done = attacks.one()?;
        match alerts.recv_timeout(LATE) {
            Ok(arrived) => took.push(arrived.saturating_duration_since(done).as_secs_f64() * 1e3),
            Err(_) => late += 1,
        }
        process::sleep_until(Instant::now() + PAUSE)?;
    }
    load.join().map_err(|_| anyhow::anyhow!("the loader broke off"))??;
    consumer.kill()?;
    consumer.wait()?;
    let log = agent_dir.join("keywatch.log");
    let status = agent.stop()?;
    ensure!(status.success(), "keywatch ended with {status}");
    let summary = host::summary(&log)?;
    let (seen, served) = (host::count(&summary, "/calls")?, nginx.stop()?.len());
    took.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (took.len() as f64 * share).ceil() as usize;
        took.get(place.saturating_sub(1)).map_or("-".into(), |ms| format!("{ms:.0} ms"))
    };
    Ok(vec![
        ("calls served, and seen by Keywatch".into(), format!("{served}, {seen}"), "the same"),
        ("alerts timed, and not there in 10 s".into(), format!("{}, {late}", took.len()), "0 late"),
        ("last byte to alert at a consumer, median".into(), at(0.5), ""),
        ("the same, 99 of 100".into(), at(0.99), "under 1000 ms"),
        ("the same, slowest".into(), at(1.0), ""),
    ])
}

/// Keys that are accepted once and then refused a withdrawal, each its own.
struct Attacks {
    server: SocketAddr,
    number: u32,
}

impl Attacks {
    /// Makes one; when the last byte of the answer was here.
    fn one(&mut self) -> Result<Instant> {
        self.number += 1;
        let key = format!("X-MBX-APIKEY: made-up-key-{:052}\r\n", self.number);
        let mut connection = Connection::open(self.server)?;
        let reply = connection.call("GET", "/api/v3/account?signature=00", &key, b"")?;
        ensure!(reply.status == 200, "answered {}", reply.status);
        let target = "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1&signature=00";
        let reply = connection.call("POST", target, &key, b"")?;
        ensure!(reply.status == 403, "answered {}", reply.status);
        Ok(Instant::now())
    }
}

/// kcat on the topic of alerts: when each of those about attacks was read.
fn consumer(kafka: &Kafka) -> Result<(Child, Receiver<Instant>)> {
    let mut command = kafka::kcat()?;
    command.args(["-b", &kafka.bootstrap, "-C", "-t", "keywatch.alerts", "-o", "beginning"]);
    command.args(["-q", "-u", "-X", "topic.metadata.refresh.interval.ms=1000"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("kcat says nothing")?).lines();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let about = lines.map_while(Result::ok).filter(|line| line.contains(DETECTOR));
        // Until nobody wants to know any more.
        about.map(|_| sender.send(Instant::now())).take_while(Result::is_ok).for_each(drop);
    });
    Ok((child, receiver))
}
