//! What all keys do alike: which agents and symbols they take up, and how much a symbol is traded.

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::{Slots, saved};

/// Agents held: an exchange has a few hundred client libraries. 40 B each.
const AGENTS_MAX: usize = 4_096;
/// Symbols held: the largest exchanges list a few thousand pairs, those of options a few ten
/// thousand instruments. 48 B each.
const SYMBOLS_MAX: usize = 32_768;
/// Trades are forgotten by half in a week.
const HALF_LIFE_DAYS: f32 = 7.0;
/// For so long a symbol is newly listed, days.
const NEW_DAYS: u32 = 7;
/// Keys that take up a new symbol before it is a listing and not one key's fancy.
const LISTED_KEYS: u32 = 4;
/// Trades over all symbols before a share of them says anything.
const TRADES_MIN: f32 = 500.0;

/// Symbols in a snapshot, 60 B each: nobody looks for the others in the hours after a restart.
const SYMBOLS_SAVED_MAX: usize = 8_192;

/// How many keys took something up.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Uptake {
    /// Ever.
    pub(crate) keys: u32,
    day: u32,
    /// Today, and on the day before: of keys that were settled.
    days: [u32; 2],
}

impl Uptake {
    /// Long ago, by so many.
    pub(crate) fn of_old(keys: u32) -> Uptake {
        Uptake { keys, ..Uptake::default() }
    }

    pub(crate) fn note(&mut self, day: u32, is_settled: bool) {
        self.advance(day);
        self.keys = self.keys.saturating_add(1);
        self.days[0] += u32::from(is_settled);
    }

    /// Settled keys that took it up on this day or the one before.
    pub(crate) fn recent(&mut self, day: u32) -> u32 {
        self.advance(day);
        self.days[0].saturating_add(self.days[1])
    }

    fn advance(&mut self, day: u32) {
        if day != self.day {
            self.days = [0, if day == self.day.saturating_add(1) { self.days[0] } else { 0 }];
            self.day = day;
        }
    }
}

impl Default for AgentTable {
    fn default() -> AgentTable {
        AgentTable::new()
    }
}

impl Default for Market {
    fn default() -> Market {
        Market::new()
    }
}

/// Which agents and TLS clients keys take up.
pub(crate) struct AgentTable(Slots<u16, Uptake>);

impl AgentTable {
    pub(crate) fn new() -> AgentTable {
        AgentTable(Slots::new(AGENTS_MAX, |uptake| uptake.keys > 1))
    }

    pub(crate) fn note(&mut self, family: u16, day: u32, is_settled: bool) {
        self.0.find_or_insert(family, Uptake::default).note(day, is_settled);
    }

    /// Keys that ever used it, and settled ones that took it up since yesterday.
    pub(crate) fn uptake(&mut self, family: u16, day: u32) -> (u32, u32) {
        self.0.find(&family).map_or((0, 0), |uptake| (uptake.keys, uptake.recent(day)))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// For a snapshot: those that more than one key uses.
    pub(crate) fn save(&self) -> Vec<(u16, &Uptake)> {
        self.0.to_save(AGENTS_MAX)
    }

    pub(crate) fn restore(&mut self, saved: Vec<(u16, Uptake)>) {
        self.0.take_back(saved);
    }
}

/// How much each symbol is traded by all keys.
pub(crate) struct Market {
    symbols: Slots<u64, Symbol>,
    trades: Faded,
    /// First day with a trade; before anything is known every symbol is new.
    since_day: u32,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Symbol {
    uptake: Uptake,
    trades: Faded,
    since_day: u32,
}

/// A count that fades.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Faded {
    count: f32,
    day: u32,
}

impl Faded {
    fn at(&mut self, day: u32) -> f32 {
        if day > self.day {
            self.count *= (-((day - self.day) as f32) / HALF_LIFE_DAYS).exp2();
        }
        self.day = day;
        self.count
    }
}

/// A market as it lies in a snapshot: symbols that more than one key traded.
#[derive(Serialize)]
pub(crate) struct SavedRef<'a> {
    symbols: Vec<(u64, &'a Symbol)>,
    trades: Faded,
    since_day: u32,
}

/// The same, read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    symbols: Vec<(u64, Symbol)>,
    trades: Faded,
    since_day: u32,
}

/// How a symbol stands among all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Its part of all trades, from 0 to 1; `None` while too few are known.
    pub(crate) share: Option<f32>,
    /// Keys that ever traded it.
    pub(crate) keys: u32,
    /// New to all, and taken up by several.
    pub(crate) is_listing: bool,
}

impl Market {
    pub(crate) fn new() -> Market {
        Market {
            symbols: Slots::new(SYMBOLS_MAX, |symbol| symbol.uptake.keys > 1),
            trades: Faded::default(),
            since_day: 0,
        }
    }

    pub(crate) fn save(&self) -> SavedRef<'_> {
        SavedRef {
            symbols: self.symbols.to_save(SYMBOLS_SAVED_MAX),
            trades: self.trades,
            since_day: self.since_day,
        }
    }

    pub(crate) fn restore(&mut self, mut saved: Saved) {
        let faded = saved.symbols.iter_mut().map(|(_, symbol)| &mut symbol.trades);
        for faded in faded.chain([&mut saved.trades]) {
            saved::mend(&mut faded.count, 0.0..=f32::MAX, 0.0);
        }
        self.symbols.take_back(saved.symbols);
        (self.trades, self.since_day) = (saved.trades, saved.since_day);
    }

    pub(crate) fn hash(symbol: &str) -> u64 {
        use std::hash::BuildHasher;
        FixedState::with_seed(0).hash_one(symbol)
    }

    pub(crate) fn standing(&mut self, symbol: u64, day: u32) -> Standing {
        let all = self.trades.at(day);
        let since_day = self.since_day;
        let Some(symbol) = self.symbols.find(&symbol) else {
            let share = (all >= TRADES_MIN).then_some(0.0);
            return Standing { share, keys: 0, is_listing: false };
        };
        let is_new = symbol.since_day > since_day.saturating_add(1)
            && day.saturating_sub(symbol.since_day) < NEW_DAYS;
        Standing {
            share: (all >= TRADES_MIN).then(|| symbol.trades.at(day) / all),
            keys: symbol.uptake.keys,
            is_listing: is_new && symbol.uptake.keys >= LISTED_KEYS,
        }
    }

    /// A key took up a symbol.
    pub(crate) fn note_key(&mut self, symbol: u64, day: u32, is_settled: bool) {
        self.symbol(symbol, day).uptake.note(day, is_settled);
    }

    /// A trade of a symbol that its key is used to: what an attacker pushes does not count.
    pub(crate) fn note_trade(&mut self, symbol: u64, day: u32) {
        self.trades.at(day);
        self.trades.count += 1.0;
        let symbol = self.symbol(symbol, day);
        symbol.trades.at(day);
        symbol.trades.count += 1.0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.symbols.bytes()
    }

    fn symbol(&mut self, symbol: u64, day: u32) -> &mut Symbol {
        if self.since_day == 0 {
            self.since_day = day;
        }
        self.symbols.find_or_insert(symbol, || Symbol { since_day: day, ..Symbol::default() })
    }
}
