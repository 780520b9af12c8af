//! One partition: its Engine, and what is to be said of it.

use std::time::{Duration, Instant};

use monitor_core::alert::Entity;
use monitor_core::call::ApiCall;
use monitor_core::engine::{Engine, Settings};
use monitor_core::time::EventTime;
use rdkafka::Message;
use rdkafka::message::Headers;

use super::Counts;
use super::passed_on::{PassedOn, network, pack_joined, read_joined};
use super::state::{At, Loaded, Round};
use crate::compact::{self, Packed};
use crate::sinks::event::{Event, Writer};
use crate::sinks::record::View;

/// What a partition is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Calls by key: alerts about keys.
    Keys,
    /// Calls by network: alerts about clients and networks.
    Sources,
    /// What keys came to, by that: alerts about what many do at once.
    Groups,
}

impl Stage {
    /// In keys of the topic of states.
    pub(super) fn code(self) -> u8 {
        match self {
            Stage::Keys => 1,
            Stage::Sources => 2,
            Stage::Groups => 3,
        }
    }

    /// How far behind the latest a call may be, seconds. What is passed on comes from partitions that lag
    /// behind one another by as long as it takes to take them over.
    fn late_max_s(self, settings: &Settings) -> u64 {
        let half = match self {
            Stage::Keys => 0,
            Stage::Sources => settings.stuffing.window_s / 2,
            Stage::Groups => settings.synchrony.window_s / 2,
        };
        settings.late_max_s.max(half)
    }

    /// How far before a state is read again, for what no state has: windows that run.
    pub(super) fn overlap(self, settings: &Settings) -> Duration {
        let windows = match self {
            Stage::Keys => settings.scan.window_s.max(settings.latency.window_s),
            // Halves of a window, of which the one before counts whole.
            Stage::Sources => 2 * settings.stuffing.window_s,
            // A state has what is counted.
            Stage::Groups => 0,
        };
        Duration::from_secs(windows.max(settings.incident_window_s))
    }
}

/// What is to be said.
pub(super) enum Said {
    /// An alert in its form.
    Alert(Box<Event>),
    /// For another stage.
    Passed { to: Stage, key: String, bytes: Vec<u8> },
}

/// See the module.
pub(super) struct Partition {
    stage: Stage,
    engine: Engine,
    late_max_ns: u64,
    /// Records before this one were dealt with by an earlier holder.
    new_from: i64,
    /// Offset behind the last record that was taken.
    pub(super) next: i64,
    /// Time of that record as Kafka has it, milliseconds.
    pub(super) last_ms: i64,
    /// What an earlier holder has learnt; the Engine goes on from it once it gets there.
    learnt: Option<Loaded>,
    /// Up to where the last state goes that the brokers have.
    state: Option<At>,
    /// The next state, which they do not have yet.
    pub(super) round: Option<Round>,
    round_at: Instant,
    latest: EventTime,
    second: EventTime,
    is_new: bool,
    passed_on: PassedOn,
    /// Into how many partitions keys are spread.
    parts: u32,
    pub(super) waiting: Vec<Said>,
    calls: u64,
    warmed: u64,
    garbage: u64,
    late: u64,
}

impl Partition {
    /// Records before `new_from` were dealt with already; `learnt` is what their holder knew.
    pub(super) fn new(
        stage: Stage,
        new_from: i64,
        learnt: Option<Loaded>,
        settings: &Settings,
    ) -> Partition {
        let late_max_s = stage.late_max_s(settings);
        let mut engine = Engine::new(Settings { late_max_s, ..settings.clone() });
        if stage == Stage::Keys {
            // Of the others what they count lies in windows, which are read again, or in what is common.
            engine.note_changes();
            engine.note_joined();
        }
        Partition {
            stage,
            engine,
            state: learnt.as_ref().map(|learnt| learnt.at),
            learnt,
            round: None,
            round_at: Instant::now(),
            late_max_ns: late_max_s.saturating_mul(1_000_000_000),
            new_from,
            next: 0,
            last_ms: 0,
            latest: EventTime(0),
            second: EventTime(0),
            is_new: false,
            passed_on: PassedOn::new(settings),
            parts: 1,
            waiting: Vec::new(),
            calls: 0,
            warmed: 0,
            garbage: 0,
            late: 0,
        }
    }

