//! Copies of states on the local disk, so that a member that comes back reads of the topic of states only
//! what came since then.
//!
//! A copy is what the first records of a partition of that topic leave, up to an offset that it names; the
//! rest is read from the topic, which decides. So an old copy costs a longer read and nothing else, and one
//! that is damaged, or older than the topic keeps what says that a key is gone, is done without. It is
//! written by a thread of its own: a slow disk keeps no alert waiting. Where it falls behind, a copy stays
//! as old as it is until its partition is taken over again.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use redb::{Database, ReadableDatabase, TableDefinition};

use super::partition::Stage;
use super::state::Records;
use crate::clock;
use crate::database::{open, opened, sealed};
use crate::fault::tell;
use crate::sinks::lock;

/// By partition (i32, big-endian) and key of the record, which begins with the stage.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// By partition and stage: offset behind the last record that is in it (i64), when it was written (u64,
/// seconds since 1970), number of records (u64).
const MARKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("marks");

/// Writes that wait: two for each partition of a large topic.
const WAITING_MAX: usize = 64;
/// Half of the day for which Kafka by default keeps records that say that a key is gone.
const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// What a copy holds.
pub(super) struct Copy {
    /// Offset in the topic of states from which on it has nothing.
    pub(super) from: i64,
    pub(super) records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// See the module. Without a folder there are none.
#[derive(Clone)]
pub(super) struct Copies(Option<Arc<Inner>>);

struct Inner {
    database: Arc<Database>,
    topic: String,
    /// `None` at the end.
    writer: Option<SyncSender<Write>>,
    thread: Option<JoinHandle<()>>,
    /// Copies that are as new as the topic, with what waits to be written.
    current: Mutex<HashSet<(i32, Stage)>>,
}

/// What a copy becomes.
struct Write {
    partition: i32,
    stage: Stage,
    /// Nothing of what it was stays.
    is_anew: bool,
    records: Records,
    next: i64,
}

impl Copies {
    pub(super) fn none() -> Copies {
        Copies(None)
    }

    /// In a file of this folder that is the member's own. Without it work goes on, and a line says so.
    pub(super) fn open(dir: &Path, topic: &str, member: &str) -> Copies {
        let path = dir.join(format!("{}.redb", file_name(&format!("{topic}.{member}"))));
        let opened = begin(&path).or_else(|error| {
            // A copy of what the brokers have is not worth keeping.
            std::fs::remove_file(&path).map_err(|_| error)?;
            begin(&path)
        });
        match opened.and_then(|database| Copies::on(database, topic, path.clone())) {
            Ok(copies) => copies,
            Err(error) => {
                tell(&format!(
                    "no copies of states on this disk: {}: {error:#}: set fleet.state_dir to a \
                     folder that this member can write to, or to \"\" to do without",
                    path.display()
                ));
                Copies::none()
            }
        }
    }

    fn on(database: Database, topic: &str, path: PathBuf) -> Result<Copies> {
        let database = Arc::new(database);
        let (writer, writes) = sync_channel(WAITING_MAX);
        let ours = Arc::clone(&database);
        let thread = std::thread::Builder::new().name("state copies".into());
        let thread = thread.spawn(move || write_all(&ours, &writes, &path))?;
        Ok(Copies(Some(Arc::new(Inner {
            database,
            topic: topic.into(),
            writer: Some(writer),
            thread: Some(thread),
            current: Mutex::default(),
        }))))
    }

    /// What is here of a state; `None` when it is not, or of no use.
    pub(super) fn read(&self, partition: i32, stage: Stage) -> Option<Copy> {
        let inner = self.0.as_ref()?;
        // redb finds most damage by its checksums, and some by an assertion.
        let found = catch_unwind(AssertUnwindSafe(|| read(&inner.database, partition, stage)));
        match found.unwrap_or_else(|_| bail!("its pages contradict each other")) {
            Ok(copy) => copy,
            Err(error) => {
                let topic = &inner.topic;
                tracing::warn!(topic, partition, "a copy of a state is not used: {error:#}");
                None
            }
        }
    }

