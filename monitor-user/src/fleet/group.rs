//! Which partitions are ours, and from where each is read.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::sinks::kafka::options;
use crate::sinks::lock;

/// A topic and the number of a partition.
pub(super) type Place = (String, i32);

/// What a rebalance changed.
#[derive(Debug)]
pub(super) enum Move {
    /// It is ours from now on; records before `committed` were dealt with already.
    Given { place: Place, committed: i64 },
    /// It is no longer ours.
    Taken { place: Place },
}

/// Collects what rebalances change, for the thread that polls.
pub(super) struct Members {
    warmup: Duration,
    moves: Mutex<Result<Vec<Move>, String>>,
}

/// How long the brokers may take to say what was committed. Longer than a transaction of a member that
/// died stays open (20 s): until then they do not say.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// After an answer that says nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Members {
    pub(super) fn new(warmup: Duration) -> Members {
        Members { warmup, moves: Mutex::new(Ok(Vec::new())) }
    }

    /// What changed since the last call.
    pub(super) fn take(&self) -> Result<Vec<Move>> {
        match &mut *lock(&self.moves) {
            Ok(moves) => Ok(std::mem::take(moves)),
            Err(reason) => bail!("cannot take over partitions: {reason}"),
        }
    }

    fn note(&self, moved: Move) {
        if let Ok(moves) = &mut *lock(&self.moves) {
            moves.push(moved);
        }
    }

    /// From where each partition is read, and from where on it is new.
    fn starts(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
    ) -> KafkaResult<(TopicPartitionList, Vec<Move>)> {
        let committed = consumer.committed_offsets(given.clone(), ANSWER_MAX)?;
        let mut times = TopicPartitionList::new();
        for place in committed.elements() {
            place.error()?;
            if let (Offset::Offset(_), Some(time)) = (place.offset(), time_of(place.metadata())) {
                let back = i64::try_from(self.warmup.as_millis()).unwrap_or(i64::MAX);
                let from = Offset::Offset(time.saturating_sub(back).max(0));
                times.add_partition_offset(place.topic(), place.partition(), from)?;
            }
        }
        let times = match times.count() {
            0 => times,
            _ => consumer.offsets_for_times(times, ANSWER_MAX)?,
        };
        let mut starts = TopicPartitionList::new();
        let mut moves = Vec::new();
        for place in committed.elements() {
            let (topic, partition) = (place.topic(), place.partition());
            let (start, committed) = if let Offset::Offset(committed) = place.offset() {
                let found = times.find_partition(topic, partition).map(|it| it.offset());
                let start = if let Some(Offset::Offset(start)) = found { start } else { committed };
                (Offset::Offset(start.min(committed)), committed)
            } else {
                // Nobody was here before.
                (Offset::Beginning, 0)
            };
            starts.add_partition_offset(topic, partition, start)?;
            moves.push(Move::Given { place: (topic.into(), partition), committed });
        }
        Ok((starts, moves))
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> KafkaResult<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        let (starts, moves) = loop {
            match self.starts(consumer, given) {
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

/// What is committed beside an offset: the time of the record before it, as Kafka has it, milliseconds.
pub(super) fn note_of(time_ms: i64) -> String {
    format!("1 {time_ms}")
}

fn time_of(note: &str) -> Option<i64> {
    note.strip_prefix("1 ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back() {
        assert_eq!(time_of(&note_of(1_795_464_000_123)), Some(1_795_464_000_123));
        for other in ["", "1", "1 x", "2 5"] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
