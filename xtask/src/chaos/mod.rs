//! `cargo xtask chaos`: what arrives when brokers and members of the fleet die, pause, are cut off and come
//! back, and disks fill.
//!
//! First agents deliver alerts through their spools (`agents`). Then a
//! fleet reads made-up calls from a real cluster while a seeded hand breaks things. Its alerts have to
//! be those of a single Engine over the same calls: none lost, none twice, those of a key in order.

mod agents;
mod brokers;
mod calls;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use monitor_core::alert::{Alert, Entity};
use monitor_core::call::ApiCall;
use monitor_core::engine::{Engine, Settings};
use rustix::process::Signal;
use tempfile::TempDir;

pub use self::agents::Delivered;
use self::brokers::Brokers;
use crate::build::{self, Profile};
use crate::cluster::Cluster;
use crate::process::{self, Proc};

/// What to do.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Calls that the fleet reads.
    #[arg(long, default_value_t = 100_000)]
    pub activity: usize,
    /// Alerts that an agent raises in a run.
    #[arg(long, default_value_t = 2_000)]
    pub alerts: usize,
    /// How long things are broken, once for each of the two parts.
    #[arg(long, default_value_t = 90)]
    pub seconds: u64,
    /// Nodes of the cluster: 1 or 3.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// The part to run; both when not given.
    #[arg(long)]
    pub part: Option<Part>,
    /// The same seed breaks the same things in the same order.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// A part of it.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Agents and their spools.
    Agents,
    /// Members of the fleet.
    Fleet,
}

const ALERTS: &str = "keywatch.alerts";
const ACTIVITY: &str = "keywatch.activity";
/// A group that lost a member is whole again after its session (10 s), a transaction left open is ended
/// after 20 s, a broker is back in 10 s; and a busy machine takes several times that.
const SETTLE_MAX: Duration = Duration::from_secs(180);
/// A member joins within seconds.
const JOIN_MAX: Duration = Duration::from_secs(120);
/// Something breaks this often.
const STEP: Duration = Duration::from_secs(5);

/// Breaks things, prints the table, and fails when it does not add up.
pub fn run(options: &Options) -> Result<()> {
    process::catch_interrupts()?;
    let keywatch = build::keywatch(Profile::Debug)?;
    let wants = |part| options.part.is_none_or(|wanted| wanted == part);
    let delivered = wants(Part::Agents).then(|| agents(options, &keywatch)).transpose()?;
    if let Some(delivered) = &delivered {
        println!("chaos with seed {}: {}", options.seed, delivered.text());
    }
    let table = wants(Part::Fleet).then(|| fleet(options, &keywatch)).transpose()?;
    if let Some(table) = &table {
        print!("{}", table.text());
    }
    delivered.map_or(Ok(()), |delivered| delivered.check())?;
    table.map_or(Ok(()), |table| table.check())
}