    /// What comes next of it is not known to follow on what is in it.
    pub(super) fn let_go(&self, partition: i32, stage: Stage) {
        if let Some(inner) = &self.0 {
            lock(&inner.current).remove(&(partition, stage));
        }
    }

    /// Brings a copy to what was read of the topic, up to `next`; `is_anew`: whatever was there before is
    /// no part of it.
    pub(super) fn take_over(
        &self,
        partition: i32,
        stage: Stage,
        is_anew: bool,
        records: Records,
        next: i64,
    ) {
        let Some(inner) = &self.0 else { return };
        lock(&inner.current).insert((partition, stage));
        inner.send(Write { partition, stage, is_anew, records, next });
    }

    /// Goes on from what a member wrote to the topic, whose last record has the offset before `next`.
    pub(super) fn go_on(&self, partition: i32, stage: Stage, records: Records, next: i64) {
        let Some(inner) = &self.0 else { return };
        if lock(&inner.current).contains(&(partition, stage)) {
            inner.send(Write { partition, stage, is_anew: false, records, next });
        }
    }
}

impl Inner {
    fn send(&self, write: Write) {
        let place = (write.partition, write.stage);
        if self.writer.as_ref().is_none_or(|writer| writer.try_send(write).is_err()) {
            // What is not in it must not be passed over by what comes later.
            lock(&self.current).remove(&place);
            tracing::warn!(
                partition = place.0,
                "the disk is slow: a copy of a state stays as it is"
            );
        }
    }
}

/// What waits is still written.
impl Drop for Inner {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn begin(path: &Path) -> Result<Database> {
    // Damage may be found by an assertion.
    let database = catch_unwind(|| open(path)).unwrap_or_else(|_| bail!("it is damaged"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(MARKS)?;
    transaction.commit()?;
    Ok(database)
}

/// Until nobody is left to send any.
fn write_all(database: &Database, writes: &Receiver<Write>, path: &Path) {
    while let Ok(one) = writes.recv() {
        if let Err(error) = write(database, &one) {
            // None of what follows is written either: its marks would pass this over.
            tell(&format!("copies of states are no longer written: {}: {error:#}", path.display()));
            return;
        }
    }
}

fn write(database: &Database, write: &Write) -> Result<()> {
    let Write { partition, stage, is_anew, records, next } = write;
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        if *is_anew {
            let (first, behind) = bounds(*partition, *stage);
            table.retain_in(first.as_slice()..behind.as_slice(), |_, _| false)?;
        }
        for (key, value) in records {
            let name = [&partition.to_be_bytes()[..], key].concat();
            match value {
                Some(value) => table.insert(name.as_slice(), sealed(value).as_slice())?,
                None => table.remove(name.as_slice())?,
            };
        }
        let mark = [&next.to_le_bytes()[..], &clock::now().secs().to_le_bytes()].concat();
        let mut marks = transaction.open_table(MARKS)?;
        marks.insert(bounds(*partition, *stage).0.as_slice(), sealed(&mark).as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, partition: i32, stage: Stage) -> Result<Option<Copy>> {
    let transaction = database.begin_read()?;
    let (first, behind) = bounds(partition, stage);
    let marks = transaction.open_table(MARKS)?;
    let Some(mark) = marks.get(first.as_slice())? else { return Ok(None) };
    let mark = opened(mark.value())?;
    let (from, written) = mark.split_first_chunk::<8>().context("its mark has no form")?;
    let written = u64::from_le_bytes(written.try_into().context("its mark has no form")?);
    let age = clock::now().secs().saturating_sub(written);
    ensure!(age <= AGE_MAX.as_secs(), "it is {} hours old", age / 3600);
    let table = transaction.open_table(RECORDS)?;
    let mut records = Vec::new();
    for entry in table.range(first.as_slice()..behind.as_slice())? {
        let (key, value) = entry?;
        let key = key.value().get(4..).context("a key has no form")?;
        records.push((key.to_vec(), opened(value.value())?.to_vec()));
    }
    Ok(Some(Copy { from: i64::from_le_bytes(*from), records }))
}

/// Names of a stage's records of a partition: the first, and the first that is none.
fn bounds(partition: i32, stage: Stage) -> ([u8; 5], [u8; 5]) {
    let mut first = [0; 5];
    first[..4].copy_from_slice(&partition.to_be_bytes());
    first[4] = stage.code();
    let mut behind = first;
    behind[4] += 1;
    (first, behind)
}

/// What is no name of a file is written as its bytes.
fn file_name(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).into(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: Stage = Stage::Keys;

    fn record(number: u8, value: &[u8]) -> (Vec<u8>, Option<Arc<[u8]>>) {
        (vec![STAGE.code(), 1, number], Some(value.into()))
    }

    /// What a member that is started now finds, once what waited is written.
    fn again(dir: &Path, copies: Copies) -> Copies {
        drop(copies);
        Copies::open(dir, "topic", "a/b")
    }

    fn values(copies: &Copies, partition: i32) -> Option<(i64, Vec<Vec<u8>>)> {
        let copy = copies.read(partition, STAGE)?;
        Some((copy.from, copy.records.into_iter().map(|(_, value)| value).collect()))
    }

    #[test]
    fn a_copy_is_what_was_written_up_to_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::open(dir.path(), "topic", "a/b");
        assert!(values(&copies, 7).is_none());
        copies.go_on(7, STAGE, vec![record(9, b"not taken over")], 5);
        copies.take_over(7, STAGE, true, vec![record(1, b"one"), record(2, b"two")], 10);
        copies.take_over(8, STAGE, true, vec![record(1, b"another")], 3);
        copies.take_over(7, Stage::Sources, true, vec![], 4);
        copies.go_on(7, STAGE, vec![(vec![STAGE.code(), 1, 1], None), record(3, b"three")], 12);
        let copies = again(dir.path(), copies);
        assert_eq!(values(&copies, 7), Some((12, vec![b"two".to_vec(), b"three".to_vec()])));
        assert_eq!(values(&copies, 8), Some((3, vec![b"another".to_vec()])));
        assert_eq!(copies.read(7, Stage::Sources).map(|copy| copy.from), Some(4));
        copies.take_over(7, STAGE, true, vec![record(4, b"four")], 20);
        let copies = again(dir.path(), copies);
        assert_eq!(values(&copies, 7), Some((20, vec![b"four".to_vec()])));
        assert_eq!(values(&copies, 8), Some((3, vec![b"another".to_vec()])));
    }

    #[test]
    fn a_copy_that_is_too_old_or_damaged_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::open(dir.path(), "topic", "a/b");
        copies.take_over(1, STAGE, true, vec![record(1, b"one")], 10);
        let copies = again(dir.path(), copies);
        let database = &copies.0.as_ref().unwrap().database;
        let mark = |next: i64, written: u64| {
            let transaction = database.begin_write().unwrap();
            let mark = sealed(&[next.to_le_bytes(), written.to_le_bytes()].concat());
            let mut marks = transaction.open_table(MARKS).unwrap();
            marks.insert(bounds(1, STAGE).0.as_slice(), mark.as_slice()).unwrap();
            drop(marks);
            transaction.commit().unwrap();
        };
        assert!(values(&copies, 1).is_some());
        mark(10, clock::now().secs() - AGE_MAX.as_secs() - 1);
        assert!(values(&copies, 1).is_none());
        mark(10, clock::now().secs());
        assert!(values(&copies, 1).is_some());
        let transaction = database.begin_write().unwrap();
        let name = [&1_i32.to_be_bytes()[..], &[STAGE.code(), 1, 1]].concat();
        transaction.open_table(RECORDS).unwrap().insert(name.as_slice(), &b"bad"[..]).unwrap();
        transaction.commit().unwrap();
        assert!(values(&copies, 1).is_none());
    }

    #[test]
    fn a_file_that_is_no_database_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topic.a%2fb.redb");
        std::fs::write(&path, [7; 20_000]).unwrap();
        let copies = Copies::open(dir.path(), "topic", "a/b");
        copies.take_over(1, STAGE, true, vec![record(1, b"one")], 10);
        assert_eq!(values(&again(dir.path(), copies), 1), Some((10, vec![b"one".to_vec()])));
        // Not where a folder cannot be made.
        assert!(Copies::open(&path, "topic", "a/b").0.is_none());
    }
}
