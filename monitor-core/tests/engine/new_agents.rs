//! D6: keys that are used with another client program.

use std::net::Ipv4Addr;

use monitor_core::call::{ApiCall, HeaderOrder, Operation, Outcome};

use crate::world::{DAY, HOUR, MINUTE, START, World, call, detectors, found, show, with_agent};

const SDK: &str = "ccxt/4.2.1 (linux; node 20.1)";

fn ip(key: u128) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, key as u8, 10)
}

fn asked(time: u64, key: u128, op: Operation, agent: &str) -> ApiCall {
    with_agent(call(time, Some(key), ip(key), op, Some(Outcome::Ok)), agent)
}

/// Forty keys with one library each, for three days.
fn habits(mut world: World) -> World {
    world.learning = true;
    for hour in 0..72 {
        for key in 0..40 {
            let agent = if key % 2 == 0 { SDK } else { "binance-go/1.0" };
            world.feed(&asked(START + hour * HOUR + key as u64, key, Operation::Read, agent));
        }
    }
    world.learning = false;
    world
}

#[test]
fn another_client_program_is_evidence_and_no_alert() {
    let mut world = habits(World::touchy(41, 0));
    world.feed(&asked(START + 3 * DAY, 4, Operation::Read, "python-requests/2.31.0"));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    // With a new kind of operation it is one.
    let mut world = habits(World::new(41, 0));
    let time = START + 3 * DAY;
    world.feed(&asked(time, 4, Operation::Transfer, "python-requests/2.31.0"));
    world.feed(&asked(time + MINUTE, 4, Operation::Withdraw, "python-requests/2.31.0"));
    let alert = world.alerts.last().expect("flagged");
    assert_eq!(detectors(alert), ["D6", "D9"]);
    let seen = found(&world.alerts, "D6")[0];
    assert!(seen.seen.contains("python-requests/2.31.0"), "{}", seen.seen);
    assert!(seen.evidence > 1.5, "{}", seen.evidence);
}

#[test]
fn new_network_and_new_program_together_are_no_alert() {
    let mut world = habits(World::touchy(42, 0));
    let mut moved = asked(START + 3 * DAY, 4, Operation::Read, "curl/8.0");
    moved.flow = call(0, None, Ipv4Addr::new(203, 0, 113, 9), Operation::Read, None).flow;
    world.feed(&moved);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

/// The evidence of D6, as it stands beside a withdrawal that alerts by itself.
fn evidence(world: &mut World, time: u64, key: u128, agent: &str) -> Option<f32> {
    world.alerts.clear();
    world.feed(&asked(time, key, Operation::Transfer, agent));
    found(&world.alerts, "D6").first().map(|finding| finding.evidence)
}

#[test]
fn an_update_of_a_library_is_no_news_and_a_movement_weighs_little() {
    let mut world = habits(World::touchy(43, 0));
    let time = START + 3 * DAY;
    assert_eq!(evidence(&mut world, time, 2, "ccxt/4.9.0 (linux; node 22.3)"), None);
    let first = evidence(&mut world, time, 6, "exchange-sdk/1.0").expect("new");
    for key in 10..20 {
        world.feed(&asked(time + HOUR, key, Operation::Read, "exchange-sdk/1.0"));
    }
    let late = evidence(&mut world, time + 2 * HOUR, 30, "exchange-sdk/1.0").expect("new to it");
    assert!(late < first / 3.0, "{late} {first}");
}

#[test]
fn a_young_key_shows_what_it_is_used_with() {
    let mut world = World::touchy(44, 0);
    for n in 0..200 {
        let agent = ["curl/8", "python/3", "go/1", SDK][n as usize % 4];
        world.feed(&asked(START + n * MINUTE, 4, Operation::Read, agent));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

/// The same call with its header fields in another order.
fn ordered(mut call: ApiCall, order: u32) -> ApiCall {
    call.request.as_mut().expect("has an agent").header_order = Some(HeaderOrder(order));
    call
}

/// Forty keys with programs of one name that write their fields alike, for three days; reads and trades
/// each in an order of their own.
fn orderly(mut world: World) -> World {
    world.learning = true;
    for hour in 0..72 {
        for key in 0..40 {
            for (op, order) in [(Operation::Read, 1), (Operation::Trade, 2)] {
                let time = START + hour * HOUR + key as u64;
                world.feed(&ordered(asked(time, key, op, SDK), order + 10 * (key as u32 % 20)));
            }
        }
    }
    world.learning = false;
    world
}

/// The evidence of D6 beside a transfer, which alerts by itself.
fn evidence_of(world: &mut World, time: u64, key: u128, order: u32) -> Option<f32> {
    world.alerts.clear();
    world.feed(&ordered(asked(time, key, Operation::Transfer, SDK), order));
    found(&world.alerts, "D6").first().map(|finding| finding.evidence)
}

#[test]
fn a_program_that_borrows_a_name_is_told_by_the_order_of_its_fields() {
    let mut world = orderly(World::touchy(45, 0));
    let time = START + 3 * DAY;
    assert_eq!(evidence_of(&mut world, time, 4, 41), None, "known");
    world.feed(&ordered(asked(time, 5, Operation::Read, SDK), 777));
    assert!(found(&world.alerts, "D6").is_empty(), "never alone: {}", show(&world.alerts));
    let evidence = evidence_of(&mut world, time + HOUR, 6, 778).expect("new to it");
    let seen = &found(&world.alerts, "D6")[0].seen;
    assert!(seen.contains("an order of header fields") && seen.contains("o_0000030a"), "{seen}");
    assert!(evidence > 0.5 && evidence <= 1.2, "{evidence}");
    // What many take up they were told to.
    for key in 10..20 {
        world.feed(&ordered(asked(time + 2 * HOUR, key, Operation::Read, SDK), 778));
    }
    let late = evidence_of(&mut world, time + 3 * HOUR, 30, 778).expect("new to it");
    assert!(late < evidence / 3.0, "{late} {evidence}");
}

#[test]
fn a_key_that_was_known_before_orders_were_told_has_no_news() {
    let mut world = habits(World::touchy(46, 0));
    let time = START + 3 * DAY;
    assert_eq!(evidence_of(&mut world, time, 8, 1), None);
    world.feed(&ordered(asked(time, 2, Operation::Read, SDK), 1));
    assert!(evidence_of(&mut world, time + HOUR, 2, 2).is_some());
}