/// Agents under chaos.
pub fn agents(options: &Options, keywatch: &Path) -> Result<Delivered> {
    let mut rng = Rng::with_seed(options.seed);
    let mut brokers = Brokers::start(options.nodes)?;
    agents::deliver(&mut brokers, keywatch, &mut rng, options.alerts, options.seconds)
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Table {
    seed: u64,
    calls: usize,
    expected: usize,
    arrived: usize,
    lost: usize,
    strange: usize,
    doubles: usize,
    disordered: usize,
    done: String,
    left: usize,
    settled: Duration,
    took: Duration,
}

impl Table {
    /// For people.
    pub fn text(&self) -> String {
        format!(
            "chaos with seed {}: fleet: {}\n\
             calls                      {:>9}\n\
             alerts of a single Engine  {:>9}\n\
             alerts in Kafka            {:>9}\n\
             lost                       {:>9}\n\
             not of the single Engine   {:>9}\n\
             twice                      {:>9}\n\
             keys out of order          {:>9}\n\
             members at the end         {:>9}\n\
             until all were there       {:>8.1}s\n\
             10,000,000 calls take      {:>6} min\n",
            self.seed,
            self.done,
            self.calls,
            self.expected,
            self.arrived,
            self.lost,
            self.strange,
            self.doubles,
            self.disordered,
            self.left,
            self.settled.as_secs_f64(),
            minutes(self.took, self.calls, 10_000_000)
        )
    }

    /// Fails unless everything arrived once and in order.
    pub fn check(&self) -> Result<()> {
        ensure!(self.expected > 0, "the single Engine raised no alert");
        let wrong = self.lost + self.strange + self.doubles + self.disordered;
        ensure!(
            wrong == 0,
            "the fleet's alerts are not those of a single Engine:\n{}",
            self.text()
        );
        Ok(())
    }
}

/// The fleet under chaos.
pub fn fleet(options: &Options, keywatch: &Path) -> Result<Table> {
    let mut rng = Rng::with_seed(options.seed);
    let mut calls = calls::make(rng.fork(), options.activity);
    let mut one = Engine::new(settings());
    let mut expected = Vec::new();
    let mut stage = Stage::open(options, keywatch)?;
    stage.join()?;
    stage.join()?;
    let begun = Instant::now();
    let steps = usize::try_from(options.seconds.div_ceil(STEP.as_secs()))?.max(4);
    let (at_once, mut fed) = (options.activity.div_ceil(steps).max(1), 0);
    loop {
        let part: Vec<ApiCall> = calls.by_ref().take(at_once).collect();
        if part.is_empty() {
            break;
        }
        let begun = Instant::now();
        stage.breaks(&mut rng)?;
        stage.feed(&part)?;
        fed += part.len();
        add_alerts(&mut one, &part, &mut expected);
        process::sleep_until(begun + STEP)?;
    }
    stage.heal()?;
    let healed = Instant::now();
    let mut arrived = stage.brokers.cluster.read_topic(ALERTS).unwrap_or_default();
    // As long as there are more each time.
    let mut grew = Instant::now();
    while arrived.len() < expected.len() && grew.elapsed() < SETTLE_MAX {
        process::sleep_until(Instant::now() + Duration::from_secs(1))?;
        stage.check_members()?;
        let now = stage.brokers.cluster.read_topic(ALERTS).unwrap_or_default();
        if now.len() > arrived.len() {
            (arrived, grew) = (now, Instant::now());
        }
    }
    let (settled, took) = (healed.elapsed(), begun.elapsed());
    let left = stage.members.len();
    let done = stage.finish()?;
    let arrived = done.1.read_topic(ALERTS)?;
    let mut table = compare(&expected, &arrived)?;
    (table.seed, table.calls, table.done) = (options.seed, fed, done.0);
    (table.left, table.settled, table.took) = (left, settled, took);
    Ok(table)
}

/// How many minutes so many take at the pace of those that were done.
fn minutes(took: Duration, done: usize, all: usize) -> u64 {
    (took.as_secs_f64() / 60.0 * all as f64 / done.max(1) as f64).ceil() as u64
}

/// What a single Engine says of all calls.
fn add_alerts(engine: &mut Engine, calls: &[ApiCall], alerts: &mut Vec<Alert>) {
    for call in calls {
        engine.handle_call(call);
        alerts.extend(std::iter::from_fn(|| engine.poll_alert()));
    }
}

/// A budget of a day is one of a partition in a fleet; here it is out of the way.
fn settings() -> Settings {
    Settings {
        host: "fleet".into(),
        alerts_per_day_max: 100_000,
        alerts_per_day_hard_max: 1_000_000,
        ..Settings::default()
    }
}

/// What makes two alerts the same. Of addresses not the id: it is made with the time of the call that
/// was one too many, and which one that is depends on the order in which partitions pass them on.
fn name(alert: &Alert) -> String {
    let sum = |alert: &Alert| format!("{:?} {:?}", alert.entity, alert.title);
    match alert.entity {
        Entity::Key(_) | Entity::Host => {
            let detectors: Vec<_> = alert.findings.iter().map(|it| it.detector.as_ref()).collect();
            format!("{} {}.{} {}", sum(alert), alert.id, alert.revision, detectors.join("+"))
        }
        Entity::Client(_) | Entity::Network(_) | Entity::Group(_) => {
            format!("{}.{}", sum(alert), alert.revision)
        }
    }
}

fn compare(expected: &[Alert], arrived: &[(String, String)]) -> Result<Table> {
    let mut table = Table { expected: expected.len(), arrived: arrived.len(), ..Table::default() };
    let wanted: HashSet<String> = expected.iter().map(name).collect();
    let mut seen = HashSet::new();
    let mut latest: HashMap<String, (u64, u32)> = HashMap::new();
    for (key, line) in arrived {
        let alert: Alert = serde_json::from_str(line).with_context(|| format!("alert {line}"))?;
        let name = name(&alert);
        table.strange += usize::from(!wanted.contains(&name));
        let at = (alert.time.0, alert.revision);
        if !seen.insert(name) {
            table.doubles += 1;
        } else if latest.insert(key.clone(), at).is_some_and(|before| before.0 > at.0) {
            table.disordered += 1;
        }
    }
    table.lost = wanted.iter().filter(|name| !seen.contains(*name)).count();
    Ok(table)
}

/// Tells a member to end. What it has found it says first, and for that it may have to wait until another
/// broker leads what one led that is away.
fn end(mut member: Proc) -> Result<ExitStatus> {
    member.signal(Signal::TERM)?;
    member.wait(SETTLE_MAX)
}

/// A cluster, and the members on it.
struct Stage {
    brokers: Brokers,
    members: Vec<(String, Proc)>,
    keywatch: PathBuf,
    dir: TempDir,
    config: PathBuf,
    born: usize,
}

impl Stage {
    fn open(options: &Options, keywatch: &Path) -> Result<Stage> {
        let brokers = Brokers::start(options.nodes)?;
        let dir = tempfile::Builder::new().prefix("keywatch-chaos.").tempdir()?;
        let config = dir.path().join("keywatch.toml");
        let set = settings();
        let addresses = format!("\"{}\"", brokers.cluster.bootstrap.replace(',', "\",\""));
        std::fs::write(
            &config,
            format!(
                "[log]\nlevel = \"debug\"\n\
                 [engine]\nalerts_per_day_max = {}\nalerts_per_day_hard_max = {}\n\
                 [fleet]\nstate_interval = \"10s\"\nstate_dir = \"{}\"\n\
                 [sinks.kafka]\nbrokers = [{addresses}]\nformat = \"native\"\n",
                set.alerts_per_day_max,
                set.alerts_per_day_hard_max,
                dir.path().join("states").display(),
            ),
        )?;
        Ok(Stage { brokers, members: Vec::new(), keywatch: keywatch.into(), dir, config, born: 0 })
    }

    /// One member more.
    fn join(&mut self) -> Result<()> {
        self.born += 1;
        let name = format!("m{}", self.born);
        let mut command = Command::new(&self.keywatch);
        command.arg("--config").arg(&self.config).args(["fleet", "--member", &name]);
        let log = self.dir.path().join(format!("{name}.log"));
        let mut member = Proc::spawn(&format!("fleet member {name}"), &command, &log)?;
        member.wait_for_line("keywatch: fleet member", JOIN_MAX)?;
        self.members.push((name, member));
        Ok(())
    }

    /// Breaks one thing, and mends what was broken before.
    fn breaks(&mut self, rng: &mut Rng) -> Result<()> {
        let what = match rng.u8(0..5) {
            0 if self.members.len() > 1 => {
                let (_, mut member) = self.members.swap_remove(rng.usize(0..self.members.len()));
                member.kill()?;
                "members killed"
            }
            1 if self.members.len() > 2 => {
                let (_, member) = self.members.swap_remove(rng.usize(0..self.members.len()));
                let status = end(member)?;
                ensure!(status.success(), "a member that was told to end: {status}");
                "members ended"
            }
            0..=2 if self.members.len() < 4 => {
                // Not while a broker is away: joining may have to wait for it.
                self.brokers.mend()?;
                self.join()?;
                "members added"
            }
            _ => {
                self.brokers.breaks(rng)?;
                // A single node has to be back before calls can be written.
                if self.brokers.cluster.nodes() == 1 {
                    self.brokers.mend()?;
                }
                return Ok(());
            }
        };
        self.brokers.note(what);
        Ok(())
    }

    /// Writes calls to the topic, in order for each key, as an agent would.
    fn feed(&self, calls: &[ApiCall]) -> Result<()> {
        let mut kcat = self.brokers.cluster.kcat()?;
        kcat.args(["-P", "-t", ACTIVITY, "-K", "\t", "-z", "lz4"]);
        kcat.args(["-X", "enable.idempotence=true"]);
        kcat.args(["-X", "topic.message.timeout.ms=120000"]);
        let mut child = kcat.stdin(Stdio::piped()).spawn().context("starting kcat")?;
        let mut input = std::io::BufWriter::new(child.stdin.take().context("kcat takes no input")?);
        // What is no call is passed over.
        writeln!(input, "nobody\tnot a call")?;
        for call in calls {
            let key = call.key.as_ref().map(|key| key.id.to_string()).unwrap_or_default();
            writeln!(input, "{key}\t{}", serde_json::to_string(call)?)?;
        }
        input.flush()?;
        drop(input);
        let status = child.wait()?;
        ensure!(status.success(), "kcat could not write calls: {status}");
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.brokers.mend()?;
        if self.members.is_empty() {
            self.join()?;
        }
        Ok(())
    }

    fn check_members(&mut self) -> Result<()> {
        for (name, member) in &mut self.members {
            ensure!(member.is_running()?, "member {name} ended by itself:\n{}", member.output());
        }
        Ok(())
    }

    /// Ends the members in order; what they say too much shows before the topic is read again.
    fn finish(self) -> Result<(String, Cluster)> {
        for (name, member) in self.members {
            let status = end(member)?;
            ensure!(status.success(), "member {name} ended with {status}");
        }
        let mut said = false;
        for number in 1..=self.born {
            let log = std::fs::read_to_string(self.dir.path().join(format!("m{number}.log")))?;
            said |= log.contains("a record cannot be read: keywatch.activity, partition ");
        }
        ensure!(said, "no member said that there are records that are no calls");
        Ok((self.brokers.done(), self.brokers.cluster))
    }
}
