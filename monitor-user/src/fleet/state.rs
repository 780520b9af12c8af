//! What was learnt of a partition, in a compacted topic: whoever holds it next goes on from there.
//!
//! Records lie in the partition of the same number as the calls that they come from. Key: the stage (u8),
//! then 1 and the id of an API key (u128), or 0 and the number of a part (u32) of what is not of one key.
//! Part 0 begins with a header: version of the Engine's form (u32), offset of the first call that is not
//! in it (i64), Kafka's time of the call before that (i64, milliseconds), number of parts (u32). Numbers
//! are little-endian. The rest is as the Engine gives it.
//!
//! All that changed since the last time is written at once, in the transaction that commits the offset,
//! so that what finished transactions left is always the state at one offset.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use monitor_core::call::KeyId;
use monitor_core::engine::{Engine, SNAPSHOT_VERSION};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::partition::Stage;
use super::publisher::Silent;
use crate::sinks::kafka::options;

/// Up to where a state goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Offset of the first record that is not in it.
    pub(super) next: i64,
    /// Time of the record before that as Kafka has it, milliseconds.
    pub(super) time_ms: i64,
}

/// What changed since the last time.
pub(super) struct Round {
    pub(super) at: At,
    /// Keys and values of records; without a value what was there is gone.
    pub(super) records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) struct Loaded {
    pub(super) at: At,
    pub(super) keys: Vec<(KeyId, Vec<u8>)>,
    pub(super) common: Vec<u8>,
}

/// Brokers take a megabyte in one record unless they are told otherwise.
const PART_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 24;
/// How long nothing may come of a topic that is read.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a transaction that has ended may stay unseen in this topic: its end is written to one
/// partition after the other.
const UNSEEN_MAX: Duration = Duration::from_secs(15);

impl Round {
    /// Takes what changed from an Engine that notes it.
    pub(super) fn take(engine: &mut Engine, stage: Stage, at: At) -> Round {
        let changes = engine.take_changes(usize::MAX);
        let of_key = |id: KeyId| [&[stage.code(), 1][..], &id.0.to_le_bytes()].concat();
        let mut records: Vec<_> =
            changes.keys.into_iter().map(|(id, state)| (of_key(id), Some(state))).collect();
        records.extend(changes.gone.into_iter().map(|id| (of_key(id), None)));
        let common = engine.save_common();
        let parts = common.len().div_ceil(PART_BYTES).max(1);
        for number in 0..parts {
            let mut value = Vec::new();
            if number == 0 {
                value.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
                value.extend_from_slice(&at.next.to_le_bytes());
                value.extend_from_slice(&at.time_ms.to_le_bytes());
                value.extend_from_slice(&(parts as u32).to_le_bytes());
            }
            let from = number * PART_BYTES;
            value.extend_from_slice(&common[from..common.len().min(from + PART_BYTES)]);
            let key = [&[stage.code(), 0][..], &(number as u32).to_le_bytes()].concat();
            records.push((key, Some(value)));
        }
        Round { at, records }
    }
}

/// A state that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) partition: i32,
    pub(super) stage: Stage,
    /// Up to where it goes.
    pub(super) at: At,
}

/// Reads states, all at once; for each an error says why there is none.
pub(super) fn load(
    options: &ClientConfig,
    topic: &str,
    wanted: &[Wanted],
) -> Vec<Result<Loaded, String>> {
    let mut tables: Vec<Table> = wanted.iter().map(|it| Table::new(it.stage)).collect();
    let trouble = read(options, topic, wanted, &mut tables).err();
    let finish = |(it, table): (&Wanted, Table)| {
        table.finish(it.at).map_err(|reason| trouble.clone().unwrap_or(reason))
    };
    wanted.iter().zip(tables).map(finish).collect()
}

