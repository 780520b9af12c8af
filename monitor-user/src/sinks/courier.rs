//! Brings records from a spool to where they belong, one lane each, and never gives up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use monitor_core::time::EventTime;

use super::delay::Delays;
use super::event::{Event, Writer};
use super::network::Route;
use super::record::{self, ActivityGap, Kind, Record};
use super::seldom::Seldom;
use super::spool::{Batch, Spool, Which, lock};
use crate::fault::tell;

/// The other side of a sink: takes events over and says later what became of each.
///
/// A transport that reported [`Fate::Failed`] is dropped, and another is made after a while; every
/// event that it has not reported as arrived is sent again by that one.
pub(crate) trait Transport {
    /// Takes an event over; does not wait for it to arrive, or only as long as its own bound says.
    fn send(&mut self, number: u64, event: &Event) -> Sent;

    /// Works for up to `wait`, and adds what became of events.
    fn poll(&mut self, wait: Duration, reports: &mut Vec<Report>);

    /// Events on their way at once, at most.
    fn in_flight_max(&self) -> usize;

    /// What is wrong though no event failed: that nobody answers.
    fn trouble(&mut self) -> Option<String> {
        None
    }
}

/// How an event was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A report follows.
    Taken,
    /// Not now: again after a [`Transport::poll`].
    Full,
    /// Not by this transport any more.
    Failed(String),
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) number: u64,
    pub(crate) fate: Fate,
}

/// See [`Report`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is where it belongs.
    Arrived,
    /// The other side will never take it; this is why, and the event.
    Refused { reason: String, body: Vec<u8> },
    /// It did not arrive, and another attempt may help.
    Failed(String),
}

/// Makes a transport; an error says in a few words why there is none.
pub(crate) type Connect = Box<dyn FnMut() -> Result<Box<dyn Transport>, String> + Send>;

/// What a sink did, for people and metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Events that arrived.
    pub(crate) arrived: AtomicU64,
    /// Events that will never be taken.
    pub(crate) refused: AtomicU64,
    /// Times that a transport had to be given up.
    pub(crate) failures: AtomicU64,
    /// How long alerts took from the last byte behind them.
    pub(crate) delays: Delays,
    /// Slowest delivery of an event once it was sent, microseconds.
    pub(crate) slowest_us: AtomicU64,
}

/// What the courier shares with the sink.
pub(crate) struct Shared {
    pub(crate) spool: Spool,
    pub(crate) counts: Counts,
    /// Set when nothing follows.
    pub(crate) deadline: Mutex<Option<Instant>>,
}

/// See the module. Runs in a thread of its own.
pub(crate) struct Courier {
    pub(crate) shared: Arc<Shared>,
    pub(crate) which: Which,
    /// The sink in messages: `Kafka at …`.
    pub(crate) place: String,
    /// The sink in records: `kafka`.
    pub(crate) sink: &'static str,
    pub(crate) host: String,
    pub(crate) writer: Writer,
    pub(crate) route: Route,
    pub(crate) connect: Connect,
}

/// A line about the same trouble at most this often.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long reports are waited for before looking for new records: a small part of the second in
/// which an alert is to arrive.
const POLL_MAX: Duration = Duration::from_millis(20);
/// With nothing on its way: how often a transport's own events are looked at.
const IDLE_MAX: Duration = Duration::from_millis(500);
/// A transport that failed is left alone for so long, twice as long after each failure, and no longer
/// than the last: making one a second costs the other side nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Progress is noted on disk, and gaps are told, this often.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A courier at work.
struct Round {
    courier: Courier,
    transport: Option<Box<dyn Transport>>,
    retry: Instant,
    retry_after: Duration,
    batch: Batch,
    /// The next record of the batch.
    at: usize,
    /// Events that the transport took and has not reported.
    on_the_way: usize,
    event: Event,
    reports: Vec<Report>,
    /// When the oldest record that is on its way was sent, by its number: one in so many is timed.
    timed: Option<(u64, Instant)>,
    /// Alerts on their way, each with the time of the bytes behind it.
    seen: VecDeque<(u64, EventTime)>,
    trouble: Seldom,
    away: bool,
    noted: Instant,
}

