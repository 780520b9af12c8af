//! Signatures that were seen, by whom and when: a bounded memory of signed requests.

use serde::{Deserialize, Serialize};

/// Requests side by side: 128 bytes, two cache lines.
const WAYS: usize = 16;

/// Units of time that are told apart; 16 bits of them are three days.
const UNIT_S: u64 = 4;

/// Signed requests at 8 bytes each, the oldest of a row goes first. One that was never made is taken
/// for known once in 2^32 / 16 = 270 million.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Replays {
    /// Latest first; 0 is an empty place. No rows before the first request. Rows of plain numbers, so
    /// that memory is not touched before it is used.
    rows: Vec<[u64; WAYS]>,
}

/// What is held of a request: tag, client and time.
fn packed(tag: u32, client: u16, time: u16) -> u64 {
    u64::from(tag) << 32 | u64::from(client) << 16 | u64::from(time)
}

fn unpacked(held: u64) -> (u32, u16, u16) {
    ((held >> 32) as u32, (held >> 16) as u16, held as u16)
}

/// A request whose signature was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// From the same network as before.
    pub(crate) same_client: bool,
    /// The other client, or this one, stands between: a proxy of this host.
    pub(crate) inside: bool,
    /// How long ago, seconds; three days at most.
    pub(crate) age_s: u64,
}

/// The mark of clients in private networks and on this host.
const INSIDE: u16 = 0;

impl Replays {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<[u64; WAYS]>()
    }

    /// Remembers a request, by a hash (64 bits, well mixed); tells when it was there. Of `max` requests
    /// the room is taken at the first. `network`: a hash of where it comes from, `None` inside.
    pub(crate) fn add(
        &mut self,
        hash: u64,
        network: Option<u64>,
        time_s: u64,
        max: usize,
    ) -> Option<Again> {
        if self.rows.is_empty() {
            self.rows = vec![[0; WAYS]; max.div_ceil(WAYS).clamp(1, 1 << 28)];
        }
        let at = (u64::from(hash as u32) * self.rows.len() as u64) >> 32;
        let row = &mut self.rows[at as usize];
        let tag = ((hash >> 32) as u32).max(1);
        let client = network.map_or(INSIDE, |network| (network as u16).max(1));
        let time = (time_s / UNIT_S) as u16;
        let mut known = row.iter().map(|held| unpacked(*held));
        if let Some((_, known_client, known_time)) = known.find(|held| held.0 == tag) {
            // The first one stays: it is the owner's.
            let age = time.wrapping_sub(known_time);
            // A record that comes late is not from days ago.
            let age = age.min(age.wrapping_neg());
            return Some(Again {
                same_client: known_client == client,
                inside: client == INSIDE || known_client == INSIDE,
                age_s: u64::from(age) * UNIT_S,
            });
        }
        row.rotate_right(1);
        row[0] = packed(tag, client, time);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn what_comes_again_is_known_and_the_memory_is_bounded() {
        let hash = |n: u64| foldhash::quality::FixedState::with_seed(1).hash_one(n);
        let mut replays = Replays::default();
        let mut again = |n: u64, network, time| replays.add(hash(n), network, time, 10_000);
        assert_eq!(again(1, Some(7), 1_000), None);
        let same = Again { same_client: true, inside: false, age_s: 8 };
        assert_eq!(again(1, Some(7), 1_008), Some(same));
        assert_eq!(again(1, Some(8), 1_008), Some(Again { same_client: false, ..same }));
        let proxied = Again { same_client: false, inside: true, age_s: 0 };
        assert_eq!(again(1, None, 1_000), Some(proxied));
        assert_eq!(again(1, Some(7), 996).map(|again| again.age_s), Some(4), "out of order");
        let fresh = (2..1_000_000).filter(|n| again(*n, Some(7), 2_000).is_none()).count();
        assert!(fresh > 999_990, "{fresh}");
        assert_eq!(again(1, Some(7), 3_000), None, "forgotten");
        assert_eq!(replays.bytes(), 80_000);
    }
}
