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
use std::sync::Arc;
use std::time::{Duration, Instant};

use monitor_core::call::KeyId;
use monitor_core::engine::{Engine, SNAPSHOT_VERSION};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::copies::{Copies, Copy};
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
    pub(super) records: Records,
}

/// Keys and values of records; without a value what was there is gone.
pub(super) type Records = Vec<(Vec<u8>, Option<Arc<[u8]>>)>;

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) struct Loaded {
    pub(super) at: At,
    pub(super) keys: Vec<(KeyId, Arc<[u8]>)>,
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
        let of_key = |(id, state): (KeyId, Vec<u8>)| (key_name(stage, id.0), Some(state.into()));
        let mut records: Records = changes.keys.into_iter().map(of_key).collect();
        records.extend(changes.gone.into_iter().map(|id| (key_name(stage, id.0), None)));
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
            records.push((part_name(stage, number as u32), Some(value.into())));
        }
        Round { at, records }
    }
}

fn key_name(stage: Stage, id: u128) -> Vec<u8> {
    [&[stage.code(), 1][..], &id.to_le_bytes()].concat()
}

fn part_name(stage: Stage, number: u32) -> Vec<u8> {
    [&[stage.code(), 0][..], &number.to_le_bytes()].concat()
}

/// A state that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) partition: i32,
    pub(super) stage: Stage,
    /// Up to where it goes.
    pub(super) at: At,
}

