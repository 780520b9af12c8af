//! Clients and their habits.

use std::net::Ipv4Addr;
use std::sync::Arc;

use compact_str::format_compact;
use monitor_core::call::{ApiCall, KeyId, Outcome, Token};
use serde::{Deserialize, Serialize};

use crate::draft::{Ask, Face, LIMIT, Style, call, flow, key};
use crate::fleet::Fleet;
use crate::ledger::{Ledger, any_account};
use crate::names::{APPS_FROM, Endpoint, ILLIQUID_FROM, PROGRAMS, SYMBOLS};
use crate::random::Random;
use crate::{DAY, HOUR, MINUTE, SECOND, START};

/// What a key is for.
///
/// Shares and rates follow what exchanges say in public: most keys are bots and portfolio trackers of
/// private persons, a few per cent make most calls (rates are lognormal with a deviation of 0.8 within
/// a role), people use applications a few times a day, and one key in ten hardly ever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// 3 %: median 20 calls a minute, day and night, from two or three fixed addresses; orders and
    /// nearly as many cancellations.
    MarketMaker,
    /// 32 %: median 0.8 calls a minute in bursts; reads and some orders.
    RetailBot,
    /// 22 %: polls by the clock, each 1 to 60 minutes, 3 to 12 reads.
    Portfolio,
    /// 18 %: as a bot at a third of the rate, behind the two addresses of a broker, 40 keys each.
    Broker,
    /// 15 %: a person with an application and a login, 2 sessions a day, from several networks.
    Mobile,
    /// 10 %: one session of reads in 10 to 90 days.
    Dormant,
}

const SHARES: [(Role, f64); 6] = [
    (Role::MarketMaker, 0.03),
    (Role::RetailBot, 0.32),
    (Role::Portfolio, 0.22),
    (Role::Broker, 0.18),
    (Role::Mobile, 0.15),
    (Role::Dormant, 0.10),
];

/// Days between two times that a client takes its whole history, a page after the other: for the tax
/// office, and when it moves to another program.
const EXPORT_DAYS: f64 = 250.0;

type Mix = [(Endpoint, f64); 8];

pub(crate) struct Client {
    pub(crate) role: Role,
    pub(crate) id: KeyId,
    pub(crate) style: Style,
    /// Customers come all the time: one in ten after the start.
    pub(crate) joins: u64,
    pub(crate) program: u8,
    pub(crate) account: u64,
    lag_ns: u64,
    places: Vec<Ipv4Addr>,
    pub(crate) symbols: Vec<u16>,
    rate: f64,
    mix: Mix,
    /// How far the day goes up and down, and when it is highest.
    day: (f64, f64),
    weekend: f64,
    /// How much of the fleet's load reaches it.
    sensitivity: f64,
    burst_shape: f64,
    burst: f64,
    burst_until: u64,
    /// A person on the move: the telephone's network and another in turns.
    roams: bool,
    spike: f64,
    spike_until: u64,
    error_share: f64,
    bad_clock: Option<(u64, u64)>,
    withdrawals_per_day: f64,
    period: u64,
    /// Session of a person or of a key that mostly sleeps.
    session: (u64, u64),
    next_session: u64,
    login: u64,
    ledger: Ledger,
    /// When it takes its history the next time.
    next_export: u64,
    face: Option<Face>,
    face_until: u64,
    faces: u64,
}

