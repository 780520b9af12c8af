//! When a key was last used, and how long it has been away before.

use serde::{Deserialize, Serialize};

/// Away for less is a long weekend. How long it was decides what it is worth.
const DORMANT_S: u32 = 7 * 86_400;
/// Away for less than so many times its longest absence is its custom.
const LONGEST_FACTOR: u32 = 2;
/// How long a key counts as just come back.
const REVIVAL_S: u32 = 3_600;

/// A key's absences, in seconds since the epoch.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Presence {
    last_s: u32,
    longest_gap_s: u32,
    /// When it came back, how long it had been away, and for how long it had been before, hours.
    revived_s: u32,
    gap_h: u16,
    earlier_gap_h: u16,
}

/// A key came back after a long absence, within the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revival {
    pub(crate) gap_s: u32,
    /// Longest absence before; 0 when there was none.
    pub(crate) earlier_gap_s: u32,
}

impl Presence {
    /// A key was used. Nobody was seen before `watched_since_s`, so no absence began before it.
    pub(crate) fn note(&mut self, now_s: u32, watched_since_s: u32) -> Option<Revival> {
        let now_s = now_s.max(1);
        if self.last_s != 0 {
            let gap_s = now_s.saturating_sub(self.last_s.max(watched_since_s));
            if gap_s >= DORMANT_S && gap_s / LONGEST_FACTOR > self.longest_gap_s {
                self.revived_s = now_s;
                self.gap_h = hours(gap_s);
                self.earlier_gap_h = hours(self.longest_gap_s);
            }
            self.longest_gap_s = self.longest_gap_s.max(gap_s);
        }
        self.last_s = now_s;
        let is_new = self.revived_s != 0 && now_s.wrapping_sub(self.revived_s) <= REVIVAL_S;
        let seconds = |hours| u32::from(hours) * 3_600;
        is_new.then(|| Revival {
            gap_s: seconds(self.gap_h),
            earlier_gap_s: seconds(self.earlier_gap_h),
        })
    }
}

fn hours(seconds: u32) -> u16 {
    u16::try_from(seconds / 3_600).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 86_400;

    #[test]
    fn an_absence_is_news_once_it_is_longer_than_all_before() {
        let mut presence = Presence::default();
        assert_eq!(presence.note(100 * DAY, 0), None);
        assert_eq!(presence.note(106 * DAY, 0), None);
        let back = Revival { gap_s: 90 * DAY, earlier_gap_s: 6 * DAY };
        assert_eq!(presence.note(196 * DAY, 0), Some(back));
        assert_eq!(presence.note(196 * DAY + 3_600, 0), Some(back));
        assert_eq!(presence.note(196 * DAY + 3_601, 0), None);
        assert_eq!(presence.note(286 * DAY, 0), None, "every quarter");
    }

    #[test]
    fn time_in_which_nobody_was_seen_is_no_absence() {
        let mut presence = Presence::default();
        presence.note(100 * DAY, 0);
        assert_eq!(presence.note(400 * DAY, 399 * DAY), None);
        assert_eq!(presence.note(u32::MAX, u32::MAX), None);
        assert_eq!(presence.note(0, u32::MAX), None, "back before anything");
        assert_eq!(presence.note(1, 0), None);
    }
}
