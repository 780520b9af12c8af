//! Messages of the client that wait for their reply, and which reply is whose.
//!
//! An id tells for sure. Without one a reply that says what it answers is taken for the answer to the
//! only message that it can be; where there are several, none is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::channels::hash;
use super::said::{Id, Said};
use crate::call::{Anomalies, Detail, Key, Operation, Token};
use crate::identity::Style;
use crate::time::EventTime;

/// Channels of a message that are kept to compare them.
const CHANNELS_MAX: usize = 16;

/// A message of the client.
pub(super) struct Asked {
    pub(super) time: EventTime,
    /// Its last byte.
    pub(super) last: EventTime,
    pub(super) method: CompactString,
    pub(super) op: Operation,
    /// Who asks.
    pub(super) key: Option<Key>,
    pub(super) token: Option<Arc<Token>>,
    pub(super) style: Style,
    /// A login: whose the connection was before.
    pub(super) before: Option<Box<Option<Key>>>,
    pub(super) detail: Option<Box<Detail>>,
    pub(super) symbol: Option<CompactString>,
    pub(super) object_ids: Vec<CompactString>,
    pub(super) body_bytes: u64,
    pub(super) anomalies: Anomalies,
    pub(super) complete: bool,
    /// What keeps a reply from being seen.
    pub(super) missed: Anomalies,
    pub(super) ids: SmallVec<[Id; 1]>,
    pub(super) awaited: Awaited,
}

/// How a reply without an id is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// By its id only, or not at all.
    NoName,
    /// By what was asked, and about which channels; none stands for any.
    Name { name: SmallVec<[u8; 24]>, channels: SmallVec<[u64; 2]> },
}

impl Awaited {
    /// For a message that asks by name.
    pub(super) fn of(said: &Said<'_>) -> Awaited {
        let Some(name) = said.name() else { return Awaited::NoName };
        let mut channels = SmallVec::new();
        said.each_channel(|channel| channels.push(hash(channel)));
        if channels.len() > CHANNELS_MAX {
            channels = SmallVec::new();
        }
        Awaited::Name { name: SmallVec::from_slice(&name[..name.len().min(64)]), channels }
    }

    fn fits(&self, told: &Said<'_>) -> bool {
        let Awaited::Name { name, channels } = self else { return false };
        let Some(told_name) = told.name() else { return false };
        let channel = told.channel().map(hash);
        answers(name, told_name, told.is_verdict())
            && (channels.is_empty() || channel.is_none_or(|channel| channels.contains(&channel)))
    }
}

/// Operations that are answered by name where they are answered at all.
pub(super) fn is_answered_by_name(name: &[u8]) -> bool {
    ["sub", "unsub", "login", "logon", "logout", "auth", "ping", "challenge", "req"]
        .iter()
        .any(|start| begins_with(name, start))
}

/// Whether a message of this name answers one of that. A verdict says more than a name alone.
fn answers(asked: &[u8], told: &[u8], verdict: bool) -> bool {
    let same = asked.eq_ignore_ascii_case(told);
    if begins_with(asked, "sub") || begins_with(asked, "unsub") {
        let turned = begins_with(asked, "unsub") == begins_with(told, "unsub");
        return told == b"error"
            || told == b"subscriptionStatus"
            || told == b"subscriptions"
            || told == b"ack"
            || turned && (begins_with(told, "sub") || begins_with(told, "unsub"));
    }
    let rest = if begins_with_bytes(told, asked) { &told[asked.len()..] } else { told };
    let suffix = [&b"-req"[..], b"Status", b"_ack", b"ed", b"-ack", b"Response"].contains(&rest);
    same && (verdict || is_answered_by_name(asked))
        || suffix
        || told == b"error" && verdict
        || asked.eq_ignore_ascii_case(b"ping") && told.eq_ignore_ascii_case(b"pong")
        || asked.eq_ignore_ascii_case(b"req") && told.eq_ignore_ascii_case(b"rep")
}

fn begins_with(name: &[u8], start: &str) -> bool {
    begins_with_bytes(name, start.as_bytes())
}

fn begins_with_bytes(name: &[u8], start: &[u8]) -> bool {
    name.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
}

/// The messages that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    queue: VecDeque<Asked>,
    held_bytes: usize,
}

