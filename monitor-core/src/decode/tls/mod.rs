//! TLS (RFC 8446, RFC 5246 and before) as seen from beside the wire: what the handshake says in the
//! clear, and what the secrets of a key log open.
//!
//! A secret must be there before the first record that needs it, or soon after: a few records wait for it,
//! until it is there when the connection goes on. Without secrets the wire is of no interest once the
//! handshake is over; plaintext that a library passed on may take its place (`plain`).

mod certificate;
mod cursor;
mod hello;
mod ja4;
mod messages;
mod opener;
mod plain;
mod protection;
mod record;
mod schedule;
mod secrets;
mod suite;
mod version;
mod waiting;

use compact_str::ToCompactString;

use self::hello::{ClientHello, ServerHello};
use self::messages::{Message, Messages};
use self::protection::{Agreed, Epoch, Offered, Opened, Protection, Session};
use self::record::{HEADER_BYTES, Kind, Read, Record, Records};
pub(super) use self::secrets::Secrets;
use self::version::Version;
use self::waiting::Waiting;
use super::context::Context;
use super::conversation::Conversation;
use super::sniff::Sniff;
use crate::call::Anomalies;
use crate::connection::{self, Decrypted, Sealed, Tls};
use crate::input::Direction;
use crate::time::EventTime;

/// Both directions of a connection.
#[derive(Default)]
pub(in crate::decode) struct Connection {
    sides: [Side; 2],
    session: Session,
    early: Early,
    /// The server asked for another hello.
    retried: bool,
    /// What is spoken inside, from the first bytes of it on.
    inner: Option<Conversation>,
    /// Plaintext comes from elsewhere: the records are not looked into any more.
    given: Option<Box<plain::Given>>,
    summary: Box<Tls>,
    /// Records that were opened, and were not.
    opened: u64,
    unopened: u64,
}

/// One direction.
#[derive(Default)]
struct Side {
    records: Records,
    messages: Messages,
    state: State,
    /// Plaintext bytes that the conversation inside was told to be missing, ahead of the count.
    told: u64,
    /// Records whose secret may still come.
    waiting: Waiting,
}

#[derive(Default)]
enum State {
    #[default]
    Clear,
    Encrypted(Box<Protection>),
    /// Nothing more can be read.
    Opaque,
    /// The sender said that nothing follows.
    Ended,
}

/// Data that the client sent with its hello (RFC 8446, 2.3).
#[derive(Default)]
enum Early {
    /// The client offers none, or it was dealt with.
    #[default]
    None,
    /// Until the server takes it.
    Waiting(Vec<(EventTime, Vec<u8>)>),
    /// The server took it.
    Taken,
    /// The server did not: it comes again.
    Refused,
}

/// A warning that the sender sends nothing more (RFC 8446, 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Expanded keys of a direction, about: AES-256 with its tables for GCM.
const KEYS_BYTES: usize = 1024;

impl Side {
    fn is_over(&self) -> bool {
        match self.state {
            State::Clear | State::Encrypted(_) => false,
            State::Opaque | State::Ended => true,
        }
    }
}

impl Connection {
    /// The next bytes of a direction.
    pub(in crate::decode) fn data(
        &mut self,
        direction: Direction,
        time: EventTime,
        mut chunk: &[u8],
        cx: &mut Context<'_>,
    ) {
        self.wake(cx);
        loop {
            let ssl2 = direction == Direction::ToServer && self.session.client.is_none();
            let side = &mut self.sides[direction as usize];
            let ssl2 = ssl2 && matches!(side.state, State::Clear);
            if side.is_over() {
                return;
            }
            match side.records.read(time, &mut chunk, ssl2) {
                Read::More => return,
                Read::Record(record) => self.record(direction, time, record, cx),
                Read::Astray => {
                    cx.counters.tls_resyncs += 1;
                    match side.state {
                        // Nothing was lost: this is no TLS.
                        State::Clear => self.give_up_both(Sealed::DoesNotFit),
                        State::Encrypted(_) => {
                            self.summary.sealed.get_or_insert(Sealed::DoesNotFit);
                        }
                        State::Opaque | State::Ended => {}
                    }
                }
            }
        }
    }

