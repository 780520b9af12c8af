//! What comes before TLS inside another protocol: greetings, capabilities, and the command that asks
//! for it (STARTTLS of RFC 3207, AUTH TLS of RFC 4217, the SSLRequest of databases, the negotiation of
//! RDP). None of them is read: TLS begins where the client sends a hello and the server another.
//!
//! Both are looked for at every place, because some clients send theirs behind the command without
//! waiting. A hello that the server answers with something else is content.

use memchr::memchr;

use super::early::Early;
use crate::input::Direction;
use crate::limits::Limits;
use crate::time::EventTime;

/// A record's header, that of a message, and the version in it (RFC 8446, 4, 4.1.2 and 5.1).
const START_BYTES: usize = 5 + 4 + 2;
/// The first byte of a handshake record.
const HANDSHAKE: u8 = 0x16;

/// The first bytes of both sides, as long as TLS may follow.
#[derive(Default)]
pub(super) struct Preamble {
    /// Bytes of each direction so far, captured or not.
    bytes: [u64; 2],
    /// What the direction that is looked at may begin with.
    start: Start,
    /// From the client's hello on.
    hello: Option<Early>,
    is_vain: bool,
}

/// The beginning of a hello, as far as it came.
#[derive(Default)]
struct Start {
    bytes: [u8; START_BYTES],
    count: usize,
    /// When the first of them came.
    time: EventTime,
}

/// Whose hello.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hello {
    Client,
    Server,
}

/// What more bytes show.
pub(super) enum Verdict<'c> {
    /// TLS may follow.
    Open,
    /// Nothing of the kind.
    Vain,
    /// TLS begins.
    Tls(Box<Beginning<'c>>),
}

/// The beginning of TLS.
pub(super) struct Beginning<'c> {
    /// All from the client since its hello.
    pub(super) hello: Early,
    /// When the first byte of the server's hello came.
    pub(super) time: EventTime,
    /// The first bytes of it.
    pub(super) reply: [u8; START_BYTES],
    /// What follows them in the chunk.
    pub(super) rest: &'c [u8],
}

impl Preamble {
    /// The next bytes of a direction.
    pub(super) fn data<'c>(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &'c [u8],
        limits: &Limits,
    ) -> Verdict<'c> {
        let left = self.pass(direction, chunk.len() as u64, limits);
        let within = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(chunk.len()))];
        let found = match (direction, &mut self.hello) {
            _ if self.is_vain => return Verdict::Vain,
            (Direction::ToServer, Some(hello)) => {
                hello.add(time, chunk);
                None
            }
            (Direction::ToServer, hello @ None) => {
                if let Some(used) = self.start.find(Hello::Client, time, within) {
                    let Start { bytes, time: first, .. } = std::mem::take(&mut self.start);
                    let hello = hello.insert(Early::default());
                    hello.add(first, &bytes);
                    hello.add(time, &chunk[used..]);
                }
                None
            }
            (Direction::ToClient, None) => None,
            (Direction::ToClient, Some(_)) => self.start.find(Hello::Server, time, within),
        };
        if let Some(used) = found {
            let hello = self.hello.take().unwrap_or_default();
            let Start { bytes: reply, time, .. } = std::mem::take(&mut self.start);
            return Verdict::Tls(Box::new(Beginning { hello, time, reply, rest: &chunk[used..] }));
        }
        if self.is_over(direction, chunk.len() as u64 > left, limits) {
            return Verdict::Vain;
        }
        Verdict::Open
    }

    /// Bytes of a direction that are not there; whether nothing can follow any more.
    pub(super) fn gap(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        limits: &Limits,
    ) -> bool {
        let left = self.pass(direction, bytes, limits);
        match (direction, &mut self.hello) {
            (Direction::ToServer, Some(hello)) => hello.gap(time, bytes),
            (Direction::ToServer, None) | (Direction::ToClient, Some(_)) => {
                self.start = Start::default();
            }
            (Direction::ToClient, None) => {}
        }
        self.is_over(direction, bytes > left, limits)
    }

    /// Memory held besides itself, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.hello.as_ref().map_or(0, Early::held_bytes)
    }

    /// Counts bytes of a direction; gives how many of them are looked at.
    fn pass(&mut self, direction: Direction, bytes: u64, limits: &Limits) -> u64 {
        let so_far = &mut self.bytes[direction as usize];
        let left = (limits.preamble_bytes_max as u64).saturating_sub(*so_far);
        *so_far = so_far.saturating_add(bytes);
        left
    }

    /// Whether nothing can follow any more: a side, of which there was `more` than is looked at, has
    /// said no hello, or the client too much after its own.
    fn is_over(&mut self, direction: Direction, more: bool, limits: &Limits) -> bool {
        self.is_vain |= match (direction, &self.hello) {
            (Direction::ToServer, Some(hello)) => hello.is_full(limits.early_bytes_max),
            (Direction::ToServer, None) | (Direction::ToClient, _) => more,
        };
        if self.is_vain {
            self.hello = None;
        }
        self.is_vain
    }
}

impl Start {
    /// Looks for a hello; gives how much of the chunk it took once its beginning is whole.
    fn find(&mut self, whose: Hello, time: EventTime, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < chunk.len() {
            if self.count == 0 {
                at += memchr(HANDSHAKE, &chunk[at..])?;
                self.time = time;
            }
            self.bytes[self.count] = chunk[at];
            self.count += 1;
            at += 1;
            while !can_begin(whose, &self.bytes[..self.count]) {
                self.bytes.copy_within(1..self.count, 0);
                self.count -= 1;
                self.time = time;
            }
            if self.count == START_BYTES {
                return Some(at);
            }
        }
        None
    }
}

