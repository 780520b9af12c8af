//! What is known of one API key: about a kilobyte.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::accounts::Accounts;
use super::agents::Agents;
use super::concurrency::Concurrency;
use super::drift::{Daily, Nearness};
use super::familiar::Familiar;
use super::fleet::Fleet;
use super::mix::Mix;
use super::objects::Objects;
use super::outcomes::{Failures, Refusals};
use super::presence::Presence;
use super::quoting::Quoting;
use super::rate::{Advance, Cohort, Rate};
use super::sequences::Sequences;
use super::sessions::Sessions;
use super::signing::Signing;
use super::sizes::Sizes;
use super::symbols::Symbols;
use super::{OPS, saved};
use crate::call::Operation;
use crate::time::EventTime;

/// Full state of a key that was accepted at least once.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeyState {
    /// First call that went well.
    pub(crate) first_seen: EventTime,
    /// Calls that went well.
    pub(crate) calls: u64,
    pub(crate) rate: Rate,
    pub(crate) failures: Failures,
    pub(crate) familiar: Familiar,
    /// Refusals of calls that move funds, addresses or keys; and of all others.
    pub(crate) refused_sensitive: Refusals,
    pub(crate) refused: Refusals,
    pub(crate) signing: Signing,
    /// Of a key that asks for objects.
    pub(crate) objects: Option<Box<Objects>>,
    /// When each class was first used, seconds since the epoch; 0 means never.
    #[serde(with = "saved::array")]
    pub(crate) first_used_s: [u32; OPS],
    /// Accounts, of a key that names any.
    pub(crate) accounts: Option<Box<Accounts>>,
    /// Against the policy.
    pub(crate) duty: Duty,
    /// Classes that it kept on using, a bit each, and [`LOGIN`].
    habits: u16,
    /// Absences (D4).
    pub(crate) presence: Presence,
    /// Networks at once (D7): within a minute, and within a quarter of an hour.
    pub(crate) concurrency: Concurrency,
    pub(crate) turns: Concurrency,
    /// Parts of each operation (D8), and their order (D23).
    pub(crate) mix: Mix,
    pub(crate) sequences: Sequences,
    /// Who holds its cookie or token (D14).
    pub(crate) sessions: Sessions,
    /// How many orders it cancels (D19).
    pub(crate) quoting: Quoting,
    /// Calls a day, and how near to its limit (D21).
    pub(crate) daily: Daily,
    pub(crate) nearness: Nearness,
    /// Bytes of answers (D22).
    pub(crate) sizes: Sizes,
    /// User agents, TLS clients and orders of header fields (D6).
    pub(crate) agents: Agents,
    /// What it trades (D18), of a key that does.
    pub(crate) symbols: Option<Box<Symbols>>,
    /// What was reported in this minute, by [`News::bit`].
    reported: u64,
    /// An incident may be open until then.
    pub(crate) incident_until: EventTime,
    /// Changed since it was last given to a snapshot.
    #[serde(skip)]
    pub(crate) is_changed: bool,
    /// Some snapshot has it.
    #[serde(skip)]
    pub(crate) is_saved: bool,
}

/// What is counted of a key for the policy.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Duty {
    /// Minute of the clock, and calls in it.
    minute: u32,
    calls: u32,
    /// Quarter of an hour, and what was reported in it, a bit a rule.
    quarter: u32,
    reported: u16,
    /// When a second factor was last taken, seconds since the epoch; 0 means never.
    pub(crate) second_factor_s: u32,
}

impl Duty {
    /// Counts a call; how many there are in its minute.
    pub(crate) fn count(&mut self, time: EventTime) -> u32 {
        let minute = u32::try_from(time.secs() / 60).unwrap_or(u32::MAX);
        if minute > self.minute {
            (self.minute, self.calls) = (minute, 0);
        }
        // A call of the minute before counts in neither.
        self.calls += u32::from(minute == self.minute);
        self.calls
    }

