//! Scanners and attacks in text, keys that go through objects, endpoints that become slow.

use std::net::Ipv4Addr;

use monitor_core::alert::{Alert, Entity, Severity};
use monitor_core::call::{ApiCall, Detail, Operation, Outcome, Payload, Request, Response};

use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, mixed, show};

const OWNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const BOT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

fn asked(time: u64, key: Option<u128>, ip: Ipv4Addr, path: &str, status: u16) -> ApiCall {
    let outcome = if status < 300 { Outcome::Ok } else { Outcome::Error };
    let request = Request {
        method: "GET".into(),
        host: None,
        target: path.into(),
        path: path.into(),
        user_agent: None,
        header_order: None,
        body_bytes: 0,
    };
    let response = Response { status: Some(status), body_bytes: 0, quota: None };
    ApiCall {
        request: Some(request),
        response: Some(response),
        ..call(time, key, ip, Operation::Read, Some(outcome))
    }
}

fn raised<'w>(world: &'w World, id: &str) -> Vec<&'w Alert> {
    world.raised().into_iter().filter(|alert| detectors(alert).contains(&id)).collect()
}

fn attack(time: u64, key: Option<u128>, kind: Payload, status: u16) -> ApiCall {
    let detail = Detail { payload: Some(kind), ..Detail::default() };
    ApiCall { detail: Some(Box::new(detail)), ..asked(time, key, BOT, "/search", status) }
}

#[test]
fn a_path_scan_is_one_low_alert() {
    let mut world = World::new(70, 0);
    for n in 0..500u64 {
        let word: String = n.to_string().bytes().map(|it| char::from(it + 49)).collect();
        world.feed(&asked(START + n * SECOND, None, BOT, &format!("/{word}"), 404));
    }
    let alerts = raised(&world, "D25");
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert_eq!((alerts[0].severity, alerts[0].entity), (Severity::Low, Entity::Client(BOT.into())));

    let mut world = World::new(71, 0);
    for path in ["/.env", "/.git/config", "/wp-login.php", "/actuator/env", "/phpmyadmin/"] {
        world.feed(&asked(START, None, BOT, path, 404));
    }
    assert_eq!(raised(&world, "D25").len(), 1, "{}", show(&world.alerts));
}

#[test]
fn orders_that_are_gone_and_browsers_are_no_scan() {
    let mut world = World::touchy(72, 0);
    for n in 0..500u64 {
        world.feed(&asked(START + n * SECOND, None, OWNER, &format!("/orders/{n}"), 404));
        world.feed(&asked(START + n * SECOND, None, OWNER, "/favicon.ico", 404));
    }
    assert_eq!(raised(&world, "D25").len(), 0, "{}", show(&world.alerts));
}

#[test]
fn attacks_in_text_grow_with_what_comes_of_them() {
    let mut world = World::new(73, 0);
    for n in 0..10 {
        world.feed(&attack(START + n * SECOND, None, Payload::Script, 400));
    }
    assert_eq!(raised(&world, "D25")[0].severity, Severity::Medium, "{}", show(&world.alerts));
    for n in 10..20 {
        world.feed(&attack(START + n * SECOND, None, Payload::Sql, 500));
    }
    assert_eq!(world.alerts.last().unwrap().severity, Severity::High);
    assert_eq!(world.raised().len(), 1, "{}", show(&world.alerts));

    // One text of a good key is evidence only.
    let mut world = World::new(74, 0);
    world.feed(&asked(START, Some(1), OWNER, "/search", 200));
    world.feed(&attack(START + SECOND, Some(1), Payload::Sql, 200));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn a_million_scanners_stay_in_their_room() {
    let mut world = World::new(75, 0);
    for n in 0..300_000u32 {
        let ip = Ipv4Addr::from(0x0a00_0000 + n);
        world.feed(&asked(START + u64::from(n) * SECOND / 1000, None, ip, "/.env", 404));
    }
    assert!(world.engine.state_bytes() < 8 << 20, "{}", world.engine.state_bytes());
}

fn object(time: u64, id: u64, status: u16) -> ApiCall {
    let mut call = asked(time, Some(1), OWNER, &format!("/orders/{id}"), status);
    call.object_ids = vec![id.to_string().into()];
    if status == 403 {
        call.outcome = Some(Outcome::PermissionDenied);
    }
    call
}

/// Two days in which a key looks at a few orders of its own.
fn reader(seed: u64) -> World {
    let mut world = World::new(seed, 0);
    for n in 0..2 * 1440u64 {
        let own = 70_000_000 + n / 10 * 137_731 + mixed(n / 10) % 1_000;
        world.feed(&object(START + n * MINUTE, own, 200));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    world
}

#[test]
fn a_key_that_goes_through_ids_is_flagged() {
    let mut world = reader(76);
    let now = START + 2 * DAY;
    for n in 0..60u64 {
        let status = if n % 3 == 0 { 200 } else { 403 };
        world.feed(&object(now + n * SECOND, 80_000_000 + n, status));
    }
    let alerts = raised(&world, "D11");
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert!(world.alerts.last().unwrap().severity >= Severity::High, "{}", show(&world.alerts));

    // Slowly, and everything is given out.
    let mut world = reader(77);
    for n in 0..400u64 {
        world.feed(&object(now + n * 5 * SECOND, 80_000_000 + n, 200));
    }
    assert_eq!(raised(&world, "D11").len(), 1, "{}", show(&world.alerts));
}

#[test]
fn a_backfill_of_ones_own_is_quiet() {
    let mut world = reader(78);
    for n in 0..2_000u64 {
        let own = 70_000_000 + n * 137_731 + mixed(n) % 1_000;
        world.feed(&object(START + 2 * DAY + n * SECOND / 2, own, 200));
    }
    assert_eq!(raised(&world, "D11").len(), 0, "{}", show(&world.alerts));
}

#[test]
fn an_endpoint_that_becomes_slow_is_one_low_alert() {
    let mut world = World::new(79, 0);
    let mut minute = |from: u64, latency_us: u64| {
        for n in 0..40u64 {
            let path = format!("/products/{n}/book");
            let mut call = asked(from + n * SECOND, None, OWNER, &path, 200);
            call.latency_us = Some(latency_us + mixed(from + n) % 3_000);
            world.feed(&call);
        }
    };
    for n in 0..30 * 60 {
        minute(START + n * MINUTE, 4_000);
    }
    for n in 0..15 {
        minute(START + 30 * HOUR + n * MINUTE, 400_000);
    }
    let alerts = raised(&world, "D27");
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert_eq!((alerts[0].severity, alerts[0].entity), (Severity::Low, Entity::Host));
    assert!(alerts[0].explanation.contains("/book"), "{}", alerts[0].explanation);
}
