//! Who uses the sample exchange: a dozen keys, what each may do, and what it usually does.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use fastrand::Rng;
use httparse::Header;
use monitor_core::call::KeyId;
use monitor_core::identity::{Identified, Identifier, RequestHead, Secret};

use crate::exchange::{KeyEntry, Permission};

/// One holder of an API key.
pub(super) struct Actor {
    /// What people call it.
    pub(super) name: String,
    /// The key: 64 letters and digits, as Binance's are.
    pub(super) key: String,
    /// What it does all day.
    pub(super) role: Role,
    /// The one address it comes from.
    pub(super) home: IpAddr,
    /// Its client library.
    pub(super) user_agent: &'static str,
    /// The instruments it cares for.
    pub(super) symbols: [&'static str; 2],
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Places and cancels orders.
    Trader,
    /// Watches balances and prices.
    Portfolio,
    /// Reads, and sends funds out now and then.
    Treasury,
}

/// One request before it is sent.
pub(super) struct Asked {
    /// Method.
    pub(super) method: &'static str,
    /// Target with its query.
    pub(super) target: String,
    /// Response bytes that the sample exchange sends for it.
    pub(super) response_bytes: u64,
}

/// Which of the dozen is stolen: a trader without permission to withdraw.
pub(super) const STOLEN: usize = 3;

const ROLES: [Role; 12] = [
    Role::Trader,
    Role::Trader,
    Role::Trader,
    Role::Trader,
    Role::Trader,
    Role::Trader,
    Role::Portfolio,
    Role::Portfolio,
    Role::Portfolio,
    Role::Portfolio,
    Role::Treasury,
    Role::Treasury,
];
const USER_AGENTS: [&str; 4] =
    ["python-binance/1.0.19", "ccxt/4.5.90", "binance-connector-rust/2.1", "okhttp/4.12.0"];
const SYMBOLS: [[&str; 2]; 3] =
    [["BTCUSDT", "ETHUSDT"], ["ETHUSDT", "SOLUSDT"], ["BTCUSDT", "SOLUSDT"]];

/// The dozen. The keys come out of `rng`; nothing here is a real credential.
pub(super) fn dozen(rng: &mut Rng) -> Vec<Actor> {
    (1..)
        .zip(ROLES)
        .map(|(number, role)| Actor {
            name: format!("{}-{number:02}", role.name()),
            key: random_key(rng),
            role,
            home: Ipv4Addr::new(127, 0, 1, number).into(),
            user_agent: USER_AGENTS[rng.usize(..USER_AGENTS.len())],
            symbols: SYMBOLS[rng.usize(..SYMBOLS.len())],
        })
        .collect()
}

/// A key that the exchange may or may not know.
pub(super) fn random_key(rng: &mut Rng) -> String {
    std::iter::repeat_with(|| rng.alphanumeric()).take(64).collect()
}

/// The same secret as Keywatch gets, so that the history's key ids are the live ones.
pub(super) fn identifier(secret: &[u8; 32]) -> Identifier {
    Identifier::new(Secret::new(*secret))
}

impl Role {
    /// Part of a name.
    fn name(self) -> &'static str {
        match self {
            Role::Trader => "trader",
            Role::Portfolio => "portfolio",
            Role::Treasury => "treasury",
        }
    }

    fn permissions(self) -> Vec<Permission> {
        match self {
            Role::Trader => vec![Permission::Read, Permission::Trade],
            Role::Portfolio => vec![Permission::Read],
            Role::Treasury => vec![Permission::Read, Permission::Withdraw],
        }
    }

    /// Calls a second while it is at work.
    pub(super) fn calls_per_second(self) -> f64 {
        match self {
            Role::Trader => 2.0,
            Role::Portfolio => 1.0,
            Role::Treasury => 0.5,
        }
    }
}

impl Actor {
    /// Its line in the exchange's key file.
    pub(super) fn entry(&self) -> KeyEntry {
        KeyEntry { key: self.key.clone(), permissions: self.role.permissions() }
    }

    /// What it asks next.
    pub(super) fn next_request(&self, rng: &mut Rng) -> Asked {
        let symbol = self.symbols[rng.usize(..self.symbols.len())];
        match (self.role, rng.u32(..100)) {
            (Role::Trader, 0..40) => Asked::order("POST", symbol, rng),
            (Role::Trader, 40..65) => Asked::order("DELETE", symbol, rng),
            (Role::Treasury, 0..3) => Asked::withdrawal(rng),
            (Role::Trader, 65..80) | (Role::Portfolio, 0..60) | (Role::Treasury, 3..80) => {
                Asked::signed("GET", "/api/v3/account", 171, rng)
            }
            (Role::Trader | Role::Portfolio | Role::Treasury, _) => Asked {
                method: "GET",
                target: format!("/api/v3/ticker/price?symbol={symbol}"),
                response_bytes: 41,
            },
        }
    }

    /// What Keywatch will say about a request of this key.
    pub(super) fn identify(&self, identifier: &Identifier, asked: &Asked) -> Identified {
        let headers = [Header { name: "X-MBX-APIKEY", value: self.key.as_bytes() }];
        identifier.identify(&RequestHead {
            method: asked.method,
            target: &asked.target,
            headers: &headers,
        })
    }

    /// The id that stands for its key in every record.
    pub(super) fn key_id(&self, identifier: &Identifier) -> Result<KeyId> {
        let asked = Asked { method: "GET", target: "/api/v3/account".into(), response_bytes: 0 };
        let key = self.identify(identifier, &asked).key;
        Ok(key.context("Keywatch does not recognise the X-MBX-APIKEY header")?.id)
    }

    /// Header lines that come with each of its requests.
    pub(super) fn headers(&self) -> String {
        headers(&self.key, self.user_agent)
    }
}

/// Header lines of a request with `key`.
pub(super) fn headers(key: &str, user_agent: &str) -> String {
    format!("X-MBX-APIKEY: {key}\r\nUser-Agent: {user_agent}\r\n")
}

impl Asked {
    /// A market order, placed or cancelled.
    pub(super) fn order(method: &'static str, symbol: &str, rng: &mut Rng) -> Asked {
        let quantity = rng.u32(1..500);
        let path =
            format!("/api/v3/order?symbol={symbol}&side=BUY&type=MARKET&quantity=0.{quantity:03}");
        Asked::signed(method, &path, 52, rng)
    }

    /// A withdrawal.
    pub(super) fn withdrawal(rng: &mut Rng) -> Asked {
        let path = "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=0.25&address=bc1qdemo";
        Asked::signed("POST", path, 18, rng)
    }

    fn signed(method: &'static str, path: &str, response_bytes: u64, rng: &mut Rng) -> Asked {
        let separator = if path.contains('?') { '&' } else { '?' };
        let signature: String = std::iter::repeat_with(|| rng.digit(16)).take(64).collect();
        let target = format!("{path}{separator}recvWindow=5000&signature={signature}");
        Asked { method, target, response_bytes }
    }
}
