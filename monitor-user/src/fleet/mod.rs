//! `keywatch fleet`: the Engine over the calls of all hosts, as a member of a Kafka consumer group.
//!
//! Each partition has an Engine of its own, fed with its records in their order, so that what it says
//! depends on that partition alone, whichever member holds it. Alerts and how far was read are one
//! transaction: after any death the next member goes on exactly behind what was said. What was learnt is
//! in another topic (`state`); the next member takes it from there, reads again what came since then and
//! what running windows hold, and says nothing meanwhile.
//!
//! Calls are partitioned by key. What concerns addresses (D3) needs the calls of all keys: members pass
//! those on to a second topic, partitioned by network, which is read in the same way; and what keys come
//! to, for what many do at once (D20), to a third, partitioned by that (docs/decisions/0033).

mod copies;
mod group;
mod partition;
mod passed_on;
mod publisher;
mod state;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use self::copies::Copies;
use self::group::{Members, Move, Place, Ways};
use self::partition::{Partition, Stage};
use self::publisher::{Published, Publisher};
use self::state::Round;
use crate::cli::FleetArgs;
use crate::config::{self, Config};
use crate::fault::{Misuse, tell};
use crate::live::Stop;
use crate::metrics::{self, Board, Figures};
use crate::notify::notify;
use crate::sinks::kafka::{options, topics};
use crate::sinks::seldom::Seldom;

/// How long records are waited for before looking at signals and the clock.
const POLL_MAX: Duration = Duration::from_millis(50);
/// What was found is said this soon: a fifth of the second in which an alert is to arrive.
const SAY_INTERVAL: Duration = Duration::from_millis(200);
/// Where nothing was found, how far was read is noted this often.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
/// Records of one transaction: a few megabytes.
const SAY_MAX: usize = 10_000;
/// How long the end may take: what was not said by then is said by another member.
const END_MAX: Duration = Duration::from_secs(15);
/// Brokers that do not say where partitions begin, time and again, will not.
const ASTRAY_MAX: u32 = 10;
/// A line about the same trouble at most this often.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(60);

