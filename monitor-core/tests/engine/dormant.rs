//! D4: keys that come back after months.

use std::net::Ipv4Addr;

use monitor_core::alert::Severity;
use monitor_core::call::{Operation, Outcome};

use crate::world::{DAY, HOUR, MINUTE, START, World, call, detectors, found, show};

const KEY: u128 = 77;
const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A host that is in use for `days`, and a key that was used at its beginning.
fn dormant(days: u64) -> World {
    let mut world = World::new(40, 3);
    world.learning = true;
    for n in 0..200 {
        let op = if n % 2 == 0 { Operation::Read } else { Operation::Trade };
        world.feed(&call(START + n * MINUTE, Some(KEY), HOME, op, Some(Outcome::Ok)));
    }
    others(&mut world, START + 4 * HOUR, days * 4);
    world.learning = false;
    world
}

/// One busy minute each six hours.
fn others(world: &mut World, from: u64, times: u64) {
    for n in 0..times {
        world.ordinary(from + n * 6 * HOUR, 1, 1.0);
    }
}

#[test]
fn a_dormant_key_that_trades_from_elsewhere_is_high() {
    let mut world = dormant(60);
    let thief = Ipv4Addr::new(192, 0, 2, 1);
    let back = START + 60 * DAY;
    world.feed(&call(back, Some(KEY), thief, Operation::Read, Some(Outcome::Ok)));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    world.feed(&call(back + MINUTE, Some(KEY), thief, Operation::Trade, Some(Outcome::Ok)));
    let alert = world.alerts.last().expect("flagged");
    assert_eq!((detectors(alert), alert.severity), (vec!["D4", "D5"], Severity::High));
    let seen = &found(&world.alerts, "D4")[0].seen;
    assert!(seen.contains("after 60 days without use"), "{seen}");
}

#[test]
fn a_dormant_key_that_withdraws_needs_nothing_else() {
    let mut world = dormant(60);
    let back = START + 60 * DAY;
    world.feed(&call(back, Some(KEY), HOME, Operation::Withdraw, Some(Outcome::Ok)));
    assert!(detectors(world.alerts.last().expect("flagged")).contains(&"D4"));
}

#[test]
fn a_report_each_quarter_is_no_alert() {
    let mut world = dormant(90);
    for quarter in 1..4 {
        let back = START + quarter * 90 * DAY;
        for n in 0..50 {
            let time = back + n * MINUTE / 10;
            world.feed(&call(time, Some(KEY), HOME, Operation::Read, Some(Outcome::Ok)));
        }
        world.learning = true;
        others(&mut world, back + HOUR, 89 * 4);
        world.learning = false;
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn time_that_nobody_watched_is_no_absence() {
    let mut world = dormant(1);
    world.engine = {
        let settings = monitor_core::engine::Settings {
            alert_evidence_min: 0.1,
            ..monitor_core::engine::Settings::default()
        };
        monitor_core::engine::Engine::new(settings)
    };
    world.ordinary(START, 60, 1.0);
    // The clock jumps, or the next capture is of another year.
    world.ordinary(START + 400 * DAY, 60, 1.0);
    world.ordinary(START, 60, 1.0);
    world.ordinary(START + 200 * DAY, 60, 1.0);
    assert!(found(&world.alerts, "D4").is_empty(), "{}", show(&world.alerts));
}
