//! Who gives way when there is no room: activity first, then the reserve.

use std::io;
use std::sync::atomic::Ordering;

use super::lane::{Dropped, Lane};
use super::{Spool, Which, lock, open_file};
use crate::fault::tell;

impl Spool {
    /// What activity may take: neither the reserve nor what alerts have beyond it.
    pub(super) fn activity_budget(&self) -> u64 {
        let alerts = self.alerts_bytes.load(Ordering::Relaxed).max(self.bounds.reserve_bytes);
        self.bounds.bytes_max.saturating_sub(alerts)
    }

    /// Gives activity up until the spool's own bound leaves room for an alert. False when it cannot.
    pub(super) fn make_room(&self, alerts: &Lane, bytes: usize) -> bool {
        let needed = alerts.bytes() + bytes as u64;
        loop {
            let all = needed + self.activity_bytes.load(Ordering::Relaxed);
            if all <= self.bounds.bytes_max {
                return true;
            }
            let mut activity = lock(&self.activity);
            let dropped = self.drop_oldest(&mut activity, "alerts needed the room");
            self.note_bytes(Which::Activity, &activity);
            if !dropped {
                // A segment that is being sent is small, and goes soon.
                return needed <= self.bounds.bytes_max;
            }
        }
    }

    pub(super) fn drop_oldest(&self, activity: &mut Lane, reason: &'static str) -> bool {
        match activity.drop_oldest() {
            Ok(Some(dropped)) => {
                self.note_gap(dropped, reason);
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.say_disk(&error);
                false
            }
        }
    }

    /// Writes alerts, whatever has to give way: activity first, then the reserve. What still has no
    /// room stays in memory and is tried again.
    pub(super) fn write_alerts(&self, lane: &mut Lane) {
        loop {
            let Err(error) = lane.write() else {
                self.disk_full.store(false, Ordering::Relaxed);
                return;
            };
            let mut activity = lock(&self.activity);
            let dropped = self.drop_oldest(&mut activity, "alerts needed the room");
            self.note_bytes(Which::Activity, &activity);
            drop(activity);
            if !dropped && !self.open_reserve() {
                self.say_disk(&error);
                return;
            }
        }
    }

    /// Takes room on the disk that alerts will have when it is full.
    pub(super) fn set_reserve_aside(&self) -> io::Result<()> {
        let path = self.dir.join("reserve");
        let set_aside = || {
            let file = open_file(&path)?;
            let none = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, none, 0, self.bounds.reserve_bytes.max(1))?;
            Ok(file)
        };
        match set_aside() {
            Ok(file) => {
                *lock(&self.reserve) = Some(file);
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Gives the reserve to the alerts; false when it is gone already.
    fn open_reserve(&self) -> bool {
        let Some(file) = lock(&self.reserve).take() else { return false };
        let freed = file.set_len(0).is_ok();
        let _ = std::fs::remove_file(self.dir.join("reserve"));
        freed
    }

    pub(super) fn note_gap(&self, dropped: Dropped, reason: &'static str) {
        if dropped.records == 0 {
            return;
        }
        self.dropped.fetch_add(dropped.records, Ordering::Relaxed);
        let mut gap = lock(&self.gap);
        gap.calls += dropped.records;
        gap.reason = reason;
        if let Some((first, last)) = dropped.times {
            let (earliest, latest) = gap.times.unwrap_or((first, last));
            gap.times = Some((earliest.min(first), latest.max(last)));
        }
    }

    pub(super) fn say_disk(&self, error: &io::Error) {
        if !self.disk_full.swap(true, Ordering::Relaxed) {
            tell(&format!(
                "cannot write to the spool: {}: {error}: make room there",
                self.dir.display()
            ));
        }
    }
}