impl Waiting {
    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes + self.queue.capacity() * size_of::<Asked>()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, asked: Asked) {
        self.held_bytes += asked.held_bytes();
        self.queue.push_back(asked);
    }

    /// The message that a reply answers.
    pub(super) fn answered_by(&mut self, told: &[Said<'_>]) -> Option<Asked> {
        let mut with_id = false;
        for id in told.iter().filter_map(Said::id) {
            with_id = true;
            if let Some(place) = self.queue.iter().position(|asked| asked.ids.contains(&id)) {
                return self.remove(place);
            }
        }
        let [told] = told else { return None };
        // An id of the server's own says nothing, unless it answers by id.
        if with_id && told.is_answer() {
            return None;
        }
        let fits = |asked: &Asked| asked.awaited.fits(told);
        let mut places = self.queue.iter().enumerate().filter(|(_, asked)| fits(asked));
        let (place, _) = places.next()?;
        match places.next() {
            None => self.remove(place),
            Some(_) => None,
        }
    }

    /// The oldest, if it has waited longer than that.
    pub(super) fn pop_expired(&mut self, now: EventTime, wait: Duration) -> Option<Asked> {
        let expired = self.queue.front()?.last.after(wait) < now;
        if expired { self.remove(0) } else { None }
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Asked> {
        self.remove(0)
    }

    /// A reply may have been missed.
    pub(super) fn doubt(&mut self, why: Anomalies) {
        self.queue.iter_mut().for_each(|asked| asked.missed |= why);
    }

    fn remove(&mut self, place: usize) -> Option<Asked> {
        let asked = self.queue.remove(place)?;
        self.held_bytes -= asked.held_bytes();
        if self.queue.is_empty() && self.queue.capacity() > 16 {
            // A burst once had should not be paid for ever.
            self.queue = VecDeque::new();
        }
        Some(asked)
    }
}

impl Asked {
    fn held_bytes(&self) -> usize {
        let awaited = match &self.awaited {
            Awaited::NoName => 0,
            Awaited::Name { name, channels } => name.len() + 8 * channels.len(),
        };
        self.method.len()
            + self.symbol.as_ref().map_or(0, |symbol| symbol.len())
            + self.object_ids.iter().map(|id| id.len() + 24).sum::<usize>()
            + self.ids.len() * size_of::<Id>()
            + awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        let each = Said::each(text.as_bytes());
        Asked {
            time: EventTime(0),
            last: EventTime(0),
            method: text.into(),
            op: Operation::Public,
            key: None,
            token: None,
            style: Style::GENERIC,
            before: None,
            detail: None,
            symbol: None,
            object_ids: Vec::new(),
            body_bytes: 0,
            anomalies: Anomalies::empty(),
            complete: true,
            missed: Anomalies::empty(),
            ids: each.iter().filter_map(Said::id).collect(),
            awaited: Awaited::of(&each[0]),
        }
    }

    /// Which of the messages a reply answers.
    fn check(messages: &[&str], reply: &str, expected: Option<usize>) {
        let mut waiting = Waiting::default();
        messages.iter().for_each(|text| waiting.push(asked(text)));
        let found = waiting.answered_by(&Said::each(reply.as_bytes()));
        let found = found.map(|it| messages.iter().position(|text| it.method == *text).unwrap());
        assert_eq!(found, expected, "{reply}");
        let left = messages.len() - usize::from(found.is_some());
        assert_eq!(waiting.len(), left);
        while waiting.pop().is_some() {}
        assert_eq!(waiting.held_bytes, 0);
    }

    #[test]
    fn ids_tell() {
        let two = [r#"{"id":1,"method":"a"}"#, r#"{"id":"1","method":"b"}"#];
        check(&two, r#"{"id":1,"result":null}"#, Some(0));
        check(&two, r#"{"result":[{"id":2}],"id":"1"}"#, Some(1));
        check(&two, r#"{"id":2,"result":null}"#, None);
        check(
            &[r#"[{"id":1,"method":"a"},{"id":2,"method":"b"}]"#],
            r#"[{"id":2},{"id":1}]"#,
            Some(0),
        );
        check(
            &[r#"{"method":"subscribe","req_id":7}"#],
            r#"{"method":"subscribe","success":true,"req_id":7}"#,
            Some(0),
        );
    }

    #[test]
    fn names_tell_where_only_one_fits() {
        let okx = [
            r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"A"}]}"#,
            r#"{"op":"subscribe","args":[{"channel":"books","instId":"A"}]}"#,
        ];
        check(&okx, r#"{"event":"subscribe","arg":{"channel":"books","instId":"A"}}"#, Some(1));
        check(&okx, r#"{"event":"subscribe","arg":{"channel":"trades"}}"#, None);
        check(&okx, r#"{"event":"error","code":"60012","msg":"x"}"#, None);
        check(&okx[..1], r#"{"event":"error","code":"60012","msg":"x"}"#, Some(0));
        check(&okx, r#"{"arg":{"channel":"books"},"data":[{}]}"#, None);
        let bybit = [r#"{"op":"subscribe","args":["orderbook.1.BTCUSDT"]}"#, r#"{"op":"ping"}"#];
        check(&bybit, r#"{"success":true,"op":"subscribe","req_id":""}"#, Some(0));
        check(&bybit, r#"{"success":true,"ret_msg":"pong","op":"ping"}"#, Some(1));
        let coinbase = [r#"{"type":"subscribe","channels":["ticker"]}"#];
        check(&coinbase, r#"{"type":"subscriptions","channels":[{"name":"ticker"}]}"#, Some(0));
        check(&coinbase, r#"{"type":"ticker","product_id":"A"}"#, None);
        check(&["ping"], "pong", Some(0));
        check(&[r#"[0,"on",null,{"cid":1}]"#], r#"[0,"n",[1,"on-req",null]]"#, Some(0));
        check(
            &[r#"{"event":"unsubscribe","channel":"a"}"#],
            r#"{"event":"subscribed","channel":"a"}"#,
            None,
        );
        check(&[r#"{"type":"message","text":"hi"}"#], r#"{"type":"message","text":"ho"}"#, None);
    }
}
