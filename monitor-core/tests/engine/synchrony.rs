//! Many keys that do the same new thing at once, and crowds that have a reason.

use std::net::Ipv4Addr;

use monitor_core::alert::{Alert, Entity, Severity};
use monitor_core::call::{ApiCall, Operation, Outcome};

use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, show};

const KEYS: u32 = 60;

/// Ten days of ordinary life in which each key trades two of the usual pairs.
fn settled(seed: u64) -> World {
    let mut world = World::new(seed, KEYS);
    world.learning = true;
    for day in 0..10 {
        for n in 0..KEYS {
            for pair in 0..2 {
                let time = START + day * DAY + u64::from(n) * 20 * MINUTE + pair * MINUTE;
                let symbol = ["BTCUSDT", "ETHUSDT", "SOLUSDT"][(n as usize + pair as usize) % 3];
                let trade = trade(&world, n, time, symbol);
                world.feed(&trade);
            }
            // One pair that hardly anybody trades.
            let time = START + day * DAY + HOUR;
            let trade = trade(&world, n % 2, time + u64::from(n % 2) * HOUR, "VIABTC");
            world.feed(&trade);
        }
    }
    world.learning = false;
    world
}

/// As if by the client `n` from where it always is.
fn trade(world: &World, n: u32, time: u64, symbol: &str) -> ApiCall {
    let client = &world.clients[n as usize];
    let (key, ip) = (Some(client.key), client.ip);
    let mut call = call(time, key, ip, Operation::Trade, Some(Outcome::Ok));
    call.symbol = Some(symbol.into());
    call
}

fn from(call: ApiCall, ip: Ipv4Addr) -> ApiCall {
    let mut flow = (*call.flow).clone();
    flow.client = monitor_core::input::Endpoint::new(ip.into(), 50_000);
    ApiCall { flow: flow.into(), ..call }
}

fn of_d20(world: &World) -> Vec<&Alert> {
    world.raised().into_iter().filter(|alert| detectors(alert).contains(&"D20")).collect()
}

const NOW: u64 = START + 10 * DAY + 3 * HOUR;

/// Binance, 2018: phished accounts buy one illiquid pair within two minutes.
#[test]
fn many_accounts_that_buy_one_illiquid_pair_are_one_critical_alert() {
    let mut world = settled(40);
    for n in 0..31 {
        let bot = Ipv4Addr::new(203, 0, (n / 8) as u8, (113 + n) as u8);
        let bought = from(trade(&world, 20 + n, NOW + u64::from(n) * 4 * SECOND, "VIABTC"), bot);
        world.feed(&bought);
    }
    let alerts = of_d20(&world);
    let group = alerts.iter().find(|alert| matches!(alert.entity, Entity::Group(_)));
    let group = group.unwrap_or_else(|| panic!("{}", show(&world.alerts)));
    assert_eq!(group.severity, Severity::Critical);
    assert!(group.time.0 <= NOW + 2 * MINUTE, "while it runs: {}", group.time);
    assert!(group.explanation.contains("VIABTC"), "{}", group.explanation);
    let groups = alerts.iter().filter(|alert| matches!(alert.entity, Entity::Group(_))).count();
    assert_eq!(groups, 1);
}

/// The same from the owners' own machines: malware in a client package.
#[test]
fn very_many_from_home_are_flagged_too() {
    let mut world = settled(41);
    for n in 0..31 {
        let bought = trade(&world, 20 + n, NOW + u64::from(n) * 4 * SECOND, "VIABTC");
        world.feed(&bought);
    }
    assert_eq!(of_d20(&world).len(), 1, "{}", show(&world.alerts));
    assert_eq!(of_d20(&world)[0].severity, Severity::High);
}

#[test]
fn news_brings_regulars_and_newcomers_and_is_no_alert() {
    let mut world = settled(42);
    // Two thirds of all trade the pair already.
    for n in 0..KEYS {
        let traded = trade(&world, n, NOW + u64::from(n) * 3 * SECOND, "BTCUSDT");
        world.feed(&traded);
    }
    assert_eq!(of_d20(&world).len(), 0, "{}", show(&world.alerts));
}

