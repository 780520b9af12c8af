//! Alerts: into the spool at once, and from there to Kafka by a thread that never gives up.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use monitor_core::alert::Alert;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::seldom::Seldom;
use super::spool::Spool;
use super::watch::{Report, Ticket, Watch, lock};
use super::{options, record};
use crate::config;
use crate::fault::{Misuse, tell};
use crate::secret::state_dir;

/// The side of the core: hands alerts over.
pub(super) struct Alerts {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    line: Vec<u8>,
}

impl Alerts {
    pub(super) fn start(set: &config::Kafka) -> Result<Alerts> {
        let dir = set.spool_dir.clone().unwrap_or_else(|| state_dir().join("spool"));
        let spool = Spool::open(&dir)?;
        let config = options::alerts(set).map_err(Misuse)?;
        let producer = connect(&config).map_err(options::refused)?;
        let shared = Arc::new(Shared {
            spool_path: spool.path().display().to_string(),
            state: Mutex::new(State { spool, deadline: None, lost: 0 }),
            wake: Condvar::new(),
        });
        let sender = Sender {
            shared: Arc::clone(&shared),
            config,
            brokers: set.brokers.join(","),
            topic: set.alerts_topic.clone(),
            in_flight_max: usize::try_from(set.alerts_in_flight_max).unwrap_or(usize::MAX),
            producer: Some(producer),
            retry: Instant::now(),
            held: None,
            trouble: Seldom::new(TROUBLE_INTERVAL),
            away: false,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-alerts".into())
            .spawn(move || sender.run())
            .context("cannot start the thread that sends alerts")?;
        Ok(Alerts { shared, thread: Some(thread), line: Vec::new() })
    }

    /// Costs one write to the spool.
    pub(super) fn send(&mut self, alert: &Alert) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, alert).context("cannot write an alert as JSON")?;
        self.line.push(b'\n');
        let mut state = lock(&self.shared.state);
        if let Err(error) = state.spool.append(&self.line) {
            if state.lost == 0 {
                let path = &self.shared.spool_path;
                tell(&format!("alerts are lost to Kafka: {path}: {error}: make room there"));
            }
            state.lost += 1;
        }
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Waits for deliveries until `deadline`; the rest stays in the spool.
    pub(super) fn finish(&mut self, deadline: Instant) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        lock(&self.shared.state).deadline = Some(deadline);
        self.shared.wake.notify_one();
        if thread.join().is_err() {
            bail!(
                "the thread that sends alerts broke off; they stay in {}",
                self.shared.spool_path
            );
        }
        let mut state = lock(&self.shared.state);
        let left = state.spool.close();
        let path = &self.shared.spool_path;
        match left.with_context(|| format!("cannot keep alerts: {path}"))? {
            0 => {}
            left => tell(&format!("{left} alerts wait for Kafka: {path}: the next run sends them")),
        }
        match state.lost {
            0 => Ok(()),
            lost => bail!("{lost} alerts did not fit into the spool at {path}"),
        }
    }
}

struct Shared {
    spool_path: String,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    spool: Spool,
    /// Set when nothing follows.
    deadline: Option<Instant>,
    /// Alerts that the disk had no place for.
    lost: u64,
}

/// The side of Kafka: a thread of its own.
struct Sender {
    shared: Arc<Shared>,
    config: ClientConfig,
    brokers: String,
    topic: String,
    in_flight_max: usize,
    /// `None` after a failure that only a new one mends.
    producer: Option<BaseProducer<Watch>>,
    /// When a new producer may be made.
    retry: Instant,
    /// Handed out by the spool and not taken by the producer yet.
    held: Option<(Ticket, Vec<u8>)>,
    trouble: Seldom,
    away: bool,
}

/// How long the first question to the brokers may take.
const GREETING_MAX: Duration = Duration::from_secs(3);
/// A line about the same trouble at most this often.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long deliveries are waited for before looking for new alerts: a small part of the second
/// in which an alert is to arrive.
const POLL_MAX: Duration = Duration::from_millis(20);
/// With nothing on its way: how often librdkafka's own events are looked at.
const IDLE_MAX: Duration = Duration::from_millis(500);
/// How long a failed producer is left alone: making one a second costs the brokers nothing.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn connect(config: &ClientConfig) -> Result<BaseProducer<Watch>, KafkaError> {
    config.create_with_context(Watch::new())
}

impl Sender {
    fn run(mut self) {
        self.greet();
        while !self.is_done() {
            if let Err(error) = self.step() {
                self.say(&format!("cannot read alerts back: {error}"));
                self.pause();
            }
            self.wait();
        }
    }

    /// Says so once when no broker answers.
    fn greet(&mut self) {
        let Some(producer) = &self.producer else { return };
        if let Err(error) = producer.client().fetch_metadata(Some(&self.topic), GREETING_MAX) {
            self.away = true;
            self.say(&format!(
                "{}: start Kafka or correct sinks.kafka.brokers",
                options::reason(&error)
            ));
        }
    }

    fn is_done(&self) -> bool {
        let state = lock(&self.shared.state);
        let Some(deadline) = state.deadline else { return false };
        state.spool.is_empty() || Instant::now() >= deadline
    }