/// Fills tables until each goes as far as it should, or nothing more comes.
fn read(
    options: &ClientConfig,
    topic: &str,
    wanted: &[Wanted],
    tables: &mut [Table],
) -> Result<(), String> {
    let mut open: HashSet<i32> = wanted.iter().map(|it| it.partition).collect();
    if open.is_empty() {
        return Ok(());
    }
    let consumer = reader(options, topic, &open).map_err(|error| options::reason(&error))?;
    let (begun, mut heard) = (Instant::now(), Instant::now());
    loop {
        let of = |partition: i32| move |(it, _): &(&Wanted, &mut Table)| it.partition == partition;
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let here = wanted.iter().zip(tables.iter_mut()).filter(of(message.partition()));
                here.for_each(|(_, table)| table.take(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                let is_there = |(it, table): (&Wanted, &mut Table)| {
                    table.at().is_some_and(|found| found.next >= it.at.next)
                };
                if wanted.iter().zip(tables.iter_mut()).filter(of(partition)).all(is_there) {
                    open.remove(&partition);
                }
                if open.is_empty() || begun.elapsed() > UNSEEN_MAX {
                    return Ok(());
                }
            }
            Some(Err(error)) if heard.elapsed() > SILENCE_MAX => {
                return Err(options::reason(&error));
            }
            None if heard.elapsed() > SILENCE_MAX => return Err("no broker answers".into()),
            Some(Err(_)) | None => {}
        }
    }
}

/// Of some partitions from their beginning.
fn reader(
    options: &ClientConfig,
    topic: &str,
    partitions: &HashSet<i32>,
) -> Result<BaseConsumer<Silent>, KafkaError> {
    let mut options = options.clone();
    // That nothing more is there is said after this wait.
    options.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20");
    let consumer: BaseConsumer<Silent> = options.create_with_context(Silent)?;
    let mut places = TopicPartitionList::new();
    for partition in partitions {
        places.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    Ok(consumer)
}

/// The latest record of each key.
struct Table {
    stage: Stage,
    parts: HashMap<u32, Vec<u8>>,
    keys: HashMap<u128, Vec<u8>>,
}

impl Table {
    fn new(stage: Stage) -> Table {
        Table { stage, parts: HashMap::new(), keys: HashMap::new() }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        if let Some(key) = message.key() {
            self.note(key, message.payload());
        }
    }

    /// What belongs to another stage, or is no state, is passed over.
    fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        match key {
            [stage, 0, number @ ..] if *stage == self.stage.code() => {
                let (Ok(number), Some(value)) = (number.try_into(), value) else { return };
                self.parts.insert(u32::from_le_bytes(number), value.to_vec());
            }
            [stage, 1, id @ ..] if *stage == self.stage.code() => {
                let Ok(id) = id.try_into().map(u128::from_le_bytes) else { return };
                match value {
                    Some(value) => self.keys.insert(id, value.to_vec()),
                    None => self.keys.remove(&id),
                };
            }
            _ => {}
        }
    }

    fn header(&self) -> Option<(u32, At, u32, &[u8])> {
        let (header, rest) = self.parts.get(&0)?.split_first_chunk::<HEADER_BYTES>()?;
        let number = |from: usize| header[from..from + 4].try_into().map(u32::from_le_bytes);
        let long = |from: usize| header[from..from + 8].try_into().map(i64::from_le_bytes);
        let at = At { next: long(4).ok()?, time_ms: long(12).ok()? };
        Some((number(0).ok()?, at, number(20).ok()?, rest))
    }

    fn at(&self) -> Option<At> {
        self.header().map(|(_, at, ..)| at)
    }

    fn finish(self, at: At) -> Result<Loaded, String> {
        let Some((version, found, parts, first)) = self.header() else {
            return Err("it is not there".into());
        };
        if version > SNAPSHOT_VERSION {
            return Err(format!(
                "it is of form {version}, and this keywatch knows {SNAPSHOT_VERSION}"
            ));
        }
        if found.next != at.next {
            return Err(format!("it goes up to {}, and not to {}", found.next, at.next));
        }
        let mut common = first.to_vec();
        for number in 1..parts {
            let part = self.parts.get(&number).ok_or("a part of it is not there")?;
            common.extend_from_slice(part);
        }
        let keys = self.keys.into_iter().map(|(id, state)| (KeyId(id), state)).collect();
        Ok(Loaded { at: found, keys, common })
    }
}

