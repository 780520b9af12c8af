//! What thieves do that is little each time.

use std::net::Ipv4Addr;

use monitor_core::alert::Entity;
use monitor_core::call::{ApiCall, Detail, Operation, Outcome};

use crate::world::{
    DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, found, mixed, show, with_agent,
};

const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const AWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn asked(time: u64, key: u128, ip: Ipv4Addr, op: Operation) -> ApiCall {
    call(time, Some(key), ip, op, Some(Outcome::Ok))
}

fn on_account(mut call: ApiCall, account: &str) -> ApiCall {
    let account = Some(account.into());
    call.detail = Some(Box::new(Detail { account, ..Detail::default() }));
    call
}

/// A key that trades each ten minutes from one place, for eight days.
fn trader(world: &mut World, key: u128) {
    world.learning = true;
    for n in 0..8 * 144 {
        world.feed(&asked(START + n * 10 * MINUTE, key, HOME, Operation::Trade));
    }
    world.learning = false;
}

#[test]
fn an_account_of_a_key_that_never_named_one() {
    let mut world = World::new(70, 0);
    trader(&mut world, 1);
    let time = START + 8 * DAY;
    world.feed(&on_account(asked(time, 1, HOME, Operation::Read), "someone"));
    world.feed(&asked(time + SECOND, 1, HOME, Operation::Trade));
    assert_eq!(world.alerts.len(), 0, "a first read of one: {}", show(&world.alerts));

    let mut world = World::new(71, 0);
    trader(&mut world, 1);
    world.feed(&on_account(asked(time, 1, HOME, Operation::Trade), "someone"));
    let alert = world.alerts.last().expect("flagged");
    assert_eq!(detectors(alert), ["D26"], "{}", show(&world.alerts));
    // Where keys often come to it, one more does not suffice.
    let mut world = World::new(72, 0);
    (1..40).for_each(|key| trader(&mut world, key));
    for key in 1..40u64 {
        let call = asked(time + key * HOUR, u128::from(key), HOME, Operation::Trade);
        world.feed(&on_account(call, &format!("own-{key}")));
    }
    let raised = world.raised().len();
    assert!((1..8).contains(&raised), "{raised}: {}", show(&world.alerts));
}

#[test]
fn a_broker_that_names_the_account_of_another() {
    let mut world = World::new(77, 0);
    world.learning = true;
    let account = |n: u64| format!("of-broker-{}", n % 40);
    for n in 0..9 * 144 {
        let time = START + n * 10 * MINUTE;
        world.feed(&on_account(asked(time, 1, HOME, Operation::Trade), &account(n)));
        world.feed(&on_account(asked(time, 2, AWAY, Operation::Trade), "of-2"));
        // Two keys of one broker act for the same accounts.
        world.feed(&on_account(asked(time + SECOND, 3, HOME, Operation::Trade), &account(n)));
    }
    world.learning = false;
    let time = START + 9 * DAY;
    for n in 0..50 {
        let call = asked(time + n * MINUTE, 1, HOME, Operation::Trade);
        world.feed(&on_account(call, &account(n)));
        let call = asked(time + n * MINUTE, 3, HOME, Operation::Trade);
        world.feed(&on_account(call, &account(n)));
    }
    world.feed(&on_account(asked(time + HOUR, 1, HOME, Operation::Trade), "one-more-of-its-own"));
    assert_eq!(world.alerts.len(), 0, "its own: {}", show(&world.alerts));
    world.feed(&on_account(asked(time + HOUR, 1, HOME, Operation::Trade), "of-2"));
    let alert = world.alerts.last().expect("flagged");
    assert_eq!(detectors(alert), ["D26"]);
    assert!(alert.findings[0].seen.contains("an account that k_"), "{}", show(&world.alerts));
}

#[test]
fn denials_that_go_on_for_hours() {
    let walk = |quarters: u64, before: u64| {
        let mut world = World::new(78, 0);
        trader(&mut world, 1);
        let mut ask = |quarter: u64, outcome| {
            for n in 0..24 {
                let time = START + 8 * DAY + quarter * 15 * MINUTE + n * 30 * SECOND;
                let mut call = asked(time, 1, HOME, Operation::Read);
                call.object_ids = vec![mixed(quarter * 100 + n).to_string().into()];
                call.outcome = Some(if n % 2 == 0 { outcome } else { Outcome::Ok });
                world.feed(&call);
            }
        };
        (0..before).for_each(|quarter| ask(quarter, Outcome::Error));
        (before..1000).for_each(|quarter| ask(quarter, Outcome::Ok));
        (1000..1000 + quarters).for_each(|quarter| ask(quarter, Outcome::Error));
        let of = |alert: &&monitor_core::alert::Alert| detectors(alert).contains(&"D11");
        world.alerts.iter().filter(of).filter(|it| it.time.0 > START + 18 * DAY).count()
    };
    assert_eq!(walk(2, 0), 0, "a client that is broken for half an hour");
    assert!(walk(8, 0) > 0, "hours of it");
    assert_eq!(walk(8, 400), 0, "as it did for days before");
}

