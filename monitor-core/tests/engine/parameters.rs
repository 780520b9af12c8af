//! Parameters that an endpoint is not given.

use std::net::Ipv4Addr;

use monitor_core::alert::Entity;
use monitor_core::call::{ApiCall, Detail, Fields, KeyId, Operation, Outcome, Request};
use monitor_core::engine::{Engine, Settings};

use crate::world::{DAY, MINUTE, START, World, call, detectors, found, show};

const ORDER: &str = "/api/v3/order?symbol=BTCUSDT&side=BUY&timestamp=1&signature=[redacted]";

fn home(key: u128) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, key as u8, 7)
}

fn asked(time: u64, key: u128, method: &str, target: &str, fields: &[&str]) -> ApiCall {
    let op = if method == "GET" { Operation::Read } else { Operation::Trade };
    let path = target.split('?').next().unwrap_or_default();
    let fields = (!fields.is_empty()).then(|| Fields::from_iter(fields));
    ApiCall {
        request: Some(Request {
            method: method.into(),
            host: Some("api.example.com".into()),
            target: target.into(),
            path: path.into(),
            user_agent: None,
            header_order: None,
            body_bytes: 0,
        }),
        detail: fields.map(|fields| Box::new(Detail { fields: Some(fields), ..Detail::default() })),
        ..call(time, Some(key), home(key), op, Some(Outcome::Ok))
    }
}

/// Ten keys that trade and look at their orders for ten days, each in two ways.
fn settled(seed: u64, touchy: bool) -> World {
    let mut world = if touchy { World::touchy(seed, 0) } else { World::new(seed, 0) };
    world.engine.note_changes();
    world.learning = true;
    for n in 0..10 * 144 {
        let (time, key) = (START + n * 10 * MINUTE, u128::from(n % 10 + 1));
        world.feed(&asked(time, key, "POST", ORDER, &[]));
        world.feed(&asked(time, key, "POST", "/v1/orders", &["side", "symbol"]));
        world.feed(&asked(time, key, "GET", "/v1/orders?limit=100", &[]));
    }
    world.learning = false;
    world
}

const NOW: u64 = START + 10 * DAY;

fn raised(world: &World) -> usize {
    world.raised().iter().filter(|alert| detectors(alert).contains(&"D26")).count()
}

#[test]
fn a_field_of_the_servers_own_in_an_order() {
    for (target, fields) in [
        (format!("{ORDER}&feeTier=9"), &[][..]),
        ("/v1/orders".into(), &["symbol", "side", "feeTier"][..]),
    ] {
        let mut world = settled(80, false);
        world.feed(&asked(NOW, 3, "POST", &target, fields));
        assert_eq!(raised(&world), 1, "{}", show(&world.alerts));
        let alert = world.raised()[0];
        assert!(matches!(alert.entity, Entity::Key(KeyId(_))));
        assert!(alert.findings[0].seen.contains("feeTier"), "{}", alert.findings[0].seen);
    }
}

#[test]
fn reads_need_a_privilege_or_a_search() {
    let mut world = settled(81, false);
    world.feed(&asked(NOW, 3, "GET", "/v1/orders?limit=100&sort=asc", &[]));
    assert_eq!(raised(&world), 0, "a filter: {}", show(&world.alerts));
    world.feed(&asked(NOW + 2 * MINUTE, 4, "GET", "/v1/orders?limit=100&is_admin=1", &[]));
    assert_eq!(raised(&world), 1, "{}", show(&world.alerts));
    let mut world = settled(82, false);
    let search: Vec<String> = (0..40).map(|n| format!("p{n}=1")).collect();
    world.feed(&asked(NOW, 3, "GET", &format!("/v1/orders?{}", search.join("&")), &[]));
    assert_eq!(raised(&world), 1, "{}", show(&world.alerts));
}

#[test]
fn a_new_version_is_no_storm() {
    let mut world = settled(83, true);
    for n in 0..10 * 144 {
        let (time, key) = (NOW + n * 10 * MINUTE, u128::from(n % 10 + 1));
        world.feed(&asked(time, key, "POST", &format!("{ORDER}&selfTradePreventionMode=x"), &[]));
        world.feed(&asked(time, key, "POST", "/v2/orders", &["side", "leverage"]));
    }
    let told = raised(&world);
    assert!((1..=3).contains(&told), "{told}: {}", show(&world.alerts));
}

#[test]
fn what_an_endpoint_is_given_from_the_first_is_its_own() {
    let mut world = World::touchy(84, 0);
    for n in 0..2_000 {
        let (time, key) = (START + n * 10 * MINUTE, u128::from(n % 10 + 1));
        let odd = if n % 7 == 3 { "&stopPrice=1" } else { "" };
        world.feed(&asked(time, key, "POST", &format!("{ORDER}{odd}"), &[]));
    }
    assert_eq!(found(&world.alerts, "D26").len(), 0, "{}", show(&world.alerts));
}

#[test]
fn what_an_endpoint_is_given_is_known_after_a_restart() {
    let mut world = settled(88, false);
    let mut after = Engine::new(Settings::default());
    for (id, state) in world.engine.take_changes(usize::MAX).keys {
        after.restore_key(id, &state).expect("its own");
    }
    after.restore_common(&world.engine.save_common()).expect("its own");
    world.engine = after;
    world.feed(&asked(NOW, 3, "POST", "/v1/orders", &["symbol", "side"]));
    assert_eq!(raised(&world), 0, "{}", show(&world.alerts));
    world.feed(&asked(NOW + MINUTE, 3, "POST", "/v1/orders", &["symbol", "side", "feeTier"]));
    assert_eq!(raised(&world), 1, "{}", show(&world.alerts));
}