impl Courier {
    /// Works until everything was delivered after a deadline was set, or until the deadline.
    pub(crate) fn run(self) {
        let mut round = Round {
            courier: self,
            transport: None,
            retry: Instant::now(),
            retry_after: RETRY_MIN,
            batch: Batch::default(),
            at: 0,
            on_the_way: 0,
            event: Event::default(),
            reports: Vec::new(),
            timed: None,
            seen: VecDeque::new(),
            trouble: Seldom::new(TROUBLE_INTERVAL),
            away: false,
            noted: Instant::now(),
        };
        while !round.is_done() {
            if let Err(error) = round.step() {
                round.fail(&format!("cannot read records back: {error}"));
            }
            round.rest();
        }
        let _ = round.note();
    }
}

impl Round {
    fn spool(&self) -> &Spool {
        &self.courier.shared.spool
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = *lock(&self.courier.shared.deadline) else { return false };
        if self.courier.which == Which::Alerts {
            tell_gap(self.spool(), self.courier.sink, &self.courier.host);
        }
        self.spool().is_empty(self.courier.which) || Instant::now() >= deadline
    }

    fn step(&mut self) -> std::io::Result<()> {
        let which = self.courier.which;
        if which == Which::Activity {
            self.spool().absorb();
        }
        if self.transport.is_none() && Instant::now() >= self.retry {
            match (self.courier.connect)() {
                Ok(transport) => self.transport = Some(transport),
                Err(reason) => self.fail(&reason),
            }
        }
        if which == Which::Alerts {
            // Whoever crashes now has it on disk already; power loss is another matter.
            self.spool().sync()?;
        }
        self.send()?;
        self.receive()?;
        if self.noted.elapsed() >= NOTE_INTERVAL {
            self.note()?;
        }
        Ok(())
    }

    /// Hands records to the transport, as many as may be on their way.
    fn send(&mut self) -> std::io::Result<()> {
        let which = self.courier.which;
        loop {
            let Some(transport) = &mut self.transport else { return Ok(()) };
            if self.on_the_way >= transport.in_flight_max() {
                return Ok(());
            }
            let Some((number, head, payload)) = self.batch.record(self.at) else {
                self.at = 0;
                self.courier.shared.spool.take(which, &mut self.batch)?;
                if self.batch.len() == 0 {
                    return Ok(());
                }
                continue;
            };
            // Most of what goes out are calls, most often just as they lie there.
            if !self.courier.writer.forward(head, payload, &mut self.event) {
                match Record::read(head, payload) {
                    Ok(record) => self.courier.writer.write(record.view(), &mut self.event),
                    Err(reason) => {
                        let body = payload.to_vec();
                        self.at += 1;
                        self.put_aside(number, &format!("it is not a record: {reason}"), &body)?;
                        continue;
                    }
                }
            }
            let Event { kind, severity, .. } = &self.event;
            if !kind.is_some_and(|kind| self.courier.route.takes(kind, *severity)) {
                self.at += 1;
                self.courier.shared.spool.confirm(which, number)?;
                continue;
            }
            let is_alert = self.event.kind == Some(Kind::Alert);
            match transport.send(number, &self.event) {
                Sent::Taken => {
                    self.at += 1;
                    self.on_the_way += 1;
                    self.timed.get_or_insert_with(|| (number, Instant::now()));
                    if is_alert {
                        self.seen.push_back((number, EventTime(head.time)));
                    }
                }
                Sent::Full => return Ok(()),
                Sent::Failed(reason) => self.fail(&reason),
            }
        }
    }

    /// Takes what the transport has to say.
    fn receive(&mut self) -> std::io::Result<()> {
        let which = self.courier.which;
        let busy = self.spool().in_flight(which) > 0;
        let Some(transport) = &mut self.transport else { return Ok(()) };
        let mut reports = std::mem::take(&mut self.reports);
        transport.poll(if busy { POLL_MAX } else { Duration::ZERO }, &mut reports);
        let trouble = transport.trouble();
        self.on_the_way = self.on_the_way.saturating_sub(reports.len());
        for report in reports.drain(..) {
            match report.fate {
                Fate::Arrived => self.arrived(report.number)?,
                Fate::Refused { reason, body } => self.put_aside(report.number, &reason, &body)?,
                // After this, reports of the transport that is gone no longer count.
                Fate::Failed(reason) => {
                    self.fail(&reason);
                    return Ok(());
                }
            }
        }
        self.reports = reports;
        if let Some(trouble) = trouble
            && !std::mem::replace(&mut self.away, true)
        {
            self.say(&trouble);
        }
        Ok(())
    }