/// Whether bytes, as far as there are any, can begin a hello.
fn can_begin(whose: Hello, bytes: &[u8]) -> bool {
    let (kind, bytes_min) = match whose {
        // Version, random, session, suites, compression (RFC 8446, 4.1.2 and 4.1.3).
        Hello::Client => (1, 2 + 32 + 1 + 4 + 2),
        Hello::Server => (2, 2 + 32 + 1 + 2 + 1),
    };
    let number = |high: usize| {
        let low = bytes.get(high + 1)?;
        Some(u16::from_be_bytes([bytes[high], *low]))
    };
    let is = |at: usize, right: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|it| right(*it));
    let message = number(7);
    is(0, &|it| it == HANDSHAKE)
        && is(1, &|it| it == 3)
        && is(2, &|it| it <= 4)
        && number(3).is_none_or(|record| (4..=1 << 14).contains(&record))
        && is(5, &|it| it == kind)
        && is(6, &|it| it == 0)
        && message.is_none_or(|message| message >= bytes_min)
        && is(9, &|it| it == 3)
        && is(10, &|it| it <= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &[u8] = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03";
    const SERVER: &[u8] = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03";

    /// Where each of the client's and the server's hello begins, however the bytes are cut.
    fn begins(turns: &[(Direction, &[u8])], limits: &Limits) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut results = Vec::new();
        for step in [1, 2, 3, 5, 11, 64, usize::MAX] {
            let mut preamble = Preamble::default();
            let mut result: Option<(Vec<u8>, Vec<u8>)> = None;
            for (direction, chunk) in turns
                .iter()
                .flat_map(|(direction, bytes)| bytes.chunks(step).map(|chunk| (*direction, chunk)))
            {
                if let Some((_, reply)) = &mut result {
                    reply.extend_from_slice(chunk);
                } else if let Verdict::Tls(tls) =
                    preamble.data(direction, EventTime(1), chunk, limits)
                {
                    let hello = tls.hello.into_pieces().into_iter().flat_map(|it| it.bytes);
                    result = Some((hello.collect(), [&tls.reply[..], tls.rest].concat()));
                }
            }
            results.push(result);
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results.swap_remove(0)
    }

    #[test]
    fn hellos_are_found_wherever_they_begin() {
        let (to_server, to_client) = (Direction::ToServer, Direction::ToClient);
        let limits = Limits::default();
        let hello = [CLIENT, &[7; 30]].concat();
        let reply = [SERVER, &[8; 30]].concat();
        for before in [&b""[..], b"AUTH TLS\r\n", b"\x16", b"\x16\x03", b"\x16\x16\x03\x01\x00"] {
            let ask = [before, &hello].concat();
            let answer = [before, &reply].concat();
            let turns =
                [(to_client, &b"220 Ready\r\n"[..]), (to_server, &ask), (to_client, &answer)];
            assert_eq!(begins(&turns, &limits), Some((hello.clone(), reply.clone())), "{before:?}");
            // Without the other's hello it is content.
            assert_eq!(begins(&turns[..2], &limits), None);
            assert_eq!(begins(&[turns[1], turns[0], (to_client, &hello)], &limits), None);
            // The server does not begin.
            assert_eq!(begins(&[turns[2], turns[1]], &limits), None);
        }
    }

    #[test]
    fn what_is_no_hello_is_passed_over() {
        let broken = [(1, 2), (2, 5), (3, 0x41), (5, 2), (6, 1), (8, 40), (9, 2), (10, 9)];
        for (at, byte) in broken {
            let mut hello = CLIENT.to_vec();
            hello[at] = byte;
            let turns = [(Direction::ToServer, &hello[..]), (Direction::ToClient, SERVER)];
            assert_eq!(begins(&turns, &Limits::default()), None, "{byte} at {at}");
        }
    }

    #[test]
    fn neither_side_is_looked_at_without_end() {
        let limits = Limits { preamble_bytes_max: 100, early_bytes_max: 50, ..Limits::default() };
        let (to_server, to_client) = (Direction::ToServer, Direction::ToClient);
        for (before, found) in [(89, true), (90, false)] {
            let before = vec![b'x'; before];
            let late = [&before, CLIENT].concat();
            let turns = [(to_server, &late[..]), (to_client, SERVER)];
            assert_eq!(begins(&turns, &limits).is_some(), found);
            let late = [&before, SERVER].concat();
            let turns = [(to_server, CLIENT), (to_client, &late)];
            assert_eq!(begins(&turns, &limits).is_some(), found);
            assert_eq!(
                begins(&[(to_client, &before), turns[0], (to_client, SERVER)], &limits).is_some(),
                found
            );
        }
        for (early, found) in [(49, true), (50, false)] {
            let hello = [CLIENT, &vec![0; early - CLIENT.len()]].concat();
            assert_eq!(
                begins(&[(to_server, &hello), (to_client, SERVER)], &limits).is_some(),
                found
            );
        }
    }

    #[test]
    fn a_hello_does_not_go_across_a_hole() {
        let limits = Limits::default();
        let mut preamble = Preamble::default();
        let time = EventTime(1);
        preamble.data(Direction::ToServer, time, &CLIENT[..6], &limits);
        assert!(!preamble.gap(Direction::ToServer, time, 5, &limits));
        preamble.data(Direction::ToServer, time, &CLIENT[6..], &limits);
        assert!(preamble.hello.is_none());
        preamble.data(Direction::ToServer, time, CLIENT, &limits);
        assert!(!preamble.gap(Direction::ToServer, time, 5, &limits));
        assert!(preamble.hello.is_some() && preamble.held_bytes() > 0);
        assert!(preamble.gap(Direction::ToClient, time, 1 << 20, &limits));
    }
}
