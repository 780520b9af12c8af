//! All keys of the host together: what moves them all is no key's fault.

use serde::{Deserialize, Serialize};

use super::drift::Daily;
use super::key::KeyState;
use super::market::{AgentTable, Market, Uptake};
use super::outcomes::Failures;
use super::peaks::Peaks;
use super::rarity::Rarity;
use super::rate::{Advance, Cohort, Rate};
use super::sizes::EndpointSizes;
use super::{OPS, Slots, saved};
use crate::engine::Settings;
use crate::time::EventTime;

/// Calls a minute expected of all others before their load says anything.
const EXPECTED_MIN: f64 = 5.0;
/// Others' calls before their share of failures says anything: as few as make a burst.
const CALLS_MIN: u32 = 10;
/// No market moves further: it would hide anything.
const FACTOR_MAX: f64 = 8.0;
/// As far as a load that is not shared by a third of the keys counts.
const NARROW_FACTOR_MAX: f64 = 1.5;
/// Minutes of history before the load says anything.
const WINDOWS_MIN: u32 = 60;

/// Load, failures and habits over all keys.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Fleet {
    pub(crate) cohort: Cohort,
    rate: Rate,
    has_begun: bool,
    failures: Failures,
    #[serde(with = "saved::array")]
    last_counts: [u32; OPS],
    last_failures: (u32, u32),
    /// Keys active in the running minute and the one before it; and the busy ones among them.
    active: [u32; 2],
    busy: [u32; 2],
    /// Keys that keep on using each class.
    #[serde(with = "saved::array")]
    users: [u32; OPS],
    /// Logins of people among them, and how many such there are.
    #[serde(with = "saved::array")]
    users_of_logins: [u32; OPS],
    logins: u32,
    /// How many keys learnt each network.
    #[serde(skip)]
    networks: Slots<[u8; 16], Uptake>,
    /// Which agents and TLS clients keys take up.
    #[serde(skip)]
    pub(crate) agents: AgentTable,
    /// Whom tokens are for.
    #[serde(skip)]
    pub(crate) audiences: AgentTable,
    /// What is traded.
    #[serde(skip)]
    pub(crate) market: Market,
    /// Calls a day.
    pub(crate) daily: Daily,
    /// How many API keys, and how many logins of people, call on a day.
    daily_keys: Turnout,
    daily_logins: Turnout,
    /// How often settled keys use each class for the first time; logins apart: people withdraw now and then,
    /// and most programs never do.
    #[serde(with = "saved::array")]
    first_uses: [Rarity; OPS],
    #[serde(with = "saved::array")]
    first_uses_of_logins: [Rarity; OPS],
    /// How often they name another account, name one at all, and name one that another key uses.
    pub(crate) new_accounts: Rarity,
    pub(crate) first_accounts: Rarity,
    pub(crate) others_accounts: Rarity,
    /// How often a key gives an endpoint what no other gives it.
    pub(crate) new_parameters: Rarity,
    /// How far keys come beyond their own rates (D1).
    pub(crate) peaks: Peaks,
    /// Bytes of big answers.
    #[serde(skip)]
    pub(crate) endpoint_sizes: EndpointSizes,
    /// Calls were seen since then, second of the epoch, without a hole of a day; and the last.
    watched_since_s: u32,
    last_s: u32,
}

/// How many keys call on a day.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Turnout {
    day: u32,
    keys: u32,
    last: u32,
}

impl Turnout {
    /// One more calls for the first time on this day.
    fn note(&mut self, day: u32) {
        if day != self.day {
            let follows = self.day.checked_add(1) == Some(day);
            self.last = if follows { self.keys } else { 0 };
            (self.day, self.keys) = (day, 0);
        }
        self.keys = self.keys.saturating_add(1);
    }

    /// Those of the last full day, or of the running one when they are more.
    fn keys(&self) -> usize {
        self.keys.max(self.last) as usize
    }
}

/// Nothing seen for this long means that nobody looked, seconds.
const HOLE_S: u32 = 86_400;

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet::new(&Settings { networks_max: 1, ..Settings::default() })
    }
}

