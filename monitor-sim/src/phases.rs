//! What an attacker does for a while.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

use compact_str::format_compact;
use monitor_core::call::{ApiCall, KeyId, Operation, Outcome, Token};
use monitor_core::time::EventTime;

use crate::client::Client;
use crate::draft::{Ask, Face, LIMIT, Style, call, flow, key};
use crate::fleet::Fleet;
use crate::names::{Endpoint, THIEF_PROGRAMS};
use crate::random::Random;
use crate::{MINUTE, SECOND};

/// Whose name is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Who {
    /// A customer's.
    Client(usize),
    /// One that does not belong to a client of the world: made up, or made during the attack.
    Other(KeyId),
    /// None at all.
    Nobody,
}

/// Where it is done from.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// Where the owner is: a program on their machine, or the owner.
    Own,
    /// The first for the first name, and so on, and round again.
    Others(Vec<Ipv4Addr>),
}

/// What is wrong with the token that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unsigned,
    Expired,
    OtherAudience,
}

/// Objects that are named.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Objects {
    /// As the client's own.
    Own,
    /// From this one on, in order.
    InOrder(u64),
}

#[derive(Clone)]
pub(crate) struct Phase {
    pub(crate) who: Vec<Who>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// For each name.
    pub(crate) per_minute: f64,
    /// Calls of each name at most.
    pub(crate) most: u32,
    pub(crate) mix: Vec<(Endpoint, f64)>,
    pub(crate) from: From,
    pub(crate) program: u8,
    pub(crate) symbol: Option<u16>,
    pub(crate) outcomes: Vec<(Outcome, f64)>,
    pub(crate) objects: Objects,
    pub(crate) size: f64,
    pub(crate) account: Option<u64>,
    pub(crate) fault: Option<Fault>,
    /// What the owner sent is sent again.
    pub(crate) replayed: bool,
    /// The owner's calls, the latest last.
    pub(crate) heard: Vec<ApiCall>,
    pub(crate) done: Vec<u32>,
    pub(crate) faces: Vec<Option<Face>>,
    pub(crate) number: u64,
}

impl Phase {
    /// One call of each name at `start`, within a minute; the rest is to be set.
    pub(crate) fn new(who: Vec<Who>, start: u64) -> Phase {
        let names = who.len();
        Phase {
            who,
            start,
            end: start + MINUTE,
            per_minute: 1.0,
            most: u32::MAX,
            mix: vec![(Endpoint::Account, 1.0)],
            from: From::Own,
            program: 0,
            symbol: None,
            outcomes: vec![(Outcome::Ok, 1.0)],
            objects: Objects::Own,
            size: 1.0,
            account: None,
            fault: None,
            replayed: false,
            heard: Vec::new(),
            done: vec![0; names],
            faces: vec![None; names],
            number: start,
        }
    }

    pub(crate) fn minute(
        &mut self,
        now: u64,
        clients: &mut [Client],
        fleet: &Fleet,
        random: &mut Random,
        out: &mut Vec<ApiCall>,
    ) {
        if now + MINUTE <= self.start || now >= self.end {
            return;
        }
        let (from, to) = (now.max(self.start), (now + MINUTE).min(self.end));
        if self.replayed {
            self.replay(from..to, clients, fleet, random, out);
            return;
        }
        let share = (to - from) as f64 / MINUTE as f64;
        for at in 0..self.who.len() {
            let left = self.most.saturating_sub(self.done[at]);
            let mut count = random.poisson(self.per_minute * share).min(u64::from(left));
            // Those of whom a few calls are wanted make them in the end.
            if to == self.end && self.done[at] == 0 && self.most != u32::MAX && count == 0 {
                count = 1;
            }
            if count == 0 {
                continue;
            }
            self.done[at] += count as u32;
            let face = self.face(at, now, clients, fleet, random);
            for n in 0..count.min(u64::from(2 * LIMIT)) {
                let mut ask = Ask::new(from + random.below(to - from), random.weighted(&self.mix));
                if let Endpoint::Probe(_) = ask.endpoint {
                    ask.endpoint = Endpoint::Probe(random.below(256) as u8);
                }
                let own = match self.who[at] {
                    Who::Client(client) => Some(&mut clients[client]),
                    Who::Other(_) | Who::Nobody => None,
                };
                ask.symbol = self.symbol.unwrap_or_else(|| match &own {
                    Some(client) => random.one(&client.symbols),
                    None => random.below(40) as u16,
                });
                ask.object = Some(match (&mut self.objects, own) {
                    (Objects::InOrder(next), _) => {
                        *next += 1;
                        *next
                    }
                    (Objects::Own, Some(client)) => client.order(random),
                    (Objects::Own, None) => random.below(1 << 33),
                });
                ask.outcome = random.weighted(&self.outcomes);
                ask.size = self.size;
                ask.account = self.account;
                ask.used = n as u32 + 1;
                ask.skew_ns = -((random.unit() * 0.2e9) as i64);
                out.push(call(&face, &ask, random));
            }
        }
    }