impl Client {
    pub(crate) fn new(n: u32, id: KeyId, days: u32, random: &mut Random) -> Client {
        let role = random.weighted(&SHARES);
        let program = match role {
            Role::Mobile => APPS_FROM + random.below(2) as u8,
            Role::MarketMaker => random.one(&[3, 4, 5]),
            Role::Broker => 3,
            Role::RetailBot | Role::Portfolio | Role::Dormant => random.below(5) as u8,
        };
        let wide = |random: &mut Random| 1 + random.pareto(1.0, 1.2).min(12.0) as usize;
        let symbols = match role {
            Role::MarketMaker => 2 + random.below(5) as usize,
            Role::RetailBot | Role::Mobile | Role::Broker => wide(random),
            Role::Portfolio | Role::Dormant => wide(random) + 2,
        };
        let median = match role {
            Role::MarketMaker => 20.0,
            Role::RetailBot => 0.8,
            Role::Broker => 0.25,
            Role::Portfolio => 1.0,
            Role::Mobile => 4.0,
            Role::Dormant => 2.0,
        };
        let rate = random.lognormal(median, 0.8).min(120.0);
        let places = match role {
            Role::MarketMaker => {
                let base = 0x0d00_0000 + random.below(1 << 24) as u32;
                (0..2 + random.below(2) as u32).map(|i| (base + i * 7).into()).collect()
            }
            Role::RetailBot | Role::Portfolio | Role::Dormant => vec![cloud_or_home(random)],
            Role::Broker => {
                let broker = 0xc612_0000 + (n / 200) * 4096;
                vec![(broker + 10).into(), (broker + 0x100 + 10).into()]
            }
            Role::Mobile => (0..3 + random.below(4)).map(|_| home(random)).collect(),
        };
        let hours = match role {
            Role::MarketMaker => 0.2,
            Role::RetailBot | Role::Broker => random.between(0.2, 0.7),
            Role::Portfolio => 0.0,
            Role::Mobile | Role::Dormant => 0.9,
        };
        let may_withdraw = match role {
            Role::MarketMaker => 0.2,
            Role::RetailBot | Role::Broker => 0.05,
            Role::Mobile => 0.5,
            Role::Portfolio | Role::Dormant => 0.0,
        };
        let joins =
            if random.chance(0.9) { START } else { START + random.below(u64::from(days) * DAY) };
        let sleep = random.between(10.0, 90.0);
        let bad_clock = random.chance(0.02).then(|| {
            let at = START + random.below(u64::from(days) * DAY);
            (at, at + random.between(0.5, 12.0) as u64 * HOUR)
        });
        let account = any_account(random);
        let ledger = Ledger::new(role, account, random);
        let next_export = match role {
            Role::RetailBot | Role::Portfolio | Role::Broker => {
                START + (random.exponential(EXPORT_DAYS) * DAY as f64) as u64
            }
            Role::MarketMaker | Role::Mobile | Role::Dormant => u64::MAX,
        };
        Client {
            role,
            id,
            style: if role == Role::Mobile { Style::Login } else { Style::ApiKey },
            joins,
            program,
            account,
            lag_ns: (random.exponential(2.0) * DAY as f64) as u64,
            places,
            symbols: (0..symbols).map(|_| popular(random)).collect(),
            rate,
            mix: mix(role, random),
            day: (hours, random.between(0.0, 24.0)),
            weekend: random.between(0.4, 1.1),
            sensitivity: match role {
                Role::MarketMaker | Role::RetailBot | Role::Broker => random.between(0.3, 1.2),
                Role::Mobile => random.between(0.0, 1.0),
                Role::Portfolio | Role::Dormant => 0.0,
            },
            burst_shape: random.between(1.0, 4.0),
            burst: 1.0,
            burst_until: 0,
            roams: role == Role::Mobile && random.chance(0.2),
            spike: 1.0,
            spike_until: 0,
            error_share: random.lognormal(0.01, 0.8).min(0.2),
            bad_clock,
            withdrawals_per_day: if random.chance(may_withdraw) {
                random.lognormal(0.1, 1.0).min(3.0)
            } else {
                0.0
            },
            period: random.one(&[1, 2, 5, 5, 10, 15, 15, 30, 60]),
            session: (0, 0),
            next_session: if role == Role::Dormant {
                START + (random.between(0.0, sleep) * DAY as f64) as u64
            } else {
                START
            },
            login: 0,
            ledger,
            next_export,
            face: None,
            face_until: 0,
            faces: u64::from(n) << 32,
        }
    }

    /// Whether it was there from the start, and calls within the first days.
    pub(crate) fn is_known_early(&self) -> bool {
        self.joins == START && self.next_session < START + 5 * DAY
    }