    fn step(&mut self) -> std::io::Result<()> {
        if self.producer.is_none() && Instant::now() >= self.retry {
            match connect(&self.config) {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => self.pause_because(&error),
            }
        }
        self.send()?;
        self.receive()?;
        let unsynced = lock(&self.shared.state).spool.take_unsynced()?;
        // Outside the lock: the core must not wait for the disk.
        unsynced.map_or(Ok(()), |file| file.sync_data())
    }

    /// Hands alerts to the producer, as many as may be on their way.
    fn send(&mut self) -> std::io::Result<()> {
        while self.producer.is_some() {
            if self.held.is_none() {
                let mut state = lock(&self.shared.state);
                if state.spool.in_flight() >= self.in_flight_max {
                    return Ok(());
                }
                self.held = state.spool.next()?.map(|(ticket, line)| (Ticket(ticket), line));
            }
            let Some((ticket, line)) = self.held.take() else { return Ok(()) };
            let Ok(alert) = serde_json::from_slice::<Alert>(&line) else {
                self.reject(ticket, &line, "it is not an alert")?;
                continue;
            };
            match self.produce(ticket, &line, &alert) {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.held = Some((ticket, line));
                    return Ok(());
                }
                Err(error) if is_hopeless(&error) => {
                    self.reject(ticket, &line, &options::reason(&error))?;
                }
                Err(error) => self.pause_because(&error),
            }
        }
        Ok(())
    }

    fn produce(&self, ticket: Ticket, line: &[u8], alert: &Alert) -> Result<(), KafkaError> {
        let Some(producer) = &self.producer else { return Ok(()) };
        let key = record::alert_key(alert);
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(ticket))
            .key(&key)
            .payload(line)
            .headers(record::alert_headers(alert));
        producer.send(record).map_err(|(error, _)| error)
    }

    /// Takes what librdkafka has to say.
    fn receive(&mut self) -> std::io::Result<()> {
        let Some(producer) = &self.producer else { return Ok(()) };
        let busy = lock(&self.shared.state).spool.in_flight() > 0;
        producer.poll(if busy { POLL_MAX } else { Duration::ZERO });
        let reports = producer.context().take_reports();
        let away = producer.context().take_away();
        if away && !self.away && busy {
            self.away = true;
            self.say("no broker answers: alerts are sent when one is back");
        }
        for report in reports {
            self.settle(report)?;
        }
        Ok(())
    }

    fn settle(&mut self, report: Report) -> std::io::Result<()> {
        match report.error {
            None => {
                if std::mem::take(&mut self.away) {
                    tell(&format!("Kafka is back: {}", self.brokers));
                    self.trouble = Seldom::new(TROUBLE_INTERVAL);
                }
                lock(&self.shared.state).spool.confirm(report.ticket.0)
            }
            // After a pause, reports of the producer that is gone no longer come.
            Some(error) => {
                self.pause_because(&error);
                Ok(())
            }
        }
    }

    /// Puts an alert aside that would block all others for ever.
    fn reject(&mut self, ticket: Ticket, line: &[u8], reason: &str) -> std::io::Result<()> {
        let mut state = lock(&self.shared.state);
        state.spool.reject(line)?;
        state.spool.confirm(ticket.0)?;
        drop(state);
        tell(&format!(
            "an alert was put aside: {}: {reason}: see rejected.jsonl beside it",
            self.shared.spool_path
        ));
        Ok(())
    }

    fn pause_because(&mut self, error: &KafkaError) {
        self.away = true;
        self.say(&options::reason(error));
        self.pause();
    }

    /// Gives the producer up and starts anew later, from the first alert that is not confirmed.
    fn pause(&mut self) {
        self.producer = None;
        self.held = None;
        self.retry = Instant::now() + RETRY_AFTER;
        lock(&self.shared.state).spool.rewind();
    }

    fn say(&mut self, reason: &str) {
        if self.trouble.allow(Instant::now()).is_some() {
            let Sender { brokers, topic, .. } = &*self;
            let path = &self.shared.spool_path;
            tell(&format!(
                "Kafka takes no alerts: {brokers}, topic {topic}: {reason} (they wait in {path})"
            ));
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        let state = lock(&self.shared.state);
        let ready = self.producer.is_some() && state.spool.has_next() && self.held.is_none();
        let busy = self.producer.is_some() && state.spool.in_flight() > 0;
        if ready || busy || (state.deadline.is_some() && state.spool.is_empty()) {
            return;
        }
        let soonest = match (self.producer.is_some(), state.deadline) {
            (true, None) => IDLE_MAX,
            (true, Some(_)) => POLL_MAX,
            (false, None) => self.retry.saturating_duration_since(Instant::now()).min(IDLE_MAX),
            (false, Some(deadline)) => {
                deadline.saturating_duration_since(Instant::now()).min(IDLE_MAX)
            }
        };
        // A poisoned lock is taken as it is, like everywhere.
        let _ = self.shared.wake.wait_timeout(state, soonest);
    }
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

/// Errors of the record itself: no broker will ever take it.
fn is_hopeless(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}
