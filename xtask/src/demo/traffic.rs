//! The live part: ordinary bouts, a thief, and someone with a list of bad keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::actors::{self, Actor, Asked};
use super::history::pause;
use crate::http::Connection;
use crate::process;

/// Where the thief comes from.
pub(super) const THIEF: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 66, 7, 8));
/// Where the bad keys come from.
pub(super) const STUFFER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 99, 4, 4));

const THIEF_ORDERS: u32 = 400;
const THIEF_PAUSE: Duration = Duration::from_millis(10);
const BAD_KEYS: u32 = 3000;
const BAD_KEYS_PER_CONNECTION: u32 = 500;

/// One bout of ordinary work until `end`; gives the number of calls made.
pub(super) fn ordinary(
    actor: &Actor,
    server: SocketAddr,
    end: Instant,
    mut rng: Rng,
) -> Result<u64> {
    let mut connection = Connection::open_from(Some(actor.home), server)?;
    let headers = actor.headers();
    let mut calls = 0;
    let mut next = Instant::now() + pause(actor.role.calls_per_second(), &mut rng);
    while next < end {
        process::sleep_until(next)?;
        let asked = actor.next_request(&mut rng);
        let reply = connection.call(asked.method, &asked.target, &headers, b"")?;
        ensure!(reply.status == 200, "{} was answered {}", actor.name, reply.status);
        calls += 1;
        next += pause(actor.role.calls_per_second(), &mut rng);
    }
    Ok(calls)
}

/// The stolen key at work: from elsewhere, with another client, buying one thin market as fast as
/// it can, then trying to take the money out.
pub(super) fn theft(victim: &Actor, server: SocketAddr, rng: &mut Rng) -> Result<u64> {
    let mut connection = Connection::open_from(Some(THIEF), server)?;
    let headers = actors::headers(&victim.key, "curl/7.88.1");
    let account = "/api/v3/account";
    ensure!(connection.call("GET", account, &headers, b"")?.status == 200, "the theft failed");
    for _ in 0..THIEF_ORDERS {
        let asked = Asked::order("POST", "VIABTC", rng);
        connection.call(asked.method, &asked.target, &headers, b"")?;
        process::sleep_until(Instant::now() + THIEF_PAUSE)?;
    }
    for _ in 0..3 {
        let asked = Asked::withdrawal(rng);
        let reply = connection.call(asked.method, &asked.target, &headers, b"")?;
        ensure!(reply.status == 403, "the withdrawal was answered {}", reply.status);
    }
    Ok(u64::from(THIEF_ORDERS) + 4)
}

/// Thousands of keys that the exchange does not know.
pub(super) fn stuffing(server: SocketAddr, rng: &mut Rng) -> Result<u64> {
    for _ in 0..BAD_KEYS / BAD_KEYS_PER_CONNECTION {
        let mut connection = Connection::open_from(Some(STUFFER), server)?;
        for _ in 0..BAD_KEYS_PER_CONNECTION {
            process::check_interrupted()?;
            let headers = actors::headers(&actors::random_key(rng), "python-requests/2.31.0");
            let reply = connection.call("GET", "/api/v3/account", &headers, b"")?;
            ensure!(reply.status == 401, "a bad key was answered {}", reply.status);
        }
    }
    Ok(u64::from(BAD_KEYS))
}
