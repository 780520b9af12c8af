//! What a key trades: its usual symbols, and the new one that it trades now.

use serde::{Deserialize, Serialize};

use super::marks::{Mark, Marks};

/// How long a new symbol is followed, seconds.
const FRESH_S: u32 = 3_600;

/// Symbols of one key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Symbols {
    known: Marks,
    /// Orders that went well, as far as it matters.
    orders: u16,
    /// Days with orders, and new symbols on them.
    days: u16,
    later: u16,
    day: u16,
    /// The new symbol that is followed, its orders, and since when.
    fresh: u16,
    fresh_orders: u16,
    fresh_s: u32,
}

/// What a symbol is to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Familiarity {
    /// Traded before.
    Usual,
    /// Never traded before the last hour, and so many orders in it.
    Fresh(u16),
}

impl Symbols {
    /// An order for a symbol.
    pub(crate) fn look(&mut self, symbol: u64, now_s: u32) -> Familiarity {
        let mark = Mark::of(symbol);
        let is_fresh = self.fresh == mark.number() && now_s.abs_diff(self.fresh_s) <= FRESH_S;
        if is_fresh {
            self.fresh_orders = self.fresh_orders.saturating_add(1);
            return Familiarity::Fresh(self.fresh_orders);
        }
        if self.known.has(mark) {
            return Familiarity::Usual;
        }
        self.fresh = mark.number();
        (self.fresh_s, self.fresh_orders) = (now_s, 1);
        Familiarity::Fresh(1)
    }

    /// Remembers a symbol of an order that went well; true when it is new.
    pub(crate) fn learn(&mut self, symbol: u64, now_s: u32) -> bool {
        let day = (now_s / 86_400) as u16;
        if day != self.day {
            self.day = day;
            self.days = self.days.saturating_add(1);
        }
        self.orders = self.orders.saturating_add(1);
        let first = self.known.is_empty();
        let new = self.known.add(Mark::of(symbol));
        if new && !first && self.days > 1 {
            self.later = self.later.saturating_add(1);
        }
        new
    }

    /// Orders before this one, up to 65,535.
    pub(crate) fn orders(&self) -> u16 {
        self.orders
    }

    /// True when all its orders were for the symbol that it now trades.
    pub(crate) fn never_traded(&self) -> bool {
        self.orders < self.fresh_orders
    }

    /// Symbols that it is known to trade, sixteen at most.
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    /// The chance that a day of trading brings a new symbol, by Laplace's rule of succession.
    pub(crate) fn chance_of_new(&self) -> f64 {
        ((f64::from(self.later) + 1.0) / (f64::from(self.days) + 2.0)).min(1.0)
    }
}
