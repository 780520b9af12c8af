//! What a client has at the exchange: accounts and orders, by their numbers.

use crate::client::Role;
use crate::random::Random;
use crate::{DAY, SECOND, START};

/// Orders of all customers are numbered by one counter, so that nobody's own are neighbours. Forty a
/// second is a quiet day of a large exchange.
const ORDERS_PER_SECOND: u64 = 40;

/// Open orders of one client that it asks for and cancels: the latest few.
const OPEN_ORDERS: usize = 4;

/// The number of an order that is placed now.
pub(crate) fn order_at(now: u64) -> u64 {
    4_000_000_000 + now.saturating_sub(START) * ORDERS_PER_SECOND / SECOND
}

/// Accounts and open orders of one client.
pub(crate) struct Ledger {
    /// Those that it names in its calls. Half of the clients name none: with most keys the account goes
    /// without saying; who has sub-accounts, and a broker for its customers, has to say.
    accounts: Vec<u64>,
    /// When it gets another: one in three hundred days.
    next_account: u64,
    orders: [u64; OPEN_ORDERS],
}

impl Ledger {
    /// With `own` as the first account.
    pub(crate) fn new(role: Role, own: u64, random: &mut Random) -> Ledger {
        let count = match role {
            Role::Broker => 1 + random.pareto(1.0, 0.8).min(20.0) as u64,
            Role::MarketMaker => 1 + random.below(3),
            Role::RetailBot | Role::Portfolio | Role::Dormant => 1 + random.below(20) / 17,
            Role::Mobile => 0,
        };
        let count = if random.chance(0.5) { count } else { 0 };
        let oldest = order_at(START) - 30 * DAY / SECOND * ORDERS_PER_SECOND;
        Ledger {
            accounts: (0..count).map(|n| if n == 0 { own } else { any_account(random) }).collect(),
            next_account: START + (random.exponential(300.0) * DAY as f64) as u64,
            orders: std::array::from_fn(|_| oldest + random.below(order_at(START) - oldest)),
        }
    }

    /// An order is placed; its number.
    pub(crate) fn place(&mut self, now: u64, random: &mut Random) -> u64 {
        self.orders.rotate_right(1);
        self.orders[0] = order_at(now) + random.below(ORDERS_PER_SECOND);
        self.orders[0]
    }

    /// One of the open orders.
    pub(crate) fn order(&self, random: &mut Random) -> u64 {
        random.one(&self.orders)
    }

    /// The account that a call names, mostly the first.
    pub(crate) fn account(&mut self, now: u64, random: &mut Random) -> Option<u64> {
        let first = *self.accounts.first()?;
        if now >= self.next_account {
            self.accounts.push(any_account(random));
            self.next_account = now + (random.exponential(300.0) * DAY as f64) as u64;
        }
        Some(if random.chance(0.5) { first } else { random.one(&self.accounts) })
    }
}

/// The number of some account.
pub(crate) fn any_account(random: &mut Random) -> u64 {
    1_000_000 + random.below(1 << 32)
}