    fn arrived(&mut self, number: u64) -> std::io::Result<()> {
        if std::mem::take(&mut self.away) {
            tell(&format!("{} is back", self.courier.place));
            self.trouble = Seldom::new(TROUBLE_INTERVAL);
        }
        self.retry_after = RETRY_MIN;
        let seen = self.take_seen(number);
        let counts = &self.courier.shared.counts;
        counts.arrived.fetch_add(1, Ordering::Relaxed);
        if let Some((timed, since)) = self.timed
            && number >= timed
        {
            let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.slowest_us.fetch_max(took, Ordering::Relaxed);
            self.timed = None;
        }
        if let Some(time) = seen {
            counts.delays.note(time);
        }
        self.spool().confirm(self.courier.which, number)
    }

    /// When the last byte behind an alert was seen, which is on its way no longer.
    fn take_seen(&mut self, number: u64) -> Option<EventTime> {
        // Confirmed in order, but for what goes to other topics.
        let place = self.seen.iter().position(|(sent, _)| *sent == number)?;
        self.seen.remove(place).map(|(_, time)| time)
    }

    /// Puts a record where a person can look at it; it would block all others for ever.
    fn put_aside(&mut self, number: u64, reason: &str, body: &[u8]) -> std::io::Result<()> {
        self.take_seen(number);
        let path = self.spool().put_aside(body)?;
        self.courier.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.spool().confirm(self.courier.which, number)?;
        let place = &self.courier.place;
        tell(&format!("{place} does not take a record: {reason}: it is in {}", path.display()));
        Ok(())
    }

    /// Gives the transport up and starts anew later, from the first record that is not confirmed.
    fn fail(&mut self, reason: &str) {
        self.away = true;
        self.say(reason);
        self.courier.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.transport = None;
        self.on_the_way = 0;
        self.batch.clear();
        self.at = 0;
        self.timed = None;
        self.seen.clear();
        self.reports = Vec::new();
        self.retry = Instant::now() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        self.spool().rewind(self.courier.which);
    }

    fn say(&mut self, reason: &str) {
        if self.trouble.allow(Instant::now()).is_some() {
            let what = match self.courier.which {
                Which::Alerts => "alerts",
                Which::Activity => "calls",
            };
            let (place, dir) = (&self.courier.place, self.spool().dir().display());
            tell(&format!("{place} takes no {what}: {reason} (they wait in {dir})"));
        }
    }

    /// Notes progress, and tells what was given up.
    fn note(&mut self) -> std::io::Result<()> {
        self.noted = Instant::now();
        self.spool().note_progress(self.courier.which)?;
        if self.courier.which == Which::Alerts {
            tell_gap(self.spool(), self.courier.sink, &self.courier.host);
        }
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn rest(&self) {
        let which = self.courier.which;
        let ending = lock(&self.courier.shared.deadline).is_some();
        let busy = self.transport.is_some()
            && (self.spool().in_flight(which) > 0 || self.at < self.batch.len());
        if busy || (ending && self.spool().is_empty(which)) {
            return;
        }
        let longest = match which {
            Which::Activity => POLL_MAX,
            Which::Alerts if ending => POLL_MAX,
            Which::Alerts => IDLE_MAX,
        };
        if self.transport.is_some() {
            self.spool().wait(which, longest);
        } else {
            // New records change nothing before the next attempt; those in memory have to be written.
            let left = self.retry.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(if ending { POLL_MAX } else { longest }));
        }
    }
}

/// Puts what activity was given up behind the alerts.
pub(crate) fn tell_gap(spool: &Spool, sink: &str, host: &str) {
    let Some(gap) = spool.take_gap() else { return };
    let mut bytes = Vec::new();
    let gap = ActivityGap::new(gap, sink, host);
    if let Ok(head) = record::gap(&gap, &mut bytes) {
        spool.put_event(head, &bytes);
    }
}
