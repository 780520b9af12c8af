//! Which partitions are ours, and from where each is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::copies::Copies;
use super::partition::Stage;
use super::state::{self, At, Loaded, Wanted};
use crate::fault::tell;
use crate::sinks::kafka::options;
use crate::sinks::lock;

/// A topic and the number of a partition.
pub(super) type Place = (String, i32);

/// What a rebalance changed.
#[derive(Debug)]
pub(super) enum Move {
    /// It is ours from now on; records before `committed` were dealt with already, and this is what was
    /// learnt of them.
    Given { place: Place, stage: Stage, committed: i64, learnt: Option<Loaded> },
    /// It is no longer ours.
    Taken { place: Place },
}

/// Collects what rebalances change, for the thread that polls.
pub(super) struct Members {
    ways: Ways,
    moves: Mutex<Result<Vec<Move>, String>>,
}

/// How partitions are taken over.
#[derive(Clone)]
pub(super) struct Ways {
    /// What is read, and how far before a state it is read again.
    pub(super) stages: Vec<(String, Stage, Duration)>,
    /// How far back is read where there is no state.
    pub(super) warmup: Duration,
    pub(super) state_topic: String,
    pub(super) copies: Copies,
    /// Of the consumer; states are read with them too.
    pub(super) options: ClientConfig,
}

/// How long the brokers may take to say what was committed. Longer than a transaction of a member that
/// died stays open (20 s): until then they do not say. And less than a group waits for a member (60 s).
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// How long they may take to find a time in a partition.
const TIMES_MAX: Duration = Duration::from_secs(10);

/// After an answer that says nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Members {
    pub(super) fn new(ways: Ways) -> Members {
        Members { ways, moves: Mutex::new(Ok(Vec::new())) }
    }

    /// What changed since the last call; an error says why a partition could not be taken over.
    pub(super) fn take(&self) -> Result<Vec<Move>, String> {
        lock(&self.moves).as_mut().map(std::mem::take).map_err(|reason| reason.clone())
    }

    fn note(&self, moved: Move) {
        if let Ok(moves) = &mut *lock(&self.moves) {
            moves.push(moved);
        }
    }

    /// From where each partition is read, from where on it is new, and what is known of it.
    fn starts(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
        wait: Duration,
    ) -> KafkaResult<(TopicPartitionList, Vec<Move>)> {
        let committed = consumer.committed_offsets(given.clone(), wait)?;
        let mut places = Vec::new();
        for place in committed.elements() {
            place.error()?;
            let ways = self.ways.stages.iter().find(|(known, ..)| known == place.topic());
            let Some((_, stage, overlap)) = ways else { continue };
            // Without an offset nobody was here before.
            let offset = if let Offset::Offset(it) = place.offset() { Some(it) } else { None };
            let note = offset.and(Note::read(place.metadata()));
            let name: Place = (place.topic().into(), place.partition());
            let copies = &self.ways.copies;
            copies.let_go(name.1, *stage);
            if note.and_then(|note| note.state).is_none() {
                // The first state has all that there is.
                copies.take_over(name.1, *stage, true, Vec::new(), 0);
            }
            places.push((name, *stage, *overlap, offset.unwrap_or(0), note));
        }
        let wanted = |(place, stage, .., note): &(Place, Stage, Duration, i64, Option<Note>)| {
            let at = note.as_ref()?.state?;
            Some(Wanted { partition: place.1, stage: *stage, at })
        };
        let mut learnt = self.learnt(&places.iter().filter_map(wanted).collect::<Vec<_>>());
        let mut times = TopicPartitionList::new();
        let mut moves = Vec::new();
        for (place, stage, overlap, committed, note) in places {
            let learnt = learnt.remove(&(place.1, stage));
            let since = match &learnt {
                Some(learnt) => Some((learnt.at.time_ms, overlap)),
                None => note.map(|note| (note.time_ms, self.ways.warmup)),
            };
            if let Some((time, back)) = since {
                let back = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
                let from = Offset::Offset(time.saturating_sub(back).max(0));
                times.add_partition_offset(&place.0, place.1, from)?;
            }
            moves.push(Move::Given { place, stage, committed, learnt });
        }
        let times = match times.count() {
            0 => times,
            _ => consumer.offsets_for_times(times, wait.min(TIMES_MAX))?,
        };
        let mut starts = TopicPartitionList::new();
        for moved in &moves {
            let Move::Given { place: (topic, partition), committed, learnt, .. } = moved else {
                continue;
            };
            let found = times.find_partition(topic, *partition).map(|it| it.offset());
            let latest = learnt.as_ref().map_or(*committed, |it| it.at.next.min(*committed));
            let start = match found {
                Some(Offset::Offset(start)) => Offset::Offset(start.min(latest)),
                _ if *committed == 0 => Offset::Beginning,
                _ => Offset::Offset(latest),
            };
            starts.add_partition_offset(topic, *partition, start)?;
        }
        Ok((starts, moves))
    }

    /// What earlier holders have learnt.
    fn learnt(&self, wanted: &[Wanted]) -> HashMap<(i32, Stage), Loaded> {
        let Ways { options, state_topic, warmup, copies, .. } = &self.ways;
        let begun = Instant::now();
        let mut all = HashMap::new();
        for (it, loaded) in wanted.iter().zip(state::load(options, state_topic, copies, wanted)) {
            let Wanted { partition, stage, .. } = *it;
            match loaded {
                Ok(loaded) => {
                    all.insert((partition, stage), loaded);
                }
                Err(reason) => tell(&format!(
                    "the state of partition {partition} ({stage:?}) cannot be read from \
                     {state_topic}: {reason}: records of the last {} are read instead",
                    humantime::format_duration(*warmup)
                )),
            }
        }
        let (keys, ms) = (all.values().map(|it| it.keys.len()).sum::<usize>(), begun.elapsed());
        tracing::info!(states = all.len(), keys, ms = ms.as_millis() as u64, "states read");
        all
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> KafkaResult<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        let (starts, moves) = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.starts(consumer, given, left) {
                Err(error) if Instant::now() < deadline => {
                    // The leader has changed, or there is none at the moment.
                    tracing::debug!(?error, "where partitions begin is asked again");
                    std::thread::sleep(AGAIN_AFTER);
                    let _ = consumer.fetch_metadata(None, AGAIN_AFTER);
                }
                result => break result?,
            }
        };
        consumer.incremental_assign(&starts)?;
        moves.into_iter().for_each(|moved| self.note(moved));
        Ok(())
    }
}