    /// As it stands now: used by attackers who sit inside.
    pub(crate) fn own_face(&mut self, now: u64, fleet: &Fleet, random: &mut Random) -> Face {
        if now >= self.face_until || self.face.is_none() {
            self.connect(now, fleet, random);
        }
        self.face.clone().unwrap_or_else(|| self.face_at(now, self.places[0], fleet))
    }

    /// Mean calls a minute, for attackers who know the habit.
    pub(crate) fn usual_rate(&self) -> f64 {
        match self.role {
            Role::MarketMaker | Role::RetailBot | Role::Broker => self.rate,
            Role::Portfolio => 7.0 / self.period as f64,
            Role::Mobile | Role::Dormant => 1.0,
        }
    }

    pub(crate) fn mix(&self) -> &[(Endpoint, f64)] {
        &self.mix
    }

    /// One of its open orders.
    pub(crate) fn order(&self, random: &mut Random) -> u64 {
        self.ledger.order(random)
    }

    /// Calls of one minute, added to `out`.
    pub(crate) fn minute(
        &mut self,
        now: u64,
        load: f64,
        boost: f64,
        fleet: &Fleet,
        random: &mut Random,
        out: &mut Vec<ApiCall>,
    ) {
        if now < self.joins {
            return;
        }
        let calls = match self.role {
            Role::MarketMaker | Role::RetailBot | Role::Broker => {
                self.note_bursts(now, random);
                let load = load.powf(self.sensitivity);
                random
                    .poisson(self.rate * self.season(now) * self.burst * self.spike * load * boost)
            }
            Role::Portfolio => {
                let minute = now / MINUTE + self.account % 60;
                if minute.is_multiple_of(self.period) {
                    3 + self.account % 10 + random.below(2)
                } else {
                    0
                }
            }
            Role::Mobile | Role::Dormant => {
                self.note_session(now, load, random);
                if now < self.session.1 { random.poisson(self.rate * boost) } else { 0 }
            }
        };
        let withdraws = self.withdrawals_per_day > 0.0
            && (self.role != Role::Mobile || now < self.session.1)
            && random.chance(self.withdrawal_chance());
        if calls == 0 && !withdraws {
            return;
        }
        let is_elsewhere = self.roams && random.chance(0.1);
        if now >= self.face_until || self.face.is_none() || is_elsewhere {
            self.connect(now, fleet, random);
        }
        let listing = fleet.fresh_listing(now).filter(|_| self.account.is_multiple_of(3));
        let down = fleet.in_maintenance(now);
        let mut at = now;
        for n in 0..calls.min(u64::from(LIMIT)) {
            // Calls come in runs.
            at = if n == 0 || random.chance(0.3) {
                now + random.below(MINUTE)
            } else {
                (at + random.below(2 * SECOND)).min(now + MINUTE - 1)
            };
            let endpoint = random.weighted(&self.mix);
            let mut ask = Ask::new(at, endpoint);
            ask.symbol = match listing {
                Some(symbol) if random.chance(0.4) => symbol,
                _ if random.chance(0.002) => popular(random),
                _ => random.one(&self.symbols),
            };
            ask.used = n as u32 + 1;
            self.finish(&mut ask, down, random, out);
        }
        if now >= self.next_export {
            self.next_export = now + (random.exponential(EXPORT_DAYS) * DAY as f64) as u64;
            let size = random.between(5.0, 20.0);
            let start = now + random.below(MINUTE / 2);
            for page in 0..3 + random.below(8) {
                let mut ask = Ask::new(start + page * 2 * SECOND, Endpoint::Trades);
                ask.symbol = random.one(&self.symbols);
                ask.size = size;
                self.finish(&mut ask, down, random, out);
            }
        }
        if withdraws {
            let mut ask = Ask::new(now + random.below(MINUTE), Endpoint::WithdrawOut);
            // An address that is not on the list is forgotten once in a while.
            if random.chance(0.02) {
                ask.outcome = Outcome::AddressNotAllowed;
            }
            self.finish(&mut ask, down, random, out);
        }
    }