    /// Bytes of a direction that are not there.
    pub(in crate::decode) fn gap(
        &mut self,
        direction: Direction,
        time: EventTime,
        bytes: u64,
        cx: &mut Context<'_>,
    ) {
        self.wake(cx);
        self.wait_no_more(direction, cx);
        let side = &mut self.sides[direction as usize];
        if side.is_over() {
            return;
        }
        let hole = side.records.gap(bytes);
        side.messages.clear();
        cx.counters.tls_resyncs += u64::from(hole.beyond > 0);
        let State::Encrypted(protection) = &mut side.state else { return };
        // Fewer bytes than a header are no content by themselves: what follows them, if it does, will
        // tell. The number that a FIN takes may look like this.
        let beyond = hole.beyond >= HEADER_BYTES as u64;
        if beyond || hole.body.is_some() {
            self.summary.sealed.get_or_insert(Sealed::Loss);
        }
        let mut missing_bytes = 0;
        if let Some((kind, body)) = hole.body {
            protection.miss();
            self.unopened += 1;
            cx.counters.tls_records_unopened += 1;
            if kind == Kind::ApplicationData && protection.epoch() == Some(Epoch::Application) {
                missing_bytes = protection.plaintext_bytes(body).unwrap_or(0) as u64;
            }
        }
        if beyond && protection.epoch() == Some(Epoch::Application) {
            // How many is known when the next record is found.
            missing_bytes += 1;
            side.told += 1;
        }
        self.lose(direction, time, missing_bytes, cx);
    }

    /// Adds to what is under way in a direction.
    pub(in crate::decode) fn note(&mut self, direction: Direction, what: Anomalies) {
        if let Some(inner) = &mut self.inner {
            inner.note(direction, what);
        }
    }

    /// The sender of a direction has ended it in good order.
    pub(in crate::decode) fn end(&mut self, direction: Direction, cx: &mut Context<'_>) {
        self.wake(cx);
        let side = &mut self.sides[direction as usize];
        if side.waiting.ends_behind() {
            return;
        }
        let ended = matches!(side.state, State::Ended);
        if let Some(inner) = &mut self.inner
            && !ended
        {
            inner.end(direction, cx);
        }
    }

    /// Nothing follows in either direction: gives out what is left.
    pub(in crate::decode) fn abort(&mut self, why: Anomalies, cx: &mut Context<'_>) {
        self.wake(cx);
        self.wait_no_more(Direction::ToServer, cx);
        self.wait_no_more(Direction::ToClient, cx);
        self.refuse_early(cx);
        self.close_eyes();
        if let Some(inner) = &mut self.inner {
            inner.abort(why, cx);
        }
    }

    /// Nothing more can be learnt from its bytes.
    pub(in crate::decode) fn is_over(&self) -> bool {
        self.sides.iter().all(Side::is_over)
            || self.inner.as_ref().is_some_and(Conversation::is_over)
    }

    /// What the wire shows is of no use any more.
    fn close_eyes(&mut self) {
        for side in &mut self.sides {
            *side = Side { state: State::Opaque, ..Side::default() };
        }
    }

    /// Says in the connection's record what was seen.
    pub(in crate::decode) fn describe(&self, record: &mut connection::Connection) {
        let mut summary = self.summary.clone();
        summary.decrypted = match (self.opened, self.unopened, summary.sealed) {
            (0, _, _) => Decrypted::No,
            (_, 0, None) => Decrypted::Yes,
            (_, _, _) => Decrypted::Partly,
        };
        record.tls = Some(summary);
        if let Some(inner) = &self.inner {
            inner.describe(record);
        }
    }

    /// Drops what the conversation inside can do without.
    pub(in crate::decode) fn shed(&mut self) -> bool {
        self.inner.as_mut().is_some_and(|inner| inner.shed())
    }

