//! Where records wait until the other side has confirmed them: a queue that outlives the program.
//!
//! Each network sink has a spool of its own, so that one that is away takes nothing from the others.
//! It has two lanes. Alerts, and events about what was lost, are on disk before they are sent, and
//! are never given up for anything else. Activity comes through memory, so that the core never waits
//! for a disk, and gives way: when there is no room, the oldest of it that was not sent is dropped, and
//! an event in the lane of alerts says how much.
//!
//! A crash may lead to a record being sent again, never to an alert being lost; consumers tell repeats
//! by their id.

mod lane;
mod room;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use lane::Batch;
pub(crate) use segment::Head;

use self::lane::{Dropped, Lane};
use self::segment::{PAYLOAD_BYTES_MAX, Unusable};
use crate::fault::tell;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Alerts and events about losses: never given up.
    Alerts,
    /// Calls: given up when there is no room.
    Activity,
}

/// Bounds of a spool, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// All of it on disk.
    pub(crate) bytes_max: u64,
    /// The part of it that only alerts may take; also set aside on the disk itself.
    pub(crate) reserve_bytes: u64,
}

/// Activity that a gap swallowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gap {
    /// How many calls; 0 when that is not known.
    pub(crate) calls: u64,
    /// Event times of the first and the last, nanoseconds.
    pub(crate) times: Option<(u64, u64)>,
    /// Why.
    pub(crate) reason: &'static str,
}

/// What happens when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Live: activity is dropped and counted.
    Drop,
    /// Replay: everything waits.
    Wait,
}

/// See the module.
pub(crate) struct Spool {
    dir: PathBuf,
    bounds: Bounds,
    when_full: WhenFull,
    // Locked in this order: alerts, activity, then the rest, one at a time.
    alerts: Mutex<Lane>,
    activity: Mutex<Lane>,
    intake: Mutex<Intake>,
    gap: Mutex<Gap>,
    /// Something happened that the alerts' courier, or that of activity, waits for.
    alerts_wake: Condvar,
    activity_wake: Condvar,
    /// The intake has room again.
    room: Condvar,
    /// The lane of alerts may have room again.
    alerts_room: Condvar,
    /// Bytes on disk of each lane, to be read without the other lane's lock.
    alerts_bytes: AtomicU64,
    activity_bytes: AtomicU64,
    dropped: AtomicU64,
    lost: AtomicU64,
    disk_full: AtomicBool,
    /// Somebody was told that alerts wait for room.
    has_waited: AtomicBool,
    reserve: Mutex<Option<File>>,
    /// Held as long as the spool is.
    _lock: File,
}

/// Activity on its way to its lane.
#[derive(Default)]
struct Intake {
    bytes: Vec<u8>,
    heads: Vec<(Head, u32)>,
}

/// Activity in memory: more than a second of 10,000 calls a second, and what may be lost by a kill.
const INTAKE_BYTES_MAX: usize = 8 << 20;
/// With this much waiting the courier is woken; it also looks by itself, many times a second.
const INTAKE_WAKE_BYTES: usize = 64 << 10;
/// Alerts that no disk had room for, held in memory until it has: more alerts than a day's budget.
const ALERTS_PENDING_BYTES_MAX: usize = 16 << 20;
/// How often somebody who waits for room on a full disk looks again.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// A file of refused records is left for a new one at this size; the one before is kept.
const REFUSED_BYTES_MAX: u64 = 64 << 20;