    /// True the first time in a quarter of an hour for this rule (0 to 15).
    pub(crate) fn is_news(&mut self, rule: u32, time: EventTime) -> bool {
        let quarter = u32::try_from(time.secs() / 900).unwrap_or(u32::MAX);
        if quarter != self.quarter {
            (self.quarter, self.reported) = (quarter, 0);
        }
        let news = self.reported & 1 << rule == 0;
        self.reported |= 1 << rule;
        news
    }
}

/// Among habits: it is a person's login, and no API key.
const LOGIN: u16 = 1 << 15;
const _: () = assert!(OPS <= 15, "a bit a class");

/// A key that is given up last: it made this many calls that went well. Made-up keys that an open
/// endpoint takes stay below it, or cost their maker as much as the state is worth.
const ESTABLISHED_CALLS: u64 = 32;

impl KeyState {
    pub(crate) fn new(time: EventTime, cohort: &Cohort) -> KeyState {
        KeyState {
            first_seen: time,
            calls: 0,
            rate: Rate::new(time, Some(cohort)),
            failures: Failures::new(),
            familiar: Familiar::default(),
            refused_sensitive: Refusals::new(),
            refused: Refusals::new(),
            signing: Signing::default(),
            objects: None,
            first_used_s: [0; OPS],
            accounts: None,
            duty: Duty::default(),
            habits: 0,
            presence: Presence::default(),
            concurrency: Concurrency::default(),
            turns: Concurrency::default(),
            mix: Mix::default(),
            sequences: Sequences::default(),
            sessions: Sessions::default(),
            quoting: Quoting::default(),
            daily: Daily::default(),
            nearness: Nearness::default(),
            sizes: Sizes::default(),
            agents: Agents::default(),
            symbols: None,
            reported: 0,
            incident_until: EventTime(0),
            is_changed: false,
            is_saved: false,
        }
    }

    /// Puts what was read back from a snapshot within its bounds, whatever wrote it.
    pub(crate) fn mend(&mut self) {
        self.rate.mend();
        self.failures.mend();
        self.refused_sensitive.mend();
        self.refused.mend();
    }

