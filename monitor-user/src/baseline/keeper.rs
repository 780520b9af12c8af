//! Writes what changed, in the background, so that a kill loses less than a minute.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use monitor_core::engine::{Engine, Feedback};
use monitor_core::time::EventTime;

use super::feedback::Log;
use super::store::{self, Batch, Lock};
use crate::database;
use crate::fault::tell;

/// A round begins this often, and is written within a quarter of a minute: half of what may be lost.
const EVERY: Duration = Duration::from_secs(30);
/// A round that an alert has brought about comes this soon after the one before.
const HURRIED: Duration = Duration::from_secs(2);
/// Keys of a slice: a millisecond or two of the Engine's thread, five times a second.
const SLICE_MIN: usize = 512;
/// Slices of a round, when more keys than that have changed: ten seconds of ticks.
const SLICES: usize = 50;
/// Batches that wait for the disk. When there is no room the round waits.
const WAITING_MAX: usize = 2;
/// Between two tries of a disk that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Takes changes from the Engine and gives them to a thread that writes.
pub(crate) struct Keeper {
    path: PathBuf,
    lock: Lock,
    log: Log,
    /// What the Engine took of it and nobody has asked for.
    said: Vec<Feedback>,
    writer: Option<(SyncSender<Batch>, JoinHandle<bool>)>,
    /// The program ends: what cannot be written now is given up.
    is_ending: Arc<AtomicBool>,
    /// When the next round begins, and when the last one did.
    due: EventTime,
    begun: EventTime,
    /// Keys of the running round that are still to be taken; `None` between rounds.
    left: Option<usize>,
    slice: usize,
    /// Had no room.
    waiting: Option<Batch>,
}

impl Keeper {
    /// The thread begins with the first tick, when rights have been given up.
    pub(super) fn new(path: PathBuf, lock: Lock, log: Log) -> Keeper {
        let now = EventTime(0);
        Keeper {
            path,
            lock,
            log,
            said: Vec::new(),
            writer: None,
            is_ending: Arc::default(),
            due: now,
            begun: now,
            left: None,
            slice: SLICE_MIN,
            waiting: None,
        }
    }

    /// The wall clock says `now`, a few times a second.
    pub(crate) fn tick(&mut self, now: EventTime, engine: &mut Engine) {
        // A clock that was set back is followed.
        if self.left.is_none() && (now >= self.due || now < self.begun) {
            self.begin(now, engine);
        }
        if self.left.is_some() {
            self.go_on(engine);
        }
    }

    /// An alert was raised: whoever dismisses it looks for it in the file.
    pub(crate) fn hurry(&mut self) {
        self.due = self.due.min(self.begun.after(HURRIED));
    }

    /// Reads what people said since the last time.
    pub(crate) fn read_feedback(&mut self, engine: &mut Engine) {
        self.said.extend(self.log.read(engine));
    }

    /// What the Engine took of it since this was asked: for a recording, in which it has the same place.
    pub(crate) fn take_said(&mut self) -> Vec<Feedback> {
        std::mem::take(&mut self.said)
    }

    /// Writes everything, and waits for it. False when it could not be written.
    pub(crate) fn finish(mut self, engine: &mut Engine) -> bool {
        self.log.read(engine);
        self.is_ending.store(true, Ordering::Relaxed);
        let (sender, thread) = self.writer.take().unwrap_or_else(|| self.start());
        let mut rest: Vec<Batch> = self.waiting.take().into_iter().collect();
        while engine.changed() > 0 {
            let changes = engine.take_changes(SLICE_MIN * SLICES);
            rest.push(Batch { keys: changes.keys, gone: changes.gone, common: None });
        }
        let common = Some((engine.save_common(), self.log.seen()));
        rest.push(Batch { gone: engine.take_changes(0).gone, common, ..Batch::default() });
        let sent = rest.into_iter().all(|batch| sender.send(batch).is_ok());
        drop(sender);
        let written = thread.join().unwrap_or(false);
        drop(self.lock);
        sent && written
    }

    fn begin(&mut self, now: EventTime, engine: &mut Engine) {
        self.read_feedback(engine);
        self.begun = now;
        self.due = now.after(EVERY);
        let changed = engine.changed();
        self.slice = SLICE_MIN.max(changed / SLICES);
        self.left = Some(changed);
    }

    fn go_on(&mut self, engine: &mut Engine) {
        let batch = self.waiting.take().unwrap_or_else(|| self.next(engine));
        let is_last = batch.common.is_some();
        let writer = self.writer.take().unwrap_or_else(|| self.start());
        let (sender, _) = self.writer.insert(writer);
        match sender.try_send(batch) {
            Ok(()) if is_last => self.left = None,
            Ok(()) => {}
            // A thread that has gone has said why.
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.waiting = Some(batch);
            }
        }
    }

    fn start(&self) -> (SyncSender<Batch>, JoinHandle<bool>) {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (path, is_ending) = (self.path.clone(), self.is_ending.clone());
        (sender, std::thread::spawn(move || write_all(&path, &receiver, &is_ending)))
    }

    fn next(&mut self, engine: &mut Engine) -> Batch {
        let left = self.left.unwrap_or(0);
        let take = left.min(self.slice);
        let changes = engine.take_changes(take);
        self.left = Some(left - take);
        let is_last = left == take;
        let common = is_last.then(|| (engine.save_common(), self.log.seen()));
        Batch { keys: changes.keys, gone: changes.gone, common }
    }
}

/// The thread: holds the file during a round alone, so that others can read it between rounds. False
/// when it gave up.
fn write_all(path: &Path, batches: &Receiver<Batch>, is_ending: &AtomicBool) -> bool {
    let mut database = None;
    let mut has_told = false;
    for batch in batches {
        loop {
            let opened = database.take().map_or_else(|| database::open(path), Ok);
            let written = opened.and_then(|open| store::write(&open, &batch).map(|()| open));
            let error = match written {
                Ok(open) => {
                    database = batch.common.is_none().then_some(open);
                    has_told = false;
                    break;
                }
                Err(error) => error,
            };
            let is_ending = is_ending.load(Ordering::Relaxed);
            if is_ending || !std::mem::replace(&mut has_told, true) {
                let then = if is_ending { "the last minute is lost" } else { "it is tried again" };
                tell(&format!("cannot keep the baseline: {}: {error:#}: {then}", path.display()));
            }
            if is_ending {
                return false;
            }
            std::thread::sleep(RETRY);
        }
    }
    true
}