#[test]
fn a_slow_key_used_in_two_places_in_turns() {
    let mut world = World::touchy(73, 0);
    trader(&mut world, 1);
    let time = START + 8 * DAY;
    for (n, ip) in [HOME, AWAY, HOME, AWAY].into_iter().enumerate() {
        world.feed(&asked(time + n as u64 * 3 * MINUTE, 1, ip, Operation::Trade));
    }
    let found = found(&world.alerts, "D7");
    assert!(found.iter().any(|it| it.evidence > 2.0), "{}", show(&world.alerts));
    assert!(found[0].seen.contains("a quarter of an hour"), "{}", found[0].seen);
}

#[test]
fn others_objects_in_order_between_looks_at_ones_own() {
    let mut world = World::new(74, 0);
    trader(&mut world, 1);
    let time = START + 8 * DAY;
    let look = |n: u64, object: u64, outcome| {
        let mut call = asked(time + n * 10 * SECOND, 1, HOME, Operation::Read);
        call.object_ids = vec![object.to_string().into()];
        call.outcome = Some(outcome);
        call
    };
    for n in 0..60 {
        world.feed(&look(2 * n, mixed(n % 4), Outcome::Ok));
        world.feed(&look(2 * n + 1, 7_000_000 + n, Outcome::Error));
    }
    let alert = world.alerts.last().expect("flagged");
    assert_eq!(detectors(alert), ["D11"], "{}", show(&world.alerts));

    // One's own only, and most of them fail.
    let mut world = World::new(75, 0);
    trader(&mut world, 1);
    for n in 0..120 {
        world.feed(&look(n, mixed(n % 4), Outcome::Error));
    }
    assert!(found(&world.alerts, "D11").is_empty(), "{}", show(&world.alerts));
}

#[test]
fn a_crowd_that_tries_few_keys_each_is_found() {
    let mut world = World::new(76, 12);
    world.learning = true;
    world.ordinary(START, 1440, 1.0);
    world.learning = false;
    for n in 0..600u64 {
        let bot = Ipv4Addr::from(0x5000_0000 + (n % 200) as u32 * 65_536);
        let key = 1 << 80 | u128::from(n);
        let time = START + DAY + n * 6 * SECOND;
        world.feed(&call(time, Some(key), bot, Operation::Read, Some(Outcome::BadKey)));
    }
    let raised = world.raised();
    assert_eq!(raised.len(), 2, "and again when it is ten times as large: {}", show(&world.alerts));
    assert!(raised[0].time.0 < START + DAY + 5 * MINUTE);
    assert!(matches!(raised[0].entity, Entity::Group(_)), "{:?}", raised[0].entity);
    assert_eq!(detectors(raised[0]), ["D3"]);
}

#[test]
fn one_thief_with_many_keys_leaves_room_in_the_budget_of_a_day() {
    let mut world = World::new(79, 0);
    world.learning = true;
    for n in 0..8 * 144 {
        for key in 1..=32 {
            let order = asked(START + n * 10 * MINUTE, key, HOME, Operation::Trade);
            world.feed(&with_agent(order, "bot/1.0"));
        }
    }
    world.learning = false;
    let steal = |world: &mut World, n: u64, agent: &str| {
        let ip = Ipv4Addr::new(203, 0, n as u8, 9);
        let time = START + 8 * DAY + n * 40 * MINUTE;
        let moved = asked(time, u128::from(n) + 1, ip, Operation::Transfer);
        world.feed(&with_agent(moved, agent));
    };
    (0..30).for_each(|n| steal(&mut world, n, "stealer/1.0"));
    assert_eq!(world.raised().len(), 10, "half of the budget: {}", show(&world.alerts));
    steal(&mut world, 31, "another/1.0");
    assert_eq!(world.raised().len(), 11, "what another does: {}", show(&world.alerts));
}
