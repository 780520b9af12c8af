//! Made-up calls with attacks among them.

use fastrand::Rng;
use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;
use serde_json::json;

/// 2026-11-23T20:00:00Z, nanoseconds.
const BEGIN_NS: u64 = 1_795_464_000_000_000_000;
/// Between two calls.
const STEP_NS: u64 = 2_000_000;

/// So many calls in order of time. Most are reads of good keys; one key in eight is refused withdrawals
/// now and then, and a client tries keys that nobody has.
pub(super) fn make(mut rng: Rng, count: usize) -> impl Iterator<Item = ApiCall> {
    let keys = (count / 50).clamp(16, 20_000);
    (0..count).filter_map(move |number| {
        let time = EventTime(BEGIN_NS + number as u64 * STEP_NS);
        let key = match number {
            // Every key is accepted once before anything else.
            number if number < keys => number,
            _ => rng.usize(0..keys),
        };
        match rng.u8(0..100) {
            _ if number < keys => call(&mut rng, time, &key_id(key), key, "read", "ok"),
            0..=1 if key % 8 == 0 => {
                call(&mut rng, time, &key_id(key), key, "withdraw", "permission_denied")
            }
            2..=4 => {
                let made_up = format!("k_{:032x}", u128::from(rng.u64(..)) << 64 | 0xbad);
                // Ten clients of as many networks.
                let client = 1_000_000 + number / 500 % 10;
                call(&mut rng, time, &made_up, client, "read", "bad_key")
            }
            _ => call(&mut rng, time, &key_id(key), key, "read", "ok"),
        }
    })
}

fn key_id(number: usize) -> String {
    // Spread over the partitions as hashes are.
    format!(
        "k_{:032x}",
        (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    )
}

fn call(
    rng: &mut Rng,
    time: EventTime,
    key: &str,
    client: usize,
    op: &str,
    outcome: &str,
) -> Option<ApiCall> {
    let (method, path, status) = match op {
        "withdraw" => ("POST", "/sapi/v1/capital/withdraw/apply", 403),
        _ if outcome == "ok" => ("GET", "/api/v3/account", 200),
        _ => ("GET", "/api/v3/account", 401),
    };
    // Each key has a network of its own, so that addresses say nothing about others.
    let address = format!("10.{}.{}.9:40000", client >> 8 & 0xff, client & 0xff);
    let address = match client {
        1_000_000.. => format!("192.0.{}.66:40000", client - 1_000_000),
        0x1_0000.. => format!("11.{}.{}.9:40000", client >> 8 & 0xff, client & 0xff),
        _ => address,
    };
    serde_json::from_value(json!({
        "time": time,
        "flow": {
            "id": format!("f_{:016x}", rng.u64(..)),
            "client": address, "server": "10.255.0.5:443", "tls": true,
            "process": null, "pid": null, "container": null,
        },
        "protocol": "http/1.1",
        "request": {
            "method": method, "host": "api.example.com", "target": path, "path": path,
            "user_agent": null, "body_bytes": 0,
        },
        "response": { "status": status, "body_bytes": 20 },
        "latency_us": 900,
        "key": { "id": key, "source": "header:x-mbx-apikey", "profile": "binance" },
        "op": op, "symbol": null, "object_ids": [], "outcome": outcome,
        "complete": true, "anomalies": [],
    }))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_are_made() {
        let calls: Vec<_> = make(Rng::with_seed(1), 2_000).collect();
        assert_eq!(calls.len(), 2_000);
        let denied = calls.iter().filter(|call| call.op.as_str() == "withdraw").count();
        assert!(denied > 0);
    }
}
