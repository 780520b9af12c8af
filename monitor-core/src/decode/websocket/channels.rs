//! Pushes and subscriptions by channel. A push costs a hash and a look through a short list.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::said::Said;
use crate::connection::Channel;
use crate::plain::{REDACTED, plain};

/// The channels of a connection.
#[derive(Default)]
pub(super) struct Channels {
    hashes: Vec<u64>,
    channels: Vec<Channel>,
    /// Numbers that stand for channels, and which.
    numbers: Vec<(i64, usize)>,
    /// Where those are counted whose names are not shown.
    redacted: Option<usize>,
    /// Pushes for which there was no room.
    pub(super) beyond: u64,
}

/// What is kept of a channel's name to compare it by.
pub(super) fn hash(name: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(name)
}

impl Channels {
    /// A message is pushed; false when there is no room for its channel.
    pub(super) fn push(&mut self, said: &Said<'_>, bytes: u64, channels_max: usize) -> bool {
        let number = said.number.filter(|_| said.positional);
        let learnt = number.and_then(|number| self.numbers.iter().find(|it| it.0 == number));
        let place = match (learnt, said.channel().or(said.name())) {
            (Some((_, place)), _) => Some(*place),
            (None, Some(name)) => self.place(name, channels_max),
            (None, None) => return true,
        };
        let Some(channel) = place.and_then(|place| self.channels.get_mut(place)) else {
            self.beyond += 1;
            return false;
        };
        channel.pushes += 1;
        channel.bytes += bytes;
        true
    }

    /// The client asks for a channel.
    pub(super) fn subscribe(&mut self, name: &[u8], channels_max: usize) {
        if let Some(place) = self.place(name, channels_max) {
            self.channels[place].subscriptions += 1;
        }
    }

    /// The server says which number a channel has.
    pub(super) fn learn(&mut self, said: &Said<'_>, channels_max: usize) {
        let (Some(number), Some(name)) = (said.number, said.channel()) else { return };
        let place = self.place(name, channels_max);
        let known = self.numbers.iter().any(|it| it.0 == number);
        if let Some(place) = place
            && !known
            && self.numbers.len() < channels_max
        {
            self.numbers.push((number, place));
        }
    }

    /// The list, for the record.
    pub(super) fn list(&self) -> Vec<Channel> {
        self.channels.clone()
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.hashes.capacity() * 8
            + self.channels.capacity() * (size_of::<Channel>() + 32)
            + self.numbers.capacity() * size_of::<(i64, usize)>()
    }

    fn place(&mut self, name: &[u8], channels_max: usize) -> Option<usize> {
        let hash = hash(name);
        if let Some(place) = self.hashes.iter().position(|known| *known == hash) {
            return Some(place);
        }
        let shown = plain(name);
        if shown.is_none()
            && let Some(place) = self.redacted
        {
            return Some(place);
        }
        let place = self.channels.len();
        if place >= channels_max {
            return None;
        }
        if shown.is_none() {
            self.redacted = Some(place);
        }
        let name = shown.unwrap_or_else(|| REDACTED.into());
        self.hashes.push(hash);
        self.channels.push(Channel { name, subscriptions: 0, pushes: 0, bytes: 0 });
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(channels: &mut Channels, text: &str) -> bool {
        channels.push(&Said::read(text.as_bytes(), true), 10, 3)
    }

    #[test]
    fn channels_are_counted_by_name_and_bounded() {
        let mut channels = Channels::default();
        channels.subscribe(b"ticker", 3);
        for _ in 0..5 {
            assert!(push(&mut channels, r#"{"channel":"ticker"}"#));
        }
        let key = "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf";
        assert!(push(&mut channels, &format!(r#"{{"stream":"{key}"}}"#)));
        assert!(push(&mut channels, &format!(r#"{{"stream":"{key}x"}}"#)));
        assert!(push(&mut channels, r#"{"channel":"trades"}"#));
        assert!(!push(&mut channels, r#"{"channel":"books"}"#));
        assert!(push(&mut channels, r#"{"no":"channel"}"#));
        let list: Vec<_> =
            channels.list().into_iter().map(|it| (it.name, it.subscriptions, it.pushes)).collect();
        assert_eq!(
            list,
            [("ticker".into(), 1, 5), (REDACTED.into(), 0, 2), ("trades".into(), 0, 1)]
        );
        assert_eq!(channels.beyond, 1);
    }

    #[test]
    fn numbers_stand_for_channels() {
        let mut channels = Channels::default();
        let said =
            br#"{"event":"subscribed","channel":"ticker","chanId":17470,"symbol":"tBTCUSD"}"#;
        channels.learn(&Said::read(said, false), 3);
        assert!(push(&mut channels, "[17470,[1,2]]"));
        assert!(push(&mut channels, r#"[17470,"hb"]"#));
        assert_eq!(channels.list()[0].pushes, 2);
    }
}