impl Fleet {
    pub(crate) fn new(settings: &Settings) -> Fleet {
        Fleet {
            cohort: Cohort::default(),
            rate: Rate::new(EventTime(0), None),
            has_begun: false,
            failures: Failures::new(),
            last_counts: [0; OPS],
            last_failures: (0, 0),
            active: [0; 2],
            busy: [0; 2],
            users: [0; OPS],
            users_of_logins: [0; OPS],
            logins: 0,
            networks: Slots::new(settings.networks_max, |uptake| uptake.keys > 1),
            agents: AgentTable::new(),
            audiences: AgentTable::new(),
            market: Market::new(),
            daily: Daily::default(),
            daily_keys: Turnout::default(),
            daily_logins: Turnout::default(),
            first_uses: [Rarity::default(); OPS],
            first_uses_of_logins: [Rarity::default(); OPS],
            new_accounts: Rarity::default(),
            first_accounts: Rarity::default(),
            others_accounts: Rarity::default(),
            new_parameters: Rarity::default(),
            peaks: Peaks::default(),
            endpoint_sizes: EndpointSizes::new(),
            watched_since_s: 0,
            last_s: 0,
        }
    }

    /// How many keys learnt each network: for a snapshot.
    pub(crate) fn networks(&self) -> impl Iterator<Item = ([u8; 16], u32)> {
        self.networks.iter().map(|(network, uptake)| (*network, uptake.keys))
    }

    /// Goes on from a snapshot; what no snapshot has stays.
    pub(crate) fn restore(&mut self, saved: Fleet, networks: Vec<([u8; 16], u32)>) {
        let Fleet { networks: known, agents, audiences, market, endpoint_sizes, .. } =
            std::mem::replace(self, saved);
        (self.networks, self.agents, self.audiences) = (known, agents, audiences);
        (self.market, self.endpoint_sizes) = (market, endpoint_sizes);
        for (network, keys) in networks {
            *self.networks.find_or_insert(network, Uptake::default) = Uptake::of_old(keys);
        }
        self.rate.mend();
        self.failures.mend();
        self.peaks.mend();
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Fleet>()
            + self.networks.bytes()
            + self.agents.bytes()
            + self.audiences.bytes()
            + self.market.bytes()
            + self.endpoint_sizes.bytes()
    }

    pub(crate) fn advance(&mut self, time: EventTime, late_minutes: u32) {
        if !self.has_begun {
            self.rate = Rate::new(time, None);
            self.has_begun = true;
        }
        let counts = std::array::from_fn(|op| self.rate.count_of(op));
        match self.rate.advance(time, late_minutes, None) {
            Advance::Same => {}
            Advance::Closed => {
                self.last_counts = counts;
                self.last_failures = self.failures.counts();
                self.failures.close();
                self.active = [0, self.active[0]];
                self.busy = [0, self.busy[0]];
            }
            Advance::Discarded => {
                self.last_counts = [0; OPS];
                self.last_failures = (0, 0);
                self.failures.discard();
                (self.active, self.busy) = ([0; 2], [0; 2]);
            }
        }
    }

    /// A call was seen. Gives since when calls are seen, second of the epoch: the clock jumped, or
    /// nobody looked, where there is a hole of a day.
    pub(crate) fn note_watched(&mut self, now_s: u32) -> u32 {
        if now_s.abs_diff(self.last_s) >= HOLE_S {
            self.watched_since_s = now_s;
        }
        self.last_s = now_s;
        self.watched_since_s
    }

    /// A key's first call in this minute.
    pub(crate) fn note_active(&mut self) {
        self.active[0] += 1;
    }

    /// A key has twice its usual load.
    pub(crate) fn note_busy(&mut self) {
        self.busy[0] += 1;
    }

    /// A key's first call of a day.
    pub(crate) fn note_daily(&mut self, is_login: bool, day: u32) {
        let turnout = if is_login { &mut self.daily_logins } else { &mut self.daily_keys };
        turnout.note(day);
    }

    /// How rare first uses of a class are among keys of its kind, and how many of those call on a day.
    pub(crate) fn first_uses(&mut self, op: usize, is_login: bool) -> (&mut Rarity, usize) {
        if is_login {
            (&mut self.first_uses_of_logins[op], self.daily_logins.keys())
        } else {
            (&mut self.first_uses[op], self.daily_keys.keys())
        }
    }