    /// Memory held besides the connection itself, bytes.
    pub(in crate::decode) fn held_bytes(&self) -> usize {
        let side = |side: &Side| {
            let state = match &side.state {
                State::Encrypted(_) => size_of::<Protection>() + KEYS_BYTES,
                State::Clear | State::Opaque | State::Ended => 0,
            };
            side.records.held_bytes()
                + side.messages.held_bytes()
                + side.waiting.held_bytes()
                + state
        };
        let early = match &self.early {
            Early::Waiting(chunks) => chunks.iter().map(|(_, bytes)| bytes.len()).sum(),
            Early::None | Early::Taken | Early::Refused => 0,
        };
        let inner = self.inner.as_ref().map_or(0, Conversation::held_bytes);
        size_of::<Tls>() + self.sides.iter().map(side).sum::<usize>() + early + inner
    }

    fn record(
        &mut self,
        direction: Direction,
        time: EventTime,
        record: Record,
        cx: &mut Context<'_>,
    ) {
        if record.kind == Kind::ApplicationData {
            self.engage(direction, cx);
        }
        let side = &mut self.sides[direction as usize];
        match &side.state {
            State::Encrypted(protection) if protection.covers(&record) => {
                if side.waiting.is_empty() {
                    self.open(direction, time, record, true, cx);
                } else {
                    self.wait(direction, time, record, cx);
                }
            }
            State::Clear | State::Encrypted(_) => {
                side.records.confirm();
                let content = record.bytes.get(HEADER_BYTES..).unwrap_or_default();
                match record.kind {
                    Kind::Handshake => self.messages(direction, content, cx),
                    Kind::ChangeCipherSpec => self.change_cipher(direction, cx),
                    Kind::Ssl2 => match ClientHello::parse_v2(&record.bytes) {
                        Some(hello) => self.client_hello(&hello, cx),
                        None => self.give_up(direction, Sealed::DoesNotFit),
                    },
                    Kind::Alert | Kind::ApplicationData | Kind::Other => {}
                }
            }
            State::Opaque | State::Ended => {}
        }
    }

    /// Application data stands in the clear nowhere: what announced the encryption was missed, or early
    /// data begins.
    fn engage(&mut self, direction: Direction, cx: &mut Context<'_>) {
        if !matches!(self.sides[direction as usize].state, State::Clear) {
            return;
        }
        let early = self.session.client.as_ref().is_some_and(|client| client.early.is_some());
        if self.session.server.is_none() && !(early && direction == Direction::ToServer) {
            return self.give_up_both(Sealed::NoHandshake);
        }
        self.encrypt(direction, true, cx);
    }

    /// From here on a direction is encrypted.
    fn encrypt(&mut self, direction: Direction, late: bool, cx: &mut Context<'_>) {
        let version = self.session.server.as_ref().map(|server| server.version);
        if !cx.secrets.are_expected() {
            return match version {
                Some(_) => self.give_up_both(Sealed::NoKeys),
                // The server's hello is yet to be read.
                None => self.give_up(direction, Sealed::NoKeys),
            };
        }
        let is_13 = version.is_none_or(Version::is_13);
        let early = self.session.client.as_ref().is_some_and(|client| client.early.is_some());
        let stage = match (is_13, direction) {
            (true, Direction::ToServer) if early => Epoch::Early,
            (true, _) => Epoch::Handshake,
            (false, _) => Epoch::Application,
        };
        let late = late && !is_13;
        let protection = Protection::new(direction, is_13, stage, late, cx.limits);
        self.sides[direction as usize].state = State::Encrypted(Box::new(protection));
    }

    /// TLS 1.2 and before: what follows is encrypted with new keys. TLS 1.3 only says so to pass
    /// middleboxes (RFC 8446, D.4).
    fn change_cipher(&mut self, direction: Direction, cx: &mut Context<'_>) {
        match &self.session.server {
            Some(server) if server.version.is_13() => {}
            Some(_) => self.encrypt(direction, false, cx),
            None => {
                let before = self.summary.version.is_none() && self.session.client.is_some();
                if !before || direction == Direction::ToClient && !self.retried {
                    self.give_up_both(Sealed::NoHandshake);
                }
            }
        }
    }

