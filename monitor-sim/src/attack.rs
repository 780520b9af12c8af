//! Attacks, each as a few phases drawn at random.

use std::net::IpAddr;

use monitor_core::call::{KeyId, Outcome};
use monitor_core::time::EventTime;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Role, cloud, home};
use crate::ledger::order_at;
use crate::names::{Endpoint, Endpoint::*, ILLIQUID_FROM, SYMBOLS};
use crate::phases::{Fault, From, Objects, Phase, Who};
use crate::random::Random;
use crate::truth::{Span, Truth};
use crate::{DAY, MINUTE};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)+) => {
        /// What an attacker does. How hard it is pushed is drawn anew each time, evenly from the least that
        /// is worth an attacker's while (or was reported) to the most; counts are spread by their logarithm.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind { $($(#[doc = $doc])* #[serde(rename = $text)] $name,)+ }
        impl Kind {
            /// Every kind, those of public incidents first.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $text,)+ }
            }
        }
    };
}
kinds! {
    /// Binance and VIA, March 2018: keys made in phished accounts; days later 30 to 150 orders of each
    /// of 5 to 30 on one illiquid pair within two minutes.
    PhishedThenPumped = "phished_then_pumped",
    /// Binance and SYS, July 2018: 5 to 30 keys of customers buy one illiquid symbol within half an hour.
    KeysPumpIlliquid = "keys_pump_illiquid",
    /// Binance, May 2019: one withdrawal through each of 10 to 60 accounts, each from an address of its own.
    ManyAccountsWithdraw = "many_accounts_withdraw",
    /// Trade-only keys buy out a wall on an illiquid pair: 1 to 5 keys, 20 to 200 orders each.
    WallBuyOut = "wall_buy_out",
    /// Coinbase, February 2022: orders that name another's account are taken; 3 to 30 of them.
    ForeignAccount = "foreign_account",
    /// 3Commas, 2022: 20 to 80 leaked keys trade an illiquid pair over one to three days from a few clouds.
    MassLeak = "mass_leak",
    /// 2024: a stolen login session washes trades on an illiquid pair from another machine.
    StolenCookies = "stolen_cookies",
    /// 2025: a client package with a trojan; within hours 5 to 30 of its users' keys are used elsewhere.
    TrojanedClient = "trojaned_client",
    /// 60 to 2,000 made-up keys tried from one address.
    StuffingOneClient = "stuffing_one_client",
    /// 200 to 2,000 made-up keys tried from 50 to 400 addresses in a few networks.
    StuffingBotnet = "stuffing_botnet",
    /// Other people's orders are asked for in order of their numbers, 2 to 20 a minute, for hours.
    SlowEnumeration = "slow_enumeration",
    /// Signed requests are sent again from elsewhere; some are taken.
    Replay = "replay",
    /// Data is taken at 85 to 98 % of the limit for 12 to 48 hours.
    ScrapingUnderLimit = "scraping_under_limit",
    /// 20 to 60 keys that leaked are looked into from one address.
    ManyKeysLeaked = "many_keys_leaked",
    /// The rate grows by 2 % a day over the whole time, then 4 to 8 times as much for ten minutes.
    Poisoning = "poisoning",
    /// A stolen key calls 3 to 10 times as fast as its owner, for 10 to 60 minutes.
    TheftSpike = "theft_spike",
    /// A stolen key looks around, then is refused withdrawals.
    TheftRefused = "theft_refused",
    /// A stolen key looks around, then withdraws.
    TheftWithdraws = "theft_withdraws",
    /// A stolen key makes another.
    KeyMade = "key_made",
    /// Histories are taken, 10 to 100 times as large as usual.
    Exfiltration = "exfiltration",
    /// Orders that are cancelled at once, 5 to 20 times the usual rate.
    QuoteStuffing = "quote_stuffing",
    /// Half to nearly all calls fail for 5 to 60 minutes: somebody tries things out.
    ErrorBurst = "error_burst",
    /// 30 to 500 paths and payloads of scanners from one address.
    PathScan = "path_scan",
    /// Unsigned, expired or foreign tokens are taken for orders.
    FaultyToken = "faulty_token",
    /// A key that slept for weeks trades from elsewhere.
    DormantRevived = "dormant_revived",
}

impl Kind {
    /// Whether it is taken from a public incident.
    pub fn is_public(self) -> bool {
        self <= Kind::TrojanedClient
    }
}