    /// Counts an ordinary call: what is beyond a key's own threshold moves no other's.
    pub(crate) fn count(&mut self, op: usize) {
        self.rate.count(op);
    }

    pub(crate) fn count_outcome(&mut self, failed: bool) {
        self.failures.count(failed);
    }

    /// How much busier than usual all keys but this one are: at least 1.
    pub(crate) fn factor(&self, op: usize, own: &Rate, elapsed_share: f64) -> f64 {
        let expected = self.rate.expected_of(op) - own.expected_of(op);
        if self.rate.windows_seen() < WINDOWS_MIN || expected < EXPECTED_MIN {
            return 1.0;
        }
        let others = self.rate.count_of(op).saturating_sub(own.count_of(op));
        let running = f64::from(others) / (expected * elapsed_share.clamp(0.1, 1.0));
        let last = f64::from(self.last_counts[op]) / self.rate.expected_of(op);
        let is_shared = self.busy.iter().sum::<u32>() * 3 >= self.active.iter().sum::<u32>();
        let max = if is_shared { FACTOR_MAX } else { NARROW_FACTOR_MAX };
        running.max(last).clamp(1.0, max)
    }

    /// What part of the calls of all keys but this one fails now; 0 when they are too few to say.
    pub(crate) fn failure_share(&self, own: &Failures) -> f64 {
        let (own_calls, own_failed) = own.counts();
        let (calls, failed) = self.failures.counts();
        let running = (calls.saturating_sub(own_calls), failed.saturating_sub(own_failed));
        let (last_calls, last_failed) = self.last_failures;
        let both = (running.0.saturating_add(last_calls), running.1.saturating_add(last_failed));
        // The minute before dilutes an outage that has just begun.
        [running, both]
            .into_iter()
            .filter(|(calls, _)| *calls >= CALLS_MIN)
            .fold(0.0, |share: f64, (calls, failed)| {
                share.max(f64::from(failed) / f64::from(calls))
            })
    }

    /// A key keeps on using a class.
    pub(crate) fn note_user(&mut self, op: usize, is_login: bool) {
        self.users[op] += 1;
        self.users_of_logins[op] += u32::from(is_login);
    }

    /// A key is a person's login, with what it kept on using so far.
    pub(crate) fn note_login(&mut self, key: &KeyState) {
        self.logins += 1;
        (0..OPS).filter(|op| key.has_habit(*op)).for_each(|op| self.users_of_logins[op] += 1);
    }

    /// A key is known again.
    pub(crate) fn note_habits(&mut self, key: &KeyState) {
        self.logins += u32::from(key.is_login());
        let is_login = key.is_login();
        (0..OPS).filter(|op| key.has_habit(*op)).for_each(|op| self.note_user(op, is_login));
    }

    /// A key was dropped.
    pub(crate) fn forget_habits(&mut self, key: &KeyState) {
        let one = u32::from(key.is_login());
        self.logins = self.logins.saturating_sub(one);
        for op in (0..OPS).filter(|op| key.has_habit(*op)) {
            self.users[op] = self.users[op].saturating_sub(1);
            self.users_of_logins[op] = self.users_of_logins[op].saturating_sub(one);
        }
    }

    /// What part of all other keys of its kind, of so many keys in all, uses a class.
    pub(crate) fn share_using(&self, op: usize, is_login: bool, keys: usize) -> f64 {
        let (logins, of_logins) = (self.logins, self.users_of_logins[op]);
        let (users, keys) = if is_login {
            (of_logins, logins as usize)
        } else {
            (self.users[op].saturating_sub(of_logins), keys.saturating_sub(logins as usize))
        };
        let others = keys.saturating_sub(1);
        if others == 0 { 0.0 } else { (f64::from(users) / others as f64).min(1.0) }
    }

    /// A key learnt a network.
    pub(crate) fn note_network(&mut self, prefix: [u8; 16], day: u32) {
        self.networks.find_or_insert(prefix, Uptake::default).note(day, true);
    }

    /// How many keys are at home in a network: they came before yesterday. Those who come now may be one
    /// thief's.
    pub(crate) fn keys_in_network(&mut self, prefix: &[u8; 16], day: u32) -> u32 {
        self.networks
            .find(prefix)
            .map_or(0, |uptake| uptake.keys.saturating_sub(uptake.recent(day)))
    }
}