    /// `may_wait`: a secret that is not there yet may come.
    fn open(
        &mut self,
        direction: Direction,
        time: EventTime,
        record: Record,
        may_wait: bool,
        cx: &mut Context<'_>,
    ) {
        let side = &mut self.sides[direction as usize];
        let State::Encrypted(protection) = &mut side.state else { return };
        let passed_bytes = side.records.passed_bytes();
        let mut plain = Vec::new();
        let opened = protection.open(&record, passed_bytes, &self.session, cx.secrets, &mut plain);
        let Some(opened) = opened else {
            let awaits = may_wait && protection.awaits(&self.session, cx.secrets);
            if awaits && !record.uncertain {
                return self.wait(direction, time, record, cx);
            }
            protection.pass_over(&record);
            return self.unopened(direction, time, record, cx);
        };
        side.records.confirm();
        self.opened += 1;
        cx.counters.tls_records_opened += 1;
        let told = std::mem::take(&mut side.told);
        if opened.missed > 0 {
            self.summary.sealed.get_or_insert(Sealed::Loss);
        }
        if opened.epoch == Epoch::Application {
            let missed_bytes = missed_bytes(passed_bytes, opened).saturating_sub(told);
            self.lose(direction, time, missed_bytes, cx);
        }
        let kind = if opened.tls13 { content_kind(&mut plain) } else { record.kind };
        match kind {
            Kind::ApplicationData if opened.epoch == Epoch::Early => {
                self.early_data(time, plain, cx)
            }
            Kind::ApplicationData => self.plaintext(direction, record.first, time, &plain, cx),
            Kind::Handshake => self.messages(direction, &plain, cx),
            Kind::ChangeCipherSpec => self.change_cipher(direction, cx),
            // Until draft 20 an alert ended early data.
            Kind::Alert if opened.epoch == Epoch::Early && plain.get(1) == Some(&1) => {
                self.take_early(true, cx);
                self.advance(direction, Epoch::Handshake);
            }
            Kind::Alert if plain == CLOSE_NOTIFY => {
                self.sides[direction as usize] = Side { state: State::Ended, ..Side::default() };
                if let Some(inner) = &mut self.inner {
                    inner.end(direction, cx);
                }
            }
            Kind::Alert | Kind::Other | Kind::Ssl2 => {}
        }
    }

    /// No key opens a record.
    fn unopened(
        &mut self,
        direction: Direction,
        time: EventTime,
        record: Record,
        cx: &mut Context<'_>,
    ) {
        let side = &mut self.sides[direction as usize];
        let State::Encrypted(protection) = &mut side.state else { return };
        let has_keys = protection.has_keys();
        if protection.is_hopeless(cx.limits) {
            cx.counters.tls_given_up += 1;
            let why = if has_keys { Sealed::DoesNotFit } else { Sealed::NoKeys };
            self.give_up(direction, why);
            return;
        }
        if record.uncertain {
            return side.records.reject(record);
        }
        let in_use = protection.epoch() == Some(Epoch::Application);
        let body = record.bytes.len().saturating_sub(HEADER_BYTES);
        let plaintext_bytes = protection.plaintext_bytes(body).unwrap_or(0) as u64;
        side.records.confirm();
        side.messages.clear();
        self.unopened += 1;
        cx.counters.tls_records_unopened += u64::from(has_keys);
        let why = if has_keys { Sealed::DoesNotFit } else { Sealed::NoKeys };
        self.summary.sealed.get_or_insert(why);
        if in_use && record.kind == Kind::ApplicationData {
            self.note(direction, Anomalies::TLS_UNOPENED);
            self.lose(direction, time, plaintext_bytes, cx);
        }
    }

    fn messages(&mut self, direction: Direction, mut content: &[u8], cx: &mut Context<'_>) {
        loop {
            let messages = &mut self.sides[direction as usize].messages;
            let bytes_max = cx.limits.tls_message_bytes_max;
            let Some((kind, body)) = messages.read(&mut content, bytes_max, cx.counters) else {
                return;
            };
            self.message(direction, kind, &body, cx);
        }
    }