#[test]
fn a_listing_is_new_to_everybody_and_no_alert() {
    let mut world = settled(43);
    for n in 0..KEYS {
        let traded = trade(&world, n, NOW + u64::from(n) * SECOND, "NEWUSDT");
        world.feed(&traded);
    }
    assert_eq!(of_d20(&world).len(), 0, "{}", show(&world.alerts));
}

/// 3Commas, 2022: keys of many owners from one network that none of them used.
#[test]
fn many_keys_from_one_new_network_are_one_critical_alert() {
    let mut world = settled(44);
    for n in 0..40 {
        let bot = Ipv4Addr::new(203, 0, 113, 9);
        let read = from(trade(&world, n, NOW + u64::from(n) * 5 * SECOND, "BTCUSDT"), bot);
        world.feed(&ApiCall { op: Operation::Read, symbol: None, ..read });
    }
    let alerts = of_d20(&world);
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert_eq!(alerts[0].entity, Entity::Network(Ipv4Addr::new(203, 0, 113, 0).into()));
    assert_eq!(alerts[0].severity, Severity::Critical);
}

#[test]
fn a_broker_that_moves_is_not_critical_and_a_network_of_many_is_quiet() {
    let mut world = World::new(45, 0);
    world.learning = true;
    let office = Ipv4Addr::new(198, 51, 100, 1);
    let cloud = Ipv4Addr::new(192, 0, 2, 1);
    let read = |key: u128, ip, time| call(time, Some(key), ip, Operation::Read, Some(Outcome::Ok));
    for hour in 0..48 {
        for n in 0..200u64 {
            let ip = if n < 20 { office } else { cloud };
            world.feed(&read(u128::from(n), ip, START + hour * HOUR + n * SECOND));
        }
    }
    world.learning = false;
    for n in 0..20u64 {
        world.feed(&read(u128::from(n), cloud, NOW + n * SECOND));
    }
    assert_eq!(of_d20(&world).len(), 0, "{}", show(&world.alerts));
    for n in 20..60u64 {
        world.feed(&read(u128::from(n), Ipv4Addr::new(203, 0, 113, 9), NOW + HOUR + n * SECOND));
    }
    assert_eq!(of_d20(&world).len(), 1, "{}", show(&world.alerts));
    assert_eq!(of_d20(&world)[0].severity, Severity::High, "one operator");
}

/// Binance, 2019: many accounts that have nothing in common withdraw at once.
#[test]
fn many_accounts_that_withdraw_at_once_are_one_critical_alert() {
    let mut world = settled(46);
    for n in 0..40 {
        let bot = Ipv4Addr::new(203, n as u8, 113, 9);
        let taken = from(trade(&world, n, NOW + u64::from(n) * 3 * SECOND, "BTC"), bot);
        world.feed(&ApiCall { op: Operation::Withdraw, symbol: None, ..taken });
    }
    let alerts = of_d20(&world);
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert!(matches!(alerts[0].entity, Entity::Group(_)));
    assert_eq!(alerts[0].severity, Severity::Critical);
    assert!(alerts[0].explanation.contains("a withdrawal"), "{}", alerts[0].explanation);
}

#[test]
fn roaming_keys_and_single_moves_are_quiet_and_floods_are_bounded() {
    let mut world = settled(47);
    // One by one over a day.
    for n in 0..KEYS {
        let moved = from(
            trade(&world, n, NOW + u64::from(n) * 24 * MINUTE, "BTCUSDT"),
            Ipv4Addr::new(203, 0, 113, n as u8),
        );
        world.feed(&moved);
    }
    assert_eq!(of_d20(&world).len(), 0, "{}", show(&world.alerts));
    // A key that is taken everywhere with any symbol.
    let before = world.engine.state_bytes();
    for n in 0..100_000u64 {
        let mut made_up = trade(&world, 3, NOW + 2 * DAY + n * SECOND / 100, "X");
        made_up.symbol = Some(format!("X{n}").into());
        world.feed(&made_up);
    }
    let grown = world.engine.state_bytes() - before;
    assert!(grown < 16_384 * 1024, "{grown}");
    assert!(world.engine.counters().across_evicted > 80_000);
    assert_eq!(of_d20(&world).len(), 0, "{}", show(&world.alerts));
}