    fn finish(&mut self, ask: &mut Ask, down: bool, random: &mut Random, out: &mut Vec<ApiCall>) {
        let skewed = self.bad_clock.is_some_and(|(from, to)| (from..to).contains(&ask.time));
        if skewed && self.style == Style::ApiKey {
            ask.skew_ns = -8 * SECOND as i64;
        } else {
            ask.skew_ns = -((random.unit() * 0.08e9) as i64);
        }
        ask.object = Some(if ask.endpoint == Endpoint::Place {
            self.ledger.place(ask.time, random)
        } else {
            self.ledger.order(random)
        });
        ask.account = self.ledger.account(ask.time, random);
        let signed = ask.endpoint.looks().signed;
        if down && random.chance(0.95) {
            ask.outcome = Outcome::Error;
        } else if skewed && signed && self.style == Style::ApiKey {
            ask.outcome = Outcome::Skew;
        } else if ask.outcome == Outcome::Ok && random.chance(self.error_share) {
            ask.outcome = random.weighted(&[
                (Outcome::Error, 0.93),
                (Outcome::Throttled, 0.05),
                (Outcome::PermissionDenied, 0.02),
            ]);
        }
        let Some(face) = &self.face else { return };
        out.push(call(face, ask, random));
        // Many clients try again at once.
        if ask.outcome == Outcome::Error && random.chance(0.3) {
            let minute_end = ask.time / MINUTE * MINUTE + MINUTE - 1;
            let time = (ask.time + random.below(3 * SECOND)).min(minute_end);
            let outcome = if down { Outcome::Error } else { Outcome::Ok };
            out.push(call(face, &Ask { time, outcome, ..ask.clone() }, random));
        }
    }

    fn withdrawal_chance(&self) -> f64 {
        // Of the minutes that a person is there: about forty a day.
        let minutes = if self.role == Role::Mobile { 40.0 } else { 1440.0 };
        self.withdrawals_per_day / minutes
    }

    fn season(&self, now: u64) -> f64 {
        let hour = (now % DAY) as f64 / HOUR as f64;
        let (depth, peak) = self.day;
        let is_weekend = (now - START) / DAY % 7 >= 5;
        let day = 1.0 + depth * ((hour - peak) / 24.0 * std::f64::consts::TAU).cos();
        day * if is_weekend { self.weekend } else { 1.0 }
    }

    /// Gamma (half of the clients) or lognormal bursts of some minutes, and one in two days that is
    /// Pareto distributed: 2 to 15 times as much for 2 to 20 minutes.
    fn note_bursts(&mut self, now: u64, random: &mut Random) {
        if now >= self.burst_until {
            self.burst = if self.account.is_multiple_of(2) {
                random.gamma(self.burst_shape)
            } else {
                let sigma = 0.3 + 0.15 * self.burst_shape;
                random.lognormal((-sigma * sigma / 2.0).exp(), sigma)
            };
            self.burst_until = now + random.between(3.0, 30.0) as u64 * MINUTE;
        }
        if now >= self.spike_until {
            self.spike = 1.0;
            if random.chance(1.0 / 2880.0) {
                self.spike = random.pareto(2.0, 1.8).min(15.0);
                self.spike_until = now + random.between(2.0, 20.0) as u64 * MINUTE;
            }
        }
    }

    fn note_session(&mut self, now: u64, load: f64, random: &mut Random) {
        if now < self.session.1 || now < self.next_session {
            return;
        }
        let begins = self.role == Role::Dormant
            || random.chance(2.0 / 1440.0 * self.season(now) * load.powf(self.sensitivity));
        if begins {
            let minutes = random.lognormal(12.0, 0.8).clamp(1.0, 240.0) as u64;
            self.session = (now, now + minutes * MINUTE);
            self.face = None;
            if self.role == Role::Dormant {
                self.next_session = now + (random.exponential(40.0) * DAY as f64) as u64;
            }
        }
    }

