//! D18: keys that trade what they never traded.

use std::net::Ipv4Addr;

use monitor_core::alert::Severity;
use monitor_core::call::{ApiCall, Operation, Outcome};

use crate::world::{
    DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, found, show, with_agent, with_symbol,
};

fn order(time: u64, key: u128, symbol: &str) -> ApiCall {
    let ip = Ipv4Addr::new(198, 51, key as u8, 10);
    let call = call(time, Some(key), ip, Operation::Trade, Some(Outcome::Ok));
    with_symbol(with_agent(call, "ccxt/4.2.1"), symbol)
}

/// Thirty keys that trade two or three of the large pairs for ten days; one of them a small one.
fn market(mut world: World) -> World {
    world.learning = true;
    for hour in 0..240 {
        for key in 0..30 {
            let pair = ["BTCUSDT", "ETHUSDT", "SOLUSDT"][(key as usize + hour % 2) % 3];
            world.feed(&order(START + hour as u64 * HOUR + key as u64 * SECOND, key, pair));
        }
        if hour % 24 == 3 {
            world.feed(&order(START + hour as u64 * HOUR + MINUTE, 29, "THINUSDT"));
        }
    }
    world.learning = false;
    world
}

const NOW: u64 = START + 10 * DAY;

#[test]
fn a_run_of_orders_on_a_thin_pair_from_elsewhere_is_high() {
    let mut world = market(World::new(50, 0));
    for n in 0..60 {
        let mut order = order(NOW + n * 2 * SECOND, 4, "THINUSDT");
        order.flow = call(0, None, Ipv4Addr::new(203, 0, 113, 5), Operation::Read, None).flow;
        world.feed(&order);
    }
    let alert = world.alerts.last().expect("flagged");
    assert!(alert.severity >= Severity::High, "{}", show(&world.alerts));
    let ids = detectors(alert);
    assert!(ids.contains(&"D18") && ids.contains(&"D5"), "{ids:?}");
    let run = found(&world.alerts, "D18").into_iter().last().unwrap();
    assert!(run.seen.contains("THINUSDT") && run.evidence > 2.5, "{run:?}");
}

#[test]
fn a_few_orders_are_no_alert() {
    let mut world = market(World::touchy(51, 0));
    for n in 0..5 {
        world.feed(&order(NOW + n * MINUTE, 4, "THINUSDT"));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn what_many_trade_is_no_surprise() {
    let mut world = market(World::touchy(52, 0));
    // Key 0 trades two of the three large pairs.
    for n in 0..60 {
        world.feed(&order(NOW + n * MINUTE, 0, "SOLUSDT"));
    }
    assert!(found(&world.alerts, "D18").is_empty(), "{}", show(&world.alerts));
    // A listing: all take it up within an hour.
    for n in 0..600 {
        let key = u128::from(n % 20);
        world.feed(&order(NOW + DAY + n * 6 * SECOND, key, "LISTEDUSDT"));
    }
    let raised = world.raised().iter().filter(|alert| detectors(alert) == ["D18"]).count();
    assert_eq!(raised, 0, "{}", show(&world.alerts));
}

#[test]
fn a_cold_start_knows_no_thin_pairs() {
    let mut world = World::touchy(53, 0);
    for n in 0..2_000u64 {
        let symbol = format!("COIN{}USDT", n % 97);
        world.feed(&order(START + n * 20 * SECOND, u128::from(n % 7), &symbol));
    }
    assert!(found(&world.alerts, "D18").is_empty(), "{}", show(&world.alerts));
}