/// Draws attacks; no customer is attacked twice.
pub(crate) struct Planner<'a> {
    pub(crate) clients: &'a [Client],
    pub(crate) taken: Vec<bool>,
    pub(crate) random: &'a mut Random,
    pub(crate) name: &'a dyn Fn(u64) -> KeyId,
    /// Numbers of credentials that no customer has.
    pub(crate) next_other: u64,
    pub(crate) phases: Vec<Phase>,
    pub(crate) truths: Vec<Truth>,
    /// Customers whose rate grows each day.
    pub(crate) growing: Vec<usize>,
    pub(crate) until: u64,
}

impl Planner<'_> {
    /// One attack that begins at `at`.
    pub(crate) fn add(&mut self, kind: Kind, at: u64) {
        let strength = self.random.unit();
        let first = self.phases.len();
        self.phases_of(kind, at, strength);
        // Nobody is left to attack: what was not done cannot be caught.
        if self.phases[first..].iter().all(|phase| phase.who.is_empty()) {
            self.phases.truncate(first);
            return;
        }
        let phases = &self.phases[first..];
        let mut truth = Truth {
            id: self.truths.len() as u32 + 1,
            kind,
            public: kind.is_public(),
            keys: Vec::new(),
            clients: Vec::new(),
            spans: Vec::new(),
            strength,
        };
        for phase in phases {
            let end = EventTime(phase.end.min(self.until));
            truth.spans.push(Span { start: EventTime(phase.start), end });
            let ids = phase.who.iter().filter_map(|who| match who {
                Who::Client(client) => Some(self.clients[*client].id),
                Who::Other(id) => Some(*id),
                Who::Nobody => None,
            });
            for id in ids {
                if truth.keys.len() < 1000 && !truth.keys.contains(&id) {
                    truth.keys.push(id);
                }
            }
            if let From::Others(ips) = &phase.from {
                truth.clients.extend(ips.iter().map(|ip| IpAddr::V4(*ip)));
            }
        }
        truth.spans.sort_by_key(|span| span.start);
        truth.clients.sort_unstable();
        truth.clients.dedup();
        self.truths.push(truth);
    }

    fn phases_of(&mut self, kind: Kind, at: u64, s: f64) {
        const BOTS: &[Role] = &[Role::RetailBot, Role::Broker];
        const TRADERS: &[Role] = &[Role::RetailBot, Role::Broker, Role::MarketMaker];
        const OWNERS: &[Role] = &[Role::RetailBot, Role::Portfolio, Role::Broker];
        let minutes = |from: f64, to: f64| (spread(s, from, to) * MINUTE as f64) as u64;
        let program = self.random.below(5) as u8;
        let start = at;
        match kind {
            Kind::PhishedThenPumped => {
                let people = self.pick(&[Role::Mobile], count(s, 5.0, 30.0));
                let others = people.iter().map(|_| self.other()).collect::<Vec<_>>();
                let from = self.elsewhere(1 + people.len() / 8);
                let base =
                    |who, start| Phase { program, from: from.clone(), ..Phase::new(who, start) };
                self.phases.push(Phase {
                    end: at + 20 * MINUTE,
                    most: 1,
                    per_minute: 0.1,
                    mix: vec![(MakeKey, 1.0)],
                    ..base(people, at)
                });
                self.phases.push(Phase {
                    end: at + 30 * MINUTE,
                    most: 3,
                    per_minute: 0.2,
                    ..base(others.clone(), at + 5 * MINUTE)
                });
                let later = at + self.random.between(1.5, 4.0) as u64 * DAY;
                let symbol = Some(self.illiquid());
                self.phases.push(Phase {
                    end: later + 2 * MINUTE,
                    per_minute: spread(s, 15.0, 75.0),
                    mix: vec![(Place, 1.0)],
                    symbol,
                    ..base(others, later)
                });
            }
            Kind::KeysPumpIlliquid => {
                let who = self.pick(TRADERS, count(s, 5.0, 30.0));
                let from = self.elsewhere(1 + who.len() / 6);
                let end = at + minutes(30.0, 8.0);
                let symbol = Some(self.illiquid());
                let mix = vec![(Place, 0.8), (Account, 0.2)];
                self.phases.push(Phase {
                    end,
                    per_minute: spread(s, 0.5, 4.0),
                    mix,
                    symbol,
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::ManyAccountsWithdraw => {
                let who = self.pick(
                    &[Role::Mobile, Role::RetailBot, Role::Broker, Role::Portfolio],
                    count(s, 10.0, 60.0),
                );
                let from = self.everywhere(who.len());
                let end = at + minutes(60.0, 10.0);
                self.phases.push(Phase {
                    end,
                    most: 1,
                    per_minute: 0.05,
                    mix: vec![(WithdrawOut, 1.0)],
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::WallBuyOut => {
                let who = self.pick(TRADERS, count(s, 1.0, 5.0));
                let from = self.elsewhere(1);
                let length = self.random.between(2.0, 15.0);
                let end = at + (length * MINUTE as f64) as u64;
                let per_minute = spread(s, 20.0, 200.0) / length;
                let symbol = Some(self.illiquid());
                self.phases.push(Phase {
                    end,
                    per_minute,
                    mix: vec![(Place, 0.9), (OpenOrders, 0.1)],
                    symbol,
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::ForeignAccount => {
                let who = self.pick(TRADERS, 1);
                let other = self.random.below(self.clients.len() as u64) as usize;
                let account = Some(self.clients[other].account);
                let end = at + minutes(60.0, 10.0);
                let per_minute = spread(s, 3.0, 30.0) / ((end - at) / MINUTE) as f64;
                self.phases.push(Phase {
                    end,
                    per_minute,
                    mix: vec![(Place, 1.0)],
                    account,
                    ..Phase::new(who, start)
                });
            }
            Kind::MassLeak => {
                let who = self
                    .pick(&[Role::RetailBot, Role::Portfolio, Role::Broker], count(s, 20.0, 80.0));
                let clouds = 1 + self.random.below(8) as usize;
                let from = self.elsewhere(clouds);
                let days = self.random.between(1.0, 3.0);
                let symbol = Some(self.illiquid());
                // A few keys at a time.
                for (n, names) in who.chunks(5).enumerate() {
                    let start = at + (days * DAY as f64 * n as f64 / 16.0) as u64;
                    let end = start + 20 * MINUTE;
                    let mix = vec![(Place, 0.7), (Account, 0.2), (CancelOne, 0.1)];
                    let base = Phase::new(names.to_vec(), start);
                    self.phases.push(Phase {
                        end,
                        per_minute: spread(s, 0.5, 3.0),
                        mix,
                        symbol,
                        from: from.clone(),
                        program,
                        ..base
                    });
                }
            }
            Kind::StolenCookies => {
                let who = self.pick(&[Role::Mobile], 1);
                let from = self.elsewhere(1);
                let end = at + minutes(60.0, 15.0);
                let per_minute = spread(s, 20.0, 120.0) / ((end - at) / MINUTE) as f64;
                let symbol = Some(self.illiquid());
                self.phases.push(Phase {
                    end,
                    per_minute,
                    mix: vec![(Place, 0.7), (Account, 0.3)],
                    symbol,
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::TrojanedClient => {
                let who = self.pick(OWNERS, count(s, 5.0, 30.0));
                let clouds = 1 + self.random.below(3) as usize;
                let from = self.elsewhere(clouds);
                let end = at + minutes(180.0, 60.0);
                let most = 6;
                let mix = vec![(Account, 0.6), (Move, 0.2), (WithdrawOut, 0.2)];
                let outcomes = vec![(Outcome::Ok, 0.6), (Outcome::PermissionDenied, 0.4)];
                self.phases.push(Phase {
                    end,
                    most,
                    per_minute: 0.05,
                    mix,
                    outcomes,
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::StuffingOneClient => {
                let tried = count(s, 60.0, 2000.0);
                let from = self.elsewhere(1);
                self.stuffing(at, tried, minutes(60.0, 10.0), from);
            }
            Kind::StuffingBotnet => {
                let tried = count(s, 200.0, 2000.0);
                let addresses = count(s, 50.0, 400.0);
                let networks: Vec<u32> =
                    (0..addresses / 12 + 1).map(|_| u32::from(home(self.random)) & !0xff).collect();
                let from = (0..addresses)
                    .map(|_| {
                        let network = self.random.one(&networks);
                        (network + self.random.below(256) as u32).into()
                    })
                    .collect();
                self.stuffing(at, tried, minutes(360.0, 60.0), From::Others(from));
            }
            Kind::SlowEnumeration => {
                let who = self.pick(BOTS, 1);
                let end = at + minutes(600.0, 120.0);
                let outcomes =
                    vec![(Outcome::Error, self.random.between(0.3, 0.9)), (Outcome::Ok, 0.3)];
                let objects = Objects::InOrder(order_at(at) - self.random.below(10_000_000));
                self.phases.push(Phase {
                    end,
                    per_minute: spread(s, 2.0, 20.0),
                    mix: vec![(Order, 1.0)],
                    outcomes,
                    objects,
                    ..Phase::new(who, start)
                });
            }
            Kind::Replay => {
                let who = self.pick(TRADERS, 1);
                let from = self.elsewhere(1);
                let end = at + minutes(10.0, 5.0);
                let outcomes =
                    vec![(Outcome::Skew, self.random.between(0.2, 1.5)), (Outcome::Ok, 1.0)];
                self.phases.push(Phase {
                    end,
                    per_minute: spread(s, 2.0, 10.0),
                    mix: vec![(Place, 0.7), (CancelOne, 0.3)],
                    outcomes,
                    from,
                    program,
                    replayed: true,
                    ..Phase::new(who, start)
                });
            }
            Kind::ScrapingUnderLimit => {
                let who = self.pick(BOTS, 1);
                let end = at + minutes(12.0 * 60.0, 48.0 * 60.0);
                // A tenth of the limit of the spot API, as if it weighed ten a call.
                let per_minute = 120.0 * self.random.between(0.85, 0.98);
                self.phases.push(Phase {
                    end,
                    per_minute,
                    mix: vec![(Depth, 0.6), (Ticker, 0.2), (Trades, 0.2)],
                    ..Phase::new(who, start)
                });
            }
            Kind::ManyKeysLeaked => {
                let who = self.pick(OWNERS, count(s, 20.0, 60.0));
                let from = self.elsewhere(1);
                let end = at + minutes(60.0, 10.0);
                self.phases.push(Phase {
                    end,
                    most: 4,
                    per_minute: 0.1,
                    mix: vec![(Account, 0.7), (OpenOrders, 0.3)],
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::Poisoning => {
                let who = self.pick(BOTS, 1);
                if let Some(Who::Client(client)) = who.first() {
                    self.growing.push(*client);
                }
                let per_minute = 2.0 * self.rate(&who).max(4.0) * spread(s, 3.0, 7.0);
                let mix = self.mix(&who);
                self.phases.push(Phase {
                    end: at + 10 * MINUTE,
                    per_minute,
                    mix,
                    ..Phase::new(who, start)
                });
            }
            Kind::TheftSpike => {
                let who = self.pick(BOTS, 1);
                let from = self.elsewhere(1);
                let per_minute = self.rate(&who).max(3.0) * spread(s, 2.0, 9.0);
                let mix = self.mix(&who);
                self.phases.push(Phase {
                    end: at + minutes(60.0, 10.0),
                    per_minute,
                    mix,
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::TheftRefused | Kind::TheftWithdraws | Kind::KeyMade => {
                let who = self.pick(OWNERS, 1);
                let from = self.elsewhere(1);
                let looks = Phase {
                    end: at + 10 * MINUTE,
                    per_minute: 0.6,
                    from: from.clone(),
                    program,
                    ..Phase::new(who.clone(), start)
                };
                let (mix, outcomes) = if kind == Kind::TheftRefused {
                    let refusals =
                        [(Outcome::PermissionDenied, 0.7), (Outcome::AddressNotAllowed, 0.3)];
                    (WithdrawOut, refusals)
                } else if kind == Kind::KeyMade {
                    (MakeKey, [(Outcome::Ok, 1.0), (Outcome::Error, 0.0)])
                } else {
                    (WithdrawOut, [(Outcome::Ok, 0.9), (Outcome::Error, 0.1)])
                };
                let start = at + 10 * MINUTE;
                let then = Phase {
                    end: start + 10 * MINUTE,
                    per_minute: 0.3,
                    most: 1 + (s * 5.0) as u32,
                    mix: vec![(mix, 1.0)],
                    outcomes: outcomes.to_vec(),
                    from,
                    program,
                    ..Phase::new(who, start)
                };
                self.phases.extend([looks, then]);
            }
            Kind::Exfiltration => {
                let who = self.pick(OWNERS, 1);
                let end = at + minutes(60.0, 15.0);
                self.phases.push(Phase {
                    end,
                    per_minute: spread(s, 0.5, 6.0),
                    mix: vec![(Trades, 1.0)],
                    size: spread(s, 10.0, 100.0),
                    ..Phase::new(who, start)
                });
            }
            Kind::QuoteStuffing => {
                let who = self.pick(TRADERS, 1);
                let per_minute = (self.rate(&who) * spread(s, 5.0, 20.0)).clamp(60.0, 2000.0);
                self.phases.push(Phase {
                    end: at + minutes(5.0, 30.0),
                    per_minute,
                    mix: vec![(Place, 0.5), (CancelOne, 0.5)],
                    ..Phase::new(who, start)
                });
            }
            Kind::ErrorBurst => {
                let who = self.pick(BOTS, 1);
                let outcomes = vec![
                    (Outcome::Error, spread(s, 0.5, 0.95)),
                    (Outcome::PermissionDenied, 0.1),
                    (Outcome::Ok, 0.3),
                ];
                let mix = vec![(Order, 0.3), (Place, 0.3), (Account, 0.2), (Move, 0.2)];
                self.phases.push(Phase {
                    end: at + minutes(60.0, 5.0),
                    per_minute: spread(s, 8.0, 60.0),
                    mix,
                    outcomes,
                    ..Phase::new(who, start)
                });
            }
            Kind::PathScan => {
                let from = self.elsewhere(1);
                let end = at + minutes(60.0, 5.0);
                let per_minute = spread(s, 30.0, 500.0) / ((end - at) / MINUTE) as f64;
                let outcomes = vec![(Outcome::Error, 0.97), (Outcome::Ok, 0.03)];
                self.phases.push(Phase {
                    end,
                    per_minute,
                    mix: vec![(Probe(0), 1.0)],
                    outcomes,
                    from,
                    program,
                    ..Phase::new(vec![Who::Nobody], start)
                });
            }
            Kind::FaultyToken => {
                let who = self.pick(&[Role::Mobile], 1);
                let from = self.elsewhere(1);
                let fault =
                    Some(self.random.one(&[Fault::Unsigned, Fault::Expired, Fault::OtherAudience]));
                self.phases.push(Phase {
                    end: at + minutes(60.0, 5.0),
                    per_minute: spread(s, 0.2, 3.0),
                    mix: vec![(Place, 0.8), (Move, 0.2)],
                    from,
                    fault,
                    program,
                    ..Phase::new(who, start)
                });
            }
            Kind::DormantRevived => {
                let who = self.pick(&[Role::Dormant], 1);
                let from = self.elsewhere(1);
                self.phases.push(Phase {
                    end: at + minutes(60.0, 10.0),
                    per_minute: spread(s, 0.5, 5.0),
                    mix: vec![(Account, 0.4), (Place, 0.6)],
                    from,
                    program,
                    ..Phase::new(who, start)
                });
            }
        }
    }

    fn stuffing(&mut self, at: u64, tried: usize, length: u64, from: From) {
        let who = (0..tried).map(|_| self.other()).collect();
        let outcomes = vec![(Outcome::BadKey, 0.9), (Outcome::BadSignature, 0.1)];
        let per_minute = 0.9 * MINUTE as f64 / length as f64;
        self.phases.push(Phase {
            end: at + length,
            most: 1,
            per_minute,
            outcomes,
            from,
            ..Phase::new(who, at)
        });
    }

    /// Customers of these roles that were there from the start; fewer when there are not so many.
    fn pick(&mut self, roles: &[Role], count: usize) -> Vec<Who> {
        let mut free: Vec<usize> = (0..self.clients.len())
            .filter(|n| !self.taken[*n] && roles.contains(&self.clients[*n].role))
            .filter(|n| self.clients[*n].is_known_early())
            .collect();
        let most = free.len().div_ceil(4).max(1).min(free.len());
        let mut who = Vec::new();
        for _ in 0..count.min(most) {
            let n = free.swap_remove(self.random.below(free.len() as u64) as usize);
            self.taken[n] = true;
            who.push(Who::Client(n));
        }
        who
    }

    fn other(&mut self) -> Who {
        self.next_other += 1;
        Who::Other((self.name)(self.next_other))
    }

    fn illiquid(&mut self) -> u16 {
        ILLIQUID_FROM + self.random.below(u64::from(SYMBOLS - ILLIQUID_FROM)) as u16
    }

    /// Machines in clouds, some in one network.
    fn elsewhere(&mut self, count: usize) -> From {
        From::Others((0..count).map(|_| cloud(self.random)).collect())
    }

    fn everywhere(&mut self, count: usize) -> From {
        From::Others((0..count).map(|_| home(self.random)).collect())
    }

    fn rate(&self, who: &[Who]) -> f64 {
        match who.first() {
            Some(Who::Client(client)) => self.clients[*client].usual_rate(),
            _ => 1.0,
        }
    }

    fn mix(&self, who: &[Who]) -> Vec<(Endpoint, f64)> {
        match who.first() {
            Some(Who::Client(client)) => self.clients[*client].mix().to_vec(),
            _ => vec![(Account, 1.0)],
        }
    }
}

/// From the weakest to the strongest by the logarithm.
fn spread(strength: f64, weakest: f64, strongest: f64) -> f64 {
    weakest * (strongest / weakest).powf(strength)
}

fn count(strength: f64, weakest: f64, strongest: f64) -> usize {
    spread(strength, weakest, strongest).round() as usize
}