    /// The same where keys are spread into so many partitions.
    pub(super) fn of(self, parts: u32) -> Partition {
        Partition { parts, ..self }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether there is anything that the brokers do not know yet.
    pub(super) fn has_news(&self) -> bool {
        self.is_new || self.round.is_some()
    }

    /// Up to where the state goes that the brokers have once all of this is said.
    pub(super) fn state(&self) -> Option<At> {
        self.round.as_ref().map(|round| round.at).or(self.state)
    }

    /// Whether what was learnt since the last state is to be written.
    pub(super) fn is_round_due(&self, interval: Duration) -> bool {
        let is_time = self.round_at.elapsed() >= interval || self.engine.changed() >= CHANGED_MAX;
        is_time && self.has_learnt()
    }

    /// Whether the brokers' state is not that of now.
    pub(super) fn has_learnt(&self) -> bool {
        let is_whole = self.round.is_none() && self.learnt.is_none();
        is_whole && self.next > self.state.map_or(self.new_from, |state| state.next)
    }

    /// Puts together what changed.
    pub(super) fn begin_round(&mut self) {
        self.round_at = Instant::now();
        let at = At { next: self.next, time_ms: self.last_ms };
        self.round = Some(Round::take(&mut self.engine, self.stage, at));
    }

    /// Everything that waits was said. Returns how many of it were alerts, and what was written of the
    /// state.
    pub(super) fn said(&mut self) -> (u64, Option<Round>) {
        self.is_new = false;
        let round = self.round.take();
        self.state = round.as_ref().map(|round| round.at).or(self.state);
        let alerts = self.waiting.iter().filter(|said| matches!(said, Said::Alert(_))).count();
        self.waiting.clear();
        (alerts as u64, round)
    }

    pub(super) fn add_to(&self, counts: &mut Counts) {
        counts.calls += self.calls;
        counts.warmed += self.warmed;
        counts.garbage += self.garbage;
        counts.late += self.late;
    }

    /// Takes the next record; an error says why it is no call.
    pub(super) fn take(&mut self, message: &impl Message, writer: &Writer) -> Result<(), String> {
        if let Some(learnt) = self.learnt.take_if(|learnt| message.offset() >= learnt.at.next) {
            match learnt.restore(&mut self.engine) {
                0 => {}
                bad => tracing::warn!(bad, "states of keys cannot be read: they are learnt anew"),
            }
        }
        let is_new = message.offset() >= self.new_from;
        if is_new {
            self.is_new = true;
            self.next = message.offset() + 1;
            self.last_ms = message.timestamp().to_millis().unwrap_or(0);
        }
        let taken = match self.stage {
            Stage::Groups => read_joined(message).map(|(joined, call)| {
                self.judge(&call, is_new, writer, |engine| engine.handle_joined(&joined, &call));
            }),
            Stage::Keys | Stage::Sources => read(message).map(|packed| match packed {
                Packed::Call(call) => self.judge_call(&call, is_new, writer),
                Packed::Summary(summary) => {
                    summary.calls().for_each(|call| self.judge_call(&call, is_new, writer));
                }
            }),
        };
        taken.or_else(|reason| {
            self.garbage += u64::from(is_new);
            if is_new { Err(reason) } else { Ok(()) }
        })
    }

    fn judge_call(&mut self, call: &ApiCall, is_new: bool, writer: &Writer) {
        self.judge(call, is_new, writer, |engine| engine.handle_call(call));
    }

    /// Has the Engine judge what came with a call.
    fn judge(
        &mut self,
        call: &ApiCall,
        is_new: bool,
        writer: &Writer,
        handle: impl FnOnce(&mut Engine),
    ) {
        // What waited in a spool would have the Engine take it for a clock that was set back, and throw
        // running windows away. The agent has judged it already.
        if self.latest.0.saturating_sub(call.time.0) > self.late_max_ns {
            self.late += u64::from(is_new);
            return;
        }
        self.latest = self.latest.max(call.time);
        if is_new {
            self.calls += 1
        } else {
            self.warmed += 1
        }
        handle(&mut self.engine);
        self.pass_on(call, is_new);
        self.pump(is_new, writer);
        // As on a host: once a second of the calls' time.
        if call.time >= self.second {
            let second = EventTime(call.time.secs() * 1_000_000_000);
            self.second = EventTime(second.0.saturating_add(1_000_000_000));
            self.engine.handle_timeout(second);
            self.pump(is_new, writer);
        }
    }

    /// Of calls by key, what other stages need to know.
    fn pass_on(&mut self, call: &ApiCall, is_new: bool) {
        if self.stage != Stage::Keys {
            return;
        }
        if self.passed_on.wants(call) && is_new {
            let mut bytes = Vec::new();
            compact::encode(call, &mut bytes);
            let key = network(call.client());
            self.waiting.push(Said::Passed { to: Stage::Sources, key, bytes });
        }
        while let Some(joined) = self.engine.poll_joined() {
            if self.passed_on.wants_joined(&joined, call) && is_new {
                let key = format!("{:016x}", joined.group());
                let bytes = pack_joined(joined.of_a_part(self.parts), call);
                self.waiting.push(Said::Passed { to: Stage::Groups, key, bytes });
            }
        }
    }

    fn pump(&mut self, is_new: bool, writer: &Writer) {
        while let Some(alert) = self.engine.poll_alert() {
            let is_ours = match alert.entity {
                Entity::Key(_) => self.stage == Stage::Keys,
                // Only these stages have seen all that concerns them.
                Entity::Client(_) | Entity::Network(_) => match self.stage {
                    Stage::Keys => false,
                    Stage::Sources => alert.findings.iter().any(|found| found.detector != GROUPS),
                    Stage::Groups => true,
                },
                Entity::Group(_) => self.stage == Stage::Groups,
                Entity::Host => false,
            };
            // What an earlier holder read, it also said.
            if is_new && is_ours {
                let mut event = Box::new(Event::default());
                writer.write(View::Alert(&alert), &mut event);
                self.waiting.push(Said::Alert(event));
            }
        }
    }
}

/// The detector of what many keys do at once.
const GROUPS: &str = "D20";

/// With so many keys changed a state is written sooner: some ten megabytes in one transaction.
const CHANGED_MAX: usize = 20_000;

/// A call or many in the compact form, or one as a line of JSON.
fn read(message: &impl Message) -> Result<Packed, String> {
    let kind = message.headers().and_then(|headers| {
        let kind = headers.iter().find(|header| header.key == "ce_type")?;
        std::str::from_utf8(kind.value?).ok()
    });
    if let Some(
        kind @ ("keywatch.call.ocsf.v1" | "keywatch.call.ecs.v1" | "keywatch.call.cef.v1"),
    ) = kind
    {
        return Err(format!(
            "its form is {kind}: set activity_format = \"compact\" under [sinks.kafka] of agents"
        ));
    }
    let bytes = message.payload().ok_or("it is empty")?;
    if bytes.first() == Some(&b'{') {
        // The reason would quote it.
        let call = serde_json::from_slice(bytes).map_err(|_| "it is not a call")?;
        return Ok(Packed::Call(call));
    }
    compact::decode_packed(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use monitor_core::call::{KeyId, Operation, Outcome};
    use monitor_core::input::Endpoint;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    use super::*;
    use crate::compact::Summary;
    use crate::compact::tests::full;
    use crate::sinks::Format;

    const MINUTE_NS: u64 = 60_000_000_000;

    pub(in crate::fleet) fn call(number: u64, outcome: Outcome) -> ApiCall {
        let mut call = full();
        call.time = EventTime(1_795_464_000_000_000_000 + number * 1_000_000_000);
        call.outcome = Some(outcome);
        call.detail = None;
        let mut flow = (*call.flow).clone();
        flow.client = Endpoint::new(IpAddr::from([192, 0, 2, 66]), 40_000);
        flow.proxied_for = None;
        call.flow = Arc::new(flow);
        if let Some(key) = &mut call.key {
            (key.id, key.former) = (KeyId(u128::from(number)), None);
        }
        call
    }

    fn message(offset: i64, payload: Vec<u8>) -> OwnedMessage {
        let time = Timestamp::CreateTime(1_795_464_000_000 + offset);
        OwnedMessage::new(Some(payload), None, "calls".into(), time, 0, offset, None)
    }

    fn compact_message(offset: i64, call: &ApiCall) -> OwnedMessage {
        let mut bytes = Vec::new();
        compact::encode(call, &mut bytes);
        message(offset, bytes)
    }

    /// Feeds thirty refused keys of one client: what the first stage passes on, and the second says.
    fn spray(new_from: i64) -> (usize, usize) {
        let settings = Settings::default();
        let writer = Writer::new(Format::Native, "fleet");
        let mut keys = Partition::new(Stage::Keys, 0, None, &settings);
        let mut sources = Partition::new(Stage::Sources, new_from, None, &settings);
        for number in 0..30 {
            let refused = compact_message(number, &call(number as u64, Outcome::BadKey));
            keys.take(&refused, &writer).unwrap();
        }
        let mut passed_on = 0;
        for said in &keys.waiting {
            let Said::Passed { to: Stage::Sources, key, bytes } = said else {
                panic!("an alert of half the calls")
            };
            assert_eq!(key, "192.0.2.0/24");
            sources.take(&message(passed_on as i64, bytes.clone()), &writer).unwrap();
            passed_on += 1;
        }
        (passed_on, sources.waiting.len())
    }

    #[test]
    fn refused_keys_are_passed_on_and_their_client_is_found() {
        let (passed_on, alerts) = spray(0);
        assert_eq!(passed_on, 30);
        assert_eq!(alerts, 1);
    }

    #[test]
    fn what_an_earlier_holder_said_is_not_said_again() {
        assert_eq!(spray(25), (30, 0), "the alert was due at the twentieth");
        assert_eq!(spray(19), (30, 1), "the twentieth is the first that is new");
    }

    /// A key's call from the network `10.NETWORK.0.0/24`, so many minutes after the beginning.
    fn of_key(key: u64, network: u8, minute: u64, op: Operation) -> ApiCall {
        let mut call = call(key, Outcome::Ok);
        call.time = EventTime(1_795_464_000_000_000_000 + minute * MINUTE_NS);
        (call.op, call.token, call.grpc) = (op, None, None);
        let mut flow = (*call.flow).clone();
        flow.client = Endpoint::new(IpAddr::from([10, network, 0, 9]), 40_000);
        call.flow = Arc::new(flow);
        call
    }

    #[test]
    fn what_many_keys_do_at_once_is_found_though_each_partition_has_few_of_them() {
        const KEYS: u64 = 12;
        let (settings, writer) = (Settings::default(), Writer::new(Format::Native, "fleet"));
        let new = |stage| Partition::new(stage, 0, None, &settings).of(3);
        let mut keys = [new(Stage::Keys), new(Stage::Keys), new(Stage::Keys)];
        let mut groups = new(Stage::Groups);
        let mut offset = 0;
        let mut feed =
            |keys: &mut [Partition; 3], groups: &mut Partition, key: u64, call: &ApiCall| {
                offset += 1;
                let partition = &mut keys[key as usize % 3];
                partition.take(&compact_message(offset, call), &writer).unwrap();
                for said in std::mem::take(&mut partition.waiting) {
                    if let Said::Passed { to: Stage::Groups, bytes, .. } = said {
                        groups.take(&message(offset, bytes), &writer).unwrap();
                    }
                }
            };
        // Three days at home, each in a network of its own.
        for minute in (0..3 * 1_440).step_by(60) {
            for key in 1..=KEYS {
                let read = of_key(key, key as u8, minute + key, Operation::Read);
                feed(&mut keys, &mut groups, key, &read);
            }
        }
        assert!(groups.waiting.is_empty());
        for key in 1..=KEYS {
            let withdrawal = of_key(key, 200, 3 * 1_440 + key, Operation::Withdraw);
            feed(&mut keys, &mut groups, key, &withdrawal);
        }
        let bodies: Vec<String> = groups
            .waiting
            .iter()
            .map(|said| match said {
                Said::Alert(event) => String::from_utf8(event.body.clone()).unwrap(),
                Said::Passed { .. } => panic!("the last stage passes nothing on"),
            })
            .collect();
        assert!(bodies.iter().any(|body| body.contains("\"D20\"")), "{bodies:?}");
        assert!(bodies.iter().any(|body| body.contains("\"10.200.0.0\"")), "{bodies:?}");
    }

    #[test]
    fn garbage_among_what_keys_come_to_is_named() {
        let writer = Writer::new(Format::Native, "fleet");
        let mut partition = Partition::new(Stage::Groups, 0, None, &Settings::default());
        for (bytes, said) in [
            (vec![1], "it is cut off"),
            (vec![9, 0, 1], "it is cut off"),
            (vec![1, 0, 1], "it is not what a key came to"),
        ] {
            assert_eq!(partition.take(&message(0, bytes), &writer).unwrap_err(), said);
        }
    }

    #[test]
    fn a_summary_counts_as_its_calls() {
        let writer = Writer::new(Format::Native, "fleet");
        let mut partition = Partition::new(Stage::Keys, 0, None, &Settings::default());
        let summary =
            Summary { call: call(1_000, Outcome::Ok), count: 300, span_ns: 20_000_000_000 };
        let mut bytes = Vec::new();
        compact::encode_summary(&summary, &mut bytes);
        partition.take(&message(0, bytes), &writer).unwrap();
        assert_eq!((partition.calls, partition.engine.counters().calls), (300, 300));
        assert_eq!(partition.latest, call(1_020, Outcome::Ok).time);
        // Of all of them the key's address is passed on once.
        let to_sources = |said: &&Said| matches!(said, Said::Passed { to: Stage::Sources, .. });
        assert_eq!(partition.waiting.iter().filter(to_sources).count(), 1);
    }

    #[test]
    fn late_calls_and_garbage_are_counted_and_move_on() {
        let writer = Writer::new(Format::Native, "fleet");
        let mut partition = Partition::new(Stage::Keys, 0, None, &Settings::default());
        partition.take(&compact_message(0, &call(1_000, Outcome::Ok)), &writer).unwrap();
        partition.take(&compact_message(1, &call(900, Outcome::Ok)), &writer).unwrap();
        let said = partition.take(&message(2, b"not a call".to_vec()), &writer).unwrap_err();
        assert_eq!(said, "it is of version 110, and this keywatch knows 2");
        let said = partition.take(&message(3, b"{\"secret\":1}".to_vec()), &writer).unwrap_err();
        assert_eq!(said, "it is not a call");
        assert_eq!((partition.calls, partition.late, partition.garbage), (1, 1, 2));
        assert_eq!((partition.next, partition.last_ms), (4, 1_795_464_000_003));
        assert!(partition.has_news());
        partition.said();
        assert!(!partition.has_news());
    }
}