    fn message(&mut self, direction: Direction, kind: Message, body: &[u8], cx: &mut Context<'_>) {
        let is_13 = self.session.server.as_ref().is_some_and(|server| server.version.is_13());
        match (kind, direction) {
            (Message::ClientHello, Direction::ToServer) => {
                if let Some(hello) = ClientHello::parse(body) {
                    self.client_hello(&hello, cx);
                }
            }
            (Message::ServerHello, Direction::ToClient) => {
                if let Some(hello) = ServerHello::parse(body) {
                    self.server_hello(&hello, cx);
                }
            }
            (Message::HelloRetryRequest, Direction::ToClient) => self.refuse_early(cx),
            (Message::EncryptedExtensions, Direction::ToClient) if is_13 => {
                let (protocol, early) = hello::encrypted_extensions(body);
                self.summary.alpn = protocol;
                self.take_early(early, cx);
            }
            (Message::Certificate, _) => {
                let known = match direction {
                    Direction::ToServer => &mut self.summary.client_certificate,
                    Direction::ToClient => &mut self.summary.certificate,
                };
                if known.is_none() {
                    *known = certificate::leaf(body, is_13);
                    if direction == Direction::ToServer
                        && let Some(certificate) = known
                    {
                        let key = cx.identifier.certificate_key(certificate);
                        cx.ends.certificate = key.map(Box::new);
                    }
                }
            }
            (Message::EndOfEarlyData, Direction::ToServer) => {
                self.take_early(true, cx);
                self.advance(direction, Epoch::Handshake);
            }
            (Message::Finished, _) if is_13 => self.advance(direction, Epoch::Application),
            (Message::KeyUpdate, _) if is_13 => {
                if let State::Encrypted(protection) = &mut self.sides[direction as usize].state {
                    protection.update();
                }
            }
            _ => {}
        }
    }

    fn client_hello(&mut self, hello: &ClientHello, cx: &mut Context<'_>) {
        if self.session.client.is_none() {
            let ja4 = ja4::ja4(hello);
            self.summary.server_name = hello.server_name.clone();
            self.summary.ja3 = Some(ja4::ja3(hello));
            self.summary.ja4 = Some(ja4.clone());
            self.summary.encrypted_hello = hello.encrypted;
            cx.ends.secure(hello.server_name.clone(), Some(ja4));
            if hello.version == Version::SSL2 {
                self.summary.version = Some(hello.version.to_compact_string());
                return self.give_up_both(Sealed::Version);
            }
        }
        let refused = matches!(self.early, Early::Refused);
        let early = (hello.has_early_data() && !refused).then(|| {
            let versions = hello.versions.iter().copied().map(Version);
            let version = versions.filter(|version| version.is_13()).max();
            (version.unwrap_or(Version::TLS13), hello.suites.clone())
        });
        if early.is_some() && matches!(self.early, Early::None) {
            self.early = Early::Waiting(Vec::new());
        }
        self.session.client = Some(Offered { random: hello.random, early });
    }

    fn server_hello(&mut self, hello: &ServerHello, cx: &mut Context<'_>) {
        if hello.is_retry() {
            self.retried = true;
            return self.refuse_early(cx);
        }
        let is_13 = hello.version.is_13();
        if self.summary.version.is_none() {
            self.summary.version = Some(hello.version.to_compact_string());
            self.summary.cipher = Some(suite::name(hello.suite));
            self.summary.alpn = hello.alpn.clone();
        }
        let suite = suite::find(hello.suite).filter(|suite| suite.tls13 == is_13);
        let known = (Version::TLS10..=Version::TLS12).contains(&hello.version) || is_13;
        let why = match suite {
            _ if hello.compressed => Sealed::Compression,
            _ if !known => Sealed::Version,
            _ if self.session.client.is_none() => Sealed::NoHandshake,
            None => Sealed::Cipher,
            Some(suite) => {
                self.session.server = Some(Agreed {
                    random: hello.random,
                    version: hello.version,
                    suite,
                    encrypt_then_mac: hello.encrypt_then_mac,
                });
                if is_13 {
                    self.encrypt_both(cx);
                }
                return;
            }
        };
        self.summary.sealed.get_or_insert(why);
        if is_13 {
            self.give_up_both(why);
        }
    }

