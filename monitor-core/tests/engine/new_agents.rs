//! D6: keys that are used with another client program.

use std::net::Ipv4Addr;

use monitor_core::call::{ApiCall, Operation, Outcome};

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
