//! What no client should do, and some will: no storm of alerts, no panic, no growth.

use std::net::Ipv4Addr;

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::{ApiCall, Operation, Outcome, Request, Response};
use monitor_core::engine::{Engine, Settings};
use monitor_core::time::EventTime;

use crate::theft;
use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, mixed, show};

/// A call with both halves, as an exchange sees it.
fn whole(time: u64, key: u128, path: &str, sizes: u64, latency_us: u64) -> ApiCall {
    let ip = Ipv4Addr::new(198, 51, 100, 7);
    let mut call = call(time, Some(key), ip, Operation::Trade, Some(Outcome::Ok));
    call.request = Some(Request {
        method: "POST".into(),
        host: Some("api.example.com".into()),
        target: path.into(),
        path: path.into(),
        user_agent: Some("client/1.0".into()),
        header_order: None,
        body_bytes: sizes,
    });
    call.response = Some(Response { status: Some(200), body_bytes: sizes, quota: None });
    call.latency_us = Some(latency_us);
    call
}

fn assert_sane(alerts: &[Alert]) {
    for alert in alerts {
        assert!((0.0..=1.0).contains(&alert.confidence), "{}", show(alerts));
        assert!(alert.findings.iter().all(|found| found.evidence.is_finite()), "{}", show(alerts));
    }
}

#[test]
fn a_million_endpoints_and_symbols_take_bounded_memory() {
    let mut world = World::new(60, 12);
    world.learning = true;
    world.ordinary(START, 1440, 1.0);
    world.learning = false;
    let mut bytes_at_half = 0;
    for n in 0..1_000_000_u64 {
        // Two seconds of simulated time a thousand calls: fast, and no attack by its rate alone.
        let time = START + DAY + n * SECOND / 500;
        let name = mixed(n);
        let mut call = whole(time, 77, &format!("/v1/{name:x}/{n}"), 100, 900);
        call.symbol = Some(format!("S{name:x}").as_str().into());
        call.object_ids = vec![format!("o{n}").as_str().into()];
        world.feed(&call);
        if n == 500_000 {
            bytes_at_half = world.engine.state_bytes();
        }
    }
    let bytes = world.engine.state_bytes();
    assert!(bytes <= bytes_at_half + bytes_at_half / 4 + 65_536, "{bytes_at_half} then {bytes}");
    assert!(bytes < 256 << 20, "{bytes}");
    assert!(world.raised().len() <= 20, "{} {}", world.raised().len(), show(&world.alerts));
    assert_sane(&world.alerts);
}

#[test]
fn a_flood_of_keys_and_addresses_takes_bounded_memory() {
    let settings = Settings {
        keys_max: 1_000,
        clients_max: 500,
        networks_max: 500,
        incidents_max: 100,
        ..Settings::default()
    };
    let mut world = World::new(61, 0);
    world.engine = Engine::new(settings);
    world.engine.note_changes();
    let mut bytes_at_half = 0;
    for n in 0..200_000_u64 {
        let ip = Ipv4Addr::from(mixed(n) as u32);
        let outcome = [Outcome::Ok, Outcome::BadKey, Outcome::PermissionDenied][n as usize % 3];
        let op = Operation::ALL[mixed(n) as usize % Operation::ALL.len()];
        let key = Some(u128::from(mixed(n)));
        world.feed(&call(START + n * SECOND / 100, key, ip, op, Some(outcome)));
        if n % 10_000 == 0 {
            let changes = world.engine.take_changes(usize::MAX);
            assert!(changes.keys.len() <= 1_000 && changes.gone.len() <= 1_000);
        }
        if n == 100_000 {
            bytes_at_half = world.engine.state_bytes();
        }
    }
    assert_eq!(world.engine.keys(), 1_000);
    let bytes = world.engine.state_bytes();
    assert!(bytes <= bytes_at_half + bytes_at_half / 4 + 65_536, "{bytes_at_half} then {bytes}");
    assert!(world.raised().len() <= 60, "{}", world.raised().len());
    assert!(world.engine.save_common().len() < 1 << 20);
}

#[test]
fn sizes_and_times_at_their_ends_do_no_harm() {
    let mut world = World::new(62, 12);
    world.learning = true;
    world.ordinary(START, 2 * 1440, 1.0);
    world.learning = false;
    let ends = [0, 1, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX - 1, u64::MAX];
    for n in 0..20_000_u64 {
        let pick = |salt: u64| ends[mixed(n ^ salt << 32) as usize % ends.len()];
        let time = START + 2 * DAY + n * SECOND;
        let key = world.clients[n as usize % 12].key;
        world.feed(&whole(time, key, "/v1/order", pick(1), pick(2)));
        if n % 1_000 == 0 {
            world.engine.handle_timeout(EventTime(pick(3)));
        }
    }
    // Each key calls once in twelve seconds, as ever: some may look new, none is a storm.
    assert!(world.raised().len() <= 12, "{} {}", world.raised().len(), show(&world.alerts));
    assert_sane(&world.alerts);
}

