//! `cargo xtask demo`: a real server, ordinary clients, a stolen key, and the alert.

mod actors;
mod history;
mod show;
mod traffic;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use monitor_core::alert::{Alert, Entity};
use monitor_core::call::KeyId;
use monitor_core::time::EventTime;

use crate::agent::{self, Agent, Setup};
use crate::build::{self, Profile};
use crate::exchange;
use crate::kafka::{self, Kafka};
use crate::nginx::{Nginx, Role};
use crate::process::{self, Proc};
use crate::setup::{self, Purpose};

/// Ordinary traffic alone, before anything bad happens.
const ORDINARY: Duration = Duration::from_secs(20);
/// Ordinary traffic in all: it goes on beside the attacks.
const ORDINARY_IN_ALL: Duration = Duration::from_secs(30);
const ALERTS_TOPIC: &str = "keywatch.alerts";

/// How to run it.
#[derive(clap::Args)]
pub struct Options {
    /// Build without optimisation: quicker to start.
    #[arg(long)]
    debug: bool,
    /// Leave Kafka out.
    #[arg(long)]
    no_kafka: bool,
    /// Seed of keys and traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it; fails when an attack was not alerted or a call was missed.
pub fn run(options: &Options) -> Result<()> {
    process::catch_interrupts()?;
    setup::ensure_for(&[Purpose::Build, Purpose::Live, Purpose::Kafka])?;
    ensure!(setup::is_root(), "attaching to the kernel needs root (mend: run it with sudo -E)");
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    println!("Building keywatch ...");
    let keywatch = build::keywatch(profile)?;
    let dir = build::workspace_root().join("target/demo");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let stage = Stage::build(options, &dir)?;
    let outcome = stage.play(&keywatch)?;
    outcome.report()
}

/// Everything that is there before Keywatch starts. Fields drop in this order.
struct Stage {
    dir: PathBuf,
    rng: Rng,
    actors: Vec<actors::Actor>,
    ids: Vec<KeyId>,
    server: SocketAddr,
    nginx: Option<Nginx>,
    _exchange: Proc,
    kafka: Option<Kafka>,
}

impl Stage {
    fn build(options: &Options, dir: &Path) -> Result<Stage> {
        let mut rng = Rng::with_seed(options.seed);
        let actors = actors::dozen(&mut rng);
        let secret: [u8; 32] = std::array::from_fn(|_| rng.u8(..));
        write_private(&dir.join("secret"), &(hex(&secret) + "\n"))?;
        let keys: Vec<_> = actors.iter().map(actors::Actor::entry).collect();
        write_private(&dir.join("exchange-keys.json"), &serde_json::to_string(&keys)?)?;

        let kafka = start_kafka(options)?;
        let upstream = loopback(process::free_server_port()?);
        let exchange = exchange::spawn(upstream, &dir.join("exchange-keys.json"), dir)?;
        println!("Sample exchange on {upstream}.");
        let nginx = start_nginx(upstream, dir)?;
        let server = nginx.as_ref().map_or(upstream, |(address, _)| *address);

        let identifier = actors::identifier(&secret);
        let file = dir.join("history.jsonl");
        let now =
            EventTime(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?);
        let ids = actors.iter().map(|actor| actor.key_id(&identifier)).collect::<Result<_>>()?;
        let count = history::write(&file, &actors, &identifier, server.port(), now, &mut rng)?;
        println!("Two simulated weeks of {} keys: {count} calls.", actors.len());
        Ok(Stage {
            dir: dir.to_owned(),
            rng,
            actors,
            ids,
            server,
            nginx: nginx.map(|(_, nginx)| nginx),
            _exchange: exchange,
            kafka,
        })
    }

    fn play(mut self, keywatch: &Path) -> Result<Played> {
        let agent = self.attach(keywatch)?;
        let names = self.ids.iter().copied().zip(self.actors.iter().map(|a| a.name.clone()));
        let names: HashMap<KeyId, String> = names.collect();
        let show = show::Show::start(agent.calls_file(), agent.alerts_file(), names);
        let sent = self.traffic()?;

        println!("SIGTERM to keywatch ...");
        let (calls_file, alerts_file) = (agent.calls_file(), agent.alerts_file());
        let status = agent.stop()?;
        drop(show);
        ensure!(
            status.success(),
            "keywatch ended with {status}: see {}/keywatch.log",
            self.dir.display()
        );
        let logged = self.nginx.take().map(Nginx::stop).transpose()?;
        let in_kafka = match &self.kafka {
            Some(kafka) => Some(kafka.read_topic(ALERTS_TOPIC)?),
            None => None,
        };
        Ok(Played {
            sent,
            seen: agent::read_calls(&calls_file)?.len() as u64,
            logged: logged.map(|lines| lines.len() as u64),
            alerts: agent::read_alerts(&alerts_file)?,
            alert_lines: fs::read_to_string(&alerts_file)?.lines().map(str::to_owned).collect(),
            in_kafka,
            stolen: self.ids[actors::STOLEN],
            dir: self.dir.clone(),
        })
    }