    /// What a person wants to know of it.
    pub(crate) fn view(&self) -> KeyView {
        let used = |(op, at): (&Operation, &u32)| (*at != 0).then_some((*op, u64::from(*at)));
        let (programs, header_orders) = self.agents.counts();
        KeyView {
            first_seen: self.first_seen,
            calls: self.calls,
            minutes: self.rate.windows_seen(),
            operations: Operation::ALL
                .iter()
                .zip(&self.first_used_s)
                .filter_map(used)
                .map(|(op, at)| OperationView {
                    op,
                    first_used: EventTime(at.saturating_mul(1_000_000_000)),
                    is_habit: self.has_habit(super::op_index(op)),
                    calls_per_minute: self.rate.expected_of(super::op_index(op)),
                })
                .collect(),
            networks: self.familiar.networks(),
            programs,
            header_orders,
            failed_share: self.failures.share(),
            refusals_per_day: self.refused.per_day(),
            sensitive_refusals_per_day: self.refused_sensitive.per_day(),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.calls >= ESTABLISHED_CALLS
    }

    /// Moves its windows on; true when a minute began.
    pub(crate) fn advance(
        &mut self,
        time: EventTime,
        late_minutes: u32,
        fleet: &mut Fleet,
    ) -> bool {
        let quarter = self.rate.minute() / 15;
        match self.rate.advance(time, late_minutes, Some(&mut fleet.cohort)) {
            Advance::Same => return false,
            Advance::Closed => {
                self.failures.close();
                self.concurrency.close();
            }
            Advance::Discarded => {
                self.failures.discard();
                self.concurrency.discard();
            }
        }
        self.reported = 0;
        match (self.rate.minute() / 15).cmp(&quarter) {
            Ordering::Equal => {}
            Ordering::Greater => self.turns.close(),
            Ordering::Less => self.turns.discard(),
        }
        true
    }

    /// Whether the key kept on using a class.
    pub(crate) fn has_habit(&self, op: usize) -> bool {
        self.habits & 1 << op != 0
    }

    /// Whether it is a person's login.
    pub(crate) fn is_login(&self) -> bool {
        self.habits & LOGIN != 0
    }

    pub(crate) fn set_login(&mut self) {
        self.habits |= LOGIN;
    }

    /// A bit a class, and whether it is a login.
    pub(crate) fn habits(&self) -> u16 {
        self.habits
    }

    pub(crate) fn set_habits(&mut self, habits: u16) {
        self.habits = habits;
    }

    pub(crate) fn set_habit(&mut self, op: usize) {
        self.habits |= 1 << op;
    }

    /// True the first time in a minute.
    pub(crate) fn is_news(&mut self, news: News) -> bool {
        let bit = 1 << news.bit();
        let is_new = self.reported & bit == 0;
        self.reported |= bit;
        is_new
    }
}

/// What is said once a minute at most of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// D9, by the place of the operation.
    FirstUse(usize),
    /// D10, by the place of the operation.
    Refused(usize),
    /// D15, by the kind of fault, of six.
    FaultyToken(usize),
    /// D17.
    NoStepUp,
    /// D5.
    NewNetwork,
    /// D4, by how bad it is, of three.
    Revived(usize),
    /// D6, of a program, and of an order of header fields alone.
    NewAgent,
    NewOrder,
    /// D18, for the first order and for a run of them.
    NewSymbol,
    SymbolRun,
    /// D14, for a session that passed to another client, and for one used in turns.
    Passed,
    Shared,
    /// D26.
    Parameter,
}

impl News {
    fn bit(self) -> u32 {
        let bit = match self {
            News::FirstUse(op) => op.min(9),
            News::Refused(op) => 10 + op.min(9),
            News::FaultyToken(fault @ 0..=4) => 20 + fault,
            News::FaultyToken(_) => 36,
            News::NoStepUp => 25,
            News::NewNetwork => 26,
            News::Revived(how_bad) => 27 + how_bad.min(2),
            News::NewAgent => 30,
            News::NewSymbol => 31,
            News::SymbolRun => 32,
            News::Shared => 33,
            News::Parameter => 34,
            News::Passed => 35,
            News::NewOrder => 37,
        };
        bit as u32
    }
}

impl Default for KeyState {
    fn default() -> KeyState {
        KeyState::new(EventTime(0), &Cohort::default())
    }
}

/// What is known of a key, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyView {
    /// First call that went well.
    pub first_seen: EventTime,
    /// Calls that went well.
    pub calls: u64,
    /// Minutes since then that it was learnt from.
    pub minutes: u32,
    /// What it used, in the order of operations.
    pub operations: Vec<OperationView>,
    /// Networks that it is known at, the 16 most used.
    pub networks: usize,
    /// User agents and TLS clients, versions aside, that it is known with, the 6 most used.
    pub programs: usize,
    /// Orders of header fields that it is known with, the 4 most used.
    pub header_orders: usize,
    /// Part of its calls that usually fails, from 0 to 1.
    pub failed_share: f64,
    /// Usual refusals in a day.
    pub refusals_per_day: f64,
    /// Of withdrawals, and changes of addresses and keys.
    pub sensitive_refusals_per_day: f64,
}

/// How a key uses one class of operations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationView {
    /// The class.
    pub op: Operation,
    /// When it first went well.
    pub first_used: EventTime,
    /// Whether it was kept up for a day.
    pub is_habit: bool,
    /// Expected calls a minute in the last hour of the day that was seen.
    pub calls_per_minute: f64,
}

const _: () = assert!(size_of::<KeyState>() <= 1024, "DESIGN.md: 1 KiB a hot key");