impl Loaded {
    /// Has an Engine go on from here; how many keys could not be read. What the Engine has of the last
    /// minutes, and no state has, it keeps.
    pub(super) fn restore(mut self, engine: &mut Engine) -> usize {
        // Whatever order they came in.
        self.keys.sort_unstable_by_key(|(id, _)| *id);
        let bad = self.keys.iter().filter(|(id, state)| engine.restore_key(*id, state).is_err());
        bad.count() + usize::from(engine.restore_common(&self.common).is_err())
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::engine::Settings;

    use super::*;
    use crate::compact::tests::full;

    fn table(rounds: &[&Round]) -> Table {
        let mut table = Table::new(Stage::Keys);
        for (key, value) in rounds.iter().flat_map(|round| &round.records) {
            table.note(key, value.as_deref());
        }
        table
    }

    fn learnt() -> Engine {
        let mut engine = Engine::new(Settings::default());
        engine.note_changes();
        let mut call = full();
        (call.token, call.detail, call.outcome) =
            (None, None, Some(monitor_core::call::Outcome::Ok));
        for _ in 0..50 {
            call.time.0 += 1_000_000_000;
            engine.handle_call(&call);
        }
        engine
    }

    const AT: At = At { next: 50, time_ms: 7 };

    #[test]
    fn a_state_comes_back_whole() {
        let mut engine = learnt();
        let id = full().key.unwrap().id;
        let round = Round::take(&mut engine, Stage::Keys, AT);
        assert_eq!(round.records.len(), 2, "the key, and all else");
        // Another stage's records are in the same partition.
        let other = Round::take(&mut engine, Stage::Sources, At { next: 9, time_ms: 1 });
        let loaded = table(&[&round, &other]).finish(AT).unwrap();
        let mut again = Engine::new(Settings::default());
        assert_eq!(loaded.restore(&mut again), 0);
        assert_eq!(again.view_key(id), engine.view_key(id));
        assert!(again.view_key(id).is_some_and(|view| view.calls == 50));
    }

    #[test]
    fn large_states_come_in_parts() {
        let common: Vec<u8> = (0..600_000_u32).map(|byte| byte as u8).collect();
        let mut table = table(&[&Round::take(&mut learnt(), Stage::Keys, AT)]);
        let mut first = table.parts[&0][..HEADER_BYTES].to_vec();
        first[20] = 3;
        first.extend_from_slice(&common[..PART_BYTES]);
        table.parts.insert(0, first);
        table.parts.insert(1, common[PART_BYTES..2 * PART_BYTES].to_vec());
        table.parts.insert(2, common[2 * PART_BYTES..].to_vec());
        let mut torn = Table::new(Stage::Keys);
        torn.parts.clone_from(&table.parts);
        torn.parts.remove(&2);
        assert_eq!(table.finish(AT).unwrap().common, common);
        assert_eq!(torn.finish(AT), Err("a part of it is not there".into()));
    }

    #[test]
    fn what_is_no_state_of_that_offset_is_refused() {
        let round = Round::take(&mut learnt(), Stage::Keys, AT);
        let refused = |table: Table, at| table.finish(at).unwrap_err();
        assert_eq!(refused(Table::new(Stage::Keys), AT), "it is not there");
        let later = At { next: 51, ..AT };
        assert_eq!(refused(table(&[&round]), later), "it goes up to 50, and not to 51");
        let mut newer = table(&[&round]);
        newer.parts.entry(0).and_modify(|part| part[0] = 9);
        assert_eq!(refused(newer, AT), "it is of form 9, and this keywatch knows 1");
        let mut garbage = table(&[&round]);
        for key in [&b""[..], b"\x01", b"\x01\x01short", b"\x01\x00\x01"] {
            garbage.note(key, Some(b"x"));
        }
        garbage.note(&[&[1, 1][..], &[9; 16]].concat(), Some(b"not a key"));
        assert_eq!(garbage.finish(AT).unwrap().restore(&mut Engine::new(Settings::default())), 1);
    }

    #[test]
    fn what_is_gone_stays_gone() {
        let round = Round::take(&mut learnt(), Stage::Keys, AT);
        let gone = round.records.iter().filter(|(key, _)| key[1] == 1);
        let gone = Round { at: AT, records: gone.map(|(key, _)| (key.clone(), None)).collect() };
        assert_eq!(table(&[&round, &gone]).finish(AT).unwrap().keys, []);
    }
}
