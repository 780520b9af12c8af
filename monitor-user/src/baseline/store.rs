//! The file: a redb database. Each value has a checksum of its own, besides those of redb.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use monitor_core::call::KeyId;
use monitor_core::engine::{Engine, SNAPSHOT_VERSION};
use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::database::{CACHE_BYTES, make_dir, opened, sealed};

/// `version`, `common` and `feedback`.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// State of each key, by its id.
const KEYS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("keys");

/// A million keys of 2 KiB, twice.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Files that were put aside: nobody looks at more, and a loop of restarts must not fill the disk.
const ASIDE_MAX: u32 = 5;
/// How long a reader waits for a running agent to finish a write.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Why a file is not gone on from.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("cannot read the baseline: {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("the baseline is in use: {0}: try again")]
    Busy(PathBuf),
    #[error(
        "the baseline was written by a newer Keywatch (form {1}, this one knows {SNAPSHOT_VERSION}): {0}"
    )]
    Newer(PathBuf, u32),
    #[error("the baseline is damaged: {0}: {1}")]
    Damaged(PathBuf, String),
}

/// What was read.
pub(super) struct Loaded {
    pub(super) keys: u64,
    /// Bytes of feedback that are in it.
    pub(super) feedback: u64,
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) keys: Vec<(KeyId, Vec<u8>)>,
    pub(super) gone: Vec<KeyId>,
    /// All else, and how far feedback is in it: the last part of a round.
    pub(super) common: Option<(Vec<u8>, u64)>,
}

/// Held by the one agent that writes a baseline.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// `None` when somebody else holds it.
    pub(super) fn take(baseline: &Path) -> Result<Option<Lock>> {
        let path = baseline.with_extension("lock");
        make_dir(&path)?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot keep the baseline: {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot keep the baseline: {}", path.display()))
            }
        }
    }
}

/// Reads everything into an Engine; after a refusal, what is in the Engine is of no use. `None` when
/// there is no file.
pub(super) fn load(path: &Path, engine: &mut Engine) -> Result<Option<Loaded>, Refusal> {
    let Some(bytes) = copy(path)? else { return Ok(None) };
    let damaged = |why: String| Refusal::Damaged(path.to_owned(), why);
    // redb finds most damage by its checksums, and some by an assertion.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let loaded = catch_unwind(AssertUnwindSafe(|| load_from(path, bytes, engine)));
    std::panic::set_hook(hook);
    loaded.unwrap_or_else(|_| Err(damaged("its pages contradict each other".into()))).map(Some)
}

