//! What Keywatch saw beside what the server logged: the same multiset of calls, with their sizes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use monitor_core::call::ApiCall;
use xtask::nginx::Logged;

/// The call as a server would log it; the missing half of one that was not seen whole is 0 or empty.
pub(crate) fn as_logged(call: &ApiCall) -> Logged {
    let request = call.request.as_ref();
    let response = call.response.as_ref();
    Logged {
        client: SocketAddr::new(call.flow.client.ip(), call.flow.client.port),
        method: request.map(|r| r.method.to_string()).unwrap_or_default(),
        target: request.map(|r| r.target.to_string()).unwrap_or_default(),
        status: response.and_then(|r| r.status).unwrap_or(0),
        body_bytes_sent: response.map_or(0, |r| r.body_bytes),
        body_bytes_received: request.map_or(0, |r| r.body_bytes),
    }
}

/// Fails with the first few that only one side has.
pub(crate) fn same_calls(calls: &[ApiCall], logged: &[Logged]) -> Result<()> {
    let mut balance: BTreeMap<Logged, i64> = BTreeMap::new();
    for call in calls {
        *balance.entry(as_logged(call)).or_default() += 1;
    }
    for line in logged {
        *balance.entry(line.clone()).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    let first: Vec<String> = balance
        .iter()
        .take(4)
        .map(|(call, count)| {
            let side = if *count > 0 { "only Keywatch" } else { "only the server" };
            format!("{side} ({count}): {call:?}")
        })
        .collect();
    ensure!(
        balance.is_empty(),
        "Keywatch has {} calls, the server {}:\n{}",
        calls.len(),
        logged.len(),
        first.join("\n")
    );
    Ok(())
}

/// Each call was seen whole and without oddities.
pub(crate) fn all_whole(calls: &[ApiCall]) -> Result<()> {
    let odd = calls.iter().find(|call| !call.complete || !call.anomalies.is_empty());
    ensure!(odd.is_none(), "not whole: {odd:?}");
    Ok(())
}