impl ClientContext for Members {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", ?error, "{reason}");
    }
}

impl ConsumerContext for Members {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        places: &mut TopicPartitionList,
    ) {
        let result = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, places)
        } else {
            for place in places.elements() {
                self.note(Move::Taken { place: (place.topic().into(), place.partition()) });
            }
            consumer.incremental_unassign(places)
        };
        if let Err(error) = result {
            // A member that does not know where to begin must not go on: it would repeat alerts.
            *lock(&self.moves) = Err(options::reason(&error));
        }
    }
}

/// What is committed beside an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Time of the record before it as Kafka has it, milliseconds.
    pub(super) time_ms: i64,
    /// Up to where the state goes that belongs to it.
    pub(super) state: Option<At>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            None => write!(f, "1 {}", self.time_ms),
            Some(At { next, time_ms }) => write!(f, "2 {} {next} {time_ms}", self.time_ms),
        }
    }
}

impl Note {
    fn read(text: &str) -> Option<Note> {
        let mut words = text.split(' ');
        let version = words.next()?;
        let numbers: Vec<i64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (version, numbers.as_slice()) {
            ("1", &[time_ms]) => Some(Note { time_ms, state: None }),
            ("2", &[time_ms, next, state_ms]) => {
                Some(Note { time_ms, state: Some(At { next, time_ms: state_ms }) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back() {
        let at = At { next: 7, time_ms: 1_795_464_000_000 };
        for state in [None, Some(at)] {
            let note = Note { time_ms: 1_795_464_000_123, state };
            assert_eq!(Note::read(&note.to_string()), Some(note));
        }
        // As members of an earlier version left it.
        let before = Note { time_ms: 12, state: None };
        assert_eq!(Note::read("1 12"), Some(before));
        for other in ["", "1", "1 x", "2 5", "2 5 6", "3 1 2 3", "1 2 3"] {
            assert_eq!(Note::read(other), None, "{other}");
        }
    }
}