/// Writes a batch, whole or not at all.
pub(super) fn write(database: &Database, batch: &Batch) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut keys = transaction.open_table(KEYS)?;
        for id in &batch.gone {
            keys.remove(id.0)?;
        }
        for (id, state) in &batch.keys {
            keys.insert(id.0, sealed(state).as_slice())?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert("version", sealed(&SNAPSHOT_VERSION.to_le_bytes()).as_slice())?;
        if let Some((common, feedback)) = &batch.common {
            meta.insert("common", sealed(common).as_slice())?;
            meta.insert("feedback", sealed(&feedback.to_le_bytes()).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Renames a file that is of no use, so that nothing is lost.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf> {
    let name = |n: u32| path.with_extension(format!("refused-{n}.redb"));
    let free = (1..=ASIDE_MAX).map(name).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| name(ASIDE_MAX));
    fs::rename(path, &aside)
        .with_context(|| format!("cannot put the baseline aside: {}", path.display()))?;
    Ok(aside)
}

/// A copy in memory: the file itself is neither repaired nor changed. An agent that runs holds it
/// only while it writes.
fn copy(path: &Path) -> Result<Option<Vec<u8>>, Refusal> {
    let unreadable = |error: io::Error| Refusal::Unreadable(path.to_owned(), error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let begin = std::time::Instant::now();
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockShared) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(unreadable(error.into()));
        }
        if begin.elapsed() > BUSY_MAX {
            return Err(Refusal::Busy(path.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let len = file.metadata().map_err(unreadable)?.len();
    if len > FILE_BYTES_MAX {
        return Err(Refusal::Damaged(path.to_owned(), format!("it has {len} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.by_ref().take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

fn load_from(path: &Path, bytes: Vec<u8>, engine: &mut Engine) -> Result<Loaded, Refusal> {
    if bytes.is_empty() {
        // Made, and killed before the first write.
        return Ok(Loaded { keys: 0, feedback: 0 });
    }
    let damaged = |why: String| Refusal::Damaged(path.to_owned(), why);
    let memory = InMemoryBackend::new();
    memory
        .set_len(bytes.len() as u64)
        .and_then(|()| memory.write(0, &bytes))
        .map_err(|error| damaged(error.to_string()))?;
    drop(bytes);
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(memory);
    let mut database = database.map_err(|error| damaged(error.to_string()))?;
    database.check_integrity().map_err(|error| damaged(error.to_string()))?;
    let version = version(&database).map_err(|error| damaged(format!("{error:#}")))?;
    if version.is_some_and(|version| version > SNAPSHOT_VERSION) {
        return Err(Refusal::Newer(path.to_owned(), version.unwrap_or_default()));
    }
    if version.is_none() {
        return Ok(Loaded { keys: 0, feedback: 0 });
    }
    fill(&database, engine).map_err(|error| damaged(format!("{error:#}")))
}

/// `None` of a database in which nothing was written yet.
fn version(database: &Database) -> Result<Option<u32>> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value = meta.get("version")?.context("it has no version")?;
    let bytes = opened(value.value())?;
    Ok(Some(u32::from_le_bytes(bytes.try_into().context("its version has no form")?)))
}

fn fill(database: &Database, engine: &mut Engine) -> Result<Loaded> {
    let transaction = database.begin_read()?;
    let keys = transaction.open_table(KEYS)?;
    for entry in keys.iter()? {
        let (id, state) = entry?;
        engine.restore_key(KeyId(id.value()), opened(state.value())?)?;
    }
    let meta = transaction.open_table(META)?;
    if let Some(common) = meta.get("common")? {
        engine.restore_common(opened(common.value())?)?;
    }
    let feedback = match meta.get("feedback")? {
        Some(bytes) => u64::from_le_bytes(opened(bytes.value())?.try_into().context("feedback")?),
        None => 0,
    };
    Ok(Loaded { keys: keys.len()?, feedback })
}

#[cfg(test)]
mod tests {
    use monitor_core::engine::Settings;

    use super::*;
    use crate::database::open;

    fn small(path: &Path) {
        let state = b"\x81\xa5calls\x07".to_vec();
        let keys = (0..200).map(|n| (KeyId(n), state.clone())).collect();
        let batch = Batch { keys, gone: vec![KeyId(900)], common: Some((b"\x80".to_vec(), 12)) };
        write(&open(path).unwrap(), &batch).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/b.redb");
        let mut engine = Engine::new(Settings::default());
        assert!(load(&path, &mut engine).unwrap().is_none());
        small(&path);
        write(&open(&path).unwrap(), &Batch { gone: vec![KeyId(7)], ..Batch::default() }).unwrap();
        let before = fs::read(&path).unwrap();
        let loaded = load(&path, &mut engine).unwrap().unwrap();
        assert_eq!((loaded.keys, loaded.feedback, engine.keys()), (199, 12, 199));
        assert_eq!(engine.view_key(KeyId(8)).unwrap().calls, 7);
        assert_eq!(fs::read(&path).unwrap(), before, "reading changes nothing");
    }

    #[test]
    fn a_newer_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.redb");
        small(&path);
        let database = open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let newer = sealed(&(SNAPSHOT_VERSION + 1).to_le_bytes());
        transaction.open_table(META).unwrap().insert("version", newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let refusal = load(&path, &mut Engine::new(Settings::default())).err().unwrap();
        assert!(matches!(refusal, Refusal::Newer(_, version) if version == SNAPSHOT_VERSION + 1));
        let aside = put_aside(&path).unwrap();
        assert!(!path.exists() && aside.ends_with("b.refused-1.redb"));
    }

    #[test]
    fn damage_anywhere_is_refused_or_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.redb");
        small(&path);
        let whole = fs::read(&path).unwrap();
        let mut refused = 0;
        let damage = (0..whole.len()).step_by(4099).chain((0..512).step_by(7));
        for at in damage {
            for cut in [false, true] {
                let mut bytes = whole.clone();
                if cut {
                    bytes.truncate(at)
                } else {
                    bytes[at] ^= 0x41
                }
                fs::write(&path, &bytes).unwrap();
                let mut engine = Engine::new(Settings::default());
                match load(&path, &mut engine) {
                    Ok(loaded) => {
                        assert!(loaded.unwrap().keys == 0 || engine.keys() == 200, "{at}")
                    }
                    Err(Refusal::Damaged(_, _) | Refusal::Newer(_, _)) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(refused > 50, "{refused}");
        // A wrong byte in what a key's state is.
        let at = whole.windows(6).position(|bytes| bytes == b"calls\x07").unwrap();
        let mut bytes = whole.clone();
        bytes[at + 5] = 9;
        fs::write(&path, &bytes).unwrap();
        assert!(load(&path, &mut Engine::new(Settings::default())).is_err());
    }

    #[test]
    fn one_agent_alone_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.redb");
        let lock = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        drop(lock);
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