    fn attach(&self, keywatch: &Path) -> Result<Agent> {
        let mut config = String::new();
        if let Some(kafka) = &self.kafka {
            config = format!(
                "[sinks.spool]\ndir = \"{}\"\n[sinks.kafka]\nbrokers = [\"{}\"]\nformat = \"native\"\n\
                 partitions = 1\nalerts_topic = \"{ALERTS_TOPIC}\"\n\
                 activity_topic = \"keywatch.activity\"\nactivity = true\n",
                self.dir.join("spool").display(),
                kafka.bootstrap
            );
        }
        let file = |name: &str| self.dir.join(name).display().to_string();
        fs::write(file("keywatch.toml"), config)?;
        let args = [
            ("--config", file("keywatch.toml")),
            ("--secret-file", file("secret")),
            ("--history", file("history.jsonl")),
        ];
        let args: Vec<String> =
            args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let agent = Agent::start(&Setup {
            keywatch,
            dir: &self.dir,
            ports: &[self.server.port()],
            args: &args,
            calls: true,
        })?;
        println!("Keywatch (pid {}) watches port {}.", agent.pid(), self.server.port());
        Ok(agent)
    }

    /// Ordinary work throughout; the theft and the bad keys beside it, one after the other.
    fn traffic(&mut self) -> Result<u64> {
        let (server, start) = (self.server, Instant::now());
        println!("\n{} keys at their ordinary work:", self.actors.len());
        std::thread::scope(|scope| {
            let ordinary: Vec<_> = self
                .actors
                .iter()
                .map(|actor| {
                    let rng = self.rng.fork();
                    scope.spawn(move || {
                        traffic::ordinary(actor, server, start + ORDINARY_IN_ALL, rng)
                    })
                })
                .collect();
            process::sleep_until(start + ORDINARY)?;
            let victim = &self.actors[actors::STOLEN];
            println!("\nThe key of {} is stolen; used from {}:", victim.name, traffic::THIEF);
            let mut sent = traffic::theft(victim, server, &mut self.rng)?;
            println!("\nThousands of bad keys from {}:", traffic::STUFFER);
            sent += traffic::stuffing(server, &mut self.rng)?;
            for thread in ordinary {
                let Ok(calls) = thread.join() else { bail!("a client panicked") };
                sent += calls?;
            }
            Ok(sent)
        })
    }
}

/// What came of it.
struct Played {
    sent: u64,
    seen: u64,
    logged: Option<u64>,
    alerts: Vec<Alert>,
    alert_lines: Vec<String>,
    in_kafka: Option<Vec<String>>,
    stolen: KeyId,
    dir: PathBuf,
}

impl Played {
    fn report(&self) -> Result<()> {
        let about_key = self.alerts.iter().any(|alert| alert.entity == Entity::Key(self.stolen));
        let about_stuffing = self.alerts.iter().any(is_stuffing);
        let mut checks = vec![
            (format!("calls sent {}, seen {}", self.sent, self.seen), self.sent == self.seen),
            ("the stolen key was alerted".to_owned(), about_key),
            ("the bad keys were alerted".to_owned(), about_stuffing),
        ];
        if let Some(logged) = self.logged {
            checks.push((format!("calls in nginx's own log {logged}"), logged == self.seen));
        }
        if let Some(in_kafka) = &self.in_kafka {
            let what = format!(
                "alert records in the file {}, in Kafka {}",
                self.alert_lines.len(),
                in_kafka.len()
            );
            checks.push((what, same_lines(in_kafka, &self.alert_lines)));
        }
        println!("\nSummary");
        for (what, good) in &checks {
            println!("  {} {what}", if *good { "ok  " } else { "FAIL" });
        }
        let others = self.alerts.iter().filter(|alert| !self.is_expected(alert)).count();
        println!("       alert records about anything else: {others}");
        for name in ["calls.jsonl", "alerts.jsonl", "access.log", "keywatch.log", "history.jsonl"] {
            let file = self.dir.join(name);
            if file.exists() {
                println!("       {}", file.display());
            }
        }
        let failed = checks.iter().filter(|(_, good)| !good).count();
        ensure!(failed == 0, "{failed} of {} checks of the demo failed", checks.len());
        Ok(())
    }

    fn is_expected(&self, alert: &Alert) -> bool {
        alert.entity == Entity::Key(self.stolen) || is_stuffing(alert)
    }
}

/// Stuffing is flagged by D3, on the client's address or its network.
fn is_stuffing(alert: &Alert) -> bool {
    let from_there = match alert.entity {
        Entity::Client(ip) => ip == traffic::STUFFER,
        Entity::Network(ip) => ip == std::net::IpAddr::V4(Ipv4Addr::new(127, 99, 4, 0)),
        Entity::Key(_) | Entity::Group(_) | Entity::Host => false,
    };
    from_there && alert.findings.iter().any(|finding| finding.detector == "D3")
}

/// The same records, in whatever order partitions gave them back.
fn same_lines(one: &[String], other: &[String]) -> bool {
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    one.sort_unstable();
    other.sort_unstable();
    one == other
}

fn start_kafka(options: &Options) -> Result<Option<Kafka>> {
    if options.no_kafka {
        return Ok(None);
    }
    if let Some(missing) = kafka::missing() {
        println!("Without Kafka: {missing}.");
        return Ok(None);
    }
    println!("Starting Kafka ...");
    let kafka = Kafka::start()?;
    println!("Kafka {} on {}.", kafka::VERSION, kafka.bootstrap);
    Ok(Some(kafka))
}

fn start_nginx(upstream: SocketAddr, dir: &Path) -> Result<Option<(SocketAddr, Nginx)>> {
    if setup::find("nginx").is_none() {
        println!(
            "Without nginx (mend: apt-get install nginx-light): clients go to the exchange itself.",
        );
        return Ok(None);
    }
    let address = loopback(process::free_server_port()?);
    let nginx = Nginx::start(&[address.into()], &Role::Proxy(upstream), dir, None)?;
    println!("nginx on {address} in front of it.");
    Ok(Some((address, nginx)))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut out =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