/// Works until a signal or the end of the time.
pub(crate) fn fleet(args: &FleetArgs, config: &Config, quiet: bool) -> Result<()> {
    let set = &config.sinks.kafka;
    if set.brokers.is_empty() {
        return Err(Misuse("no Kafka: set brokers under [sinks.kafka] in the config".into()).into());
    }
    let stop = stop_flag(args.duration)?;
    let mut fleet = config.fleet.with_topics();
    if let Some(member) = &args.member {
        fleet.member.clone_from(member);
    }
    if fleet.member.is_empty() {
        fleet.member = rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    let mut member = Member::join(set, &fleet, config)?;
    tell(&format!("fleet member {} reads {}", fleet.member, set.activity_topic));
    notify("READY=1");
    while !stop.load(Ordering::Relaxed) {
        member.step()?;
    }
    // Whoever is next has little to read.
    for partition in member.partitions.values_mut().filter(|it| it.has_learnt()) {
        partition.begin_round();
    }
    member.publish()?;
    if !quiet {
        member.summarise();
    }
    Ok(())
}

/// One member at work.
struct Member {
    /// `None` while it is out of the group.
    consumer: Option<BaseConsumer<Members>>,
    ways: Ways,
    /// Into how many partitions keys are spread.
    parts: u32,
    state_interval: Duration,
    publisher: Publisher,
    /// What is made of a partition.
    partitions: HashMap<Place, Partition>,
    settings: monitor_core::engine::Settings,
    writer: crate::sinks::event::Writer,
    place: String,
    /// When the last transaction ended, and how long it took.
    said: Instant,
    took: Duration,
    /// How often in a row partitions could not be taken over.
    astray: u32,
    trouble: Seldom,
    garbage: Seldom,
    counts: Counts,
    board: Option<Board>,
}

/// What a member did.
#[derive(Clone, Debug, Default)]
struct Counts {
    calls: u64,
    warmed: u64,
    alerts: u64,
    garbage: u64,
    late: u64,
    rebalances: u64,
    repeated: u64,
}

impl Member {
    fn join(set: &config::Kafka, fleet: &config::Fleet, config: &Config) -> Result<Member> {
        let place = format!("Kafka at {}", set.brokers.join(","));
        crate::sinks::kafka::reach(set, Duration::from_secs(30))?;
        let options = options::member(set, &fleet.group).map_err(Misuse)?;
        if set.make_topics {
            let made = topics::make_for_fleet(&options, set, fleet);
            made.map_err(|reason| anyhow::anyhow!("{place}: {reason}"))?;
        }
        let publisher = Publisher::start(set, fleet, &place)?;
        let mut settings = config.engine_settings();
        settings.host.clone_from(&fleet.name);
        let stage = |topic: &str, stage: Stage| (topic.into(), stage, stage.overlap(&settings));
        let parts = topics::check_for_fleet(&options, set, fleet);
        let parts = parts.with_context(|| place.clone())?;
        let ways = Ways {
            stages: vec![
                stage(&set.activity_topic, Stage::Keys),
                stage(&fleet.sources_topic, Stage::Sources),
                stage(&fleet.groups_topic, Stage::Groups),
            ],
            warmup: fleet.warmup,
            copies: match &fleet.state_dir {
                dir if dir.as_os_str().is_empty() => Copies::none(),
                dir => Copies::open(dir, &fleet.state_topic, &fleet.member),
            },
            state_topic: fleet.state_topic.clone(),
            options,
        };
        let consumer = subscribe(&ways)?;
        Ok(Member {
            consumer: Some(consumer),
            ways,
            parts,
            state_interval: fleet.state_interval,
            publisher,
            partitions: HashMap::new(),
            settings,
            writer: crate::sinks::event::Writer::new(set.format, &fleet.name),
            place,
            said: Instant::now(),
            took: Duration::ZERO,
            astray: 0,
            trouble: Seldom::new(TROUBLE_INTERVAL),
            garbage: Seldom::new(TROUBLE_INTERVAL),
            counts: Counts::default(),
            board: config.metrics.listen.map(metrics::serve).transpose()?,
        })
    }

    /// Takes a record, if there is one, and says what is due.
    fn step(&mut self) -> Result<()> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let message = consumer.poll(POLL_MAX);
        // They came before the message did.
        let moves = match consumer.context().take() {
            Ok(moves) => moves,
            Err(reason) => {
                drop(message);
                return self.start_over(&reason);
            }
        };
        for moved in moves {
            self.counts.rebalances += 1;
            match moved {
                Move::Given { place, stage, committed, learnt } => {
                    self.astray = 0;
                    tracing::info!(topic = place.0, partition = place.1, committed, "given");
                    let partition =
                        Partition::new(stage, committed, learnt, &self.settings).of(self.parts);
                    self.partitions.insert(place, partition);
                }
                // With what it had not said yet: the next holder says it.
                Move::Taken { place } => {
                    tracing::info!(topic = place.0, partition = place.1, "taken");
                    if let Some(gone) = self.partitions.remove(&place) {
                        gone.add_to(&mut self.counts);
                    }
                }
            }
        }
        match message {
            None => {}
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                if let Some(partition) = self.partitions.get_mut(&place)
                    && let Err(reason) = partition.take(&message, &self.writer)
                    && let Some(held_back) = self.garbage.allow(Instant::now())
                {
                    let (topic, number) = (&place.0, place.1);
                    let more = match held_back {
                        0 => String::new(),
                        count => format!(" ({count} more like it)"),
                    };
                    tell(&format!(
                        "a record cannot be read: {topic}, partition {number}, offset {}: \
                         {reason}{more}: it is passed over",
                        message.offset()
                    ));
                }
            }
            Some(Err(error)) => self.say_trouble(&error)?,
        }
        let waiting: usize = self.partitions.values().map(|it| it.waiting.len()).sum();
        // Where brokers are slow half of the time is for reading.
        let due = if waiting > 0 { SAY_INTERVAL.max(self.took) } else { NOTE_INTERVAL };
        if waiting >= SAY_MAX || self.said.elapsed() >= due {
            self.publish()?;
        }
        Ok(())
    }

    /// Leaves the group: nobody waits for it meanwhile.
    fn leave(&mut self) {
        for (_, partition) in self.partitions.drain() {
            partition.add_to(&mut self.counts);
        }
        self.consumer = None;
    }

    /// Where partitions begin could not be found out: others may, or this member when it comes back.
    fn start_over(&mut self, reason: &str) -> Result<()> {
        self.astray += 1;
        ensure!(self.astray < ASTRAY_MAX, "cannot take over partitions: {reason}");
        tell(&format!("cannot take over partitions: {reason}: it is tried again"));
        self.leave();
        self.come_back()
    }

    /// Comes back, to go on from what is committed.
    fn come_back(&mut self) -> Result<()> {
        self.consumer = Some(subscribe(&self.ways)?);
        Ok(())
    }

    /// What was found since the last time, and how far was read, as one.
    fn publish(&mut self) -> Result<()> {
        let begun = Instant::now();
        let published = self.say();
        (self.said, self.took) = (Instant::now(), begun.elapsed());
        published
    }

    fn say(&mut self) -> Result<()> {
        self.show();
        // One at a time, so that no alert waits long.
        let due = self.partitions.values_mut().find(|it| it.is_round_due(self.state_interval));
        if let Some(partition) = due {
            partition.begin_round();
        }
        let new = self.partitions.iter().filter(|(_, partition)| partition.has_news());
        let group = self.consumer.as_ref().and_then(Consumer::group_metadata);
        let Some(group) = group else { return Ok(()) };
        match self.publisher.publish(new, &group)? {
            Published::All => {
                let mut rounds = Vec::new();
                for ((_, number), partition) in &mut self.partitions {
                    let (alerts, round) = partition.said();
                    self.counts.alerts += alerts;
                    rounds.push((*number, partition.stage(), round));
                }
                self.copy(rounds);
            }
            // Another member has them, or soon will; what stays ours is said the next time.
            Published::Nothing(reason) => {
                self.counts.repeated += 1;
                tracing::info!("nothing was said: {reason}");
                // The brokers are left alone a moment; the group is served by the next poll.
                std::thread::sleep(POLL_MAX);
            }
            Published::Unknown(reason) => {
                self.counts.repeated += 1;
                self.leave();
                self.publisher.begin_anew(&reason)?;
                self.come_back()?;
            }
        }
        Ok(())
    }

    /// Has copies go on with what was written of states. Those of stages lie side by side in a partition:
    /// where one has written, the others have nothing new up to there.
    fn copy(&self, rounds: Vec<(i32, Stage, Option<Round>)>) {
        let written: HashSet<i32> = rounds
            .iter()
            .filter(|(.., round)| round.is_some())
            .map(|(number, ..)| *number)
            .collect();
        for (number, stage, round) in rounds {
            let end = self.publisher.state_end(number).filter(|_| written.contains(&number));
            if let Some(end) = end {
                let records = round.map_or(Vec::new(), |round| round.records);
                self.ways.copies.go_on(number, stage, records, end);
            }
        }
    }

    fn show(&self) {
        let Some(board) = &self.board else { return };
        let mut all = self.counts.clone();
        self.partitions.values().for_each(|partition| partition.add_to(&mut all));
        let mut figures = Figures::default();
        figures.counter("fleet_calls", "Calls judged", all.calls);
        figures.counter("fleet_warmed_calls", "Calls read again to know what is usual", all.warmed);
        figures.counter("fleet_alerts", "Alerts said", all.alerts);
        figures.counter("fleet_unreadable_records", "Records that are no calls", all.garbage);
        figures.counter("fleet_late_calls", "Calls too late to be judged", all.late);
        figures.counter("fleet_moves", "Partitions given or taken", all.rebalances);
        figures.counter("fleet_failed_transactions", "Transactions said again", all.repeated);
        figures.gauge("fleet_partitions", "Partitions held", self.partitions.len() as u64);
        board.show(figures);
    }

    fn say_trouble(&mut self, error: &KafkaError) -> Result<()> {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            anyhow::bail!("{} cannot be read: {}", self.place, options::reason(error));
        }
        let away = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if self.trouble.allow(Instant::now()).is_some() {
            let mend = if away { ": start Kafka or correct sinks.kafka.brokers" } else { "" };
            tell(&format!("{}: {}{mend}", self.place, options::reason(error)));
        }
        Ok(())
    }

    fn summarise(mut self) {
        for (_, partition) in self.partitions.drain() {
            partition.add_to(&mut self.counts);
        }
        let Counts { calls, warmed, alerts, garbage, late, rebalances, repeated: _ } = self.counts;
        tell(&format!(
            "fleet: {calls} calls judged, {warmed} read again, {alerts} alerts, {garbage} records \
             unreadable, {late} calls too late, {rebalances} partitions given or taken"
        ));
    }
}

fn subscribe(ways: &Ways) -> Result<BaseConsumer<Members>> {
    let members = Members::new(ways.clone());
    let consumer: BaseConsumer<Members> =
        ways.options.create_with_context(members).map_err(options::refused)?;
    let topics: Vec<&str> = ways.stages.iter().map(|(topic, ..)| topic.as_str()).collect();
    consumer.subscribe(&topics).context("cannot subscribe")?;
    Ok(consumer)
}

/// Set by a signal or the end of the time; a second signal ends the program at once, which is as safe as
/// any death.
fn stop_flag(duration: Option<Duration>) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Made here, so that no signal is missed from now on.
    let mut stop = runtime.block_on(async { Stop::new(duration) })?;
    let wait = move || {
        runtime.block_on(stop.asked());
        set.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        if let Ok(mut again) = runtime.block_on(async { Stop::new(Some(END_MAX)) }) {
            runtime.block_on(again.asked());
            // A group is left at once only when its coordinator answers.
            let waited = begun.elapsed() >= END_MAX;
            let why = if waited { "the brokers do not answer: " } else { "" };
            tell(&format!("{why}stopped at once: another member says what this one did not"));
            std::process::exit(i32::from(!waited));
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(flag)
}