    /// TLS 1.3 after the server's hello.
    fn encrypt_both(&mut self, cx: &mut Context<'_>) {
        for direction in [Direction::ToClient, Direction::ToServer] {
            if matches!(self.sides[direction as usize].state, State::Clear) {
                self.encrypt(direction, false, cx);
            }
        }
    }

    fn advance(&mut self, direction: Direction, stage: Epoch) {
        if let State::Encrypted(protection) = &mut self.sides[direction as usize].state {
            protection.advance(stage);
        }
    }

    fn early_data(&mut self, time: EventTime, bytes: Vec<u8>, cx: &mut Context<'_>) {
        match &mut self.early {
            Early::Waiting(chunks) => {
                let held = chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                if held + bytes.len() > cx.limits.tls_early_bytes_max {
                    cx.counters.tls_early_bytes_dropped += bytes.len() as u64;
                    return;
                }
                chunks.push((time, bytes));
            }
            Early::Taken => {
                self.inner();
                self.note(Direction::ToServer, Anomalies::EARLY_DATA);
                self.plaintext(Direction::ToServer, time, time, &bytes, cx);
            }
            Early::None | Early::Refused => {
                cx.counters.tls_early_bytes_dropped += bytes.len() as u64;
            }
        }
    }

    /// The server says whether it takes early data.
    fn take_early(&mut self, taken: bool, cx: &mut Context<'_>) {
        if !taken {
            return self.refuse_early(cx);
        }
        let Early::Waiting(chunks) = &mut self.early else { return };
        let chunks = std::mem::take(chunks);
        self.early = Early::Taken;
        for (time, bytes) in chunks {
            self.early_data(time, bytes, cx);
        }
    }

    fn refuse_early(&mut self, cx: &mut Context<'_>) {
        if let Early::Waiting(chunks) = &self.early {
            let bytes = chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            cx.counters.tls_early_bytes_dropped += bytes;
            self.early = Early::Refused;
        }
    }

    /// What was sealed. It counts as come when its record was whole, its first byte when that of the
    /// record came.
    fn plaintext(
        &mut self,
        direction: Direction,
        first: EventTime,
        last: EventTime,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) {
        if bytes.is_empty() {
            return;
        }
        cx.tap(direction, bytes);
        let inner = self.inner();
        let (start, rest) = bytes.split_at(usize::from(first != last));
        if !start.is_empty() {
            inner.data(direction, first, start, cx);
        }
        if !rest.is_empty() {
            inner.data(direction, last, rest, cx);
        }
    }

    /// Plaintext is missing.
    fn lose(&mut self, direction: Direction, time: EventTime, bytes: u64, cx: &mut Context<'_>) {
        if bytes > 0 {
            self.inner().gap(direction, time, bytes, cx);
        }
    }

    /// What is spoken inside: not known before its first bytes.
    fn inner(&mut self) -> &mut Conversation {
        self.inner.get_or_insert_with(|| Conversation::Unknown(Sniff::default()))
    }

    fn give_up(&mut self, direction: Direction, why: Sealed) {
        self.summary.sealed.get_or_insert(why);
        self.sides[direction as usize] = Side { state: State::Opaque, ..Side::default() };
    }

    fn give_up_both(&mut self, why: Sealed) {
        self.give_up(Direction::ToServer, why);
        self.give_up(Direction::ToClient, why);
    }
}

/// Takes kind and padding off the end of a plaintext of TLS 1.3 (RFC 8446, 5.4).
fn content_kind(plain: &mut Vec<u8>) -> Kind {
    let end = plain.iter().rposition(|byte| *byte != 0);
    let kind = end.map_or(Kind::Other, |end| Kind::of(plain[end]));
    plain.truncate(end.unwrap_or(0));
    kind
}

/// Plaintext in records that were not opened before this one and are not accounted for yet.
fn missed_bytes(passed_bytes: u64, opened: Opened) -> u64 {
    let around = (HEADER_BYTES + opened.overhead_bytes) as u64;
    let missed = match opened.missed {
        0 => 0,
        records => passed_bytes.saturating_sub(records.saturating_mul(around)),
    };
    missed + opened.untold_bytes
}