/// Reads states, all at once; for each an error says why there is none. `copies`: what of them is on this
/// disk, and what is read is written there.
pub(super) fn load(
    options: &ClientConfig,
    topic: &str,
    copies: &Copies,
    wanted: &[Wanted],
) -> Vec<Result<Loaded, String>> {
    let begin = |it: &Wanted| Table::begin(it.stage, copies.read(it.partition, it.stage));
    let mut tables: Vec<Table> = wanted.iter().map(begin).collect();
    let trouble = read(options, topic, wanted, &mut tables).err();
    let finish = |(it, mut table): (&Wanted, Table)| {
        let (is_anew, fresh, next) = (table.from == 0, table.take_fresh(), table.next);
        let loaded = table.finish(it.at).map_err(|reason| trouble.clone().unwrap_or(reason))?;
        copies.take_over(it.partition, it.stage, is_anew, fresh, next);
        Ok(loaded)
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
    let reason = |error: KafkaError| options::reason(&error);
    let consumer = reader(options).map_err(reason)?;
    let starts = starts(&consumer, topic, wanted, tables);
    consumer.assign(&starts.map_err(reason)?).map_err(reason)?;
    let (begun, mut heard, mut counted) = (Instant::now(), Instant::now(), 0_u64);
    loop {
        let of = |partition: i32| move |(it, _): &(&Wanted, &mut Table)| it.partition == partition;
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let here = wanted.iter().zip(tables.iter_mut()).filter(of(message.partition()));
                counted +=
                    here.filter_map(|(_, table)| table.take(&message).then_some(1)).sum::<u64>();
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
                    tracing::info!(records = counted, "states read from {topic}");
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

fn reader(options: &ClientConfig) -> Result<BaseConsumer<Silent>, KafkaError> {
    let mut options = options.clone();
    // That nothing more is there is said after this wait.
    options.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20");
    options.create_with_context(Silent)
}

/// Where each partition is read from: what all of its copies have is passed over.
fn starts(
    consumer: &BaseConsumer<Silent>,
    topic: &str,
    wanted: &[Wanted],
    tables: &mut [Table],
) -> Result<TopicPartitionList, KafkaError> {
    let mut starts = TopicPartitionList::new();
    let partitions: HashSet<i32> = wanted.iter().map(|it| it.partition).collect();
    for partition in partitions {
        let here = || wanted.iter().map(move |it| it.partition == partition);
        if tables.iter().zip(here()).any(|(table, is_here)| is_here && table.from > 0) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, SILENCE_MAX)?;
            // Where it ends before that, it is another topic than it was.
            for (table, _) in tables.iter_mut().zip(here()).filter(|(_, is_here)| *is_here) {
                if !(low..=high).contains(&table.from) {
                    *table = Table::begin(table.stage, None);
                }
            }
        }
        let of_all = tables.iter().zip(here()).filter(|(_, is_here)| *is_here);
        let from = match of_all.map(|(table, _)| table.from).min() {
            None | Some(0) => Offset::Beginning,
            Some(from) => Offset::Offset(from),
        };
        starts.add_partition_offset(topic, partition, from)?;
    }
    Ok(starts)
}

/// The latest record of each key.
struct Table {
    stage: Stage,
    /// What comes before this offset is in it already.
    from: i64,
    /// Offset behind the last record of the topic that was looked at.
    next: i64,
    parts: HashMap<u32, Arc<[u8]>>,
    keys: HashMap<u128, Arc<[u8]>>,
    /// What has changed since the copy that it began with.
    fresh: HashSet<Vec<u8>>,
}

impl Table {
    /// Of what is on this disk.
    fn begin(stage: Stage, copy: Option<Copy>) -> Table {
        let from = copy.as_ref().map_or(0, |copy| copy.from);
        let mut table = Table {
            stage,
            from,
            next: from,
            parts: HashMap::new(),
            keys: HashMap::new(),
            fresh: HashSet::new(),
        };
        for (key, value) in copy.into_iter().flat_map(|copy| copy.records) {
            table.note(&key, Some(&value));
        }
        table
    }

    /// Whether it is of this state, and was not known.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> bool {
        if message.offset() < self.from {
            return false;
        }
        self.next = self.next.max(message.offset() + 1);
        let Some(key) = message.key().filter(|key| self.note(key, message.payload())) else {
            return false;
        };
        self.fresh.insert(key.to_vec());
        true
    }

    /// Whether it is of this state: what belongs to another stage, or is no state, is passed over.
    fn note(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        match key {
            [stage, 0, number @ ..] if *stage == self.stage.code() => {
                let (Ok(number), Some(value)) = (number.try_into(), value) else { return false };
                self.parts.insert(u32::from_le_bytes(number), value.into());
            }
            [stage, 1, id @ ..] if *stage == self.stage.code() => {
                let Ok(id) = id.try_into().map(u128::from_le_bytes) else { return false };
                match value {
                    Some(value) => self.keys.insert(id, value.into()),
                    None => self.keys.remove(&id),
                };
            }
            _ => return false,
        }
        true
    }

    /// What a copy needs to be as new.
    fn take_fresh(&mut self) -> Records {
        let fresh = std::mem::take(&mut self.fresh);
        let value = |key: &[u8]| match key {
            [_, 0, number @ ..] => self.parts.get(&u32::from_le_bytes(number.try_into().ok()?)),
            [_, _, id @ ..] => self.keys.get(&u128::from_le_bytes(id.try_into().ok()?)),
            _ => None,
        };
        fresh
            .into_iter()
            .map(|key| (value(&key).cloned(), key))
            .map(|(it, key)| (key, it))
            .collect()
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
        let mut table = Table::begin(Stage::Keys, None);
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
        table.parts.insert(0, first.into());
        table.parts.insert(1, common[PART_BYTES..2 * PART_BYTES].into());
        table.parts.insert(2, common[2 * PART_BYTES..].into());
        let mut torn = Table::begin(Stage::Keys, None);
        torn.parts.clone_from(&table.parts);
        torn.parts.remove(&2);
        assert_eq!(table.finish(AT).unwrap().common, common);
        assert_eq!(torn.finish(AT), Err("a part of it is not there".into()));
    }

    #[test]
    fn what_is_no_state_of_that_offset_is_refused() {
        let round = Round::take(&mut learnt(), Stage::Keys, AT);
        let refused = |table: Table, at| table.finish(at).unwrap_err();
        assert_eq!(refused(Table::begin(Stage::Keys, None), AT), "it is not there");
        let later = At { next: 51, ..AT };
        assert_eq!(refused(table(&[&round]), later), "it goes up to 50, and not to 51");
        let mut newer = table(&[&round]);
        newer.parts.entry(0).and_modify(|part| Arc::make_mut(part)[0] = 9);
        assert_eq!(refused(newer, AT), "it is of form 9, and this keywatch knows 1");
        let mut garbage = table(&[&round]);
        for key in [&b""[..], b"\x01", b"\x01\x01short", b"\x01\x00\x01"] {
            garbage.note(key, Some(b"x"));
        }
        garbage.note(&[&[1, 1][..], &[9; 16]].concat(), Some(b"not a key"));
        assert_eq!(garbage.finish(AT).unwrap().restore(&mut Engine::new(Settings::default())), 1);
    }

    #[test]
    fn a_copy_and_what_came_since_are_the_state() {
        let first = Round::take(&mut learnt(), Stage::Keys, AT);
        let copied = |(key, value): &(Vec<u8>, Option<Arc<[u8]>>)| {
            (key.clone(), value.as_ref().unwrap().to_vec())
        };
        let copy = Copy { from: 9, records: first.records.iter().map(copied).collect() };
        let mut table = Table::begin(Stage::Keys, Some(copy));
        assert_eq!((table.from, table.next), (9, 9));
        assert_eq!(table.take_fresh(), []);
        // Another key, and the first is gone.
        let (other, gone) = (key_name(Stage::Keys, 5), first.records[0].0.clone());
        for (key, value) in [(&other, Some(&b"state"[..])), (&gone, None)] {
            assert!(table.note(key, value));
            table.fresh.insert(key.clone());
        }
        let mut fresh = table.take_fresh();
        fresh.sort_by_key(|(_, value)| value.is_some());
        assert_eq!(fresh, [(gone, None), (other, Some(b"state"[..].into()))]);
        let loaded = table.finish(AT).unwrap();
        assert_eq!(loaded.keys, [(KeyId(5), b"state"[..].into())]);
        assert!(!loaded.common.is_empty(), "as the copy has it");
    }

    #[test]
    fn what_is_gone_stays_gone() {
        let round = Round::take(&mut learnt(), Stage::Keys, AT);
        let gone = round.records.iter().filter(|(key, _)| key[1] == 1);
        let gone = Round { at: AT, records: gone.map(|(key, _)| (key.clone(), None)).collect() };
        assert_eq!(table(&[&round, &gone]).finish(AT).unwrap().keys, []);
    }
}