    /// Calls of the owner are listened to, an order at least, and sent again.
    fn replay(
        &mut self,
        span: Range<u64>,
        clients: &mut [Client],
        fleet: &Fleet,
        random: &mut Random,
        out: &mut Vec<ApiCall>,
    ) {
        let Some(Who::Client(client)) = self.who.first().copied() else { return };
        let (id, now) = (clients[client].id, span.start);
        let is_theirs =
            |call: &&ApiCall| call.key.as_ref().is_some_and(|key| key.id == id) && changes(call);
        self.heard.extend(out.iter().filter(is_theirs).cloned());
        if self.heard.is_empty() {
            let face = clients[client].own_face(now, fleet, random);
            let mut ask = Ask::new(now, Endpoint::Place);
            ask.symbol = random.one(&clients[client].symbols);
            self.heard.push(call(&face, &ask, random));
            out.extend(self.heard.last().cloned());
        }
        self.heard.drain(..self.heard.len().saturating_sub(HEARD_MAX));
        let face = self.face(0, now, clients, fleet, random);
        let share = (span.end - span.start) as f64 / MINUTE as f64;
        for _ in 0..random.poisson(self.per_minute * share) {
            let first = &self.heard[random.below(self.heard.len() as u64) as usize];
            let time = EventTime(span.start + random.below(span.end - span.start));
            if time <= first.time {
                continue;
            }
            let mut again = first.clone();
            let outcome = random.weighted(&self.outcomes);
            (again.time, again.outcome) = (time, Some(outcome));
            again.flow = face.flow.clone();
            if let Some(request) = &mut again.request {
                request.user_agent = Some(face.agent.clone());
            }
            if let Some(response) = &mut again.response {
                response.status = Some(if outcome == Outcome::Ok { 200 } else { 400 });
            }
            out.push(again);
        }
    }

    fn face(
        &mut self,
        at: usize,
        now: u64,
        clients: &mut [Client],
        fleet: &Fleet,
        random: &mut Random,
    ) -> Face {
        if let From::Own = self.from
            && let Who::Client(client) = self.who[at]
        {
            let mut face = clients[client].own_face(now, fleet, random);
            face.token = self.token(clients[client].token(), now);
            return face;
        }
        if let Some(face) = &self.faces[at] {
            return face.clone();
        }
        let ip = match &self.from {
            From::Others(ips) => ips[at % ips.len()],
            From::Own => Ipv4Addr::new(100, 64, 0, 1),
        };
        let (program, ja4) = THIEF_PROGRAMS[usize::from(self.program) % THIEF_PROGRAMS.len()];
        let (name, token) = match self.who[at] {
            Who::Client(client) => {
                let client = &clients[client];
                (Some(key(client.id, client.style)), client.token())
            }
            Who::Other(id) => (Some(key(id, Style::ApiKey)), None),
            Who::Nobody => (None, None),
        };
        let face = Face {
            key: name,
            flow: flow(ip, ja4, self.number + at as u64),
            agent: format_compact!("{program}{}", 20 + self.number % 9),
            token: self.token(token, now),
        };
        self.faces[at] = Some(face.clone());
        face
    }

    fn token(&self, token: Option<Arc<Token>>, now: u64) -> Option<Arc<Token>> {
        let Some(fault) = self.fault else { return token };
        let now_s = (now / SECOND) as i64;
        let mut token = token.map(|token| Token::clone(&token)).unwrap_or_default();
        match fault {
            Fault::Unsigned => token.algorithm = Some("none".into()),
            Fault::Expired => token.expires = Some(now_s - 86_400),
            Fault::OtherAudience => token.audience = vec!["partner-portal".into()],
        }
        Some(Arc::new(token))
    }
}

/// Calls that an eavesdropper keeps to choose from.
const HEARD_MAX: usize = 8;

/// Worth sending again.
fn changes(call: &ApiCall) -> bool {
    matches!(call.op, Operation::Trade | Operation::Cancel | Operation::Transfer)
}
