//! `cargo xtask bench identity`: what it costs to tell who asks, what for, and how it ended.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use httparse::Header;
use monitor_core::call::{Outcome, Request};
use monitor_core::identity::{Identifier, RequestHead, Secret, leaks};

use super::{median, table};

/// How often, and how long.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds over the mix in a run
    #[arg(long, default_value_t = 100_000)]
    rounds: u32,
    /// Runs; the middle one counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

/// A call as an exchange sees it: fields that every client sends come with each.
struct Sample {
    method: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    reply: &'static str,
    outcome: Outcome,
}

const EVERYDAY: [(&str, &str); 6] = [
    ("Host", "api.example.com"),
    ("User-Agent", "python-requests/2.32.3"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Accept", "*/*"),
    ("Connection", "keep-alive"),
    ("Content-Type", "application/json"),
];

/// Reads and orders of several styles, one in eight refused.
const MIX: [Sample; 8] = [
    Sample {
        method: "GET",
        target: "/api/v3/account?timestamp=1795464000123&recvWindow=5000&signature=00112233445566778899aabbccddeeff",
        headers: &[("X-MBX-APIKEY", "made-up-binance-key-0123456789abcdef0123456789abcdef")],
        body: "",
        status: 200,
        reply: r#"{"balances":[]}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "POST",
        target: "/api/v3/order?symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=100&timestamp=1795464000123&signature=0011",
        headers: &[("X-MBX-APIKEY", "made-up-binance-key-0123456789abcdef0123456789abcdef")],
        body: "",
        status: 200,
        reply: r#"{"symbol":"BTCUSDT","orderId":1}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "POST",
        target: "/api/v5/trade/order",
        headers: &[
            ("OK-ACCESS-KEY", "made-up-okx-key"),
            ("OK-ACCESS-SIGN", "made-up-sign"),
            ("OK-ACCESS-TIMESTAMP", "2026-11-23T20:00:00.000Z"),
            ("OK-ACCESS-PASSPHRASE", "made-up-pass"),
        ],
        body: r#"{"instId":"BTC-USDT","tdMode":"cash","side":"buy","ordType":"limit","sz":"0.5","px":"100"}"#,
        status: 200,
        reply: r#"{"code":"0","msg":"","data":[{"ordId":"9","sCode":"0"}]}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "GET",
        target: "/v5/position/list?category=linear&symbol=BTCUSDT",
        headers: &[
            ("X-BAPI-API-KEY", "made-up-bybit-key"),
            ("X-BAPI-SIGN", "made-up-sign"),
            ("X-BAPI-TIMESTAMP", "1795464000000"),
        ],
        body: "",
        status: 200,
        reply: r#"{"retCode":0,"retMsg":"OK","result":{"list":[]}}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "POST",
        target: "/0/private/AddOrder",
        headers: &[("API-Key", "made-up-kraken-key"), ("API-Sign", "made-up-sign")],
        body: "nonce=1795464000123&ordertype=limit&type=buy&volume=1.25&pair=XBTUSD&price=37500",
        status: 200,
        reply: r#"{"error":[],"result":{"txid":["OU22CG"]}}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "GET",
        target: "/api/v3/brokerage/orders/historical/batch?product_id=BTC-USD",
        headers: &[(
            "Authorization",
            "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6Im1hZGUtdXAifQ.eyJzdWIiOiJtYWRlLXVwLWtleSIsImlzcyI6ImNkcCIsImV4cCI6MTc5NTQ2NDEyMCwibmJmIjoxNzk1NDY0MDAwfQ.bWFkZS11cA",
        )],
        body: "",
        status: 200,
        reply: r#"{"orders":[],"has_next":false}"#,
        outcome: Outcome::Ok,
    },
    Sample {
        method: "GET",
        target: "/v1/positions/42?page=1",
        headers: &[("Authorization", "Bearer made-up-token-of-nobody")],
        body: "",
        status: 200,
        reply: "{}",
        outcome: Outcome::Ok,
    },
    Sample {
        method: "POST",
        target: "/sapi/v1/capital/withdraw/apply?coin=BTC&amount=1&signature=0011",
        headers: &[("X-MBX-APIKEY", "made-up-binance-key-fedcba9876543210fedcba9876543210")],
        body: "",
        status: 400,
        reply: r#"{"code":-4035,"msg":"Withdrawal address is not whitelisted for verification."}"#,
        outcome: Outcome::AddressNotAllowed,
    },
];

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let identifier = Identifier::new(Secret::new([7; 32]));
    let samples: Vec<(Vec<Header<'_>>, Request)> = MIX.iter().map(prepare).collect();
    let once = || -> Result<()> {
        for (sample, (headers, request)) in MIX.iter().zip(&samples) {
            let head = RequestHead { method: sample.method, target: sample.target, headers };
            let mut identified = identifier.identify(&head);
            if !sample.body.is_empty() {
                identifier.read_body(request, &mut identified, sample.body.as_bytes());
            }
            let style = identified.style;
            let is_read = identifier.reads_reply(style, sample.status)
                || identifier.looks_for_leaks(style, identified.op);
            let reply = if is_read { sample.reply } else { "" };
            let outcome = identifier.outcome(style, sample.status, reply.as_bytes());
            ensure!(outcome == sample.outcome, "{}: {outcome}", sample.target);
            black_box((identified, leaks(reply.as_bytes())));
        }
        Ok(())
    };
    let mut nanos = Vec::new();
    for _ in 0..options.runs {
        let begin = Instant::now();
        for _ in 0..options.rounds {
            once()?;
        }
        let calls = f64::from(options.rounds) * MIX.len() as f64;
        nanos.push(begin.elapsed().as_nanos() as f64 / calls);
    }
    let measured = format!("{:.0} ns", median(&nanos));
    table(&[("identity, profile and outcome of a call".into(), measured, "1500 ns")]);
    if cfg!(debug_assertions) {
        println!("a debug build: nothing is known of the release build by this");
    }
    Ok(())
}

fn prepare(sample: &Sample) -> (Vec<Header<'static>>, Request) {
    let all = EVERYDAY.iter().chain(sample.headers);
    let headers = all.map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let path = sample.target.split('?').next().unwrap_or_default();
    let request = Request {
        method: sample.method.into(),
        host: None,
        target: "".into(),
        path: path.into(),
        user_agent: None,
        header_order: None,
        body_bytes: sample.body.len() as u64,
    };
    (headers, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_what_it_says() {
        run(&Options { rounds: 1, runs: 1 }).unwrap();
    }
}