#[test]
fn times_from_anywhere_do_no_harm() {
    let mut world = World::new(63, 12);
    world.learning = true;
    world.ordinary(START, 1440, 1.0);
    world.learning = false;
    for n in 0..20_000_u64 {
        let time = match n % 4 {
            0 => mixed(n),
            1 => START + mixed(n) % DAY,
            2 => u64::MAX - mixed(n) % HOUR,
            _ => mixed(n) % HOUR,
        };
        let key = world.clients[n as usize % 12].key;
        world.feed(&whole(time, key, "/v1/order", 10, 10));
    }
    assert_sane(&world.alerts);
    assert!(world.raised().len() <= 60, "{}", world.raised().len());
    // Nothing is broken: back in time, the Engine goes on.
    world.alerts.clear();
    world.ordinary(START + 2 * DAY, 120, 1.0);
    assert!(world.raised().len() <= 12, "{}", show(&world.alerts));
}

#[test]
fn a_day_without_traffic_is_no_storm() {
    let mut world = World::new(64, 30);
    world.learning = true;
    world.ordinary(START, 4 * 1440, 1.0);
    world.learning = false;
    for quiet in [DAY, 3 * DAY, HOUR] {
        let from = START + 4 * DAY + quiet;
        for minute in 0..quiet / MINUTE {
            world.engine.handle_timeout(EventTime(START + 4 * DAY + minute * MINUTE));
        }
        world.ordinary(from, 240, 1.0);
        let severe = |alert: &&Alert| alert.severity >= Severity::High;
        assert_eq!(world.raised().into_iter().filter(severe).count(), 0, "{}", show(&world.alerts));
        assert!(world.raised().len() <= 1, "{}", show(&world.alerts));
    }
}

#[test]
fn the_clock_goes_hours_back_and_forward() {
    let mut world = World::new(65, 30);
    world.learning = true;
    world.ordinary(START, 4 * 1440, 1.0);
    world.learning = false;
    let mut time = START + 4 * DAY;
    for jump in [3_i64, -3, 12, -24, 24, -1, 1, 48, -48] {
        world.ordinary(time, 45, 1.0);
        time = (time + 45 * MINUTE).saturating_add_signed(jump * HOUR as i64);
    }
    assert!(world.raised().len() <= 1, "{}", show(&world.alerts));
}

#[test]
fn a_cold_key_is_known_again_and_no_flood_drives_it_out() {
    let mut world = World::new(66, 12);
    let settings = Settings { keys_max: 200, cold_keys_max: 1_000, ..Settings::default() };
    world.engine = Engine::new(settings);
    world.learning = true;
    world.ordinary(START, 8 * 1440, 1.0);
    // Real keys of others make it cold, and made-up ones come by the thousand.
    let mut time = START + 8 * DAY;
    for n in 0..30_000_u64 {
        let (key, calls) = if n < 600 { (n, 40) } else { (1 << 40 | n, 1) };
        for _ in 0..calls {
            time += SECOND / 50;
            let ip = Ipv4Addr::from(0x0a00_0000 + n as u32);
            world.feed(&call(time, Some(key.into()), ip, Operation::Read, Some(Outcome::Ok)));
        }
    }
    world.learning = false;
    assert_eq!(world.engine.keys(), 200);
    let cold = world.engine.cold_keys();
    assert!((400..=620).contains(&cold), "{cold}: of real keys alone");
    let id = call(0, Some(1002), Ipv4Addr::LOCALHOST, Operation::Read, None).key.unwrap().id;
    assert!(world.engine.view_key(id).is_none(), "it made room");
    theft(&mut world, time + HOUR, 1002);
    let spoke = detectors(world.alerts.last().expect("flagged"));
    for needed in ["D1", "D5", "D9"] {
        assert!(spoke.contains(&needed), "{spoke:?} {}", show(&world.alerts));
    }
    // And one that only comes back is no news.
    world.alerts.clear();
    let (key, ip) = (world.clients[4].key, world.clients[4].ip);
    for n in 0..20 {
        let time = time + 2 * HOUR + n * 20 * SECOND;
        world.feed(&call(time, Some(key), ip, Operation::Read, Some(Outcome::Ok)));
    }
    assert!(world.alerts.is_empty(), "{}", show(&world.alerts));
}