impl Spool {
    /// Opens or makes the spool in `dir`. What an earlier run left in it is handed out first.
    pub(crate) fn open(dir: &Path, bounds: Bounds, when_full: WhenFull) -> Result<Spool> {
        let shown = dir.display();
        let context = || format!("cannot open the spool: {shown}");
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)?;
        let lock = open_file(&dir.join("lock")).with_context(context)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another keywatch uses the spool: {shown}: stop it or set sinks.spool.dir")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        let open = |name, id| match Lane::open(dir, name, id, bounds.bytes_max) {
            Ok((lane, found)) => {
                found.troubles.iter().for_each(|line| tell(line));
                Ok((lane, found.unclean))
            }
            Err((path, Unusable::Io(error))) => {
                Err(error).with_context(|| format!("cannot open the spool: {}", path.display()))
            }
            Err((path, error @ (Unusable::Newer(_) | Unusable::Damaged))) => bail!(
                "cannot read the spool: {}: {error}: run the keywatch that wrote it, or set \
                 sinks.spool.dir; nothing was changed",
                path.display()
            ),
        };
        let (alerts, _) = open("alerts", 0)?;
        let (activity, unclean) = open("activity", 1)?;
        let gap = match unclean {
            true => Gap { reason: "the run before was killed", ..Gap::default() },
            false => Gap::default(),
        };
        let spool = Spool {
            dir: dir.to_owned(),
            bounds,
            when_full,
            alerts_bytes: AtomicU64::new(alerts.bytes()),
            activity_bytes: AtomicU64::new(activity.bytes()),
            alerts: Mutex::new(alerts),
            activity: Mutex::new(activity),
            intake: Mutex::default(),
            gap: Mutex::new(gap),
            alerts_wake: Condvar::new(),
            activity_wake: Condvar::new(),
            room: Condvar::new(),
            alerts_room: Condvar::new(),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            has_waited: AtomicBool::new(false),
            reserve: Mutex::new(None),
            _lock: lock,
        };
        if let Err(error) = spool.set_reserve_aside() {
            tell(&format!("no room is set aside for alerts: {shown}: {error}: make room there"));
        }
        Ok(spool)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps an alert: when this returns it outlives the program. Costs one write. Without any room it
    /// waits where that was asked for; elsewhere the alert is held in memory as long as there is some.
    pub(crate) fn put_alert(&self, head: Head, payload: &[u8]) {
        if self.when_full == WhenFull::Drop || payload.len() > PAYLOAD_BYTES_MAX {
            return self.put_event(head, payload);
        }
        let mut lane = self.wait_for_alerts(lock(&self.alerts), |lane| {
            let bytes = lane.bytes() + self.activity_bytes.load(Ordering::Relaxed);
            bytes + payload.len() as u64 <= self.bounds.bytes_max
        });
        lane.append(head, payload);
        let lane = self.wait_for_alerts(lane, |lane| {
            self.write_alerts(lane);
            lane.pending_bytes() == 0
        });
        self.note_bytes(Which::Alerts, &lane);
        drop(lane);
        self.alerts_wake.notify_one();
    }

    /// Waits, with the lane free for others meanwhile, until it is ready.
    fn wait_for_alerts<'s>(
        &'s self,
        mut lane: MutexGuard<'s, Lane>,
        mut is_ready: impl FnMut(&mut Lane) -> bool,
    ) -> MutexGuard<'s, Lane> {
        while !is_ready(&mut lane) {
            if !self.has_waited.swap(true, Ordering::Relaxed) {
                tell(&format!(
                    "no room for alerts: {}: waiting until some were delivered: make room there or \
                     raise sinks.spool.bytes_max",
                    self.dir.display()
                ));
            }
            self.wake(Which::Alerts);
            self.wake(Which::Activity);
            let waited = self.alerts_room.wait_timeout(lane, ROOM_WAIT);
            lane = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        lane
    }

    /// Keeps an alert, or an event about a loss, and never waits.
    pub(crate) fn put_event(&self, head: Head, payload: &[u8]) {
        let mut lane = lock(&self.alerts);
        let fits = payload.len() <= PAYLOAD_BYTES_MAX
            && self.make_room(&lane, payload.len())
            && lane.pending_bytes() + payload.len() <= ALERTS_PENDING_BYTES_MAX;
        if fits {
            lane.append(head, payload);
            self.write_alerts(&mut lane);
        } else if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tell(&format!(
                "alerts are lost: {}: no room for them: make room there or raise \
                 sinks.spool.bytes_max",
                self.dir.display()
            ));
        }
        self.note_bytes(Which::Alerts, &lane);
        drop(lane);
        self.alerts_wake.notify_one();
    }

    /// Keeps a call for a while. Never waits for a disk; waits for the other side only where that was
    /// asked for.
    pub(crate) fn put_activity(&self, head: Head, payload: &[u8]) {
        let mut intake = lock(&self.intake);
        while intake.bytes.len() + payload.len() > INTAKE_BYTES_MAX {
            if self.when_full == WhenFull::Drop
                || payload.len() > PAYLOAD_BYTES_MAX.min(INTAKE_BYTES_MAX)
            {
                drop(intake);
                let one = Dropped { records: 1, times: Some((head.time, head.time)) };
                return self.note_gap(one, "the sink does not keep up");
            }
            self.activity_wake.notify_one();
            intake = self.room.wait(intake).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let before = intake.bytes.len();
        intake.bytes.extend_from_slice(payload);
        intake.heads.push((head, payload.len() as u32));
        let is_due = before < INTAKE_WAKE_BYTES && intake.bytes.len() >= INTAKE_WAKE_BYTES;
        drop(intake);
        if is_due {
            self.activity_wake.notify_one();
        }
    }

    /// Brings activity from memory into its lane, as far as there is room.
    pub(crate) fn absorb(&self) {
        let mut lane = lock(&self.activity);
        if self.when_full == WhenFull::Drop || lane.bytes() <= self.activity_budget() {
            self.take_in(&mut lane);
        }
    }

    fn take_in(&self, lane: &mut Lane) {
        let taken = std::mem::take(&mut *lock(&self.intake));
        self.room.notify_all();
        let mut at = 0;
        for (head, bytes) in taken.heads {
            let end = at + bytes as usize;
            lane.append(head, &taken.bytes[at..end]);
            at = end;
        }
        // Where all waits for the other side, what came beyond the bound is as much as the memory holds.
        while self.when_full == WhenFull::Drop && lane.bytes() > self.activity_budget() {
            if !self.drop_oldest(lane, "the spool is full") {
                let dropped = lane.drop_pending();
                self.note_gap(dropped, "the spool is full");
                break;
            }
        }
        if let Err(error) = lane.write() {
            self.say_disk(&error);
            let dropped = lane.drop_pending();
            self.note_gap(dropped, "the disk of the spool is full");
        }
        self.note_bytes(Which::Activity, lane);
    }

    /// Hands out the next records of a lane, and syncs what was written.
    pub(crate) fn take(&self, which: Which, batch: &mut Batch) -> io::Result<()> {
        let mut lane = self.lane(which);
        if which == Which::Alerts {
            self.write_alerts(&mut lane);
        }
        lane.take(batch)?;
        let damaged = lane.take_damaged();
        drop(lane);
        if damaged > 0 {
            tell(&format!(
                "{damaged} records were damaged on disk and are lost: {}: check the disk",
                self.dir.display()
            ));
            self.lost.fetch_add(damaged, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes what was written safe from power loss. Activity is left to the kernel: most of it is
    /// gone again before it would be written out.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let files = lock(&self.alerts).take_unsynced();
        files.iter().try_for_each(|file| file.sync_data())
    }

    /// A record has arrived, or needs to go no further.
    pub(crate) fn confirm(&self, which: Which, number: u64) -> io::Result<()> {
        let mut lane = self.lane(which);
        let result = lane.confirm(number);
        self.note_bytes(which, &lane);
        drop(lane);
        // Of activity there is too much to say so each time.
        if which == Which::Alerts && self.when_full == WhenFull::Wait {
            self.alerts_room.notify_one();
        }
        result
    }

    /// Hands out everything again that is not confirmed, in order.
    pub(crate) fn rewind(&self, which: Which) {
        self.lane(which).rewind();
    }

    /// Notes on disk how far delivery is, so that a crash does not repeat all of it.
    pub(crate) fn note_progress(&self, which: Which) -> io::Result<()> {
        let mut lane = self.lane(which);
        lane.note_cursor(false)?;
        let is_calm = which == Which::Alerts && lane.is_empty();
        drop(lane);
        if is_calm && lock(&self.reserve).is_none() {
            let _ = self.set_reserve_aside();
        }
        Ok(())
    }

    /// Records handed out and not confirmed.
    pub(crate) fn in_flight(&self, which: Which) -> usize {
        self.lane(which).in_flight()
    }

    /// Whether every record of a lane is confirmed.
    pub(crate) fn is_empty(&self, which: Which) -> bool {
        let in_memory = which == Which::Activity && !lock(&self.intake).heads.is_empty();
        !in_memory && self.lane(which).is_empty()
    }

    /// Sleeps until a lane may have something new, or for so long.
    pub(crate) fn wait(&self, which: Which, time: Duration) {
        // A poisoned lock is taken as it is, like everywhere.
        match which {
            Which::Alerts => {
                let lane = lock(&self.alerts);
                if !lane.has_next() {
                    let _ = self.alerts_wake.wait_timeout(lane, time);
                }
            }
            Which::Activity => {
                let intake = lock(&self.intake);
                if intake.bytes.len() < INTAKE_WAKE_BYTES {
                    let _ = self.activity_wake.wait_timeout(intake, time);
                }
            }
        }
    }

    /// Wakes a lane's courier.
    pub(crate) fn wake(&self, which: Which) {
        match which {
            Which::Alerts => self.alerts_wake.notify_all(),
            Which::Activity => self.activity_wake.notify_all(),
        }
    }

    /// Puts bytes aside that the other side will never take, where a person can look at them. Returns
    /// the file.
    pub(crate) fn put_aside(&self, body: &[u8]) -> io::Result<PathBuf> {
        let path = self.dir.join("refused");
        if path.metadata().is_ok_and(|about| about.len() > REFUSED_BYTES_MAX) {
            std::fs::rename(&path, self.dir.join("refused.old"))?;
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.write_all(&[body, b"\n"].concat())?;
        file.sync_data()?;
        Ok(path)
    }

    /// What activity was given up since the last call.
    pub(crate) fn take_gap(&self) -> Option<Gap> {
        let mut gap = lock(&self.gap);
        (!gap.reason.is_empty()).then(|| std::mem::take(&mut *gap))
    }

    /// Calls given up in this run.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Alerts that neither disk nor memory had a place for.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Bytes on disk of both lanes.
    pub(crate) fn bytes(&self) -> u64 {
        self.alerts_bytes.load(Ordering::Relaxed) + self.activity_bytes.load(Ordering::Relaxed)
    }

    /// Brings what is in memory to the disk. What no longer fits is in the next gap.
    pub(crate) fn settle(&self) {
        let mut alerts = lock(&self.alerts);
        let mut activity = lock(&self.activity);
        self.take_in(&mut activity);
        // Nothing is on its way any more, so that all of it can give way.
        activity.rewind();
        drop(activity);
        self.write_alerts(&mut alerts);
    }

    /// Writes and syncs everything; removes what is confirmed. Returns how many alerts and how many
    /// calls are left for the next run.
    pub(crate) fn close(&self) -> Result<(u64, u64)> {
        self.settle();
        let context = || format!("cannot keep records: {}", self.dir.display());
        let alerts = lock(&self.alerts).close().with_context(context)?;
        let calls = lock(&self.activity).close().with_context(context)?;
        for which in [Which::Alerts, Which::Activity] {
            let lane = self.lane(which);
            self.note_bytes(which, &lane);
        }
        if let Some(file) = lock(&self.reserve).take() {
            drop(file);
            let _ = std::fs::remove_file(self.dir.join("reserve"));
        }
        Ok((alerts, calls))
    }

    fn lane(&self, which: Which) -> MutexGuard<'_, Lane> {
        match which {
            Which::Alerts => lock(&self.alerts),
            Which::Activity => lock(&self.activity),
        }
    }

    fn note_bytes(&self, which: Which, lane: &Lane) {
        match which {
            Which::Alerts => self.alerts_bytes.store(lane.bytes(), Ordering::Relaxed),
            Which::Activity => self.activity_bytes.store(lane.bytes(), Ordering::Relaxed),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

/// A panic elsewhere leaves the data as good as it was.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