    fn connect(&mut self, now: u64, fleet: &Fleet, random: &mut Random) {
        self.faces += 1;
        let ip = match self.role {
            Role::MarketMaker | Role::Broker => random.one(&self.places),
            // One in forty sessions is somewhere else altogether: travel, a new provider.
            Role::Mobile if random.chance(0.025) => home(random),
            Role::Mobile => random.one(&self.places),
            // Machines in a cloud and homes get another address every few weeks, mostly nearby.
            Role::RetailBot | Role::Portfolio | Role::Dormant => {
                if random.chance(1.0 / 250.0) {
                    self.places[0] = moved(self.places[0], random);
                }
                self.places[0]
            }
        };
        if self.style == Style::Login && now > self.login + DAY {
            self.login = now;
        }
        self.face = Some(self.face_at(now, ip, fleet));
        self.face_until = now + random.between(0.5, 5.0) as u64 * HOUR;
    }

    fn face_at(&self, now: u64, ip: Ipv4Addr, fleet: &Fleet) -> Face {
        let (program, ja4) = PROGRAMS[usize::from(self.program)];
        let version = fleet.version(self.program, now, self.lag_ns);
        Face {
            key: Some(key(self.id, self.style)),
            flow: flow(ip, ja4, self.faces),
            agent: format_compact!("{program}{version}"),
            token: self.token(),
        }
    }

    /// What the token of its login says: one token until the next login, good for a month. People log in
    /// with a second factor.
    pub(crate) fn token(&self) -> Option<Arc<Token>> {
        // Who was not there yet has logged in before the beginning.
        let login = self.login.max(START);
        (self.style == Style::Login).then(|| {
            Arc::new(Token {
                algorithm: Some("RS256".into()),
                issuer: Some("id.example.com".into()),
                client: Some("app".into()),
                audience: vec!["api".into()],
                expires: Some((login / SECOND) as i64 + 30 * 86_400),
                issued: Some((login / SECOND) as i64),
                ..Token::default()
            })
        })
    }
}

fn mix(role: Role, random: &mut Random) -> Mix {
    use Endpoint::*;
    let shares: [f64; 8] = match role {
        Role::MarketMaker => [1.0, 4.0, 1.0, 4.0, 2.0, 1.0, 45.0, 42.0],
        Role::RetailBot | Role::Broker => [12.0, 6.0, 22.0, 18.0, 12.0, 5.0, 16.0, 9.0],
        Role::Portfolio => [25.0, 0.0, 45.0, 10.0, 0.0, 20.0, 0.0, 0.0],
        Role::Mobile => [30.0, 15.0, 20.0, 12.0, 6.0, 6.0, 8.0, 3.0],
        Role::Dormant => [20.0, 0.0, 40.0, 10.0, 0.0, 30.0, 0.0, 0.0],
    };
    let endpoints = [Ticker, Depth, Account, OpenOrders, Order, Trades, Place, CancelOne];
    std::array::from_fn(|at| (endpoints[at], shares[at] * random.gamma(3.0)))
}

/// By Zipf's law; one in fifty is hardly traded by anybody.
fn popular(random: &mut Random) -> u16 {
    if random.chance(0.02) {
        return ILLIQUID_FROM + random.below(u64::from(SYMBOLS - ILLIQUID_FROM)) as u16;
    }
    let rank = f64::from(ILLIQUID_FROM).powf(random.unit());
    (rank as u16 - 1).min(ILLIQUID_FROM - 1)
}

fn cloud_or_home(random: &mut Random) -> Ipv4Addr {
    if random.chance(0.6) { cloud(random) } else { home(random) }
}

/// One of the few hundred networks of clouds that bots are run in.
pub(crate) fn cloud(random: &mut Random) -> Ipv4Addr {
    (0x2200_0000 + (random.below(400) as u32) * 65_536 + random.below(1 << 16) as u32).into()
}

pub(crate) fn home(random: &mut Random) -> Ipv4Addr {
    (0x5000_0000 + random.below(1 << 28) as u32).into()
}

/// Three in four stay in their /24.
fn moved(from: Ipv4Addr, random: &mut Random) -> Ipv4Addr {
    let bits = u32::from(from);
    if random.chance(0.75) {
        (bits & !0xff | random.below(256) as u32).into()
    } else {
        (bits & !0xffff | random.below(1 << 16) as u32).into()
    }
}
